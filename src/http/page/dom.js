// The page's only way to change itself: nothing is written that stands there already, so nothing flickers, and only text is
// written, so nothing an event carries becomes markup.

export const $ = id => document.getElementById(id);

export function text(node, value) {
  const wanted = String(value);
  if (node.textContent !== wanted) node.textContent = wanted;
}

// Like `text`, with what stands between two backticks as code: for herald's own words, never for what an event carries.
export function marked(node, value) {
  const parts = value.split(/`([^`]*)`/);
  if (node.textContent !== parts.join('')) node.replaceChildren(...parts.map((part, index) => (index % 2 ? make('code', {}, part) : part)));
}

export function attribute(node, name, value) {
  if (value === null || value === undefined || value === false) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
  } else if (node.getAttribute(name) !== String(value)) {
    node.setAttribute(name, value);
  }
}

export function classes(node, value) {
  if (node.className !== value) node.className = value;
}

export function show(node, shown) {
  if (node.hidden === shown) node.hidden = !shown;
}

// Sets a custom property; the style attribute itself is closed to the page by its policy.
export function property(node, name, value) {
  if (node.style.getPropertyValue(name) !== value) node.style.setProperty(name, value);
}

// Makes an element: `make('td', { class: 'n' }, 'text', child)`. Attributes that start with `on` are listeners.
export function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? '' : value);
  }
  node.append(...children.filter(child => child !== null && child !== undefined));
  return node;
}

// Brings the children of `parent` in line with `items`: known keys are updated in place, others made or removed.
export function list(parent, items, key, create, update) {
  const old = new Map([...parent.children].map(node => [node.dataset.key, node]));
  let place = parent.firstElementChild;
  for (const item of items) {
    const name = String(key(item));
    let node = old.get(name);
    if (node) {
      old.delete(name);
    } else {
      node = create(item);
      node.dataset.key = name;
    }
    update?.(node, item);
    if (node === place) place = place.nextElementSibling;
    else parent.insertBefore(node, place);
  }
  for (const node of old.values()) node.remove();
}

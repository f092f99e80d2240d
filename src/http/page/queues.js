// Every queue: its line in the chart and its row in the table, which is the chart's legend.

import { $, classes, list, make, property, show as display, text } from './dom.js';
import { address, get } from './api.js';
import { number, rate, span, time } from './format.js';
import { Chart, extend } from './chart.js';

let depth = null;
let rates = null;
let names = [];
let prefix = '';
let roles = [];
let data = { depth: [[]], rate: [[], [], []] };
let newest = 0;
const hidden = new Set();

export function start() {
  depth = new Chart($('chart-depth'), { height: 230, sync: 'herald', onHover: hover });
  rates = new Chart($('chart-rate'), { height: 84, sync: 'herald', bare: true });
  rates.setLines([
    { name: 'taken in', colour: '--q-events', shown: true },
    { name: 'settled', colour: '--ok', dashed: true, shown: true },
  ]);
  for (const choice of document.querySelectorAll('input[name="range"]')) {
    choice.addEventListener('change', () => [depth, rates].forEach(chart => chart.setRange(Number(choice.value))));
  }
}

function colourOf(queue, queues) {
  if (queue.role === 'events') return '--q-events';
  if (queue.role === 'dead') return '--q-dead';
  if (queue.role === 'hold') return queue.name.endsWith('.ably') ? '--q-hold-ably' : '--q-hold-expo';
  const retries = queues.filter(other => other.role === 'retry');
  return `--q-retry-${Math.min(4, retries.indexOf(queue))}`;
}

// Events first, what is dead last.
const ORDER = { events: 0, retry: 1, hold: 2, dead: 3 };
const sorted = queues => [...queues].sort((a, b) => ORDER[a.role] - ORDER[b.role]);

export function show(status) {
  if (status.queues.length === 0) return;
  const queues = status.queues;
  prefix = `${status.prefix}.`;
  roles = queues.map(queue => ({ name: queue.name, colour: colourOf(queue, queues) }));
  lines();
  list($('queues'), sorted(queues), queue => queue.name, queue => row(queue, colourOf(queue, queues)), (node, queue) => update(node, queue, status.at));
  const unmanaged = 'What RabbitMQ tells its management API only is unknown: set broker.management_url to see it.';
  text($('queues-note'), status.management ? `The management API says nothing: ${status.management}` : unmanaged);
  display($('queues-note'), !status.managed || Boolean(status.management));
}

const short = name => name.slice(prefix.length);

function row(queue, colour) {
  const box = make('input', {
    type: 'checkbox',
    checked: !hidden.has(queue.name),
    onchange: event => toggle(queue.name, event.target.checked),
  });
  const swatch = make('span', { class: 'swatch' });
  property(swatch, '--swatch', `var(${colour})`);
  const label = make('label', { title: queue.name }, box, swatch, make('span', {}, short(queue.name)));
  const cell = (name, wide) => make('td', { class: `n ${name}${wide ? ' wide' : ''}` });
  return make(
    'tr',
    {},
    make('td', {}, label, make('div', { class: 'note more' })),
    cell('ready'),
    cell('unacked'),
    cell('oldest'),
    cell('consumers', true),
    cell('in', true),
    cell('out', true),
  );
}

function update(node, queue, now) {
  const set = (name, value, words) => {
    const cell = node.querySelector(`.${name}`);
    text(cell, words);
    const wide = ['consumers', 'in', 'out'].includes(name) ? ' wide' : '';
    classes(cell, `n ${name}${wide}${value === null ? ' unknown' : ''}`);
  };
  set('ready', queue.ready, number(queue.ready));
  set('unacked', queue.unacked, number(queue.unacked));
  set('oldest', queue.ready === 0 ? 0 : queue.oldest, oldest(queue, now));
  set('consumers', queue.consumers, number(queue.consumers));
  set('in', queue.in_per_second, rate(queue.in_per_second));
  set('out', queue.out_per_second, rate(queue.out_per_second));
  const more = [
    queue.stuck > 0 ? `${number(queue.stuck)} cannot reach their dead-letter target` : '',
    queue.policy ? `policy ${queue.policy} may change what herald declared` : '',
  ].filter(Boolean);
  const place = node.querySelector('.more');
  text(place, more.join('; '));
  display(place, more.length > 0);
}

// How long what is ready has lain there, at most.
function oldest(queue, now) {
  if (queue.ready === 0) return 'none';
  return queue.oldest === null ? 'unknown' : span(now - queue.oldest);
}

function toggle(name, shown) {
  if (shown) hidden.delete(name);
  else hidden.add(name);
  names.forEach((line, index) => {
    if (line.queue === name) depth.showLine(index, shown);
  });
}

// One line of what is ready and one, dashed, of what is unacked for each queue.
function lines() {
  const wanted = roles.flatMap(({ name, colour }) => [
    { queue: name, name, colour, shown: !hidden.has(name) },
    { queue: name, name: `${name} unacked`, colour, dashed: true, shown: !hidden.has(name) },
  ]);
  if (JSON.stringify(wanted.map(line => line.name)) === JSON.stringify(names.map(line => line.name))) return;
  names = wanted;
  data = { depth: [[], ...names.map(() => [])], rate: [[], [], []] };
  newest = 0;
  depth.setLines(names);
}

export async function history() {
  const told = await get(address('/api/history', { after: newest }), true);
  if (told.at.length === 0 || names.length === 0) return;
  newest = told.at.at(-1);
  const seconds = told.at.map(at => at / 1000);
  const columns = roles.flatMap(({ name }) => {
    const queue = told.queues.indexOf(name);
    const nothing = seconds.map(() => null);
    return [told.ready[queue] ?? nothing, told.unacked[queue] ?? nothing];
  });
  data.depth = extend(data.depth, [seconds, ...columns]);
  data.rate = extend(data.rate, [seconds, told.taken, told.settled]);
  depth.setData(data.depth);
  rates.setData(data.rate);
}

const REST = 'Messages ready; dashed: taken, not settled';

function hover(index, columns) {
  if (index === null || index === undefined || columns[0][index] === undefined) return text($('readout'), REST);
  const parts = names
    .map((line, number_) => [line.name, columns[number_ + 1]?.[index]])
    .filter(([, value]) => value > 0)
    .map(([name, value]) => `${short(name)} ${number(value)}`);
  text($('readout'), `${time(columns[0][index] * 1000)}: ${parts.join(', ') || 'all empty'}`);
}

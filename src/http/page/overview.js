// The answer to "is anything stuck, why, and what do I do": banners, figures, connections, outcomes.

import { $, classes, list, make, marked, property, show, text } from './dom.js';
import { number, plural, rate, span, time, words } from './format.js';

let linkTrouble = null;
let told = [];

// What keeps the page from herald, as one more banner; `null`: nothing.
export function trouble(banner) {
  linkTrouble = banner;
  banners();
}

function banners() {
  const all = linkTrouble ? [{ level: 'bad', ...linkTrouble, key: 'link' }, ...told.filter(banner => banner.level !== 'ok')] : told;
  list($('banners'), all, banner => banner.key, create, (node, banner) => {
    // What operators have set is why the rest is as it is.
    classes(node, `banner ${banner.level}${/^(paused|held_)/.test(banner.key) ? ' loud' : ''}`);
    text(node.querySelector('.what'), banner.what);
    marked(node.querySelector('.do'), banner.do ?? '');
  });
}

function create(banner) {
  const node = make('div', { class: 'banner' }, make('span', { class: 'what' }), make('span', { class: 'do' }));
  if (banner.act) node.append(make('button', { type: 'button', class: 'small', onclick: banner.act.run }, banner.act.label));
  return node;
}

function render(status) {
  text($('who'), [status.instance, status.prefix === 'herald' ? '' : `prefix ${status.prefix}`, status.version].filter(Boolean).join(' · '));
  told = status.troubles.map(found => ({ ...found, what: found.since === null ? found.what : `${found.what} (since ${time(found.since)})` }));
  if (told.length === 0) told = [{ level: 'ok', key: 'ok', what: 'All is well', do: well(status) }];
  banners();
  figures(status);
  links(status.connections);
  outcomes(status.books, status.books_closed, uncounted(status));
}
export { render as show };

function well(status) {
  const ready = find(status, 'events')?.ready;
  if (!status.books || status.books.received === 0) return 'Events are taken in. None has come yet.';
  if (find(status, 'dead')?.ready > 0) return 'Events are taken in and delivered; dead letters wait below.';
  return ready > 0 ? 'Events are taken in and delivered.' : 'Everything that came has been dealt with.';
}

const find = (status, role) => status.queues.find(queue => queue.role === role);

function figures(status) {
  const events = find(status, 'events');
  const dead = find(status, 'dead');
  const later = status.queues.filter(queue => queue.role === 'retry' || queue.role === 'hold');
  const known = later.map(queue => queue.ready).filter(ready => ready !== null);
  text($('f-ready'), number(events?.ready));
  text($('f-ready-note'), putOff(known));
  text($('f-hand'), number(status.in_hand));
  text($('f-hand-note'), `of ${number(status.prefetch)} at most`);
  text($('f-in'), rate(status.rates.taken));
  text($('f-out'), rate(status.rates.settled));
  oldest(status, [events, ...later]);
  text($('f-dead'), number(dead?.ready));
  classes($('f-dead'), dead?.ready > 0 ? 'value bad' : 'value');
  text($('f-dead-note'), dead?.ready > 0 ? 'see below' : dead?.ready === 0 ? 'none' : '');
  const closed = status.books_closed;
  text($('f-books'), closed === null ? 'unknown' : closed ? 'closed' : 'NOT closed');
  classes($('f-books'), closed === null ? 'value' : closed ? 'value ok' : 'value bad');
  text($('f-books-note'), closed === null ? uncounted(status) : closed ? 'every event has one fate' : 'events without a fate, or with two');
}

function putOff(known) {
  const sum = known.reduce((all, ready) => all + ready, 0);
  if (known.length === 0) return '';
  return sum > 0 ? `+ ${number(sum)} to retry or held` : 'none to retry, none held';
}

function oldest(status, queues) {
  const empty = queues.every(queue => queue?.ready === 0);
  text($('f-oldest'), status.oldest_ms !== null ? span(status.oldest_ms) : empty ? 'none' : 'unknown');
  text($('f-oldest-note'), status.oldest_ms !== null ? 'at most, since it came' : empty ? 'nothing waits' : '');
}

const NAMES = { ably: 'Ably', expo: 'Expo', broker: 'RabbitMQ', store: 'Ledger', users: 'Users' };
const STATES = {
  ok: ['ok', 'ok'],
  down: ['bad', 'down'],
  throttled: ['warn', 'throttled'],
  refused: ['bad', 'refuses our credentials'],
  held: ['warn', 'held'],
  off: ['off', 'not configured'],
};

function links(connections) {
  list(
    $('links'),
    connections,
    connection => connection.name,
    connection =>
      make(
        'li',
        {},
        make('span', { class: 'name' }, NAMES[connection.name] ?? connection.name),
        make('span', {}, make('span', { class: 'chip' }), make('span', { class: 'note since' })),
        make('span', { class: 'act-place' }),
        make('span', { class: 'why' }),
      ),
    (node, connection) => {
      const [level, name] = STATES[connection.state] ?? ['off', connection.state];
      const chip = node.querySelector('.chip');
      classes(chip, `chip ${level}`);
      text(chip, name);
      text(node.querySelector('.since'), connection.since === null ? '' : ` since ${time(connection.since)}`);
      const waiting = connection.waiting > 0 ? `${plural(connection.waiting, 'event')} in hand for it` : '';
      text(node.querySelector('.why'), [connection.why, waiting].filter(Boolean).join('; '));
      show(node.querySelector('.why'), Boolean(connection.why || waiting));
    },
  );
}

// Why there are no books. Ten million rows take seconds.
function uncounted(status) {
  const away = status.connections.some(connection => connection.name === 'store' && connection.state !== 'ok');
  return away ? 'the ledger did not answer' : 'being counted';
}

function outcomes(books, closed, unknown) {
  if (books === null) {
    placeholder(unknown);
    text($('outcomes-total'), '');
    text($('books-line'), '');
    return;
  }
  if (books.received === 0) {
    placeholder('Nothing has come yet');
    text($('outcomes-total'), '');
    text($('books-line'), 'received 0');
    return;
  }
  const sum = counts => Object.values(counts).reduce((all, count) => all + count, 0);
  const group = (key, label, counts, kind) => [
    { key, label, count: sum(counts), kind, group: true },
    ...Object.entries(counts)
      .sort((a, b) => b[1] - a[1])
      .map(([name, count]) => ({ key: `${key} ${name}`, label: words(name), count, kind })),
  ];
  const rows = [
    ...group('done', 'Delivered', books.done, 'done'),
    ...group('skipped', 'Skipped', books.skipped, 'skipped'),
    ...group('dead', 'Dead', books.dead, 'dead'),
    { key: 'waiting', label: 'Waiting', count: books.waiting, kind: 'waiting', group: true },
  ];
  list($('outcomes'), rows, row => row.key, outcome, (node, row) => {
    text(node.querySelector('.n'), number(row.count));
    property(node.querySelector('.share > span'), '--share', `${((100 * row.count) / books.received).toFixed(2)}%`);
  });
  text($('outcomes-total'), `${number(books.received)} received`);
  const beside = [
    books.repeats > 0 ? `${plural(books.repeats, 'repeat')} suppressed or retried` : '',
    books.id_reused > 0 ? `${plural(books.id_reused, 'id')} reused with other content` : '',
  ].filter(Boolean);
  const ended = sum(books.done) + sum(books.skipped) + sum(books.dead);
  const line = `${number(books.received)} received ${closed ? '=' : '≠'} ${number(books.waiting)} waiting + ${number(ended)} ended`;
  text($('books-line'), [line, ...beside].join('; '));
}

function outcome(row) {
  return make(
    'tr',
    { class: row.group ? 'group' : 'part' },
    make('td', {}, row.label),
    make('td', {}, make('div', { class: 'share', 'aria-hidden': 'true' }, make('span', { class: row.kind }))),
    make('td', { class: 'n' }),
  );
}

function placeholder(words_) {
  list($('outcomes'), [words_], name => name, name => make('tr', { class: 'placeholder' }, make('td', { colspan: '3' }, name)));
}

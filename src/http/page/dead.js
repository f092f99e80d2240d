// Dead letters: by cause, one by one, and what can be done with them. Nothing is done without a preview.

import { $, classes, list, make, show, text } from './dom.js';
import { get, post, Refused } from './api.js';
import { number, plural, time, words } from './format.js';
import { preview } from './preview.js';
import * as letter from './letter.js';

const PAGE = 25;
const FIELDS = ['id', 'reason', 'event', 'session', 'user'];

let refresh = async () => {};
let filter = null;
let running = false;

export function start(refreshed) {
  refresh = refreshed;
  letter.start(act);
  $('replay-all').addEventListener('click', () => act('replay', {}, 'all dead letters'));
  $('drop-all').addEventListener('click', () => act('drop', {}, 'all dead letters'));
  $('letters-form').addEventListener('submit', event => {
    event.preventDefault();
    filter = asked();
    void letters(false);
  });
  $('replay-matching').addEventListener('click', () => act('replay', current(), 'the letters that match'));
  $('drop-matching').addEventListener('click', () => act('drop', current(), 'the letters that match'));
  $('sweep-stop').addEventListener('click', stop);
  $('letters-more').addEventListener('click', () => letters(true));
  $('letters-box').addEventListener('toggle', () => {
    if ($('letters-box').open && filter === null) {
      filter = asked();
      void letters(false);
    }
  });
}

const act = (action, which, title) => preview(action, which, title, refresh);

// What the form asks for.
function asked() {
  const form = new FormData($('letters-form'));
  return Object.fromEntries(FIELDS.map(name => [name, form.get(name).trim()]).filter(([, value]) => value !== ''));
}

// What the form asks for, as it is listed: a listing of letters without an event says so by an empty one.
function current() {
  const form = asked();
  const listed = Object.entries(filter ?? {}).filter(([, value]) => value !== '');
  return JSON.stringify(listed) === JSON.stringify(Object.entries(form)) ? (filter ?? form) : form;
}

export async function groups() {
  let told;
  try {
    told = await get('/api/dead', true);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    say($('dead-state'), error.words, true);
    show($('dead-table'), false);
    return;
  }
  const some = told.groups.length > 0;
  show($('dead-table'), some);
  show($('dead-state'), !some);
  say($('dead-state'), 'No dead letters: nothing has failed for good.', false);
  for (const button of [$('replay-all'), $('drop-all')]) show(button, some);
  list($('dead-groups'), told.groups, group => `${group.reason} ${group.event}`, row, (node, group) => {
    text(node.querySelector('.n'), number(group.letters));
    text(node.querySelector('.first'), time(group.oldest));
    text(node.querySelector('.last'), time(group.newest));
  });
  enable();
  list($('reasons'), [...new Set(told.groups.map(group => group.reason))], reason => reason, reason => make('option', { value: reason }));
}

// One sweep at a time: nothing else can be begun while one runs, and again as soon as it has ended.
function enable() {
  for (const button of [$('replay-all'), $('drop-all'), ...$('dead-groups').querySelectorAll('button.act')]) {
    if (button.disabled !== running) button.disabled = running;
  }
}

function row(group) {
  const which = { reason: group.reason, event: group.event ?? '' };
  const name = group.event ?? 'unreadable';
  const of = `${words(group.reason)}, ${name}`;
  const button = (label, action, danger) =>
    make(
      'button',
      { type: 'button', class: danger ? 'small act danger' : 'small act', 'aria-label': `${label} ${of}`, onclick: () => act(action, which, of) },
      label,
    );
  return make(
    'tr',
    {},
    make('td', {}, make('span', { class: 'chip bad' }, words(group.reason))),
    make('td', { class: 'mono' }, name),
    make('td', { class: 'n' }),
    make('td', { class: 'wide first' }),
    make('td', { class: 'wide last' }),
    make(
      'td',
      {},
      make(
        'div',
        { class: 'actions' },
        make('button', { type: 'button', class: 'small', 'aria-label': `Look at ${of}`, onclick: () => look(group) }, 'Look'),
        button('Replay…', 'replay', false),
        button('Drop…', 'drop', true),
      ),
    ),
  );
}

function look(group) {
  const form = $('letters-form');
  for (const name of FIELDS) form.elements[name].value = '';
  form.elements.reason.value = group.reason;
  form.elements.event.value = group.event ?? '';
  filter = group.event === null ? { reason: group.reason, event: '' } : asked();
  $('letters-box').open = true;
  void letters(false);
  $('letters-box').scrollIntoView({ block: 'nearest' });
}

let shown = [];

// Reads a page of letters; `older`: the next one, below what is shown.
async function letters(older) {
  if (!older) shown = [];
  say($('letters-state'), 'Loading…', false);
  show($('letters-state'), true);
  try {
    const below = older ? shown.at(-1)?.number : undefined;
    // An empty event means letters without one, so it is not left out.
    const query = new URLSearchParams({ ...filter, limit: PAGE, ...(below ? { below } : {}) });
    const told = await get(`/api/dead/letters?${query}`);
    shown = shown.concat(told.letters);
    say($('letters-state'), shown.length ? `${number(shown.length)} of ${plural(told.total, 'letter')}, newest first` : 'No letter matches.', false);
    show($('letters-more'), told.more);
  } catch (error) {
    say($('letters-state'), error instanceof Refused ? error.words : `herald did not answer: ${error.message}`, true);
  }
  show($('letters-table'), shown.length > 0);
  list($('letters'), shown, item => item.number, item =>
    make(
      'tr',
      {},
      make('td', {}, make('button', { type: 'button', class: 'text', onclick: () => letter.open(item.number) }, `#${item.number}`)),
      make('td', { class: 'mono' }, item.id),
      make('td', { class: 'wide mono' }, item.event ?? 'unreadable'),
      make('td', { class: 'wide mono' }, item.session_id ?? '–'),
      make('td', {}, words(item.reason)),
      make('td', { class: 'wide' }, time(item.failed_at)),
      make('td', { class: 'wide' }, item.error),
    ),
  );
}

function say(node, words_, wrong) {
  text(node, words_);
  classes(node, wrong ? 'state error' : 'state');
}

// Shows how far the running sweep is, or how the last one ended.
export function sweep(state) {
  const was = running;
  running = state?.state === 'running';
  enable();
  show($('sweep'), state !== null);
  if (was && !running && filter !== null && $('letters-box').open) void letters(false);
  if (state === null) return;
  classes($('sweep'), state.state === 'failed' ? 'sweep failed' : 'sweep');
  text($('sweep-words'), progress(state));
  show($('sweep-stop'), running);
  const bar = $('sweep-bar');
  show(bar, running);
  // The queue is gone through once: letters looked at say how far it is.
  const total = Math.max(1, state.total);
  if (bar.max !== total) bar.max = total;
  if (bar.value !== Math.min(state.looked, total)) bar.value = Math.min(state.looked, total);
}

// What is in hand is finished; the rest stays in the queue. Needs no preview: it only does less.
async function stop() {
  try {
    await post('/api/dead/stop', {});
    await refresh();
  } catch (error) {
    text($('sweep-words'), error instanceof Refused ? error.words : `herald did not answer: ${error.message}`);
  }
}

function progress(state) {
  const [doing, done] = state.action === 'replay' ? ['Replaying', 'Replayed'] : ['Dropping', 'Dropped'];
  const of = `${number(state.done)} of ${plural(state.wanted, 'letter')}`;
  const who = `for ${state.who}, begun ${time(state.started)}`;
  switch (state.state) {
    case 'running':
      return `${doing}: ${of} (${number(state.looked)} looked at) ${who}`;
    case 'done': {
      const missing = state.wanted - state.done;
      return `${done} ${of} ${who}, ended ${time(state.ended)}${missing > 0 ? `; ${number(missing)} had left the queue before` : ''}`;
    }
    default:
      return `${done} ${of} ${who}, then it ended at ${time(state.ended)}: ${state.error}. The rest is still there.`;
  }
}

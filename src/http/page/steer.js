// Pause and resume the intake, hold and release a provider, set the log filter; and what operators did.

import { $, attribute, classes, list, make, show as display, text } from './dom.js';
import { get, post, Refused } from './api.js';
import { number, time, words } from './format.js';
import { ask, start as startAsking } from './ask.js';

let refresh = async () => {};
let paused = false;
let filtered = false;

export function start(refreshed) {
  refresh = refreshed;
  startAsking();
  $('intake').addEventListener('click', () => (paused ? release('resume', null) : hold('pause', null)));
  $('log-level').addEventListener('click', () => (filtered ? resetLog() : setLog()));
}

const EFFECT = {
  pause: 'No worker takes events in any more. What is in hand is finished; everything else waits in the queues, in its order, until somebody resumes. Restarts change nothing about it.',
  resume: 'All workers take events in again.',
  hold: 'Nothing is sent to this provider. Its events wait in its hold queue and use up no attempt; the other provider goes on.',
  release: 'Events go to this provider again, those that waited for it too.',
};
const NAMES = { ably: 'Ably', expo: 'Expo' };

function hold(what, provider) {
  const why = make('input', { maxlength: '200', autocomplete: 'off' });
  const title = what === 'pause' ? 'Pause the intake?' : `Hold ${NAMES[provider]}?`;
  const body = make(
    'div',
    { class: 'ask' },
    make('p', {}, EFFECT[what]),
    make('label', { class: 'stacked' }, 'Why (for your colleagues)', why),
  );
  const run = () => steer({ what, provider, why: why.value.trim() || null });
  ask({ title, body: [body], label: what === 'pause' ? 'Pause' : 'Hold', run });
}

function release(what, provider) {
  const title = what === 'resume' ? 'Resume the intake?' : `Release ${NAMES[provider]}?`;
  ask({
    title,
    body: [make('p', {}, EFFECT[what])],
    label: what === 'resume' ? 'Resume' : 'Release',
    run: () => steer({ what, provider }),
  });
}

function setLog() {
  const levels = make('datalist', { id: 'log-levels' }, ...['warn', 'info', 'debug', 'trace', 'info,herald::worker=trace'].map(value => make('option', { value })));
  const filter = make('input', { list: 'log-levels', maxlength: '255', required: true, autocomplete: 'off', spellcheck: 'false' });
  const lasts = make('select', {}, ...[['10m', '10 minutes'], ['1h', 'an hour'], ['', 'until somebody resets it']].map(([value, name]) => make('option', { value }, name)));
  const body = make(
    'div',
    { class: 'ask' },
    make('p', {}, 'All workers log by this filter instead of log.level, without a restart.'),
    make('label', { class: 'stacked' }, 'Level, or a filter such as info,herald::worker=debug', filter),
    make('label', { class: 'stacked' }, 'For', lasts),
    levels,
  );
  const run = () => steer({ what: 'log_level', filter: filter.value.trim(), for: lasts.value || null });
  ask({ title: 'Set the log level?', body: [body], label: 'Set', run });
}

function resetLog() {
  const body = make('p', {}, 'Each worker logs by log.level of its own configuration again.');
  ask({ title: 'Reset the log level?', body: [body], label: 'Reset', run: () => steer({ what: 'log_level' }) });
}

async function steer(order) {
  await post('/api/steer', order);
  await refresh();
}

export function show(status) {
  paused = Boolean(status.steering?.paused);
  display($('intake'), status.steering !== null);
  text($('intake'), paused ? 'Resume intake…' : 'Pause intake…');
  filtered = Boolean(status.steering?.log);
  display($('log-level'), status.steering !== null);
  text($('log-level'), filtered ? 'Reset log level…' : 'Log level…');
  for (const provider of ['ably', 'expo']) {
    const place = document.querySelector(`#links [data-key="${provider}"] .act-place`);
    if (!place) continue;
    if (!place.firstChild) {
      place.append(make('button', { type: 'button', class: 'small act' }));
      place.firstChild.addEventListener('click', event =>
        event.target.dataset.held ? release('release', provider) : hold('hold', provider),
      );
    }
    const held = Boolean(status.steering?.held[provider]);
    const button = place.firstChild;
    text(button, held ? 'Release…' : 'Hold…');
    attribute(button, 'data-held', held ? 'yes' : null);
    attribute(button, 'aria-label', `${held ? 'Release' : 'Hold'} ${NAMES[provider]}`);
  }
}

export async function actions() {
  let told;
  try {
    told = await get('/api/actions', true);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    text($('actions-state'), error.words);
    classes($('actions-state'), 'state error');
    display($('actions-state'), true);
    display($('actions-table'), false);
    return;
  }
  const some = told.actions.length > 0;
  text($('actions-state'), 'Nobody has done anything yet.');
  classes($('actions-state'), 'state');
  display($('actions-state'), !some);
  display($('actions-table'), some);
  list($('actions'), told.actions, action => action.number, row, (node, action) => {
    text(node.querySelector('.n'), action.affected === null ? '–' : number(action.affected));
    text(node.querySelector('.outcome'), words(action.outcome));
  });
}

// With what: `provider expo`, `reason rejected`.
function details(action) {
  if (action.what === 'log_level' && !action.parameters.filter) return 'back to log.level';
  const set = Object.entries(action.parameters ?? {}).filter(([, value]) => value !== null);
  const said = set.map(([name, value]) => `${words(name)} ${typeof value === 'object' ? JSON.stringify(value) : value === '' ? 'unknown' : value}`);
  return [...said, action.why].filter(Boolean).join('; ');
}

function row(action) {
  const more = details(action);
  const what = make('td', {}, words(action.what), more ? make('div', { class: 'note' }, more) : null);
  return make(
    'tr',
    {},
    make('td', { class: 'when' }, time(action.at)),
    what,
    make('td', { class: 'n' }),
    make('td', { class: 'wide outcome' }),
    make('td', { class: 'wide' }, action.who),
  );
}

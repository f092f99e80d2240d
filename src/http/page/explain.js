// What became of an event and why: by its id, or the newest of a user or session.

import { $, make, show, text } from './dom.js';
import { address, get, Refused } from './api.js';
import { plural, span, time, words } from './format.js';

const BY = { id: 'event', user: 'user', session: 'session' };

export function start() {
  $('search').addEventListener('submit', event => {
    event.preventDefault();
    const value = $('search-for').value.trim();
    if (value) void search($('search-by').value, value);
  });
  $('explain-close').addEventListener('click', () => {
    show($('explain'), false);
    $('search-for').focus();
  });
}

export async function search(by, value) {
  $('search-by').value = by;
  $('search-for').value = value;
  text($('explain-title'), `What became of ${BY[by]} ${value}`);
  say('Loading…');
  show($('explain'), true);
  $('explain-title').focus();
  $('explain').scrollIntoView({ block: 'start' });
  try {
    const path = by === 'id' ? `/api/events/${encodeURIComponent(value)}` : address('/api/events', { [by]: value });
    render(await get(path));
  } catch (error) {
    say(error instanceof Refused ? error.words : `herald did not answer: ${error.message}`, 'state error');
  }
}

const say = (words_, kind = 'state') => $('explain-body').replaceChildren(make('p', { class: kind }, words_));

function render(answer) {
  if (answer.nothing) return say(answer.nothing);
  $('explain-body').replaceChildren(...answer.events.map(account), ...answer.letters.map(stray));
}

const LEVEL = { done: 'ok', waiting: 'warn', skipped: 'off', dead: 'bad' };

function facts(pairs) {
  const rows = pairs.filter(([, value]) => value);
  return make('dl', { class: 'facts' }, ...rows.flatMap(([name, value]) => [make('dt', {}, name), make('dd', {}, value)]));
}

function account(event) {
  const title = make(
    'div',
    { class: 'title' },
    make('h3', {}, `${event.event ?? 'unreadable message'} `, make('span', { class: 'mono dim' }, event.event_id)),
    make('span', { class: `chip ${LEVEL[event.state]}` }, event.state),
  );
  const whither = [event.session_id && `session ${event.session_id}`, event.partner_id ? `for ${event.partner_id}` : 'for nobody in particular'];
  return make(
    'article',
    { class: 'event' },
    title,
    make('p', { class: 'verdict' }, event.verdict),
    facts([
      ['Next', event.next],
      ['Where', whither.filter(Boolean).join(', ')],
      ['Received', received(event)],
      ['Presence', presence(event)],
      ['Push tokens', tokens(event.evidence)],
      ['Route', event.evidence.rule && `${event.route ? `${event.route}, because ` : ''}${event.evidence.rule}`],
      ...event.why_not.map(other => [`Not ${other.provider}`, other.because]),
      ['In hand of', event.in_hand?.owner],
      ['Dead letter', event.letter && `#${event.letter.number}${event.letter.ended ? `, ${event.letter.ended} ${time(event.letter.ended_at)}` : ''}`],
      ['Note', event.notes.join(' ')],
    ]),
    steps(event),
  );
}

function received(event) {
  const more = [
    event.repeats > 0 ? `came again ${plural(event.repeats, 'time')}` : '',
    event.id_reused > 0 ? `${event.id_reused} of them with other content` : '',
    event.replay > 0 ? `replayed ${plural(event.replay, 'time')}` : '',
  ].filter(Boolean);
  return [`${time(event.first_seen)}`, ...more].join(', ');
}

function presence(event) {
  const { evidence } = event;
  if (!evidence.presence) return '';
  return [
    words(evidence.presence),
    evidence.members > 0 ? plural(evidence.members, 'connection') : '',
    evidence.presence_at ? `as of ${time(evidence.presence_at)}` : '',
    event.presence_age_ms !== null && event.presence_age_ms !== undefined ? `${event.presence_age_ms} ms old when it was acted on` : '',
    evidence.presence_failure ? `the look-up failed: ${failure(evidence.presence_failure)}` : '',
  ]
    .filter(Boolean)
    .join(', ');
}

const failure = told => `${told.kind} (${told.code})${told.status ? `, status ${told.status}` : ''}${told.detail ? `: ${told.detail}` : ''}`;

function tokens(evidence) {
  const invalid = evidence.invalid_tokens > 0 ? [`${evidence.invalid_tokens} passed over because they are not Expo push tokens`] : [];
  return [...(evidence.tokens ?? []).map(token => `…${token}`), ...invalid].join(', ');
}

function steps(event) {
  if (event.attempts.length === 0) return make('p', { class: 'dim' }, 'Nothing was sent.');
  return make('ol', { class: 'steps', 'aria-label': 'Attempts' }, ...event.attempts.map(attempt => step(event, attempt)));
}

function step(event, attempt) {
  const target = event.targets[attempt.target];
  const whither = attempt.target === 'ably' ? 'the session channel' : `push token …${target?.token ?? '?'}`;
  const accepted = attempt.outcome === 'accepted';
  const level = accepted ? 'ok' : attempt.outcome === 'held' ? 'warn' : 'bad';
  const parts = [
    `#${attempt.attempt + 1} ${attempt.provider} to ${whither}: ${attempt.failure ? failure(attempt.failure) : attempt.outcome}`,
    attempt.held ? `because of ${words(attempt.held)}` : '',
    `${attempt.duration_ms} ms`,
    attempt.provider_id ? `id ${attempt.provider_id}` : '',
    accepted && target?.receipt ? `receipt: ${target.receipt}` : '',
  ];
  return make('li', { class: level }, make('span', { class: 'dim' }, `${time(attempt.at)}  `), parts.filter(Boolean).join(', '));
}

function stray(letter) {
  return make(
    'article',
    { class: 'event' },
    make('div', { class: 'title' }, make('h3', {}, `dead letter #${letter.number} `, make('span', { class: 'mono dim' }, letter.id))),
    make('p', { class: 'verdict' }, letter.verdict),
    facts([
      ['Next', letter.next],
      ['Cause', `${words(letter.reason)}: ${letter.error}`],
      ['Failed', `${time(letter.failed_at)} (${span(Date.now() - letter.failed_at)} ago)`],
    ]),
  );
}

// One dead letter: why it is one, what it carried (names and sizes; values stay where they are), what can be done.

import { $, make, text } from './dom.js';
import { get, Refused } from './api.js';
import { number, plural, time, words } from './format.js';
import * as explain from './explain.js';

let current = null;

export function start(act) {
  const dialog = $('letter');
  $('letter-close').addEventListener('click', () => dialog.close());
  const then = run => () => {
    const letter = current;
    dialog.close();
    run(letter);
  };
  $('letter-explain').addEventListener('click', then(letter => explain.search('id', letter.id)));
  $('letter-replay').addEventListener('click', then(letter => act('replay', { number: letter.number }, `letter #${letter.number}`)));
  $('letter-drop').addEventListener('click', then(letter => act('drop', { number: letter.number }, `letter #${letter.number}`)));
}

export async function open(number_) {
  const buttons = ['letter-explain', 'letter-replay', 'letter-drop'].map($);
  current = null;
  buttons.forEach(button => (button.disabled = true));
  text($('letter-title'), `Letter #${number_}`);
  $('letter-body').replaceChildren(make('p', { class: 'state' }, 'Loading…'));
  $('letter').showModal();
  $('letter-close').focus();
  try {
    const letter = await get(`/api/dead/letters/${number_}`);
    current = letter;
    buttons.forEach(button => (button.disabled = false));
    $('letter-body').replaceChildren(...account(letter));
  } catch (error) {
    const why = error instanceof Refused ? error.words : `herald did not answer: ${error.message}`;
    $('letter-body').replaceChildren(make('p', { class: 'error', role: 'alert' }, why));
  }
}

function facts(pairs) {
  const rows = pairs.filter(([, value]) => value !== null && value !== undefined && value !== '');
  return make('dl', { class: 'facts' }, ...rows.flatMap(([name, value]) => [make('dt', {}, name), make('dd', {}, value)]));
}

const mono = value => (value === null || value === undefined ? null : make('span', { class: 'mono' }, value));

function account(letter) {
  const fields = letter.body.fields.map(field => [field.name, field.value ?? `${field.kind}, ${plural(field.bytes, 'byte')}`]);
  const own = Object.entries(letter.headers).map(([name, value]) => [name, mono(String(value))]);
  const others = letter.other_headers.map(header => [header.name, `not shown, ${plural(header.bytes, 'byte')}`]);
  return [
    facts([
      ['Cause', make('span', { class: 'chip bad' }, words(letter.reason))],
      ['Error', letter.error],
      ['Event', mono(letter.event ?? 'unreadable')],
      ['Event id', mono(letter.id)],
      ['Session', mono(letter.session_id)],
      ['User', mono(letter.partner_id)],
      ['Missing', letter.route],
      ['Failed', `${time(letter.failed_at)}, after ${plural(letter.attempt, 'attempt')}${letter.replay ? `, replayed ${plural(letter.replay, 'time')} before` : ''}`],
      ['First received', letter.first_seen ? time(letter.first_seen) : null],
    ]),
    make('h3', {}, 'Body'),
    make('p', { class: 'note' }, `${plural(letter.body.bytes, 'byte')}${letter.content_type ? `, ${letter.content_type}` : ''}: ${letter.body.kind}. Values of data are not shown here: herald dead show ${number(letter.number)} prints them.`),
    facts(fields.map(([name, value]) => [mono(name), mono(value)])),
    make('h3', {}, 'Headers'),
    own.length + others.length ? facts([...own, ...others].map(([name, value]) => [mono(name), value])) : make('p', { class: 'dim' }, 'none'),
  ];
}

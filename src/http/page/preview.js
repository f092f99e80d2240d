// Replay or drop: says what would happen and waits for a yes to exactly that.

import { make, text } from './dom.js';
import { post } from './api.js';
import { number, plural, words } from './format.js';
import { ask, problem, ready } from './ask.js';

const EFFECT = {
  replay:
    'Each goes back to where it first came from and is delivered anew, with a new life. Only targets that have not accepted the event are sent to.',
  drop: 'They are deleted for good, from the queue and from the index. Their events stay in the ledger as dead.',
};

// `which`: a filter, or { number }. `title` names it. `done` is called once it has begun.
export function preview(action, which, title, done) {
  const count = make('p', { class: 'count', role: 'status' }, 'Counting…');
  const details = make('ul');
  const include = make('input', { type: 'checkbox', onchange: () => void look() });
  const pace = make(
    'select',
    {},
    make('option', { value: '10' }, '10 a second'),
    make('option', { value: '100', selected: true }, '100 a second'),
    make('option', { value: '' }, 'as fast as it goes'),
  );
  const choices =
    action === 'replay'
      ? [
          make('label', { class: 'choice' }, include, 'Replay also what has expired'),
          make('label', { class: 'stacked' }, 'At most', pace),
        ]
      : [];
  let shown = null;
  const verb = action === 'replay' ? 'Replay' : 'Drop';

  async function look() {
    shown = null;
    ready(false);
    try {
      const told = await post('/api/dead/preview', { action, which, ignore_expiry: include.checked });
      shown = told;
      text(count, told.count === 0 ? 'Nothing would happen: no letter matches' : `${verb} ${plural(told.count, 'letter')}`);
      const reasons = Object.entries(told.reasons).map(([reason, letters]) => `${number(letters)} ${words(reason)}`);
      const expired = told.expired > 0 ? [`${plural(told.expired, 'letter')} would expire at once and will stay`] : [];
      const over = told.matching - told.count - told.expired;
      const partial = over > 0 ? [`the newest of ${number(told.matching)}: more than one preview holds`] : [];
      details.replaceChildren(...[...reasons, ...expired, ...partial].map(line => make('li', {}, line)));
      ready(told.count > 0);
    } catch (error) {
      text(count, 'It is not known what would happen');
      problem(error);
    }
  }

  ask({
    title: `${verb} ${title}?`,
    body: [make('div', { class: 'ask' }, count, details, make('p', { class: 'dim' }, EFFECT[action]), ...choices)],
    label: verb,
    danger: action === 'drop',
    wait: true,
    once: true,
    run: async () => {
      const rate = action === 'replay' && pace.value ? Number(pace.value) : null;
      await post(`/api/dead/${action}`, { preview: shown.preview, rate });
      await done();
    },
  });
  void look();
}

// Keeps the page true: asks for the state of things every two seconds and hands it round. Only this file polls.

import { $, attribute, show, text } from './dom.js';
import { get, Lost, Refused } from './api.js';
import { time } from './format.js';
import * as token from './token.js';
import * as overview from './overview.js';
import * as queues from './queues.js';
import * as dead from './dead.js';
import * as explain from './explain.js';
import * as steer from './steer.js';

const EVERY = 2000;

let lastGood = null;
let sampled = null;
let prompted = false;
let timer = null;
let polling = false;

function link(state, words) {
  attribute(document.body, 'data-link', state);
  text($('link'), words);
}

async function poll() {
  if (polling) return;
  polling = true;
  clearTimeout(timer);
  try {
    if (!document.hidden) await look();
  } finally {
    polling = false;
    timer = setTimeout(poll, EVERY);
  }
}

async function look() {
  try {
    const status = await get('/api/status', true);
    const fresh = status.sampled_at !== sampled;
    overview.show(status);
    queues.show(status);
    dead.sweep(status.sweep);
    steer.show(status);
    if (fresh) {
      await Promise.all([queues.history(), dead.groups(), steer.actions()]);
      sampled = status.sampled_at;
    }
    lastGood = Date.now();
    link('live', 'live');
    overview.trouble(null);
  } catch (error) {
    lost(error);
  }
}

function lost(error) {
  if (error instanceof Refused && error.status === 401) {
    link('lost', 'locked');
    overview.trouble({ what: 'This herald asks for its admin token', do: '', act: { label: 'Enter it…', run: unlock } });
    if (!prompted) {
      prompted = true;
      void unlock();
    }
  } else if (error instanceof Refused) {
    link('lost', 'refused');
    overview.trouble({ what: error.message, do: error.remedy ?? '' });
  } else {
    if (!(error instanceof Lost)) console.error(error);
    const since = lastGood === null ? 'it has not answered yet' : `what is shown is of ${time(lastGood)}`;
    link('lost', 'disconnected');
    overview.trouble({
      what: `Not connected to herald: ${since}`,
      do: 'Asked again every two seconds. Is the worker running? `herald status` asks broker and ledger without it.',
    });
  }
}

async function unlock() {
  try {
    await get('/api/status');
    await poll();
  } catch {
    // Said by the banner already.
  }
}

export const refresh = () => {
  sampled = undefined;
  return poll();
};

token.start();
explain.start();
queues.start();
dead.start(refresh);
steer.start(refresh);
document.addEventListener('visibilitychange', poll);
document.addEventListener('keydown', event => {
  const typing = event.target instanceof HTMLInputElement || event.target instanceof HTMLSelectElement;
  if (event.key === '/' && !typing && !event.ctrlKey && !event.metaKey && !document.querySelector('dialog[open]')) {
    event.preventDefault();
    $('search-for').focus();
  }
});
show($('intake'), false);
void poll();

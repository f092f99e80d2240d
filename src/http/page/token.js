// Asks for the admin token, one dialog for everybody who needs it.

import { $, show, text } from './dom.js';
import { onTokenNeeded, token } from './api.js';

let waiting = null;

export function start() {
  const dialog = $('token');
  let given = null;
  $('token-form').addEventListener('submit', () => {
    given = $('token-input').value;
  });
  $('token-cancel').addEventListener('click', () => dialog.close());
  dialog.addEventListener('close', () => {
    const { resolve } = waiting;
    waiting = null;
    $('token-input').value = '';
    const value = given;
    given = null;
    resolve(value || null);
    show($('forget-token'), Boolean(value));
  });
  $('forget-token').addEventListener('click', () => {
    token.forget();
    show($('forget-token'), false);
  });
  show($('forget-token'), token.get() !== null);
  onTokenNeeded(wrong => {
    if (waiting) return waiting.promise;
    const { promise, resolve } = Promise.withResolvers();
    waiting = { promise, resolve };
    text($('token-why'), 'It is needed to change anything, and beyond this machine also to look.');
    text($('token-error'), 'herald refused that token.');
    show($('token-error'), wrong);
    dialog.showModal();
    $('token-input').focus();
    return promise;
  });
}

// One dialog for everything that changes something: what would happen first, then a button that does it.

import { $, classes, show, text } from './dom.js';
import { Refused } from './api.js';

let current = null;

// Opens the dialog. `question`: { title, body (nodes), label, danger, run (async; throws Refused to stay open) }.
export function ask(question) {
  const dialog = $('ask');
  current = question;
  text($('ask-title'), question.title);
  $('ask-body').replaceChildren(...question.body);
  text($('ask-do'), question.label);
  classes($('ask-do'), question.danger ? 'danger' : '');
  $('ask-do').disabled = Boolean(question.wait);
  show($('ask-error'), false);
  if (!dialog.open) dialog.showModal();
  (dialog.querySelector('#ask-body input, #ask-body select') ?? $('ask-cancel')).focus();
}

// Says whether the button may be pressed.
export const ready = yes => {
  $('ask-do').disabled = !yes;
};

export function problem(error) {
  text($('ask-error'), error instanceof Refused ? error.words : `herald did not answer: ${error.message}`);
  show($('ask-error'), true);
}

export function start() {
  $('ask-cancel').addEventListener('click', () => $('ask').close());
  $('ask').addEventListener('close', () => {
    // Told late: another question may have been asked by then.
    if ($('ask').open) return;
    current = null;
    $('ask-body').replaceChildren();
  });
  $('ask-form').addEventListener('submit', async event => {
    event.preventDefault();
    const question = current;
    if (!question) return;
    ready(false);
    show($('ask-error'), false);
    try {
      await question.run();
      if (current !== question) return;
      current = null;
      $('ask').close();
    } catch (error) {
      if (current !== question) return;
      problem(error);
      ready(!question.once);
    }
  });
}

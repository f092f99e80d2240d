// Everything by keyboard alone: every control is reached in order and seen, dialogs keep the focus and give it back.

import assert from 'node:assert/strict';
import { shown, until } from './browser.mjs';
import { world } from './world.mjs';

const focused = page =>
  page.evaluate(() => {
    const node = document.activeElement;
    const style = getComputedStyle(node.matches('.range input') ? node.nextElementSibling : node);
    return {
      name: node.id || node.getAttribute('aria-label') || node.textContent.trim() || node.name,
      tag: node.tagName,
      seen: node.matches(':focus-visible') && style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 1,
      labelled: Boolean(node.labels?.length || node.getAttribute('aria-label') || node.textContent.trim()),
    };
  });

async function tabTo(page, name, most = 90) {
  for (let step = 0; step < most; step++) {
    await page.keyboard.press('Tab');
    const at = await focused(page);
    if (at.name === name || at.name.startsWith(name)) return at;
  }
  throw new Error(`Tab never comes to ${name}`);
}

export async function keyboard(page) {
  await page.evaluate(() => {
    document.activeElement.blur();
    scrollTo(0, 0);
  });
  const names = [];
  for (let step = 0; step < 60; step++) {
    await page.keyboard.press('Tab');
    const at = await focused(page);
    if (at.tag === 'BODY') break;
    assert.ok(at.seen, `the focus on ${at.name} is not seen`);
    assert.ok(at.labelled, `${at.name} has no label`);
    names.push(at.name);
  }
  const order = ['Skip to the state of things', 'search-by', 'search-for', 'Explain', 'intake', 'replay-all', 'drop-all'];
  assert.deepEqual(names.filter(name => order.includes(name)), order);
  for (const name of ['Hold Ably', 'Hold Expo', 'Look at rejected, partner.advanced', 'Replay… rejected, partner.advanced']) {
    assert.ok(names.includes(name), `${name} is not reached: ${names}`);
  }

  // The search by its shortcut, and back.
  await page.keyboard.press('/');
  assert.equal((await focused(page)).name, 'search-for');
  await page.keyboard.type('refused-1');
  await page.keyboard.press('Enter');
  await until('it is explained', async () => /replayed 1 time/.test(await shown(page, 'explain-body')));
  assert.equal((await focused(page)).name, 'explain-title');
  await tabTo(page, 'explain-close');
  await page.keyboard.press('Enter');
  assert.equal((await focused(page)).name, 'search-for');

  // A preview: the focus is inside, Escape gives it back, nothing happened.
  await tabTo(page, 'Replay… rejected, partner.advanced');
  await page.keyboard.press('Enter');
  await until('what would happen is said', async () => /Replay 2 letters/.test(await shown(page, 'ask-body')));
  for (let step = 0; step < 8; step++) {
    assert.ok(await page.evaluate(() => document.querySelector('#ask').contains(document.activeElement) || document.activeElement === document.body));
    await page.keyboard.press('Tab');
  }
  await page.keyboard.press('Escape');
  assert.equal((await focused(page)).name, 'Replay… rejected, partner.advanced');
  assert.equal(await world('letters'), 2);

  // And done.
  await page.keyboard.press('Enter');
  await until('what would happen is said', async () => /Replay 2 letters/.test(await shown(page, 'ask-body')));
  await tabTo(page, 'ask-do', 12);
  await page.keyboard.press('Enter');
  await until('it is done', async () => (await shown(page, 'sweep-words')).startsWith('Replayed 2 of 2 letters'));
  await world('delivered', { id: 'refused-0' });

  // For what follows: letters that stay.
  await world('refuse', { contains: 'refused' });
  await world('send', { id: 'refused-again', event: 'session.paused', count: 2 });
  await world('until', { id: 'refused-again-1', state: 'dead' });
  await until('they are told', async () => /session\.paused/.test(await shown(page, 'dead-groups')));
}

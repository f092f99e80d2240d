// Dead letters by cause: one looked at and replayed, a group dropped; nothing without a preview.

import assert from 'node:assert/strict';
import { picture, shown, until } from './browser.mjs';
import { world } from './world.mjs';

const group = (page, cause) => page.locator('#dead-groups tr', { hasText: cause });
const ended = (page, words) => until(words, async () => (await shown(page, 'sweep-words')).startsWith(words));

export async function deadLetters(page) {
  await world('refuse', { contains: 'refused' });
  await world('send', { id: 'refused', event: 'partner.advanced', count: 3 });
  for (const id of ['garbled-0', 'garbled-1']) await world('publish', { id, body: '{"event": 5}' });
  await world('until', { id: 'refused-2', state: 'dead' });
  await world('until', { id: 'garbled-1', state: 'dead' });
  await until('two causes are told', async () => (await page.locator('#dead-groups tr').count()) === 2);
  assert.equal((await group(page, 'rejected').locator('.n').textContent()).trim(), '3');
  assert.match(await group(page, 'malformed').textContent(), /unreadable/);
  await until('the page names it', async () => (await shown(page, 'f-dead')) === '5');
  await until('and what to do', async () => (await page.locator('#banners code').allTextContents()).includes('herald dead replay'));

  // One letter, looked at: names and sizes of what it carries, no values of data.
  await group(page, 'rejected').locator('button:text-is("Look")').click();
  await until('its letters are listed', async () => (await page.locator('#letters tr').count()) === 3);
  await until('the ledger was counted', async () => /rejected/.test(await shown(page, 'outcomes')));
  await picture(page, 'busy-light');
  const row = page.locator('#letters tr', { hasText: 'refused-1' });
  await row.locator('button').click();
  await until('the letter is shown', async () => /herald-reason/.test(await shown(page, 'letter-body')));
  const letter = await shown(page, 'letter-body');
  for (const word of ['rejected', 'partner.advanced', 'refused-1', 'data.stage', 'number, 1 byte', 'herald-attempt']) {
    assert.ok(letter.includes(word), `${word} is not in ${letter}`);
  }

  // Replayed, once the cause is gone: it arrives.
  await world('mend');
  await page.click('#letter-replay');
  await until('what would happen is said', async () => /Replay 1 letter/.test(await shown(page, 'ask-body')));
  await picture(page, 'letter-preview');
  assert.equal(await world('letters'), 5, 'a preview does nothing');
  await page.click('#ask-do');
  await ended(page, 'Replayed 1 of 1 letter');
  await world('delivered', { id: 'refused-1' });
  await until('the group is smaller', async () => (await group(page, 'rejected').locator('.n').textContent()).trim() === '2');

  // A group dropped, after a preview that was cancelled once.
  const drop = () => group(page, 'malformed').locator('button.danger').click();
  await drop();
  await until('what would happen is said', async () => /Drop 2 letters/.test(await shown(page, 'ask-body')));
  await page.click('#ask-cancel');
  assert.equal(await world('letters'), 4, 'cancelled');
  await drop();
  await until('what would happen is said', async () => /Drop 2 letters/.test(await shown(page, 'ask-body')));
  await picture(page, 'drop-preview');
  await page.click('#ask-do');
  await ended(page, 'Dropped 2 of 2 letters');
  await until('the group is gone', async () => (await page.locator('#dead-groups tr').count()) === 1);
  assert.equal(await world('ready', { queue: 'dead' }), 2, 'the queue itself has only the other letters');
  await until('it stands in the record', async () => /replay/.test(await shown(page, 'actions')) && /drop/.test(await shown(page, 'actions')));
  assert.match(await shown(page, 'actions'), /page 127\.0\.0\.1/);
}

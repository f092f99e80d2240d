// Pausing the intake stops it and is shown loudly, resuming continues it; a provider is held and released; the log level is set.

import assert from 'node:assert/strict';
import { cell, picture, shown, until } from './browser.mjs';
import { world } from './world.mjs';

async function answer(page, button, label) {
  await button.click();
  await until('it is asked', async () => (await shown(page, 'ask-do')) === label);
}

const chip = (page, name) => page.locator(`#links [data-key="${name}"] .chip`).textContent();
const button = (page, name) => page.locator(`#links [data-key="${name}"] button`);

export async function steering(page, broken) {
  await answer(page, page.locator('#intake'), 'Pause');
  await page.fill('#ask-body input', 'a test of the page');
  await picture(page, 'pause-dialog');
  await page.click('#ask-do');
  await until('it is shown loudly', async () => /paused/i.test(await shown(page, 'banners')));
  assert.match(await shown(page, 'banners'), /a test of the page/);
  await until('the worker takes nothing in', async () => /[Rr]esume/.test(await shown(page, 'intake')));
  await until('the worker says why', async () => page.evaluate(async () => /paused/.test((await (await fetch('/api/status')).json()).not_ready)));
  await world('send', { id: 'later', event: 'partner.signed_compact', user: 'ada', count: 5 });
  await until('they wait in the queue', async () => (await world('ready', { queue: 'events' })) === 5);
  await until('the page says so', async () => (await shown(page, 'f-ready')) === '5');
  await until('and since when', async () => /^\d+s$/.test(await cell(page, 'events', 'oldest')));
  await picture(page, 'paused-light');
  await answer(page, page.locator('#intake'), 'Resume');
  await page.click('#ask-do');
  await world('until', { id: 'later-4', state: 'done' });
  await until('it is no longer shown', async () => !/paused/i.test(await shown(page, 'banners')));

  await answer(page, button(page, 'expo'), 'Hold');
  await page.click('#ask-do');
  await until('Expo is held', async () => (await chip(page, 'expo')) === 'held');
  await world('send', { id: 'held', event: 'partner.signed_compact', user: 'ada', count: 2 });
  await until('they wait in the hold queue', async () => (await world('ready', { queue: 'hold.expo' })) === 2);
  await answer(page, button(page, 'expo'), 'Release');
  await page.click('#ask-do');
  await world('until', { id: 'held-1', state: 'done' });
  await until('Expo is released', async () => (await chip(page, 'expo')) === 'ok');

  await answer(page, page.locator('#log-level'), 'Set');
  broken.expect = /400 \(Bad Request\)/;
  await page.fill('#ask-body input', 'info,lapin=trace');
  await page.click('#ask-do');
  await until('what logs messages is refused', async () => /which log messages/.test(await shown(page, 'ask-error')));
  await picture(page, 'log-dialog');
  broken.expect = null;
  await page.fill('#ask-body input', 'debug');
  await page.click('#ask-do');
  await until('the filter is shown', async () => /log filter is `debug` by page 127\.0\.0\.1.*ends by itself/.test(await shown(page, 'banners')));
  await answer(page, page.locator('#log-level'), 'Reset');
  await page.click('#ask-do');
  await until('log.level counts again', async () => !/log filter/.test(await shown(page, 'banners')));
  for (const deed of ['pause', 'resume', 'hold', 'release', 'log level']) {
    await until(`${deed} stands in the record`, async () => (await shown(page, 'actions')).includes(deed));
  }
  const record = await shown(page, 'actions');
  for (const detail of ['provider expo', 'filter debug; seconds 600', 'back to log.level', 'a test of the page', 'event unknown; reason malformed']) {
    assert.ok(record.includes(detail), `${detail} is not in ${record}`);
  }
}

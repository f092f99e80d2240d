// An operator's shift, from an empty herald to a worker that is gone.

import assert from 'node:assert/strict';
import { PAGE, browse, cell, drawn, fits, picture, shown, until } from './browser.mjs';
import { end, world } from './world.mjs';
import { keyboard } from './keyboard.mjs';
import { deadLetters } from './dead.mjs';
import { steering } from './steering.mjs';

const live = page => until('the page is live', async () => (await shown(page, 'link')) === 'live');

async function empty(page) {
  await page.goto(PAGE);
  await live(page);
  await until('an hour-old herald would have a past', async () => (await drawn(page, 'chart-depth')) !== null);
  assert.match(await shown(page, 'banners'), /All is well.*None has come yet/);
  assert.match(await shown(page, 'dead-state'), /No dead letters/);
  assert.match(await shown(page, 'outcomes'), /Nothing has come yet/);
  assert.equal(await shown(page, 'f-oldest'), 'none');
  assert.equal(await cell(page, 'events', 'oldest'), 'none');
  await picture(page, 'empty-light');
}

// What does not change is not touched.
async function still(page) {
  await until('the management API knows every queue', async () => !(await page.locator('#queues td.unacked').allTextContents()).includes('unknown'));
  await page.evaluate(() => {
    window.touched = [];
    window.watching = new MutationObserver(records => {
      for (const record of records) window.touched.push(`${record.type} ${record.attributeName ?? ''} at ${(record.target.parentElement ?? record.target).outerHTML.slice(0, 160)}`);
    });
    window.watching.observe(document.documentElement, { subtree: true, childList: true, attributes: true, characterData: true });
  });
  const sampled = () => page.evaluate(async () => (await (await fetch('/api/status')).json()).sampled_at);
  const first = await sampled();
  let looks = 0;
  let last = first;
  await until('three more looks were shown', async () => {
    const now = await sampled();
    if (now !== last) [last, looks] = [now, looks + 1];
    return looks === 3;
  });
  await page.waitForResponse(answer => answer.url().includes('/api/history'));
  assert.deepEqual(await page.evaluate(() => window.touched), [], 'nothing was touched while nothing changed');
  await page.evaluate(() => window.watching.disconnect());
}

// What the chart says where the pointer is: at its newest point.
async function readOff(page) {
  const box = await page.locator('#chart-depth .u-over').boundingBox();
  const [right, y] = [box.x + box.width - 1, box.y + box.height / 2];
  await page.mouse.move(right - 30, y);
  await page.mouse.move(right, y);
  return shown(page, 'readout');
}

async function flowing(page) {
  await world('slow', { ms: 12000 });
  await world('enter', { session: 'here', user: 'ada' });
  await world('send', { id: 'seen', event: 'partner.advanced', session: 'here', user: 'ada', count: 3 });
  await world('send', { id: 'pushed', event: 'partner.signed_compact', user: 'ada', count: 40 });
  await world('send', { id: 'nobody', event: 'partner.signed_compact', user: 'eve', count: 4 });
  // Expo takes its time: what is in hand stands in the chart, and the pointer reads it off there.
  await until('the chart shows what is in hand', async () => /events unacked \d/.test(await readOff(page)));
  await world('mend');
  await until('everything is delivered', async () => /43\b/.test(await page.locator('#outcomes [data-key="done"] .n').textContent()));
  const count = async key => page.locator(`#outcomes [data-key="${key}"] .n`).textContent();
  assert.equal(await count('done realtime'), '3');
  assert.equal(await count('done push'), '40');
  assert.equal(await count('skipped no_token'), '4');
  assert.equal(await shown(page, 'f-books'), 'closed');
  assert.match(await shown(page, 'outcomes-total'), /47 received/);
  // The management API is configured, so it is known what is unacked everywhere.
  assert.notEqual(await cell(page, 'retry.1s', 'unacked'), 'unknown');
  const rates = await until('a rate was seen', async () =>
    page.evaluate(async () => {
      const { taken } = await (await fetch('/api/history')).json();
      return taken.some(rate => rate > 0) && taken;
    }),
  );
  assert.ok(rates.length > 2);
}

async function explain(page) {
  await page.fill('#search-for', 'pushed-7');
  await page.press('#search-for', 'Enter');
  const body = page.locator('#explain-body');
  await until('it is explained', async () => /push/.test(await body.textContent()));
  const told = await body.textContent();
  for (const word of ['partner.signed_compact', 'pushed-7', 'done', 'absent', '…7890', 'accepted', 'session pushed-7', 'for ada']) {
    assert.ok(told.includes(word), `${word} is not in ${told}`);
  }
  assert.ok(!told.includes('adasphone'), 'a push token is never shown whole');
  await page.selectOption('#search-by', 'user');
  await page.fill('#search-for', 'eve');
  await page.press('#search-for', 'Enter');
  await until('the user is explained', async () => (await body.locator('article').count()) === 4);
  assert.match(await body.textContent(), /no push token|no token/);
  await page.selectOption('#search-by', 'id');
  await page.fill('#search-for', 'never/sent?');
  await page.press('#search-for', 'Enter');
  await until('what is not known is said', async () => /nothing in the ledger/.test(await body.textContent()));
  await page.fill('#search-for', 'pushed-7');
  await page.press('#search-for', 'Enter');
  await until('again', async () => /…7890/.test(await body.textContent()));
  await picture(page, 'explain-light');
  await page.click('#explain-close');
}

async function phone() {
  await browse({ viewport: { width: 360, height: 780 }, isMobile: true, hasTouch: true, deviceScaleFactor: 2 }, async page => {
    await page.goto(PAGE);
    await live(page);
    await until('the chart is there', async () => (await drawn(page, 'chart-depth')) !== null);
    await picture(page, 'phone-light');
    await page.locator('#dead-groups button:text-is("Look")').first().click();
    await page.locator('#letters button').first().click();
    await until('the letter is there', async () => /Cause/.test(await shown(page, 'letter-body')));
    await picture(page, 'phone-letter');
    await page.click('#letter-close');
    await page.fill('#search-for', 'pushed-7');
    await page.press('#search-for', 'Enter');
    await until('it is explained', async () => /…7890/.test(await shown(page, 'explain-body')));
    await fits(page, 'explain on a phone');
  });
}

async function dark() {
  await browse({ colorScheme: 'dark' }, async page => {
    await page.goto(PAGE);
    await live(page);
    await until('the chart is there', async () => (await drawn(page, 'chart-depth')) !== null);
    const [background, text] = await page.evaluate(() => [getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]);
    const light = colour => colour.match(/\d+/g).slice(0, 3).reduce((sum, part) => sum + Number(part), 0);
    assert.ok(light(background) < 150 && light(text) > 600, `${text} on ${background}`);
    await picture(page, 'busy-dark');
    for (const width of [1024, 700]) {
      await page.setViewportSize({ width, height: 800 });
      await fits(page, `${width} pixels`);
    }
  });
}

// A ledger that is away costs what it alone knows, and each place says so.
async function ledgerAway() {
  await browse({}, async (page, broken) => {
    broken.expect = /503 \(Service Unavailable\)/;
    const body = JSON.stringify({ error: 'db:5432/herald: connection refused', do: 'the ledger is away; try again when it is back' });
    await page.route(/\/api\/(dead|actions|events)/, route => route.fulfill({ status: 503, contentType: 'application/json', body }));
    await page.goto(PAGE);
    await live(page);
    await until('it is said', async () => /connection refused.*try again/.test(await shown(page, 'dead-state')));
    assert.match(await shown(page, 'actions-state'), /connection refused/);
    await page.fill('#search-for', 'pushed-7');
    await page.press('#search-for', 'Enter');
    await until('there, too', async () => /connection refused/.test(await shown(page, 'explain-body')));
    await until('the chart is there', async () => (await drawn(page, 'chart-depth')) !== null);
    await picture(page, 'error-light');
  });
}

// A provider that refuses us: which, since when, why and what to do.
async function refused(page) {
  await world('revoke');
  await world('send', { id: 'locked', event: 'partner.advanced', count: 2 });
  const ably = page.locator('#links [data-key="ably"]');
  await until('the connection says so', async () => /refuses our credentials since \d\d:\d\d:\d\d/.test(await ably.textContent()));
  assert.match(await ably.locator('.why').textContent(), /401/);
  await until('the banner does, too', async () => /Ably refuses our credentials.*check ABLY_API_KEY/.test(await shown(page, 'banners')));
  await until('its events are held', async () => (await cell(page, 'hold.ably', 'ready')) === '2');
  await until('they are counted as waiting', async () => (await page.locator('#outcomes [data-key="waiting"] .n').textContent()) === '2');
  await picture(page, 'down-light');
}

async function gone(page, broken) {
  broken.expect = /ERR_CONNECTION|Failed to load resource/;
  await world('stop');
  await until('it is said', async () => (await shown(page, 'link')) === 'disconnected');
  assert.match(await shown(page, 'banners'), /Not connected to herald: what is shown is of \d\d:\d\d:\d\d/);
  assert.match(await page.locator('#outcomes [data-key="done"] .n').textContent(), /\d/, 'what was known stays');
  await picture(page, 'disconnected-light');
}

await browse({}, async (page, broken) => {
  for (const act of [empty, still, flowing, explain, deadLetters, keyboard, steering, phone, dark, ledgerAway, refused, gone]) {
    console.log(act.name);
    await act(page, broken);
  }
});
end();

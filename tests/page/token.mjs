// With a token, looking is free on loopback and changing asks for it; another site's page gets and changes nothing.

import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { PAGE, browse, picture, shown, until } from './browser.mjs';

const { TOKEN, EVIL_PORT } = process.env;

async function pause(page) {
  await page.click('#intake');
  await page.click('#ask-do');
}

await browse({}, async (page, broken) => {
  broken.expect = /401 \(Unauthorized\)/;
  await page.goto(PAGE);
  await until('the page is live without a token', async () => (await shown(page, 'link')) === 'live');
  await pause(page);
  await until('the token is asked for', async () => page.locator('#token[open]').count());
  await picture(page, 'token');
  await page.fill('#token-input', 'wrong');
  await page.keyboard.press('Enter');
  await until('a wrong one is refused', async () => page.locator('#token-error:visible').count());
  await page.click('#token-cancel');
  await until('nothing was done, and it is said', async () => /admin token.*nothing was done/.test(await shown(page, 'ask-error')));
  await picture(page, 'refused');
  await page.click('#ask-cancel');
  assert.ok(!/paused/i.test(await shown(page, 'banners')));

  await pause(page);
  await page.fill('#token-input', TOKEN);
  await page.keyboard.press('Enter');
  await until('it is done', async () => /paused/i.test(await shown(page, 'banners')));
  assert.deepEqual(
    await page.evaluate(() => [Object.keys(sessionStorage), localStorage.length, document.cookie]),
    [['herald-token'], 0, ''],
    'the token is kept in this tab only',
  );
  await page.click('#forget-token');
  assert.equal(await page.evaluate(() => sessionStorage.length), 0);
});

// Beyond this machine looking needs the token as well: the page asks for it by itself, and says that it is locked until then.
await browse({}, async (page, broken) => {
  broken.expect = /401 \(Unauthorized\)/;
  const body = JSON.stringify({ error: 'the admin token is needed', do: 'send it' });
  await page.route(/\/api\//, route =>
    route.request().headers().authorization === `Bearer ${TOKEN}` ? route.continue() : route.fulfill({ status: 401, contentType: 'application/json', body }),
  );
  await page.goto(PAGE);
  await until('the token is asked for', async () => page.locator('#token[open]').count());
  assert.equal(await shown(page, 'link'), 'locked');
  await page.click('#token-cancel');
  await page.click('#banners button');
  await page.fill('#token-input', TOKEN);
  await page.keyboard.press('Enter');
  await until('the page is live', async () => (await shown(page, 'link')) === 'live');
  await until('and shows what there is', async () => /paused/i.test(await shown(page, 'banners')));
});

// Another site on the same machine: the browser's same-site is not the same origin.
const evil = createServer((_, answer) => answer.setHeader('content-type', 'text/html').end('<!doctype html><title>evil</title>'));
await new Promise(resolve => evil.listen(Number(EVIL_PORT), '127.0.0.1', resolve));
await browse({}, async (page, broken) => {
  broken.expect = /./;
  await page.goto(`http://127.0.0.1:${EVIL_PORT}/`);
  const answers = await page.evaluate(
    async ([target, token]) => {
      const body = JSON.stringify({ what: 'resume' });
      const tried = [];
      for (const headers of [
        { 'Content-Type': 'text/plain' },
        { 'Content-Type': 'application/json', 'X-Herald-Request': 'page', Authorization: `Bearer ${token}` },
      ]) {
        for (const mode of ['cors', 'no-cors']) {
          tried.push(await fetch(`${target}/api/steer`, { method: 'POST', mode, headers, body }).then(answer => `${answer.type} ${answer.status}`, () => 'refused'));
        }
      }
      tried.push(await fetch(`${target}/api/status`).then(() => 'read', () => 'refused'));
      return tried;
    },
    [PAGE, TOKEN],
  );
  assert.ok(answers.every(answer => answer === 'refused' || answer.startsWith('opaque')), answers.join(', '));
  // A form, which needs no permission to be sent.
  await page.evaluate(target => {
    const form = document.createElement('form');
    Object.assign(form, { method: 'POST', action: `${target}/api/steer`, enctype: 'text/plain' });
    form.innerHTML = '<input name=\'{"what":"resume","x":"\' value=\'"}\'>';
    document.body.append(form);
    form.submit();
  }, PAGE);
  await until('the form is refused', async () => /another site/.test(await page.content()));
});
evil.close();

// Whatever was tried, the intake is still paused.
const status = await (await fetch(`${PAGE}/api/status`)).json();
assert.ok(status.steering.paused, 'the intake is still paused');
// And a script without a browser needs the token as well.
const bare = await fetch(`${PAGE}/api/steer`, { method: 'POST', headers: { 'content-type': 'application/json', 'x-herald-request': 'test' }, body: '{"what":"resume"}' });
assert.equal(bare.status, 401);

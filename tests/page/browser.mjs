// A real browser that is told nothing of herald, and what every page must keep to: no request to anybody else, no broken policy,
// no error, no sideways scrolling.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

export const PAGE = process.env.PAGE;

const FLAGS = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

// Opens the browser with a profile of its own, does `act` with a new page of it, and checks the rules at the end.
export async function browse(options, act) {
  const profile = await mkdtemp(join(tmpdir(), 'herald-chromium-'));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.CHROMIUM,
    args: FLAGS,
    colorScheme: 'light',
    viewport: { width: 1440, height: 900 },
    timezoneId: 'UTC',
    ...options,
  });
  try {
    const page = context.pages()[0] ?? (await context.newPage());
    const broken = watch(page);
    try {
      await act(page, broken);
    } catch (error) {
      await page.screenshot({ path: join(process.env.SCREENSHOTS, 'failed.png') }).catch(() => {});
      throw new Error(`${error.message}\nbroken rules: ${JSON.stringify(broken.rules)}; failed.png shows the page then`, { cause: error });
    }
    assert.deepEqual(broken.rules, [], 'rules of the page');
  } finally {
    await context.close();
    await rm(profile, { recursive: true, force: true, maxRetries: 5 });
  }
}

// Notes every request that goes elsewhere, every violation of the policy and every error; `broken.expect` names what is meant.
function watch(page) {
  const broken = { rules: [], expect: null };
  const note = what => {
    if (!broken.expect?.test(what)) broken.rules.push(what);
  };
  page.on('request', request => {
    if (!request.url().startsWith(`${PAGE}/`)) note(`request to ${request.url()}`);
  });
  page.on('console', message => {
    if (['error', 'warning'].includes(message.type())) note(`${message.type()}: ${message.text()} ${message.location().url ?? ''}`);
  });
  page.on('pageerror', error => note(`exception: ${error.message}`));
  return broken;
}

// A picture of the whole page; of what is seen when a dialog is open.
export async function picture(page, name) {
  const dialog = await page.locator('dialog[open]').count();
  // A hovered button or a blinking cursor is nobody's state.
  await page.mouse.move(0, 0);
  if (dialog === 0) await page.evaluate(() => scrollTo(0, 0));
  await page.screenshot({ path: join(process.env.SCREENSHOTS, `${name}.png`), fullPage: dialog === 0, caret: 'hide' });
  await fits(page, name);
}

// Nothing is wider than the window.
export async function fits(page, name) {
  const over = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.ok(over <= 0, `${name} is ${over} pixels too wide`);
}

// Waits until `check` returns something true; the time is a bound, not a wait.
export async function until(what, check, seconds = 40) {
  const end = Date.now() + seconds * 1000;
  let last = null;
  while (Date.now() < end) {
    try {
      const value = await check();
      if (value) return value;
    } catch (error) {
      last = error;
    }
    await new Promise(resolve => setTimeout(resolve, 50));
  }
  throw new Error(`not within ${seconds} s: ${what}${last ? ` (${last.message})` : ''}`);
}

// What the chart shows, as its pixels.
export const drawn = (page, id) => page.evaluate(id_ => document.querySelector(`#${id_} canvas`)?.toDataURL() ?? null, id);

// The value in a cell of the queues' table.
export const cell = async (page, queue, column) => {
  const row = page.locator('#queues tr', { has: page.locator(`label span:text-is("${queue}")`) });
  return (await row.locator(`td.${column}`).textContent()).trim();
};

export const shown = (page, id) => page.locator(`#${id}`).textContent();

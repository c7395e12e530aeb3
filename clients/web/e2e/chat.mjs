// Two people in two browsers against a running server: BASE_URL names its chat page, SCREENSHOTS a folder for pictures.
// Ends with code 0 only if everything was seen; says in words what was not.

import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

const BASE_URL = process.env.BASE_URL;
const SHOTS = process.env.SCREENSHOTS ?? '';
const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';
/** Longest wait for anything to be seen, in milliseconds: test machines are busy. */
const WAIT_MS = Number(process.env.WAIT_MS ?? 20_000);
const FLAGS = [
  '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync', '--ignore-certificate-errors',
];

const run = Date.now().toString(36);
const complaints = [];

class Person {
  constructor(page, username, name) {
    Object.assign(this, { page, username, name });
  }

  static async create(browser, username, name, viewport) {
    const context = await browser.newContext({ viewport, locale: 'en-GB', ignoreHTTPSErrors: true });
    const person = new Person(await context.newPage(), username, name);
    person.watch();
    await person.page.goto(BASE_URL);
    return person;
  }

  watch() {
    const { page, name } = this;
    page.setDefaultTimeout(WAIT_MS);
    page.on('pageerror', (error) => complaints.push(`${name}: ${error.message}`));
    page.on('console', (message) => {
      // What the page's policy forbids, and everything else a browser calls an error.
      if (message.type() === 'error') complaints.push(`${name}: ${message.text()}`);
    });
  }

  async register() {
    const { page } = this;
    await page.getByRole('tab', { name: 'Register' }).click();
    await page.getByLabel('Username').fill(this.username);
    await page.getByRole('textbox', { name: /^Name/ }).fill(this.name);
    await page.getByLabel('Password', { exact: true }).fill(`password of ${this.username}`);
    await page.getByRole('button', { name: 'Create account' }).click();
    await page.getByRole('heading', { name: 'Chats' }).waitFor();
  }

  async startDirect(username) {
    const { page } = this;
    await page.getByRole('button', { name: 'New conversation' }).first().click();
    const dialog = page.getByRole('dialog');
    await dialog.getByLabel('Username').fill(username);
    await dialog.getByRole('button', { name: 'Start conversation' }).click();
    await page.getByPlaceholder('Message').waitFor();
  }

  async createGroup(title, usernames) {
    const { page } = this;
    await page.getByRole('button', { name: 'New conversation' }).first().click();
    const dialog = page.getByRole('dialog');
    await dialog.getByRole('tab', { name: 'Group' }).click();
    await dialog.getByLabel('Group name').fill(title);
    await dialog.getByLabel('Add people by username').fill(usernames.join(' '));
    await dialog.getByRole('button', { name: 'Create group' }).click();
    await page.getByRole('region', { name: `Conversation: ${title}` }).waitFor();
  }

  async open(title) {
    await this.page.getByRole('link', { name: new RegExp(`^${title}`) }).click();
    await this.page.getByRole('region', { name: `Conversation: ${title}` }).waitFor();
  }

  async back() {
    await this.page.getByRole('button', { name: 'Back to the list' }).click();
    await this.page.getByRole('heading', { name: 'Chats' }).waitFor();
  }

  async say(text) {
    const { page } = this;
    await page.getByPlaceholder('Message').fill(text);
    await page.getByPlaceholder('Message').press('Enter');
    await this.sees(text);
  }

  bubble(text) {
    return this.page.locator('.bubble', { has: this.page.getByText(text, { exact: true }) });
  }

  async sees(text) {
    await this.bubble(text).waitFor();
  }

  async seesTick(text, state) {
    await this.bubble(text).locator(`.tick[data-state="${state}"]`).waitFor();
  }

  /** All texts of the open conversation, top to bottom. */
  texts() {
    return this.page.locator('.bubble .said').allTextContents();
  }

  async shot(name) {
    if (SHOTS === '') return;
    mkdirSync(SHOTS, { recursive: true });
    await this.page.screenshot({ path: join(SHOTS, `${name}.png`) });
  }
}

async function step(name, task) {
  try {
    await task();
    console.log(`ok    ${name}`);
  } catch (error) {
    throw new Error(`${name}: ${error instanceof Error ? error.message : String(error)}`);
  }
}

function expectEqual(actual, expected, what) {
  const [a, b] = [JSON.stringify(actual), JSON.stringify(expected)];
  if (a !== b) throw new Error(`${what}: expected ${b}, saw ${a}`);
}

/** While something is unread the title says how much; what was just seen may not have been counted as read yet. */
async function titleOfNothingUnread(page) {
  const deadline = Date.now() + WAIT_MS;
  for (;;) {
    const title = await page.title();
    if (!/^\(\d+\) Ringline$/.test(title) || Date.now() > deadline) return title;
    await page.waitForTimeout(20);
  }
}

async function story(browser) {
  const desk = { width: 1280, height: 800 };
  const phone = { width: 390, height: 844 };
  const ada = await Person.create(browser, `ada-${run}`, 'Ada Quell', desk);
  const ben = await Person.create(browser, `ben-${run}`, 'Ben Orlo', phone);
  try {
    await tell(ada, ben);
  } catch (error) {
    await ada.shot('failed-ada').catch(() => undefined);
    await ben.shot('failed-ben').catch(() => undefined);
    throw error;
  }
  expectEqual(complaints, [], 'errors in the browsers');
}

async function tell(ada, ben) {
  await step('two people register', async () => {
    await ada.shot('01-login-desktop');
    await ben.shot('01-login-phone');
    await ada.register();
    await ben.register();
  });
  await step('one writes to the other by username, and it arrives', async () => {
    await ada.startDirect(ben.username);
    await ada.say('Hello Ben, can you read this?');
    await ben.open('Ada Quell');
    await ben.sees('Hello Ben, can you read this?');
  });
  await step('the ticks reach "read"', () => ada.seesTick('Hello Ben, can you read this?', 'read'));
  await step('the reply arrives', async () => {
    await ben.say('Loud and clear.');
    await ada.sees('Loud and clear.');
    await ben.seesTick('Loud and clear.', 'read');
  });
  await step('markup is only text', async () => {
    await ada.say('<img src=x onerror=alert(1)> <b>bold?</b>');
    await ben.sees('<img src=x onerror=alert(1)> <b>bold?</b>');
  });
  await step('a burst from both sides has one order', async () => {
    for (let index = 1; index <= 10; index++) {
      await Promise.all([ada.say(`ada ${index}`), ben.say(`ben ${index}`)]);
    }
    await Promise.all([ada.seesTick('ada 10', 'read'), ben.seesTick('ben 10', 'read')]);
    const [atAda, atBen] = [await ada.texts(), await ben.texts()];
    expectEqual(atBen, atAda, 'order of messages');
    expectEqual(atAda.length, 23, 'number of messages');
  });
  await step('a reload changes nothing', async () => {
    const before = await ada.texts();
    await ada.page.reload();
    await Promise.all([ada.sees('ada 10'), ada.sees('ben 10')]);
    expectEqual((await ada.texts()).slice(-20), before.slice(-20), 'messages after the reload');
    await ada.seesTick('ada 10', 'read');
    await ben.page.reload();
    await ben.sees('ben 10');
  });
  await step('what is written offline arrives after the network is back', async () => {
    await ada.page.context().setOffline(true);
    await ada.say('written offline');
    await ada.page.context().setOffline(false);
    await ben.sees('written offline');
    await ada.seesTick('written offline', 'read');
    expectEqual((await ben.texts()).filter((text) => text === 'written offline').length, 1, 'copies of a repeated message');
  });
  await step('a group works', async () => {
    await ben.back();
    await ada.createGroup(`Garden ${run}`, [ben.username]);
    await ada.say('Who waters the tomatoes?');
    await ben.page.getByRole('link', { name: /1 unread/ }).waitFor();
    await ben.shot('02-list-phone');
    await ben.open(`Garden ${run}`);
    await ben.sees('Who waters the tomatoes?');
    await ben.say('I do, tonight 🍅');
    await ada.sees('I do, tonight 🍅');
    await ada.seesTick('Who waters the tomatoes?', 'read');
    await ada.page.locator('.bubble .sender', { hasText: 'Ben Orlo' }).waitFor();
  });
  await step('names and titles are only text, too', async () => {
    const [name, title, body] = ['name', 'title', 'body'].map((what) =>
      `<img class=injected src=x onerror="document.title='${what}'"><script>document.title='${what}'</script>`);
    const eve = await Person.create(ada.page.context().browser(), `eve-${run}`, name.slice(0, 100), { width: 1280, height: 800 });
    await eve.register();
    await eve.createGroup(title.slice(0, 100), [ada.username]);
    await eve.say(body);
    await ada.page.getByRole('link', { name: /1 unread/ }).click();
    await ada.sees(body);
    await ada.page.getByRole('region', { name: `Conversation: ${title.slice(0, 100)}` }).waitFor();
    for (const { page } of [ada, eve]) {
      expectEqual(await page.locator('.injected').count(), 0, 'elements made of what people wrote');
      expectEqual(await titleOfNothingUnread(page), 'Ringline', 'title of the page');
    }
    await eve.page.context().close();
    await ada.open(`Garden ${run}`);
  });
  await step('no script can read a token', async () => {
    const { page } = ada;
    await page.reload();
    await ada.sees('Who waters the tomatoes?');
    const [cookie, ...more] = await page.context().cookies(new URL('/v1/refresh', BASE_URL).href);
    expectEqual(more, [], 'other cookies');
    expectEqual([cookie.httpOnly, cookie.sameSite, cookie.path], [true, 'Strict', '/v1/refresh'], 'the cookie');
    expectEqual(await page.context().cookies(BASE_URL), [], 'cookies of the page');
    const readable = await page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie]));
    expectEqual([readable.includes(cookie.value), /refresh.?token|eyJ/i.test(readable)], [false, false], `tokens in ${readable}`);
  });
  await step('a second window of the same browser follows', async () => {
    const second = new Person(await ada.page.context().newPage(), ada.username, ada.name);
    second.watch();
    await second.page.goto(BASE_URL);
    await second.open('Ben Orlo');
    await second.sees('written offline');
    await second.say('from the second window');
    await ada.open('Ben Orlo');
    await ada.sees('from the second window');
    // And it can be somebody else's, without disturbing the first.
    await second.page.locator('.menu-button').click();
    await second.page.getByRole('button', { name: 'Use another account here' }).click();
    const cleo = new Person(second.page, `cleo-${run}`, 'Cleo Aster');
    await cleo.register();
    await cleo.startDirect(ada.username);
    await cleo.say('Same browser, other person.');
    await ada.open('Cleo Aster');
    await ada.sees('Same browser, other person.');
    await ada.say('I see you.');
    await cleo.sees('I see you.');
    await second.page.close();
  });
  await step('pictures', async () => {
    await ada.open(`Garden ${run}`);
    await ada.sees('Who waters the tomatoes?');
    await ada.shot('03-group-desktop');
    await ben.shot('03-group-phone');
    await ada.open('Ben Orlo');
    await ada.sees('written offline');
    await ada.shot('04-direct-desktop');
    await ben.back();
    await ben.open('Ada Quell');
    await ben.sees('from the second window');
    await ben.shot('04-direct-phone');
    await ada.page.emulateMedia({ colorScheme: 'dark' });
    await ben.page.emulateMedia({ colorScheme: 'dark' });
    await ada.shot('05-dark-desktop');
    await ben.shot('05-dark-phone');
  });
  await step('logging out and in again brings everything back', async () => {
    const { page } = ada;
    await page.locator('.menu-button').click();
    await page.getByRole('button', { name: 'Log out' }).click();
    await page.getByRole('tab', { name: 'Log in' }).click();
    await page.getByLabel('Username').fill(ada.username);
    await page.getByLabel('Password', { exact: true }).fill(`password of ${ada.username}`);
    await page.locator('button[type=submit]').click();
    await ada.open('Ben Orlo');
    await ada.sees('Hello Ben, can you read this?');
    await ada.sees('from the second window');
  });
  await step('logging out leaves nothing in the browser', async () => {
    const { page } = ben;
    await ben.back();
    await page.locator('.menu-button').click();
    await page.getByRole('button', { name: 'Log out' }).click();
    await page.getByRole('tab', { name: 'Log in' }).waitFor();
    for (let tries = 0; (await page.context().cookies(new URL('/v1/refresh', BASE_URL).href)).length > 0; tries += 1) {
      if (tries === 100) throw new Error('the cookie is still there');
      await page.waitForTimeout(WAIT_MS / 100);
    }
    await page.reload();
    await page.getByRole('tab', { name: 'Log in' }).waitFor();
  });
}

if (BASE_URL === undefined) {
  console.error('BASE_URL is not set');
  process.exit(2);
}
const browser = await chromium.launch({ executablePath: CHROMIUM, headless: true, args: FLAGS });
try {
  await story(browser);
  console.log('everything seen');
} catch (error) {
  console.error(`FAILED ${error instanceof Error ? error.message : String(error)}`);
  for (const complaint of complaints) console.error(`  browser: ${complaint}`);
  process.exitCode = 1;
} finally {
  await browser.close();
}

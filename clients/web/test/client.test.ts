import { afterEach, describe, expect, it, vi } from 'vitest';
import { ErrorCode } from '../src/generated/errors';
import { ConversationKind } from '../src/generated/conversations';
import { SessionClosing_Reason } from '../src/generated/auth';
import { MemoryStore } from '../src/ringline/memory';
import { tickOf } from '../src/ringline/log';
import { LATENCY_MS, textOf, World, type Device } from './world';

let world: World;
afterEach(() => world.end());

/** Ada and Ben, online, in their conversation, which is open on both sides. */
async function pair(): Promise<{ ada: Device; ben: Device; id: string }> {
  world = new World();
  const ada = world.device('ada');
  const ben = world.device('ben');
  await ada.start();
  await ben.start();
  const starting = ada.app.startDirect('ben');
  await world.pass(10 * LATENCY_MS);
  const id = await starting;
  ada.app.open(id);
  await world.pass(10 * LATENCY_MS);
  ben.app.open(id);
  await world.pass(10 * LATENCY_MS);
  return { ada, ben, id };
}

const numbered = (count: number, from = 1) => Array.from({ length: count }, (_, index) => `m${from + index}`);
const serverTexts = (id: string) => world.backend.conversations.get(id)?.entries.slice(1)
  .map((entry) => new TextDecoder().decode(entry.body)) ?? [];
const requestsOf = (kind: string) => world.backend.requests.filter((body) => body.$case === kind);
const row = (device: Device, id: string) => {
  const found = device.app.conversation(id);
  if (found === undefined) throw new Error('no such conversation');
  return found;
};

describe('a conversation', () => {
  it('shows a message at once, acknowledges it, and reaches the other side', async () => {
    const { ada, ben, id } = await pair();
    expect(ada.app.sendText(id, 'hello')).toBe(null);
    expect(ada.texts()).toEqual(['[hello]']);
    await world.pass(4 * LATENCY_MS);
    expect(ada.texts()).toEqual(['hello']);
    expect(ben.texts()).toEqual(['hello']);
    expect(row(ben, id).unread).toBe(1);
  });

  it('moves ticks from sent over delivered to read', async () => {
    const { ada, ben, id } = await pair();
    ben.goOffline();
    ada.app.sendText(id, 'hello');
    await world.pass(10 * LATENCY_MS);
    expect(tickOf(row(ada, id), 2)).toBe('sent');
    await ben.goOnline();
    expect(tickOf(row(ada, id), 2)).toBe('delivered');
    ben.app.markRead(id, 2);
    await world.pass(10 * LATENCY_MS);
    expect(tickOf(row(ada, id), 2)).toBe('read');
    expect(row(ben, id).unread).toBe(0);
  });

  it('costs few commands beside the message itself', async () => {
    const { ada, ben, id } = await pair();
    ben.app.subscribe(() => ben.app.markRead(id, row(ben, id).top));
    ada.app.subscribe(() => ada.app.markRead(id, row(ada, id).top));
    const before = world.backend.requests.length;
    for (const text of numbered(10)) {
      ada.app.sendText(id, text);
      await world.pass(200);
    }
    await world.pass(10_000);
    const kinds = world.backend.requests.slice(before).map((body) => body.$case);
    const count = (kind: string) => kinds.filter((one) => one === kind).length;
    // Ben reads each as it comes, and that says "delivered", too; Ada tells now and then that she read her own.
    expect([count('send'), count('delivered'), count('read')]).toEqual([10, 0, 11]);
    expect(row(ada, id)).toMatchObject({ readUpTo: 11, unread: 0 });
  });

  it('keeps the order of a burst sent while pipelining', async () => {
    const { ada, ben, id } = await pair();
    for (const text of numbered(40)) ada.app.sendText(id, text);
    await world.pass(60 * LATENCY_MS);
    expect(serverTexts(id)).toEqual(numbered(40));
    expect(ada.texts()).toEqual(numbered(40));
    expect(ben.texts()).toEqual(numbered(40));
  });

  it('keeps the order when the server refuses for a while', async () => {
    const { ada, id } = await pair();
    world.backend.faults.refuse = ErrorCode.ERROR_UNAVAILABLE;
    for (const text of numbered(20)) ada.app.sendText(id, text);
    await world.pass(2_000);
    world.backend.faults.refuse = 0;
    await world.pass(30_000);
    expect(serverTexts(id)).toEqual(numbered(20));
    expect(ada.texts()).toEqual(numbered(20));
  });

  it('leaves a message that cannot be sent to the person', async () => {
    const { ada, id } = await pair();
    world.backend.faults.refuse = ErrorCode.ERROR_NOT_A_MEMBER;
    ada.app.sendText(id, 'hello');
    await world.pass(10 * LATENCY_MS);
    const [item] = ada.app.tail(id).pending;
    expect(item?.state).toBe('failed');
    world.backend.faults.refuse = 0;
    await world.pass(60_000);
    expect(serverTexts(id)).toEqual([]);
    ada.app.retrySend(item?.clientId ?? 0n);
    await world.pass(10 * LATENCY_MS);
    expect(serverTexts(id)).toEqual(['hello']);
    expect(ada.app.tail(id).pending).toEqual([]);
  });

  it('refuses what is empty or too long', async () => {
    const { ada, id } = await pair();
    expect(ada.app.sendText(id, '')).toBe('There is nothing to send.');
    expect(ada.app.sendText(id, 'ä'.repeat(8_193))).toBe('This message is too long.');
    expect(ada.app.sendText(id, 'ä'.repeat(8_192))).toBe(null);
  });

  it('makes the same direct conversation from both sides, and groups with all members', async () => {
    const { ada, ben, id } = await pair();
    world.user('cleo');
    const again = ben.app.startDirect('ADA ');
    const group = ada.app.createGroup(['ben', 'cleo'], 'Trip', 7n);
    await world.pass(10 * LATENCY_MS);
    expect(await again).toBe(id);
    const made = row(ada, await group);
    expect(made.title).toBe('Trip');
    expect(made.members.length).toBe(3);
    expect(row(ben, made.id).kind).toBe('group');
    await expect(ada.app.startDirect('!')).rejects.toThrow('nobody');
  });

  it('says who does not exist', async () => {
    const { ada } = await pair();
    const starting = ada.app.startDirect('nobody-here');
    const expectation = expect(starting).rejects.toThrow('nobody-here');
    await world.pass(10 * LATENCY_MS);
    await expectation;
  });
});

describe('a lost connection', () => {
  it('repeats an unacknowledged message with the same id, and it is stored once', async () => {
    const { ada, ben, id } = await pair();
    world.backend.faults.loseAcks = true;
    ada.app.sendText(id, 'once');
    await world.pass(4 * LATENCY_MS);
    expect(serverTexts(id)).toEqual(['once']);
    expect(ada.texts()).toEqual(['[once]']);
    ada.cut();
    world.backend.faults.loseAcks = false;
    await world.pass(5_000);
    expect(serverTexts(id)).toEqual(['once']);
    expect(ada.texts()).toEqual(['once']);
    expect(ben.texts()).toEqual(['once']);
    const sends = requestsOf('send').map((body) => (body.$case === 'send' ? body.value.clientMessageId : 0n));
    expect(sends.length).toBe(2);
    expect(new Set(sends).size).toBe(1);
  });

  it('does not show a message twice while its repeated acknowledgement is on the way', async () => {
    const { ada, id } = await pair();
    world.backend.faults.loseAcks = true;
    ada.app.sendText(id, 'once');
    await world.pass(4 * LATENCY_MS);
    ada.cut();
    const seen = new Set<string>();
    ada.app.subscribe(() => seen.add(ada.texts().join(' ')));
    await world.pass(5_000);
    expect([...seen]).not.toContain('once [once]');
    expect([...seen]).toContain('once');
  });

  it('still shows the second of two equal messages when only the first was acknowledged', async () => {
    const { ada, id } = await pair();
    ada.app.sendText(id, 'ok');
    await world.pass(LATENCY_MS / 2);
    ada.app.sendText(id, 'ok');
    await world.pass(LATENCY_MS * 0.75);
    world.backend.faults.loseAcks = true;
    await world.pass(2 * LATENCY_MS);
    expect(serverTexts(id)).toEqual(['ok', 'ok']);
    expect(ada.texts()).toEqual(['ok', '[ok]']);
    ada.cut();
    world.backend.faults.loseAcks = false;
    await world.pass(5_000);
    expect(ada.texts()).toEqual(['ok', 'ok']);
  });

  it('sends what was written offline, in order, after a reload', async () => {
    const { ada, id } = await pair();
    ada.goOffline();
    for (const text of numbered(5)) ada.app.sendText(id, text);
    await world.pass(1_000);
    await ada.reload();
    ada.app.open(id);
    await world.pass(1_000);
    expect(ada.texts()).toEqual(numbered(5).map((text) => `[${text}]`));
    await ada.goOnline();
    expect(serverTexts(id)).toEqual(numbered(5));
    expect(ada.texts()).toEqual(numbered(5));
  });

  it('resumes without a new access token, and falls back to one', async () => {
    const { ada } = await pair();
    const before = ada.refreshes;
    ada.cut();
    await world.pass(5_000);
    expect(ada.app.status.state).toBe('ready');
    expect(ada.refreshes).toBe(before);
    expect(world.backend.proofs.slice(-1)).toEqual(['resumeToken']);
    // Every token is gone, as after a change of keys.
    world.backend.revoke(ada.account.device);
    ada.cut();
    await world.pass(30_000);
    expect(ada.app.status.state).toBe('ready');
    expect(ada.refreshes).toBe(before + 1);
  });

  it('has a fresh access token at hand all the time', async () => {
    const { ada } = await pair();
    // Each lives for 900 s and is refreshed a minute before its end.
    const before = ada.refreshes;
    await world.pass(3 * 840_000 + 1_000);
    expect(ada.refreshes - before).toBe(3);
    expect(ada.app.status.state).toBe('ready');
  });

  it('ends in being logged out when the refresh token is refused', async () => {
    const { ada } = await pair();
    world.backend.revoke(ada.account.device);
    ada.cookie = false;
    ada.cut();
    await world.pass(60_000);
    expect(ada.app.status.state).toBe('loggedOut');
  });

  it('waits as long as the server asks', async () => {
    const { ada } = await pair();
    const [session] = [...world.backend.sessions].filter((candidate) => candidate.user === ada.account.user);
    session?.close(SessionClosing_Reason.DRAINING, 5_000);
    await world.pass(4_900);
    expect(ada.app.status.state).toBe('waiting');
    await world.pass(6_000);
    expect(ada.app.status.state).toBe('ready');
  });

  it('is noticed when nothing comes any more', async () => {
    const { ada } = await pair();
    for (const session of world.backend.sessions) session.receive = () => {};
    ada.app.wake();
    await world.pass(5_100);
    expect(['waiting', 'connecting']).toContain(ada.app.status.state);
  });
});

describe('catching up', () => {
  it('takes 500 missed messages by one sync, in order', async () => {
    const { ada, ben, id } = await pair();
    ben.goOffline();
    const conversation = world.backend.conversations.get(id);
    if (conversation === undefined) throw new Error('no conversation');
    for (const text of numbered(500)) world.backend.say(conversation, ada.account.user, text);
    const syncs = requestsOf('sync').length;
    await ben.goOnline();
    await world.pass(100 * LATENCY_MS);
    expect(row(ben, id).top).toBe(501);
    expect(row(ben, id).unread).toBe(500);
    expect(ben.texts().slice(-50)).toEqual(numbered(50, 451));
    expect(requestsOf('sync').length - syncs).toBe(10);
    // Everything is in the store: scrolling back asks the server nothing.
    const histories = requestsOf('history').length;
    for (let page = 0; page < 12; page++) {
      ben.app.older();
      await world.pass(LATENCY_MS);
    }
    expect(ben.texts()).toEqual(numbered(500));
    expect(requestsOf('history').length).toBe(histories);
  });

  it('asks nothing when nothing changed', async () => {
    const { ada, id } = await pair();
    ada.app.sendText(id, 'hello');
    await world.pass(1_000);
    await ada.reload();
    await world.pass(1_000);
    const before = world.backend.requests.length;
    await ada.reload();
    await world.pass(1_000);
    expect(world.backend.requests.slice(before)).toEqual([]);
    ada.app.open(id);
    await world.pass(1_000);
    expect(ada.texts()).toEqual(['hello']);
  });

  it('fills a gap that lost pushes leave', async () => {
    const { ada, ben, id } = await pair();
    world.backend.faults.losePushes = true;
    for (const text of numbered(7)) ada.app.sendText(id, text);
    await world.pass(1_000);
    expect(ben.texts()).toEqual([]);
    world.backend.faults.losePushes = false;
    ada.app.sendText(id, 'm8');
    await world.pass(1_000);
    expect(ben.texts()).toEqual(numbered(8));
    expect(row(ben, id).unread).toBe(8);
    expect(requestsOf('history').length).toBeGreaterThan(0);
  });

  it('jumps over a gap that is too long, and scrolling back fills it', async () => {
    const { ada, ben, id } = await pair();
    const conversation = world.backend.conversations.get(id);
    if (conversation === undefined) throw new Error('no conversation');
    world.backend.faults.losePushes = true;
    for (const text of numbered(699)) world.backend.say(conversation, ada.account.user, text);
    world.backend.faults.losePushes = false;
    world.backend.say(conversation, ada.account.user, 'm700');
    await world.pass(1_000);
    expect(row(ben, id).top).toBe(701);
    expect(ben.texts()).toEqual(numbered(50, 651));
    for (let page = 0; page < 20; page++) {
      ben.app.older();
      await world.pass(4 * LATENCY_MS);
    }
    expect(ben.texts()).toEqual(numbered(599));
    expect(ben.app.view?.atTop).toBe(false);
    for (let page = 0; page < 20; page++) {
      ben.app.newer();
      await world.pass(4 * LATENCY_MS);
    }
    expect(ben.texts()).toEqual(numbered(600, 101));
    expect(ben.app.view?.atTop).toBe(true);
  });

  it('syncs when told that pushes were dropped', async () => {
    const { ada, ben, id } = await pair();
    world.backend.faults.losePushes = true;
    ada.app.sendText(id, 'hello');
    await world.pass(1_000);
    for (const session of world.backend.sessions) session.event({ $case: 'syncNeeded', value: {} });
    await world.pass(1_000);
    expect(ben.texts()).toEqual(['hello']);
  });

  it('starts a new device with the newest entries and scrolls back to the first', async () => {
    const { ada, id } = await pair();
    const conversation = world.backend.conversations.get(id);
    if (conversation === undefined) throw new Error('no conversation');
    for (const text of numbered(130)) world.backend.say(conversation, ada.account.user, text);
    await world.pass(1_000);
    const second = world.device('ben');
    await second.start();
    second.app.open(id);
    await world.pass(1_000);
    expect(second.texts()).toEqual(numbered(20, 111));
    for (let page = 0; page < 5; page++) {
      second.app.older();
      await world.pass(10 * LATENCY_MS);
    }
    expect(second.texts()).toEqual(numbered(130));
    expect(second.app.view?.atStart).toBe(true);
  });

  it('shows previews although the store was lost', async () => {
    const { ada, ben, id } = await pair();
    ada.app.sendText(id, 'hello');
    await world.pass(1_000);
    ben.store = new MemoryStore();
    await ben.reload();
    await world.pass(1_000);
    expect(row(ben, id)).toMatchObject({ top: 2, last: { seq: 2 } });
    ben.app.open(id);
    await world.pass(1_000);
    expect(ben.texts()).toEqual(['hello']);
  });

  it('takes more conversations than one page of the feed holds', async () => {
    world = new World();
    const ada = world.device('ada');
    for (let index = 0; index < 230; index++) {
      const other = world.user(`user${index}`);
      world.backend.createConversation(other.id, ConversationKind.DIRECT, [ada.account.user], '', 0n);
    }
    await ada.start();
    await world.pass(2_000);
    expect(ada.app.conversations().length).toBe(230);
    expect(ada.app.conversations().every((one) => one.members.length === 2)).toBe(true);
    expect(ada.app.user(world.user('user7').id)?.username).toBe('user7');
  });
});

describe('a browser without a store', () => {
  it.each(['open', 'write', 'read'])('goes on in memory when it fails to %s', async (what) => {
    world = new World();
    const warned = vi.spyOn(console, 'warn').mockImplementation(() => {});
    const ada = world.device('ada');
    const broken = new MemoryStore();
    const fail = () => Promise.reject(new Error('quota'));
    if (what === 'open') broken.restore = fail;
    if (what === 'write') broken.write = fail;
    if (what === 'read') broken.entries = fail;
    ada.store = broken;
    await ada.start();
    world.user('ben');
    const starting = ada.app.startDirect('ben');
    await world.pass(10 * LATENCY_MS);
    const id = await starting;
    ada.app.open(id);
    ada.app.sendText(id, 'hello');
    await world.pass(2_000);
    expect(ada.app.storeFailed).toBe(true);
    expect(ada.texts()).toEqual(['hello']);
    expect(serverTexts(id)).toEqual(['hello']);
    expect(warned).toHaveBeenCalled();
    warned.mockRestore();
  });
});

describe('a server that was restored from a backup', () => {
  /** Everybody knows five messages, of which the server then has two. */
  async function restored(cut: boolean): Promise<{ ada: Device; ben: Device; id: string; warned: () => number }> {
    const warn = vi.spyOn(console, 'warn').mockClear().mockImplementation(() => {});
    const { ada, ben, id } = await pair();
    for (const text of numbered(5)) {
      ada.app.sendText(id, text);
      await world.pass(10 * LATENCY_MS);
    }
    if (cut) {
      ada.goOffline();
      ben.goOffline();
      ada.app.sendText(id, 'waits');
    }
    world.backend.restore(new Map([[id, 3]]));
    return { ada, ben, id, warned: () => warn.mock.calls.filter(([text]) => String(text).includes('restored')).length };
  }
  const open = async (device: Device, id: string) => {
    device.app.open(id);
    await world.pass(1_000);
    device.app.older();
    await world.pass(1_000);
  };

  it('is followed: what it lost goes, new messages come under the same numbers, what waits is sent', async () => {
    const { ada, ben, id } = await restored(true);
    await ben.goOnline();
    expect(ben.app.view).toBe(null);
    await open(ben, id);
    expect(ben.texts()).toEqual(['m1', 'm2']);
    ben.app.sendText(id, 'new');
    await world.pass(1_000);
    expect(ben.texts()).toEqual(['m1', 'm2', 'new']);
    await ada.goOnline();
    await open(ada, id);
    expect(ada.texts()).toEqual(['m1', 'm2', 'new', 'waits']);
    expect(ben.texts()).toEqual(['m1', 'm2', 'new', 'waits']);
    expect(row(ada, id)).toMatchObject({ headSeq: 5, top: 5 });
  });

  it('is noticed once, and the store keeps what came anew', async () => {
    const { ada, id, warned } = await restored(true);
    await ada.goOnline();
    await open(ada, id);
    ada.cut();
    await world.pass(5_000);
    await ada.reload();
    await world.pass(1_000);
    await open(ada, id);
    expect(ada.texts()).toEqual(['m1', 'm2', 'waits']);
    expect(warned()).toBe(1);
  });

  it('is noticed by a connection that outlived it', async () => {
    const { ada, ben, id, warned } = await restored(false);
    // The next message makes the feeds move; a sync tells.
    ben.cut();
    await world.pass(5_000);
    await open(ben, id);
    expect(ben.texts()).toEqual(['m1', 'm2']);
    const ends = world.backend.proofs.length;
    world.backend.faults.losePushes = true;
    ben.app.sendText(id, 'new');
    await world.pass(1_000);
    world.backend.faults.losePushes = false;
    for (const session of world.backend.sessions) {
      if (session.device === ada.account.device) session.event({ $case: 'syncNeeded', value: {} });
    }
    await world.pass(10_000);
    expect(world.backend.proofs.length).toBe(ends + 1);
    await open(ada, id);
    expect(ada.texts()).toEqual(['m1', 'm2', 'new']);
    expect(warned()).toBe(2);
  });

  it('is followed by the other windows, too', async () => {
    const { ada, id, warned } = await restored(false);
    const other = world.windowOf(ada);
    other.store = ada.store;
    world.backend.restore(new Map([[id, 3]]));
    await other.start();
    await open(other, id);
    expect(other.texts()).toEqual(['m1', 'm2']);
    await world.pass(5_000);
    await open(ada, id);
    expect(ada.texts()).toEqual(['m1', 'm2']);
    other.app.sendText(id, 'new');
    await world.pass(1_000);
    expect(ada.texts()).toEqual(['m1', 'm2', 'new']);
    expect(warned()).toBe(2);
  });

  it('refuses what was written to a conversation that it lost', async () => {
    const { ada, id } = await restored(true);
    world.backend.restore(new Map());
    await ada.goOnline();
    await world.pass(5_000);
    expect(ada.app.conversations()).toEqual([]);
    expect((await ada.store.restore()).outbox).toMatchObject([{ conversation: id, state: 'failed' }]);
  });
});

describe('other devices and windows', () => {
  it('bring own messages and read cursors', async () => {
    const { ada, ben, id } = await pair();
    const second = world.device('ben');
    await second.start();
    second.app.open(id);
    await world.pass(1_000);
    ada.app.sendText(id, 'hello');
    await world.pass(1_000);
    expect(row(second, id).unread).toBe(1);
    ben.app.markRead(id, 2);
    ben.app.sendText(id, 'hi');
    await world.pass(1_000);
    expect(second.texts()).toEqual(['hello', 'hi']);
    expect(row(second, id).unread).toBe(0);
  });

  it('are forgotten with everything after logging out', async () => {
    const { ada } = await pair();
    const leaving = ada.app.logOut();
    await world.pass(1_000);
    await leaving;
    expect(requestsOf('logOut').length).toBe(1);
    expect(ada.kept).toBe(false);
    expect((await ada.store.restore()).conversations).toEqual([]);
  });
});

describe('whatever happens', () => {
  // Random writing, cutting, losing and reloading; afterwards everything must be everywhere, once and in order.
  it.each([1, 2, 3, 4, 5, 6, 7, 8])('every message arrives once and in order (seed %i)', async (seed) => {
    const { ada, ben, id } = await pair();
    const { random } = new World(seed);
    const devices = [ada, ben, world.device('ada'), world.device('ben')];
    for (const device of devices.slice(2)) await device.start();
    const written = new Map<Device, string[]>(devices.map((device) => [device, []]));
    for (let step = 0; step < 150; step++) {
      const index = Math.floor(random() * devices.length);
      const device = devices[index];
      if (device === undefined) continue;
      const dice = random();
      if (dice < 0.6) {
        const text = `d${index}-${written.get(device)?.length}`;
        if (device.app.sendText(id, text) === null) written.get(device)?.push(text);
      } else if (dice < 0.68) device.cut();
      else if (dice < 0.73) device.goOffline();
      else if (dice < 0.83) await device.goOnline();
      else if (dice < 0.87) await device.reload();
      else if (dice < 0.91) world.backend.faults.loseAcks = !world.backend.faults.loseAcks;
      else if (dice < 0.95) world.backend.faults.losePushes = !world.backend.faults.losePushes;
      else world.backend.faults.refuse = world.backend.faults.refuse === 0 ? ErrorCode.ERROR_OVERLOADED : 0;
      await world.pass(random() * 400);
    }
    Object.assign(world.backend.faults, { loseAcks: false, losePushes: false, refuse: 0 });
    for (const device of devices) {
      device.cut();
      await device.goOnline();
    }
    await world.pass(120_000);
    const server = serverTexts(id);
    expect([...server].sort()).toEqual([...written.values()].flat().sort());
    devices.forEach((device, index) => {
      expect(server.filter((text) => text.startsWith(`d${index}-`))).toEqual(written.get(device));
    });
    for (const device of devices) {
      expect(device.app.tail(id)).toEqual({ acknowledged: [], pending: [] });
      expect(row(device, id).top).toBe(server.length + 1);
      const stored = await device.store.entries({ id: 0, conversation: id, beforeSeq: 0, afterSeq: 1, limit: 10_000 });
      // A device that jumped over a long gap has its end; all have the same entries at the same places.
      for (const entry of stored) expect(textOf(entry)).toBe(server[entry.seq - 2]);
      device.app.closeView();
      device.app.open(id);
      await world.pass(1_000);
      for (let page = 0; page < 10; page++) {
        device.app.older();
        await world.pass(10 * LATENCY_MS);
      }
      expect(device.texts()).toEqual(server);
    }
  });
});

// The pieces of the replica, each by itself.

import { describe, expect, it } from 'vitest';
import { Backoff } from '../src/ringline/backoff';
import { Cursors } from '../src/ringline/cursors';
import { ErrorCode } from '../src/ringline/errors';
import { Feed } from '../src/ringline/feed';
import { FEED_VERSION_BITS_OF_ONE_RESTORE, IDEMPOTENCY_MS, OUTBOX_ITEMS_MAX, SENDS_IN_FLIGHT_MAX, VIEW_ENTRIES_MAX } from '../src/ringline/limits';
import { advance, tickOf, withEntries, withInfo, withRead } from '../src/ringline/log';
import { Outbox } from '../src/ringline/outbox';
import { mergeRows } from '../src/ringline/store';
import type { Conversation, ConversationInfo, Entry, Refusal } from '../src/ringline/types';
import { View } from '../src/ringline/view';
import { seeded } from './world';

const ID = 'aa'.repeat(16);
const DEVICE = 'dd'.repeat(16);
const entry = (seq: number, sender = 1, kind = 0): Entry => ({ conversation: ID, seq, sender, timeMs: seq, kind, body: new Uint8Array([65]) });
const run = (from: number, to: number): Entry[] => Array.from({ length: to - from + 1 }, (_, index) => entry(from + index));
const refusal = (code: number, retryable: boolean, retryAfterMs = 0): Refusal => ({ code, detail: '', retryable, retryAfterMs });
const info = (change: Partial<ConversationInfo> = {}): ConversationInfo => ({
  id: ID, kind: 'direct', title: '', headSeq: 1, createdMs: 1, unread: 0, readUpTo: 0, deliveredUpTo: 0, last: null, ownOrdinal: 0,
  members: [{ ordinal: 0, user: '01', deliveredUpTo: 0, readUpTo: 0 }, { ordinal: 1, user: '02', deliveredUpTo: 0, readUpTo: 0 }], ...change,
});
const rowOf = (change: Partial<Conversation> = {}): Conversation => ({ ...withInfo(undefined, info()), ...change });

describe('back-off', () => {
  it('grows to its cap with full jitter and respects the server', () => {
    const backoff = new Backoff(100, 1_000);
    const highest = () => backoff.next(() => 0.999999);
    expect([highest(), highest(), highest(), highest(), highest(), highest()]).toEqual([99, 199, 399, 799, 999, 999]);
    expect(backoff.next(() => 0)).toBe(0);
    expect(backoff.next(() => 0.5, 5_000)).toBe(5_500);
    backoff.reset();
    expect(highest()).toBe(99);
  });
});

describe('the log', () => {
  it('grows by what joins it, keeps what comes early, drops what is known', () => {
    const ahead = new Map<number, Entry>();
    expect(advance(3, ahead, [entry(6)])).toEqual([]);
    expect(advance(3, ahead, [entry(5)])).toEqual([]);
    expect(advance(3, ahead, run(1, 4)).map((one) => one.seq)).toEqual([4, 5, 6]);
    expect(ahead.size).toBe(0);
    expect(advance(6, ahead, run(2, 6))).toEqual([]);
    expect(ahead.size).toBe(0);
  });

  it('starts wherever its first entries are', () => {
    expect(advance(0, new Map(), run(40, 42)).map((one) => one.seq)).toEqual([40, 41, 42]);
  });

  it('agrees with sorting, whatever the order of arrival', () => {
    const random = seeded(5);
    for (let round = 0; round < 50; round++) {
      const ahead = new Map<number, Entry>();
      const order = run(2, 40).map((one) => ({ one, at: random() })).sort((a, b) => a.at - b.at).map(({ one }) => one);
      const seen: number[] = [];
      for (const one of [...order, ...order]) seen.push(...advance(seen[seen.length - 1] ?? 1, ahead, [one]).map((grown) => grown.seq));
      expect(seen).toEqual(run(2, 40).map((one) => one.seq));
    }
  });

  it('counts unread messages of others, and each once', () => {
    let row = rowOf({ unread: 2, unreadHead: 5, top: 5, headSeq: 5 });
    row = withEntries(row, [entry(6, 1), entry(7, 0), entry(8, 1, 16), entry(9, 1)]);
    expect(row.unread).toBe(4);
    row = withEntries({ ...row, top: 5 }, run(6, 9));
    expect(row.unread).toBe(4);
    expect(withRead(row, 6, run(7, 9)).unread).toBe(3);
    expect(withRead(row, 9, []).unread).toBe(0);
    // Without the entries no more than there can be.
    expect(withRead(row, 8, []).unread).toBe(1);
  });

  it('takes the server’s count unless it knows better', () => {
    const row = rowOf({ unread: 4, unreadHead: 9, headSeq: 9, top: 9, readUpTo: 5 });
    expect(withInfo(row, info({ headSeq: 12, unread: 7, readUpTo: 5 }))).toMatchObject({ unread: 7, unreadHead: 12 });
    expect(withInfo(row, info({ headSeq: 8, unread: 3, readUpTo: 5 }))).toMatchObject({ unread: 4, unreadHead: 9 });
    expect(withInfo({ ...row, readUpTo: 9 }, info({ headSeq: 9, unread: 4, readUpTo: 5 }))).toMatchObject({ unread: 0, readUpTo: 9 });
    expect(withInfo(row, info({ headSeq: 9, unread: 0, readUpTo: 9 }))).toMatchObject({ unread: 0, readUpTo: 9 });
  });

  it('shows two ticks only when all others have it', () => {
    const member = (ordinal: number, deliveredUpTo: number, readUpTo: number) => ({ ordinal, user: `0${ordinal}`, deliveredUpTo, readUpTo });
    const row = rowOf({ members: [member(0, 9, 9), member(1, 5, 4), member(2, 3, 6)] });
    expect([3, 4, 5, 6, 7].map((seq) => tickOf(row, seq))).toEqual(['read', 'read', 'delivered', 'sent', 'sent']);
    expect(tickOf(rowOf({ members: [member(0, 9, 9)] }), 1)).toBe('sent');
  });

  it('merges rows of two windows without losing ground', () => {
    const mine = rowOf({ top: 5, headSeq: 5, readUpTo: 5, unread: 0, unreadHead: 5 });
    const other = rowOf({ top: 9, headSeq: 9, readUpTo: 2, unread: 7, unreadHead: 9 });
    expect(mergeRows(other, mine)).toMatchObject({ top: 9, headSeq: 9, readUpTo: 5 });
    expect(mergeRows(mine, other)).toMatchObject({ top: 9, headSeq: 9, readUpTo: 5 });
  });
});

describe('the outbox', () => {
  const filled = (count: number) => {
    const outbox = new Outbox(() => 0.5);
    for (let index = 1; index <= count; index++) {
      outbox.add({ clientId: BigInt(index), conversation: ID, device: DEVICE, kind: 0, body: new Uint8Array([index]), queuedMs: 0, afterSeq: 0 });
    }
    return outbox;
  };
  const drain = (outbox: Outbox, nowMs: number) => {
    const sends: [bigint, bigint][] = [];
    for (let send = outbox.poll(nowMs); send !== null; send = outbox.poll(nowMs)) sends.push([send.clientId, send.predecessor]);
    return sends;
  };

  it('pipelines with predecessors, and no more than it may', () => {
    const outbox = filled(20);
    const sends = drain(outbox, 0);
    expect(sends.length).toBe(SENDS_IN_FLIGHT_MAX);
    expect(sends.slice(0, 3)).toEqual([[1n, 0n], [2n, 1n], [3n, 2n]]);
    outbox.acknowledged(1n);
    expect(drain(outbox, 0)).toEqual([[9n, 8n]]);
  });

  it('sends again in order with the same ids', () => {
    const outbox = filled(3);
    drain(outbox, 0);
    outbox.refused(0, 1n, refusal(ErrorCode.ERROR_UNAVAILABLE, true, 1_000));
    outbox.refused(0, 2n, refusal(ErrorCode.ERROR_PREDECESSOR_MISSING, true));
    outbox.refused(0, 3n, refusal(ErrorCode.ERROR_PREDECESSOR_MISSING, true));
    expect(drain(outbox, 500)).toEqual([]);
    expect(outbox.pollTimeout()).toBe(1_200);
    expect(drain(outbox, 1_200)).toEqual([[1n, 0n], [2n, 1n], [3n, 2n]]);
    outbox.disconnected();
    expect(drain(outbox, 1_200)).toEqual([[1n, 0n], [2n, 1n], [3n, 2n]]);
  });

  it('waits as asked, whatever is acknowledged meanwhile', () => {
    const outbox = filled(3);
    drain(outbox, 0);
    // The refusal comes at once, the ticks of those before it after a sync.
    outbox.refused(0, 3n, refusal(ErrorCode.ERROR_THROTTLED, true, 1_000));
    outbox.acknowledged(1n);
    outbox.acknowledged(2n);
    expect(drain(outbox, 999)).toEqual([]);
    expect(drain(outbox, 1_000)).toEqual([[3n, 0n]]);
  });

  it('lets those behind a failed one go', () => {
    const outbox = filled(2);
    drain(outbox, 0);
    outbox.refused(0, 1n, refusal(ErrorCode.ERROR_BODY_TOO_LARGE, false));
    outbox.refused(0, 2n, refusal(ErrorCode.ERROR_PREDECESSOR_MISSING, true));
    expect(drain(outbox, 0)).toEqual([[2n, 0n]]);
    expect(outbox.item(1n)?.state).toBe('failed');
  });

  it('leaves to the person what the server may have forgotten, and what another device wrote', () => {
    const items = filled(2).items(ID);
    const late = new Outbox(() => 0.5);
    late.restore([...items], DEVICE, IDEMPOTENCY_MS);
    expect(drain(late, IDEMPOTENCY_MS)).toEqual([]);
    expect(late.retry(IDEMPOTENCY_MS, 1n, DEVICE, 77n)?.after.clientId).toBe(77n);
    const elsewhere = new Outbox(() => 0.5);
    elsewhere.restore([...items], 'ee'.repeat(16), 1);
    expect(drain(elsewhere, 1)).toEqual([]);
    const failed = filled(1);
    drain(failed, 0);
    failed.refused(0, 1n, refusal(ErrorCode.ERROR_NOT_A_MEMBER, false));
    expect(failed.retry(1, 1n, DEVICE, 77n)?.after.clientId).toBe(1n);
    const same = new Outbox(() => 0.5);
    same.restore([...items].reverse(), DEVICE, 1);
    expect(drain(same, 1)).toEqual([[1n, 0n], [2n, 1n]]);
  });

  it('is bounded', () => {
    const outbox = filled(OUTBOX_ITEMS_MAX);
    expect(outbox.isFull).toBe(true);
    expect(() => outbox.add({ clientId: 0n, conversation: ID, device: DEVICE, kind: 0, body: new Uint8Array(1), queuedMs: 0, afterSeq: 0 })).toThrow();
  });
});

describe('cursors', () => {
  it('tell only the newest, one at a time, and read covers delivered', () => {
    const cursors = new Cursors(() => 0);
    cursors.want(ID, 'delivered', 3);
    cursors.want(ID, 'delivered', 5);
    const first = cursors.poll(0);
    expect(first?.request).toEqual({ kind: 'delivered', conversation: ID, seq: 5 });
    cursors.want(ID, 'delivered', 8);
    expect(cursors.poll(0)).toBe(null);
    cursors.want(ID, 'read', 8);
    expect(cursors.poll(0)?.request).toEqual({ kind: 'read', conversation: ID, seq: 8 });
    if (first !== null) cursors.answered(first.tag);
    expect(cursors.poll(0)).toBe(null);
  });

  it('may wait for something newer, but not for ever', () => {
    const cursors = new Cursors(() => 0);
    cursors.want(ID, 'delivered', 3, 150);
    cursors.want(ID, 'delivered', 4, 200);
    expect(cursors.poll(149)).toBe(null);
    expect(cursors.pollTimeout()).toBe(150);
    expect(cursors.poll(150)?.request).toMatchObject({ kind: 'delivered', seq: 4 });
  });

  it('are told again after a refusal and a lost connection', () => {
    const cursors = new Cursors(() => 0.5);
    cursors.want(ID, 'read', 4);
    const first = cursors.poll(0);
    if (first === null) throw new Error('nothing');
    cursors.refused(0, first.tag, refusal(ErrorCode.ERROR_UNAVAILABLE, true, 100));
    expect(cursors.poll(50)).toBe(null);
    expect(cursors.poll(cursors.pollTimeout())?.request).toMatchObject({ seq: 4 });
    cursors.disconnected();
    const third = cursors.poll(0);
    expect(third?.request).toMatchObject({ seq: 4 });
    if (third !== null) cursors.answered(third.tag);
    cursors.disconnected();
    expect(cursors.poll(0)).toBe(null);
  });
});

describe('the view', () => {
  it('asks the server where the store has a hole', () => {
    const view = new View(ID, 100);
    const load = view.pollLoad();
    expect(load).toMatchObject({ beforeSeq: 101, limit: 50 });
    // 51 to 60 are missing.
    view.loaded(load?.id ?? 0, [...run(45, 50), ...run(61, 100)]);
    expect(view.entries.map((one) => one.seq)).toEqual(run(61, 100).map((one) => one.seq));
    expect(view.atTop).toBe(true);
    view.older();
    const second = view.pollLoad();
    expect(second).toMatchObject({ beforeSeq: 61 });
    view.loaded(second?.id ?? 0, run(11, 50));
    const asked = view.poll();
    expect(asked?.request).toMatchObject({ kind: 'history', beforeSeq: 61, afterSeq: 0 });
    if (asked !== null) view.answered(asked.tag, run(11, 60));
    expect(view.entries[0]?.seq).toBe(11);
  });

  it('holds a bounded run and knows its ends', () => {
    const view = new View(ID, 2_000);
    let load = view.pollLoad();
    view.loaded(load?.id ?? 0, run(1_951, 2_000));
    for (let first = 1_951; first > 1; first -= 50) {
      view.older();
      load = view.pollLoad();
      view.loaded(load?.id ?? 0, run(Math.max(1, first - 50), first - 1));
    }
    expect(view.entries.length).toBe(VIEW_ENTRIES_MAX);
    expect(view.atStart).toBe(true);
    expect(view.atTop).toBe(false);
    view.appended(run(2_001, 2_001), 2_001);
    expect(view.entries.length).toBe(VIEW_ENTRIES_MAX);
    view.newer();
    expect(view.pollLoad()).toMatchObject({ afterSeq: VIEW_ENTRIES_MAX });
  });

  it('drops answers to what it does not want any more, and tries again after a failure', () => {
    const view = new View(ID, 0);
    const first = view.poll();
    if (first === null) throw new Error('nothing');
    view.latest();
    view.answered(first.tag, run(1, 5));
    expect(view.isEmpty).toBe(true);
    const second = view.poll();
    if (second === null) throw new Error('nothing');
    view.refused(second.tag);
    expect(view.failed).toBe(true);
    view.retry();
    expect(view.poll()).not.toBe(null);
  });
});

describe('a feed', () => {
  it('knows a restored server before it has taken in a page', () => {
    const feed = new Feed(() => 0.5);
    const restored = (times: bigint) => (times << FEED_VERSION_BITS_OF_ONE_RESTORE) + 5n;
    expect(feed.wasRestored(restored(1n))).toBe(false);
    feed.ready(0n);
    expect(feed.wasRestored(7n)).toBe(false);
    expect(feed.wasRestored(restored(1n))).toBe(true);
    // A page that is empty says nothing of it.
    feed.restores = 1n;
    expect(feed.wasRestored(0n)).toBe(false);
    expect(feed.wasRestored(restored(1n))).toBe(false);
    expect(feed.wasRestored(restored(2n))).toBe(true);
  });
});

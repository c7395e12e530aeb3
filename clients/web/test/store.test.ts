// Both stores keep the same contract.

import 'fake-indexeddb/auto';
import { describe, expect, it } from 'vitest';
import { IndexedDbStore } from '../src/ringline/indexeddb';
import { withInfo } from '../src/ringline/log';
import { MemoryStore } from '../src/ringline/memory';
import type { Batch, Store } from '../src/ringline/store';
import type { Conversation, Entry } from '../src/ringline/types';
import type { Load } from '../src/ringline/view';

const ID = 'aa'.repeat(16);
const OTHER = 'bb'.repeat(16);
const entry = (seq: number, conversation = ID): Entry => ({ conversation, seq, sender: 0, timeMs: seq, kind: 0, body: new Uint8Array([seq % 256]) });
const row = (change: Partial<Conversation> = {}): Conversation => ({
  ...withInfo(undefined, { id: ID, kind: 'direct', title: '', members: [], headSeq: 1, createdMs: 1, unread: 0, readUpTo: 0, deliveredUpTo: 0, last: null, ownOrdinal: 0 }),
  ...change,
});
const batch = (change: Partial<Batch>): Batch => ({ conversations: [], entries: [], users: [], outboxPut: [], outboxDelete: [], version: null, restores: 0n, ...change });
const load = (change: Partial<Load>): Load => ({ id: 1, conversation: ID, beforeSeq: 0, afterSeq: 0, limit: 5, ...change });
const item = (clientId: bigint) => ({
  clientId, conversation: ID, device: 'd1', kind: 0, body: new Uint8Array([1]), order: 1, queuedMs: 5, afterSeq: 1, state: 'queued' as const, refusal: null,
});

let users = 0;
describe.each<[string, () => Promise<Store>]>([
  ['in memory', async () => new MemoryStore()],
  ['in IndexedDB', () => { users += 1; return IndexedDbStore.open(`user${users}`); }],
])('a store %s', (_, open) => {
  it('gives back what was written', async () => {
    const store = await open();
    await store.reset('d1');
    const version = (9n << 40n) | 1n;
    await store.write(batch({
      conversations: [row({ top: 3 })], entries: [entry(1), entry(2), entry(3)], version,
      users: [{ id: 'u1', username: 'ada', displayName: 'Ada', fetchedMs: 3 }], outboxPut: [item(1n << 63n)],
    }));
    const snapshot = await store.restore();
    expect(snapshot).toMatchObject({ device: 'd1', version, conversations: [{ id: ID, top: 3 }], users: [{ username: 'ada' }], outbox: [item(1n << 63n)] });
    await store.write(batch({ outboxDelete: [1n << 63n] }));
    expect((await store.restore()).outbox).toEqual([]);
    expect((await store.restore()).version).toBe(version);
  });

  it('reads next to a bound, nearest first, of one conversation', async () => {
    const store = await open();
    await store.write(batch({ entries: [...Array.from({ length: 20 }, (_, index) => entry(index + 1)), entry(7, OTHER)] }));
    const seqs = async (change: Partial<Load>) => (await store.entries(load(change))).map((one) => one.seq);
    expect(await seqs({ beforeSeq: 11 })).toEqual([6, 7, 8, 9, 10]);
    expect(await seqs({ beforeSeq: 3 })).toEqual([1, 2]);
    expect(await seqs({ afterSeq: 11 })).toEqual([12, 13, 14, 15, 16]);
    expect(await seqs({ afterSeq: 18 })).toEqual([19, 20]);
    expect(await seqs({ conversation: OTHER, beforeSeq: 11 })).toEqual([7]);
  });

  it('never lets a row fall back', async () => {
    const store = await open();
    await store.write(batch({ conversations: [row({ top: 9, headSeq: 9, readUpTo: 4 })] }));
    await store.write(batch({ conversations: [row({ top: 5, headSeq: 5, readUpTo: 5 })] }));
    expect((await store.restore()).conversations).toMatchObject([{ top: 9, headSeq: 9, readUpTo: 5 }]);
  });

  it('takes nothing of a server that was restored from a backup since, but for what is not sent', async () => {
    const store = await open();
    await store.reset('d1');
    expect((await store.restore()).restores).toBe(null);
    await store.write(batch({ conversations: [row()], entries: [entry(1)], outboxPut: [item(4n)], version: 8n }));
    expect((await store.restore()).restores).toBe(0n);
    await store.reset('d1', 1n);
    expect(await store.restore()).toMatchObject({ version: 0n, restores: 1n, conversations: [], outbox: [{ clientId: 4n }] });
    // Of a window that does not know yet.
    await store.write(batch({ conversations: [row()], entries: [entry(1)], outboxPut: [item(5n)], outboxDelete: [4n], version: 9n }));
    expect(await store.restore()).toMatchObject({ version: 0n, restores: 1n, conversations: [], outbox: [{ clientId: 5n }] });
    expect(await store.entries(load({ afterSeq: 0 }))).toEqual([]);
    const anew = batch({ conversations: [row()], entries: [entry(2)], version: 7n, restores: 1n });
    await store.write(anew);
    // A window that comes later finds what the first one has fetched anew.
    await store.reset('d1', 1n);
    expect(await store.restore()).toMatchObject({ version: 7n, restores: 1n, conversations: [{ id: ID }] });
    await store.destroy();
  });

  it('is empty for another device, but for what is not sent', async () => {
    const store = await open();
    await store.reset('d1');
    await store.write(batch({ conversations: [row()], entries: [entry(1)], outboxPut: [item(4n)], version: 8n }));
    await store.reset('d2');
    expect(await store.restore()).toMatchObject({ device: 'd2', version: 0n, conversations: [], users: [], outbox: [{ clientId: 4n }] });
    expect(await store.entries(load({ afterSeq: 0 }))).toEqual([]);
    await store.destroy();
  });
});

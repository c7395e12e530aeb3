// The store in IndexedDB: one database for each user of this browser.

import { restoresOf } from './feed';
import type { UserId } from './ids';
import type { OutboxItem } from './outbox';
import { isOfStored, mergeRows, type Batch, type Snapshot, type Store } from './store';
import type { Conversation, Entry, User } from './types';
import type { Load } from './view';

/** Grows with every change of the layout below; `upgrade` knows the way from each earlier one. */
const LAYOUT_VERSION = 1;
const ALL = ['meta', 'conversations', 'entries', 'users', 'outbox'] as const;

/** Keys of IndexedDB cannot be bigint. */
type StoredItem = Omit<OutboxItem, 'clientId'> & { clientId: string };

export class IndexedDbStore implements Store {
  private constructor(private readonly database: IDBDatabase, private readonly name: string) {}

  static async open(user: UserId): Promise<IndexedDbStore> {
    const name = `ringline-${user}`;
    const request = indexedDB.open(name, LAYOUT_VERSION);
    request.onupgradeneeded = () => upgrade(request.result);
    const database = await result(request);
    // Another window deletes it (log out): do not stand in the way.
    database.onversionchange = () => database.close();
    return new IndexedDbStore(database, name);
  }

  async restore(): Promise<Snapshot> {
    const stores = this.database.transaction(ALL, 'readonly');
    const [device, version, restores, conversations, users, outbox] = await Promise.all([
      result<string | undefined>(stores.objectStore('meta').get('device')),
      result<string | undefined>(stores.objectStore('meta').get('version')),
      result<string | undefined>(stores.objectStore('meta').get('restores')),
      result<Conversation[]>(stores.objectStore('conversations').getAll()),
      result<User[]>(stores.objectStore('users').getAll()),
      result<StoredItem[]>(stores.objectStore('outbox').getAll()),
    ]);
    return {
      device: device ?? '', version: BigInt(version ?? '0'), restores: knownRestores(restores, version), conversations, users,
      outbox: outbox.map((item) => ({ ...item, clientId: BigInt(item.clientId) })),
    };
  }

  async reset(device: string, restores?: bigint): Promise<void> {
    const transaction = this.database.transaction(ALL, 'readwrite');
    this.ifRestores(transaction, (stored) => {
      if (restores !== undefined && stored === restores) return;
      for (const name of ['meta', 'conversations', 'entries', 'users']) transaction.objectStore(name).clear();
      transaction.objectStore('meta').put(device, 'device');
      if (restores !== undefined) transaction.objectStore('meta').put(String(restores), 'restores');
    });
    await done(transaction);
  }

  async write(batch: Batch): Promise<void> {
    const transaction = this.database.transaction(ALL, 'readwrite', { durability: 'relaxed' });
    const meta = transaction.objectStore('meta');
    this.ifRestores(transaction, (stored) => {
      if (!isOfStored(stored, batch)) return;
      if (stored === null && batch.restores !== null) meta.put(String(batch.restores), 'restores');
      const entries = transaction.objectStore('entries');
      for (const entry of batch.entries) entries.put(entry);
      const conversations = transaction.objectStore('conversations');
      for (const row of batch.conversations) {
        const before: IDBRequest<Conversation | undefined> = conversations.get(row.id);
        before.onsuccess = () => conversations.put(mergeRows(before.result, row));
      }
      const users = transaction.objectStore('users');
      for (const user of batch.users) users.put(user);
      if (batch.version !== null) meta.put(String(batch.version), 'version');
    });
    const outbox = transaction.objectStore('outbox');
    for (const item of batch.outboxPut) outbox.put({ ...item, clientId: String(item.clientId) } satisfies StoredItem);
    for (const id of batch.outboxDelete) outbox.delete(String(id));
    await done(transaction);
  }

  async entries({ conversation, beforeSeq, afterSeq, limit }: Load): Promise<Entry[]> {
    const entries = this.database.transaction('entries', 'readonly').objectStore('entries');
    if (beforeSeq === 0) {
      return result(entries.getAll(IDBKeyRange.bound([conversation, afterSeq], [conversation, Infinity], true), limit));
    }
    // The nearest below a bound: getAll only walks upwards, and a run has no holes, so the keys are known.
    return result(entries.getAll(IDBKeyRange.bound([conversation, beforeSeq - limit], [conversation, beforeSeq], false, true), limit));
  }

  /** Goes on within the transaction. */
  private ifRestores(transaction: IDBTransaction, goOn: (stored: bigint | null) => void): void {
    const meta = transaction.objectStore('meta');
    const restores: IDBRequest<string | undefined> = meta.get('restores');
    const version: IDBRequest<string | undefined> = meta.get('version');
    // Answers come in the order of the questions.
    version.onsuccess = () => goOn(knownRestores(restores.result, version.result));
  }

  close(): void {
    this.database.close();
  }

  async destroy(): Promise<void> {
    this.database.close();
    await result(indexedDB.deleteDatabase(this.name));
  }
}

/** A store of before this was written down knows it by its version. */
function knownRestores(restores: string | undefined, version: string | undefined): bigint | null {
  if (restores !== undefined) return BigInt(restores);
  return version === undefined ? null : restoresOf(BigInt(version));
}

function upgrade(database: IDBDatabase): void {
  database.createObjectStore('meta');
  database.createObjectStore('conversations', { keyPath: 'id' });
  database.createObjectStore('entries', { keyPath: ['conversation', 'seq'] });
  database.createObjectStore('users', { keyPath: 'id' });
  database.createObjectStore('outbox', { keyPath: 'clientId' });
}

function result<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error ?? new Error('store failed'));
  });
}

function done(transaction: IDBTransaction): Promise<void> {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onerror = () => reject(transaction.error ?? new Error('store failed'));
    transaction.onabort = () => reject(transaction.error ?? new Error('store aborted'));
  });
}

// The store in IndexedDB: one database for each user of this browser.

import type { UserId } from './ids';
import type { OutboxItem } from './outbox';
import { mergeRows, type Batch, type Snapshot, type Store } from './store';
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
    const [device, version, conversations, users, outbox] = await Promise.all([
      result<string | undefined>(stores.objectStore('meta').get('device')),
      result<string | undefined>(stores.objectStore('meta').get('version')),
      result<Conversation[]>(stores.objectStore('conversations').getAll()),
      result<User[]>(stores.objectStore('users').getAll()),
      result<StoredItem[]>(stores.objectStore('outbox').getAll()),
    ]);
    return {
      device: device ?? '', version: BigInt(version ?? '0'), conversations, users,
      outbox: outbox.map((item) => ({ ...item, clientId: BigInt(item.clientId) })),
    };
  }

  async reset(device: string): Promise<void> {
    const transaction = this.database.transaction(ALL, 'readwrite');
    for (const name of ['meta', 'conversations', 'entries', 'users']) transaction.objectStore(name).clear();
    transaction.objectStore('meta').put(device, 'device');
    await done(transaction);
  }

  async write(batch: Batch): Promise<void> {
    const transaction = this.database.transaction(ALL, 'readwrite', { durability: 'relaxed' });
    const entries = transaction.objectStore('entries');
    for (const entry of batch.entries) entries.put(entry);
    const conversations = transaction.objectStore('conversations');
    for (const row of batch.conversations) {
      const stored: IDBRequest<Conversation | undefined> = conversations.get(row.id);
      stored.onsuccess = () => conversations.put(mergeRows(stored.result, row));
    }
    const users = transaction.objectStore('users');
    for (const user of batch.users) users.put(user);
    const outbox = transaction.objectStore('outbox');
    for (const item of batch.outboxPut) outbox.put({ ...item, clientId: String(item.clientId) } satisfies StoredItem);
    for (const id of batch.outboxDelete) outbox.delete(String(id));
    if (batch.version !== null) transaction.objectStore('meta').put(String(batch.version), 'version');
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

  close(): void {
    this.database.close();
  }

  async destroy(): Promise<void> {
    this.database.close();
    await result(indexedDB.deleteDatabase(this.name));
  }
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

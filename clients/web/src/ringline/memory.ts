// The store without a disk: for tests, and for browsers that refuse one.

import type { Entry } from './types';
import { isOfStored, mergeRows, type Batch, type Snapshot, type Store } from './store';
import type { Load } from './view';

export class MemoryStore implements Store {
  private snapshot: Snapshot = { device: '', version: 0n, restores: null, conversations: [], users: [], outbox: [] };
  private logs = new Map<string, Map<number, Entry>>();

  async restore(): Promise<Snapshot> {
    return structuredClone(this.snapshot);
  }

  async reset(device: string, restores?: bigint): Promise<void> {
    if (restores !== undefined && this.snapshot.restores === restores) return;
    this.logs.clear();
    const { outbox } = this.snapshot;
    this.snapshot = { device, version: 0n, restores: restores ?? null, conversations: [], users: [], outbox };
  }

  async write(batch: Batch): Promise<void> {
    const { snapshot } = this;
    if (!isOfStored(snapshot.restores, batch)) {
      batch = { ...batch, conversations: [], entries: [], users: [], version: null, restores: null };
    }
    const rows = new Map(snapshot.conversations.map((row) => [row.id, row]));
    for (const row of batch.conversations) rows.set(row.id, mergeRows(rows.get(row.id), row));
    const users = new Map(snapshot.users.map((user) => [user.id, user]));
    for (const user of batch.users) users.set(user.id, user);
    const outbox = new Map(snapshot.outbox.map((item) => [item.clientId, item]));
    for (const item of batch.outboxPut) outbox.set(item.clientId, item);
    for (const id of batch.outboxDelete) outbox.delete(id);
    for (const entry of batch.entries) {
      const log = this.logs.get(entry.conversation) ?? new Map<number, Entry>();
      this.logs.set(entry.conversation, log.set(entry.seq, entry));
    }
    this.snapshot = {
      device: snapshot.device, version: batch.version ?? snapshot.version, restores: snapshot.restores ?? batch.restores,
      conversations: [...rows.values()], users: [...users.values()], outbox: [...outbox.values()],
    };
  }

  async entries({ conversation, beforeSeq, afterSeq, limit }: Load): Promise<Entry[]> {
    const log = [...(this.logs.get(conversation)?.values() ?? [])].sort((a, b) => a.seq - b.seq);
    return beforeSeq > 0
      ? log.filter((entry) => entry.seq < beforeSeq).slice(-limit)
      : log.filter((entry) => entry.seq > afterSeq).slice(0, limit);
  }

  close(): void {}

  async destroy(): Promise<void> {
    await this.reset('');
    this.snapshot.outbox = [];
  }
}

// The store's contract: what survives a reload. A batch is written whole or not at all, and batches in the order they
// are given. Entries never change; conversations merge by maximum, as another window may have written more.

import type { OutboxItem } from './outbox';
import type { Conversation, Entry, User } from './types';
import type { Load } from './view';

export interface Batch {
  conversations: Conversation[];
  entries: Entry[];
  users: User[];
  outboxPut: OutboxItem[];
  outboxDelete: bigint[];
  /** The feed version that is reached once the rest of the batch is stored; null: unchanged. */
  version: bigint | null;
  /** How often the server had been restored from a backup when it gave the rest; null: nothing here is the server's. */
  restores: bigint | null;
}

export interface Snapshot {
  /** The device that the contents belong to; '' in a new store. */
  device: string;
  version: bigint;
  /** As in a batch: of what is stored; null: nothing is. */
  restores: bigint | null;
  conversations: Conversation[];
  users: User[];
  outbox: OutboxItem[];
}

export interface Store {
  restore(): Promise<Snapshot>;
  /**
   * Makes an empty store for a device: another device's cursors mean nothing here. The outbox stays. With `restores`: only
   * if what is stored is of a server that was restored less often, as another window may have been here before.
   */
  reset(device: string, restores?: bigint): Promise<void>;
  /**
   * Durable on return. Of a batch of a server that was restored from a backup since only the outbox is written: another
   * window knows it already, and what this one has is void.
   */
  write(batch: Batch): Promise<void>;
  entries(load: Load): Promise<Entry[]>;
  close(): void;
  /** Deletes everything. */
  destroy(): Promise<void>;
}

/** Whether the store takes what a batch has from the server. */
export function isOfStored(stored: bigint | null, batch: Batch): boolean {
  return stored === null || batch.restores === null || stored === batch.restores;
}

/** The row to keep when there may be a newer one: cursors only grow. */
export function mergeRows(stored: Conversation | undefined, row: Conversation): Conversation {
  if (stored === undefined) return row;
  const ahead = stored.readUpTo - row.readUpTo || stored.unreadHead - row.unreadHead;
  const newer = ahead > 0 ? stored : row;
  const last = (stored.last?.seq ?? 0) > (row.last?.seq ?? 0) ? stored.last : row.last;
  return {
    ...row,
    last,
    headSeq: Math.max(stored.headSeq, row.headSeq),
    top: Math.max(stored.top, row.top),
    unread: newer.unread,
    unreadHead: newer.unreadHead,
    readUpTo: Math.max(stored.readUpTo, row.readUpTo),
    deliveredUpTo: Math.max(stored.deliveredUpTo, row.deliveredUpTo),
    readTold: Math.max(stored.readTold, row.readTold),
    deliveredTold: Math.max(stored.deliveredTold, row.deliveredTold),
    members: mergeMembers(stored.members, row.members),
  };
}

/** Cursors of members, by maximum; `fresh` says who they are unless it is empty. */
export function mergeMembers<M extends { ordinal: number; deliveredUpTo: number; readUpTo: number }>(known: M[], fresh: M[]): M[] {
  if (fresh.length === 0) return known;
  const before = new Map(known.map((member) => [member.ordinal, member]));
  return fresh.map((member) => {
    const old = before.get(member.ordinal);
    if (old === undefined) return member;
    return {
      ...member,
      deliveredUpTo: Math.max(old.deliveredUpTo, member.deliveredUpTo),
      readUpTo: Math.max(old.readUpTo, member.readUpTo),
    };
  });
}

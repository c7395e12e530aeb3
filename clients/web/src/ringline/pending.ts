// What is to be stored next, gathered until the driver takes it as one batch.

import type { ConversationId, UserId } from './ids';
import type { OutboxItem } from './outbox';
import type { Conversation, Entry, User } from './types';

/** Rows and entries that changed since the last batch, the newest of each. */
export interface Pending {
  conversations: Map<ConversationId, Conversation>;
  entries: Entry[];
  users: Map<UserId, User>;
  outboxPut: Map<bigint, OutboxItem>;
  outboxDelete: Set<bigint>;
  version: bigint | null;
  delivered: Map<ConversationId, number>;
}

export function emptyPending(): Pending {
  return {
    conversations: new Map(), entries: [], users: new Map(), outboxPut: new Map(), outboxDelete: new Set(),
    version: null, delivered: new Map(),
  };
}

export function isEmpty(pending: Pending): boolean {
  const { conversations, entries, users, outboxPut, outboxDelete, version } = pending;
  return conversations.size + entries.length + users.size + outboxPut.size + outboxDelete.size === 0 && version === null;
}

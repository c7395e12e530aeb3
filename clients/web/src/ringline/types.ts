// The library's own nouns: what the wire, the store and the chat speak about, with ids as text and counts as numbers.

import type { ConversationId, DeviceId, UserId } from './ids';

/** What an entry is; the numbers are the wire's. */
export const EntryKind = { TEXT: 0, IMAGE: 1, VIDEO: 2, FILE: 3, VOICE_NOTE: 4, CREATED: 16 } as const;

/** One row of a conversation's log. Never changes once it exists. */
export interface Entry {
  conversation: ConversationId;
  /** 1, 2, 3, … without gaps. */
  seq: number;
  /** The sender's ordinal among the members. */
  sender: number;
  timeMs: number;
  kind: number;
  body: Uint8Array;
}

/** A member and its cursors, which only grow. */
export interface Member {
  ordinal: number;
  user: UserId;
  deliveredUpTo: number;
  readUpTo: number;
}

export type ConversationKind = 'direct' | 'group';

/** A conversation as the server tells it. */
export interface ConversationInfo {
  id: ConversationId;
  kind: ConversationKind;
  title: string;
  /** Empty: left out by the server. */
  members: Member[];
  headSeq: number;
  createdMs: number;
  unread: number;
  readUpTo: number;
  deliveredUpTo: number;
  last: Entry | null;
  ownOrdinal: number;
}

/** A conversation as this device knows it. Replaced, never changed in place, so that views may compare by identity. */
export interface Conversation extends ConversationInfo {
  /** Every entry from some point on up to here is in the store; 0: none yet. Never above headSeq. */
  top: number;
  /** Up to where `unread` counts. */
  unreadHead: number;
  /** What the server acknowledged of this device's cursors, as far as is known. */
  readTold: number;
  deliveredTold: number;
}

export interface User {
  id: UserId;
  username: string;
  displayName: string;
  /** When it was asked, for freshness. */
  fetchedMs: number;
}

/** Who is logged in, on which device. */
export interface Identity {
  user: UserId;
  device: DeviceId;
}

export interface Ready extends Identity {
  serverTimeMs: number;
  heartbeatMs: number;
  resumeToken: Uint8Array;
  feedVersion: bigint;
  frameBytesMax: number;
  requestsInFlightMax: number;
}

/** Newest sequence number a request or event speaks of, with its conversation. */
export interface Cursor {
  conversation: ConversationId;
  seq: number;
}

export type Request =
  | { kind: 'send'; conversation: ConversationId; clientId: bigint; entryKind: number; body: Uint8Array; predecessor: bigint }
  | { kind: 'delivered'; conversation: ConversationId; seq: number }
  | { kind: 'read'; conversation: ConversationId; seq: number }
  | { kind: 'sync'; sinceVersion: bigint; cursors: Cursor[]; namedOnly: boolean }
  | { kind: 'history'; conversation: ConversationId; beforeSeq: number; afterSeq: number; limit: number }
  | { kind: 'list'; limit: number; pageToken: Uint8Array }
  | { kind: 'create'; conversationKind: ConversationKind; members: UserId[]; title: string; creationId: bigint }
  | { kind: 'get'; conversation: ConversationId }
  | { kind: 'lookUp'; users: UserId[]; usernames: string[] }
  | { kind: 'logOut' }
  | { kind: 'ping' };

export interface Delta {
  conversation: ConversationInfo;
  entries: Entry[];
  truncated: boolean;
}

export interface Refusal {
  code: number;
  detail: string;
  retryable: boolean;
  retryAfterMs: number;
}

export type Answer =
  | { kind: 'accepted'; seq: number; timeMs: number }
  | { kind: 'syncPage'; deltas: Delta[]; version: bigint; more: boolean }
  | { kind: 'historyPage'; conversation: ConversationId; entries: Entry[]; headSeq: number }
  | { kind: 'conversationPage'; conversations: ConversationInfo[]; next: Uint8Array }
  | { kind: 'conversation'; conversation: ConversationInfo }
  | { kind: 'users'; users: Omit<User, 'fetchedMs'>[] }
  | { kind: 'done' }
  | { kind: 'pong' }
  | { kind: 'error'; refusal: Refusal };

export type ServerEvent =
  | { kind: 'message'; entry: Entry }
  | { kind: 'receipt'; conversation: ConversationId; member: number; deliveredUpTo: number; readUpTo: number }
  | { kind: 'syncNeeded' };

export type ClosingReason =
  | 'unspecified' | 'draining' | 'unauthenticated' | 'protocolError' | 'idle' | 'tooSlow' | 'overloaded' | 'loggedOut';

export interface Closing {
  reason: ClosingReason;
  retryAfterMs: number;
  detail: string;
}

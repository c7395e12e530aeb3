// Ringline for browsers: log in, keep a connection, keep a copy of the user's conversations, send and never twice.
//
// A message's way in here: chat → client → replica (outbox) → session → codec → connection → WebSocket, and back.

export { Ringline, type Environment } from './client';
export { browserEnvironment } from './browser';
export { LocalAccountKeeper, LoggedOut, Tokens, type Account, type AccountKeeper } from './accounts';
export { RestError, restAt, type Login, type Rest } from './rest';
export type { Status } from './connection';
export { RequestRefused, describe } from './errors';
export { tickOf, reachOf, isCountable, type Tick } from './log';
export type { OutboxItem } from './outbox';
export type { View } from './view';
export { EntryKind, type Conversation, type Entry, type Member, type User } from './types';
export { normalUsername, type ConversationId, type UserId } from './ids';
export * as limits from './limits';

// A server in memory that speaks the client protocol: for tests of the library and for looking at the chat without a
// gateway. It keeps the promises (one order, a repeat changes nothing) and can be told to break connections, lose
// answers and lose pushes.

import { createHash, randomBytes } from 'node:crypto';
import { ClientFrame, ServerFrame } from '../src/generated/envelope';
import { ErrorCode } from '../src/generated/errors';
import { ConversationKind, type Conversation as WireConversation } from '../src/generated/conversations';
import { EntryKind, type Entry } from '../src/generated/messages';
import { SessionClosing_Reason } from '../src/generated/auth';
import type { ConversationDelta } from '../src/generated/sync';

const PAGE_ENTRIES = 50;
const LATEST_ENTRIES = 20;
const SYNC_CONVERSATIONS = 100;

type ServerBody = NonNullable<ServerFrame['body']>;
type ClientBody = NonNullable<ClientFrame['body']>;

export interface MockUser { id: string; username: string; displayName: string; password: string }

interface MockConversation {
  id: string;
  kind: ConversationKind;
  title: string;
  members: { user: string; delivered: number; read: number }[];
  entries: Entry[];
  createdMs: number;
  /** (device, client message id) → sequence number. */
  accepted: Map<string, number>;
}

/** What goes wrong on purpose. */
export interface Faults {
  /** Sends are stored but their answers lost. */
  loseAcks: boolean;
  /** Live events are lost. */
  losePushes: boolean;
  /** Every request but hello is refused with this code. */
  refuse: number;
}

export class Backend {
  readonly users = new Map<string, MockUser>();
  readonly conversations = new Map<string, MockConversation>();
  readonly sessions = new Set<BackendSession>();
  readonly faults: Faults = { loseAcks: false, losePushes: false, refuse: 0 };
  /** What each hello proved itself with, in order. */
  readonly proofs: string[] = [];
  /** Bodies of all requests, in order. */
  readonly requests: ClientBody[] = [];
  private readonly feeds = new Map<string, Map<string, bigint>>();
  private readonly delivered = new Map<string, number>();
  private readonly tokens = new Map<string, { user: string; device: string }>();
  private version = 1n << 53n;

  constructor(readonly now: () => number = Date.now) {}

  register(username: string, displayName: string, password = 'password'): MockUser {
    const user = { id: randomBytes(16).toString('hex'), username, displayName, password };
    this.users.set(user.id, user);
    return user;
  }

  named(username: string): MockUser | undefined {
    return [...this.users.values()].find((user) => user.username === username);
  }

  newDevice(): string {
    return randomBytes(16).toString('hex');
  }

  issue(user: string, device: string): string {
    const token = randomBytes(16).toString('hex');
    this.tokens.set(token, { user, device });
    return token;
  }

  identity(token: string): { user: string; device: string } | undefined {
    return this.tokens.get(token);
  }

  revoke(device: string): void {
    for (const [token, identity] of this.tokens) if (identity.device === device) this.tokens.delete(token);
  }

  connect(emit: (payload: Uint8Array) => void, hangUp: () => void): BackendSession {
    const session = new BackendSession(this, emit, hangUp);
    this.sessions.add(session);
    return session;
  }

  feedVersion(user: string): bigint {
    let newest = (this.version >> 57n) << 57n;
    for (const version of this.feeds.get(user)?.values() ?? []) newest = version > newest ? version : newest;
    return newest;
  }

  createConversation(creator: string, kind: ConversationKind, others: string[], title: string, creationId: bigint, timeMs = this.now()): MockConversation {
    const parts = kind === ConversationKind.DIRECT ? [creator, ...others].sort() : [creator, String(creationId)];
    const id = createHash('sha256').update(`${kind} ${parts.join(' ')}`).digest('hex').slice(0, 32);
    const existing = this.conversations.get(id);
    if (existing !== undefined) return existing;
    const conversation: MockConversation = {
      id, kind, title, members: [...new Set([creator, ...others])].map((user) => ({ user, delivered: 0, read: 0 })),
      entries: [], createdMs: timeMs, accepted: new Map(),
    };
    this.conversations.set(id, conversation);
    this.append(conversation, 0, EntryKind.CREATED, new Uint8Array(0), '', timeMs);
    return conversation;
  }

  say(conversation: MockConversation, user: string, text: string, timeMs = this.now()): Entry {
    const ordinal = conversation.members.findIndex((member) => member.user === user);
    return this.append(conversation, ordinal, EntryKind.TEXT, new TextEncoder().encode(text), '', timeMs);
  }

  append(conversation: MockConversation, sender: number, kind: number, body: Uint8Array, device: string, timeMs = this.now()): Entry {
    const entry: Entry = { seq: BigInt(conversation.entries.length + 1), sender, timeMs: BigInt(timeMs), kind: kind as EntryKind, body };
    conversation.entries.push(entry);
    for (const member of conversation.members) this.touch(member.user, conversation.id);
    const named = { handle: 0, conversationId: bytes(conversation.id) };
    this.push(conversation, device, { $case: 'message', value: { ...named, entry } });
    return entry;
  }

  moveCursor(conversation: MockConversation, user: string, device: string, delivered: number, read: number): void {
    const ordinal = conversation.members.findIndex((member) => member.user === user);
    const member = conversation.members[ordinal];
    if (member === undefined) return;
    const key = `${conversation.id} ${device}`;
    this.delivered.set(key, Math.max(this.delivered.get(key) ?? 0, delivered, read));
    member.delivered = Math.max(member.delivered, delivered, read);
    member.read = Math.max(member.read, read);
    const named = { handle: 0, conversationId: bytes(conversation.id) };
    this.push(conversation, device, { $case: 'receipt', value: {
      ...named, member: ordinal, deliveredUpTo: BigInt(member.delivered), readUpTo: BigInt(member.read),
    } });
  }

  private push(conversation: MockConversation, origin: string, body: ServerBody): void {
    if (this.faults.losePushes) return;
    for (const session of this.sessions) {
      const concerned = conversation.members.some((member) => member.user === session.user);
      if (session.isReady && concerned && session.device !== origin) session.event(body);
    }
  }

  private touch(user: string, conversation: string): void {
    this.version += 1n;
    const feed = this.feeds.get(user) ?? new Map<string, bigint>();
    this.feeds.set(user, feed.set(conversation, this.version));
  }

  /** All is lost, and a backup restored in which the conversations ended with these entries, and others were not. */
  restore(lengths: Map<string, number>): void {
    this.version = ((this.version >> 57n) + 1n) << 57n;
    for (const conversation of [...this.conversations.values()]) {
      const length = lengths.get(conversation.id);
      if (length === undefined) {
        this.conversations.delete(conversation.id);
        for (const feed of this.feeds.values()) feed.delete(conversation.id);
        continue;
      }
      conversation.entries.length = Math.min(length, conversation.entries.length);
      conversation.accepted.clear();
      for (const member of conversation.members) {
        member.delivered = Math.min(member.delivered, length);
        member.read = Math.min(member.read, length);
        this.touch(member.user, conversation.id);
      }
    }
    for (const [key, seq] of this.delivered) this.delivered.set(key, Math.min(seq, lengths.get(key.slice(0, 32)) ?? 0));
  }

  info(conversation: MockConversation, user: string, withMembers = true): WireConversation {
    const ordinal = conversation.members.findIndex((member) => member.user === user);
    const own = conversation.members[ordinal];
    const unread = conversation.entries.filter((entry) => entry.kind < EntryKind.CREATED
      && entry.sender !== ordinal && Number(entry.seq) > (own?.read ?? 0)).length;
    return {
      handle: 0, conversationId: bytes(conversation.id), kind: conversation.kind, title: conversation.title,
      members: withMembers ? conversation.members.map((member, index) => ({
        ordinal: index, userId: bytes(member.user), deliveredUpTo: BigInt(member.delivered), readUpTo: BigInt(member.read),
      })) : [],
      headSeq: BigInt(conversation.entries.length), createdMs: BigInt(conversation.createdMs), unread: BigInt(unread),
      readUpTo: BigInt(own?.read ?? 0), deliveredUpTo: BigInt(own?.delivered ?? 0),
      last: conversation.entries[conversation.entries.length - 1], ownOrdinal: ordinal,
    };
  }

  sync(user: string, device: string, since: bigint, cursors: Map<string, number>): { deltas: ConversationDelta[]; version: bigint; more: boolean } {
    const changed = [...(this.feeds.get(user) ?? [])].filter(([id, version]) => version > since || cursors.has(id))
      .sort((a, b) => (a[1] < b[1] ? -1 : 1));
    const page = changed.slice(0, SYNC_CONVERSATIONS);
    let truncatedAny = false;
    let version = since;
    const deltas = page.flatMap(([id, feedVersion]) => {
      const conversation = this.conversations.get(id);
      if (conversation === undefined) return [];
      const head = conversation.entries.length;
      const from = cursors.get(id) ?? this.delivered.get(`${id} ${device}`) ?? Math.max(0, head - LATEST_ENTRIES);
      const entries = conversation.entries.slice(from, from + PAGE_ENTRIES);
      const truncated = from + entries.length < head;
      truncatedAny ||= truncated;
      if (!truncated && feedVersion > version) version = feedVersion;
      // The entries say what is newest; where there are none the device has it.
      return [{ conversation: { ...this.info(conversation, user), last: undefined }, entries, truncated }];
    });
    const more = truncatedAny || changed.length > page.length;
    return { deltas, version: truncatedAny ? since : version, more };
  }
}

/** The server's half of one connection. */
export class BackendSession {
  user = '';
  device = '';
  isReady = false;
  private readonly handles = new Map<string, number>();
  private readonly byHandle: string[] = [''];

  constructor(private readonly backend: Backend, private readonly emit: (payload: Uint8Array) => void, private readonly hangUp: () => void) {}

  receive(payload: Uint8Array): void {
    const { requestId, body } = ClientFrame.decode(payload);
    if (body === undefined) return this.close(SessionClosing_Reason.PROTOCOL_ERROR);
    if (!this.isReady) return this.hello(requestId, body);
    if (requestId === 0 && !['ping', 'delivered', 'read'].includes(body.$case)) return this.close(SessionClosing_Reason.PROTOCOL_ERROR);
    this.backend.requests.push(body);
    if (this.backend.faults.refuse !== 0 && body.$case !== 'ping') return this.refuse(requestId, this.backend.faults.refuse);
    const answer = this.answer(body);
    if (requestId === 0 || answer === null || (body.$case === 'send' && this.backend.faults.loseAcks)) return;
    this.write(requestId, answer);
    if (body.$case === 'logOut') this.close(SessionClosing_Reason.LOGGED_OUT);
  }

  event(body: ServerBody): void {
    this.write(0, body);
  }

  close(reason: SessionClosing_Reason, retryAfterMs = 0): void {
    this.write(0, { $case: 'closing', value: { reason, retryAfterMs, detail: '', code: ErrorCode.ERROR_UNSPECIFIED, gateways: [] } });
    this.cut();
  }

  /** As if the network broke. */
  cut(): void {
    this.isReady = false;
    this.backend.sessions.delete(this);
    this.hangUp();
  }

  private hello(requestId: number, body: ClientBody): void {
    if (requestId === 0) return this.close(SessionClosing_Reason.PROTOCOL_ERROR);
    const proof = body.$case === 'hello' ? body.value.proof : undefined;
    const token = proof?.$case === 'accessToken' ? proof.value : Buffer.from(proof?.value ?? []).toString();
    this.backend.proofs.push(proof?.$case ?? 'none');
    const identity = this.backend.identity(token);
    if (identity === undefined) return this.close(SessionClosing_Reason.UNAUTHENTICATED);
    this.user = identity.user;
    this.device = identity.device;
    this.isReady = true;
    this.write(requestId, { $case: 'ready', value: {
      version: 1, features: 1n, userId: bytes(this.user), deviceId: bytes(this.device),
      serverTimeMs: BigInt(this.backend.now()), heartbeatS: 30, resumeToken: Buffer.from(this.backend.issue(this.user, this.device)),
      feedVersion: this.backend.feedVersion(this.user), frameBytesMax: 65536, requestsInFlightMax: 64,
    } });
  }

  private answer(body: ClientBody): ServerBody | null {
    switch (body.$case) {
      case 'ping': return { $case: 'pong', value: { serverTimeMs: BigInt(this.backend.now()) } };
      case 'logOut':
        this.backend.revoke(this.device);
        return { $case: 'done', value: {} };
      case 'create': {
        const { kind, memberIds, title, creationId } = body.value;
        const others = memberIds.map(hex);
        const conversation = this.backend.createConversation(this.user, kind, others, title, creationId);
        return { $case: 'conversation', value: this.backend.info(conversation, this.user) };
      }
      case 'lookUp': {
        const ids = new Set(body.value.userIds.map(hex));
        const names = new Set(body.value.usernames);
        const found = [...this.backend.users.values()].filter((user) => ids.has(user.id) || names.has(user.username));
        return { $case: 'users', value: { users: found.map(({ id, username, displayName }) => ({ userId: bytes(id), username, displayName })) } };
      }
      case 'sync': {
        const cursors = new Map(body.value.cursors.map((cursor) => [this.idOf(cursor), Number(cursor.afterSeq)]));
        const { deltas, version, more } = this.backend.sync(this.user, this.device, body.value.sinceVersion, cursors);
        return { $case: 'syncPage', value: { conversations: deltas, version, more } };
      }
      case 'send': case 'delivered': case 'read': case 'history': case 'get': return this.answerAbout(body);
      default: return error(ErrorCode.ERROR_INVALID_ARGUMENT, body.$case);
    }
  }

  private answerAbout(body: Extract<ClientBody, { $case: 'send' | 'delivered' | 'read' | 'history' | 'get' }>): ServerBody {
    const conversation = this.backend.conversations.get(this.idOf(body.value));
    const ordinal = conversation?.members.findIndex((member) => member.user === this.user) ?? -1;
    if (conversation === undefined || ordinal < 0) return error(ErrorCode.ERROR_NOT_A_MEMBER, 'conversation');
    switch (body.$case) {
      case 'send': {
        const key = (id: bigint) => `${this.device} ${id}`;
        const { predecessor, clientMessageId, kind } = body.value;
        if (predecessor !== 0n && !conversation.accepted.has(key(predecessor))) {
          return error(ErrorCode.ERROR_PREDECESSOR_MISSING, 'predecessor', true);
        }
        const seq = conversation.accepted.get(key(clientMessageId))
          ?? Number(this.backend.append(conversation, ordinal, kind, body.value.body, this.device).seq);
        conversation.accepted.set(key(clientMessageId), seq);
        const timeDeltaMs = (conversation.entries[seq - 1]?.timeMs ?? 0n) - BigInt(this.serverTimeMs);
        return { $case: 'accepted', value: { seq: BigInt(seq), timeDeltaMs, durability: 0 } };
      }
      case 'delivered':
      case 'read': {
        const seq = Number(body.value.seq);
        this.backend.moveCursor(conversation, this.user, this.device, seq, body.$case === 'read' ? seq : 0);
        return { $case: 'done', value: {} };
      }
      case 'get': return { $case: 'conversation', value: this.backend.info(conversation, this.user) };
      case 'history': {
        const { beforeSeq, afterSeq, limit } = body.value;
        const count = limit || PAGE_ENTRIES;
        const before = beforeSeq === 0n ? conversation.entries.length : Number(beforeSeq) - 1;
        const entries = afterSeq > 0n
          ? conversation.entries.slice(Number(afterSeq), Number(afterSeq) + count)
          : conversation.entries.slice(Math.max(0, before - count), before);
        return { $case: 'historyPage', value: {
          handle: 0, conversationId: bytes(conversation.id), entries, headSeq: BigInt(conversation.entries.length),
        } };
      }
    }
  }

  private serverTimeMs = 0;

  private refuse(requestId: number, code: number): void {
    if (requestId !== 0) this.write(requestId, error(code, 'fault', code >= 40));
  }

  private idOf({ handle, conversationId }: { handle: number; conversationId: Uint8Array }): string {
    return handle === 0 ? hex(conversationId) : this.byHandle[handle] ?? '';
  }

  private write(requestId: number, body: ServerBody): void {
    if (body.$case === 'ready') this.serverTimeMs = Number(body.value.serverTimeMs);
    // Short names for every conversation that the frame mentions.
    const bindings: ServerFrame['bindings'] = [];
    const name = (id: string) => {
      let handle = this.handles.get(id);
      if (handle === undefined) {
        handle = this.byHandle.push(id) - 1;
        this.handles.set(id, handle);
        bindings.push({ handle, conversationId: bytes(id) });
      }
      return { handle, conversationId: new Uint8Array(0) };
    };
    const named = <T extends { conversationId: Uint8Array }>(value: T): T => (value.conversationId.length === 0 ? value : { ...value, ...name(hex(value.conversationId)) });
    let frame: ServerBody = body;
    if (body.$case === 'message') frame = { ...body, value: named(body.value) };
    else if (body.$case === 'receipt') frame = { ...body, value: named(body.value) };
    else if (body.$case === 'conversation') frame = { ...body, value: named(body.value) };
    else if (body.$case === 'historyPage') frame = { ...body, value: named(body.value) };
    else if (body.$case === 'syncPage') {
      const conversations = body.value.conversations.map((delta) => ({ ...delta, conversation: delta.conversation && named(delta.conversation) }));
      frame = { ...body, value: { ...body.value, conversations } };
    }
    this.emit(ServerFrame.encode({ requestId, body: frame, bindings }).finish());
  }
}

function error(code: number, detail: string, retryable = false): ServerBody {
  return { $case: 'error', value: { code: code as ErrorCode, detail, retryable, retryAfterMs: 0 } };
}

export function bytes(id: string): Uint8Array {
  return new Uint8Array(Buffer.from(id, 'hex'));
}

export function hex(id: Uint8Array): string {
  return Buffer.from(id).toString('hex');
}

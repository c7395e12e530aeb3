// Between wire frames and the library's nouns: handles become conversation ids, bytes become text ids, 64-bit
// numbers that fit become numbers. Everything a gateway sends is checked here; what is wrong is a ProtocolFault.

import * as auth from '../generated/auth';
import * as conversations from '../generated/conversations';
import { ClientFrame, ServerFrame } from '../generated/envelope';
import type * as messages from '../generated/messages';
import { ProtocolFault } from './errors';
import { idBytes, toHex, type ConversationId } from './ids';
import {
  FEATURE_HANDLES, FRAME_BYTES_MAX, HANDLES_MAX, HEARTBEAT_S_DEFAULT, REQUESTS_IN_FLIGHT_MAX, VERSION_MAX, VERSION_MIN,
} from './limits';
import type {
  Answer, Closing, ClosingReason, ConversationInfo, Entry, Member, Ready, Request, ServerEvent,
} from './types';

export type Proof = { accessToken: string } | { resumeToken: Uint8Array };

export type Received =
  | { kind: 'ready'; ready: Ready }
  | { kind: 'answer'; requestId: number; answer: Answer }
  | { kind: 'event'; event: ServerEvent }
  | { kind: 'closing'; closing: Closing };

const NO_BYTES = new Uint8Array(0);

/** The session's short names of conversations, given by the gateway. */
export class HandleTable {
  private readonly byHandle = new Map<number, ConversationId>();
  private readonly byId = new Map<ConversationId, number>();

  bind(handle: number, id: ConversationId): void {
    const known = this.byHandle.get(handle);
    if (known === id) return;
    if (handle === 0 || known !== undefined) throw new ProtocolFault(`handle ${handle} given twice`);
    if (this.byHandle.size >= HANDLES_MAX) throw new ProtocolFault('too many handles');
    this.byHandle.set(handle, id);
    this.byId.set(id, handle);
  }

  /** The conversation of a frame that names it by either. */
  resolve(handle: number, bytes: Uint8Array): ConversationId {
    if (handle === 0) return checkedId(bytes, 'conversation_id');
    const id = this.byHandle.get(handle);
    if (id === undefined) throw new ProtocolFault(`unknown handle ${handle}`);
    return id;
  }

  /** The two fields that name a conversation in a request. */
  name(id: ConversationId): { handle: number; conversationId: Uint8Array } {
    const handle = this.byId.get(id);
    return handle === undefined ? { handle: 0, conversationId: idBytes(id) } : { handle, conversationId: NO_BYTES };
  }
}

export function encodeHello(requestId: number, proof: Proof, client: string): Uint8Array {
  const hello: auth.Hello = {
    versionMin: VERSION_MIN,
    versionMax: VERSION_MAX,
    features: FEATURE_HANDLES,
    proof: 'accessToken' in proof
      ? { $case: 'accessToken', value: proof.accessToken }
      : { $case: 'resumeToken', value: proof.resumeToken },
    heartbeatS: 0,
    client,
  };
  return encodeFrame({ requestId, body: { $case: 'hello', value: hello } });
}

export function encodeRequest(requestId: number, request: Request, handles: HandleTable): Uint8Array {
  return encodeFrame({ requestId, body: requestBody(request, handles) });
}

function encodeFrame(frame: ClientFrame): Uint8Array {
  return ClientFrame.encode(frame).finish();
}

function requestBody(request: Request, handles: HandleTable): NonNullable<ClientFrame['body']> {
  switch (request.kind) {
    case 'send':
      return { $case: 'send', value: {
        ...handles.name(request.conversation), clientMessageId: request.clientId,
        kind: request.entryKind as messages.EntryKind, body: request.body, predecessor: request.predecessor,
      } };
    case 'delivered':
    case 'read':
      return { $case: request.kind, value: { ...handles.name(request.conversation), seq: BigInt(request.seq) } };
    case 'sync':
      return { $case: 'sync', value: {
        sinceVersion: request.sinceVersion,
        cursors: request.cursors.map(({ conversation, seq }) => ({ ...handles.name(conversation), afterSeq: BigInt(seq) })),
        namedOnly: request.namedOnly,
      } };
    case 'history':
      return { $case: 'history', value: {
        ...handles.name(request.conversation),
        beforeSeq: BigInt(request.beforeSeq), afterSeq: BigInt(request.afterSeq), limit: request.limit,
      } };
    case 'list':
      return { $case: 'list', value: { limit: request.limit, pageToken: request.pageToken } };
    case 'create':
      return { $case: 'create', value: {
        kind: request.conversationKind === 'direct'
          ? conversations.ConversationKind.DIRECT : conversations.ConversationKind.GROUP,
        memberIds: request.members.map(idBytes), title: request.title, creationId: request.creationId,
      } };
    case 'get':
      return { $case: 'get', value: handles.name(request.conversation) };
    case 'lookUp':
      return { $case: 'lookUp', value: { userIds: request.users.map(idBytes), usernames: request.usernames } };
    case 'logOut':
      return { $case: 'logOut', value: {} };
    case 'ping':
      return { $case: 'ping', value: {} };
  }
}

/** One server frame. `baseMs` is Ready's server time, the base of times in acknowledgements. */
export function decodeFrame(payload: Uint8Array, handles: HandleTable, baseMs: number): Received {
  let frame: ServerFrame;
  try {
    frame = ServerFrame.decode(payload);
  } catch (error) {
    throw new ProtocolFault(`malformed frame: ${String(error)}`);
  }
  for (const { handle, conversationId } of frame.bindings) handles.bind(handle, checkedId(conversationId, 'binding'));
  const body = frame.body;
  if (body === undefined) throw new ProtocolFault('frame without a known body');
  switch (body.$case) {
    case 'ready': return { kind: 'ready', ready: readyOf(body.value) };
    case 'closing': return { kind: 'closing', closing: closingOf(body.value) };
    case 'message':
    case 'receipt':
    case 'syncNeeded': return { kind: 'event', event: eventOf(body, handles) };
    default: return { kind: 'answer', requestId: frame.requestId, answer: answerOf(body, handles, baseMs) };
  }
}

type Body<Case extends string> = Extract<NonNullable<ServerFrame['body']>, { $case: Case }>;

function eventOf(body: Body<'message' | 'receipt' | 'syncNeeded'>, handles: HandleTable): ServerEvent {
  switch (body.$case) {
    case 'message': {
      const { handle, conversationId, entry } = body.value;
      if (entry === undefined) throw new ProtocolFault('message without an entry');
      return { kind: 'message', entry: entryOf(entry, handles.resolve(handle, conversationId)) };
    }
    case 'receipt':
      return {
        kind: 'receipt', conversation: handles.resolve(body.value.handle, body.value.conversationId),
        member: body.value.member,
        deliveredUpTo: count(body.value.deliveredUpTo), readUpTo: count(body.value.readUpTo),
      };
    case 'syncNeeded': return { kind: 'syncNeeded' };
  }
}

type AnswerBody = Exclude<NonNullable<ServerFrame['body']>, { $case: 'ready' | 'closing' | 'message' | 'receipt' | 'syncNeeded' }>;

function answerOf(body: AnswerBody, handles: HandleTable, baseMs: number): Answer {
  switch (body.$case) {
    case 'accepted':
      return { kind: 'accepted', seq: count(body.value.seq), timeMs: baseMs + Number(body.value.timeDeltaMs) };
    case 'syncPage':
      return {
        kind: 'syncPage', version: body.value.version, more: body.value.more,
        deltas: body.value.conversations.map((delta) => {
          const conversation = infoOf(present(delta.conversation, 'delta'), handles);
          return { conversation, entries: runOf(delta.entries, conversation.id), truncated: delta.truncated };
        }),
      };
    case 'historyPage': {
      const conversation = handles.resolve(body.value.handle, body.value.conversationId);
      const entries = runOf(body.value.entries, conversation);
      return { kind: 'historyPage', conversation, entries, headSeq: count(body.value.headSeq) };
    }
    case 'conversationPage':
      return {
        kind: 'conversationPage', next: body.value.next,
        conversations: body.value.conversations.map((conversation) => infoOf(conversation, handles)),
      };
    case 'conversation': return { kind: 'conversation', conversation: infoOf(body.value, handles) };
    case 'users':
      return { kind: 'users', users: body.value.users.map(({ userId, username, displayName }) => (
        { id: checkedId(userId, 'user_id'), username, displayName })) };
    case 'done': return { kind: 'done' };
    case 'pong': return { kind: 'pong' };
    case 'error': {
      const { code, detail, retryable, retryAfterMs } = body.value;
      return { kind: 'error', refusal: { code, detail, retryable, retryAfterMs } };
    }
  }
}

function readyOf(ready: auth.Ready): Ready {
  if (ready.version < VERSION_MIN || ready.version > VERSION_MAX) throw new ProtocolFault(`version ${ready.version}`);
  return {
    user: checkedId(ready.userId, 'user_id'),
    device: checkedId(ready.deviceId, 'device_id'),
    serverTimeMs: count(ready.serverTimeMs),
    heartbeatMs: (ready.heartbeatS || HEARTBEAT_S_DEFAULT) * 1_000,
    resumeToken: ready.resumeToken,
    feedVersion: ready.feedVersion,
    frameBytesMax: ready.frameBytesMax || FRAME_BYTES_MAX,
    requestsInFlightMax: ready.requestsInFlightMax || REQUESTS_IN_FLIGHT_MAX,
  };
}

const CLOSING_REASONS: ClosingReason[] = [
  'unspecified', 'draining', 'unauthenticated', 'protocolError', 'idle', 'tooSlow', 'overloaded', 'loggedOut',
];

function closingOf({ reason, retryAfterMs, detail }: auth.SessionClosing): Closing {
  return { reason: CLOSING_REASONS[reason] ?? 'unspecified', retryAfterMs, detail };
}

function infoOf(wire: conversations.Conversation, handles: HandleTable): ConversationInfo {
  const id = handles.resolve(wire.handle, wire.conversationId);
  return {
    id,
    kind: wire.kind === conversations.ConversationKind.GROUP ? 'group' : 'direct',
    title: wire.title,
    members: wire.members.map(memberOf),
    headSeq: count(wire.headSeq),
    createdMs: count(wire.createdMs),
    unread: count(wire.unread),
    readUpTo: count(wire.readUpTo),
    deliveredUpTo: count(wire.deliveredUpTo),
    last: wire.last === undefined ? null : entryOf(wire.last, id),
    ownOrdinal: wire.ownOrdinal,
  };
}

function memberOf(wire: conversations.Member): Member {
  return {
    ordinal: wire.ordinal, user: checkedId(wire.userId, 'member'),
    deliveredUpTo: count(wire.deliveredUpTo), readUpTo: count(wire.readUpTo),
  };
}

function entryOf(wire: messages.Entry, conversation: ConversationId): Entry {
  const seq = count(wire.seq);
  if (seq === 0) throw new ProtocolFault('entry without a sequence number');
  return { conversation, seq, sender: wire.sender, timeMs: count(wire.timeMs), kind: wire.kind, body: wire.body };
}

/** Entries of a page: consecutive and ascending, or the page is refused. */
function runOf(wire: messages.Entry[], conversation: ConversationId): Entry[] {
  const entries = wire.map((entry) => entryOf(entry, conversation));
  entries.forEach((entry, index) => {
    const before = entries[index - 1];
    if (before !== undefined && entry.seq !== before.seq + 1) throw new ProtocolFault('entries are not consecutive');
  });
  return entries;
}

function checkedId(bytes: Uint8Array, field: string): string {
  if (bytes.length !== 16) throw new ProtocolFault(`${field} is not 16 bytes`);
  return toHex(bytes);
}

function count(value: bigint): number {
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw new ProtocolFault('number out of range');
  return Number(value);
}

function present<T>(value: T | undefined, field: string): T {
  if (value === undefined) throw new ProtocolFault(`${field} is missing`);
  return value;
}

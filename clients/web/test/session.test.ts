import { describe, expect, it } from 'vitest';
import { ClientFrame, ServerFrame } from '../src/generated/envelope';
import { decodeFrame, HandleTable } from '../src/ringline/codec';
import { ProtocolFault } from '../src/ringline/errors';
import { HELLO_TIMEOUT_MS, PROBE_TIMEOUT_MS, REQUEST_TIMEOUT_MS } from '../src/ringline/limits';
import { Session } from '../src/ringline/session';
import { bytes } from './backend';

type ServerBody = NonNullable<ServerFrame['body']>;

const USER = '11'.repeat(16);
const CONVERSATION = '33'.repeat(16);
const READY: ServerBody = { $case: 'ready', value: {
  version: 1, features: 1n, userId: bytes(USER), deviceId: bytes('22'.repeat(16)), serverTimeMs: 1_000_000n,
  heartbeatS: 30, resumeToken: new Uint8Array([9]), feedVersion: (5n << 40n) | 7n, frameBytesMax: 65_536, requestsInFlightMax: 4,
} };

const frame = (body: ServerBody, requestId = 0, bindings: ServerFrame['bindings'] = []) =>
  ServerFrame.encode({ requestId, body, bindings }).finish();
const sent = (payload: Uint8Array | null) => ClientFrame.decode(payload ?? new Uint8Array(0));
const bound = (id: string) => [{ handle: 1, conversationId: bytes(id) }];

function ready(): Session<string> {
  const session = new Session<string>(0, { accessToken: 'token' }, 'test');
  session.handleFrame(10, frame(READY, 1));
  return session;
}

describe('hello', () => {
  it('carries the token and the versions, and nothing before Ready', () => {
    const session = new Session<string>(0, { accessToken: 'token' }, 'test');
    const { body, requestId } = sent(session.hello());
    expect(requestId).not.toBe(0);
    expect(body).toMatchObject({ $case: 'hello', value: { versionMin: 1, versionMax: 1, features: 1n, proof: { $case: 'accessToken', value: 'token' } } });
    expect(session.canRequest).toBe(false);
    expect(() => session.request(0, 'a', { kind: 'ping' })).toThrow();
  });

  it('is answered by Ready with a version beyond 2^53', () => {
    const session = new Session<string>(0, { resumeToken: new Uint8Array([1, 2]) }, 'test');
    expect(sent(session.hello()).body).toMatchObject({ value: { proof: { $case: 'resumeToken' } } });
    const [output] = session.handleFrame(10, frame(READY, 1));
    expect(output).toMatchObject({ kind: 'ready', ready: { user: USER, heartbeatMs: 30_000, feedVersion: (5n << 40n) | 7n } });
  });

  it('that is refused tells so', () => {
    const session = new Session<string>(0, { accessToken: 'old' }, 'test');
    const refused: ServerBody = { $case: 'error', value: { code: 11, detail: 'access_token', retryable: false, retryAfterMs: 0 } };
    expect(session.handleFrame(10, frame(refused))).toEqual([{ kind: 'unauthenticated' }]);
  });

  it('without an answer ends the session', () => {
    const session = new Session<string>(0, { accessToken: 'token' }, 'test');
    expect(session.pollTimeout()).toBe(HELLO_TIMEOUT_MS);
    expect(session.handleTimeout(HELLO_TIMEOUT_MS).dead).toBe(true);
  });
});

describe('requests', () => {
  it('are answered in any order, and bounded', () => {
    const session = ready();
    const first = sent(session.request(20, 'first', { kind: 'get', conversation: CONVERSATION }));
    const second = sent(session.request(20, 'second', { kind: 'ping' }));
    session.request(20, 'third', { kind: 'ping' });
    // Four in all; one place is the heartbeat's.
    expect(session.canRequest).toBe(false);
    expect(session.handleFrame(30, frame({ $case: 'done', value: {} }, second.requestId))).toMatchObject([{ tag: 'second' }]);
    expect(session.handleFrame(30, frame({ $case: 'done', value: {} }, first.requestId))).toMatchObject([{ tag: 'first' }]);
    expect(session.canRequest).toBe(true);
    // A second answer is nobody's.
    expect(session.handleFrame(30, frame({ $case: 'done', value: {} }, first.requestId))).toEqual([]);
  });

  it('use the handle once the gateway gave one', () => {
    const session = ready();
    const before = sent(session.request(20, 'a', { kind: 'get', conversation: CONVERSATION })).body;
    expect(before).toMatchObject({ value: { handle: 0, conversationId: bytes(CONVERSATION) } });
    const receipt: ServerBody = { $case: 'receipt', value: { handle: 1, conversationId: new Uint8Array(0), member: 1, deliveredUpTo: 3n, readUpTo: 2n } };
    expect(session.handleFrame(30, frame(receipt, 0, bound(CONVERSATION)))).toMatchObject([{ event: { conversation: CONVERSATION, deliveredUpTo: 3 } }]);
    const after = sent(session.request(40, 'b', { kind: 'read', conversation: CONVERSATION, seq: 3 })).body;
    expect(after).toMatchObject({ $case: 'read', value: { handle: 1, conversationId: new Uint8Array(0), seq: 3n } });
  });

  it('without an answer fail, but the session lives while anything comes', () => {
    const session = ready();
    session.request(20, 'slow', { kind: 'ping' });
    session.handleFrame(100, frame({ $case: 'pong', value: { serverTimeMs: 0n } }, 77));
    const { dead, outputs } = session.handleTimeout(20 + REQUEST_TIMEOUT_MS);
    expect(dead).toBe(false);
    expect(outputs).toMatchObject([{ tag: 'slow', answer: { kind: 'error', refusal: { retryable: true } } }]);
  });

  it('without any sign of life since then end the session', () => {
    const session = ready();
    session.request(20, 'lost', { kind: 'ping' });
    expect(session.handleTimeout(20 + REQUEST_TIMEOUT_MS).dead).toBe(true);
  });

  it('take times relative to Ready', () => {
    const session = ready();
    const { requestId } = sent(session.request(20, 'a', { kind: 'send', conversation: CONVERSATION, clientId: 5n, entryKind: 0, body: bytes('00'), predecessor: 0n }));
    const answer = frame({ $case: 'accepted', value: { seq: 8n, timeDeltaMs: -250n, durability: 0 } }, requestId);
    expect(session.handleFrame(30, answer)).toEqual([{ kind: 'answer', tag: 'a', answer: { kind: 'accepted', seq: 8, timeMs: 999_750 } }]);
  });
});

describe('heartbeats', () => {
  it('are sent when nothing else is, and three missed ones are the end', () => {
    const session = ready();
    expect(session.pollTimeout()).toBe(30_000);
    const ping = session.handleTimeout(30_000);
    expect(sent(ping.send).body).toEqual({ $case: 'ping', value: {} });
    expect(session.pollTimeout()).toBe(60_000);
    expect(session.handleTimeout(60_000).dead).toBe(false);
    expect(session.handleTimeout(90_010)).toMatchObject({ dead: true, send: null });
    expect(session.isReady).toBe(false);
  });

  it('go on for ever while they are answered', () => {
    const session = ready();
    for (let nowMs = 30_000; nowMs < 3_000_000; nowMs += 30_000) {
      const { send, dead } = session.handleTimeout(nowMs);
      expect(dead).toBe(false);
      session.handleFrame(nowMs, frame({ $case: 'pong', value: { serverTimeMs: 0n } }, sent(send).requestId));
    }
    expect(session.canRequest).toBe(true);
  });

  it('are asked for at once after waking up', () => {
    const session = ready();
    expect(sent(session.probe(5_000)).body).toEqual({ $case: 'ping', value: {} });
    expect(session.probe(5_001)).toBe(null);
    expect(session.handleTimeout(5_000 + PROBE_TIMEOUT_MS).dead).toBe(true);
  });
});

describe('what a gateway must not send', () => {
  const handles = () => new HandleTable();
  const message = (change: object): ServerBody => ({ $case: 'message', value: {
    handle: 0, conversationId: bytes(CONVERSATION), entry: { seq: 1n, sender: 0, timeMs: 5n, kind: 0, body: bytes('41') }, ...change,
  } });
  const page = (...seqs: bigint[]): ServerBody => ({ $case: 'historyPage', value: {
    handle: 0, conversationId: bytes(CONVERSATION), headSeq: 9n,
    entries: seqs.map((seq) => ({ seq, sender: 0, timeMs: 5n, kind: 0 as const, body: bytes('41') })),
  } });
  it.each([
    ['an unknown handle', frame(message({ handle: 3, conversationId: new Uint8Array(0) }))],
    ['an id of another length', frame(message({ conversationId: bytes('3333') }))],
    ['a message without its entry', frame(message({ entry: undefined }))],
    ['entries with a hole', frame(page(1n, 3n))],
    ['entries in the wrong order', frame(page(2n, 1n))],
    ['an entry without a number', frame(page(0n))],
    ['a number beyond all limits', frame(page(1n << 60n))],
    ['a frame without a body', ServerFrame.encode({ requestId: 1, body: undefined, bindings: [] }).finish()],
    ['half a frame', frame(READY).slice(0, 40)],
    ['noise', new Uint8Array([255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255])],
    ['a handle that changes its meaning', frame({ $case: 'done', value: {} }, 1, [...bound(CONVERSATION), ...bound(USER)])],
  ])('%s is a fault', (_, payload) => {
    expect(() => decodeFrame(payload, handles(), 0)).toThrow(ProtocolFault);
  });

  it('never breaks the decoder in another way', () => {
    const good = frame(page(1n, 2n, 3n), 7, bound(CONVERSATION));
    for (let index = 0; index < good.length; index++) {
      for (const value of [0, 1, 127, 128, 255]) {
        const bad = good.slice();
        bad[index] = value;
        try {
          decodeFrame(bad, handles(), 0);
        } catch (error) {
          expect(error).toBeInstanceOf(ProtocolFault);
        }
      }
    }
  });
});

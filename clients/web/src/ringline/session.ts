// The client half of one session as a state machine: no socket, no clock. Its driver gives it received payloads and
// the time, and sends what it returns.
//
//   hello ──Ready──▶ ready ──SessionClosing, fault, silence──▶ closed

import { decodeFrame, encodeHello, encodeRequest, HandleTable, type Proof } from './codec';
import { ErrorCode, ProtocolFault, unanswered } from './errors';
import { HEARTBEATS_MISSED_MAX, HELLO_TIMEOUT_MS, PROBE_TIMEOUT_MS, REQUEST_TIMEOUT_MS } from './limits';
import type { Answer, Closing, Ready, Request, ServerEvent } from './types';

export type SessionOutput<Tag> =
  | { kind: 'ready'; ready: Ready }
  | { kind: 'answer'; tag: Tag; answer: Answer }
  | { kind: 'event'; event: ServerEvent }
  /** The gateway is about to close; reconnect as it says. */
  | { kind: 'closing'; closing: Closing }
  /** The proof was not accepted. */
  | { kind: 'unauthenticated' };

type Waiting<Tag> = { sentMs: number; deadlineMs: number } & ({ own: false; tag: Tag } | { own: true });

/** Request id of the hello; the others follow. */
const HELLO_ID = 1;

/** `Tag` is the caller's own name of a request; it comes back with the answer. */
export class Session<Tag> {
  private readonly handles = new HandleTable();
  private readonly waiting = new Map<number, Waiting<Tag>>();
  private ready: Ready | null = null;
  private closed = false;
  private nextId = HELLO_ID + 1;
  private lastSentMs: number;
  private lastReceivedMs: number;
  private probeDeadlineMs = Infinity;

  constructor(private readonly startMs: number, private readonly proof: Proof, private readonly client: string) {
    this.lastSentMs = startMs;
    this.lastReceivedMs = startMs;
  }

  /** The first payload of the connection. */
  hello(): Uint8Array {
    return encodeHello(HELLO_ID, this.proof, this.client);
  }

  get isReady(): boolean {
    return this.ready !== null && !this.closed;
  }

  get canRequest(): boolean {
    // One place is left for the ping.
    return this.ready !== null && !this.closed && this.waiting.size < this.ready.requestsInFlightMax - 1;
  }

  /** The payload to send; only while `canRequest`. */
  request(nowMs: number, tag: Tag, request: Request): Uint8Array {
    if (!this.canRequest) throw new Error('request out of turn');
    return this.issue(nowMs, request, { own: false, tag, sentMs: nowMs, deadlineMs: nowMs + REQUEST_TIMEOUT_MS });
  }

  /** A ping that must be answered soon: asked for when the machine may have slept. */
  probe(nowMs: number): Uint8Array | null {
    if (!this.isReady || this.probeDeadlineMs !== Infinity) return null;
    this.probeDeadlineMs = nowMs + PROBE_TIMEOUT_MS;
    return this.issue(nowMs, { kind: 'ping' }, { own: true, sentMs: nowMs, deadlineMs: Infinity });
  }

  /** Takes one received payload; throws a ProtocolFault, after which the connection must be closed. */
  handleFrame(nowMs: number, payload: Uint8Array): SessionOutput<Tag>[] {
    if (this.closed) return [];
    this.lastReceivedMs = nowMs;
    this.probeDeadlineMs = Infinity;
    const received = decodeFrame(payload, this.handles, this.ready?.serverTimeMs ?? 0);
    switch (received.kind) {
      case 'ready':
        if (this.ready !== null) throw new ProtocolFault('ready twice');
        this.ready = received.ready;
        return [received];
      case 'closing':
        this.closed = true;
        return received.closing.reason === 'unauthenticated' ? [{ kind: 'unauthenticated' }] : [received];
      case 'event':
        if (this.ready === null) throw new ProtocolFault('event before ready');
        return [received];
      case 'answer':
        return this.answered(received.requestId, received.answer);
    }
  }

  private answered(requestId: number, answer: Answer): SessionOutput<Tag>[] {
    if (answer.kind === 'error' && isProofError(answer.refusal.code)) {
      this.closed = true;
      return [{ kind: 'unauthenticated' }];
    }
    if (this.ready === null) {
      throw new ProtocolFault(answer.kind === 'error' ? answer.refusal.detail : 'answer before ready');
    }
    const waiting = this.waiting.get(requestId);
    // An answer to a request that was given up already, or to none: nothing waits for it.
    if (waiting === undefined) return [];
    this.waiting.delete(requestId);
    return waiting.own ? [] : [{ kind: 'answer', tag: waiting.tag, answer }];
  }

  /** When `handleTimeout` wants to be called. */
  pollTimeout(): number {
    if (this.closed) return Infinity;
    if (this.ready === null) return this.startMs + HELLO_TIMEOUT_MS;
    let deadlineMs = Math.min(this.pingMs(), this.deadMs());
    for (const waiting of this.waiting.values()) deadlineMs = Math.min(deadlineMs, waiting.deadlineMs);
    return deadlineMs;
  }

  /** Pings, gives up requests; `dead` when the connection must be closed. */
  handleTimeout(nowMs: number): { dead: boolean; send: Uint8Array | null; outputs: SessionOutput<Tag>[] } {
    const outputs: SessionOutput<Tag>[] = [];
    if (this.closed) return { dead: true, send: null, outputs };
    const deadMs = this.ready === null ? this.startMs + HELLO_TIMEOUT_MS : this.deadMs();
    if (nowMs >= deadMs) {
      this.closed = true;
      return { dead: true, send: null, outputs };
    }
    for (const [id, waiting] of this.waiting) {
      if (nowMs < waiting.deadlineMs) continue;
      // Not a frame since it was asked: not the request is slow, the connection is gone.
      if (this.lastReceivedMs < waiting.sentMs) {
        this.closed = true;
        return { dead: true, send: null, outputs };
      }
      this.waiting.delete(id);
      if (waiting.own) continue;
      outputs.push({ kind: 'answer', tag: waiting.tag, answer: { kind: 'error', refusal: unanswered('no answer') } });
    }
    const ping = this.ready !== null && nowMs >= this.pingMs();
    const send = ping
      ? this.issue(nowMs, { kind: 'ping' }, { own: true, sentMs: nowMs, deadlineMs: Infinity })
      : null;
    return { dead: false, send, outputs };
  }

  private get heartbeatMs(): number {
    return this.ready?.heartbeatMs ?? Infinity;
  }

  private pingMs(): number {
    // Both sides want to hear something each heartbeat; after a ping nothing more is sent until the next one is due.
    return this.lastSentMs + this.heartbeatMs;
  }

  private deadMs(): number {
    return Math.min(this.probeDeadlineMs, this.lastReceivedMs + HEARTBEATS_MISSED_MAX * this.heartbeatMs);
  }

  private issue(nowMs: number, request: Request, waiting: Waiting<Tag>): Uint8Array {
    const id = this.nextId;
    this.nextId = this.nextId === 0xffff_ffff ? 1 : this.nextId + 1;
    this.waiting.set(id, waiting);
    this.lastSentMs = nowMs;
    return encodeRequest(id, request, this.handles);
  }
}

function isProofError(code: number): boolean {
  return code === ErrorCode.ERROR_UNAUTHENTICATED || code === ErrorCode.ERROR_TOKEN_EXPIRED;
}

// Messages that are not acknowledged yet. Each keeps its client message id until the server acknowledges it, so
// that repeating it stores nothing twice. Order within a conversation holds: a pipelined send names its predecessor
// and is refused if that one was not applied.
//
//   queued ──taken──▶ inFlight ──acknowledged──▶ (leaves)
//     ▲ ▲               │  │
//     │ └──retryable────┘  └──refused, too old──▶ failed ──retry──▶ queued
//     └────connection lost

import { Backoff, type Random } from './backoff';
import { ErrorCode } from './errors';
import type { ConversationId, DeviceId } from './ids';
import { OUTBOX_ITEMS_MAX, OUTBOX_RETRY_MS, RETRY_BASE_MS, RETRY_CAP_MS, SENDS_IN_FLIGHT_MAX } from './limits';
import type { Refusal, Request } from './types';

/** What the store keeps of an unacknowledged message. */
export interface OutboxItem {
  clientId: bigint;
  conversation: ConversationId;
  /** Part of the server's idempotency key: another device must not repeat it. */
  device: DeviceId;
  kind: number;
  body: Uint8Array;
  /** Order of sending, and when it was written. */
  order: number;
  queuedMs: number;
  /** The newest entry known when it was written: if the answer was lost, its own entry is above. */
  afterSeq: number;
  state: 'queued' | 'inFlight' | 'failed';
  /** Why it failed. */
  refusal: Refusal | null;
}

interface Lane {
  items: OutboxItem[];
  backoff: Backoff;
  notBeforeMs: number;
  /** The part of that wait that the server asked for: nothing shortens it but a new connection. */
  askedUntilMs: number;
}

export class Outbox {
  /** By conversation, in order of sending. */
  private readonly lanes = new Map<ConversationId, Lane>();
  private readonly byId = new Map<bigint, OutboxItem>();
  private nextOrder = 1;

  constructor(private readonly random: Random) {}

  get size(): number {
    return this.byId.size;
  }

  get isFull(): boolean {
    return this.byId.size >= OUTBOX_ITEMS_MAX;
  }

  all(): OutboxItem[] {
    return [...this.byId.values()];
  }

  items(conversation: ConversationId): readonly OutboxItem[] {
    return this.lanes.get(conversation)?.items ?? [];
  }

  item(clientId: bigint): OutboxItem | undefined {
    return this.byId.get(clientId);
  }

  /** Takes over what the store kept; items of another device, or too old, are left to the person. */
  restore(items: OutboxItem[], device: DeviceId, nowMs: number): void {
    for (const item of [...items].sort((a, b) => a.order - b.order)) {
      if (this.byId.has(item.clientId)) continue;
      const mine = item.device === device && nowMs - item.queuedMs < OUTBOX_RETRY_MS;
      this.insert({ ...item, state: item.state === 'failed' || !mine ? 'failed' : 'queued' });
    }
  }

  add(message: Omit<OutboxItem, 'order' | 'state' | 'refusal'>): OutboxItem {
    if (this.isFull) throw new Error('outbox is full');
    const item: OutboxItem = { ...message, order: this.nextOrder, state: 'queued', refusal: null };
    this.insert(item);
    return item;
  }

  private insert(item: OutboxItem): void {
    this.nextOrder = Math.max(this.nextOrder, item.order + 1);
    this.byId.set(item.clientId, item);
    this.lane(item.conversation).items.push(item);
  }

  private lane(conversation: ConversationId): Lane {
    let lane = this.lanes.get(conversation);
    if (lane === undefined) {
      lane = { items: [], backoff: new Backoff(RETRY_BASE_MS, RETRY_CAP_MS), notBeforeMs: 0, askedUntilMs: 0 };
      this.lanes.set(conversation, lane);
    }
    return lane;
  }

  /** The next send that may go out now; it counts as in flight from then on. */
  poll(nowMs: number): Extract<Request, { kind: 'send' }> | null {
    for (const [conversation, lane] of this.lanes) {
      if (nowMs < lane.notBeforeMs) continue;
      let inFlight = 0;
      let predecessor = 0n;
      for (const item of lane.items) {
        if (item.state === 'inFlight') {
          inFlight += 1;
          predecessor = item.clientId;
        } else if (item.state === 'queued') {
          if (inFlight >= SENDS_IN_FLIGHT_MAX) break;
          this.replace(item, { state: 'inFlight' });
          return { kind: 'send', conversation, clientId: item.clientId, entryKind: item.kind, body: item.body, predecessor };
        }
      }
    }
    return null;
  }

  /** When `poll` may have something again although nothing happens. */
  pollTimeout(): number {
    let deadlineMs = Infinity;
    for (const lane of this.lanes.values()) {
      if (lane.notBeforeMs > 0 && lane.items.some((item) => item.state === 'queued')) {
        deadlineMs = Math.min(deadlineMs, lane.notBeforeMs);
      }
    }
    return deadlineMs;
  }

  /** Durable at the server: the item leaves. */
  acknowledged(clientId: bigint): OutboxItem | undefined {
    const item = this.remove(clientId);
    if (item === undefined) return undefined;
    const lane = this.lane(item.conversation);
    lane.backoff.reset();
    // Those in flight before a refused one are answered after it: they are no news about its wait.
    lane.notBeforeMs = Math.min(lane.notBeforeMs, lane.askedUntilMs);
    return item;
  }

  /** Not carried out: again later, or failed for good. */
  refused(nowMs: number, clientId: bigint, refusal: Refusal): void {
    const item = this.byId.get(clientId);
    if (item === undefined || item.state !== 'inFlight') return;
    if (!refusal.retryable || nowMs - item.queuedMs >= OUTBOX_RETRY_MS) {
      this.replace(item, { state: 'failed', refusal });
      return;
    }
    this.replace(item, { state: 'queued', refusal });
    const lane = this.lane(item.conversation);
    // A missing predecessor is no news about the server: if the one before failed for good, this one may go at once;
    // if it was refused, it waits already.
    if (refusal.code === ErrorCode.ERROR_PREDECESSOR_MISSING) {
      const earlier = lane.items.some((other) => other.order < item.order && other.state === 'inFlight');
      if (!earlier || nowMs < lane.notBeforeMs) return;
    }
    lane.notBeforeMs = nowMs + lane.backoff.next(this.random, refusal.retryAfterMs);
    lane.askedUntilMs = Math.max(lane.askedUntilMs, nowMs + refusal.retryAfterMs);
  }

  /** The connection is gone: what was in flight is sent again, with the same ids. */
  disconnected(): void {
    for (const lane of this.lanes.values()) {
      lane.backoff.reset();
      lane.notBeforeMs = 0;
      lane.askedUntilMs = 0;
      for (const item of lane.items) if (item.state === 'inFlight') this.replace(item, { state: 'queued' });
    }
  }

  /** Asked for by the person. One that the server may have forgotten, or another device's, gets a new id. */
  retry(nowMs: number, clientId: bigint, device: DeviceId, freshId: bigint): { before: OutboxItem; after: OutboxItem } | null {
    const before = this.byId.get(clientId);
    if (before === undefined || before.state !== 'failed') return null;
    const known = before.device === device && nowMs - before.queuedMs < OUTBOX_RETRY_MS;
    this.remove(clientId);
    const after: OutboxItem = {
      ...before, device, state: 'queued', refusal: null, order: this.nextOrder,
      clientId: known ? clientId : freshId, queuedMs: known ? before.queuedMs : nowMs,
    };
    this.insert(after);
    return { before, after };
  }

  remove(clientId: bigint): OutboxItem | undefined {
    const item = this.byId.get(clientId);
    if (item === undefined) return undefined;
    this.byId.delete(clientId);
    const lane = this.lane(item.conversation);
    lane.items = lane.items.filter((other) => other.clientId !== clientId);
    if (lane.items.length === 0) this.lanes.delete(item.conversation);
    return item;
  }

  private replace(item: OutboxItem, change: Partial<OutboxItem>): void {
    const after = { ...item, ...change };
    this.byId.set(item.clientId, after);
    const lane = this.lane(item.conversation);
    lane.items = lane.items.map((other) => (other.clientId === item.clientId ? after : other));
  }
}

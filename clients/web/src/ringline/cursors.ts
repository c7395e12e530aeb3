// Delivered and read cursors on their way to the server: cumulative, so only the newest of each counts, and one
// request of each kind and conversation is in flight. Unacknowledged ones are told again.

import { Backoff, type Random } from './backoff';
import type { ConversationId } from './ids';
import { RETRY_BASE_MS, RETRY_CAP_MS } from './limits';
import type { Refusal, Request } from './types';

export type Which = 'delivered' | 'read';
export interface CursorTag { part: 'cursor'; conversation: ConversationId; which: Which; seq: number }

interface Progress { wanted: number; told: number; inFlight: boolean; dueMs: number }

export class Cursors {
  private readonly progress: Record<Which, Map<ConversationId, Progress>> = { delivered: new Map(), read: new Map() };
  /** Those with something to tell. */
  private readonly due: Record<Which, Set<ConversationId>> = { delivered: new Set(), read: new Set() };
  private readonly backoff = new Backoff(RETRY_BASE_MS, RETRY_CAP_MS);
  private notBeforeMs = 0;

  constructor(private readonly random: Random) {}

  /** What the server is known to have. */
  told(conversation: ConversationId, which: Which, seq: number): void {
    const progress = this.of(which, conversation);
    progress.told = Math.max(progress.told, seq);
    this.settle(which, conversation, progress);
  }

  /** `dueMs`: it may wait until then, in case something newer or a read cursor comes that says it as well. */
  want(conversation: ConversationId, which: Which, seq: number, dueMs = 0): void {
    const progress = this.of(which, conversation);
    progress.dueMs = progress.wanted > progress.told ? Math.min(progress.dueMs, dueMs) : dueMs;
    progress.wanted = Math.max(progress.wanted, seq);
    this.settle(which, conversation, progress);
  }

  poll(nowMs: number): { tag: CursorTag; request: Request } | null {
    if (nowMs < this.notBeforeMs) return null;
    // Read first: it implies delivered.
    for (const which of ['read', 'delivered'] as const) {
      for (const conversation of this.due[which]) {
        const progress = this.of(which, conversation);
        const covered = which === 'delivered' ? this.readTold(conversation) : 0;
        if (covered >= progress.wanted) {
          this.due.delivered.delete(conversation);
          continue;
        }
        if (nowMs < progress.dueMs) continue;
        progress.inFlight = true;
        this.due[which].delete(conversation);
        const seq = progress.wanted;
        return { tag: { part: 'cursor', conversation, which, seq }, request: { kind: which, conversation, seq } };
      }
    }
    return null;
  }

  pollTimeout(): number {
    let deadlineMs = Infinity;
    for (const which of ['delivered', 'read'] as const) {
      for (const conversation of this.due[which]) {
        deadlineMs = Math.min(deadlineMs, Math.max(this.notBeforeMs, this.of(which, conversation).dueMs));
      }
    }
    return deadlineMs;
  }

  answered({ conversation, which, seq }: CursorTag): void {
    this.of(which, conversation).inFlight = false;
    this.backoff.reset();
    this.notBeforeMs = 0;
    this.told(conversation, which, seq);
    if (which === 'read') this.told(conversation, 'delivered', seq);
  }

  refused(nowMs: number, { conversation, which, seq }: CursorTag, refusal: Refusal): void {
    const progress = this.of(which, conversation);
    progress.inFlight = false;
    if (refusal.retryable) this.notBeforeMs = nowMs + this.backoff.next(this.random, refusal.retryAfterMs);
    // Not a member any more, say: telling it again would not help.
    else progress.told = Math.max(progress.told, seq);
    this.settle(which, conversation, progress);
  }

  disconnected(): void {
    this.notBeforeMs = 0;
    for (const which of ['delivered', 'read'] as const) {
      for (const [conversation, progress] of this.progress[which]) {
        progress.inFlight = false;
        this.settle(which, conversation, progress);
      }
    }
  }

  private readTold(conversation: ConversationId): number {
    const read = this.progress.read.get(conversation);
    return read === undefined ? 0 : Math.max(read.told, read.inFlight ? read.wanted : 0);
  }

  private settle(which: Which, conversation: ConversationId, progress: Progress): void {
    if (progress.wanted > progress.told && !progress.inFlight) this.due[which].add(conversation);
    else this.due[which].delete(conversation);
  }

  private of(which: Which, conversation: ConversationId): Progress {
    let progress = this.progress[which].get(conversation);
    if (progress === undefined) {
      progress = { wanted: 0, told: 0, inFlight: false, dueMs: 0 };
      this.progress[which].set(conversation, progress);
    }
    return progress;
  }
}

// Conversations whose log has a hole before its newest entry, and the history requests that close them. A hole gets
// a moment to close by itself: an acknowledgement may overtake the live entries before it.

import { Backoff, type Random } from './backoff';
import type { ConversationId } from './ids';
import { FILLS_IN_FLIGHT_MAX, GAP_FILL_ENTRIES_MAX, GAP_WAIT_MS, HISTORY_ENTRIES_MAX, RETRY_BASE_MS, RETRY_CAP_MS } from './limits';
import type { Refusal, Request } from './types';

/** `jump`: the hole is too long; the newest page is fetched and the hole left to scrolling back. */
export interface GapTag { part: 'gap'; conversation: ConversationId; jump: boolean }

interface Gap { notBeforeMs: number; inFlight: boolean; backoff: Backoff }

export class Gaps {
  private readonly open = new Map<ConversationId, Gap>();
  private inFlight = 0;

  constructor(private readonly random: Random) {}

  /** To be told after every change of a log. */
  note(nowMs: number, conversation: ConversationId, hasGap: boolean): void {
    const gap = this.open.get(conversation);
    if (hasGap && gap === undefined) {
      const backoff = new Backoff(RETRY_BASE_MS, RETRY_CAP_MS);
      this.open.set(conversation, { notBeforeMs: nowMs + GAP_WAIT_MS, inFlight: false, backoff });
    } else if (!hasGap && gap !== undefined && !gap.inFlight) {
      this.open.delete(conversation);
    }
  }

  poll(nowMs: number, position: (conversation: ConversationId) => { top: number; headSeq: number } | undefined): { tag: GapTag; request: Request } | null {
    if (this.inFlight >= FILLS_IN_FLIGHT_MAX) return null;
    for (const [conversation, gap] of this.open) {
      if (gap.inFlight || nowMs < gap.notBeforeMs) continue;
      const at = position(conversation);
      if (at === undefined || at.top >= at.headSeq) {
        this.open.delete(conversation);
        continue;
      }
      gap.inFlight = true;
      this.inFlight += 1;
      const jump = at.headSeq - at.top > GAP_FILL_ENTRIES_MAX;
      const afterSeq = jump ? 0 : at.top;
      return {
        tag: { part: 'gap', conversation, jump },
        request: { kind: 'history', conversation, beforeSeq: 0, afterSeq, limit: HISTORY_ENTRIES_MAX },
      };
    }
    return null;
  }

  pollTimeout(): number {
    if (this.inFlight >= FILLS_IN_FLIGHT_MAX) return Infinity;
    let deadlineMs = Infinity;
    for (const gap of this.open.values()) if (!gap.inFlight) deadlineMs = Math.min(deadlineMs, gap.notBeforeMs);
    return deadlineMs;
  }

  /** A page was taken in; `note` follows and says whether the gap is closed. */
  answered(nowMs: number, { conversation }: GapTag, progressed: boolean): void {
    this.settle(conversation, (gap) => {
      if (progressed) gap.backoff.reset();
      gap.notBeforeMs = progressed ? nowMs : nowMs + gap.backoff.next(this.random);
    });
  }

  refused(nowMs: number, { conversation }: GapTag, refusal: Refusal): void {
    this.settle(conversation, (gap) => {
      gap.notBeforeMs = refusal.retryable ? nowMs + gap.backoff.next(this.random, refusal.retryAfterMs) : Infinity;
    });
  }

  disconnected(): void {
    this.inFlight = 0;
    // After the next Ready the feed comes first; what is then still open is noted again.
    this.open.clear();
  }

  private settle(conversation: ConversationId, change: (gap: Gap) => void): void {
    const gap = this.open.get(conversation);
    if (gap === undefined || !gap.inFlight) return;
    gap.inFlight = false;
    this.inFlight -= 1;
    change(gap);
  }
}

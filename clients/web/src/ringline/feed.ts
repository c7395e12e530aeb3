// Catching up by the change feed: one sync page after the other until there are no more.
//
//   idle ──newer version, SyncNeeded──▶ wanted ──polled──▶ asked ──last page──▶ idle
//                                          ▲                 │
//                                          └──page with more, refused, connection lost

import { Backoff, type Random } from './backoff';
import { FEED_VERSION_BITS_OF_ONE_RESTORE, RETRY_BASE_MS, RETRY_CAP_MS, SYNC_CURSORS_MAX } from './limits';
import type { Cursor, Delta, Refusal, Request } from './types';

/** How often the server that names this version was restored from a backup. */
export function restoresOf(version: bigint): bigint {
  return version >> FEED_VERSION_BITS_OF_ONE_RESTORE;
}

export interface SyncTag { part: 'sync' }

export class Feed {
  private state: 'idle' | 'wanted' | 'asked' = 'idle';
  /** More changed while a sync was on its way. */
  private again = false;
  private cursors: Cursor[] = [];
  private readonly backoff = new Backoff(RETRY_BASE_MS, RETRY_CAP_MS);
  private notBeforeMs = 0;
  /** Version of the last page that was taken in. */
  version = 0n;
  /** How often the server had been restored from a backup when what is here came from it; null: it never said. */
  restores: bigint | null = null;

  constructor(private readonly random: Random) {}

  get isIdle(): boolean {
    return this.state === 'idle';
  }

  /** Whether the server, which names this version, was restored from a backup since it was here before. */
  wasRestored(version: bigint): boolean {
    // A page without a row may have no version.
    return version > 0n && this.restores !== null && restoresOf(version) !== this.restores;
  }

  ready(feedVersion: bigint): void {
    this.restores ??= restoresOf(feedVersion);
    if (feedVersion !== this.version) this.needed();
  }

  needed(): void {
    if (this.state === 'idle') this.state = 'wanted';
    else this.again = true;
  }

  poll(nowMs: number): { tag: SyncTag; request: Request } | null {
    if (this.state !== 'wanted' || nowMs < this.notBeforeMs) return null;
    this.state = 'asked';
    const request: Request = { kind: 'sync', sinceVersion: this.version, cursors: this.cursors, namedOnly: false };
    return { tag: { part: 'sync' }, request };
  }

  pollTimeout(): number {
    return this.state === 'wanted' && this.notBeforeMs > 0 ? this.notBeforeMs : Infinity;
  }

  /** A page was taken in; its version is to be stored with it. */
  page(deltas: Delta[], version: bigint, more: boolean): void {
    this.backoff.reset();
    this.notBeforeMs = 0;
    this.version = version;
    this.cursors = [];
    if (more) {
      this.state = 'wanted';
      for (const { conversation, entries, truncated } of deltas) {
        const last = entries[entries.length - 1];
        if (truncated && last !== undefined && this.cursors.length < SYNC_CURSORS_MAX) {
          this.cursors.push({ conversation: conversation.id, seq: last.seq });
        }
      }
      return;
    }
    this.state = this.again ? 'wanted' : 'idle';
    this.again = false;
  }

  refused(nowMs: number, refusal: Refusal): void {
    this.state = 'wanted';
    this.notBeforeMs = nowMs + this.backoff.next(this.random, refusal.retryAfterMs);
  }

  disconnected(): void {
    // Ready tells the newest version; whatever was on its way is covered by that.
    this.state = 'idle';
    this.again = false;
    this.cursors = [];
    this.notBeforeMs = 0;
  }
}

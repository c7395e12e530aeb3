// The window onto one open conversation: a consecutive run of entries, grown at both ends from the store and, where
// the store has a hole, from the server's history.
//
//   idle ──older, newer, latest──▶ reading (store) ──nothing there──▶ asking (server) ──▶ idle
//                                     └──found──▶ idle                  └──refused──▶ failed

import type { ConversationId } from './ids';
import { HISTORY_ENTRIES_MAX, VIEW_ENTRIES_MAX, VIEW_PAGE_ENTRIES } from './limits';
import type { Entry, Request } from './types';

export type Direction = 'latest' | 'older' | 'newer';

/** A read of the store: entries next to an exclusive bound, nearest first kept, ascending. */
export interface Load {
  id: number;
  conversation: ConversationId;
  beforeSeq: number;
  afterSeq: number;
  limit: number;
}

export interface ViewTag { part: 'view'; load: number; conversation: ConversationId }

export class View {
  entries: readonly Entry[] = [];
  /** Whether nothing is before, or after, the entries. */
  atStart = false;
  atTop = false;
  failed = false;
  private step: { direction: Direction; phase: 'read' | 'reading' | 'ask' | 'asking'; load: number } | null = null;
  private static loads = 0;

  constructor(readonly conversation: ConversationId, private top: number) {
    this.latest();
  }

  get loading(): Direction | null {
    return this.step?.direction ?? null;
  }

  get isEmpty(): boolean {
    return this.entries.length === 0;
  }

  private get first(): number {
    return this.entries[0]?.seq ?? this.top + 1;
  }

  private get last(): number {
    return this.entries[this.entries.length - 1]?.seq ?? 0;
  }

  /** Goes to the newest entries; what is shown stays until they are there. */
  latest(): void {
    this.atTop = false;
    // Nothing is in the store before the first entry was taken in.
    this.begin('latest', this.top === 0 ? 'ask' : 'read');
  }

  older(): void {
    if (this.step === null && !this.atStart && !this.isEmpty) this.begin('older', 'read');
  }

  newer(): void {
    if (this.step === null && !this.atTop && !this.isEmpty) this.begin('newer', 'read');
  }

  /** Tries again what failed. */
  retry(): void {
    if (!this.failed) return;
    if (this.isEmpty) this.latest();
    else this.failed = false;
  }

  private begin(direction: Direction, phase: 'read' | 'ask'): void {
    this.failed = false;
    View.loads += 1;
    this.step = { direction, phase, load: View.loads };
  }

  pollLoad(): Load | null {
    const step = this.step;
    if (step === null || step.phase !== 'read') return null;
    step.phase = 'reading';
    const base = { id: step.load, conversation: this.conversation, limit: VIEW_PAGE_ENTRIES };
    if (step.direction === 'newer') return { ...base, beforeSeq: 0, afterSeq: this.last };
    return { ...base, beforeSeq: step.direction === 'latest' ? this.top + 1 : this.first, afterSeq: 0 };
  }

  /** What the store had. Only the run that joins what is shown counts; a hole is filled by the server. */
  loaded(id: number, entries: Entry[]): void {
    const step = this.step;
    if (step === null || step.load !== id || step.phase !== 'reading') return;
    const run = step.direction === 'newer' ? runAfter(entries, this.last) : runBefore(entries, step.direction === 'latest' ? this.top + 1 : this.first);
    if (run.length === 0) step.phase = 'ask';
    else this.join(step.direction, run);
  }

  poll(): { tag: ViewTag; request: Request } | null {
    const step = this.step;
    if (step === null || step.phase !== 'ask') return null;
    step.phase = 'asking';
    const at = {
      beforeSeq: step.direction === 'older' ? this.first : 0,
      afterSeq: step.direction === 'newer' ? this.last : 0,
    };
    const request: Request = { kind: 'history', conversation: this.conversation, ...at, limit: HISTORY_ENTRIES_MAX };
    return { tag: { part: 'view', load: step.load, conversation: this.conversation }, request };
  }

  /** The server's page; the log has taken it in already. */
  answered(tag: ViewTag, entries: Entry[]): void {
    const step = this.step;
    if (step === null || step.load !== tag.load) return;
    if (entries.length > 0) return this.join(step.direction, entries);
    this.step = null;
    if (step.direction === 'newer') this.atTop = true;
    else this.atStart = true;
    if (step.direction === 'latest') this.atTop = true;
  }

  refused(tag: ViewTag): void {
    if (this.step?.load !== tag.load) return;
    this.step = null;
    this.failed = true;
  }

  /** What was asked is asked again after the next Ready. */
  disconnected(): void {
    if (this.step?.phase === 'asking') this.step.phase = 'ask';
  }

  /** The log's contiguous part grew by these. */
  appended(entries: Entry[], top: number): void {
    this.top = top;
    const fresh = entries.filter((entry) => entry.seq > this.last);
    const next = fresh[0];
    if (next === undefined) return;
    if (this.isEmpty) {
      // Nothing could be shown so far (not even by the server): these are the first.
      if (this.step === null) this.join('latest', fresh);
    } else if (this.atTop && this.step?.direction !== 'latest' && next.seq === this.last + 1) {
      this.entries = [...this.entries, ...fresh].slice(-VIEW_ENTRIES_MAX);
      this.atStart = this.entries[0]?.seq === 1;
    }
  }

  /** The log went on beyond a hole. */
  jumped(top: number): void {
    this.top = top;
    if (this.atTop) this.latest();
  }

  private join(direction: Direction, run: Entry[]): void {
    this.step = null;
    this.failed = false;
    if (direction === 'older') {
      this.entries = [...run, ...this.entries].slice(0, VIEW_ENTRIES_MAX);
    } else {
      const fresh = direction === 'latest' ? run : run.filter((entry) => entry.seq > this.last);
      this.entries = (direction === 'latest' ? fresh : [...this.entries, ...fresh]).slice(-VIEW_ENTRIES_MAX);
    }
    this.atStart = this.first === 1;
    this.atTop = this.last >= this.top;
    // Entries that came while the newest ones were being read are in the store by now.
    if (direction === 'latest' && !this.atTop) this.newer();
  }
}

function runBefore(entries: Entry[], bound: number): Entry[] {
  let from = entries.length;
  while (from > 0 && entries[from - 1]?.seq === bound - (entries.length - from) - 1) from -= 1;
  return entries.slice(from);
}

function runAfter(entries: Entry[], bound: number): Entry[] {
  let to = 0;
  while (to < entries.length && entries[to]?.seq === bound + to + 1) to += 1;
  return entries.slice(0, to);
}

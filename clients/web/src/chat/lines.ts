// What the message view shows, line by line: days, the unread mark, notes, bubbles in runs. Pure.

import { EntryKind, isCountable, reachOf, type Conversation, type Entry, type OutboxItem } from '../ringline';
import { isSameDay } from './format';
import type { TickState } from './tick';

/** Messages of one sender within this time form a run, in milliseconds. */
const RUN_MS = 5 * 60_000;

export interface BubbleLine {
  kind: 'bubble';
  key: string;
  /** 0: not acknowledged yet. */
  seq: number;
  own: boolean;
  sender: number;
  timeMs: number;
  entryKind: number;
  body: Uint8Array;
  tick: TickState | null;
  /** Of an unacknowledged message. */
  clientId: bigint | null;
  /** First and last of a run. */
  first: boolean;
  last: boolean;
}

/** The lines of one day, under its heading. */
export interface Day { key: string; timeMs: number; lines: Line[] }

export type Line =
  | { kind: 'unread'; key: string; count: number }
  | { kind: 'note'; key: string; entry: Entry }
  | BubbleLine;

export interface Shown {
  entries: readonly Entry[];
  acknowledged: readonly Entry[];
  pending: readonly OutboxItem[];
  /** Before the first unread entry above this: null for none. */
  unreadAfter: { seq: number; count: number } | null;
}

export function daysOf(row: Conversation, { entries, acknowledged, pending, unreadAfter }: Shown): Day[] {
  const reach = reachOf(row);
  const days: Day[] = [];
  let marked = false;
  const linesAt = (timeMs: number): Line[] => {
    const current = days[days.length - 1];
    if (current !== undefined && isSameDay(current.timeMs, timeMs)) return current.lines;
    const day = { key: new Date(timeMs).toDateString(), timeMs, lines: [] };
    days.push(day);
    return day.lines;
  };
  for (const entry of [...entries, ...acknowledged]) {
    const lines = linesAt(entry.timeMs);
    const own = entry.sender === row.ownOrdinal;
    if (unreadAfter !== null && !marked && entry.seq > unreadAfter.seq && !own && isCountable(entry)) {
      marked = true;
      lines.push({ kind: 'unread', key: 'unread', count: unreadAfter.count });
    }
    if (!isCountable(entry)) {
      lines.push({ kind: 'note', key: `e${entry.seq}`, entry });
      continue;
    }
    const tick = !own ? null : entry.seq <= reach.read ? 'read' : entry.seq <= reach.delivered ? 'delivered' : 'sent';
    const { seq, sender, timeMs, kind: entryKind, body } = entry;
    lines.push({ kind: 'bubble', key: `e${seq}`, seq, own, sender, timeMs, entryKind, body, tick, clientId: null, first: true, last: true });
  }
  for (const item of pending) {
    linesAt(item.queuedMs).push({
      kind: 'bubble', key: `p${item.clientId}`, seq: 0, own: true, sender: row.ownOrdinal, timeMs: item.queuedMs,
      entryKind: item.kind as EntryKindNumber, body: item.body, tick: item.state === 'failed' ? 'failed' : 'pending',
      clientId: item.clientId, first: true, last: true,
    });
  }
  for (const day of days) joinRuns(day.lines);
  return days;
}

type EntryKindNumber = (typeof EntryKind)[keyof typeof EntryKind];

function joinRuns(lines: Line[]): void {
  lines.forEach((line, index) => {
    const before = lines[index - 1];
    if (line.kind !== 'bubble' || before?.kind !== 'bubble') return;
    if (line.sender !== before.sender || line.timeMs - before.timeMs > RUN_MS) return;
    line.first = false;
    before.last = false;
  });
}

// Pure steps of a conversation's row: entries taken in, cursors moved, the server's word merged. Each returns a new row.

import { mergeMembers } from './store';
import { EntryKind, type Conversation, type ConversationInfo, type Entry } from './types';

/** Whether an entry counts as unread for its readers. */
export function isCountable(entry: Entry): boolean {
  return entry.kind < EntryKind.CREATED;
}

/**
 * The entries by which the contiguous part grows when `run` (consecutive, ascending) comes in. What cannot join yet
 * waits in `ahead`; what is known already is dropped. A log without anything starts wherever the run starts.
 */
export function advance(top: number, ahead: Map<number, Entry>, run: Entry[]): Entry[] {
  const grown: Entry[] = [];
  let reached = top;
  for (const entry of run) {
    if (entry.seq === reached + 1 || reached === 0) {
      grown.push(entry);
      reached = entry.seq;
    } else if (entry.seq > reached) {
      ahead.set(entry.seq, entry);
    }
  }
  if (grown.length === 0) return grown;
  for (let next = ahead.get(reached + 1); next !== undefined; next = ahead.get(reached + 1)) {
    grown.push(next);
    reached = next.seq;
  }
  for (const seq of ahead.keys()) if (seq <= reached) ahead.delete(seq);
  return grown;
}

/** The row after its log grew. */
export function withEntries(row: Conversation, grown: Entry[]): Conversation {
  const last = grown[grown.length - 1];
  if (last === undefined) return row;
  let { unread, unreadHead } = row;
  for (const entry of grown) {
    if (entry.seq <= unreadHead) continue;
    unreadHead = entry.seq;
    if (isCountable(entry) && entry.sender !== row.ownOrdinal && entry.seq > row.readUpTo) unread += 1;
  }
  return {
    ...row, unread, unreadHead,
    top: Math.max(row.top, last.seq),
    headSeq: Math.max(row.headSeq, last.seq),
    last: last.seq >= (row.last?.seq ?? 0) ? last : row.last,
  };
}

/** The row after the server told the conversation. */
export function withInfo(row: Conversation | undefined, info: ConversationInfo): Conversation {
  if (row === undefined) return { ...info, top: 0, unreadHead: info.headSeq, readTold: info.readUpTo, deliveredTold: 0 };
  const readUpTo = Math.max(row.readUpTo, info.readUpTo);
  // What was read here and not told yet the server still counts, and entries may have come since it counted.
  const current = info.headSeq >= row.unreadHead && info.readUpTo >= row.readUpTo;
  const unread = readUpTo >= Math.max(info.headSeq, row.unreadHead) ? 0 : current ? info.unread : row.unread;
  return {
    ...row,
    kind: info.kind, title: info.title, createdMs: info.createdMs, ownOrdinal: info.ownOrdinal,
    members: mergeMembers(row.members, info.members),
    headSeq: Math.max(row.headSeq, info.headSeq),
    unread, unreadHead: Math.max(row.unreadHead, info.headSeq), readUpTo,
    deliveredUpTo: Math.max(row.deliveredUpTo, info.deliveredUpTo),
    last: (info.last?.seq ?? 0) >= (row.last?.seq ?? 0) ? info.last : row.last,
  };
}

/** The row after its own user read up to `seq`; `after` are known entries above it, as far as they are consecutive. */
export function withRead(row: Conversation, seq: number, after: readonly Entry[]): Conversation {
  if (seq <= row.readUpTo) return row;
  const rest = after.filter((entry) => entry.seq > seq && entry.seq <= row.unreadHead);
  const covered = rest.length === row.unreadHead - seq;
  const counted = rest.filter((entry) => isCountable(entry) && entry.sender !== row.ownOrdinal).length;
  // Without the entries the exact number is unknown: at most as many as before, and as there are entries above.
  const unread = covered ? counted : Math.max(0, Math.min(row.unread, row.unreadHead - seq));
  return { ...row, readUpTo: seq, unread, members: withMember(row, row.ownOrdinal, seq, seq) };
}

/** The row after a member's cursors moved. */
export function withReceipt(row: Conversation, ordinal: number, deliveredUpTo: number, readUpTo: number): Conversation {
  return { ...row, members: withMember(row, ordinal, Math.max(deliveredUpTo, readUpTo), readUpTo) };
}

function withMember(row: Conversation, ordinal: number, deliveredUpTo: number, readUpTo: number): Conversation['members'] {
  return row.members.map((member) => (member.ordinal !== ordinal ? member : {
    ...member,
    deliveredUpTo: Math.max(member.deliveredUpTo, deliveredUpTo),
    readUpTo: Math.max(member.readUpTo, readUpTo),
  }));
}

export type Tick = 'sent' | 'delivered' | 'read';

/** Up to where own entries reached all other members, and were read by all of them. */
export function reachOf(row: Conversation): { delivered: number; read: number } {
  let delivered = Infinity;
  let read = Infinity;
  for (const member of row.members) {
    if (member.ordinal === row.ownOrdinal) continue;
    delivered = Math.min(delivered, Math.max(member.deliveredUpTo, member.readUpTo));
    read = Math.min(read, member.readUpTo);
  }
  // Nobody else: nobody to reach.
  return delivered === Infinity ? { delivered: 0, read: 0 } : { delivered, read };
}

/** How far the own entry `seq` got. */
export function tickOf(row: Conversation, seq: number): Tick {
  const reach = reachOf(row);
  return seq <= reach.read ? 'read' : seq <= reach.delivered ? 'delivered' : 'sent';
}

// What people read: names, times, previews. Pure.

import { EntryKind, type Conversation, type Entry, type User, type UserId } from '../ringline';

export type UserOf = (id: UserId) => User | undefined;

const decoder = new TextDecoder();

export function textOf(body: Uint8Array): string {
  return decoder.decode(body);
}

export function nameOf(user: User | undefined): string {
  return user === undefined ? '…' : user.displayName || user.username;
}

/** The other one of a direct conversation. */
export function peerOf(row: Conversation): UserId | undefined {
  return row.members.find((member) => member.ordinal !== row.ownOrdinal)?.user;
}

export function titleOf(row: Conversation, userOf: UserOf): string {
  if (row.kind === 'group') return row.title || 'Group';
  const peer = peerOf(row);
  return peer === undefined ? '…' : nameOf(userOf(peer));
}

/** What colours the avatar: a person has one colour everywhere. */
export function avatarIdOf(row: Conversation): string {
  return row.kind === 'direct' ? peerOf(row) ?? row.id : row.id;
}

export function senderOf(row: Conversation, ordinal: number, userOf: UserOf): User | undefined {
  const member = row.members.find((candidate) => candidate.ordinal === ordinal);
  return member === undefined ? undefined : userOf(member.user);
}

/** What stands for an entry that is not text, or not a message. */
export function describeEntry(row: Conversation, entry: Entry, userOf: UserOf): string {
  const own = entry.sender === row.ownOrdinal;
  switch (entry.kind) {
    case EntryKind.TEXT: return textOf(entry.body);
    case EntryKind.IMAGE: return 'Photo';
    case EntryKind.VIDEO: return 'Video';
    case EntryKind.FILE: return 'File';
    case EntryKind.VOICE_NOTE: return 'Voice message';
    case EntryKind.CREATED: {
      const who = own ? 'You' : nameOf(senderOf(row, entry.sender, userOf));
      return row.kind === 'group' ? `${who} created this group` : `${who} started this conversation`;
    }
    default: return 'Something this version cannot show';
  }
}

export function initialsOf(name: string): string {
  const words = name.trim().split(/[\s._-]+/).filter((word) => word !== '');
  const first = [...(words[0] ?? '?')][0] ?? '?';
  const last = words.length > 1 ? [...(words[words.length - 1] ?? '')][0] ?? '' : '';
  return (first + last).toUpperCase();
}

/** One of the twelve avatar colours, the same for an id for ever. */
export function hueOf(id: string): number {
  return Number.parseInt(id.slice(0, 6), 16) % 12 || 0;
}

const clock = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit' });
const weekday = new Intl.DateTimeFormat(undefined, { weekday: 'long' });
const dayThisYear = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'long' });
const dayOther = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'long', year: 'numeric' });
const shortDay = new Intl.DateTimeFormat(undefined, { day: '2-digit', month: '2-digit', year: '2-digit' });
const full = new Intl.DateTimeFormat(undefined, { dateStyle: 'full', timeStyle: 'medium' });

export function timeText(ms: number): string {
  return clock.format(ms);
}

export function fullTimeText(ms: number): string {
  return full.format(ms);
}

/** Days from `a` to `b` by the calendar. */
function daysBetween(a: number, b: number): number {
  const midnight = (ms: number) => new Date(ms).setHours(0, 0, 0, 0);
  return Math.round((midnight(b) - midnight(a)) / 86_400_000);
}

export function isSameDay(a: number, b: number): boolean {
  return daysBetween(a, b) === 0;
}

/** Heading of a day in a conversation. */
export function dayText(ms: number, nowMs: number): string {
  const days = daysBetween(ms, nowMs);
  if (days === 0) return 'Today';
  if (days === 1) return 'Yesterday';
  if (days > 1 && days < 7) return weekday.format(ms);
  return new Date(ms).getFullYear() === new Date(nowMs).getFullYear() ? dayThisYear.format(ms) : dayOther.format(ms);
}

/** Time in the list of conversations. */
export function listTimeText(ms: number, nowMs: number): string {
  const days = daysBetween(ms, nowMs);
  if (days === 0) return timeText(ms);
  if (days === 1) return 'Yesterday';
  return days > 1 && days < 7 ? weekday.format(ms) : shortDay.format(ms);
}

export interface Segment { text: string; href?: string }

/** Text cut at its web addresses. Only http and https become links; everything stays text. */
export function segmentsOf(text: string): Segment[] {
  const segments: Segment[] = [];
  let from = 0;
  for (const match of text.matchAll(/\bhttps?:\/\/[^\s<>"'`]+/gi)) {
    // Punctuation after an address belongs to the sentence.
    const href = match[0].replace(/[).,;:!?\]}]+$/, '');
    if (!URL.canParse(href)) continue;
    if (match.index > from) segments.push({ text: text.slice(from, match.index) });
    segments.push({ text: href, href });
    from = match.index + href.length;
  }
  if (from < text.length) segments.push({ text: text.slice(from) });
  return segments;
}

/** One to three emoji and nothing else: shown large. */
export function isEmojiOnly(text: string): boolean {
  if (text.length > 24 || /[\p{L}\p{N}#*]/u.test(text)) return false;
  const emoji = text.match(/\p{Extended_Pictographic}(?:\uFE0F|\p{Emoji_Modifier}|\u200D\p{Extended_Pictographic})*/gu) ?? [];
  const rest = text.replace(/[\p{Extended_Pictographic}\p{Emoji_Modifier}\uFE0F\u200D\s]/gu, '');
  return emoji.length >= 1 && emoji.length <= 3 && rest === '';
}

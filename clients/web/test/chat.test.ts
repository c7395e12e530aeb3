import { describe, expect, it } from 'vitest';
import { dayText, initialsOf, isEmojiOnly, segmentsOf } from '../src/chat/format';
import { daysOf, type Shown } from '../src/chat/lines';
import { withInfo } from '../src/ringline/log';
import type { OutboxItem } from '../src/ringline/outbox';
import type { Entry } from '../src/ringline/types';

const DAY = 86_400_000;
const NOON = new Date(2026, 4, 20, 12).getTime();

describe('text', () => {
  it('is cut at web addresses and nothing else becomes a link', () => {
    expect(segmentsOf('see https://a.example/b?c=1, please')).toEqual([
      { text: 'see ' }, { text: 'https://a.example/b?c=1', href: 'https://a.example/b?c=1' }, { text: ', please' },
    ]);
    expect(segmentsOf('(http://a.example).')).toEqual([{ text: '(' }, { text: 'http://a.example', href: 'http://a.example' }, { text: ').' }]);
    for (const text of ['javascript:alert(1)', 'data:text/html,x', 'a.example', 'http://', '<a href="x">y</a>']) {
      expect(segmentsOf(text)).toEqual([{ text }]);
    }
    const tricky = 'https://a.example/"onmouseover=x';
    expect(segmentsOf(tricky).map((segment) => segment.text).join('')).toBe(tricky);
    expect(segmentsOf(tricky)[0]?.href).toBe('https://a.example/');
  });

  it('of few emoji alone is shown large', () => {
    for (const text of ['👍', '👍🏽', '❤️', '👩‍💻 🎉', '😄😄😄']) expect([text, isEmojiOnly(text)]).toEqual([text, true]);
    for (const text of ['', ' ', '1', '123', '#', 'ok 👍', '😄😄😄😄', '!', '☎️ 5']) expect([text, isEmojiOnly(text)]).toEqual([text, false]);
  });

  it('names days and people', () => {
    expect(dayText(NOON - 3_600_000, NOON)).toBe('Today');
    expect(dayText(NOON - DAY, NOON)).toBe('Yesterday');
    expect(dayText(NOON - 400 * DAY, NOON)).toMatch(/2025/);
    expect([initialsOf('Ada Quell'), initialsOf('ada'), initialsOf(' '), initialsOf('Ada de Quell')]).toEqual(['AQ', 'A', '?', 'AQ']);
  });
});

describe('the lines of a conversation', () => {
  const row = withInfo(undefined, {
    id: 'aa'.repeat(16), kind: 'group', title: 'Trip', headSeq: 9, createdMs: 1, unread: 0, readUpTo: 0, deliveredUpTo: 0, last: null, ownOrdinal: 0,
    members: [0, 1, 2].map((ordinal) => ({ ordinal, user: `0${ordinal}`, deliveredUpTo: ordinal === 1 ? 4 : 9, readUpTo: ordinal === 1 ? 3 : 4 })),
  });
  const entry = (seq: number, sender: number, timeMs: number, kind = 0): Entry => ({ conversation: row.id, seq, sender, timeMs, kind, body: new Uint8Array([65]) });
  const shown = (change: Partial<Shown>): Shown => ({ entries: [], acknowledged: [], pending: [], unreadAfter: null, ...change });
  const outline = (change: Partial<Shown>) => daysOf(row, shown(change)).map((day) => day.lines.map((line) => (
    line.kind === 'bubble' ? `${line.seq}${line.first ? 'f' : ''}${line.last ? 'l' : ''}${line.tick === null ? '' : ` ${line.tick}`}` : line.kind)));

  it('are grouped by day, and in runs by sender and time', () => {
    expect(outline({ entries: [
      entry(1, 0, NOON - DAY, 16), entry(2, 1, NOON - DAY), entry(3, 1, NOON), entry(4, 1, NOON + 1_000), entry(5, 2, NOON + 2_000), entry(6, 2, NOON + 10 * 60_000),
    ] })).toEqual([['note', '2fl'], ['3f', '4l', '5fl', '6fl']]);
  });

  it('carry ticks by what all others have', () => {
    const pending = { clientId: 5n, kind: 0, body: new Uint8Array([66]), queuedMs: NOON, state: 'inFlight' } as OutboxItem;
    const failed = { ...pending, clientId: 6n, state: 'failed' } as OutboxItem;
    expect(outline({ entries: [entry(3, 0, NOON), entry(4, 0, NOON), entry(5, 0, NOON)], acknowledged: [entry(7, 0, NOON)], pending: [pending, failed] }))
      .toEqual([['3f read', '4 delivered', '5 sent', '7 sent', '0 pending', '0l failed']]);
  });

  it('mark where reading stopped, before a message of others', () => {
    const entries = [entry(2, 1, NOON), entry(3, 0, NOON), entry(4, 1, NOON)];
    expect(outline({ entries, unreadAfter: { seq: 2, count: 1 } })).toEqual([['2fl', '3fl read', 'unread', '4fl']]);
    expect(outline({ entries, unreadAfter: { seq: 4, count: 0 } })).toEqual([['2fl', '3fl read', '4fl']]);
  });
});

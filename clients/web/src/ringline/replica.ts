// This device's copy of the user's conversations, as a state machine: it owns no socket, no store, no clock and no
// randomness. Its driver hands it answers, events, the person's wishes and the time, and carries out what it asks for:
// requests (`poll`), batches to store (`pollBatch`) and reads of the store (`pollLoad`).

import type { Random } from './backoff';
import { Cursors, type CursorTag } from './cursors';
import { Directory, type UsersTag } from './directory';
import { describe, ErrorCode, unanswered } from './errors';
import { Feed, type SyncTag } from './feed';
import { Gaps, type GapTag } from './gaps';
import type { ConversationId } from './ids';
import { AHEAD_ENTRIES_MAX, BODY_BYTES_MAX } from './limits';
import { advance, withEntries, withInfo, withRead, withReceipt } from './log';
import { Outbox, type OutboxItem } from './outbox';
import { emptyPending, isEmpty, type Pending } from './pending';
import type { Batch, Snapshot } from './store';
import type {
  Answer, Conversation, ConversationInfo, Entry, Identity, Ready, Refusal, Request, ServerEvent, User,
} from './types';
import { View, type Load, type ViewTag } from './view';

type CommandTag = { part: 'command'; id: number };
type SendTag = { part: 'send'; clientId: bigint };
type RefreshTag = { part: 'refresh'; conversation: ConversationId };
export type Tag = SendTag | CursorTag | UsersTag | SyncTag | GapTag | ViewTag | RefreshTag | CommandTag;

/** A request of the person that has one answer: creating, looking up, logging out. */
interface Command {
  request: Request;
  asked: boolean;
  deadlineMs: number;
  done: (answer: Answer) => void;
}

/** A command that is not answered within this time fails, in milliseconds; until then lost connections are retried. */
const COMMAND_TIMEOUT_MS = 20_000;
/** Commands at once; a person makes few. */
const COMMANDS_MAX = 16;
/** Entries taken in but not stored yet, before the next page is asked for. */
const UNSTORED_ENTRIES_MAX = 2_000;
/** Own entries at the end of a log that this device does not tell to have. */
const OWN_UNTOLD_MAX = 20;
/** What came into the open conversation is told as delivered after this time, in milliseconds, unless as read before. */
const DELIVERED_WAIT_MS = 150;
/** A read cursor that passes own messages only may wait this long for another, in milliseconds. */
const READ_OWN_WAIT_MS = 3_000;
/** Own acknowledged sequence numbers remembered to tell a lost acknowledgement from a kept one. */
const CLAIMED_MAX = 256;

export class Replica {
  readonly outbox: Outbox;
  readonly directory: Directory;
  view: View | null = null;
  readonly feed: Feed;
  private readonly gaps: Gaps;
  private readonly cursors: Cursors;
  private readonly rows = new Map<ConversationId, Conversation>();
  private readonly ahead = new Map<ConversationId, Map<number, Entry>>();
  private readonly commands = new Map<number, Command>();
  private readonly refreshes = new Set<ConversationId>();
  private readonly refreshed = new Set<ConversationId>();
  private readonly claimed = new Set<string>();
  private batch: Pending = emptyPending();
  /** Rows whose change waits for a batch that is written anyway. */
  private readonly lazy = new Set<ConversationId>();
  private unstored = 0;
  private nextCommand = 1;
  private connected = false;
  /** Grows with every change that a person could see. */
  revision = 0;

  constructor(readonly identity: Identity, snapshot: Snapshot, nowMs: number, random: Random, private readonly freshId: () => bigint) {
    this.outbox = new Outbox(random);
    this.directory = new Directory(random);
    this.feed = new Feed(random);
    this.gaps = new Gaps(random);
    this.cursors = new Cursors(random);
    this.feed.version = snapshot.version;
    this.feed.restores = snapshot.restores;
    this.directory.restore(snapshot.users);
    this.outbox.restore(snapshot.outbox, identity.device, nowMs);
    for (const row of snapshot.conversations) {
      this.rows.set(row.id, row);
      this.cursors.told(row.id, 'read', row.readTold);
      this.cursors.told(row.id, 'delivered', row.deliveredTold);
      this.cursors.want(row.id, 'read', row.readUpTo);
      if (row.last?.sender !== row.ownOrdinal) this.cursors.want(row.id, 'delivered', row.top);
      for (const member of row.members) this.directory.want(nowMs, member.user);
    }
  }

  // ---- what a person sees ----

  get syncing(): boolean {
    return this.connected && !this.feed.isIdle;
  }

  conversation(id: ConversationId): Conversation | undefined {
    return this.rows.get(id);
  }

  /** Newest activity first. */
  conversations(): Conversation[] {
    return [...this.rows.values()].sort((a, b) => activity(b) - activity(a));
  }

  /** What follows the shown entries: acknowledged ones that wait for others' before them, then the unacknowledged. */
  tail(id: ConversationId): { acknowledged: Entry[]; pending: OutboxItem[] } {
    const own = this.rows.get(id)?.ownOrdinal;
    const acknowledged = [...(this.ahead.get(id)?.values() ?? [])].filter((entry) => entry.sender === own);
    return { acknowledged: acknowledged.sort((a, b) => a.seq - b.seq), pending: this.unclaimed(id, own) };
  }

  /** Without items whose own entry is here already, because the acknowledgement was lost on its way. */
  private unclaimed(id: ConversationId, own: number | undefined): OutboxItem[] {
    const taken = new Set<number>();
    const entries = this.view?.conversation === id ? this.view.entries : [];
    return this.outbox.items(id).filter((item) => {
      if (item.state === 'failed') return true;
      const entry = entries.find((candidate) => candidate.seq > item.afterSeq && candidate.sender === own
        && !taken.has(candidate.seq) && !this.claimed.has(claim(id, candidate.seq))
        && candidate.kind === item.kind && sameBytes(candidate.body, item.body));
      if (entry !== undefined) taken.add(entry.seq);
      return entry === undefined;
    });
  }

  // ---- what a person does ----

  /** Queues a message; a sentence for the person if it cannot be taken. */
  send(nowMs: number, conversation: ConversationId, kind: number, body: Uint8Array): string | null {
    if (body.length === 0) return 'There is nothing to send.';
    if (body.length > BODY_BYTES_MAX) return describe({ ...unanswered(''), code: ErrorCode.ERROR_BODY_TOO_LARGE });
    if (this.outbox.isFull) return 'Too many messages are waiting to be sent.';
    const afterSeq = this.rows.get(conversation)?.headSeq ?? 0;
    const item = this.outbox.add({
      clientId: this.freshId(), conversation, device: this.identity.device, kind, body, queuedMs: nowMs, afterSeq,
    });
    this.batch.outboxPut.set(item.clientId, item);
    this.changed();
    return null;
  }

  retrySend(nowMs: number, clientId: bigint): void {
    const moved = this.outbox.retry(nowMs, clientId, this.identity.device, this.freshId());
    if (moved === null) return;
    this.forgetItem(moved.before.clientId);
    this.batch.outboxDelete.delete(moved.after.clientId);
    this.batch.outboxPut.set(moved.after.clientId, moved.after);
    this.changed();
  }

  /** Gives up an unsent message; only a failed one, as one in flight may be stored already. */
  discardSend(clientId: bigint): void {
    if (this.outbox.item(clientId)?.state !== 'failed') return;
    this.outbox.remove(clientId);
    this.forgetItem(clientId);
    this.changed();
  }

  open(nowMs: number, id: ConversationId): void {
    const row = this.rows.get(id);
    if (row === undefined || this.view?.conversation === id) return;
    this.view = new View(id, row.top);
    for (const member of row.members) this.directory.want(nowMs, member.user);
    // Receipts are only pushed live: once a session the members' cursors are asked for.
    if (!this.refreshed.has(id)) this.refreshes.add(id);
    this.changed();
  }

  closeView(): void {
    this.view = null;
    this.changed();
  }

  markRead(nowMs: number, id: ConversationId, seq: number): void {
    const row = this.rows.get(id);
    if (row === undefined) return;
    const upTo = Math.min(seq, row.top);
    if (upTo <= row.readUpTo) return;
    const entries = this.viewOf(id)?.entries ?? [];
    const onlyOwn = entries.filter((entry) => entry.seq > row.readUpTo && entry.seq <= upTo && entry.sender === row.ownOrdinal);
    this.put(withRead(row, upTo, entries));
    // That own messages were read is no news to anybody; a cursor near the head keeps the server's count exact.
    const wait = onlyOwn.length === upTo - row.readUpTo ? READ_OWN_WAIT_MS : 0;
    this.cursors.want(id, 'read', upTo, nowMs + wait);
  }

  command(nowMs: number, request: Request, done: (answer: Answer) => void): void {
    if (this.commands.size >= COMMANDS_MAX) {
      done({ kind: 'error', refusal: { ...unanswered('too many at once'), code: ErrorCode.ERROR_TOO_MANY_IN_FLIGHT } });
      return;
    }
    this.commands.set(this.nextCommand, { request, asked: false, deadlineMs: nowMs + COMMAND_TIMEOUT_MS, done });
    this.nextCommand += 1;
  }

  // ---- the connection ----

  ready(nowMs: number, ready: Ready): void {
    this.connected = true;
    this.feed.ready(ready.feedVersion);
    for (const row of this.rows.values()) this.noteGap(nowMs, row);
    const open = this.view?.conversation;
    if (open !== undefined) {
      this.view?.retry();
      this.refreshes.add(open);
    }
    this.changed();
  }

  disconnected(): void {
    this.connected = false;
    this.outbox.disconnected();
    this.feed.disconnected();
    this.gaps.disconnected();
    this.cursors.disconnected();
    this.directory.disconnected();
    this.view?.disconnected();
    this.refreshes.clear();
    this.refreshed.clear();
    for (const command of this.commands.values()) command.asked = false;
    this.changed();
  }

  /** The next request that may go out now. */
  poll(nowMs: number): { tag: Tag; request: Request } | null {
    if (!this.connected) return null;
    return this.pollCommand()
      ?? this.pollSend(nowMs)
      ?? this.view?.poll()
      ?? (this.unstored < UNSTORED_ENTRIES_MAX ? this.feed.poll(nowMs) : null)
      ?? this.cursors.poll(nowMs)
      // A sync on its way may close the gap.
      ?? (this.feed.isIdle ? this.gaps.poll(nowMs, (id) => this.rows.get(id)) : null)
      ?? this.directory.poll(nowMs)
      ?? this.pollRefresh();
  }

  pollTimeout(): number {
    let deadlineMs = Infinity;
    for (const command of this.commands.values()) deadlineMs = Math.min(deadlineMs, command.deadlineMs);
    if (!this.connected) return deadlineMs;
    return Math.min(
      deadlineMs, this.outbox.pollTimeout(), this.feed.pollTimeout(), this.cursors.pollTimeout(),
      this.feed.isIdle ? this.gaps.pollTimeout() : Infinity, this.directory.pollTimeout(),
    );
  }

  /** Fails commands that waited too long; everything else is asked for by `poll`. */
  handleTimeout(nowMs: number): void {
    for (const [id, command] of this.commands) {
      if (nowMs < command.deadlineMs) continue;
      this.commands.delete(id);
      command.done({ kind: 'error', refusal: unanswered('no connection') });
    }
  }

  private pollCommand(): { tag: Tag; request: Request } | null {
    for (const [id, command] of this.commands) {
      if (command.asked) continue;
      command.asked = true;
      return { tag: { part: 'command', id }, request: command.request };
    }
    return null;
  }

  private pollSend(nowMs: number): { tag: Tag; request: Request } | null {
    const request = this.outbox.poll(nowMs);
    return request === null ? null : { tag: { part: 'send', clientId: request.clientId }, request };
  }

  private pollRefresh(): { tag: Tag; request: Request } | null {
    for (const conversation of this.refreshes) {
      this.refreshes.delete(conversation);
      this.refreshed.add(conversation);
      return { tag: { part: 'refresh', conversation }, request: { kind: 'get', conversation } };
    }
    return null;
  }

  handleAnswer(nowMs: number, tag: Tag, answer: Answer): void {
    if (answer.kind === 'error') this.refused(nowMs, tag, answer.refusal);
    else this.answered(nowMs, tag, answer);
    this.changed();
  }

  private answered(nowMs: number, tag: Tag, answer: Exclude<Answer, { kind: 'error' }>): void {
    switch (tag.part) {
      case 'send':
        if (answer.kind === 'accepted') this.accepted(nowMs, tag.clientId, answer.seq, answer.timeMs);
        return;
      case 'sync':
        if (answer.kind !== 'syncPage') return;
        for (const { conversation, entries } of answer.deltas) this.takeDelta(nowMs, conversation, entries);
        this.feed.page(answer.deltas, answer.version, answer.more);
        this.batch.version = answer.version;
        return;
      case 'gap':
        if (answer.kind === 'historyPage') this.takeGapPage(nowMs, tag, answer.entries, answer.headSeq);
        return;
      case 'view':
        if (answer.kind === 'historyPage') this.takeViewPage(nowMs, tag, answer.entries, answer.headSeq);
        return;
      case 'cursor':
        this.cursors.answered(tag);
        this.cursorTold(tag);
        return;
      case 'users':
        this.directory.answered(tag);
        if (answer.kind === 'users') this.takeUsers(nowMs, answer.users);
        return;
      case 'refresh':
        if (answer.kind === 'conversation') this.takeDelta(nowMs, answer.conversation, []);
        return;
      case 'command': {
        const command = this.commands.get(tag.id);
        this.commands.delete(tag.id);
        if (answer.kind === 'conversation') this.takeDelta(nowMs, answer.conversation, []);
        if (answer.kind === 'users') this.takeUsers(nowMs, answer.users);
        command?.done(answer);
        return;
      }
    }
  }

  private cursorTold({ conversation, which, seq }: CursorTag): void {
    const row = this.rows.get(conversation);
    if (row === undefined) return;
    const read = which === 'read' ? { readTold: Math.max(row.readTold, seq) } : {};
    this.rows.set(conversation, { ...row, ...read, deliveredTold: Math.max(row.deliveredTold, seq) });
    // Not worth a write of its own: it goes with the next one, and a cursor told twice changes nothing.
    this.lazy.add(conversation);
  }

  private refused(nowMs: number, tag: Tag, refusal: Refusal): void {
    switch (tag.part) {
      case 'send': {
        this.outbox.refused(nowMs, tag.clientId, refusal);
        const item = this.outbox.item(tag.clientId);
        if (item?.state === 'failed') this.batch.outboxPut.set(item.clientId, item);
        return;
      }
      case 'sync': return this.feed.refused(nowMs, refusal);
      case 'gap': return this.gaps.refused(nowMs, tag, refusal);
      case 'view': return this.viewOf(tag.conversation)?.refused(tag);
      case 'cursor': return this.cursors.refused(nowMs, tag, refusal);
      case 'users': return this.directory.refused(nowMs, tag, refusal);
      case 'refresh': return;
      case 'command': {
        const command = this.commands.get(tag.id);
        this.commands.delete(tag.id);
        command?.done({ kind: 'error', refusal });
      }
    }
  }

  handleEvent(nowMs: number, event: ServerEvent): void {
    switch (event.kind) {
      case 'message': this.takeLive(nowMs, event.entry); break;
      case 'receipt': this.takeReceipt(event.conversation, event.member, event.deliveredUpTo, event.readUpTo); break;
      case 'syncNeeded': this.feed.needed(); break;
    }
    this.changed();
  }

  /** An entry that was pushed, acknowledged, or told by another window of this device. */
  takeLive(nowMs: number, entry: Entry): void {
    const row = this.rows.get(entry.conversation);
    // A conversation that is new here comes with its members by the feed.
    if (row === undefined) this.feed.needed();
    else this.takeRun(nowMs, row, [entry]);
    this.changed();
  }

  private takeReceipt(id: ConversationId, ordinal: number, deliveredUpTo: number, readUpTo: number): void {
    const row = this.rows.get(id);
    if (row === undefined) return;
    const entries = this.viewOf(id)?.entries ?? [];
    // Read on another device of the user.
    const read = ordinal === row.ownOrdinal ? withRead(row, Math.min(readUpTo, row.headSeq), entries) : row;
    if (ordinal === row.ownOrdinal) this.cursors.told(id, 'read', readUpTo);
    this.put(withReceipt(read, ordinal, deliveredUpTo, readUpTo));
  }

  private accepted(nowMs: number, clientId: bigint, seq: number, timeMs: number): void {
    const item = this.outbox.acknowledged(clientId);
    if (item === undefined) return;
    this.forgetItem(clientId);
    this.claim(item.conversation, seq);
    const row = this.rows.get(item.conversation);
    if (row === undefined) return;
    const { conversation, kind, body } = item;
    this.takeRun(nowMs, row, [{ conversation, seq, sender: row.ownOrdinal, timeMs, kind, body }]);
  }

  // ---- taking in ----

  private takeDelta(nowMs: number, info: ConversationInfo, entries: Entry[]): void {
    const row = this.takeInfo(nowMs, info);
    const first = entries[0];
    // The server started above what is here (this device acknowledged more than this window saw): go on from there.
    if (first !== undefined && row.top > 0 && first.seq > row.top + 1) this.jump(nowMs, row, entries);
    else this.takeRun(nowMs, row, entries);
    this.startAtLast(nowMs, info.id);
    // The server thinks this device has the newest entry, but its store was lost: at least the preview is wanted.
    if (this.rows.get(info.id)?.last === null && !this.refreshed.has(info.id)) this.refreshes.add(info.id);
  }

  private takeInfo(nowMs: number, info: ConversationInfo): Conversation {
    const before = this.rows.get(info.id);
    const row = withInfo(before, info);
    this.put(row);
    this.cursors.told(row.id, 'read', info.readUpTo);
    if (row.readUpTo > info.readUpTo) this.cursors.want(row.id, 'read', row.readUpTo);
    for (const member of row.members) this.directory.want(nowMs, member.user);
    if (row.members.length === 0 && !this.refreshed.has(row.id)) this.refreshes.add(row.id);
    this.noteGap(nowMs, row);
    return row;
  }

  /** A log without entries starts at the newest one, which came along as preview. */
  private startAtLast(nowMs: number, id: ConversationId): void {
    const row = this.rows.get(id);
    if (row !== undefined && row.top === 0 && row.last !== null && row.last.seq === row.headSeq) {
      this.takeRun(nowMs, row, [row.last]);
    }
  }

  /** Consecutive entries from anywhere: all are stored, and the log grows by those that join it. */
  private takeRun(nowMs: number, row: Conversation, run: Entry[]): void {
    for (const entry of run) this.keep(entry);
    const ahead = this.ahead.get(row.id) ?? new Map<number, Entry>();
    const newest = run[run.length - 1]?.seq ?? 0;
    const grown = advance(row.top, ahead, run);
    if (ahead.size > AHEAD_ENTRIES_MAX) ahead.clear();
    if (ahead.size > 0) this.ahead.set(row.id, ahead);
    else this.ahead.delete(row.id);
    const next = withEntries(newest > row.headSeq ? { ...row, headSeq: newest } : row, grown);
    this.put(next);
    if (grown.length > 0) {
      // Own entries alone are no news to anybody; told now and then, so that a sync does not bring many of them again.
      const news = grown.some((entry) => entry.sender !== row.ownOrdinal) || next.top - next.deliveredTold > OWN_UNTOLD_MAX;
      if (news) this.batch.delivered.set(next.id, next.top);
      this.viewOf(next.id)?.appended(grown, next.top);
    }
    this.noteGap(nowMs, next);
  }

  /** The log goes on with `run`, although there is a hole before it; scrolling back fills it. */
  private jump(nowMs: number, row: Conversation, run: Entry[]): void {
    const last = run[run.length - 1];
    if (last === undefined || last.seq <= row.top) return;
    for (const entry of run) this.keep(entry);
    const beyond = [...(this.ahead.get(row.id)?.values() ?? [])].sort((a, b) => a.seq - b.seq);
    this.ahead.delete(row.id);
    const next = withEntries(row, run);
    this.put(next);
    this.batch.delivered.set(next.id, next.top);
    this.viewOf(next.id)?.jumped(next.top);
    if (beyond.length > 0) this.takeRun(nowMs, next, beyond);
    else this.noteGap(nowMs, next);
  }

  private takeGapPage(nowMs: number, tag: GapTag, entries: Entry[], headSeq: number): void {
    const row = this.withHead(tag.conversation, headSeq);
    if (row === undefined) return;
    if (tag.jump && (entries[0]?.seq ?? 0) > row.top + 1) this.jump(nowMs, row, entries);
    else this.takeRun(nowMs, row, entries);
    const after = this.rows.get(tag.conversation) ?? row;
    this.gaps.answered(nowMs, tag, after.top > row.top);
    this.noteGap(nowMs, after);
  }

  private takeViewPage(nowMs: number, tag: ViewTag, entries: Entry[], headSeq: number): void {
    const row = this.withHead(tag.conversation, headSeq);
    if (row !== undefined) this.takeRun(nowMs, row, entries);
    this.viewOf(tag.conversation)?.answered(tag, entries);
  }

  private withHead(id: ConversationId, headSeq: number): Conversation | undefined {
    const row = this.rows.get(id);
    return row !== undefined && headSeq > row.headSeq ? { ...row, headSeq } : row;
  }

  private takeUsers(nowMs: number, users: Omit<User, 'fetchedMs'>[]): void {
    const fresh = users.map((user) => ({ ...user, fetchedMs: nowMs }));
    this.directory.take(fresh);
    for (const user of fresh) this.batch.users.set(user.id, user);
  }

  private noteGap(nowMs: number, row: Conversation): void {
    // A log without any entry is not a gap: it is fetched when the conversation is opened.
    this.gaps.note(nowMs, row.id, row.top > 0 && row.top < row.headSeq);
  }

  private viewOf(id: ConversationId): View | null {
    return this.view?.conversation === id ? this.view : null;
  }

  private put(row: Conversation): void {
    if (this.rows.get(row.id) === row) return;
    this.rows.set(row.id, row);
    this.batch.conversations.set(row.id, row);
    this.changed();
  }

  private claim(id: ConversationId, seq: number): void {
    this.claimed.add(claim(id, seq));
    for (const oldest of this.claimed) {
      if (this.claimed.size <= CLAIMED_MAX) break;
      this.claimed.delete(oldest);
    }
  }

  private changed(): void {
    this.revision += 1;
  }

  // ---- the store ----

  pollLoad(): Load | null {
    return this.view?.pollLoad() ?? null;
  }

  loaded(load: Load, entries: Entry[]): void {
    this.viewOf(load.conversation)?.loaded(load.id, entries);
    this.changed();
  }

  /** What is to be stored since the last time, as one batch; `null` if nothing. */
  pollBatch(): { batch: Batch; delivered: Map<ConversationId, number> } | null {
    const pending = this.batch;
    if (isEmpty(pending)) return null;
    this.batch = emptyPending();
    for (const id of this.lazy) {
      const row = this.rows.get(id);
      if (row !== undefined) pending.conversations.set(id, row);
    }
    this.lazy.clear();
    const batch: Batch = {
      conversations: [...pending.conversations.values()],
      entries: pending.entries,
      users: [...pending.users.values()],
      outboxPut: [...pending.outboxPut.values()],
      outboxDelete: [...pending.outboxDelete],
      version: pending.version,
      restores: this.feed.restores,
    };
    return { batch, delivered: pending.delivered };
  }

  /** The batch is stored: only now its entries count as delivered. */
  stored(nowMs: number, batch: Batch, delivered: Map<ConversationId, number>): void {
    this.unstored -= batch.entries.length;
    for (const [id, seq] of delivered) {
      // In the open conversation it is about to be read, which says it, too.
      this.cursors.want(id, 'delivered', seq, this.viewOf(id) === null ? nowMs : nowMs + DELIVERED_WAIT_MS);
    }
  }

  private keep(entry: Entry): void {
    this.batch.entries.push(entry);
    this.unstored += 1;
  }

  private forgetItem(clientId: bigint): void {
    this.batch.outboxPut.delete(clientId);
    this.batch.outboxDelete.add(clientId);
  }
}

function activity(row: Conversation): number {
  return row.last?.timeMs ?? row.createdMs;
}

function claim(id: ConversationId, seq: number): string {
  return `${id}/${seq}`;
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, index) => byte === b[index]);
}

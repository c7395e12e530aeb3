// The client of one account: joins connection, replica and store, and gives the chat what it shows and does.
// The replica decides, this file only carries out.

import { Tokens, type Account, type AccountKeeper } from './accounts';
import { Connection, type Status, type Surroundings } from './connection';
import { describe, ErrorCode, RequestRefused } from './errors';
import { restoresOf } from './feed';
import { normalUsername, type ConversationId, type UserId } from './ids';
import { GROUP_MEMBERS_MAX, WEBSOCKET_PATH } from './limits';
import { MemoryStore } from './memory';
import type { OutboxItem } from './outbox';
import { Replica, type Tag } from './replica';
import type { Rest } from './rest';
import type { Snapshot, Store } from './store';
import { EntryKind, type Answer, type Conversation, type Entry, type Ready, type Refusal, type Request, type User } from './types';
import type { View } from './view';

/** Longest wait of the one timer, in milliseconds: browsers take 32 bits, and a clock may be set. */
const TIMER_MS_MAX = 60_000;
/** A refresh of the access token that failed is tried again after this time, in milliseconds. */
const REFRESH_RETRY_MS = 30_000;

export interface Environment extends Surroundings {
  /** ws: or wss: and the host. */
  socketBase: string;
  /** Names this client to operators. */
  clientName: string;
  rest: Rest;
  keeper: AccountKeeper;
  openStore(user: UserId): Promise<Store>;
  freshId(): bigint;
  /** Speaks to other windows of the same account; null where there is no such thing. */
  openChannel(name: string, received: (note: unknown) => void): Channel | null;
}

export interface Channel {
  postMessage(note: unknown): void;
  close(): void;
}

/** What windows of one device tell each other, since the server does not push to the device that caused an event. */
type WindowNote = { entry: Entry } | { read: ConversationId; seq: number } | { restored: bigint };

export class Ringline {
  /** The store was refused: nothing survives a reload. */
  storeFailed = false;
  /** The person is logging out, so that being logged out is no news. */
  leaving = false;
  /** Told when a message failed for good; it stays with the conversation until retried or discarded. */
  onSendFailed: ((item: OutboxItem, reason: string) => void) | null = null;
  private readonly listeners = new Set<() => void>();
  private readonly connection: Connection<Tag>;
  private readonly channel: Channel | null;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private pumping = false;
  private pumpAgain = false;
  private closed = false;
  private refreshNotBeforeMs = 0;
  private shownRevision = -1;
  private shownStatus: Status | null = null;

  private constructor(
    readonly account: Account, private readonly tokens: Tokens, private replica: Replica,
    private store: Store, private readonly environment: Environment,
  ) {
    this.connection = new Connection<Tag>(
      environment.socketBase + WEBSOCKET_PATH, environment.clientName, tokens, environment,
      {
        ready: (ready) => this.ready(ready),
        lost: () => this.replica.disconnected(),
        output: (output) => {
          const nowMs = environment.now();
          if (output.kind === 'event') this.replica.handleEvent(nowMs, output.event);
          else this.answered(nowMs, output.tag, output.answer);
        },
        pump: () => this.pump(),
      },
    );
    const channelName = `ringline-${account.user}-${account.device}`;
    this.channel = environment.openChannel(channelName, (note) => this.noted(note as WindowNote));
  }

  /** Opens the store and starts connecting. `tokens` carries the access token of a log in that has just happened. */
  static async start(account: Account, environment: Environment, tokens?: Tokens): Promise<Ringline> {
    let failed = false;
    const opened = await openStore(account, () => environment.openStore(account.user)).catch((error: unknown) => {
      console.warn('ringline: no store:', error);
      failed = true;
      return openStore(account, async () => new MemoryStore());
    });
    const { store, snapshot } = opened;
    const { now, keeper, rest } = environment;
    const replica = replicaOf(account, snapshot, environment);
    const client = new Ringline(account, tokens ?? new Tokens(account, keeper, rest, now), replica, store, environment);
    client.storeFailed = failed;
    client.connection.start();
    client.pump();
    return client;
  }

  // ---- what the chat shows ----

  /** Calls back after every change; returns how to stop. */
  subscribe(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  get revision(): number {
    return this.replica.revision;
  }

  get status(): Status {
    return this.connection.status;
  }

  get syncing(): boolean {
    return this.replica.syncing;
  }

  get view(): View | null {
    return this.replica.view;
  }

  conversations(): Conversation[] {
    return this.replica.conversations();
  }

  conversation(id: ConversationId): Conversation | undefined {
    return this.replica.conversation(id);
  }

  tail(id: ConversationId): { acknowledged: Entry[]; pending: OutboxItem[] } {
    return this.replica.tail(id);
  }

  user(id: UserId): User | undefined {
    return this.replica.directory.user(id);
  }

  // ---- what a person does ----

  open(id: ConversationId): void {
    this.replica.open(this.environment.now(), id);
    this.pump();
  }

  closeView(): void {
    this.replica.closeView();
    this.pump();
  }

  older(): void {
    this.view?.older();
    this.pump();
  }

  newer(): void {
    this.view?.newer();
    this.pump();
  }

  latest(): void {
    const { view } = this;
    if (view !== null && !view.atTop) view.latest();
    this.pump();
  }

  retryView(): void {
    this.view?.retry();
    this.pump();
  }

  /** Null, or a sentence why not. */
  sendText(id: ConversationId, text: string): string | null {
    const refusal = this.replica.send(this.environment.now(), id, EntryKind.TEXT, new TextEncoder().encode(text));
    this.pump();
    return refusal;
  }

  retrySend(clientId: bigint): void {
    this.replica.retrySend(this.environment.now(), clientId);
    this.pump();
  }

  discardSend(clientId: bigint): void {
    this.replica.discardSend(clientId);
    this.pump();
  }

  markRead(id: ConversationId, seq: number): void {
    const before = this.replica.conversation(id)?.readUpTo ?? 0;
    this.replica.markRead(this.environment.now(), id, seq);
    const after = this.replica.conversation(id)?.readUpTo ?? 0;
    if (after > before) this.note({ read: id, seq: after });
    this.pump();
  }

  /** The conversation with one other person; throws RequestRefused. */
  async startDirect(username: string): Promise<ConversationId> {
    const [user] = await this.lookUp([username]);
    if (user === undefined) throw notFound(username);
    return this.create({ kind: 'create', conversationKind: 'direct', members: [user.id], title: '', creationId: 0n });
  }

  /** A new group; `creationId` is the same for every attempt to make the same group. */
  async createGroup(usernames: string[], title: string, creationId: bigint): Promise<ConversationId> {
    const users = await this.lookUp(usernames);
    const missing = usernames.find((name) => !users.some((user) => user.username === normalUsername(name)));
    if (missing !== undefined) throw notFound(missing);
    const members = users.map((user) => user.id).filter((id) => id !== this.account.user);
    return this.create({ kind: 'create', conversationKind: 'group', members, title, creationId });
  }

  /** Those that exist; throws RequestRefused. */
  async lookUp(usernames: string[]): Promise<Omit<User, 'fetchedMs'>[]> {
    const names = usernames.map((name) => normalUsername(name));
    const missing = usernames.find((_, index) => names[index] === null);
    if (missing !== undefined) throw notFound(missing);
    const known = names.filter((name) => name !== null).slice(0, GROUP_MEMBERS_MAX);
    const answer = await this.command({ kind: 'lookUp', users: [], usernames: known });
    return answer.kind === 'users' ? answer.users : [];
  }

  freshId(): bigint {
    return this.environment.freshId();
  }

  /** Ends the session at the server and forgets everything here, even when the server cannot be reached. */
  async logOut(): Promise<void> {
    this.leaving = true;
    if (this.status.state === 'ready') {
      // The connection may be closed before the answer is read; that is an answer, too.
      const closed = new Promise<void>((resolve) => {
        this.subscribe(() => { if (this.status.state !== 'ready') resolve(); });
      });
      await Promise.race([closed, this.command({ kind: 'logOut' }).catch(() => undefined)]);
    }
    this.environment.keeper.forget(this.account.user);
    void this.environment.rest.forget(this.account.user);
    this.close();
    await this.store.destroy().catch((error: unknown) => console.warn('ringline: store not deleted:', error));
  }

  reconnect(): void {
    this.connection.start();
    this.pump();
  }

  /** The page came back to the front, or the network returned. */
  wake(): void {
    if (!this.closed) this.connection.probe();
  }

  /** Stops without logging out. */
  close(): void {
    this.closed = true;
    clearTimeout(this.timer);
    this.connection.stop();
    this.channel?.close();
    this.store.close();
    this.listeners.clear();
  }

  private async create(request: Request): Promise<ConversationId> {
    const answer = await this.command(request);
    if (answer.kind !== 'conversation') throw new Error('unexpected answer');
    return answer.conversation.id;
  }

  private command(request: Request): Promise<Answer> {
    return new Promise((resolve, reject) => {
      this.replica.command(this.environment.now(), request, (answer) => {
        if (answer.kind === 'error') reject(new RequestRefused(answer.refusal));
        else resolve(answer);
      });
      this.pump();
    });
  }

  // ---- carrying out ----

  private ready(ready: Ready): void {
    if (ready.user !== this.account.user) throw new Error('session of another user');
    if (this.replica.feed.wasRestored(ready.feedVersion)) {
      const restores = restoresOf(ready.feedVersion);
      this.store.reset(this.account.device, restores).catch((error: unknown) => this.storeBroke(error));
      this.beginAnew(restores);
      this.note({ restored: ready.feedVersion });
    }
    this.replica.ready(this.environment.now(), ready);
  }

  /**
   * The server was restored from a backup: other messages may have the numbers of those that are here. What came from it
   * goes, and comes anew; what waits to be sent stays.
   */
  private beginAnew(restores: bigint): void {
    console.warn('ringline: the server was restored from a backup: what it has is fetched anew');
    const before = this.replica;
    const outbox = before.outbox.all();
    const empty = { device: this.account.device, version: 0n, restores, conversations: [], users: [], outbox };
    this.replica = replicaOf(this.account, empty, this.environment);
    this.replica.revision = before.revision + 1;
    // Nobody answers any more what it was asked.
    before.handleTimeout(Infinity);
  }

  private answered(nowMs: number, tag: Tag, answer: Answer): void {
    if (answer.kind === 'syncPage' && this.replica.feed.wasRestored(answer.version)) {
      // The connection outlived that, and answers still come to what was asked before: the next one's Ready says it again.
      throw new Error('the server was restored from a backup');
    }
    const sent = tag.part === 'send' ? this.replica.outbox.item(tag.clientId) : undefined;
    this.replica.handleAnswer(nowMs, tag, answer);
    if (sent !== undefined && answer.kind === 'error') this.sendFailed(sent.clientId, answer.refusal);
    if (sent === undefined || answer.kind !== 'accepted') return;
    const sender = this.replica.conversation(sent.conversation)?.ownOrdinal;
    if (sender === undefined) return;
    const { conversation, kind, body } = sent;
    this.note({ entry: { conversation, seq: answer.seq, sender, timeMs: answer.timeMs, kind, body } });
  }

  private sendFailed(clientId: bigint, refusal: Refusal): void {
    const item = this.replica.outbox.item(clientId);
    if (item?.state === 'failed') this.onSendFailed?.(item, describe(refusal));
  }

  private note(note: WindowNote): void {
    this.channel?.postMessage(note);
  }

  private noted(note: WindowNote): void {
    if ('restored' in note) {
      if (!this.replica.feed.wasRestored(note.restored)) return;
      // The other window has emptied the store already.
      this.beginAnew(restoresOf(note.restored));
      this.connection.stop();
      this.connection.start();
    } else if ('entry' in note) this.replica.takeLive(this.environment.now(), note.entry);
    else this.replica.markRead(this.environment.now(), note.read, note.seq);
    this.pump();
  }

  private pump(): void {
    // Carrying out makes new work: the outermost call goes round until there is none.
    this.pumpAgain = true;
    if (this.pumping) return;
    this.pumping = true;
    try {
      while (this.pumpAgain && !this.closed) {
        this.pumpAgain = false;
        this.turn(this.environment.now());
      }
    } finally {
      this.pumping = false;
    }
    if (this.closed) return;
    this.arm();
    this.show();
  }

  private turn(nowMs: number): void {
    const { replica } = this;
    this.connection.handleTimeout();
    replica.handleTimeout(nowMs);
    this.refreshToken(nowMs);
    // Before the reads: what is read may have to be what was just taken in, and the store keeps the order.
    for (let next = replica.pollBatch(); next !== null; next = replica.pollBatch()) this.write(next);
    const load = replica.pollLoad();
    if (load !== null) {
      this.store.entries(load)
        .catch((error: unknown) => { this.storeBroke(error); return []; })
        .then((entries) => { replica.loaded(load, entries); this.pump(); });
    }
    while (this.connection.canRequest) {
      const next = replica.poll(nowMs);
      if (next === null) break;
      this.connection.request(next.tag, next.request);
    }
  }

  private write({ batch, delivered }: NonNullable<ReturnType<Replica['pollBatch']>>): void {
    const { replica } = this;
    this.store.write(batch)
      // What could not be stored is fetched again when it is looked at; the person is told.
      .catch((error: unknown) => this.storeBroke(error))
      .then(() => { replica.stored(this.environment.now(), batch, delivered); this.pump(); });
  }

  private storeBroke(error: unknown): void {
    if (this.closed || this.storeFailed) return;
    console.warn('ringline: store failed:', error);
    this.storeFailed = true;
    this.store.close();
    this.store = new MemoryStore();
    this.replica.revision += 1;
  }

  private refreshToken(nowMs: number): void {
    // Only while connected: a connection that is being made asks for a token itself.
    if (this.status.state !== 'ready' || nowMs < Math.max(this.tokens.refreshAtMs, this.refreshNotBeforeMs)) return;
    this.refreshNotBeforeMs = nowMs + REFRESH_RETRY_MS;
    // The session lives on without it; the next connection finds out what is wrong.
    this.tokens.refreshed()
      .then(() => { this.refreshNotBeforeMs = 0; this.pump(); })
      .catch((error: unknown) => console.warn('ringline: token not refreshed:', error));
  }

  private arm(): void {
    clearTimeout(this.timer);
    const refreshMs = this.status.state === 'ready' ? Math.max(this.tokens.refreshAtMs, this.refreshNotBeforeMs) : Infinity;
    const atMs = Math.min(this.connection.pollTimeout(), this.replica.pollTimeout(), refreshMs);
    const waitMs = Math.min(TIMER_MS_MAX, Math.max(0, atMs - this.environment.now()));
    this.timer = setTimeout(() => this.pump(), waitMs);
  }

  private show(): void {
    if (this.replica.revision === this.shownRevision && this.status === this.shownStatus) return;
    this.shownRevision = this.replica.revision;
    this.shownStatus = this.status;
    for (const listener of [...this.listeners]) listener();
  }
}

function replicaOf({ user, device }: Account, snapshot: Snapshot, { now, random, freshId }: Environment): Replica {
  return new Replica({ user, device }, snapshot, now(), random, freshId);
}

/** The account's store with what is in it; another device's cursors mean nothing here, so its store starts afresh. */
async function openStore(account: Account, open: () => Promise<Store>): Promise<{ store: Store; snapshot: Snapshot }> {
  const store = await open();
  const snapshot = await store.restore();
  if (snapshot.device === account.device) return { store, snapshot };
  await store.reset(account.device);
  return { store, snapshot: await store.restore() };
}

function notFound(username: string): RequestRefused {
  const refusal = { code: ErrorCode.ERROR_NOT_FOUND, detail: username, retryable: false, retryAfterMs: 0 };
  const error = new RequestRefused(refusal);
  error.message = `There is nobody called “${username}”.`;
  return error;
}

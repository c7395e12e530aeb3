// Keeps one session alive over WebSockets: connects, says hello, reconnects with back-off. It decides nothing about
// conversations; frames go to the session, and what the session makes of them to the owner.
//
//   stopped ──start──▶ connecting ──open, Ready──▶ ready
//                         ▲   │                     │
//                         │   └──failed──┐   lost───┘
//                         └──time──── waiting ◀─────┘        no way to log in ──▶ loggedOut

import { LoggedOut, type Tokens } from './accounts';
import { Backoff, type Random } from './backoff';
import { ProtocolFault } from './errors';
import { RECONNECT_BASE_MS, RECONNECT_CAP_MS, RECONNECT_RESET_MS, WEBSOCKET_PROTOCOL } from './limits';
import { RestError } from './rest';
import { Session, type SessionOutput } from './session';
import type { Ready, Request } from './types';

/** What the connection needs of a WebSocket; tests have their own. */
export interface Socket {
  send(payload: Uint8Array): void;
  close(): void;
}

export interface SocketEvents {
  opened(): void;
  /** A binary message; null for any other. */
  received(payload: Uint8Array | null): void;
  /** Once, also when it never opened. */
  closed(): void;
}

export interface Surroundings {
  now(): number;
  random: Random;
  openSocket(url: string, protocol: string, events: SocketEvents): Socket;
}

export type Status =
  | { state: 'stopped' | 'connecting' | 'ready' | 'loggedOut' }
  | { state: 'waiting'; untilMs: number };

export interface Owner<Tag> {
  ready(ready: Ready): void;
  lost(): void;
  output(output: Extract<SessionOutput<Tag>, { kind: 'answer' | 'event' }>): void;
  /** Something happened: poll again. */
  pump(): void;
}

export class Connection<Tag> {
  status: Status = { state: 'stopped' };
  private socket: Socket | null = null;
  private session: Session<Tag> | null = null;
  private resumeToken: Uint8Array | null = null;
  private readyMs = 0;
  private readonly backoff = new Backoff(RECONNECT_BASE_MS, RECONNECT_CAP_MS);
  /** Tells the current attempt from those that were given up. */
  private attempt = 0;

  constructor(
    private readonly url: string, private readonly client: string, private readonly tokens: Tokens,
    private readonly surroundings: Surroundings, private readonly owner: Owner<Tag>,
  ) {}

  get canRequest(): boolean {
    return this.session?.canRequest ?? false;
  }

  request(tag: Tag, request: Request): void {
    if (this.session === null) throw new Error('request without a session');
    this.socket?.send(this.session.request(this.surroundings.now(), tag, request));
  }

  /** Connects now, whatever the back-off says: the person asked, or the network is back. */
  start(): void {
    if (this.status.state === 'stopped' || this.status.state === 'waiting') void this.connect();
  }

  stop(): void {
    this.drop();
    if (this.status.state !== 'loggedOut') this.status = { state: 'stopped' };
  }

  /** Finds out soon whether the connection survived, when the machine may have slept. */
  probe(): void {
    if (this.status.state === 'waiting') return this.start();
    const ping = this.session?.probe(this.surroundings.now()) ?? null;
    if (ping !== null) this.socket?.send(ping);
    this.owner.pump();
  }

  pollTimeout(): number {
    if (this.status.state === 'waiting') return this.status.untilMs;
    return this.session?.pollTimeout() ?? Infinity;
  }

  handleTimeout(): void {
    const nowMs = this.surroundings.now();
    if (this.status.state === 'waiting' && nowMs >= this.status.untilMs) this.start();
    if (this.session === null || nowMs < this.session.pollTimeout()) return;
    const { dead, send, outputs } = this.session.handleTimeout(nowMs);
    if (send !== null) this.socket?.send(send);
    outputs.forEach((output) => this.handle(output));
    if (dead) this.lost(0);
  }

  private async connect(): Promise<void> {
    this.attempt += 1;
    const { attempt } = this;
    this.status = { state: 'connecting' };
    this.owner.pump();
    const resumeToken = this.resumeToken;
    try {
      const proof = resumeToken === null ? { accessToken: await this.tokens.token() } : { resumeToken };
      if (attempt !== this.attempt) return;
      this.session = new Session<Tag>(this.surroundings.now(), proof, this.client);
      this.open(attempt, this.session);
      this.owner.pump();
    } catch (error) {
      if (attempt !== this.attempt) return;
      if (error instanceof LoggedOut) this.loggedOut();
      else this.lost(error instanceof RestError ? error.retryAfterMs : 0);
    }
  }

  private open(attempt: number, session: Session<Tag>): void {
    // Events of an attempt that was given up are nobody's.
    const current = (then: () => void) => { if (attempt === this.attempt) then(); };
    const socket = this.surroundings.openSocket(this.url, WEBSOCKET_PROTOCOL, {
      opened: () => current(() => socket.send(session.hello())),
      received: (payload) => current(() => this.received(session, payload)),
      closed: () => current(() => this.lost(0)),
    });
    this.socket = socket;
  }

  private received(session: Session<Tag>, payload: Uint8Array | null): void {
    try {
      if (payload === null) throw new ProtocolFault('text message');
      const outputs = session.handleFrame(this.surroundings.now(), payload);
      outputs.forEach((output) => this.handle(output));
    } catch (error) {
      console.warn('ringline: connection closed:', error);
      this.lost(0);
    }
    this.owner.pump();
  }

  private handle(output: SessionOutput<Tag>): void {
    switch (output.kind) {
      case 'ready':
        this.status = { state: 'ready' };
        this.readyMs = this.surroundings.now();
        this.resumeToken = output.ready.resumeToken.length > 0 ? output.ready.resumeToken : null;
        return this.owner.ready(output.ready);
      case 'closing':
        if (output.closing.reason === 'loggedOut') return this.loggedOut();
        if (output.closing.reason === 'protocolError') console.warn('ringline: refused by the server:', output.closing.detail);
        return this.lost(output.closing.retryAfterMs);
      case 'unauthenticated':
        // The resume token first, then the access token, then the refresh token: the last one decides.
        if (this.resumeToken === null) this.tokens.invalidate();
        this.resumeToken = null;
        return this.lost(0);
      default:
        return this.owner.output(output);
    }
  }

  private lost(retryAfterMs: number): void {
    if (this.status.state === 'stopped' || this.status.state === 'loggedOut') return;
    const nowMs = this.surroundings.now();
    if (this.status.state === 'ready' && nowMs - this.readyMs >= RECONNECT_RESET_MS) this.backoff.reset();
    this.drop();
    this.status = { state: 'waiting', untilMs: nowMs + this.backoff.next(this.surroundings.random, retryAfterMs) };
    this.owner.pump();
  }

  private loggedOut(): void {
    this.drop();
    this.status = { state: 'loggedOut' };
    this.owner.pump();
  }

  private drop(): void {
    this.attempt += 1;
    const { socket, session } = this;
    this.socket = null;
    this.session = null;
    socket?.close();
    if (session !== null) this.owner.lost();
  }
}

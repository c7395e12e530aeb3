// Clients and the server in memory, joined by a network that delays, breaks and loses; time is the test's.

import { vi } from 'vitest';
import type { Account, AccountKeeper } from '../src/ringline/accounts';
import { Tokens } from '../src/ringline/accounts';
import { Ringline, type Environment } from '../src/ringline/client';
import { MemoryStore } from '../src/ringline/memory';
import { RestError, type Rest } from '../src/ringline/rest';
import type { Store } from '../src/ringline/store';
import { EntryKind, type Entry } from '../src/ringline/types';
import { Backend, type BackendSession, type MockUser } from './backend';

export const LATENCY_MS = 20;

/** A small generator with a seed, so that a failure can be repeated. */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

export class World {
  readonly backend = new Backend();
  readonly random: () => number;
  readonly devices: Device[] = [];
  private nextId = 1n;
  private readonly channels = new Map<string, Set<(note: unknown) => void>>();

  constructor(seed = 1) {
    vi.useFakeTimers({ now: 1_700_000_000_000 });
    this.random = seeded(seed);
  }

  user(username: string): MockUser {
    return this.backend.named(username) ?? this.backend.register(username, username[0]?.toUpperCase() + username.slice(1));
  }

  device(username: string): Device {
    const device = new Device(this, this.user(username), this.backend.newDevice());
    this.devices.push(device);
    return device;
  }

  /** Another window of the same browser. */
  windowOf(device: Device): Device {
    const { user, device: id } = device.account;
    const known = this.backend.users.get(user);
    if (known === undefined) throw new Error('no such user');
    const other = new Device(this, known, id);
    other.store = device.store;
    this.devices.push(other);
    return other;
  }

  /** What windows of one device share. */
  channel(name: string, received: (note: unknown) => void): ReturnType<Environment['openChannel']> {
    const windows = this.channels.get(name) ?? new Set();
    this.channels.set(name, windows.add(received));
    return {
      postMessage: (note) => {
        for (const other of windows) if (other !== received) setTimeout(() => { if (windows.has(other)) other(structuredClone(note)); }, 1);
      },
      close: () => windows.delete(received),
    };
  }

  freshId(): bigint {
    this.nextId += 1n;
    return this.nextId;
  }

  async pass(ms: number): Promise<void> {
    await vi.advanceTimersByTimeAsync(ms);
  }

  end(): void {
    for (const device of this.devices) device.client?.close();
    vi.useRealTimers();
  }
}

/** One device of a user: what survives a reload, and the running client. */
export class Device {
  client: Ringline | null = null;
  store: Store = new MemoryStore();
  online = true;
  /** The browser knows the account. */
  kept = true;
  /** The server takes the account's cookie. */
  cookie = true;
  refreshes = 0;
  private sessions = new Set<BackendSession>();
  readonly account: Account;

  constructor(private readonly world: World, user: MockUser, device: string) {
    this.account = { user: user.id, device, username: user.username, displayName: user.displayName };
  }

  get app(): Ringline {
    if (this.client === null) throw new Error('not started');
    return this.client;
  }

  async start(): Promise<Ringline> {
    const environment = this.environment();
    const tokens = new Tokens(this.account, environment.keeper, environment.rest, environment.now);
    this.client = await Ringline.start(this.account, environment, tokens);
    await this.world.pass(10 * LATENCY_MS);
    return this.client;
  }

  /** The page is loaded anew; memory is gone, the store stays. */
  async reload(): Promise<Ringline> {
    this.client?.close();
    this.cut();
    return this.start();
  }

  cut(): void {
    for (const session of [...this.sessions]) session.cut();
    this.sessions.clear();
  }

  goOffline(): void {
    this.online = false;
    this.cut();
  }

  async goOnline(): Promise<void> {
    this.online = true;
    this.client?.reconnect();
    await this.world.pass(20 * LATENCY_MS);
  }

  /** The texts of the open conversation, pending ones in brackets. */
  texts(): string[] {
    const { view } = this.app;
    if (view === null) return [];
    const { acknowledged, pending } = this.app.tail(view.conversation);
    return [
      ...[...view.entries, ...acknowledged].filter((entry) => entry.kind === EntryKind.TEXT).map(textOf),
      ...pending.map((item) => `[${new TextDecoder().decode(item.body)}]`),
    ];
  }

  private environment(): Environment {
    const { world, account } = this;
    const rest: Rest = {
      register: () => Promise.reject(new Error('not here')),
      login: () => Promise.reject(new Error('not here')),
      forget: async () => {},
      refresh: async () => {
        this.refreshes += 1;
        if (!this.online) throw new RestError(0, 'offline', 0);
        if (!this.cookie) throw new RestError(401, 'refresh token', 0);
        return { accessToken: world.backend.issue(account.user, account.device), expiresInMs: 900_000 };
      },
    };
    const keeper: AccountKeeper = {
      accounts: () => [account], has: () => this.kept, keep: () => { this.kept = true; },
      forget: () => { this.kept = false; }, current: () => account.user, choose: () => {}, watch: () => () => {},
    };
    return {
      now: () => Date.now(), random: world.random, freshId: () => world.freshId(), clientName: 'test', socketBase: 'mock:',
      rest, keeper, openStore: async () => this.store, openChannel: (name, received) => world.channel(name, received),
      openSocket: (_url, _protocol, events) => this.socket(events),
    };
  }

  private socket(events: Parameters<Environment['openSocket']>[2]): ReturnType<Environment['openSocket']> {
    let session: BackendSession | null = null;
    let open = true;
    const later = (then: () => void) => setTimeout(() => { if (open) then(); }, LATENCY_MS);
    const closed = () => setTimeout(() => { if (open) { open = false; events.closed(); } }, LATENCY_MS);
    later(() => {
      if (!this.online) return closed();
      session = this.world.backend.connect((payload) => later(() => events.received(payload)), () => {
        if (session !== null) this.sessions.delete(session);
        closed();
      });
      this.sessions.add(session);
      events.opened();
    });
    return {
      send: (payload) => later(() => session?.receive(payload)),
      close: () => {
        open = false;
        session?.cut();
      },
    };
  }
}

export function textOf(entry: Entry): string {
  return new TextDecoder().decode(entry.body);
}

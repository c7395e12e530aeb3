// Who is logged in in this browser, and their tokens. The access token lives in memory only. The refresh token is in a
// cookie that the server sets and no script can read, one for each account; the `AccountKeeper` remembers whose there
// are.

import type { DeviceId, UserId } from './ids';
import { TOKEN_MARGIN_MS } from './limits';
import { RestError, type Login, type Rest } from './rest';

export interface Account {
  user: UserId;
  device: DeviceId;
  username: string;
  displayName: string;
}

export interface AccountKeeper {
  accounts(): Account[];
  has(user: UserId): boolean;
  keep(account: Account): void;
  forget(user: UserId): void;
  /** Whose window this is: accounts may differ from window to window. */
  current(): UserId | null;
  choose(user: UserId | null): void;
  /** Calls back when another window changed the accounts; returns how to stop. */
  watch(changed: () => void): () => void;
}

/** The device was logged out, or its refresh token is used up: a person must log in again. */
export class LoggedOut extends Error {
  override name = 'LoggedOut';
}

const ACCOUNTS_KEY = 'ringline.accounts';
const LAST_KEY = 'ringline.last';
const WINDOW_KEY = 'ringline.account';

export class LocalAccountKeeper implements AccountKeeper {
  accounts(): Account[] {
    return this.read();
  }

  has(user: UserId): boolean {
    return this.read().some((kept) => kept.user === user);
  }

  keep({ user, device, username, displayName }: Account): void {
    this.write([...this.read().filter((kept) => kept.user !== user), { user, device, username, displayName }]);
  }

  forget(user: UserId): void {
    this.write(this.read().filter((kept) => kept.user !== user));
    if (localStorage.getItem(LAST_KEY) === user) localStorage.removeItem(LAST_KEY);
    if (sessionStorage.getItem(WINDOW_KEY) === user) sessionStorage.removeItem(WINDOW_KEY);
  }

  current(): UserId | null {
    const user = sessionStorage.getItem(WINDOW_KEY) ?? localStorage.getItem(LAST_KEY);
    return user !== null && this.has(user) ? user : null;
  }

  choose(user: UserId | null): void {
    // '' names no account: this window asks for one although the browser knows others.
    sessionStorage.setItem(WINDOW_KEY, user ?? '');
    if (user !== null) localStorage.setItem(LAST_KEY, user);
  }

  watch(changed: () => void): () => void {
    const listener = (event: StorageEvent) => {
      if (event.key === ACCOUNTS_KEY || event.key === null) changed();
    };
    window.addEventListener('storage', listener);
    return () => window.removeEventListener('storage', listener);
  }

  private read(): Account[] {
    try {
      const kept: unknown = JSON.parse(localStorage.getItem(ACCOUNTS_KEY) ?? '[]');
      if (!Array.isArray(kept)) return [];
      // Earlier versions kept a refresh token here, where scripts can read it: such an account logs in again.
      const safe = (kept as object[]).filter((account) => !('refreshToken' in account)) as Account[];
      if (safe.length < kept.length) this.write(safe);
      return safe;
    } catch {
      return [];
    }
  }

  private write(kept: Account[]): void {
    localStorage.setItem(ACCOUNTS_KEY, JSON.stringify(kept));
  }
}

interface Access { token: string; freshUntilMs: number; expiresMs: number }

/** Access tokens of one account. */
export class Tokens {
  private access: Access | null = null;
  private refreshing: Promise<string> | null = null;

  constructor(
    readonly account: Account, private readonly keeper: AccountKeeper, private readonly rest: Rest,
    private readonly now: () => number,
  ) {}

  /** Of a log in that has just happened. */
  take(login: Pick<Login, 'accessToken' | 'expiresInMs'>): void {
    const nowMs = this.now();
    const marginMs = Math.min(TOKEN_MARGIN_MS, login.expiresInMs / 5);
    this.access = { token: login.accessToken, freshUntilMs: nowMs + login.expiresInMs - marginMs, expiresMs: nowMs + login.expiresInMs };
  }

  /** When `refreshed` should be called to stay ahead of the token's end. */
  get refreshAtMs(): number {
    return this.access?.freshUntilMs ?? Infinity;
  }

  /** A token that is good for a while; throws LoggedOut, or RestError when the server is away. */
  async token(): Promise<string> {
    if (this.access !== null && this.now() < this.access.freshUntilMs) return this.access.token;
    return this.refreshed();
  }

  /** The server refused the token although it should be good. */
  invalidate(): void {
    this.access = null;
  }

  async refreshed(): Promise<string> {
    this.refreshing ??= exclusively(`ringline-refresh-${this.account.user}`, () => this.refresh())
      .finally(() => { this.refreshing = null; });
    return this.refreshing;
  }

  private async refresh(): Promise<string> {
    if (!this.keeper.has(this.account.user)) throw new LoggedOut();
    try {
      const refreshed = await this.rest.refresh(this.account.user);
      this.take(refreshed);
      return refreshed.accessToken;
    } catch (error) {
      if (error instanceof RestError && (error.status === 401 || error.status === 403)) throw new LoggedOut();
      throw error;
    }
  }
}

/** One window at a time, where the browser has locks (they need a secure context or loopback). */
async function exclusively<T>(name: string, task: () => Promise<T>): Promise<T> {
  const locks: LockManager | undefined = globalThis.navigator?.locks;
  return locks === undefined ? task() : await locks.request(name, task);
}

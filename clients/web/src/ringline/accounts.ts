// Who is logged in in this browser, and their tokens. The access token lives in memory only. The refresh token is
// kept by a `RefreshKeeper`: the browser's local storage now, an HttpOnly cookie once the server sets one; nothing
// above knows which.

import type { DeviceId, UserId } from './ids';
import { TOKEN_MARGIN_MS } from './limits';
import { RestError, type Login, type Rest } from './rest';

export interface Account {
  user: UserId;
  device: DeviceId;
  username: string;
  displayName: string;
}

export interface RefreshKeeper {
  accounts(): Account[];
  refreshToken(user: UserId): string | null;
  keep(account: Account, refreshToken: string): void;
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

type Kept = Account & { refreshToken: string };

export class LocalRefreshKeeper implements RefreshKeeper {
  accounts(): Account[] {
    return this.read().map(({ user, device, username, displayName }) => ({ user, device, username, displayName }));
  }

  refreshToken(user: UserId): string | null {
    return this.read().find((kept) => kept.user === user)?.refreshToken ?? null;
  }

  keep(account: Account, refreshToken: string): void {
    this.write([...this.read().filter((kept) => kept.user !== account.user), { ...account, refreshToken }]);
  }

  forget(user: UserId): void {
    this.write(this.read().filter((kept) => kept.user !== user));
    if (localStorage.getItem(LAST_KEY) === user) localStorage.removeItem(LAST_KEY);
    if (sessionStorage.getItem(WINDOW_KEY) === user) sessionStorage.removeItem(WINDOW_KEY);
  }

  current(): UserId | null {
    const user = sessionStorage.getItem(WINDOW_KEY) ?? localStorage.getItem(LAST_KEY);
    return user !== null && this.refreshToken(user) !== null ? user : null;
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

  private read(): Kept[] {
    try {
      const kept: unknown = JSON.parse(localStorage.getItem(ACCOUNTS_KEY) ?? '[]');
      return Array.isArray(kept) ? kept as Kept[] : [];
    } catch {
      return [];
    }
  }

  private write(kept: Kept[]): void {
    localStorage.setItem(ACCOUNTS_KEY, JSON.stringify(kept));
  }
}

interface Access { token: string; freshUntilMs: number; expiresMs: number }

/** Access tokens of one account. */
export class Tokens {
  private access: Access | null = null;
  private refreshing: Promise<string> | null = null;

  constructor(
    readonly account: Account, private readonly keeper: RefreshKeeper, private readonly rest: Rest,
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
    // Read inside the lock: another window may have used up the one this window knew.
    const refreshToken = this.keeper.refreshToken(this.account.user);
    if (refreshToken === null) throw new LoggedOut();
    try {
      const refreshed = await this.rest.refresh(refreshToken);
      this.keeper.keep(this.account, refreshed.refreshToken);
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

import { afterEach, describe, expect, it, vi } from 'vitest';
import { LocalAccountKeeper, LoggedOut, Tokens, type Account, type AccountKeeper } from '../src/ringline/accounts';
import { RestError, restAt, type Rest } from '../src/ringline/rest';

const account: Account = { user: 'u', device: 'd', username: 'ada', displayName: 'Ada' };

function setting(answer: (user: string) => Promise<string>) {
  const state = { kept: true, refreshes: 0, nowMs: 0 };
  const keeper: AccountKeeper = {
    accounts: () => [account], has: () => state.kept, keep: () => { state.kept = true; },
    forget: () => { state.kept = false; }, current: () => 'u', choose: () => {}, watch: () => () => {},
  };
  const rest = {
    refresh: async (user: string) => {
      state.refreshes += 1;
      return { accessToken: `${await answer(user)}-${state.refreshes}`, expiresInMs: 900_000 };
    },
  } as unknown as Rest;
  return { state, tokens: new Tokens(account, keeper, rest, () => state.nowMs) };
}

describe('tokens', () => {
  it('are refreshed before their end', async () => {
    const { state, tokens } = setting(async (user) => user);
    expect(await tokens.token()).toBe('u-1');
    state.nowMs = 839_999;
    expect(await tokens.token()).toBe('u-1');
    expect(tokens.refreshAtMs).toBe(840_000);
    state.nowMs = 840_000;
    expect(await tokens.token()).toBe('u-2');
  });

  it('are asked for once when several want one', async () => {
    const { state, tokens } = setting(async (user) => user);
    expect(await Promise.all([tokens.token(), tokens.token(), tokens.refreshed()])).toEqual(['u-1', 'u-1', 'u-1']);
    expect(state.refreshes).toBe(1);
  });

  it('of a fresh log in are used as they are', async () => {
    const { state, tokens } = setting(async () => 'never');
    tokens.take({ accessToken: 'fresh', expiresInMs: 10_000 });
    expect(await tokens.token()).toBe('fresh');
    expect(tokens.refreshAtMs).toBe(8_000);
    expect(state.refreshes).toBe(0);
  });

  it('tell apart who is logged out and who is only offline', async () => {
    const away = setting(() => Promise.reject(new RestError(0, 'offline', 0)));
    await expect(away.tokens.token()).rejects.toBeInstanceOf(RestError);
    expect(away.state.kept).toBe(true);
    const out = setting(() => Promise.reject(new RestError(401, 'refresh_token', 0)));
    await expect(out.tokens.token()).rejects.toBeInstanceOf(LoggedOut);
    const gone = setting(async () => 'never');
    gone.state.kept = false;
    await expect(gone.tokens.token()).rejects.toBeInstanceOf(LoggedOut);
  });
});

/** What a page could read: a storage that remembers everything that was ever written. */
function storage(written: string[], items = new Map<string, string>()): Storage {
  return {
    get length() { return items.size; },
    clear: () => items.clear(), key: (index: number) => [...items.keys()][index] ?? null,
    getItem: (key: string) => items.get(key) ?? null, removeItem: (key: string) => { items.delete(key); },
    setItem: (key: string, value: string) => { items.set(key, value); written.push(value); },
  };
}

describe('what scripts can read', () => {
  afterEach(() => vi.unstubAllGlobals());

  it('holds no token, and loses those of earlier versions', () => {
    const written: string[] = [];
    const old = JSON.stringify([{ ...account, user: 'old', refreshToken: 'secret-of-old' }]);
    const local = storage(written, new Map([['ringline.accounts', old]]));
    vi.stubGlobal('localStorage', local);
    vi.stubGlobal('sessionStorage', storage(written));
    const keeper = new LocalAccountKeeper();
    expect(keeper.has('old')).toBe(false);
    const login = { ...account, accessToken: 'secret-access', refreshToken: 'secret-refresh', expiresInMs: 1 };
    keeper.keep(login);
    keeper.choose(account.user);
    expect(keeper.accounts()).toEqual([account]);
    expect(keeper.current()).toBe(account.user);
    expect(`${written.join()}${local.getItem('ringline.accounts')}`).not.toMatch(/secret/);
    keeper.forget(account.user);
    expect(keeper.current()).toBe(null);
  });

  it('never asks for a refresh token, and leaves the cookie to the browser', async () => {
    const asked: [string, RequestInit][] = [];
    const fields = { user_id: 'u', device_id: 'd', username: 'ada', display_name: 'Ada', access_token: 'a', expires_in_s: 900, refresh_token: 'secret' };
    vi.stubGlobal('fetch', async (url: string, init: RequestInit) => {
      asked.push([url, init]);
      return new Response(JSON.stringify(fields));
    });
    const rest = restAt('');
    const input = { username: 'ada', displayName: 'Ada', password: 'password', deviceName: 'here' };
    for (const login of [await rest.register(input), await rest.login(input)]) {
      expect(JSON.stringify(login)).not.toMatch(/secret/);
    }
    await rest.refresh('u');
    await rest.forget('u');
    expect(asked.map(([url, init]) => [init.method, url, init.credentials])).toEqual([
      ['POST', '/v1/register', 'same-origin'], ['POST', '/v1/login', 'same-origin'],
      ['POST', '/v1/refresh', 'same-origin'], ['DELETE', '/v1/refresh', 'same-origin'],
    ]);
    const bodies = asked.map(([, init]) => JSON.parse(String(init.body)) as Record<string, unknown>);
    expect(bodies.map((body) => body.refresh_cookie)).toEqual([true, true, undefined, undefined]);
    expect(bodies[2]).toEqual({ user_id: 'u' });
  });
});

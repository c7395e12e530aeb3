import { describe, expect, it } from 'vitest';
import { LoggedOut, Tokens, type Account, type RefreshKeeper } from '../src/ringline/accounts';
import { RestError, type Rest } from '../src/ringline/rest';

const account: Account = { user: 'u', device: 'd', username: 'ada', displayName: 'Ada' };

function setting(answer: (token: string) => Promise<string>) {
  const state = { kept: 'r0' as string | null, refreshes: [] as string[], nowMs: 0 };
  const keeper: RefreshKeeper = {
    accounts: () => [account], refreshToken: () => state.kept, keep: (_, token) => { state.kept = token; },
    forget: () => { state.kept = null; }, current: () => 'u', choose: () => {}, watch: () => () => {},
  };
  const rest = {
    refresh: async (token: string) => {
      state.refreshes.push(token);
      return { accessToken: await answer(token), expiresInMs: 900_000, refreshToken: `r${state.refreshes.length}` };
    },
  } as unknown as Rest;
  return { state, tokens: new Tokens(account, keeper, rest, () => state.nowMs) };
}

describe('tokens', () => {
  it('are refreshed before their end, and the rotated refresh token is kept', async () => {
    const { state, tokens } = setting(async (token) => `a-${token}`);
    expect(await tokens.token()).toBe('a-r0');
    expect(state.kept).toBe('r1');
    state.nowMs = 839_999;
    expect(await tokens.token()).toBe('a-r0');
    expect(tokens.refreshAtMs).toBe(840_000);
    state.nowMs = 840_000;
    expect(await tokens.token()).toBe('a-r1');
    expect(state.refreshes).toEqual(['r0', 'r1']);
  });

  it('are asked for once when several want one', async () => {
    const { state, tokens } = setting(async (token) => `a-${token}`);
    expect(await Promise.all([tokens.token(), tokens.token(), tokens.refreshed()])).toEqual(['a-r0', 'a-r0', 'a-r0']);
    expect(state.refreshes.length).toBe(1);
  });

  it('of a fresh log in are used as they are', async () => {
    const { state, tokens } = setting(async () => 'never');
    tokens.take({ accessToken: 'fresh', expiresInMs: 10_000 });
    expect(await tokens.token()).toBe('fresh');
    expect(tokens.refreshAtMs).toBe(8_000);
    expect(state.refreshes).toEqual([]);
  });

  it('tell apart who is logged out and who is only offline', async () => {
    const away = setting(() => Promise.reject(new RestError(0, 'offline', 0)));
    await expect(away.tokens.token()).rejects.toBeInstanceOf(RestError);
    expect(away.state.kept).toBe('r0');
    const out = setting(() => Promise.reject(new RestError(401, 'refresh_token', 0)));
    await expect(out.tokens.token()).rejects.toBeInstanceOf(LoggedOut);
    const gone = setting(async () => 'never');
    gone.state.kept = null;
    await expect(gone.tokens.token()).rejects.toBeInstanceOf(LoggedOut);
  });
});

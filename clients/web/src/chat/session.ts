// Who uses this window: logging in, choosing among the browser's accounts, leaving.

import { LocalAccountKeeper, Ringline, Tokens, browserEnvironment, RestError, type Account, type Login } from '../ringline';
import { signalOf } from './signal';
import { toast } from './toasts';

export type Session =
  | { state: 'starting' }
  | { state: 'out'; accounts: Account[]; reason: string | null }
  | { state: 'in'; client: Ringline };

const environment = browserEnvironment();
const keeper = new LocalAccountKeeper();
export const session = signalOf<Session>({ state: 'starting' });

export async function startSession(): Promise<void> {
  const user = keeper.current();
  const account = keeper.accounts().find((candidate) => candidate.user === user);
  if (account === undefined) showLogin(null);
  else await enter(account);
}

/** Also for "add another account": the browser keeps the others. */
export function showLogin(reason: string | null): void {
  leaveQuietly();
  if (reason === null) keeper.choose(null);
  session.set({ state: 'out', accounts: keeper.accounts(), reason });
}

export async function useAccount(account: Account): Promise<void> {
  leaveQuietly();
  await enter(account);
}

export async function logIn(username: string, password: string): Promise<void> {
  await entered(await environment.rest.login({ username, password, deviceName: deviceName() }));
}

export async function register(username: string, displayName: string, password: string): Promise<void> {
  await entered(await environment.rest.register({ username, displayName, password, deviceName: deviceName() }));
}

export async function logOut(client: Ringline): Promise<void> {
  await client.logOut();
  location.hash = '';
  showLogin(null);
}

/** A sentence for a person. */
export function explain(error: unknown, doing: 'login' | 'register'): string {
  if (!(error instanceof RestError)) return 'Something went wrong.';
  if (error.status === 0 || error.status >= 502) return 'The server cannot be reached. Try again in a moment.';
  if (error.status === 401 || error.status === 403 || (error.status === 404 && doing === 'login')) return 'Wrong username or password.';
  if (error.status === 409) return 'This username is taken.';
  if (error.status === 429) return 'Too many attempts. Wait a moment.';
  if (error.status === 400 || error.status === 422) return error.detail === '' ? 'The server refused this.' : `The server refused this: ${error.detail}.`;
  return 'Something went wrong at the server. Try again in a moment.';
}

async function entered(login: Login): Promise<void> {
  const { user, device, username, displayName } = login;
  const account: Account = { user, device, username, displayName };
  keeper.keep(account);
  const tokens = new Tokens(account, keeper, environment.rest, environment.now);
  tokens.take(login);
  location.hash = '';
  await enter(account, tokens);
}

async function enter(account: Account, tokens?: Tokens): Promise<void> {
  keeper.choose(account.user);
  const client = await Ringline.start(account, environment, tokens);
  if (client.storeFailed) toast('This browser keeps nothing: messages are gone from here when you close the page.');
  client.subscribe(() => {
    if (client.status.state === 'loggedOut' && !client.leaving) ended(client);
  });
  session.set({ state: 'in', client });
}

/** The server does not know this device any more. */
function ended(client: Ringline): void {
  const current = session.get();
  if (current.state !== 'in' || current.client !== client) return;
  keeper.forget(client.account.user);
  void environment.rest.forget(client.account.user);
  showLogin('You were logged out.');
}

function leaveQuietly(): void {
  const current = session.get();
  if (current.state === 'in') current.client.close();
}

function withClient(then: (client: Ringline) => void): void {
  const current = session.get();
  if (current.state === 'in') then(current.client);
}

/** Page events that the connection should know of. */
export function followPage(): void {
  keeper.watch(() => withClient((client) => {
    if (!client.leaving && !keeper.has(client.account.user)) showLogin('You were logged out in another window.');
  }));
  addEventListener('online', () => withClient((client) => client.wake()));
  addEventListener('pageshow', (event) => {
    if (event.persisted) withClient((client) => client.wake());
  });
  document.addEventListener('visibilitychange', () => {
    if (document.visibilityState === 'visible') withClient((client) => client.wake());
  });
}

/** What the list of devices calls this one. */
function deviceName(): string {
  const agent = navigator.userAgent;
  const browser = /Edg\//.test(agent) ? 'Edge' : /Firefox\//.test(agent) ? 'Firefox' : /Chrome\//.test(agent) ? 'Chrome' : /Safari\//.test(agent) ? 'Safari' : 'Browser';
  const system = /Android/.test(agent) ? 'Android' : /iPhone|iPad/.test(agent) ? 'iOS' : /Mac OS/.test(agent) ? 'macOS' : /Windows/.test(agent) ? 'Windows' : 'Linux';
  return `${browser} on ${system}`;
}

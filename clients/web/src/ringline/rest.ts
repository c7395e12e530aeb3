// The REST requests of the account: register, log in, refresh, forget. The refresh token never comes to this code: the
// server sets it as a cookie that scripts cannot read and the browser sends to `/v1/refresh` alone.

import type { DeviceId, UserId } from './ids';

/** A request over HTTP without an answer is given up after this time, in milliseconds. */
const HTTP_TIMEOUT_MS = 15_000;

export interface Login {
  user: UserId;
  device: DeviceId;
  username: string;
  displayName: string;
  accessToken: string;
  expiresInMs: number;
}

export type Refreshed = Pick<Login, 'accessToken' | 'expiresInMs'>;

/** `status` 0: the server was not reached. */
export class RestError extends Error {
  override name = 'RestError';
  constructor(readonly status: number, readonly detail: string, readonly retryAfterMs: number) {
    super(`${status} ${detail}`);
  }
}

export interface Rest {
  register(input: { username: string; displayName: string; password: string; deviceName: string }): Promise<Login>;
  login(input: { username: string; password: string; deviceName: string }): Promise<Login>;
  refresh(user: UserId): Promise<Refreshed>;
  /** Drops the cookie; whether the server is reached or not. */
  forget(user: UserId): Promise<void>;
}

/** `base` is '' for the page's own origin. */
export function restAt(base: string): Rest {
  return {
    async register({ username, displayName, password, deviceName }) {
      return loginOf(await ask('POST', `${base}/v1/register`, {
        username, display_name: displayName, password, device_name: deviceName, refresh_cookie: true,
      }));
    },
    async login({ username, password, deviceName }) {
      return loginOf(await ask('POST', `${base}/v1/login`, { username, password, device_name: deviceName, refresh_cookie: true }));
    },
    async refresh(user) {
      return refreshedOf(await ask('POST', `${base}/v1/refresh`, { user_id: user }));
    },
    async forget(user) {
      await ask('DELETE', `${base}/v1/refresh`, { user_id: user })
        .catch((error: unknown) => console.warn('ringline: cookie not dropped:', error));
    },
  };
}

async function ask(method: 'POST' | 'DELETE', url: string, body: unknown): Promise<Record<string, unknown>> {
  let response: Response;
  let answer: unknown;
  try {
    response = await fetch(url, {
      method, credentials: 'same-origin', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body),
      signal: AbortSignal.timeout(HTTP_TIMEOUT_MS), cache: 'no-store',
    });
    answer = await response.json().catch(() => null);
  } catch (error) {
    throw new RestError(0, String(error), 0);
  }
  const fields = typeof answer === 'object' && answer !== null ? answer as Record<string, unknown> : {};
  if (response.ok) return fields;
  const detail = typeof fields.detail === 'string' ? fields.detail : '';
  const retryAfterMs = typeof fields.retry_after_ms === 'number' ? fields.retry_after_ms : 0;
  throw new RestError(response.status, detail, retryAfterMs);
}

function loginOf(fields: Record<string, unknown>): Login {
  return {
    user: text(fields, 'user_id'), device: text(fields, 'device_id'),
    username: text(fields, 'username'), displayName: text(fields, 'display_name'), ...refreshedOf(fields),
  };
}

function refreshedOf(fields: Record<string, unknown>): Refreshed {
  const { expires_in_s: seconds } = fields;
  if (typeof seconds !== 'number') throw new RestError(502, 'expires_in_s is missing', 0);
  return { accessToken: text(fields, 'access_token'), expiresInMs: seconds * 1_000 };
}

function text(fields: Record<string, unknown>, name: string): string {
  const value = fields[name];
  if (typeof value !== 'string' || value === '') throw new RestError(502, `${name} is missing`, 0);
  return value;
}

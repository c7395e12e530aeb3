// Who is who: known users, and the look-ups of those that are not known or not fresh.

import { Backoff, type Random } from './backoff';
import type { UserId } from './ids';
import { LOOK_UP_USERS_MAX, RETRY_BASE_MS, RETRY_CAP_MS, USER_FRESH_MS } from './limits';
import type { Refusal, Request, User } from './types';

export interface UsersTag { part: 'users'; users: UserId[] }

export class Directory {
  private readonly known = new Map<UserId, User>();
  private readonly due = new Set<UserId>();
  /** Asked in this run of the program, so not asked again. */
  private readonly asked = new Set<UserId>();
  private inFlight = false;
  private readonly backoff = new Backoff(RETRY_BASE_MS, RETRY_CAP_MS);
  private notBeforeMs = 0;

  constructor(private readonly random: Random) {}

  user(id: UserId): User | undefined {
    return this.known.get(id);
  }

  restore(users: User[]): void {
    for (const user of users) this.known.set(user.id, user);
  }

  take(users: User[]): void {
    for (const user of users) {
      this.known.set(user.id, user);
      this.due.delete(user.id);
    }
  }

  want(nowMs: number, id: UserId): void {
    const user = this.known.get(id);
    const fresh = user !== undefined && nowMs - user.fetchedMs < USER_FRESH_MS;
    if (!fresh && !this.asked.has(id)) this.due.add(id);
  }

  poll(nowMs: number): { tag: UsersTag; request: Request } | null {
    if (this.inFlight || this.due.size === 0 || nowMs < this.notBeforeMs) return null;
    this.inFlight = true;
    const users = [...this.due].slice(0, LOOK_UP_USERS_MAX);
    return { tag: { part: 'users', users }, request: { kind: 'lookUp', users, usernames: [] } };
  }

  pollTimeout(): number {
    return this.due.size > 0 && !this.inFlight && this.notBeforeMs > 0 ? this.notBeforeMs : Infinity;
  }

  answered({ users }: UsersTag): void {
    this.inFlight = false;
    this.backoff.reset();
    this.notBeforeMs = 0;
    for (const id of users) {
      this.due.delete(id);
      this.asked.add(id);
    }
  }

  refused(nowMs: number, tag: UsersTag, refusal: Refusal): void {
    if (!refusal.retryable) return this.answered(tag);
    this.inFlight = false;
    this.notBeforeMs = nowMs + this.backoff.next(this.random, refusal.retryAfterMs);
  }

  disconnected(): void {
    this.inFlight = false;
    this.notBeforeMs = 0;
  }
}

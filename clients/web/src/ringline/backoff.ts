// Waiting before trying again: exponential, with full jitter, never below what the server asked for.

/** 0 (included) to 1 (excluded). */
export type Random = () => number;

export class Backoff {
  private attempts = 0;

  constructor(private readonly baseMs: number, private readonly capMs: number) {}

  /** The next wait in milliseconds; `askedMs` is the server's retry-after, 0 if it named none. */
  next(random: Random, askedMs = 0): number {
    const stepMs = Math.min(this.capMs, this.baseMs * 2 ** Math.min(this.attempts, 30));
    this.attempts += 1;
    return askedMs + Math.floor(random() * stepMs);
  }

  reset(): void {
    this.attempts = 0;
  }
}

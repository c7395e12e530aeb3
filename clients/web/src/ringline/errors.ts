// Wire error codes that the library acts on, and what they mean to a person.

import { ErrorCode } from '../generated/errors';
import type { Refusal } from './types';

export { ErrorCode };

/** The peer broke the protocol: the connection is closed and opened again. */
export class ProtocolFault extends Error {
  override name = 'ProtocolFault';
}

/** A request that was not carried out. */
export class RequestRefused extends Error {
  override name = 'RequestRefused';
  constructor(readonly refusal: Refusal) {
    super(describe(refusal));
  }
}

/** Made on this side: the request got no answer. */
export function unanswered(detail: string): Refusal {
  return { code: ErrorCode.ERROR_TIMED_OUT, detail, retryable: true, retryAfterMs: 0 };
}

/** One short sentence for a person. */
export function describe(refusal: Refusal): string {
  switch (refusal.code) {
    case ErrorCode.ERROR_NOT_FOUND: return 'That could not be found.';
    case ErrorCode.ERROR_NOT_A_MEMBER: return 'You are not a member of this conversation.';
    case ErrorCode.ERROR_BODY_TOO_LARGE: return 'This message is too long.';
    case ErrorCode.ERROR_TOO_MANY_MEMBERS: return 'The group has too many members.';
    case ErrorCode.ERROR_THROTTLED: return 'Too fast. Wait a moment.';
    case ErrorCode.ERROR_OVERLOADED:
    case ErrorCode.ERROR_TOO_MANY_IN_FLIGHT: return 'The server is busy. Try again in a moment.';
    case ErrorCode.ERROR_UNAVAILABLE:
    case ErrorCode.ERROR_TIMED_OUT: return 'The server did not answer. Try again in a moment.';
    case ErrorCode.ERROR_UNAUTHENTICATED:
    case ErrorCode.ERROR_TOKEN_EXPIRED: return 'Please log in again.';
    case ErrorCode.ERROR_INVALID_ARGUMENT: return `The server refused this: ${refusal.detail}.`;
    default: return 'Something went wrong.';
  }
}

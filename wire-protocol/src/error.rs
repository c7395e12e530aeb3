//! Refusals sorted by who must act, and the one table that gives them their wire form.

use crate::v1;
use crate::v1::ErrorCode;

/// Who must act for the request to succeed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Actor {
    /// The peer broke the protocol.
    PeerProtocol,
    /// The peer's proof was not accepted: it must log in or refresh.
    PeerProof,
    /// The peer asked the impossible.
    PeerRequest,
    /// We are overloaded; waiting helps.
    Load,
    /// Storage is away; waiting helps.
    Storage,
    /// We have a bug.
    Us,
}

/// What an error takes down with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// Only the request.
    Request,
    /// The connection.
    Connection,
}

/// What one error code means for whoever handles it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Meaning {
    /// Who must act.
    pub actor: Actor,
    /// What dies.
    pub scope: Scope,
    /// Whether the same request may succeed when repeated as it is.
    pub retryable: bool,
}

/// The table: every code, its actor, its scope, and whether a retry helps.
pub const fn meaning(code: ErrorCode) -> Meaning {
    use Actor::*;
    use ErrorCode::*;
    use Scope::*;
    let (actor, scope, retryable) = match code {
        ErrorMalformedFrame
        | ErrorFrameTooLarge
        | ErrorHelloExpected
        | ErrorVersionUnsupported
        | ErrorUnexpectedFrame => (PeerProtocol, Connection, false),
        ErrorUnauthenticated | ErrorTokenExpired => (PeerProof, Connection, false),
        ErrorInvalidArgument | ErrorNotFound | ErrorNotAMember | ErrorBodyTooLarge | ErrorTooManyMembers
        | ErrorUnknownHandle | ErrorAlreadyExists => (PeerRequest, Request, false),
        ErrorPredecessorMissing => (PeerRequest, Request, true),
        ErrorThrottled | ErrorOverloaded | ErrorTooManyInFlight => (Load, Request, true),
        ErrorUnavailable | ErrorTimedOut => (Storage, Request, true),
        ErrorInternal | ErrorUnspecified => (Us, Request, true),
    };
    Meaning { actor, scope, retryable }
}

/// A request that was not carried out.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{code:?}: {detail}")]
pub struct RequestError {
    /// The wire code.
    pub code: ErrorCode,
    /// Names the culprit.
    pub detail: String,
    /// Milliseconds to wait before a retry; 0: none named.
    pub retry_after_ms: u32,
}

impl RequestError {
    /// An error that names its culprit.
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), retry_after_ms: 0 }
    }

    /// With the time to wait, in milliseconds.
    pub fn after_ms(mut self, retry_after_ms: u32) -> Self {
        self.retry_after_ms = retry_after_ms;
        self
    }

    /// The wire form.
    pub fn to_wire(&self) -> v1::Error {
        v1::Error {
            code: self.code as i32,
            detail: self.detail.clone(),
            retryable: meaning(self.code).retryable,
            retry_after_ms: self.retry_after_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_waiting_and_order_make_a_retry_help() {
        for code in (0..=60).filter_map(|code| ErrorCode::try_from(code).ok()) {
            let meaning = meaning(code);
            let waits = matches!(meaning.actor, Actor::Load | Actor::Storage | Actor::Us);
            assert_eq!(meaning.retryable, waits || code == ErrorCode::ErrorPredecessorMissing, "{code:?}");
            let fatal = matches!(meaning.actor, Actor::PeerProtocol | Actor::PeerProof);
            assert_eq!(meaning.scope == Scope::Connection, fatal, "{code:?}");
        }
    }
}

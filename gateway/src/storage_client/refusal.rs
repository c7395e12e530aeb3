//! Refusals of links and shards as the errors that clients and the HTTP side see.

use crate::worker::mailbox::StorageResult;
use wire_protocol::error::RequestError;
use wire_protocol::internal::{ShardError, ShardResponse, shard_error, shard_response};
use wire_protocol::link::LinkFull;
use wire_protocol::v1::ErrorCode;

/// Wait named when a queue to storage is full, in milliseconds: storage empties it in a few.
const FULL_RETRY_MS: u32 = 50;
/// Wait named when storage is away, in milliseconds: a link comes back in a second or two.
const AWAY_RETRY_MS: u32 = 500;

/// A link that is not open, or was lost with the request on it.
pub(super) fn away(detail: &str) -> RequestError {
    RequestError::new(ErrorCode::ErrorUnavailable, detail).after_ms(AWAY_RETRY_MS)
}

/// A link that does not take a request.
pub(super) fn refused(full: LinkFull) -> RequestError {
    match full {
        LinkFull::NotReady => away("storage is away"),
        LinkFull::Credits | LinkFull::Bytes => {
            RequestError::new(ErrorCode::ErrorOverloaded, full.to_string()).after_ms(FULL_RETRY_MS)
        }
        LinkFull::ItemTooLarge => RequestError::new(ErrorCode::ErrorInternal, full.to_string()),
    }
}

/// What a shard said, with its errors as errors.
pub(super) fn result(response: ShardResponse) -> StorageResult {
    match response.result {
        Some(shard_response::Result::Error(error)) => Err(shard_error(error)),
        Some(result) => Ok(result),
        None => Err(RequestError::new(ErrorCode::ErrorInternal, "storage answered nothing")),
    }
}

/// What a copy says that does not lead its shard. Nothing of the request was done there.
pub(super) fn not_leader(response: &ShardResponse) -> Option<&ShardError> {
    let Some(shard_response::Result::Error(error)) = &response.result else { return None };
    (error.kind() == shard_error::Kind::NotLeader).then_some(error)
}

pub(super) fn shard_error(error: ShardError) -> RequestError {
    use shard_error::Kind;
    let (code, retry_after_ms) = match error.kind() {
        // The shard is elsewhere or not ready: whoever asks again finds it, or waits for it.
        Kind::NotHere | Kind::Unavailable | Kind::NotLeader => (ErrorCode::ErrorUnavailable, AWAY_RETRY_MS),
        Kind::Overloaded => (ErrorCode::ErrorOverloaded, FULL_RETRY_MS),
        Kind::Malformed | Kind::Internal | Kind::Unspecified => (ErrorCode::ErrorInternal, 0),
    };
    let retry_after_ms = if error.retry_after_ms > 0 { error.retry_after_ms } else { retry_after_ms };
    RequestError::new(code, error.detail).after_ms(retry_after_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waiting_helps_is_retryable() {
        use shard_error::Kind;
        for (kind, code) in [
            (Kind::NotHere, ErrorCode::ErrorUnavailable),
            (Kind::Unavailable, ErrorCode::ErrorUnavailable),
            (Kind::Overloaded, ErrorCode::ErrorOverloaded),
            (Kind::Malformed, ErrorCode::ErrorInternal),
        ] {
            let error = ShardError { kind: kind as i32, ..Default::default() };
            let result = Some(shard_response::Result::Error(error));
            let error = super::result(ShardResponse { id: 1, result }).expect_err("an error");
            assert_eq!(error.code, code);
            assert!(error.to_wire().retryable);
        }
        assert!(super::result(ShardResponse { id: 1, result: None }).is_err());
    }

    #[test]
    fn a_wait_is_named_wherever_it_helps_and_the_shards_own_goes_first() {
        use shard_error::Kind;
        let wait_ms = |kind: Kind, retry_after_ms| {
            let error = ShardError { kind: kind as i32, retry_after_ms, ..Default::default() };
            let result = Some(shard_response::Result::Error(error));
            super::result(ShardResponse { id: 1, result }).expect_err("an error").retry_after_ms
        };
        for (kind, default_ms) in [
            (Kind::NotHere, AWAY_RETRY_MS),
            (Kind::Unavailable, AWAY_RETRY_MS),
            (Kind::Overloaded, FULL_RETRY_MS),
            (Kind::Internal, 0),
        ] {
            assert_eq!((wait_ms(kind, 0), wait_ms(kind, 77)), (default_ms, 77), "{kind:?}");
        }
        for (full, code, retry_after_ms) in [
            (LinkFull::NotReady, ErrorCode::ErrorUnavailable, AWAY_RETRY_MS),
            (LinkFull::Credits, ErrorCode::ErrorOverloaded, FULL_RETRY_MS),
            (LinkFull::Bytes, ErrorCode::ErrorOverloaded, FULL_RETRY_MS),
            (LinkFull::ItemTooLarge, ErrorCode::ErrorInternal, 0),
        ] {
            let error = refused(full);
            assert_eq!((error.code, error.retry_after_ms), (code, retry_after_ms));
        }
    }
}

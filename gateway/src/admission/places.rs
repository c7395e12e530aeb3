//! How many requests of one session may be under way.

use crate::session::Session;
use wire_protocol::error::RequestError;
use wire_protocol::limits::REQUESTS_IN_FLIGHT_MAX;
use wire_protocol::v1::ErrorCode;

/// Requests of one session that may read many rows at the same time: each may hold 32 pages of 40 KiB.
pub const HEAVY_REQUESTS_MAX: u8 = 8;
/// Requests of one session that wait for storage, cursors without answer included: those do not count among the
/// protocol's requests in flight, so they get as many places again.
pub const SESSION_REQUESTS_MAX: u16 = 2 * REQUESTS_IN_FLIGHT_MAX as u16;
/// Wait named to who is refused, in milliseconds: storage answers in a few.
const RETRY_MS: u32 = 50;

/// How much a request may cost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Weight {
    /// One storage call, or two.
    Light,
    /// Many.
    Heavy,
}

/// Takes the request into the session's counts, or says why not.
pub fn admit(session: &mut Session, weight: Weight) -> Result<(), RequestError> {
    let refuse = |what: &str| RequestError::new(ErrorCode::ErrorThrottled, what).after_ms(RETRY_MS);
    if session.requests >= SESSION_REQUESTS_MAX {
        return Err(refuse("requests: too many wait for storage"));
    }
    if weight == Weight::Heavy {
        if session.heavy_requests >= HEAVY_REQUESTS_MAX {
            return Err(refuse("requests: too many large ones at a time"));
        }
        session.heavy_requests += 1;
    }
    session.requests += 1;
    Ok(())
}

/// The request was answered or given up.
pub fn release(session: &mut Session, weight: Weight) {
    session.requests -= 1;
    if weight == Weight::Heavy {
        session.heavy_requests -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::front::ConnectionToken;
    use crate::session::SessionTable;

    #[test]
    fn a_session_has_bounded_places_and_gets_them_back() {
        let mut table = SessionTable::default();
        let token = ConnectionToken { slot: 0, generation: 0 };
        table.open(token, Default::default(), false, 0);
        let session = table.find(token).expect("open");
        for _ in 0..HEAVY_REQUESTS_MAX {
            admit(session, Weight::Heavy).expect("a place");
        }
        let error = admit(session, Weight::Heavy).expect_err("no place");
        assert!(error.to_wire().retryable && error.retry_after_ms > 0);
        assert_eq!(session.requests, u16::from(HEAVY_REQUESTS_MAX), "a refusal takes no place");
        while session.requests < SESSION_REQUESTS_MAX {
            admit(session, Weight::Light).expect("a place");
        }
        assert!(admit(session, Weight::Light).is_err());
        release(session, Weight::Heavy);
        admit(session, Weight::Heavy).expect("a place again");
        assert_eq!(session.requests, SESSION_REQUESTS_MAX);
    }
}

//! The first frame: version, features, heartbeat and proof, before anything is known of the peer.

use super::Proof;
use super::server::{Fatal, decode};
use crate::limits::{
    CLIENT_NAME_BYTES_MAX, FEATURES, HEARTBEAT_S_DEFAULT, HEARTBEAT_S_MAX, HEARTBEAT_S_MIN,
    HELLO_FRAME_BYTES_MAX, TOKEN_BYTES_MAX, VERSION_MAX, VERSION_MIN,
};
use crate::v1::session_closing::Reason;
use crate::v1::{ErrorCode, Hello, client_frame, hello};
use bytes::Bytes;
use std::ops::RangeInclusive;

/// What hello settled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Agreed {
    pub(super) request_id: u32,
    pub(super) version: u32,
    pub(super) features: u64,
    pub(super) heartbeat_s: u32,
}

/// Reads the first frame.
pub(super) fn read_hello(payload: Bytes) -> Result<(Agreed, Proof), Fatal> {
    let frame = decode(payload, HELLO_FRAME_BYTES_MAX)?;
    let Some(client_frame::Body::Hello(hello)) = frame.body else {
        return Err(Fatal::protocol(ErrorCode::ErrorHelloExpected, "the first frame must be hello"));
    };
    let refused = |detail: &str| Fatal::protocol(ErrorCode::ErrorMalformedFrame, format!("hello.{detail}"));
    if frame.request_id == 0 {
        return Err(refused("request_id: 0"));
    }
    let Some(version) = negotiate(VERSION_MIN..=VERSION_MAX, hello.version_min..=hello.version_max) else {
        let (min, max) = (hello.version_min, hello.version_max);
        let detail =
            format!("hello: versions {min} to {max}; {VERSION_MIN} to {VERSION_MAX} are spoken here");
        return Err(Fatal::protocol(ErrorCode::ErrorVersionUnsupported, detail));
    };
    if hello.client.len() > CLIENT_NAME_BYTES_MAX {
        return Err(refused(&format!(
            "client: {} bytes, {CLIENT_NAME_BYTES_MAX} allowed",
            hello.client.len()
        )));
    }
    let agreed = Agreed {
        request_id: frame.request_id,
        version,
        features: hello.features & FEATURES,
        heartbeat_s: heartbeat_s(hello.heartbeat_s),
    };
    Ok((agreed, read_proof(hello)?))
}

fn read_proof(hello: Hello) -> Result<Proof, Fatal> {
    let (proof, bytes) = match hello.proof {
        Some(hello::Proof::AccessToken(token)) => {
            let bytes = token.len();
            (Proof::AccessToken(token), bytes)
        }
        Some(hello::Proof::ResumeToken(token)) => {
            let bytes = token.len();
            (Proof::ResumeToken(token), bytes)
        }
        None => {
            return Err(Fatal::new(
                Reason::Unauthenticated,
                ErrorCode::ErrorUnauthenticated,
                "hello.proof: none",
            ));
        }
    };
    if bytes == 0 || bytes > TOKEN_BYTES_MAX {
        let detail = format!("hello.proof: {bytes} bytes, 1 to {TOKEN_BYTES_MAX} allowed");
        return Err(Fatal::new(Reason::Unauthenticated, ErrorCode::ErrorUnauthenticated, detail));
    }
    Ok(proof)
}

/// The highest version that both speak.
pub(crate) fn negotiate(ours: RangeInclusive<u32>, theirs: RangeInclusive<u32>) -> Option<u32> {
    let version = *ours.end().min(theirs.end());
    (ours.contains(&version) && theirs.contains(&version)).then_some(version)
}

/// The heartbeat in force for the one wished for, in seconds.
fn heartbeat_s(wished_s: u32) -> u32 {
    if wished_s == 0 { HEARTBEAT_S_DEFAULT } else { wished_s.clamp(HEARTBEAT_S_MIN, HEARTBEAT_S_MAX) }
}

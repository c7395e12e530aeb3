//! Both halves of a client's session, as state machines over whole frames.
//!
//! ```text
//! server:  Hello ──good hello──▶ Authenticating ──ready──▶ Open ──closing──▶ Closing
//!            └───────────────────────┴── refuse, fail, closing ─────────────────▲
//! client:  New ──hello──▶ HelloSent ──Ready──▶ Open ──SessionClosing──▶ Closed
//! ```
//!
//! They negotiate version and features, keep request ids unique and bounded, check every field of a request
//! that needs no state to be checked, translate session-local handles, and keep the heartbeat. They know
//! nothing of sockets, storage or who is a member of what. The gateway's `session/` drives the server half, the
//! client library the client half; each gives them one frame's payload at a time, from `frame` or `websocket`.
//!
//! Code above a half never sees a handle: conversations always go by `conversation_id`.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::indexing_slicing))]

pub mod server;
pub mod client;
mod hello;
pub(crate) use hello::negotiate;
mod requests;
mod mentions;
mod handles;

pub use client::{ClientEvent, ClientFault, ClientSession, RequestRefused};
pub use server::{Fatal, ReadyInfo, ServerInput, ServerSession};

use bytes::Bytes;
use std::fmt;

#[cfg(test)]
mod cost_tests;
#[cfg(test)]
mod fuzz_tests;
#[cfg(test)]
mod pair_tests;

/// What a client proves its identity with.
#[derive(Clone, PartialEq, Eq)]
pub enum Proof {
    /// A signed access token from register, log in or refresh.
    AccessToken(String),
    /// The token of an earlier Ready.
    ResumeToken(Bytes),
}

/// Without the token, which must not reach a log.
impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Proof::AccessToken(_) => "AccessToken(..)",
            Proof::ResumeToken(_) => "ResumeToken(..)",
        })
    }
}

//! Clients. Knows nothing of plans or checks; a lost connection is something for the workload to handle.
//!
//! [`connection`] is one client over one socket, for tests; [`rest`] the HTTP calls that give it an identity, and by
//! which `ranking` learns which gateways are whose.
//! [`engine`] holds tens of thousands of them in one thread, each speaking a [`protocol`], with an [`identity`] that
//! nobody had to register. [`null_server`] answers an engine without doing anything, to show what it can do.

pub mod connection;
pub mod rest;
pub mod identity;
pub mod protocol;
pub mod engine;
pub mod null_server;
pub mod service;
mod ranking;
pub mod load;

pub use connection::{Connection, Loopback, Route, Target, Trust};
pub use rest::Identity;

use std::io;
use wire_protocol::session::{ClientFault, RequestRefused};
use wire_protocol::v1;

/// Why an agent could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The connection could not be made, or broke.
    #[error("connection: {0}")]
    Connection(#[from] io::Error),
    /// The server broke the protocol.
    #[error("protocol: {0}")]
    Protocol(String),
    /// The server said it closes.
    #[error("closed by the server: {0:?}")]
    Closing(v1::SessionClosing),
    /// The request was refused.
    #[error("refused: {0:?}")]
    Refused(v1::Error),
    /// The request was not written.
    #[error("not sent: {0}")]
    NotSent(#[from] RequestRefused),
    /// Nothing came in time.
    #[error("nothing came within {0} ms")]
    TimedOut(u64),
    /// An HTTP call failed.
    #[error("http: {0}")]
    Http(String),
    /// An HTTP call was answered with a refusal.
    #[error("http status {status}: {answer}")]
    HttpRefused {
        /// HTTP's number.
        status: u16,
        /// What the server said.
        answer: String,
    },
    /// Nobody can be believed to be the server.
    #[error("certificates: {0}")]
    Trust(String),
}

impl From<ClientFault> for AgentError {
    fn from(fault: ClientFault) -> Self {
        Self::Protocol(fault.to_string())
    }
}

impl AgentError {
    /// Whether the same request may succeed later: the connection is gone, or the server says so.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Connection(_) | Self::TimedOut(_) => true,
            Self::Refused(error) => error.retryable,
            // RFC 9110 and 6585: it took too long, came too often, or the server is at fault.
            Self::HttpRefused { status, .. } => matches!(status, 408 | 429 | 500..),
            Self::Closing(closing) => closing.reason != v1::session_closing::Reason::ProtocolError as i32,
            _ => false,
        }
    }
}

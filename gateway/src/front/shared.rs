//! What all clients of a core use together.

use super::deadlines::Deadlines;
use super::event::{ConnectionToken, FrontEvent, FrontMetrics};
use crate::admission::addresses::AddressGate;
use crate::ring::SendBuffers;
use rustls::ServerConfig;
use std::sync::Arc;
use wire_protocol::limits::HELLO_TIMEOUT_MS;

/// Time for what is queued at a close to be sent, and for the client to close its side, in milliseconds.
const CLOSE_TIMEOUT_MS: u64 = 5_000;

/// Buffers, lists and counters of one core's front.
pub(super) struct Shared {
    pub tls: Option<Arc<ServerConfig>>,
    pub origins: Vec<String>,
    /// For each listener, whether it speaks TLS.
    pub secure_listeners: Vec<bool>,
    /// Connections by address.
    pub gate: AddressGate,
    pub buffers: SendBuffers,
    /// Plaintext of one receive; grows to a record at most.
    pub scratch: Vec<u8>,
    /// Clients with something to flush; each once.
    pub dirty: Vec<ConnectionToken>,
    /// Clients whose held bytes may be delivered.
    pub resumed: Vec<ConnectionToken>,
    /// Events that arose between two turns.
    pub pending: Vec<FrontEvent>,
    /// From accept to the first frame.
    pub hello_deadlines: Deadlines,
    /// From the start of a close to its end.
    pub close_deadlines: Deadlines,
    /// Connections, and what rings count, are filled in when asked for.
    pub metrics: FrontMetrics,
    /// Of the last turn.
    pub now_ms: u64,
    /// Counts turns, wrapping.
    pub turn: u32,
    /// Receives from newcomers in this turn.
    pub newcomers: u32,
    /// Accepted since this was last looked at.
    pub accepted: u32,
}

impl Shared {
    pub(super) fn new(
        tls: Option<Arc<ServerConfig>>,
        origins: Vec<String>,
        secure_listeners: Vec<bool>,
        gate: AddressGate,
    ) -> Self {
        Self {
            tls,
            origins,
            secure_listeners,
            gate,
            buffers: SendBuffers::default(),
            scratch: Vec::new(),
            dirty: Vec::new(),
            resumed: Vec::new(),
            pending: Vec::new(),
            hello_deadlines: Deadlines::new(HELLO_TIMEOUT_MS),
            close_deadlines: Deadlines::new(CLOSE_TIMEOUT_MS),
            metrics: FrontMetrics::default(),
            now_ms: 0,
            turn: 0,
            newcomers: 0,
            accepted: 0,
        }
    }
}

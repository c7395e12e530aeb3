//! What a front tells the loop above it, and how it is configured and counted.

use crate::admission::addresses::AddressLimits;
use crate::admission::rate::Rate;
use crate::transport::{FrameFault, TransportKind};
use bytes::Bytes;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

/// One connection for as long as it lives. A token of a connection that is gone never names a later one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ConnectionToken {
    /// Place in the core's table of connections.
    pub slot: u32,
    /// Grows each time the place is given to another connection.
    pub generation: u32,
}

/// What [`Front::turn`](super::Front::turn) hands to the loop. For each connection: one `Opened` or `Http`, then its
/// data, then one `Closed`. Connections that fail before that are counted in [`FrontMetrics`] and otherwise unseen.
#[derive(Debug)]
pub enum FrontEvent {
    /// A client that speaks frames has finished its handshakes.
    Opened {
        /// The connection.
        token: ConnectionToken,
        /// Its address.
        peer: SocketAddr,
        /// How it speaks.
        kind: TransportKind,
        /// Whether it came by TLS.
        secure: bool,
    },
    /// One frame payload.
    Frame {
        /// The connection.
        token: ConnectionToken,
        /// A `ClientFrame`, not yet decoded.
        payload: Bytes,
    },
    /// The client broke the framing. Nothing more is read from it; the caller may send one last frame and then calls
    /// [`Front::close`](super::Front::close). If it does not, the connection is closed after the close timeout.
    Malformed {
        /// The connection.
        token: ConnectionToken,
        /// What was wrong.
        fault: FrameFault,
    },
    /// An HTTP request other than the WebSocket upgrade. The connection carries HTTP from here on, in raw bytes.
    Http {
        /// The connection.
        token: ConnectionToken,
        /// Its address.
        peer: SocketAddr,
        /// Whether it came by TLS.
        secure: bool,
        /// Everything read so far, request head included, unchanged.
        first: Bytes,
    },
    /// More bytes of an HTTP connection.
    HttpBytes {
        /// The connection.
        token: ConnectionToken,
        /// As they came.
        bytes: Bytes,
    },
    /// The client of an HTTP connection sends nothing more; it may still read.
    HttpEof {
        /// The connection.
        token: ConnectionToken,
    },
    /// A connection whose outbox had refused bytes, or was more than half full, is below a quarter again.
    Drained {
        /// The connection.
        token: ConnectionToken,
    },
    /// The connection is gone: nothing can be sent any more. Comes once for each `Opened` or `Http`, also after
    /// [`Front::close`](super::Front::close).
    Closed {
        /// The connection.
        token: ConnectionToken,
        /// Who ended it.
        reason: CloseReason,
    },
}

/// Who ended a connection, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CloseReason {
    /// [`Front::close`](super::Front::close) was called and everything queued was sent, or
    /// [`Front::abort`](super::Front::abort) was.
    Ours,
    /// The client closed it.
    Peer,
    /// The socket failed, with this OS error code.
    Socket(i32),
    /// TLS failed after the handshake: a forged, oversized or otherwise impossible record.
    Tls,
    /// The client broke the framing and the caller did not close in time.
    Malformed,
    /// The first frame did not come within the hello timeout.
    HelloTimeout,
    /// The client did not read what was queued before the close within the close timeout.
    CloseTimeout,
    /// A paused connection sent more than is held for it.
    Flooded,
}

/// Why [`Front::send`](super::Front::send) took nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SendRefused {
    /// The outbox is at [`OUTBOX_BYTES_MAX`](wire_protocol::limits::OUTBOX_BYTES_MAX): tell the client to sync when
    /// [`FrontEvent::Drained`] comes.
    #[error("the outbox is full")]
    Full,
    /// The connection is gone or closing.
    #[error("the connection is gone")]
    Gone,
}

/// One address to listen on.
#[derive(Clone, Debug)]
pub struct ListenerConfig {
    /// Port 0 asks the system for one; see [`Front::local_addresses`](super::Front::local_addresses).
    pub address: SocketAddr,
    /// TLS, or plain text (loopback only).
    pub tls: bool,
}

/// What a front is made of.
#[derive(Clone, Debug)]
pub struct FrontConfig {
    /// Addresses, bound with `SO_REUSEPORT` by every core.
    pub listeners: Vec<ListenerConfig>,
    /// From [`crate::tls::server_config`]; needed if a listener asks for TLS.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Connections this core holds. A little below that it stops accepting, and starts again when one leaves.
    pub connections_max: usize,
    /// Connections one ring holds, lowered to what the limit on open files allows; there are as many rings as
    /// `connections_max` needs.
    pub ring_connections_max: usize,
    /// Origins, as browsers send them (`https://chat.example`), that may open a WebSocket beside the page's own host.
    pub websocket_origins: Vec<String>,
    /// Connections of one address.
    pub addresses: AddressLimits,
    /// How fast connections are accepted; `None`: as they come.
    pub accepts: Option<Rate>,
}

/// Why a front could not be made.
#[derive(Debug, thiserror::Error)]
pub enum FrontError {
    /// A listener asks for TLS and there is no TLS configuration.
    #[error("{0} is to speak TLS, but there is no certificate")]
    TlsMissing(SocketAddr),
    /// Plain text is for loopback only.
    #[error("{0} is to speak plain text, which is allowed on loopback only")]
    PlainNotLoopback(SocketAddr),
    /// The address could not be bound.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
    /// The ring could not be made.
    #[error("cannot make an io_uring: {0}")]
    Ring(#[from] io::Error),
    /// No connections were asked for, not one beside an accept in flight for each listener, or more than there can be.
    #[error("connections_max: {0} for each core is not possible here: more than listeners are needed")]
    ConnectionsMax(usize),
}

/// Counters of one front since it was made, and two gauges.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct FrontMetrics {
    /// Sockets accepted.
    pub accepted: u64,
    /// Times the system refused to accept.
    pub accept_failures: u64,
    /// Connections refused because their address has as many as it may.
    pub refused_too_many: u64,
    /// Connections refused because their address opens them too quickly.
    pub refused_too_fast: u64,
    /// Times accepting was paused because every place was taken.
    pub accepts_paused: u64,
    /// Times accepting was paused because newcomers came faster than they may.
    pub accepts_slowed: u64,
    /// TLS handshakes finished without a ticket.
    pub handshakes_full: u64,
    /// TLS handshakes finished by a ticket.
    pub handshakes_resumed: u64,
    /// TLS handshakes that failed.
    pub handshakes_failed: u64,
    /// Connections closed because the first frame did not come in time.
    pub hello_timeouts: u64,
    /// Requests refused before they were anyone's: WebSocket upgrades for any reason, and heads that do not end.
    pub upgrades_refused: u64,
    /// Frame payloads received.
    pub frames_received: u64,
    /// Frame payloads queued.
    pub frames_sent: u64,
    /// Bytes from sockets.
    pub bytes_received: u64,
    /// Bytes to sockets.
    pub bytes_sent: u64,
    /// Sends the kernel took only a part of.
    pub short_sends: u64,
    /// Times a receive found no buffer.
    pub receive_buffers_exhausted: u64,
    /// Sends refused because an outbox was full.
    pub outboxes_full: u64,
    /// Times reading from a client was stopped because its outbox filled.
    pub reads_paused: u64,
    /// Connections open now, those in handshakes included.
    pub connections: u64,
    /// Bytes queued in all outboxes now.
    pub queued_bytes: u64,
}

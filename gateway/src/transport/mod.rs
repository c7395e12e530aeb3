//! Plaintext to frames and back: what one connection says, without its socket.
//!
//! [`Connection`] joins TLS, the choice of protocol and the outbox. Bytes from the socket go in with
//! [`Connection::receive`], [`TransportEvent`]s come out, and [`Connection::next_send`] gives what wants to leave.
//! It owns no socket and no clock; `front/` drives it. Protocols: native frames, WebSocket with one frame payload a
//! message, and other HTTP, whose bytes are passed on unchanged.
//!
//! ```text
//! (TLS handshake) -> Opening: ALPN, or the first bytes -> Native
//!                                                      -> head -> WebSocket, or Http
//! ```

mod connection;
mod opening;

pub use connection::{Connection, Ending, TransportEvent};

/// How a client speaks, once that is known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TransportKind {
    /// Length-prefixed frames.
    Native,
    /// One frame payload in each binary message.
    WebSocket {
        /// The `Origin` header, which has passed the check; browsers always send one.
        origin: Option<String>,
    },
}

/// What a client did to the framing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameFault {
    /// A frame longer than allowed at this point.
    TooLarge,
    /// A length that is no length, or a WebSocket frame against RFC 6455.
    Malformed,
    /// A WebSocket text message; only binary ones are spoken here.
    Text,
}

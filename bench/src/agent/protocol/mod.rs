//! What the engine knows of a wire protocol: one client's half of one connection, as a state machine.
//!
//! ```text
//! opened -> (bytes in, bytes out)* -> Ready -> requests, messages, timeouts -> Closing or the socket's end
//! ```
//!
//! A protocol turns bytes into [`ProtocolEvent`]s and [`Request`]s into bytes. It refuses to know of sockets, TLS,
//! plans and clocks: the time is given. The engine (`agent/engine/`) calls it; the workload (`workload/`) decides
//! what is asked and what an answer means. Ringline's own is [`ringline`]; those of the peers are in `peers/`.

pub mod names;
pub mod targets;
pub mod ringline;

pub use targets::TargetIndex;

use crate::workload::population::RoomIndex;
use bytes::{Bytes, BytesMut};

/// Names one operation of the workload; comes back with its answer. A device has few of them at a time.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Token(pub u64);

/// What a device asks of its server.
#[derive(Clone, PartialEq, Debug)]
pub enum Request {
    /// Makes sure the room exists and has its members. Answered by [`ProtocolEvent::Done`].
    Open(RoomIndex),
    /// Sends one message. Answered by [`ProtocolEvent::Accepted`]: when the server has promised to keep it, in the
    /// strongest way this protocol knows.
    Send {
        /// Where to.
        room: RoomIndex,
        /// The same for each repeat of the message, never 0.
        message: u64,
        /// The device's message before it in the room, while that has no answer: a server that keeps to it does not
        /// take this one without that one. For protocols that can say so.
        predecessor: Option<u64>,
        /// What to send: opaque, not empty.
        body: Bytes,
    },
    /// Everything that this device has not got yet, as [`ProtocolEvent::Message`]s, then [`ProtocolEvent::CaughtUp`].
    CatchUp {
        /// Where the device stands: everything up to these numbers is here. Rooms of its own that are not named are
        /// up to the protocol.
        from: Vec<(RoomIndex, u64)>,
        /// How many messages the workload knows to be missing: for protocols that do not tell when they are through.
        expected: u64,
    },
    /// The room's newest messages as [`ProtocolEvent::Page`]: those below `before`, if given.
    History {
        /// Which room.
        room: RoomIndex,
        /// Exclusive upper bound; `None`: the newest ones.
        before: Option<u64>,
        /// At most as many; the protocol may give fewer.
        limit: u32,
    },
    /// This device has stored everything up to here. Answered by [`ProtocolEvent::Done`].
    Delivered {
        /// Which room.
        room: RoomIndex,
        /// Up to where.
        seq: u64,
    },
    /// A person has read up to here. Answered by [`ProtocolEvent::Done`].
    Read {
        /// Which room.
        room: RoomIndex,
        /// Up to where.
        seq: u64,
    },
}

/// One message as a device gets it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// Where it was sent.
    pub room: RoomIndex,
    /// Its place in the room, where the protocol has such a number.
    pub seq: Option<u64>,
    /// As it was sent.
    pub body: Bytes,
}

/// What bytes of the server meant.
#[derive(Clone, PartialEq, Debug)]
pub enum ProtocolEvent {
    /// Requests may be made.
    Ready,
    /// The request was carried out and has nothing more to tell.
    Done(Token),
    /// The message is kept.
    Accepted {
        /// Whose answer.
        token: Token,
        /// Its place in the room, where the protocol has such a number.
        seq: Option<u64>,
    },
    /// The message was not taken, since the one before it that it named was not: both are to be sent again, in order.
    PredecessorMissing(Token),
    /// A message came: live, or because the device catches up.
    Message(Message),
    /// Everything missed has come.
    CaughtUp(Token),
    /// Answer to [`Request::History`], ascending. Empty: there is nothing below.
    Page {
        /// Whose answer.
        token: Token,
        /// The messages.
        messages: Vec<Message>,
    },
    /// Live messages were dropped: the device should catch up.
    SyncNeeded,
    /// The request was refused.
    Refused {
        /// Whose answer; `None`: it belongs to no request.
        token: Option<Token>,
        /// The protocol's own name of the reason: a key in tables of errors.
        code: String,
        /// Whether the same request may succeed later.
        retryable: bool,
        /// How long to wait before, in milliseconds.
        retry_after_ms: u32,
    },
    /// The server closes; the socket's end follows.
    Closing {
        /// The protocol's own name of the reason.
        code: String,
        /// How long to wait before coming back, in milliseconds.
        retry_after_ms: u32,
        /// Where to go instead, best first; empty: where the device came in.
        go_to: Vec<TargetIndex>,
    },
}

/// The server broke the protocol, or is silent: the connection is of no use.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct ProtocolFault(pub String);

/// Why a request was not written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotSent {
    /// Not ready, or closing.
    #[error("not ready")]
    NotReady,
    /// As many requests as the protocol allows wait for their answers; later it may go.
    #[error("too many requests in flight")]
    Full,
    /// The protocol has no such request.
    #[error("this protocol cannot do that")]
    Unsupported,
}

/// One client's half of one connection. `now_us` never falls; its zero is the agent's start.
pub trait ClientProtocol: Send {
    /// The way to the server is open (TLS included): the first bytes go out.
    fn opened(&mut self, now_us: u64, out: &mut BytesMut);

    /// Takes bytes of the server, in any pieces. After a fault nothing more is given.
    fn received(
        &mut self,
        now_us: u64,
        bytes: &[u8],
        out: &mut BytesMut,
        events: &mut Vec<ProtocolEvent>,
    ) -> Result<(), ProtocolFault>;

    /// Writes a request.
    fn request(
        &mut self,
        now_us: u64,
        token: Token,
        request: &Request,
        out: &mut BytesMut,
    ) -> Result<(), NotSent>;

    /// When [`Self::handle_timeout`] wants to be called, in microseconds; `None`: no time is awaited.
    fn poll_timeout(&self) -> Option<u64>;

    /// Heartbeats; a fault if the server has been silent too long.
    fn handle_timeout(&mut self, now_us: u64, out: &mut BytesMut) -> Result<(), ProtocolFault>;

    /// What is to be kept for the next connection of the same device (a resume token, a stored position); taken
    /// when the connection has ended.
    fn into_memory(self: Box<Self>) -> DeviceMemory;
}

/// What a device keeps between two connections; only the protocol that wrote it reads it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DeviceMemory(pub Bytes);

//! One client of a front: its connection, and where it is in its life.

use super::event::{CloseReason, ConnectionToken, FrontEvent};
use super::shared::Shared;
use crate::admission::addresses::AddressKey;
use crate::tls::Handshake;
use crate::transport::{Connection, Ending, TransportEvent};
use std::net::SocketAddr;

/// Bytes taken from one client in one turn, about. Less than half an outbox, so that answers as large as their
/// requests find room before reading stops.
const BYTES_A_TURN: u32 = 64 * 1024;

/// What a frame counts as, in bytes of [`BYTES_A_TURN`], beside its own: 64 frames a turn at most. A request costs some
/// microseconds, however small it is; 64 KiB of the smallest would keep everybody else waiting for 25 ms.
const FRAME_COST_BYTES: u32 = 1024;

/// Receives from newcomers in one turn, at most; the others wait for the next. A handshake takes 0.2 ms of CPU:
/// when everybody comes at once, those who are there already wait for 16 of them, not for all.
const NEWCOMERS_A_TURN: u32 = 16;

/// Where a client is in its life.
///
/// ```text
/// Open --close--> Closing --everything sent--> Lingering --client's end, or deadline--> gone
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// Frames go both ways, or its handshakes do.
    Open,
    /// What is queued is being sent; what comes is dropped.
    Closing(CloseReason),
    /// Our side is shut. Closing now would answer the client's last bytes with a reset, which may destroy ours on
    /// their way.
    Lingering(CloseReason),
}

/// One client. Small while idle: everything of size is boxed and freed.
pub(super) struct Client {
    pub connection: Connection,
    pub phase: Phase,
    /// What it is counted under while it is open.
    pub address: AddressKey,
    /// Its address, until the caller knows it.
    pub newcomer: Option<Box<SocketAddr>>,
    /// What arrived while reading was paused.
    pub held: Option<Box<Held>>,
    /// The caller knows of it and has not been told that it is gone.
    pub told: bool,
    /// It has sent a frame or a request: no hello deadline any more.
    pub settled: bool,
    /// It broke the framing; the caller is to close.
    pub malformed: bool,
    /// The socket has no more to read.
    pub ended: bool,
    pub paused_by_caller: bool,
    pub paused_by_outbox: bool,
    /// A `Drained` is owed.
    pub drain_owed: bool,
    /// It stands in the list of those to flush.
    pub dirty: bool,
    /// What it adds to the count of all queued bytes.
    pub counted_bytes: u32,
    /// The last turn in which it was received from.
    turn: u32,
    /// Bytes from the socket in that turn, and the cost of its frames.
    turn_bytes: u32,
}

/// Bytes that arrived while reading was paused, as they came from the socket.
#[derive(Default)]
pub(super) struct Held {
    pub bytes: Vec<u8>,
    /// After them comes the end.
    pub ended: bool,
}

impl Client {
    pub(super) fn new(connection: Connection, peer: SocketAddr) -> Self {
        Self {
            connection,
            phase: Phase::Open,
            address: peer.ip().into(),
            newcomer: Some(Box::new(peer)),
            held: None,
            told: false,
            settled: false,
            malformed: false,
            ended: false,
            paused_by_caller: false,
            paused_by_outbox: false,
            drain_owed: false,
            dirty: false,
            counted_bytes: 0,
            turn: 0,
            turn_bytes: 0,
        }
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused_by_caller || self.paused_by_outbox
    }

    /// Whether it has had its share of this turn: what more came waits for the next one.
    pub(super) fn is_sated(&self, shared: &Shared) -> bool {
        let crowded = self.newcomer.is_some() && shared.newcomers >= NEWCOMERS_A_TURN;
        crowded || (self.turn == shared.turn && self.turn_bytes >= BYTES_A_TURN)
    }

    /// Whether the hello deadline still concerns it.
    pub(super) fn awaits_hello(&self) -> bool {
        !self.settled && self.phase == Phase::Open
    }

    /// Whether the close deadline concerns it.
    pub(super) fn awaits_close(&self) -> bool {
        self.malformed || self.phase != Phase::Open
    }

    /// Hands received bytes to the connection and what comes of it to the caller. None, while the connection is
    /// unfinished: more of what came before.
    pub(super) fn receive(
        &mut self,
        token: ConnectionToken,
        bytes: &mut [u8],
        shared: &mut Shared,
        events: &mut Vec<FrontEvent>,
    ) -> Result<(), Ending> {
        let before = if self.turn == shared.turn { self.turn_bytes } else { 0 };
        let frames_max = BYTES_A_TURN.saturating_sub(before).div_ceil(FRAME_COST_BYTES);
        (self.turn, self.turn_bytes) = (shared.turn, before.saturating_add(bytes.len() as u32));
        shared.newcomers += u32::from(self.newcomer.is_some());
        let Self { connection, newcomer, told, settled, turn_bytes, .. } = self;
        let Shared { scratch, origins, metrics, .. } = shared;
        let secure = connection.is_secure();
        connection.receive(bytes, scratch, origins, frames_max, &mut |event| {
            events.push(match event {
                TransportEvent::Secured(handshake) => {
                    match handshake {
                        Handshake::Full => metrics.handshakes_full += 1,
                        Handshake::Resumed => metrics.handshakes_resumed += 1,
                    }
                    return;
                }
                TransportEvent::Frame(payload) => {
                    *settled = true;
                    *turn_bytes += FRAME_COST_BYTES;
                    metrics.frames_received += 1;
                    FrontEvent::Frame { token, payload }
                }
                TransportEvent::Opened(kind) => {
                    *told = true;
                    FrontEvent::Opened { token, peer: introduce(newcomer), kind, secure }
                }
                TransportEvent::Http(first) => {
                    (*told, *settled) = (true, true);
                    FrontEvent::Http { token, peer: introduce(newcomer), secure, first }
                }
                TransportEvent::HttpBytes(bytes) => FrontEvent::HttpBytes { token, bytes },
                TransportEvent::HttpEnd => FrontEvent::HttpEof { token },
            });
        })
    }

    /// The socket has no more.
    pub(super) fn receive_end(
        &mut self,
        token: ConnectionToken,
        events: &mut Vec<FrontEvent>,
    ) -> Result<(), Ending> {
        self.ended = true;
        self.connection.receive_end(&mut |event| {
            if let TransportEvent::HttpEnd = event {
                events.push(FrontEvent::HttpEof { token });
            }
        })
    }
}

fn introduce(newcomer: &mut Option<Box<SocketAddr>>) -> SocketAddr {
    *newcomer.take().expect("a client is introduced once")
}

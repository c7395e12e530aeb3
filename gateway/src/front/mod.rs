//! The front of one core: its client connections, from accepted sockets to frames and back.
//!
//! [`Front`] joins the rooms below it: [`crate::ring`] moves bytes, [`crate::listen`] takes connections in,
//! [`crate::tls`] and [`crate::transport`] turn bytes into frames. Above it stands the worker's loop, which calls
//! [`Front::turn`], hands the events to sessions, queues what they answer with [`Front::send`], and ends its turn with
//! [`Front::flush`]. The front knows no session, no user and no clock.

mod client;
mod clients;
mod deadlines;
mod event;
mod lane;
mod shared;
#[cfg(feature = "sim")]
pub(crate) mod simulated;
#[cfg(test)]
mod tests;

pub use crate::transport::{FrameFault, TransportKind};
pub use clients::Clients;
pub use event::{
    CloseReason, ConnectionToken, FrontConfig, FrontError, FrontEvent, FrontMetrics, ListenerConfig,
    SendRefused,
};

use crate::admission::addresses::AddressGate;
use crate::admission::doors::AcceptPace;
use crate::listen;
use crate::ring::{ClientRing, RingConfig, open_files_max};
use bytes::Bytes;
use client::Client;
use lane::{Lane, RECEIVE_BUFFER_BYTES, RECEIVE_BUFFERS};
use monoio::net::UnixStream;
use shared::Shared;
use std::cell::OnceCell;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

/// Accepts in flight for each listener, so many connections a submission and twice as many a turn at most: taking
/// one in and refusing it costs some 50 µs, and when thousands come at once those who are there already wait for these.
const ACCEPTS_MAX: usize = 8;
/// Of a small table, all listeners' accepts together take one place in this many.
const ACCEPTS_SHARE: usize = 8;
/// Pause after the system refused to accept, in milliseconds.
const ACCEPT_RETRY_MS: u64 = 100;
/// Rounds of sending in one flush: four of 64 KiB empty a full outbox.
const FLUSH_ROUNDS_MAX: usize = 4;
/// Places of all lanes together, at most; keeps slot numbers far within 32 bits.
const CONNECTIONS_MAX: usize = 1 << 24;

/// All client connections of one core. Belongs to the thread that made it.
pub struct Front {
    lanes: Vec<Lane>,
    /// Places of each lane.
    lane_slots: u32,
    shared: Shared,
    local_addresses: Vec<SocketAddr>,
    /// The lane whose ring accepts.
    accepting: Option<usize>,
    stopped: bool,
    accept_retry_ms: Option<u64>,
    pace: AcceptPace,
    /// The pace allows to accept.
    is_open: bool,
    /// The rings' descriptors as the runtime knows them, made when first waited for.
    watched: OnceCell<Vec<UnixStream>>,
}

impl Front {
    /// Binds the listeners and starts accepting.
    pub fn new(config: FrontConfig) -> Result<Front, FrontError> {
        let files_max = usize::try_from(open_files_max()).unwrap_or(usize::MAX);
        let ring_max = config.ring_connections_max.min(files_max);
        let rings = config.connections_max.div_ceil(ring_max.max(1));
        let lane_slots = config.connections_max.div_ceil(rings.max(1));
        // Room for a connection beside an accept in flight for each listener.
        if lane_slots <= config.listeners.len() || config.connections_max > CONNECTIONS_MAX {
            return Err(FrontError::ConnectionsMax(config.connections_max));
        }
        let mut listeners = Vec::with_capacity(config.listeners.len());
        let mut local_addresses = Vec::with_capacity(config.listeners.len());
        for ListenerConfig { address, tls } in config.listeners.iter().cloned() {
            if tls && config.tls.is_none() {
                return Err(FrontError::TlsMissing(address));
            }
            if !tls && !address.ip().is_loopback() {
                return Err(FrontError::PlainNotLoopback(address));
            }
            let failed = |source| FrontError::Listen { address, source };
            let listener = listen::bind(address).map_err(failed)?;
            local_addresses.push(listener.local_addr().map_err(failed)?);
            listeners.push(Rc::new(listener));
        }
        let accepts = (lane_slots / ACCEPTS_SHARE / listeners.len().max(1)).clamp(1, ACCEPTS_MAX);
        let ring_config = RingConfig {
            connections_max: lane_slots as u32,
            accepts: accepts as u32,
            receive_buffers: RECEIVE_BUFFERS,
            receive_buffer_bytes: RECEIVE_BUFFER_BYTES,
        };
        let lanes = (0..rings)
            .map(|ring| {
                let first_slot = (ring * lane_slots) as u32;
                let ring = ClientRing::new(ring_config, listeners.clone())?;
                Ok(Lane::new(ring, first_slot, lane_slots as u32))
            })
            .collect::<io::Result<Vec<_>>>()?;
        let secure_listeners = config.listeners.iter().map(|listener| listener.tls).collect();
        let mut front = Front {
            lanes,
            lane_slots: lane_slots as u32,
            shared: Shared::new(
                config.tls,
                config.websocket_origins,
                secure_listeners,
                AddressGate::new(config.addresses),
            ),
            local_addresses,
            accepting: None,
            stopped: false,
            accept_retry_ms: None,
            pace: AcceptPace::new(config.accepts),
            is_open: true,
            watched: OnceCell::new(),
        };
        front.steer_accept();
        front.submit();
        Ok(front)
    }

    /// Takes what the rings have, at most 64 completions each and round, and appends what came of it to `events`.
    pub fn turn(&mut self, now_ms: u64, events: &mut Vec<FrontEvent>) {
        self.shared.now_ms = now_ms;
        self.shared.turn = self.shared.turn.wrapping_add(1);
        self.shared.newcomers = 0;
        events.append(&mut self.shared.pending);
        self.meet_deadlines(now_ms, events);
        for token in std::mem::take(&mut self.shared.resumed) {
            self.with_lane(token, |lane, shared| lane.deliver_held(token, shared, events));
        }
        // Twice: what the first round asked of the kernel is often done when it is submitted.
        for _ in 0..2 {
            for lane in &mut self.lanes {
                lane.turn(&mut self.shared, events);
            }
            self.steer_accept();
            self.submit();
        }
    }

    /// Queues one frame payload, framed as the client's transport wants it. Nothing leaves before [`Self::flush`].
    pub fn send(&mut self, token: ConnectionToken, payload: &[u8]) -> Result<(), SendRefused> {
        let queued = self
            .with_lane(token, |lane, shared| {
                lane.queue(token, shared, |connection| connection.queue_frame(payload))
            })
            .unwrap_or(Err(SendRefused::Gone));
        self.shared.metrics.frames_sent += u64::from(queued.is_ok());
        queued
    }

    /// Queues raw bytes on an HTTP connection: all of them, or none.
    pub fn send_raw(&mut self, token: ConnectionToken, bytes: Bytes) -> Result<(), SendRefused> {
        self.with_lane(token, |lane, shared| {
            lane.queue(token, shared, |connection| connection.queue_raw(&bytes))
        })
        .unwrap_or(Err(SendRefused::Gone))
    }

    /// Closes after what is queued has been sent: WebSocket close frame, close_notify, shut down. `Closed` follows
    /// when that is done, or after the close timeout.
    pub fn close(&mut self, token: ConnectionToken) {
        self.with_lane_and_events(token, |lane, shared, events| {
            lane.close(token, CloseReason::Ours, shared, events);
        });
    }

    /// Closes now: what is queued is lost. `Closed` follows.
    pub fn abort(&mut self, token: ConnectionToken) {
        self.with_lane_and_events(token, |lane, shared, events| {
            lane.remove(token, CloseReason::Ours, shared, events);
        });
    }

    /// Stops reading from the connection, so that the client's own sends come to a halt. Events already handed out
    /// stay; what the kernel had received is held (bounded) and comes after [`Self::resume`]. False: it is gone, or
    /// paused already.
    pub fn pause(&mut self, token: ConnectionToken) -> bool {
        self.with_lane(token, |lane, _| lane.pause(token)).unwrap_or(false)
    }

    /// Reads on.
    pub fn resume(&mut self, token: ConnectionToken) {
        self.with_lane(token, |lane, shared| lane.resume(token, shared));
    }

    /// Largest frame payload taken from this client from now on, in bytes;
    /// [`HELLO_FRAME_BYTES_MAX`](wire_protocol::limits::HELLO_FRAME_BYTES_MAX) until called.
    pub fn set_frame_bytes_max(&mut self, token: ConnectionToken, frame_bytes_max: usize) {
        self.with_lane(token, |lane, _| {
            if let Some(client) = lane.client_mut(token) {
                client.connection.set_frame_bytes_max(frame_bytes_max);
            }
        });
    }

    /// Bytes queued on the connection and not yet taken by the kernel; 0 if it is gone.
    pub fn queued_bytes(&self, token: ConnectionToken) -> usize {
        self.client(token).map_or(0, |client| client.connection.queued_bytes())
    }

    /// Encrypts what was queued into as few records as it fits and hands it to the kernel. Called once a turn, last.
    pub fn flush(&mut self, now_ms: u64) {
        self.shared.now_ms = now_ms;
        for _ in 0..FLUSH_ROUNDS_MAX {
            for token in std::mem::take(&mut self.shared.dirty) {
                self.with_lane_and_events(token, |lane, shared, events| lane.pump(token, shared, events));
            }
            self.submit();
            let mut events = std::mem::take(&mut self.shared.pending);
            for lane in &mut self.lanes {
                lane.take_sent(&mut self.shared, &mut events);
            }
            self.shared.pending = events;
            if self.shared.dirty.is_empty() {
                break;
            }
        }
        // Closes that were finished here may have made room.
        self.steer_accept();
        self.submit();
        self.prune_deadlines();
    }

    /// Whether there is work that no descriptor tells of: the loop goes round again before it waits.
    pub fn has_more(&self) -> bool {
        let Shared { pending, resumed, dirty, .. } = &self.shared;
        let listed = !pending.is_empty() || !resumed.is_empty() || !dirty.is_empty();
        listed || self.lanes.iter().any(|lane| lane.ring.has_more())
    }

    /// The rings' descriptors: readable when [`Self::turn`] has something to do. Always the same ones.
    pub fn ring_fds(&self) -> Vec<BorrowedFd<'_>> {
        self.lanes.iter().map(|lane| lane.ring.descriptor()).collect()
    }

    /// Waits, inside a monoio runtime, until [`Self::turn`] has something to do. May be dropped at any time.
    pub async fn readable(&self) -> io::Result<()> {
        if self.has_more() {
            return Ok(());
        }
        if self.watched.get().is_none() {
            let watch = |fd: BorrowedFd<'_>| {
                UnixStream::from_std(std::os::unix::net::UnixStream::from(fd.try_clone_to_owned()?))
            };
            let streams = self.ring_fds().into_iter().map(watch).collect::<io::Result<Vec<_>>>()?;
            let _ = self.watched.set(streams);
        }
        let streams = self.watched.get().map(Vec::as_slice).unwrap_or_default();
        if let [stream] = streams {
            return stream.readable(false).await;
        }
        let mut waits: Vec<Pin<Box<dyn Future<Output = io::Result<()>> + '_>>> =
            streams.iter().map(|stream| Box::pin(stream.readable(false)) as _).collect();
        std::future::poll_fn(|context| {
            let ready = waits.iter_mut().find_map(|wait| match wait.as_mut().poll(context) {
                Poll::Ready(result) => Some(result),
                Poll::Pending => None,
            });
            ready.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// When [`Self::turn`] must be called even if nothing happens; 0 for at once.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        if self.has_more() {
            return Some(0);
        }
        let Shared { hello_deadlines, close_deadlines, now_ms, .. } = &self.shared;
        let opens_ms = self.pace.closed_until_ms(*now_ms);
        [hello_deadlines.next_ms(), close_deadlines.next_ms(), self.accept_retry_ms, opens_ms]
            .into_iter()
            .flatten()
            .min()
    }

    /// Stops accepting for good. Connections that are open stay.
    pub fn stop_accepting(&mut self) {
        self.stopped = true;
        self.steer_accept();
        self.submit();
    }

    /// The addresses really bound, in the order of [`FrontConfig::listeners`].
    pub fn local_addresses(&self) -> &[SocketAddr] {
        &self.local_addresses
    }

    /// Connections open now, those in handshakes included.
    pub fn connection_count(&self) -> usize {
        self.lanes.iter().map(|lane| lane.connections() as usize).sum()
    }

    /// Counters.
    pub fn metrics(&self) -> FrontMetrics {
        let mut metrics = self.shared.metrics;
        metrics.connections = self.connection_count() as u64;
        for lane in &self.lanes {
            let counters = lane.ring.counters();
            metrics.accepted += counters.accepted;
            metrics.accept_failures += counters.accept_failures;
            metrics.bytes_received += counters.bytes_received;
            metrics.bytes_sent += counters.bytes_sent;
            metrics.short_sends += counters.short_sends;
            metrics.receive_buffers_exhausted += counters.receive_buffers_exhausted;
        }
        metrics
    }

    fn client(&self, token: ConnectionToken) -> Option<&Client> {
        self.lanes.get((token.slot / self.lane_slots) as usize)?.client(token)
    }

    fn with_lane<T>(
        &mut self,
        token: ConnectionToken,
        act: impl FnOnce(&mut Lane, &mut Shared) -> T,
    ) -> Option<T> {
        let lane = self.lanes.get_mut((token.slot / self.lane_slots) as usize)?;
        Some(act(lane, &mut self.shared))
    }

    /// Events wait for the next turn.
    fn with_lane_and_events(
        &mut self,
        token: ConnectionToken,
        act: impl FnOnce(&mut Lane, &mut Shared, &mut Vec<FrontEvent>),
    ) {
        let mut events = std::mem::take(&mut self.shared.pending);
        self.with_lane(token, |lane, shared| act(lane, shared, &mut events));
        self.shared.pending = events;
    }

    fn meet_deadlines(&mut self, now_ms: u64, events: &mut Vec<FrontEvent>) {
        while let Some(token) = self.shared.hello_deadlines.poll(now_ms) {
            self.with_lane(token, |lane, shared| lane.hello_due(token, shared, events));
        }
        while let Some(token) = self.shared.close_deadlines.poll(now_ms) {
            self.with_lane(token, |lane, shared| lane.close_due(token, shared, events));
        }
        if self.accept_retry_ms.is_some_and(|retry_ms| retry_ms <= now_ms) {
            self.accept_retry_ms = None;
            self.lanes.iter_mut().for_each(|lane| lane.ring.retry_accept());
        }
    }

    fn prune_deadlines(&mut self) {
        let Self { lanes, lane_slots, shared, .. } = self;
        let client = |token: ConnectionToken| lanes.get((token.slot / *lane_slots) as usize)?.client(token);
        shared.hello_deadlines.prune(|token| client(token).is_some_and(Client::awaits_hello));
        shared.close_deadlines.prune(|token| client(token).is_some_and(Client::awaits_close));
    }

    /// Lets one ring accept, the next one when it is full, and none when all are.
    fn steer_accept(&mut self) {
        let now_ms = self.shared.now_ms;
        self.pace.handle_accepted(std::mem::take(&mut self.shared.accepted), now_ms);
        let was_open = std::mem::replace(&mut self.is_open, self.pace.closed_until_ms(now_ms).is_none());
        self.shared.metrics.accepts_slowed += u64::from(was_open && !self.is_open);
        let has_room = |lane: usize| self.lanes[lane].ring.has_room();
        let accepting = match self.stopped || !self.is_open {
            true => None,
            false => listen::accepting_ring(self.accepting, has_room, self.lanes.len()),
        };
        if accepting != self.accepting {
            if let Some(lane) = self.accepting {
                self.lanes[lane].ring.stop_accepting();
                // Before another one waits: a connection wakes one that waits, and must not wake one that gives up.
                self.lanes[lane].ring.submit();
                self.shared.metrics.accepts_paused +=
                    u64::from(accepting.is_none() && !self.stopped && self.is_open);
            }
            if let Some(lane) = accepting {
                self.lanes[lane].ring.start_accepting();
            }
            self.accepting = accepting;
        }
        if self.accept_retry_ms.is_none() && self.lanes.iter().any(|lane| lane.ring.accept_stalled()) {
            self.accept_retry_ms = Some(self.shared.now_ms + ACCEPT_RETRY_MS);
        }
    }

    fn submit(&mut self) {
        self.lanes.iter_mut().for_each(|lane| lane.ring.submit());
    }
}

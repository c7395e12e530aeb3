//! The loop of one core: it drives everything else, and decides nothing.
//!
//! ```text
//! turn:  front ─frames─> sessions ─requests─> domain ─calls─> storage
//!        front <─answers, events─ sessions <─answers, deliveries─ storage
//!        flush, then sleep until a ring, a wake or a time
//! ```
//!
//! Every turn does bounded work. There is no task and no future for a connection or a request: connections are
//! places in the front's slab, requests that wait are places in [`pending`]. Other threads reach the loop through
//! its [`mailbox`] alone.

pub mod mailbox;
pub mod wake;
pub mod pending;
pub mod wait;
pub mod pace;
pub mod start;
mod connections;
mod requests;
mod answers;
mod attach;
mod http_pipes;
mod hush;
mod leaving;
mod numbers;
#[cfg(feature = "sim")]
pub mod sim;
#[cfg(test)]
mod tests;

use crate::admission::doors::Doorway;
use crate::admission::rate::Rate;
use crate::admission::requests::{RequestLimits, RequestRates};
use crate::clock::{Clock, moment, pause};
use crate::domain::Calls;
use crate::domain::auth::Verifier;
use crate::failpoint::{self, Failpoint};
use crate::front::{Clients, FrontEvent};
use crate::http::HttpIngress;
use crate::observe::{CoreObserver, Latency, Metric};
use crate::router::Router;
use crate::session::{SessionTable, TimerWheel};
use crate::storage_client::embedded::AFTER_FAILURE;
use crate::storage_client::{StorageClient, StorageEvent};
use attach::Announcements;
use bytes::BytesMut;
use http_pipes::HttpPipes;
use hush::Hushed;
use leaving::{Leaving, Stage};
use mailbox::{CoreInbox, CoreMessage};
use pace::Pace;
use pending::PendingTable;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use wait::Waits;

/// Messages of other threads taken in one turn.
const MAILBOX_TURN_MAX: usize = 256;
/// Rounds of storage in one turn: a request that has three steps may take them all at once when storage is quick.
const STORAGE_ROUNDS_MAX: usize = 3;
/// How often gauges and latencies are published, in milliseconds.
const PUBLISH_MS: u64 = 1_000;

/// Why a core's loop ended early.
#[derive(Debug, thiserror::Error)]
pub enum CoreError {
    /// The runtime or the front could not be made.
    #[error("core {core}: {problem}")]
    Start {
        /// Which loop.
        core: u32,
        /// What went wrong.
        problem: String,
    },
    /// The storage node in this process stopped.
    #[error("storage failed: {0}. {AFTER_FAILURE}")]
    Storage(String),
}

/// What a core is made of.
pub(crate) struct CoreParts {
    pub(crate) clients: Clients,
    pub(crate) storage: StorageClient,
    pub(crate) router: Router,
    pub(crate) verifier: Verifier,
    pub(crate) ingress: HttpIngress,
    pub(crate) inbox: CoreInbox,
    /// The time.
    pub(crate) now_ms: u64,
    pub(crate) limits: RequestLimits,
    pub(crate) hellos: Option<Rate>,
    pub(crate) observer: CoreObserver,
    /// Cores of this process that still serve: an embedded shard serves the others until all are done.
    pub(crate) serving: Arc<AtomicUsize>,
}

/// One core: its connections, sessions, requests and links.
pub(crate) struct Core {
    clock: Clock,
    now_ms: u64,
    clients: Clients,
    sessions: SessionTable,
    /// By connection slot.
    session_timers: TimerWheel,
    rates: RequestRates,
    doorway: Doorway,
    hushed: Hushed,
    pending: PendingTable,
    calls: Calls,
    router: Router,
    storage: StorageClient,
    /// Something was submitted since storage last had a turn.
    submitted: bool,
    /// Storage has delivered something since the last flush.
    delivered: bool,
    announcements: Announcements,
    verifier: Verifier,
    http: HttpPipes,
    inbox: CoreInbox,
    observer: CoreObserver,
    publish_at_ms: u64,
    stage: Stage,
    /// While it ends.
    leaving: Option<Leaving>,
    serving: Arc<AtomicUsize>,
    /// Encoding space, empty between frames.
    space: BytesMut,
    /// Emptied and used again each turn.
    front_events: Vec<FrontEvent>,
    storage_events: Vec<StorageEvent>,
}

impl Core {
    pub(crate) fn new(parts: CoreParts) -> Self {
        let now_ms = parts.now_ms;
        Self {
            clock: Clock::new(),
            now_ms,
            clients: parts.clients,
            sessions: SessionTable::default(),
            session_timers: TimerWheel::new(now_ms),
            rates: RequestRates::new(parts.limits),
            doorway: Doorway::new(parts.hellos),
            hushed: Hushed::default(),
            pending: PendingTable::new(now_ms),
            calls: Calls::default(),
            router: parts.router,
            storage: parts.storage,
            submitted: false,
            delivered: false,
            announcements: Announcements::default(),
            verifier: parts.verifier,
            http: HttpPipes::new(parts.ingress),
            inbox: parts.inbox,
            observer: parts.observer,
            publish_at_ms: now_ms,
            stage: Stage::Serving,
            leaving: None,
            serving: parts.serving,
            space: BytesMut::new(),
            front_events: Vec::new(),
            storage_events: Vec::new(),
        }
    }

    /// Serves until the core is told to drain, or cannot go on.
    pub(crate) async fn run(mut self, mut waits: Waits) -> Result<(), CoreError> {
        let (mut pace, mut ended) = (Pace::default(), moment());
        loop {
            let started = moment();
            self.turn();
            let slept = started.duration_since(ended);
            ended = moment();
            pause(pace.turned(slept, ended.duration_since(started)));
            if let Some(failure) = self.storage.failure() {
                if self.stage != Stage::Done {
                    self.serving.fetch_sub(1, Ordering::AcqRel);
                }
                return Err(CoreError::Storage(failure));
            }
            if self.stage == Stage::Done && self.serving.load(Ordering::Acquire) == 0 {
                return Ok(());
            }
            let sleep_ms = self.next_deadline_ms().saturating_sub(self.clock.now_ms());
            waits.sleep(sleep_ms).await;
        }
    }

    fn turn(&mut self) {
        let now_ms = self.clock.now_ms();
        self.turn_at(now_ms);
    }

    fn turn_at(&mut self, now_ms: u64) {
        let started = moment();
        self.now_ms = now_ms;
        self.take_front_events();
        self.take_messages();
        self.meet_deadlines();
        self.announce_sessions();
        for _ in 0..STORAGE_ROUNDS_MAX {
            self.submitted = false;
            self.take_storage_events();
            if !self.submitted {
                break;
            }
        }
        self.drain();
        self.clients.flush(self.now_ms);
        if std::mem::take(&mut self.delivered) {
            failpoint::pass(Failpoint::Written);
        }
        self.observer.add(Metric::Turns, 1);
        self.observer.latency(Latency::Turn, started.elapsed());
        if self.now_ms >= self.publish_at_ms {
            self.publish_at_ms = self.now_ms + PUBLISH_MS;
            self.publish();
        }
    }

    /// When the next turn is due even if nothing happens.
    fn next_deadline_ms(&self) -> u64 {
        if self.submitted || !self.inbox.is_empty() {
            return 0;
        }
        [
            self.clients.next_deadline_ms(),
            self.storage.next_deadline_ms(),
            self.session_timers.next_deadline_ms(),
            self.pending.next_deadline_ms(),
            self.hushed.next_deadline_ms(),
            self.announcements.next_deadline_ms(),
            self.leaving_deadline_ms(),
            Some(self.publish_at_ms),
        ]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or(u64::MAX)
    }

    fn take_messages(&mut self) {
        for _ in 0..MAILBOX_TURN_MAX {
            let Some(message) = self.inbox.take() else { break };
            self.observer.add(Metric::MailboxTaken, 1);
            match message {
                CoreMessage::StorageCall { shard_key, operation, reply } => {
                    self.call_for_http(&shard_key, operation, reply);
                }
                CoreMessage::HttpOut { token, bytes } => self.http.out(&mut self.clients, token, bytes),
                CoreMessage::HttpClose { token } => self.http.close(&mut self.clients, token),
                CoreMessage::Drain(order) => self.begin_to_leave(order),
            }
        }
    }
}

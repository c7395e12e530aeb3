//! The loop of one core of a standalone node: turns the core, and moves what it has between it and its links.

use super::connection::Connection;
use super::ending::{Ends, Stage};
use super::newest::NewestLinks;
use super::wake::Wake;
use crate::clock;
use crate::placement::OtherNode;
use crate::replication::{ELECTION_TICKS, TICK_MS};
use crate::worker::{LinkId, LinkOutput, PeerMessage, PeerOutput, StorageCore};
use monoio::net::UnixStream;
use std::cell::RefCell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};
use wire_protocol::internal::Fleet;
use wire_protocol::link::{CallerLink, ServingLink, Versions};

/// Links look at the clock this often, in milliseconds; it also bounds how late a stop is noticed.
const LOOK_EVERY_MS: u64 = 500;
/// A younger link is not cut off for being slow: an election's time.
const CUT_OFF_AGE_MIN: Duration = Duration::from_millis(ELECTION_TICKS as u64 * TICK_MS);
/// A stopping core waits this long for answers to leave, in milliseconds.
const STOP_MS_MAX: u64 = 2_000;

/// What the tasks of one core share.
pub(super) struct Driver {
    pub core: RefCell<StorageCore>,
    /// Links that said hello.
    pub serving: RefCell<HashMap<LinkId, Rc<Connection<ServingLink>>>>,
    /// Every accepted connection, by a number of its own.
    pub accepted: RefCell<HashMap<u64, Rc<Connection<ServingLink>>>>,
    /// Links to other nodes.
    pub peers: RefCell<HashMap<u32, Rc<Connection<CallerLink>>>>,
    pub wake: Wake,
    pub ends: Ends,
    /// Of all cores.
    pub newest_links: NewestLinks,
    pub versions: Versions,
}

impl Driver {
    pub fn new(
        core: StorageCore,
        wake: Wake,
        ends: Ends,
        newest_links: NewestLinks,
        versions: Versions,
    ) -> Rc<Self> {
        Rc::new(Self {
            core: RefCell::new(core),
            serving: RefCell::default(),
            accepted: RefCell::default(),
            peers: RefCell::default(),
            wake,
            ends,
            newest_links,
            versions,
        })
    }

    pub fn is_stopping(&self) -> bool {
        self.ends.stage() >= Stage::Stopping
    }

    /// The other storage nodes of the fleet, as it is now.
    pub fn others(&self) -> Vec<OtherNode> {
        self.core.borrow().other_nodes()
    }

    /// Whether a node is still to be called where it was.
    pub fn is_known(&self, node: OtherNode) -> bool {
        self.others().contains(&node)
    }

    /// Turns until told to stop, or until the node fails. `serving` is called once, when every shard answers, and `left`,
    /// when nothing is led from here any more and the node was to leave; `call` for each other node, when the fleet gets
    /// it.
    pub async fn run(
        &self,
        serving: impl FnOnce(),
        left: impl FnOnce(),
        mut call: impl FnMut(OtherNode),
    ) -> io::Result<()> {
        let always_ready = AlwaysReady::new()?;
        let (mut serving, mut left) = (Some(serving), Some(left));
        let mut is_leaving = false;
        let mut looked_ms = 0;
        let mut stop_by_ms = None;
        let (mut fleet_changes, mut called) = (0, Vec::new());
        loop {
            self.turn();
            let now_ms = clock::now_ms();
            let changes = self.core.borrow().fleet_changes();
            if std::mem::replace(&mut fleet_changes, changes) != changes {
                let others = self.others();
                others.iter().filter(|node| !called.contains(*node)).for_each(|node| call(*node));
                called = others;
            }
            if now_ms.saturating_sub(looked_ms) >= LOOK_EVERY_MS {
                looked_ms = now_ms;
                self.look_at_clock(now_ms);
            }
            if self.core.borrow().failure().is_some() {
                return Ok(());
            }
            if self.core.borrow().is_serving()
                && let Some(serving) = serving.take()
            {
                serving();
            }
            match self.ends.stage() {
                Stage::Serving => {}
                Stage::Leaving if !is_leaving => {
                    is_leaving = true;
                    self.core.borrow_mut().leave();
                }
                Stage::Leaving => {
                    if self.core.borrow_mut().has_left()
                        && let Some(left) = left.take()
                    {
                        left();
                    }
                }
                Stage::Stopping => {
                    let stop_by_ms = *stop_by_ms.get_or_insert(now_ms + STOP_MS_MAX);
                    if now_ms >= stop_by_ms || self.has_stopped() {
                        return Ok(());
                    }
                }
                Stage::Ending => return Ok(()),
            }
            self.wait(now_ms, &always_ready).await;
        }
    }

    /// Whether all is answered and every link closed.
    fn has_stopped(&self) -> bool {
        let is_idle = self.core.borrow().is_idle();
        if is_idle {
            self.accepted.borrow().values().for_each(|connection| connection.close());
            self.peers.borrow().values().for_each(|connection| connection.close());
        }
        is_idle && self.accepted.borrow().is_empty()
    }

    async fn wait(&self, now_ms: u64, always_ready: &AlwaysReady) {
        if self.wake.is_woken() {
            // There is work, but sockets and timers must have their turn, too: the ring is only looked at when
            // everything awaits it.
            always_ready.pass().await;
        }
        let due_ms = self.core.borrow().next_deadline_ms().unwrap_or(u64::MAX).min(now_ms + LOOK_EVERY_MS);
        let wait = Duration::from_millis(due_ms.saturating_sub(now_ms).max(1));
        let woken = poll_fn(|context| self.wake.poll_woken(context));
        let _ = monoio::time::timeout(wait, woken).await;
    }

    fn turn(&self) {
        let mut core = self.core.borrow_mut();
        core.turn_by(clock::now_ms);
        let serving = self.serving.borrow();
        while let Some(output) = core.poll_output() {
            match output {
                LinkOutput::Response(link, response) => {
                    if let Some(connection) = serving.get(&link) {
                        connection.half.borrow_mut().queue_response(response);
                        connection.notify();
                    }
                }
                LinkOutput::Delivery(link, delivery) => {
                    if let Some(connection) = serving.get(&link) {
                        connection.half.borrow_mut().queue_delivery(delivery);
                        connection.notify();
                    }
                }
                LinkOutput::Fleet(link, fleet) => {
                    if let Some(connection) = serving.get(&link) {
                        connection.half.borrow_mut().queue_fleet(Fleet::clone(&fleet));
                        connection.notify();
                    }
                }
                LinkOutput::Leader(link, leader) => {
                    if let Some(connection) = serving.get(&link) {
                        connection.half.borrow_mut().queue_leader(leader);
                        connection.notify();
                    }
                }
            }
        }
        let peers = self.peers.borrow();
        while let Some(node) = core.poll_late_node() {
            if let Some(connection) = peers.get(&node) {
                cut_off_late(node, connection, clock::now());
            }
        }
        while let Some(output) = core.poll_peer_output() {
            // Without a link, or with a full one, it is lost here: the feed's source and Raft send again.
            if let Some(connection) = peers.get(&output.node) {
                queue_for_peer(&mut connection.half.borrow_mut(), output);
                connection.notify();
            }
        }
    }

    fn look_at_clock(&self, now_ms: u64) {
        self.accepted.borrow().values().for_each(|connection| connection.look_at_clock(now_ms));
        self.peers.borrow().values().for_each(|connection| connection.look_at_clock(now_ms));
    }
}

/// A leader gave way because its word takes too long over the link to this node.
fn cut_off_late(node: u32, connection: &Connection<CallerLink>, now: Instant) {
    // What is younger holds no words that old: another shard had it made anew.
    if connection.age(now) >= CUT_OFF_AGE_MIN {
        tracing::warn!(node, "the link is too slow: makes it anew, without what waits in it");
        connection.cut_off();
    }
}

/// What a full link does not take is lost.
fn queue_for_peer(half: &mut CallerLink, output: PeerOutput) {
    let (what, queued) = match output.message {
        PeerMessage::Batch(batch) => ("feed", half.queue_feed(batch)),
        PeerMessage::Ack(ack) => return half.queue_feed_ack(ack),
        PeerMessage::Raft(message) => ("raft", half.queue_raft(message)),
        PeerMessage::Part(part) => ("part of a snapshot", half.queue_snapshot_part(*part)),
        PeerMessage::Progress(progress) => ("progress of a snapshot", half.queue_snapshot_progress(progress)),
        PeerMessage::Report(report) => ("report of replicas", half.queue_replica_report(report)),
        PeerMessage::FleetChange(fleet) => ("change of the fleet", half.queue_fleet_change(*fleet)),
        PeerMessage::Hibernating(told) => ("shards that hibernate", half.queue_hibernating(told)),
    };
    if let Err(full) = queued {
        tracing::debug!(node = output.node, "{what}: {full}");
    }
}

/// A descriptor that is always readable: awaiting it goes once through the ring.
struct AlwaysReady {
    readable: UnixStream,
    _written: std::os::unix::net::UnixStream,
}

impl AlwaysReady {
    fn new() -> io::Result<Self> {
        let (readable, mut written) = std::os::unix::net::UnixStream::pair()?;
        io::Write::write_all(&mut written, &[0])?;
        Ok(Self { readable: UnixStream::from_std(readable)?, _written: written })
    }

    async fn pass(&self) {
        if let Err(error) = self.readable.readable(false).await {
            tracing::warn!("loop: {error}");
        }
    }
}

#[cfg(test)]
mod tests;

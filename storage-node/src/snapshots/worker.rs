//! The thread that makes, sends, receives and installs snapshots: one for a node, one outgoing snapshot at a time.

use super::contents::Contents;
use super::install::{SnapshotFiles, install};
use super::outgoing::{Answered, Outgoing, Step};
use super::receiving::{Fate, Here, Received, Receiving};
use super::remove::remove;
use super::{PART_MS_WHILE_OTHERS_WAIT, SnapshotReport, SnapshotRequest};
use crate::clock;
use crate::domain;
use crate::failpoint::{self, Failpoint};
use crate::placement::Place;
use crate::worker::{Completion, NodeShared, PeerMessage, PeerOutput};
use crossbeam_channel::{Receiver, RecvTimeoutError};
use prost::Message;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use wire_protocol::ids::ShardId;
use wire_protocol::internal::{RaftMessage, SnapshotPart, SnapshotProgress};

/// Longest sleep of the thread, in milliseconds.
const SLEEP_MS_MAX: u64 = 1_000;

/// Runs until it is told to stop, or until a decided snapshot cannot be installed.
pub(crate) fn run_snapshot_thread(
    shared: Arc<NodeShared>,
    requests: &Receiver<SnapshotRequest>,
) -> Result<(), String> {
    let started = clock::now();
    let now_ms = || started.elapsed().as_millis() as u64;
    let mut worker = SnapshotWorker::new(shared);
    loop {
        let due_ms = worker.turn(now_ms());
        let sleep_ms = due_ms.saturating_sub(now_ms()).clamp(1, SLEEP_MS_MAX);
        match requests.recv_timeout(Duration::from_millis(sleep_ms)) {
            Ok(SnapshotRequest::Stop) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
            Ok(request) => worker.take(now_ms(), request)?,
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// A node's snapshots. Times are of any clock that goes forward.
pub(crate) struct SnapshotWorker {
    shared: Arc<NodeShared>,
    /// Shards and nodes that wait for their snapshot to be made; each pair once.
    waiting: VecDeque<(ShardId, u32)>,
    outgoing: Option<Outgoing>,
    receiving: Receiving,
}

impl SnapshotWorker {
    pub fn new(shared: Arc<NodeShared>) -> Self {
        let here = Here { node_id: shared.node_id, shard_count: shared.map.shard_count() };
        let receiving = Receiving::new(here, shared.snapshot_files.clone());
        Self { shared, waiting: VecDeque::new(), outgoing: None, receiving }
    }

    fn files(&self) -> &SnapshotFiles {
        &self.shared.snapshot_files
    }

    /// An error is final: the node cannot go on without the snapshot.
    pub fn take(&mut self, now_ms: u64, request: SnapshotRequest) -> Result<(), String> {
        match request {
            SnapshotRequest::Open { shard, node } => {
                if !self.waiting.contains(&(shard, node)) {
                    self.waiting.push_back((shard, node));
                }
            }
            SnapshotRequest::Send { shard, message } => self.send(now_ms, shard, message),
            SnapshotRequest::Cancel { shard } => {
                self.waiting.retain(|(waiting, _)| *waiting != shard);
                self.outgoing = self.outgoing.take().filter(|outgoing| outgoing.shard != shard);
            }
            SnapshotRequest::Part(part) => self.receive(now_ms, *part),
            SnapshotRequest::Progress(progress) => self.progress(&progress),
            SnapshotRequest::Install { shard } => return self.install(shard),
            SnapshotRequest::Discard { shard } => {
                self.receiving.forget(shard);
                self.files().discard(&self.files().received(shard));
            }
            SnapshotRequest::Remove { shard, changed_at } => {
                self.receiving.forget(shard);
                let shared = &self.shared;
                remove(
                    self.files(),
                    &*shared.store,
                    &shared.log,
                    shard,
                    changed_at,
                    shared.map.shard_count(),
                )?;
                tracing::info!(%shard, "a replica was removed");
                self.report(shard, SnapshotReport::Removed);
            }
            SnapshotRequest::Stop => {}
        }
        Ok(())
    }

    /// Does what is due, and tells how far it is; gives the time of the next turn.
    pub fn turn(&mut self, now_ms: u64) -> u64 {
        let due_ms = self.do_what_is_due(now_ms);
        self.shared.sending.tell(self.outgoing.as_ref().map(Outgoing::sent));
        due_ms
    }

    fn do_what_is_due(&mut self, now_ms: u64) -> u64 {
        self.receiving.forget_abandoned(now_ms);
        self.pass_over_silent(now_ms);
        while self.outgoing.is_none() {
            let Some((shard, node)) = self.waiting.pop_front() else { break };
            self.open(now_ms, shard, node);
        }
        let Some(outgoing) = &mut self.outgoing else { return now_ms + SLEEP_MS_MAX };
        match outgoing.step(now_ms, &self.shared.log) {
            Step::Wait(until_ms) => until_ms,
            Step::Send(part) => {
                let (node, shard) = (outgoing.node, outgoing.shard);
                self.shared.metrics.snapshot_bytes.add(part.encoded_len() as u64);
                self.tell(shard, node, PeerMessage::Part(part));
                now_ms
            }
            Step::GiveUp(reason) => {
                self.end_outgoing(Some(&reason));
                now_ms
            }
        }
    }

    /// A node that does not answer holds up nobody else's snapshots, neither with the one that is on its way nor with
    /// those that wait for it.
    fn pass_over_silent(&mut self, now_ms: u64) {
        let Some(outgoing) = &self.outgoing else { return };
        let silent = outgoing.node;
        let is_silent = outgoing.silent_ms(now_ms) >= PART_MS_WHILE_OTHERS_WAIT;
        if !is_silent || self.waiting.iter().all(|(_, node)| *node == silent) {
            return;
        }
        self.end_outgoing(Some("its receiver does not answer, and others wait"));
        let waiting = std::mem::take(&mut self.waiting);
        let (in_vain, others): (VecDeque<_>, _) = waiting.into_iter().partition(|(_, node)| *node == silent);
        self.waiting = others;
        for (shard, node) in in_vain {
            self.report(shard, SnapshotReport::Ended { node, has_arrived: false });
        }
    }

    fn open(&mut self, now_ms: u64, shard: ShardId, node: u32) {
        match self.make(now_ms, shard, node) {
            Ok((outgoing, report)) => {
                tracing::info!(%shard, node, "a snapshot for another node was made: {report:?}");
                self.outgoing = Some(outgoing);
                self.report(shard, report);
            }
            Err(reason) => {
                tracing::warn!(%shard, node, "no snapshot: {reason}");
                self.shared.metrics.snapshots_given_up.increment();
                self.report(shard, SnapshotReport::Ended { node, has_arrived: false });
            }
        }
    }

    fn make(&self, now_ms: u64, shard: ShardId, node: u32) -> Result<(Outgoing, SnapshotReport), String> {
        let shared = &self.shared;
        // Before the view: what no feed needs then no feed needs later.
        let feed_cut = shared.marks_of(shard).feed_cut.load(Ordering::Acquire);
        let view = shared.store.view().map_err(|error| error.to_string())?;
        let (index, _) = domain::applied_index(&*view, shard).map_err(|error| error.to_string())?;
        let term = shared.log.term(shard, index).map_err(|error| error.to_string())?;
        let term = term.ok_or_else(|| format!("the log does not hold entry {index}"))?;
        let replicas = domain::fleet::replicas(&*view, shard).map_err(|error| error.to_string())?;
        let replicas = replicas.unwrap_or_else(|| shared.first_replicas(shard).set);
        let contents = Contents::new(shard, shared.map.shard_count(), view, index, feed_cut);
        let outgoing = Outgoing::new(shard, node, contents, now_ms);
        let report = SnapshotReport::Opened { node, index, term, replicas };
        Ok((outgoing, report))
    }

    fn send(&mut self, now_ms: u64, shard: ShardId, message: RaftMessage) {
        let node = message.to;
        let fits = match &mut self.outgoing {
            Some(outgoing) if outgoing.shard == shard => outgoing.begin(now_ms, message),
            _ => false,
        };
        if !fits {
            self.report(shard, SnapshotReport::Ended { node, has_arrived: false });
        }
    }

    fn progress(&mut self, progress: &SnapshotProgress) {
        match self.outgoing.as_mut().map(|outgoing| outgoing.take(progress)) {
            Some(Answered::Arrived) => self.end_outgoing(None),
            Some(Answered::Refused) => self.end_outgoing(Some("its receiver does not take it")),
            Some(Answered::GoesOn) | None => {}
        }
    }

    fn end_outgoing(&mut self, reason: Option<&str>) {
        let Some(Outgoing { shard, node, .. }) = self.outgoing.take() else { return };
        match reason {
            None => {
                tracing::info!(%shard, node, "a snapshot arrived");
                self.shared.metrics.snapshots_sent.increment();
            }
            Some(reason) => {
                tracing::warn!(%shard, node, "a snapshot was given up: {reason}");
                self.shared.metrics.snapshots_given_up.increment();
            }
        }
        self.report(shard, SnapshotReport::Ended { node, has_arrived: reason.is_none() });
    }

    fn receive(&mut self, now_ms: u64, part: SnapshotPart) {
        let shard = ShardId(part.shard);
        let Received { fate, progress } = self.receiving.take(now_ms, part);
        match fate {
            Fate::PassedOver | Fate::Written => self.tell_progress(progress),
            Fate::Whole(message) => {
                failpoint::pass(Failpoint::SnapshotReceived);
                let (node, index) = (progress.to, progress.index);
                tracing::info!(%shard, node, index, "a snapshot was received");
                self.tell_progress(progress);
                self.report(shard, SnapshotReport::Received { message: *message });
            }
            Fate::Refused(refusal) => {
                tracing::warn!(%shard, "a snapshot is not taken: {refusal}");
                self.shared.metrics.snapshots_given_up.increment();
                self.tell_progress(progress);
            }
        }
    }

    fn tell_progress(&self, progress: SnapshotProgress) {
        self.tell(ShardId(progress.shard), progress.to, PeerMessage::Progress(progress));
    }

    fn install(&mut self, shard: ShardId) -> Result<(), String> {
        let shared = &self.shared;
        self.files().decide(shard)?;
        failpoint::pass(Failpoint::SnapshotDecided);
        let installed = install(self.files(), &*shared.store, &shared.log, shard, shared.map.shard_count())?;
        self.receiving.forget(shard);
        shared.metrics.snapshots_installed.increment();
        tracing::info!(%shard, index = installed.index, "a snapshot was installed");
        self.report(shard, SnapshotReport::Installed(installed));
        Ok(())
    }

    fn core_of(&self, shard: ShardId) -> Option<usize> {
        match self.shared.map.place(shard) {
            Some(Place::Core(core)) => Some(core),
            _ => None,
        }
    }

    fn report(&self, shard: ShardId, report: SnapshotReport) {
        if let Some(core) = self.core_of(shard) {
            self.shared.inboxes[core].complete(Completion::Snapshot { shard, report });
            self.shared.inboxes[core].signal();
        }
    }

    /// By way of the core whose shard it is; lost if that one has too much.
    fn tell(&self, shard: ShardId, node: u32, message: PeerMessage) {
        if let Some(core) = self.core_of(shard) {
            let inbox = &self.shared.inboxes[core];
            drop(inbox.snapshots.push(PeerOutput { node, message }));
            inbox.signal();
        }
    }
}

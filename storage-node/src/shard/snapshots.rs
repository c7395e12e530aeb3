//! Whole snapshots of the shard (`snapshots/`): for replicas that the log does not reach any more, and of a leader elsewhere for
//! the replica here.

use super::{Effects, Shard, Stage};
use crate::replication::ReplicationError;
use crate::snapshots::{Installed, SNAPSHOT_RETRY_MS, SnapshotReport, SnapshotRequest};
use std::sync::atomic::Ordering;
use wire_protocol::internal::RaftMessage;

/// What a shard knows of snapshots under way.
#[derive(Default)]
pub(super) struct Snapshots {
    /// The node that one is made for or sent to, and the entry from which on the log is kept meanwhile.
    outgoing: Option<(u32, u64)>,
    /// No other one is made before.
    not_before_ms: u64,
    /// Raft was given one that arrived, and has not been polled since.
    is_deciding: bool,
}

impl Snapshots {
    /// What the log has to keep for a snapshot under way.
    pub fn kept_from(&self) -> u64 {
        self.outgoing.map_or(u64::MAX, |(_, kept_from)| kept_from)
    }
}

impl Shard {
    /// To be called after the group was polled.
    pub(super) fn look_at_snapshots(&mut self, now_ms: u64, effects: &mut Effects) {
        let shard = self.id;
        // The rows have to say that the replica is one: it would not take a snapshot of before.
        let knows_all = self.pipeline.applied_index() >= self.pipeline.replicas().changed_at;
        if let Some(node) = self.pipeline.take_snapshot_wanted()
            && knows_all
            && self.snapshots.outgoing.is_none()
            && now_ms >= self.snapshots.not_before_ms
        {
            let feed_cut = self.marks.feed_cut.load(Ordering::Acquire);
            self.snapshots.outgoing = Some((node, feed_cut));
            effects.snapshots.push(SnapshotRequest::Open { shard, node });
        }
        if let Some(message) = self.pipeline.take_snapshot_message() {
            effects.snapshots.push(SnapshotRequest::Send { shard, message });
        }
        if std::mem::take(&mut self.snapshots.is_deciding) && !self.pipeline.is_restoring() {
            effects.snapshots.push(SnapshotRequest::Discard { shard });
        }
        if self.is_unread() && self.pipeline.may_install() {
            effects.snapshots.push(SnapshotRequest::Install { shard });
        }
    }

    /// The thread of snapshots has news.
    pub fn snapshot_report(
        &mut self,
        now_ms: u64,
        report: SnapshotReport,
        effects: &mut Effects,
    ) -> Result<(), ReplicationError> {
        match report {
            SnapshotReport::Opened { node, index, term, replicas } => {
                let is_wanted = self.snapshots.outgoing.is_some_and(|(wanted, _)| wanted == node);
                // One that nobody wants any more is given up by itself.
                if is_wanted {
                    self.pipeline.group().offer_snapshot(node, index, term, replicas);
                }
            }
            SnapshotReport::Ended { node, has_arrived } => {
                self.snapshots.outgoing.take_if(|(to, _)| *to == node);
                // Also of one that is not known here any more: the group may wait for it.
                self.pipeline.group().snapshot_sent(node, has_arrived);
                if !has_arrived {
                    self.snapshots.not_before_ms = now_ms + SNAPSHOT_RETRY_MS;
                }
            }
            SnapshotReport::Received { message } => self.snapshot_received(message, effects),
            SnapshotReport::Installed(installed) => self.snapshot_installed(installed, effects),
            SnapshotReport::Removed => return self.removed(effects),
        }
        Ok(())
    }

    fn snapshot_received(&mut self, message: RaftMessage, effects: &mut Effects) {
        let is_taken = !matches!(self.stage, Stage::Failed) && !self.pipeline.is_restoring();
        if is_taken && let Err(error) = self.pipeline.group().step(message) {
            tracing::warn!("{error}");
        }
        match is_taken {
            true => self.snapshots.is_deciding = true,
            false => effects.snapshots.push(SnapshotRequest::Discard { shard: self.id }),
        }
    }

    fn snapshot_installed(&mut self, installed: Installed, effects: &mut Effects) {
        let Installed { index, time_ms, feed_cut } = installed;
        self.pipeline.restored(index, time_ms);
        self.marks.applied.store(index, Ordering::Release);
        self.marks.feed_cut.store(feed_cut, Ordering::Release);
        self.marks.log_cut.store(feed_cut, Ordering::Release);
        effects.restored.push((self.id, time_ms));
        self.look_at_role(effects);
    }

    /// Another replica leads: it makes the snapshots.
    pub(super) fn stop_sending(&mut self, effects: &mut Effects) {
        if self.snapshots.outgoing.take().is_some() {
            effects.snapshots.push(SnapshotRequest::Cancel { shard: self.id });
        }
    }
}

//! Who could lead instead: how a shard's other replicas stand, as its leader sees them.

use super::{Group, Role, TICK_MS};

/// Entries that a replica may lack to be handed leadership: a moment's worth. It gets them before it stands for election.
const BEHIND_ENTRIES_MAX: u64 = 256;
/// Time since a replica was heard of, in milliseconds: two heartbeats and a half.
const UNHEARD_MS_MAX: u64 = 500;

/// A leader whose disk has not got within so long what most of the others' have is slow, in milliseconds: it holds up
/// every answer, since only what it has itself is applied.
const OUTRUN_MS_MAX: u64 = 1_000;

impl Group {
    /// Whether this leader's disk is slower than those of a majority by more than a shard should wait.
    pub fn is_outrun(&self) -> bool {
        let waits_ms = |(_, since): (u64, u64)| (self.ticks - since) * TICK_MS;
        matches!(self.role, Role::Leader { .. })
            && self.outrun.is_some_and(|it| waits_ms(it) >= OUTRUN_MS_MAX)
    }

    /// Looks whether something is committed, without this replica, that is not on its disk.
    pub(super) fn look_at_disk(&mut self) {
        let log = &self.node.raft.raft_log;
        if self.outrun.is_some_and(|(index, _)| log.persisted >= index) {
            self.outrun = None;
        }
        if self.outrun.is_none() && log.committed > log.persisted {
            self.outrun = Some((log.committed, self.ticks));
        }
    }

    /// Whether this node's replica could lead at once: it votes, was heard of lately, has next to all of the log, and is
    /// not about to become another one's snapshot.
    pub fn could_lead(&self, node: u32) -> bool {
        self.entries_behind(node).is_some_and(|behind| behind <= BEHIND_ENTRIES_MAX)
    }

    /// Whether this replica has applied next to all of what it knows to be committed: leading, it would serve at once.
    pub fn has_applied_most(&self) -> bool {
        let log = &self.node.raft.raft_log;
        log.committed.saturating_sub(log.applied) <= BEHIND_ENTRIES_MAX
    }

    /// Whom to hand leadership: of those who could lead, but for these, the one that has most of the log, and of
    /// several the one of the lowest id.
    pub fn successor(&self, passed_over: &[u32]) -> Option<u32> {
        let voters = self.node.raft.prs().conf().voters().ids();
        let others =
            voters.iter().filter_map(|id| u32::try_from(id).ok()).filter(|id| !passed_over.contains(id));
        let could = others.filter(|id| self.could_lead(*id));
        could.min_by_key(|id| (self.entries_behind(*id), *id))
    }

    /// Whether a change of the replicas was proposed that is not applied here, or may have been before this leader was one.
    pub fn is_changing(&self) -> bool {
        self.node.raft.has_pending_conf()
    }

    /// Leadership stays here after all. Whoever was asked to stand for election may still win it.
    pub fn give_up_transfer(&mut self) {
        self.node.raft.abort_leader_transfer();
    }

    /// Entries of this leader's log that the replica lacks; `None`: it cannot lead, or nothing is known of it.
    fn entries_behind(&self, node: u32) -> Option<u64> {
        let Role::Leader { recovered_at, .. } = self.role else { return None };
        let (raft, id) = (&self.node.raft, u64::from(node));
        let heard = self.heard.get(&id)?;
        let is_heard = self.ticks.saturating_sub(*heard) * TICK_MS <= UNHEARD_MS_MAX;
        let votes = id != raft.id && raft.prs().conf().voters().contains(id);
        let progress = raft.prs().get(id)?;
        // What it had in earlier terms counts for nothing: this leader has not asked it yet.
        let is_known = progress.matched >= recovered_at && progress.pending_snapshot == 0;
        let behind = raft.raft_log.last_index().saturating_sub(progress.matched);
        (votes && is_heard && is_known).then_some(behind)
    }
}

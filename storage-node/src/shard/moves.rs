//! Replicas that come and go: a leader that takes its shard to where the fleet wants it, step by step
//! (`placement/moves.rs` has the rules), a node that holds no replica yet, and one that holds none any more.
//!
//! ```text
//! absent --snapshot as a learner--> following ... --a committed change, or the fleet, says it is gone--> leaving
//!    ^                                                                                                     |
//!    +---------------------- log and rows are gone; who was voted for stays ------------------------------+
//! ```

use super::propose::Pipeline;
use super::{Effects, Shard, Stage};
use crate::domain::fleet::SHARD_OF_FLEET;
use crate::placement::moves::{MoveView, Step, next_step, reported};
use crate::replication::{ReplicaChange, Replicas, ReplicationError, Role, is_joint};
use crate::snapshots::SnapshotRequest;
use std::sync::atomic::Ordering;
use wire_protocol::internal::{Command, Fleet, ReplicaReport, ReplicaSet, ShardPlace, command};

/// A leader looks this often at what is to be done about a move, in milliseconds; also how soon one that came to
/// nothing is proposed again.
const LOOK_EVERY_MS: u64 = 500;
/// A finished move is reported again if nothing came of it, in milliseconds.
const REPORT_AGAIN_MS: u64 = 2_000;
/// A change of the fleet that was proposed and came to nothing does not keep the next one back for longer, in
/// milliseconds.
const FLEET_CHANGE_MS_MAX: u64 = 5_000;

/// What a shard knows of where its replicas should be.
#[derive(Default)]
pub(super) struct Moving {
    /// As the fleet says.
    place: ShardPlace,
    goal: Option<Vec<u32>>,
    spans_zones: bool,
    looked_ms: u64,
    reported_ms: u64,
    /// It leads on in another term once everything before is at rest, and proposes nothing until then.
    is_due_for_new_term: bool,
    /// Of shard 0: epoch of a change that was proposed, and when.
    proposed: Option<(u64, u64)>,
}

impl Moving {
    /// Whether an entry may be proposed now.
    pub fn may_propose(&self) -> bool {
        !self.is_due_for_new_term
    }

    /// Whether a majority of these replicas is never in one zone alone.
    pub fn spans_zones(&self, set: &ReplicaSet) -> bool {
        self.spans_zones && self.place.changed_at == set.changed_at
    }
}

impl Shard {
    /// The fleet is another one. `spans_zones`: of the replicas in their place.
    pub fn fleet_changed(&mut self, place: ShardPlace, goal: Option<Vec<u32>>, spans_zones: bool) {
        let first = goal.as_ref().or(Some(&place.nodes)).and_then(|nodes| nodes.first());
        if let Some(first) = first {
            self.replicas.preferred = *first;
            self.pipeline.group().prefer(*first);
        }
        // Whatever changed is looked at with the next turn.
        (self.moving.looked_ms, self.moving.reported_ms) = (0, 0);
        (self.moving.place, self.moving.goal, self.moving.spans_zones) = (place, goal, spans_zones);
    }

    /// The replicas, as this one has them committed.
    #[cfg(any(test, feature = "sim"))]
    pub fn replicas(&self) -> &ReplicaSet {
        self.pipeline.replicas()
    }

    /// What this place is to its shard, for a person.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn whereabouts(&self) -> String {
        let stage = match self.stage {
            Stage::Absent => "absent",
            Stage::Leaving => "leaving",
            Stage::Following => "following",
            Stage::Recovering | Stage::Loading => "about to serve",
            Stage::Serving(_) => "serving",
            Stage::Failed => "failed",
        };
        let Moving { place, goal, .. } = &self.moving;
        format!("{stage}, {:?}, place {place:?}, goal {goal:?}", self.pipeline.replicas())
    }

    /// Takes the next step of a move, if this replica leads; notices when there is no replica here any more.
    pub(super) fn look_at_replicas(
        &mut self,
        now_ms: u64,
        effects: &mut Effects,
    ) -> Result<(), ReplicationError> {
        let is_here = !matches!(self.stage, Stage::Failed | Stage::Absent | Stage::Leaving);
        if is_here && self.is_gone() {
            tracing::info!(shard = %self.id, "holds no replica any more");
            if self.leads_in.take().is_some() {
                self.step_down(effects);
            }
            self.stage = Stage::Leaving;
            // Reads that were begun in this turn are counted in the next one.
            return Ok(());
        }
        if self.moving.is_due_for_new_term {
            self.lead_in_new_term_at_rest();
            return Ok(());
        }
        let is_left_over = matches!(self.stage, Stage::Absent) && self.is_left_over();
        match self.stage {
            Stage::Absent if self.pipeline.group().is_holder() => {
                tracing::info!(shard = %self.id, "holds a replica");
                self.stage = Stage::Following;
            }
            // What its log holds behind its rows may have brought it back.
            Stage::Absent if is_left_over => self.stage = Stage::Leaving,
            Stage::Leaving => self.remove_when_quiet(effects),
            Stage::Serving(_) if now_ms >= self.moving.looked_ms + LOOK_EVERY_MS => {
                self.moving.looked_ms = now_ms;
                self.tell_learners();
                self.step_move(now_ms, effects)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether a change that is applied here took this replica out, or one that the fleet knows of and that never came
    /// here.
    fn is_gone(&mut self) -> bool {
        if self.pipeline.is_restoring() {
            return false;
        }
        let (own, applied) = (self.replicas.own, self.pipeline.applied_index());
        let place = &self.moving.place;
        let group = self.pipeline.group();
        let changed_at = group.replicas().changed_at;
        let knows_itself = !group.is_holder() && applied >= changed_at;
        let is_elsewhere = place.changed_at > changed_at && !place.nodes.contains(&own);
        let may_be_gone = (knows_itself || is_elsewhere) && group.has_applied_committed();
        may_be_gone && (knows_itself || self.is_unwanted()) && !self.comes_back()
    }

    /// Whether this log holds, behind what is applied, a change that makes this node a replica again. What it has acknowledged
    /// since counts. That change may itself be one of before, by what the fleet knows.
    fn comes_back(&mut self) -> bool {
        let Some(index) = self.pipeline.group().comes_back_at() else { return false };
        let ShardPlace { nodes, changed_at } = &self.moving.place;
        *changed_at <= index || nodes.contains(&self.replicas.own) || !self.is_unwanted()
    }

    /// Whether this node, which is not among the replicas, was one of them and stopped before it had removed what is left:
    /// whoever has removed it knows of nobody ([`Shard::removed`]), and who never was one of no change.
    fn is_left_over(&mut self) -> bool {
        let group = self.pipeline.group();
        let set = group.replicas();
        let was_one = set.changed_at > 0 && !set.voters.is_empty();
        was_one && group.has_applied_committed() && !self.comes_back()
    }

    fn is_unwanted(&self) -> bool {
        self.moving.goal.as_ref().is_none_or(|goal| !goal.contains(&self.replicas.own))
    }

    /// Another leader ends it, too.
    fn lead_in_new_term_at_rest(&mut self) {
        let group = self.pipeline.group();
        let (leads, is_at_rest) = (matches!(group.role(), Role::Leader { .. }), group.is_at_rest());
        if leads && is_at_rest {
            tracing::info!(shard = %self.id, "leads on in another term");
            self.pipeline.group().lead_in_new_term();
        }
        self.moving.is_due_for_new_term = leads && !is_at_rest;
    }

    fn step_move(&mut self, now_ms: u64, effects: &mut Effects) -> Result<(), ReplicationError> {
        let (own, shard) = (self.replicas.own, self.id.0);
        let group = self.pipeline.group();
        // While it hands over nothing is proposed; and what is under way may change what is to be done.
        if !group.can_propose() || group.is_changing() {
            return Ok(());
        }
        let set = group.replicas().clone();
        let goal = self.moving.goal.as_ref().unwrap_or(&self.moving.place.nodes);
        let step = match goal.is_empty() {
            true => Step::Done,
            false => {
                let behind = |node| group.behind(node);
                let was_removed = |node| group.was_removed(node);
                next_step(goal, &MoveView { own, set: &set, behind: &behind, was_removed: &was_removed })
            }
        };
        // Without a move, who votes is a fact; only learners of a move that was given up go.
        let is_wanted = self.moving.goal.is_some();
        match &step {
            Step::Change(changes) if is_wanted || is_only_a_learner(changes, &set) => {
                tracing::info!(shard, ?changes, "replicas change");
                self.pipeline.group().propose_change(changes)?;
            }
            Step::HandOver(to) if is_wanted => self.hand_over(now_ms, *to),
            Step::NewTerm if is_wanted => self.moving.is_due_for_new_term = true,
            _ => {}
        }
        // The end of a move is told also if it began where it was to end: it is given up.
        let is_news = is_wanted || set.changed_at > self.moving.place.changed_at;
        let is_over = !is_joint(&set) && (!is_wanted || matches!(step, Step::Done));
        if is_news && is_over && now_ms >= self.moving.reported_ms + REPORT_AGAIN_MS {
            self.moving.reported_ms = now_ms;
            let ReplicaSet { voters, changed_at, .. } = set;
            effects.reports.push(ReplicaReport { shard, voters, changed_at });
        }
        Ok(())
    }

    fn remove_when_quiet(&mut self, effects: &mut Effects) {
        if self.is_unread() && self.pipeline.may_be_removed() {
            let changed_at = self.removed_at();
            effects.snapshots.push(SnapshotRequest::Remove { shard: self.id, changed_at });
        }
    }

    /// Whether no read thread is at log or rows of this shard, or about to be.
    pub(super) fn is_unread(&self) -> bool {
        self.marks.reads.load(Ordering::Acquire) == 0
    }

    /// Index of the change that took this replica out.
    fn removed_at(&mut self) -> u64 {
        self.pipeline.group().replicas().changed_at.max(self.moving.place.changed_at)
    }

    /// Log and rows are gone.
    pub(super) fn removed(&mut self, effects: &mut Effects) -> Result<(), ReplicationError> {
        let set = ReplicaSet { changed_at: self.removed_at(), ..ReplicaSet::default() };
        let replicas = Replicas { set, ..self.replicas.clone() };
        let group = self.pipeline.group().reopen(&replicas)?;
        self.pipeline = Pipeline::new(self.id, group, 0, 0);
        for mark in [&self.marks.applied, &self.marks.feed_cut, &self.marks.log_cut] {
            mark.store(0, Ordering::Release);
        }
        effects.restored.push((self.id, 0));
        self.stage = Stage::Absent;
        Ok(())
    }

    /// To shard 0: where the replicas of a shard are now.
    pub fn take_report(&mut self, now_ms: u64, fleet: &Fleet, report: &ReplicaReport) {
        if let Some(next) = reported(fleet, report) {
            self.change_fleet(now_ms, next);
        }
    }

    /// To shard 0: what somebody wants the fleet to be. Nobody is told here whether it comes to that: the fleet tells.
    pub fn change_fleet(&mut self, now_ms: u64, next: Fleet) {
        let is_another_under_way = self.moving.proposed.is_some_and(|(epoch, proposed_ms)| {
            epoch >= next.epoch && now_ms < proposed_ms + FLEET_CHANGE_MS_MAX
        });
        if self.id != SHARD_OF_FLEET || !self.is_serving() || is_another_under_way {
            return;
        }
        let epoch = next.epoch;
        let command = Command { kind: Some(command::Kind::ChangeFleet(next)) };
        if self.pipeline.take(None, command).is_ok() {
            self.moving.proposed = Some((epoch, now_ms));
        }
    }
}

fn is_only_a_learner(changes: &[ReplicaChange], set: &ReplicaSet) -> bool {
    changes.iter().all(|change| matches!(change, ReplicaChange::Remove(id) if set.learners.contains(id)))
}

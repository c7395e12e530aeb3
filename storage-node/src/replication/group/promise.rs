//! What a replica that has heard its leader promises: for [`ELECTION_TICKS`] it neither stands for election nor helps
//! another one to be elected. A leader's lease rests on that (Ongaro 2014, 6.4.1), so it must hold where the library's own
//! rule of the same kind ends: over a restart, and when a late answer makes the replica forget whom it followed.
//!
//! Ticks are counted where time is known to have passed: those made up for after a pause are not, since a message may have
//! come at its end.

use super::{ELECTION_TICKS, Group, Role};
use crate::replication::log::Vote;
use raft::eraftpb::{Message, MessageType};
use raft::{CAMPAIGN_TRANSFER, StateRole};

/// Who was left without an answer to the question whether it would be elected asks again every so many ticks.
const ASK_AGAIN_TICKS: u64 = 3;
/// Last so many ticks after it asked first: no promise that there was then lasts longer.
const ASK_AGAIN_TICKS_MAX: u64 = ELECTION_TICKS as u64 + 2;

/// Until when a replica keeps out of elections.
pub(super) struct Promise {
    /// As of this tick, if it was ever given; before a restart it may have been given at any time.
    given: Option<u64>,
    /// The leader was heard since the last tick: it is given as of the next.
    is_renewed: bool,
    /// When this replica asked others first whether they would elect it, in ticks: their promise may have held.
    asked: Option<u64>,
}

impl Promise {
    /// As a replica starts: one that has seen a term before may have promised just now.
    pub fn at_start(vote: Vote) -> Self {
        Self { given: (vote.term > 0).then_some(0), is_renewed: false, asked: None }
    }

    fn holds(&self, ticks: u64) -> bool {
        self.is_renewed || self.given.is_some_and(|given| ticks - given < ELECTION_TICKS as u64)
    }
}

impl Group {
    /// Whether a message asks this replica to break its promise. A leader that hands over releases it.
    pub(super) fn asks_to_break_promise(&self, message: &Message) -> bool {
        let is_question =
            matches!(message.msg_type, MessageType::MsgRequestVote | MessageType::MsgRequestPreVote);
        let asks = is_question && message.context != CAMPAIGN_TRANSFER && self.promise.holds(self.ticks);
        if asks {
            let Message { from, term, .. } = message;
            tracing::debug!(shard = %self.shard, from, term, "gives no vote: has promised a leader to wait");
        }
        asks
    }

    /// A message was taken: if it is of this term's leader, the promise is given anew.
    pub(super) fn promise_if_led(&mut self, is_of_leader: bool, from: u64, term: u64) {
        let raft = &self.node.raft;
        if is_of_leader && raft.leader_id == from && raft.term == term {
            self.promise.is_renewed = true;
        }
    }

    /// Time passes, in ticks since it did last. A leader makes up for all of a pause, so that it knows that others may
    /// have been elected; nobody else does: see above.
    pub fn pass(&mut self, ticks: u64) {
        let is_leader = matches!(self.role, Role::Leader { .. });
        let is_forgiven = is_leader && ticks >= ELECTION_TICKS as u64 && self.forgive_pause();
        for _ in 0..if is_leader { ticks } else { ticks.min(1) } {
            self.ticks += 1;
            if std::mem::take(&mut self.promise.is_renewed) && !is_leader {
                self.promise.given = Some(self.ticks);
            } else if !self.sleeps_through_tick() {
                self.node.tick();
                self.ask_again();
            }
        }
        if is_leader {
            self.pulse.skip(ticks.saturating_sub(1), self.ticks);
        }
        if is_forgiven {
            self.node.raft.election_elapsed = 0;
            self.pulse.begin(self.ticks);
            self.outrun = self.outrun.map(|(index, _)| (index, self.ticks));
        }
        self.look_at_disk();
        self.look_at_pulse();
        self.look_at_role();
    }

    /// Others may have heard the leader for longer than this replica has, and leave its question without an answer. By itself
    /// it would ask again an election's time later, and does that, too; to ask commits nobody to anything.
    fn ask_again(&mut self) {
        let raft = &self.node.raft;
        if raft.state != StateRole::PreCandidate {
            self.promise.asked = None;
            return;
        }
        let since = self.ticks - *self.promise.asked.get_or_insert(self.ticks);
        let is_due = (1..=ASK_AGAIN_TICKS_MAX).contains(&since) && since.is_multiple_of(ASK_AGAIN_TICKS);
        if is_due
            && raft.promotable()
            && !self.pulse.is_reluctant(self.ticks)
            && let Err(error) = self.node.campaign()
        {
            tracing::debug!(shard = %self.shard, %error, "does not ask again");
        }
    }

    /// This process has not run, or the machine's clock was set ahead: nobody could answer meanwhile, and neither links nor
    /// the disk were slow. All count as heard, and have an election's time from then on; but not twice without a word of
    /// anybody, or a leader that is cut off and stumbles would lead for ever. To be called before its ticks; whether it is so.
    fn forgive_pause(&mut self) -> bool {
        let own = self.node.raft.id;
        let is_news = |at: u64| self.heard.iter().any(|(id, heard)| *id != own && *heard > at);
        let is_forgiven = self.forgiven_at.is_none_or(is_news);
        if is_forgiven {
            self.forgiven_at = Some(self.ticks);
            for (_, progress) in self.node.raft.mut_prs().iter_mut() {
                progress.recent_active = true;
            }
        }
        is_forgiven
    }
}

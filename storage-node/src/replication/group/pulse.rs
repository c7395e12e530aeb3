//! Whether a leader's word gets there and back in time. A leader whose link is slow, and not dead, loses nobody by silence:
//! what waits before the link arrives late, and one after another, for longer than anybody would wait for a word. Its
//! followers stay loyal, the library hears answers in every election's time, and nothing is committed for seconds.
//!
//! So heartbeats say when they were sent, answers say it back, and a leader leads for as long as a majority has answered
//! one that is not older than an election's time: what counts is when it was asked, as for a lease. It gives way where
//! the others can elect one of theirs without it; where too few are heard at all it is the library that decides. One that
//! gives way names the nodes whose answers are late: what is on its way to them is to be dropped, since every old word of
//! it asks them to wait for longer.

use super::{ELECTION_TICKS, Group, Role, is_of_leader};
use crate::plant::{self, Plant};
use raft::INVALID_ID;
use raft::eraftpb::{Message, MessageType};
use std::collections::{BTreeMap, BTreeSet};

/// Age of the last answered heartbeat, in ticks, up to which a link is quick enough.
const ANSWERED_TICKS_MAX: u64 = ELECTION_TICKS as u64;
/// Who has given way for a slow link lets the others stand first, for so many ticks: two elections and a half.
const RELUCTANT_TICKS: u64 = 5 * ELECTION_TICKS as u64;
/// Who was heard within so many ticks is there to elect another leader.
const THERE_TICKS: u64 = 2 * ELECTION_TICKS as u64;

/// What is known of the time that heartbeats take.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    /// Of a leader: when the newest heartbeat was sent that another replica has answered, in ticks.
    answered: BTreeMap<u64, u64>,
    /// Who has answered at all in its term.
    has_answered: BTreeSet<u64>,
    /// Of a follower: its leader, that one's term, and what its newest heartbeat said of its time.
    heard: Option<(u64, u64, u64)>,
    /// Until then others are to lead, in ticks.
    reluctant_until: u64,
    /// Nodes for which this leader gave way.
    late: Vec<u32>,
}

impl Pulse {
    /// Whether others are to stand for election first.
    pub fn is_reluctant(&self, ticks: u64) -> bool {
        ticks < self.reluctant_until
    }

    /// What a message says of time. 0: nothing.
    pub fn beat_of(&self, message: &Message, ticks: u64) -> u64 {
        match (message.msg_type, self.heard) {
            (MessageType::MsgHeartbeat, _) => ticks + 1,
            (MessageType::MsgHeartbeatResponse, Some((leader, _, beat))) if leader == message.to => beat,
            _ => 0,
        }
    }

    /// A leader begins: nobody has answered it.
    pub fn begin_term(&mut self, ticks: u64) {
        self.has_answered.clear();
        self.begin(ticks);
    }

    /// Nothing was asked for a while: everybody counts as heard just now.
    pub fn begin(&mut self, ticks: u64) {
        self.answered.values_mut().for_each(|answered| *answered = ticks);
    }

    /// Ticks were made up for, up to this one: no link was slow in a turn that took long.
    pub fn skip(&mut self, made_up: u64, ticks: u64) {
        self.answered.values_mut().for_each(|answered| *answered = (*answered + made_up).min(ticks));
    }
}

impl Group {
    /// A heartbeat or its answer was taken.
    pub(super) fn take_beat(&mut self, kind: MessageType, from: u64, term: u64, beat: u64) {
        let raft = &self.node.raft;
        if term != raft.term {
            return;
        }
        match kind {
            MessageType::MsgHeartbeat if raft.leader_id == from => {
                // One that was overtaken on its way is no news.
                let before =
                    self.pulse.heard.filter(|(leader, led_in, _)| (*leader, *led_in) == (from, term));
                let newest = before.map_or(beat, |(_, _, newest)| newest.max(beat));
                self.pulse.heard = Some((from, term, newest));
            }
            MessageType::MsgHeartbeatResponse if matches!(self.role, Role::Leader { .. }) => {
                self.pulse.has_answered.insert(from);
                // Releases before say nothing of it: theirs counts as one to the heartbeat just before.
                let sent = beat.checked_sub(1).unwrap_or(self.ticks).min(self.ticks);
                let answered = self.pulse.answered.entry(from).or_insert(sent);
                *answered = sent.max(*answered);
            }
            _ => {}
        }
    }

    /// Nodes whose answers were so late that this leader gave way. Once.
    pub fn take_late(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.pulse.late)
    }

    /// Nothing leaves this leader while its own disk is behind: no link was slow meanwhile.
    pub fn hold_breath(&mut self) {
        self.pulse.begin(self.ticks);
    }

    /// Whether others have a majority without this leader, by who has answered it in this term and was heard lately.
    fn could_be_replaced(&self) -> bool {
        let raft = &self.node.raft;
        let is_there = |id: &u64| {
            let heard = self.heard.get(id).copied().unwrap_or(0);
            *id != raft.id
                && self.pulse.has_answered.contains(id)
                && self.ticks.saturating_sub(heard) <= THERE_TICKS
        };
        let there = raft.prs().iter().map(|(id, _)| *id).filter(is_there);
        raft.prs().has_quorum(&there.collect())
    }

    /// A leader whom no majority answers in time gives way.
    pub(super) fn look_at_pulse(&mut self) {
        // A leader of before that gives way this soon is hardly ever read from, and with that bug it is to be.
        if !matches!(self.role, Role::Leader { .. })
            || self.is_hibernating()
            || plant::active(Plant::StaleRead)
        {
            return;
        }
        let ticks = self.ticks;
        let raft = &self.node.raft;
        let ids: Vec<u64> = raft.prs().iter().map(|(id, _)| *id).collect();
        let in_time = |answered: u64| ticks.saturating_sub(answered) <= ANSWERED_TICKS_MAX;
        let answered = &mut self.pulse.answered;
        answered.retain(|id, _| ids.contains(id));
        // Who came just now has as much time as all had when the term began.
        let mut is_prompt = |id: &u64| *id == raft.id || in_time(*answered.entry(*id).or_insert(ticks));
        let (prompt, late): (Vec<u64>, Vec<u64>) = ids.into_iter().partition(|id| is_prompt(id));
        if raft.prs().has_quorum(&prompt.into_iter().collect()) || !self.could_be_replaced() {
            return;
        }
        tracing::warn!(shard = %self.shard, ?late, "a majority answers too late: gives way");
        self.pulse.reluctant_until = ticks + RELUCTANT_TICKS;
        self.pulse.late = late.into_iter().filter_map(|id| u32::try_from(id).ok()).collect();
        let raft = &mut self.node.raft;
        raft.become_follower(raft.term, INVALID_ID);
        // Its last words would keep the others waiting.
        raft.msgs.retain(|message| !is_of_leader(message));
    }
}

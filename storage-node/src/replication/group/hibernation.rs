//! Groups of which nothing is wanted hibernate: they exchange no heartbeats and count no time.
//!
//! ```text
//!           quiet for a while, all have all of the log, each follower says that it would
//!    awake ------------------------------------------------------------------------------> hibernating
//!      ^                                                                                       |
//!      +-- anything else is said or asked; or the other side's node was not heard for a while --+
//! ```
//!
//! A leader marks the heartbeats of a quiet group, and a follower that has nothing under way hibernates with its answer;
//! the leader does once every other replica has answered so. In place of all their heartbeats the nodes tell each other
//! for which shards they go on (`worker/hibernation.rs`), as often: a follower that does not hear of its shard from its
//! leader's node wakes and has as much patience left as if a heartbeat had been the last it heard, and a leader that does
//! not hear of one of its followers wakes and asks all of them.
//!
//! Nothing rests on it: who votes for whom, what is committed and which leases hold depends on Raft's messages alone. A
//! replica that hibernates while another one does not believe so is woken by the next heartbeat, or by silence.

use super::{ELECTION_TICKS, Group, HEARTBEAT_TICKS, Role};
use raft::eraftpb::{Message, MessageType};
use raft::{ProgressState, StateRole};
use std::collections::BTreeSet;

/// Ticks without anything but heartbeats after which a leader lets its group hibernate: a second.
const QUIET_TICKS: u64 = 10;
/// Ticks without a word of the other side's node after which a replica wakes: two words that did not come.
const UNHEARD_TICKS_MAX: u64 = 2 * HEARTBEAT_TICKS as u64;

// Whoever wakes for silence has patience left, so that a word that was only late leads to no election.
const _: () = assert!(2 * UNHEARD_TICKS_MAX < ELECTION_TICKS as u64);

/// Whether a replica hibernates.
#[derive(Debug, Default)]
pub(super) struct Hibernation {
    /// When something last happened that was no heartbeat, in ticks.
    busy_at: u64,
    /// Of a leader: the others that said that they hibernate, in its term and since then.
    ready: BTreeSet<u64>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum State {
    #[default]
    Awake,
    Leading,
    Following {
        leader: u64,
        term: u64,
        /// When its leader's node was heard of last, in ticks.
        heard_at: u64,
    },
}

impl Hibernation {
    /// Of a replica that is awake and has something to do at this tick.
    pub fn at(ticks: u64) -> Self {
        Self { busy_at: ticks, ..Self::default() }
    }
}

impl Group {
    /// Whether nothing is exchanged now but that both sides go on.
    pub fn is_hibernating(&self) -> bool {
        self.hibernation.state != State::Awake
    }

    /// The nodes that are to be told that this leader goes on: nobody while it is awake.
    pub fn hibernates_with(&self) -> impl Iterator<Item = u32> + '_ {
        let is_leading = self.hibernation.state == State::Leading;
        let own = self.node.raft.id;
        let replicas = self.node.raft.prs().iter().map(|(id, _)| *id);
        replicas.filter(move |id| is_leading && *id != own).filter_map(|id| u32::try_from(id).ok())
    }

    /// The node of this shard's leader goes on for it. `true`: so does this replica, which hibernates with it.
    pub fn hear_leaders_node(&mut self, node: u32) -> bool {
        match &mut self.hibernation.state {
            State::Following { leader, heard_at, .. } if *leader == u64::from(node) => {
                *heard_at = self.ticks;
                true
            }
            _ => false,
        }
    }

    /// The replica on this node hibernates, and follows this one.
    pub fn hear_followers_node(&mut self, node: u32) {
        if self.hibernation.state == State::Leading {
            self.heard.insert(u64::from(node), self.ticks);
        }
    }

    /// Something is wanted of this leader.
    pub(super) fn be_busy(&mut self) {
        if self.hibernation.state == State::Leading {
            self.pulse.begin(self.ticks);
        }
        self.hibernation = Hibernation::at(self.ticks);
    }

    /// A message is about to be taken: what is no heartbeat of the hibernation itself ends it.
    pub(super) fn wake_for(&mut self, message: &Message, hibernates: bool) {
        let (kind, term) = (message.msg_type, message.term);
        let goes_on = match self.hibernation.state {
            State::Awake => true,
            State::Leading => kind == MessageType::MsgHeartbeatResponse && term == self.node.raft.term,
            State::Following { leader, term: led_in, .. } => {
                hibernates && kind == MessageType::MsgHeartbeat && (message.from, term) == (leader, led_in)
            }
        };
        if !goes_on {
            self.wake();
        }
        if !matches!(kind, MessageType::MsgHeartbeat | MessageType::MsgHeartbeatResponse) {
            self.be_busy();
        }
    }

    /// Heartbeats go on.
    fn wake(&mut self) {
        let state = self.hibernation.state;
        self.be_busy();
        match state {
            State::Awake => {}
            State::Leading => self.node.ping(),
            State::Following { heard_at, .. } => {
                let unheard = usize::try_from(self.ticks - heard_at).unwrap_or(usize::MAX);
                self.node.raft.election_elapsed = unheard.min(ELECTION_TICKS - 1);
            }
        }
    }

    /// A heartbeat or its answer was taken: of one that hibernates, or that would.
    pub(super) fn hibernate_for(&mut self, heartbeat: Heartbeat) {
        let raft = &self.node.raft;
        let Heartbeat { kind, from, term, commit, hibernates } = heartbeat;
        if term != raft.term {
            return;
        }
        match kind {
            MessageType::MsgHeartbeat => {
                let has_all = self.is_at_rest() && commit == raft.raft_log.last_index();
                let follows = raft.state == StateRole::Follower && raft.leader_id == from;
                if hibernates && has_all && follows {
                    self.hibernation.state = State::Following { leader: from, term, heard_at: self.ticks };
                }
            }
            MessageType::MsgHeartbeatResponse if !hibernates => {
                self.hibernation.ready.remove(&from);
            }
            MessageType::MsgHeartbeatResponse => {
                self.hibernation.ready.insert(from);
                let ready = &self.hibernation.ready;
                let mut others = raft.prs().iter().map(|(id, _)| id).filter(|id| **id != raft.id);
                if others.all(|id| ready.contains(id)) && self.is_quiet() {
                    self.hibernation.state = State::Leading;
                }
            }
            _ => {}
        }
    }

    /// Whether this is a leader of which nothing was wanted for a while, that hears everybody, and whose log is everywhere.
    pub(super) fn is_quiet(&self) -> bool {
        let raft = &self.node.raft;
        let is_heard = |id: &u64| {
            self.heard.get(id).is_some_and(|heard| self.ticks.saturating_sub(*heard) <= ELECTION_TICKS as u64)
        };
        let last = raft.raft_log.last_index();
        matches!(self.role, Role::Leader { .. })
            && self.ticks - self.hibernation.busy_at >= QUIET_TICKS
            && self.is_at_rest()
            && raft.lead_transferee.is_none()
            && self.replicas().voters_outgoing.is_empty()
            && raft.prs().iter().filter(|(id, _)| **id != raft.id).all(|(id, progress)| {
                is_heard(id) && progress.matched == last && progress.state != ProgressState::Snapshot
            })
    }

    /// What is to be marked of what this replica sends now.
    pub(super) fn marks(&self) -> Marks {
        let leader = match self.hibernation.state {
            State::Following { leader, .. } => leader,
            State::Awake | State::Leading => 0,
        };
        Marks { is_quiet: self.is_quiet(), last: self.node.raft.raft_log.last_index(), leader }
    }

    /// A tick passes. `true`: the consensus library need not count it.
    pub(super) fn sleeps_through_tick(&mut self) -> bool {
        let raft = &self.node.raft;
        let is_silent = |heard: u64| self.ticks.saturating_sub(heard) > UNHEARD_TICKS_MAX;
        match self.hibernation.state {
            State::Awake => return false,
            State::Leading => {
                let others = raft.prs().iter().map(|(id, _)| *id).filter(|id| *id != raft.id);
                let silent: Vec<u64> =
                    others.filter(|id| self.heard.get(id).is_none_or(|heard| is_silent(*heard))).collect();
                if !silent.is_empty() {
                    self.wake_for_silence_of(&silent);
                }
            }
            State::Following { heard_at, .. } if is_silent(heard_at) => self.wake(),
            State::Following { .. } => {}
        }
        true
    }

    /// By a leader: a majority has to answer within an election's time from now, or it gives way, as if it had been awake.
    fn wake_for_silence_of(&mut self, silent: &[u64]) {
        let raft = &mut self.node.raft;
        raft.election_elapsed = 0;
        for id in silent {
            if let Some(progress) = raft.mut_prs().get_mut(*id) {
                progress.recent_active = false;
            }
        }
        self.wake();
    }

    /// Hibernates no more if it leads or follows otherwise than when it began.
    pub(super) fn wake_for_role(&mut self) {
        let raft = &self.node.raft;
        let is_as_before = match self.hibernation.state {
            State::Awake => true,
            State::Leading => raft.state == StateRole::Leader,
            State::Following { leader, term, .. } => {
                raft.state == StateRole::Follower && (raft.leader_id, raft.term) == (leader, term)
            }
        };
        if !is_as_before {
            self.be_busy();
        }
    }
}

/// What hibernation needs to know of a heartbeat, or of the answer to one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heartbeat {
    pub kind: MessageType,
    pub from: u64,
    pub term: u64,
    pub commit: u64,
    /// Its sender hibernates, or would.
    pub hibernates: bool,
}

/// Which of a replica's messages are marked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Marks {
    is_quiet: bool,
    last: u64,
    leader: u64,
}

impl Marks {
    /// Whether this one says that its sender hibernates, or would. A read's question never does: it is to wake.
    pub fn has(self, message: &Message) -> bool {
        message.context.is_empty()
            && match message.msg_type {
                MessageType::MsgHeartbeat => self.is_quiet && message.commit == self.last,
                MessageType::MsgHeartbeatResponse => message.to == self.leader,
                _ => false,
            }
    }
}

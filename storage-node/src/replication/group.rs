//! One shard's Raft group on this node: one replica of one or several. `raft-rs` decides, this drives it: writes go to
//! the log thread, and nothing that rests on a write is said or committed before that thread reports it persisted.
//!
//! Messages of a leader go out at once, so that followers write while it writes (Ongaro 2014, 10.2.1); all others
//! wait for the writes before them.

mod hibernation;
mod poll;
mod promise;
mod pulse;
mod shard_log;
mod standing;
mod step;

use super::log::{Log, LogWrite, Vote};
use super::message::{point, snapshot};
use super::replicas::{ReplicaChange, Replicas, decode_change, proposal, turn_of_election};
use super::{LogEntry, ReplicationError, is_holder};
use hibernation::Hibernation;
use promise::Promise;
use pulse::Pulse;
use raft::eraftpb::{ConfChangeType, EntryType, Message, MessageType};
use raft::{
    Config, GetEntriesContext, INVALID_ID, ProgressState, RawNode, ReadOnlyOption, SnapshotStatus, StateRole,
};
use shard_log::ShardLog;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use wire_protocol::ids::ShardId;
use wire_protocol::internal::{RaftMessage, ReplicaSet};

/// Bytes of committed entries that one `poll` hands out: bounds what a recovery holds in memory at once.
const COMMITTED_BYTES_MAX: u64 = 1024 * 1024;
/// Bytes of entries in one message, but for a single larger one: with [`APPENDS_IN_FLIGHT_MAX`] it bounds what a shard has
/// on its way to a replica that lags, and with it the wait of everybody else's messages on that link.
const APPEND_BYTES_MAX: u64 = 256 * 1024;
/// Messages with entries that a leader sends to a follower before the first is answered.
const APPENDS_IN_FLIGHT_MAX: usize = 16;
/// Time of a tick, in milliseconds.
pub const TICK_MS: u64 = 100;
/// Ticks without a heartbeat for which followers vote for nobody else: that bounds a leader's lease. Then the first of them
/// stands for election.
pub(crate) const ELECTION_TICKS: usize = 10;
/// The others wait longer, by less than this and each by another number: votes are not split, and nothing is left to chance.
const ELECTION_TICKS_SPREAD: usize = 10;
/// Who has just given way waits longer than all others.
const RELUCTANT_ELECTION_TICKS: usize = ELECTION_TICKS + 2 * ELECTION_TICKS_SPREAD;
/// Ticks without a word after which a replica does not keep the log from being cut, if that has grown large: ten seconds.
const SILENT_TICKS: u64 = 100;
/// Ticks between heartbeats.
const HEARTBEAT_TICKS: usize = 2;
/// Time between heartbeats, in milliseconds.
pub(crate) const HEARTBEAT_MS: u64 = HEARTBEAT_TICKS as u64 * TICK_MS;

/// What a replica is, now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// It takes proposals.
    Leader {
        /// The term it leads in.
        term: u64,
        /// Once this index is applied, the state holds everything that was ever acknowledged.
        recovered_at: u64,
    },
    /// Another one leads, or is being looked for.
    Follower {
        /// The leader's node, if it is known.
        leader: Option<u32>,
    },
}

/// What a group wants done.
#[derive(Debug, Default)]
pub struct GroupOutput {
    /// To be written and synced; then call [`Group::persisted`] with its number.
    pub write: Option<LogWrite>,
    /// Committed: to be applied; then call [`Group::applied`].
    pub committed: Vec<LogEntry>,
    /// To other nodes, in this order for each. May be lost.
    pub messages: Vec<RaftMessage>,
    /// Reads that were asked for with [`Group::read_barrier`], each with the index that has to be applied first.
    pub readable: Vec<(u64, u64)>,
    /// The log does not reach this node's replica any more: make a snapshot for it, then call [`Group::offer_snapshot`].
    pub snapshot_wanted: Option<u32>,
    /// What goes with the snapshot that was offered. How that ended is to be told to [`Group::snapshot_sent`].
    pub snapshot_message: Option<RaftMessage>,
    /// The snapshot that came with the leader's message takes the place of log and state here. Nothing more is polled
    /// before [`Group::restored`].
    pub restore: Option<u64>,
}

/// Where a replica stands in the election of its term, for simulations that watch elections.
#[cfg(any(test, feature = "sim"))]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standing {
    /// The newest it knows.
    pub term: u64,
    /// Whether it won.
    pub leads: bool,
    /// The node it gave its vote to, if any; it may not be on disk yet.
    pub voted_for: Option<u32>,
    /// Ticks until it stands for election, if it hears nobody and does not lead.
    pub stands_in_ticks: u64,
}

/// For whom a leader keeps its log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum KeptFor {
    /// Every replica.
    #[default]
    All,
    /// Those that have been heard of lately: the others will need a snapshot.
    Heard,
    /// This one: the log takes more room than it may.
    Own,
}

/// The consensus of one shard, as one replica sees it.
pub struct Group {
    node: RawNode<ShardLog>,
    shard: ShardId,
    vote: Vote,
    role: Role,
    /// Numbers of writes that are not persisted.
    writing: VecDeque<u64>,
    /// Messages that wait for the write of this number and all before it.
    held: VecDeque<(u64, Vec<Message>)>,
    /// What may be sent.
    outgoing: Vec<Message>,
    /// The ready that a snapshot came with, until it is installed.
    restoring: Option<u64>,
    /// Ticks since the opening, and when each other replica was heard of last.
    ticks: u64,
    heard: BTreeMap<u64, u64>,
    /// What others have on disk and this replica has not, and since which tick.
    outrun: Option<(u64, u64)>,
    /// When a pause of this process was last made nobody's fault, in ticks.
    forgiven_at: Option<u64>,
    /// Replicas that went while this one has led in its term.
    removed: BTreeSet<u64>,
    promise: Promise,
    pulse: Pulse,
    hibernation: Hibernation,
    /// Who should lead while all are well.
    preferred: u32,
}

impl Group {
    /// Opens the replica over what the log holds. The only one leads at once. `applied`: the stored state's index.
    pub fn open(
        log: Arc<Log>,
        shard: ShardId,
        applied: u64,
        replicas: &Replicas,
    ) -> Result<Self, ReplicationError> {
        let storage = ShardLog::open(Arc::clone(&log), shard, applied, replicas)?;
        let vote = storage.vote;
        let config = Config {
            id: u64::from(replicas.own),
            applied,
            election_tick: ELECTION_TICKS,
            // The library draws a number between them; it is set anew whenever it did.
            min_election_tick: ELECTION_TICKS,
            max_election_tick: RELUCTANT_ELECTION_TICKS + 1,
            heartbeat_tick: HEARTBEAT_TICKS,
            max_size_per_msg: APPEND_BYTES_MAX,
            max_inflight_msgs: APPENDS_IN_FLIGHT_MAX,
            max_committed_size_per_ready: COMMITTED_BYTES_MAX,
            check_quorum: true,
            pre_vote: true,
            read_only_option: ReadOnlyOption::Safe,
            ..Config::default()
        };
        let logger = slog::Logger::root(ToTracing { folder: log.folder().to_owned() }, slog::o!());
        let refused = |error: raft::Error| ReplicationError::Refused { shard, detail: error.to_string() };
        let mut node = RawNode::new(&config, storage, &logger).map_err(refused)?;
        if replicas.set.voters == [replicas.own] && replicas.set.voters_outgoing.is_empty() {
            node.campaign().map_err(refused)?;
        }
        let mut group = Self {
            node,
            shard,
            vote,
            role: Role::Follower { leader: None },
            writing: VecDeque::new(),
            held: VecDeque::new(),
            outgoing: Vec::new(),
            restoring: None,
            ticks: 0,
            heard: BTreeMap::new(),
            outrun: None,
            forgiven_at: None,
            removed: BTreeSet::new(),
            promise: Promise::at_start(vote),
            pulse: Pulse::default(),
            hibernation: Hibernation::default(),
            preferred: replicas.preferred,
        };
        group.look_at_role();
        Ok(group)
    }

    /// The group anew, over a log that was removed.
    pub fn reopen(&self, replicas: &Replicas) -> Result<Self, ReplicationError> {
        Self::open(Arc::clone(&self.node.store().log), self.shard, 0, replicas)
    }

    /// What this replica is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// What it is and how far, for a person who looks for the reason of something.
    #[cfg(any(test, feature = "sim"))]
    pub fn status(&self) -> String {
        let raft = &self.node.raft;
        let log = &raft.raft_log;
        let progress: Vec<String> = match raft.state {
            StateRole::Leader => raft.prs().iter().map(|(id, it)| format!("{id}: {it:?}")).collect(),
            _ => Vec::new(),
        };
        format!(
            "{:?} of {} in term {}: log {} to {}, persisted {}, committed {}, applied {}; writing {:?}, held {}, \
             restoring {:?}; {}",
            raft.state,
            raft.leader_id,
            raft.term,
            log.first_index(),
            log.last_index(),
            log.persisted,
            log.committed,
            log.applied,
            self.writing,
            self.held.len(),
            self.restoring,
            progress.join("; ")
        )
    }

    /// Where it stands in the election of its term.
    #[cfg(any(test, feature = "sim"))]
    pub fn standing(&self) -> Standing {
        let raft = &self.node.raft;
        let voted_for = u32::try_from(raft.vote).ok().filter(|node| *node > 0);
        let stands_in = raft.randomized_election_timeout().saturating_sub(raft.election_elapsed);
        Standing {
            term: raft.term,
            leads: raft.state == StateRole::Leader,
            voted_for,
            stands_in_ticks: stands_in as u64,
        }
    }

    /// Grows with every election.
    pub fn term(&self) -> u64 {
        self.node.raft.term
    }

    /// Another node should lead while all are well.
    pub fn prefer(&mut self, node: u32) {
        self.preferred = node;
        self.take_turn();
    }

    /// This replica's turn to stand for election, whatever number the library has drawn.
    fn take_turn(&mut self) {
        let leader = u32::try_from(self.node.raft.leader_id).unwrap_or(0);
        let (before, of) = turn_of_election(self.replicas(), self.own(), self.preferred, leader);
        // Who has heard the same leader has promised it to wait, and ticks at another moment of the same time.
        let promised = usize::from(leader != 0);
        let ticks = match self.pulse.is_reluctant(self.ticks) {
            true => RELUCTANT_ELECTION_TICKS,
            false => ELECTION_TICKS + promised + ELECTION_TICKS_SPREAD * before / of,
        };
        self.node.raft.set_randomized_election_timeout(ticks);
    }

    fn look_at_role(&mut self) {
        self.take_turn();
        if self.node.raft.state != StateRole::Leader {
            // What this replica offered it does not send any more: the next leader makes its own, be it this one.
            self.node.mut_store().offered = None;
        }
        self.wake_for_role();
        let raft = &self.node.raft;
        self.role = match (raft.state, self.role) {
            (StateRole::Leader, Role::Leader { term, .. }) if term == raft.term => return,
            // The term's first entry was just appended, and nothing behind it yet.
            (StateRole::Leader, _) => {
                self.removed.clear();
                self.hibernation = Hibernation::at(self.ticks);
                self.pulse.begin_term(self.ticks);
                self.heard = raft.prs().iter().map(|(id, _)| (*id, self.ticks)).collect();
                Role::Leader { term: raft.term, recovered_at: raft.raft_log.last_index() }
            }
            _ => {
                let leader = u32::try_from(raft.leader_id).ok().filter(|leader| *leader > 0);
                Role::Follower { leader: leader.filter(|leader| u64::from(*leader) != raft.id) }
            }
        };
    }

    /// Whether [`Self::propose`] takes an entry now: by a leader that is not handing over to another.
    pub fn can_propose(&self) -> bool {
        matches!(self.role, Role::Leader { .. }) && self.node.raft.lead_transferee.is_none()
    }

    /// Appends an entry and gives its index; see [`Self::can_propose`]. It may still be lost until it comes out as committed.
    pub fn propose(&mut self, record: Vec<u8>) -> Result<u64, ReplicationError> {
        assert!(matches!(self.role, Role::Leader { .. }), "only a leader proposes");
        self.be_busy();
        self.node.propose(Vec::new(), record).map_err(|error| self.refused(&error))?;
        Ok(self.node.raft.raft_log.last_index())
    }

    /// The replicas as of what is committed here.
    pub fn replicas(&self) -> &ReplicaSet {
        &self.node.store().replicas
    }

    /// Whether this node holds a replica, as far as it knows.
    pub fn is_holder(&self) -> bool {
        is_holder(self.replicas(), self.own())
    }

    /// Index of a change in this log, behind what is applied, that makes this node a replica again; `None`: there is none,
    /// or a later one takes it out. Whoever has acknowledged such a change may not forget what is before it.
    pub fn comes_back_at(&self) -> Option<u64> {
        let (log, own) = (&self.node.raft.raft_log, self.node.raft.id);
        let (mut next, mut newest) = (log.applied + 1, None);
        while next <= log.last_index() {
            let to = log.last_index() + 1;
            let entries = log.slice(next, to, COMMITTED_BYTES_MAX, GetEntriesContext::empty(false));
            // A log that cannot be read says so where it is applied.
            let entries = entries.unwrap_or_default();
            let Some(last) = entries.last() else { break };
            next = last.index + 1;
            for entry in entries.iter().filter(|entry| entry.entry_type != EntryType::EntryNormal) {
                let change = decode_change(self.shard, &entry.data).unwrap_or_default();
                let of_own = change.changes.iter().rev().find(|single| single.node_id == own);
                newest = of_own.map(|single| (entry.index, single.change_type)).or(newest);
            }
        }
        newest.filter(|(_, kind)| *kind != ConfChangeType::RemoveNode).map(|(index, _)| index)
    }

    fn own(&self) -> u32 {
        u32::try_from(self.node.raft.id).expect("ids of replicas are those of their nodes")
    }

    /// Proposes a change of the replicas. It may come to nothing: by a loss of the leader, or as one before it is not over.
    pub fn propose_change(&mut self, changes: &[ReplicaChange]) -> Result<(), ReplicationError> {
        assert!(matches!(self.role, Role::Leader { .. }), "only a leader proposes");
        self.be_busy();
        let proposed = self.node.propose_conf_change(Vec::new(), proposal(changes));
        proposed.map_err(|error| self.refused(&error))
    }

    /// Whether a replica of this node went in the term that this one leads in. What it acknowledged may still be on its
    /// way, and would count for a new one, which has nothing: that one has to wait for another term.
    pub fn was_removed(&self, node: u32) -> bool {
        self.removed.contains(&u64::from(node))
    }

    /// How far another replica is behind this leader's log, in entries; `None`: it has not been heard of lately, waits for
    /// a snapshot, or has not acknowledged the newest change of the replicas: until then it may not know that it is one of
    /// them again, and remove what it has acknowledged.
    pub fn behind(&self, node: u32) -> Option<u64> {
        let id = u64::from(node);
        let progress = self.node.raft.prs().get(id)?;
        let has_change = progress.matched > 0 && progress.matched >= self.replicas().changed_at;
        let is_well = self.is_heard(id) && progress.state != ProgressState::Snapshot && has_change;
        is_well.then(|| self.node.raft.raft_log.last_index().saturating_sub(progress.matched))
    }

    /// Asks whether this leader still leads; the answer comes as [`GroupOutput::readable`], or never if it does not.
    pub fn read_barrier(&mut self, ticket: u64) {
        self.be_busy();
        self.node.read_index(ticket.to_be_bytes().to_vec());
    }

    /// Hands leadership to another replica, if that one is up to date.
    pub fn transfer_to(&mut self, node: u32) {
        self.be_busy();
        self.node.transfer_leader(u64::from(node));
    }

    /// Whether all of the log is on disk, committed and applied.
    pub fn is_at_rest(&self) -> bool {
        let log = &self.node.raft.raft_log;
        let last = log.last_index();
        self.writing.is_empty() && (log.persisted, log.committed, log.applied) == (last, last, last)
    }

    /// By a leader that alone votes, once it [is at rest](Self::is_at_rest): it leads on in another term. For a replica that
    /// went in this one and is to come back.
    pub fn lead_in_new_term(&mut self) {
        assert!(matches!(self.role, Role::Leader { .. }), "only a leader leads on");
        // The library takes no leader that has not its whole log on disk.
        assert!(self.is_at_rest(), "nothing is under way");
        let raft = &mut self.node.raft;
        raft.become_follower(raft.term, INVALID_ID);
        if let Err(error) = self.node.campaign() {
            tracing::warn!(shard = %self.shard, %error, "does not stand for election yet");
        }
        self.look_at_role();
    }

    /// Whether what is known to be committed is applied.
    pub fn has_applied_committed(&self) -> bool {
        self.node.raft.raft_log.applied >= self.node.raft.raft_log.committed
    }

    /// Entries up to here every other replica has for which the log is kept: of a leader's log it is what may be cut
    /// without leaving one of them behind.
    pub fn matched(&self, kept_for: KeptFor) -> u64 {
        let raft = &self.node.raft;
        let progress = raft.prs().iter().filter(|(id, _)| **id != raft.id);
        progress
            .filter(|(id, _)| match kept_for {
                KeptFor::All => true,
                KeptFor::Heard => self.is_heard(**id),
                KeptFor::Own => false,
            })
            .map(|(_, progress)| progress.matched)
            .min()
            .unwrap_or(u64::MAX)
    }

    /// Whether a replica has said anything within [`SILENT_TICKS`].
    fn is_heard(&self, id: u64) -> bool {
        self.heard.get(&id).is_some_and(|heard| self.ticks.saturating_sub(*heard) <= SILENT_TICKS)
    }

    /// A snapshot for the replica of this node was made: it ends with the entry of this index and term, and these are the
    /// replicas as of it. `false`: it is not led from here any more.
    pub fn offer_snapshot(&mut self, node: u32, index: u64, term: u64, replicas: ReplicaSet) -> bool {
        if !matches!(self.role, Role::Leader { .. }) {
            return false;
        }
        let snapshot = snapshot(&point(index, term, replicas));
        self.node.mut_store().offered = Some((u64::from(node), snapshot));
        true
    }

    /// The snapshot that was offered to this node's replica arrived there, or did not, or is not there any more.
    pub fn snapshot_sent(&mut self, node: u32, has_arrived: bool) {
        self.node.mut_store().offered = None;
        let status = if has_arrived { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
        self.node.report_snapshot(u64::from(node), status);
    }

    fn refused(&self, error: &raft::Error) -> ReplicationError {
        ReplicationError::Refused { shard: self.shard, detail: error.to_string() }
    }
}

/// Whether only a leader says such.
fn is_of_leader(message: &Message) -> bool {
    matches!(message.msg_type, MessageType::MsgAppend | MessageType::MsgHeartbeat | MessageType::MsgSnapshot)
}

/// raft-rs logs through slog; its warnings and errors go where all others go.
struct ToTracing {
    folder: PathBuf,
}

impl slog::Drain for ToTracing {
    type Ok = ();
    type Err = slog::Never;

    fn log(&self, record: &slog::Record<'_>, _values: &slog::OwnedKVList) -> Result<(), slog::Never> {
        if record.level().is_at_least(slog::Level::Error) {
            tracing::error!(log = %self.folder.display(), "{}", record.msg());
        } else if record.level().is_at_least(slog::Level::Warning) {
            tracing::warn!(log = %self.folder.display(), "{}", record.msg());
        }
        Ok(())
    }
}

//! One shard's Raft group on this node: one replica of one or several. `raft-rs` decides, this drives it: writes go to
//! the log thread, and nothing that rests on a write is said or committed before that thread reports it persisted.
//!
//! Messages of a leader go out at once, so that followers write while it writes (Ongaro 2014, 10.2.1); all others
//! wait for the writes before them.

mod standing;

use super::log::{Log, LogRange, LogWrite, Vote};
use super::message::{MessageError, from_wire, snapshot, to_wire};
use super::{LogEntry, ReplicationError};
use raft::eraftpb::{ConfState, Entry, HardState, Message, MessageType, Snapshot};
use raft::{
    Config, GetEntriesContext, RaftState, RawNode, ReadOnlyOption, SnapshotStatus, StateRole, Storage,
    StorageError,
};
use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use wire_protocol::ids::ShardId;
use wire_protocol::internal::{RaftMessage, SnapshotPoint};

/// Bytes of committed entries that one `poll` hands out: bounds what a recovery holds in memory at once.
const COMMITTED_BYTES_MAX: u64 = 1024 * 1024;
/// Bytes of entries in one message, but for a single larger one: with [`APPENDS_IN_FLIGHT_MAX`] it bounds what a shard has
/// on its way to a replica that lags, and with it the wait of everybody else's messages on that link.
const APPEND_BYTES_MAX: u64 = 256 * 1024;
/// Messages with entries that a leader sends to a follower before the first is answered.
const APPENDS_IN_FLIGHT_MAX: usize = 16;
/// Time of a tick, in milliseconds.
pub const TICK_MS: u64 = 100;
/// Ticks without a heartbeat after which a replica that is preferred as leader stands for election, and for which
/// followers who hear their leader vote for nobody else: that bounds a leader's lease.
const ELECTION_TICKS: usize = 10;
/// The others wait longer by as much as this, each by another number: votes are not split, and nothing is left to
/// chance.
const ELECTION_TICKS_SPREAD: usize = 10;
/// Ticks without a word after which a replica does not keep the log from being cut, if that has grown large: ten seconds.
const SILENT_TICKS: u64 = 100;
/// Ticks between heartbeats.
const HEARTBEAT_TICKS: usize = 2;

/// Who holds copies of a shard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Replicas {
    /// This node's id.
    pub own: u32,
    /// Nodes that vote, ascending; the own one among them. One: there is nobody to wait for.
    pub voters: Vec<u32>,
    /// Who should lead while all are well.
    pub preferred: u32,
}

impl Replicas {
    /// One copy, here.
    pub fn alone(own: u32) -> Self {
        Self { own, voters: vec![own], preferred: own }
    }

    /// Ticks after which this replica stands for election.
    fn election_ticks(&self) -> usize {
        if self.own == self.preferred {
            return ELECTION_TICKS;
        }
        let others = self.voters.iter().filter(|voter| **voter != self.preferred);
        let place = others.take_while(|voter| **voter != self.own).count() + 1;
        ELECTION_TICKS + ELECTION_TICKS_SPREAD * place / self.voters.len().max(2)
    }
}

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
        let election_ticks = replicas.election_ticks();
        let config = Config {
            id: u64::from(replicas.own),
            applied,
            election_tick: ELECTION_TICKS,
            min_election_tick: election_ticks,
            max_election_tick: election_ticks + 1,
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
        if replicas.voters == [replicas.own] {
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
        };
        group.look_at_role();
        Ok(group)
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
        Standing { term: raft.term, leads: raft.state == StateRole::Leader, voted_for }
    }

    /// Grows with every election.
    pub fn term(&self) -> u64 {
        self.node.raft.term
    }

    fn look_at_role(&mut self) {
        if self.node.raft.state != StateRole::Leader {
            // What this replica offered it does not send any more: the next leader makes its own, be it this one.
            self.node.mut_store().offered = None;
        }
        let raft = &self.node.raft;
        self.role = match (raft.state, self.role) {
            (StateRole::Leader, Role::Leader { term, .. }) if term == raft.term => return,
            // The term's first entry was just appended, and nothing behind it yet.
            (StateRole::Leader, _) => {
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
        self.node.propose(Vec::new(), record).map_err(|error| self.refused(&error))?;
        Ok(self.node.raft.raft_log.last_index())
    }

    /// Takes another replica's message. What does not fit the present term is left, as Raft says.
    pub fn step(&mut self, message: RaftMessage) -> Result<(), MessageError> {
        let (shard, own) = (self.shard, self.node.raft.id);
        let message = from_wire(message)?;
        if message.to != own {
            return Err(MessageError { shard, what: "another node" });
        }
        if message.from == own || self.node.raft.prs().get(message.from).is_none() {
            return Err(MessageError { shard, what: "a node that holds no replica" });
        }
        if let Some(what) = self.contradiction(&message) {
            return Err(MessageError { shard, what });
        }
        self.heard.insert(message.from, self.ticks);
        if let Err(error) = self.node.step(message) {
            tracing::debug!(%shard, "a Raft message was left: {error}");
        }
        self.look_at_role();
        Ok(())
    }

    /// What in a message cannot be, as this log stands. The library takes such for a fault of its own and panics: a
    /// node that lost its disk, or a message that was made up, would end this process.
    fn contradiction(&self, message: &Message) -> Option<&'static str> {
        let raft = &self.node.raft;
        let last = raft.raft_log.last_index();
        let is_heard = raft.state == StateRole::Leader && message.term == raft.term;
        let is_candidate = matches!(raft.state, StateRole::Candidate | StateRole::PreCandidate);
        match message.msg_type {
            // This replica once said that it had all of this.
            MessageType::MsgHeartbeat if message.commit > last => Some("a commit beyond this log's end"),
            MessageType::MsgAppendResponse if is_heard && message.index.max(message.reject_hint) > last => {
                Some("an index beyond this log's end")
            }
            // A candidate asks once all of its log is on disk.
            MessageType::MsgRequestVoteResponse | MessageType::MsgRequestPreVoteResponse
                if is_candidate && raft.raft_log.persisted < last =>
            {
                Some("an answer to what was not asked yet")
            }
            // The library would pass it on to the leader, and stumble over the term that it has from its way here.
            MessageType::MsgTransferLeader if raft.state != StateRole::Leader => {
                Some("a hand-over to one that does not lead")
            }
            MessageType::MsgSnapshot if self.is_of_others(message.get_snapshot()) => {
                Some("a snapshot for replicas on other nodes")
            }
            _ => None,
        }
    }

    fn is_of_others(&self, snapshot: &Snapshot) -> bool {
        let state = snapshot.get_metadata().get_conf_state();
        state.voters != self.node.store().voters || !state.learners.is_empty()
    }

    /// [`TICK_MS`] have passed.
    pub fn tick(&mut self) {
        self.ticks += 1;
        self.node.tick();
        self.look_at_disk();
        self.look_at_role();
    }

    /// Asks whether this leader still leads; the answer comes as [`GroupOutput::readable`], or never if it does not.
    pub fn read_barrier(&mut self, ticket: u64) {
        self.node.read_index(ticket.to_be_bytes().to_vec());
    }

    /// Hands leadership to another replica, if that one is up to date.
    pub fn transfer_to(&mut self, node: u32) {
        self.node.transfer_leader(u64::from(node));
    }

    /// Entries up to here every other replica has for which the log is kept: of a leader's log it is what may be cut
    /// without leaving one of them behind.
    pub fn matched(&self, kept_for: KeptFor) -> u64 {
        let raft = &self.node.raft;
        let is_heard = |id: u64| {
            self.heard.get(&id).is_some_and(|heard| self.ticks.saturating_sub(*heard) <= SILENT_TICKS)
        };
        let progress = raft.prs().iter().filter(|(id, _)| **id != raft.id);
        progress
            .filter(|(id, _)| match kept_for {
                KeptFor::All => true,
                KeptFor::Heard => is_heard(**id),
                KeptFor::Own => false,
            })
            .map(|(_, progress)| progress.matched)
            .min()
            .unwrap_or(u64::MAX)
    }

    /// A snapshot for the replica of this node was made: it ends with the entry of this index and term. `false`: it is not led
    /// from here any more.
    pub fn offer_snapshot(&mut self, node: u32, index: u64, term: u64) -> bool {
        if !matches!(self.role, Role::Leader { .. }) {
            return false;
        }
        let storage = self.node.mut_store();
        let ids = |ids: &[u64]| ids.iter().filter_map(|id| u32::try_from(*id).ok()).collect();
        let point = SnapshotPoint { index, term, voters: ids(&storage.voters), learners: Vec::new() };
        storage.offered = Some((u64::from(node), snapshot(&point)));
        true
    }

    /// The snapshot that was offered to this node's replica arrived there, or did not, or is not there any more.
    pub fn snapshot_sent(&mut self, node: u32, has_arrived: bool) {
        self.node.mut_store().offered = None;
        let status = if has_arrived { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
        self.node.report_snapshot(u64::from(node), status);
    }

    /// The snapshot of [`GroupOutput::restore`] is installed and durable: the log begins with it, the state is its state.
    pub fn restored(&mut self) {
        let Some(number) = self.restoring.take() else { return };
        assert!(self.writing.is_empty(), "writes before it are waited for");
        let index = self.node.mut_store().restored();
        self.persisted(number);
        self.node.advance_apply_to(index);
        self.look_at_role();
    }

    /// What is to be written, sent, and what is committed. Call until `None`.
    pub fn poll(&mut self) -> Option<GroupOutput> {
        let snapshot_wanted = self.node.store().wanted.take().and_then(|node| u32::try_from(node).ok());
        let is_idle = !self.node.has_ready() && self.outgoing.is_empty() && snapshot_wanted.is_none();
        if is_idle || self.restoring.is_some() {
            return None;
        }
        let mut output = GroupOutput { snapshot_wanted, ..GroupOutput::default() };
        if self.node.has_ready() {
            self.take_ready(&mut output);
        }
        let shard = self.shard;
        for message in self.outgoing.drain(..) {
            let is_copy = message.msg_type == MessageType::MsgSnapshot;
            match to_wire(shard, message) {
                Some(message) if is_copy => output.snapshot_message = Some(message),
                message => output.messages.extend(message),
            }
        }
        Some(output)
    }

    fn take_ready(&mut self, output: &mut GroupOutput) {
        let mut ready = self.node.ready();
        let number = ready.number();
        if !ready.snapshot().is_empty() {
            let metadata = ready.snapshot().get_metadata();
            output.restore = Some(metadata.index);
            self.node.mut_store().restore(metadata.index, metadata.term);
            self.restoring = Some(number);
        }
        let entries = ready.take_entries();
        let vote = ready.hs().map(Vote::of).filter(|vote| *vote != self.vote);
        let committed = ready.take_committed_entries().into_iter();
        output.committed =
            committed.map(|entry| LogEntry { index: entry.index, record: entry.data }).collect();
        output.readable = ready
            .take_read_states()
            .into_iter()
            .filter_map(|state| {
                let ticket = state.request_ctx.as_slice().try_into().ok()?;
                Some((u64::from_be_bytes(ticket), state.index))
            })
            .collect();
        self.outgoing.extend(ready.take_messages());
        let held = ready.take_persisted_messages();
        // A hard state of which only the commit index changed needs no write: at a restart what is committed
        // follows from the log and the applied index.
        if !entries.is_empty() || vote.is_some() {
            // Before `advance_append_async` the entries must be readable through `Storage`.
            self.node.mut_store().append(&entries);
            self.vote = vote.unwrap_or(self.vote);
            self.writing.push_back(number);
            output.write = Some(LogWrite { shard: self.shard, number, entries, vote });
        }
        self.node.advance_append_async(ready);
        if self.writing.is_empty() && self.restoring.is_none() {
            self.outgoing.extend(held);
            self.node.on_persist_ready(number);
        } else if !held.is_empty() {
            self.held.push_back((number, held));
        }
        self.look_at_role();
    }

    /// The write of this number, and all before it, are on disk.
    pub fn persisted(&mut self, number: u64) {
        while self.writing.front().is_some_and(|first| *first <= number) {
            self.writing.pop_front();
        }
        if self.restoring.is_some() {
            return;
        }
        // What was said without a write of its own rests on the writes before it alone.
        let next = self.writing.front().copied().unwrap_or(u64::MAX);
        while self.held.front().is_some_and(|(after, _)| *after < next) {
            let Some((_, messages)) = self.held.pop_front() else { break };
            self.outgoing.extend(messages);
        }
        self.node.on_persist_ready(number);
        self.look_at_role();
    }

    /// Committed entries up to `index` are applied and readable.
    pub fn applied(&mut self, index: u64) {
        self.node.advance_apply_to(index);
        self.node.mut_store().forget_up_to(index);
    }

    fn refused(&self, error: &raft::Error) -> ReplicationError {
        ReplicationError::Refused { shard: self.shard, detail: error.to_string() }
    }
}

/// A shard's log as raft-rs reads it: entries from memory until they are applied, from the files after a restart.
struct ShardLog {
    log: Arc<Log>,
    shard: ShardId,
    last: u64,
    last_term: u64,
    /// Entries that are not applied yet, consecutive up to `last`. Entries before them are in the files.
    unapplied: VecDeque<Entry>,
    vote: Vote,
    /// Stored state's index at the opening.
    applied: u64,
    voters: Vec<u64>,
    /// A snapshot is being installed: until then the files hold another log.
    is_restoring: bool,
    /// The replica that a snapshot is there for, and its point.
    offered: Option<(u64, Snapshot)>,
    /// A replica that the log does not reach, since it was last looked at.
    wanted: Cell<Option<u64>>,
}

impl ShardLog {
    fn open(
        log: Arc<Log>,
        shard: ShardId,
        applied: u64,
        replicas: &Replicas,
    ) -> Result<Self, ReplicationError> {
        let vote = log.vote(shard)?;
        let first = log.cut_index(shard) + 1;
        let last = log.span(shard).map_or(0, |(_, last)| last);
        if applied > last || applied + 1 < first {
            let detail =
                format!("the log holds entries {first} to {last}, the stored state ends at {applied}");
            return Err(log.damaged(shard, detail));
        }
        let mut opened = Self {
            log,
            shard,
            last,
            last_term: 0,
            unapplied: VecDeque::new(),
            vote,
            applied,
            voters: replicas.voters.iter().map(|voter| u64::from(*voter)).collect(),
            is_restoring: false,
            offered: None,
            wanted: Cell::new(None),
        };
        opened.last_term = opened.stored_term(last)?;
        if opened.vote.term < opened.last_term {
            let (vote, entry) = (opened.vote.term, opened.last_term);
            let detail = format!("the vote is of term {vote}, the last entry of term {entry}");
            return Err(opened.log.damaged(shard, detail));
        }
        opened.log.check_entries(shard, LogRange { above: applied, up_to: last })?;
        Ok(opened)
    }

    /// The first index that raft may ask for; the one before it is known by its term alone. It grows as the log is cut, on
    /// another thread.
    fn first(&self) -> u64 {
        if self.is_restoring { self.last + 1 } else { self.log.cut_index(self.shard) + 1 }
    }

    /// A snapshot takes the place of everything up to this point, and of what is behind it.
    fn restore(&mut self, index: u64, term: u64) {
        (self.last, self.last_term) = (index, term);
        self.unapplied.clear();
        self.is_restoring = true;
    }

    /// The files hold it. Gives its index.
    fn restored(&mut self) -> u64 {
        self.is_restoring = false;
        self.last
    }

    /// What an unreadable entry at this index means: it was cut off meanwhile, or the log is damaged.
    fn unreadable(&self, index: u64, error: ReplicationError) -> raft::Error {
        match index < self.first() {
            true => raft::Error::Store(StorageError::Compacted),
            false => raft::Error::Store(StorageError::Other(Box::new(error))),
        }
    }

    fn stored_term(&self, index: u64) -> Result<u64, ReplicationError> {
        if index == 0 {
            return Ok(0);
        }
        match self.log.entry(self.shard, index)? {
            Some(entry) => Ok(entry.term),
            None => Err(self.log.damaged(self.shard, format!("entry {index} is missing"))),
        }
    }

    fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        assert!(first.index <= self.last + 1, "a log has no gap");
        // A new leader's entries take the place of those that its predecessor could not commit.
        while self.unapplied.back().is_some_and(|entry| entry.index >= first.index) {
            self.unapplied.pop_back();
        }
        self.unapplied.extend(entries.iter().cloned());
        if let Some(entry) = self.unapplied.back() {
            (self.last, self.last_term) = (entry.index, entry.term);
        }
    }

    fn forget_up_to(&mut self, index: u64) {
        while self.unapplied.front().is_some_and(|entry| entry.index <= index) {
            self.unapplied.pop_front();
        }
    }

    fn unapplied_at(&self, index: u64) -> Option<&Entry> {
        let first = self.unapplied.front()?.index;
        self.unapplied.get(usize::try_from(index.checked_sub(first)?).ok()?)
    }
}

impl Storage for ShardLog {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let hard_state = HardState {
            term: self.vote.term,
            vote: self.vote.voted_for,
            // At least this much is committed; the rest is committed again by this start's leader.
            commit: self.applied,
            ..HardState::default()
        };
        let mut state = ConfState::default();
        state.voters.clone_from(&self.voters);
        Ok(RaftState::new(hard_state, state))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low < self.first() {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        let bytes_max = max_size.into().unwrap_or(u64::MAX);
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        let in_memory_from = self.unapplied.front().map_or(self.last + 1, |entry| entry.index);
        if low < in_memory_from {
            let high = high.min(in_memory_from);
            let read = self.log.entries(self.shard, low, high, bytes_max);
            return read.map_err(|error| self.unreadable(low, error));
        }
        let mut bytes = 0usize;
        let mut entries = Vec::new();
        for index in low..high {
            let Some(entry) = self.unapplied_at(index) else {
                return Err(raft::Error::Store(StorageError::Unavailable));
            };
            bytes = bytes.saturating_add(entry.data.len());
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(entry.clone());
        }
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.last {
            return Ok(self.last_term);
        }
        if index + 1 < self.first() {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        if index > self.last {
            return Err(raft::Error::Store(StorageError::Unavailable));
        }
        match self.unapplied_at(index) {
            Some(entry) => Ok(entry.term),
            None => self.stored_term(index).map_err(|error| self.unreadable(index + 1, error)),
        }
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.first())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last)
    }

    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        if let Some((node, snapshot)) = &self.offered
            && *node == to
            && snapshot.get_metadata().index >= request_index
        {
            return Ok(snapshot.clone());
        }
        self.wanted.set(Some(to));
        Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable))
    }
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

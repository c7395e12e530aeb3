//! Commands on their way into the log: a bounded queue, packed into one entry a turn, and the entries between
//! being proposed and being applied.

use super::Cuts;
use super::effects::{ApplyEntry, ApplyJob, ApplyWork, Effects};
use crate::clock;
use crate::plant::{self, Plant};
use crate::replication::{Group, LogEntry, ReplicationError, Role, encode_record};
use crate::worker::Origin;
use prost::Message;
use std::collections::VecDeque;
use std::time::Instant;
use wire_protocol::ids::ShardId;
use wire_protocol::internal::{Command, CommandBatch, RaftMessage, ReplicaSet, command};
use wire_protocol::limits::BODY_BYTES_MAX;

/// Commands a shard keeps before it refuses more as overloaded: a tenth of a second at full load.
pub const COMMANDS_WAITING_MAX: usize = 16_384;
/// Bytes of commands a shard keeps before it refuses more.
pub const COMMANDS_WAITING_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Commands in one log entry.
pub const ENTRY_COMMANDS_MAX: usize = 4_096;
/// Bytes of commands in one log entry, but for the last command that still fits in.
pub const ENTRY_BYTES_MAX: usize = 1024 * 1024;
/// Commands proposed and not yet applied: beyond, the queue grows and the next entries are larger.
pub const COMMANDS_IN_FLIGHT_MAX: usize = 8_192;
/// Writes of one shard that the log thread has. More would only make entries smaller: what arrives while they
/// are synced shares the next entry.
pub const LOG_WRITES_IN_FLIGHT_MAX: usize = 2;
/// Jobs of one shard that the store thread has: one at work, one ready.
pub const APPLY_JOBS_IN_FLIGHT_MAX: usize = 2;
/// Bytes of committed entries that wait for the store thread before the group is asked for more.
const COMMITTED_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes that a command without a body counts for; close enough for a bound.
const COMMAND_BYTES: usize = 128;

const _: () = {
    assert!(ENTRY_BYTES_MAX > BODY_BYTES_MAX);
    assert!(COMMANDS_WAITING_MAX >= ENTRY_COMMANDS_MAX);
    assert!(COMMANDS_IN_FLIGHT_MAX >= ENTRY_COMMANDS_MAX);
};

/// The queue is full.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct QueueFull;

struct Waiting {
    /// `None`: the shard's own.
    origin: Option<Origin>,
    command: Command,
    bytes: usize,
}

/// An entry that was proposed and is not applied yet.
pub(super) struct Proposed {
    index: u64,
    /// Taken when the entry goes to the store thread.
    batch: Option<CommandBatch>,
    /// Who waits for the outcome of each command, in the batch's order.
    pub origins: Vec<Option<Origin>>,
    pub proposed_at: Instant,
}

/// Whose commands get no outcome here.
#[derive(Debug, Default)]
pub(super) struct Abandoned {
    /// Nothing was done.
    pub untouched: Vec<Origin>,
    /// Proposed: another leader may have carried them out, or will. Or of a session that has left meanwhile: it is not to
    /// be attached again.
    pub unknown: Vec<Origin>,
}

/// How far the installation of a snapshot is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Restoring {
    /// What was under way before it comes to its end.
    Waits,
    Installing,
}

/// From the command queue to the applied entry.
pub(super) struct Pipeline {
    shard: ShardId,
    group: Group,
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    proposed: VecDeque<Proposed>,
    commands_in_flight: usize,
    writes_in_flight: usize,
    committed: VecDeque<ApplyEntry>,
    committed_bytes: usize,
    jobs_in_flight: usize,
    applied: u64,
    /// Barriers of reads that were passed, each with the index that has to be applied first; ascending.
    readable: VecDeque<(u64, u64)>,
    /// Time of the newest entry: the next one's is not below it.
    time_ms: u64,
    /// A snapshot takes the place of log and state; the group is not polled until it has.
    restoring: Option<Restoring>,
    snapshot_wanted: Option<u32>,
    snapshot_message: Option<RaftMessage>,
}

impl Pipeline {
    /// `applied` and `time_ms`: what the stored state says of itself.
    pub fn new(shard: ShardId, group: Group, applied: u64, time_ms: u64) -> Self {
        Self {
            shard,
            group,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            proposed: VecDeque::new(),
            commands_in_flight: 0,
            writes_in_flight: 0,
            committed: VecDeque::new(),
            committed_bytes: 0,
            jobs_in_flight: 0,
            applied,
            readable: VecDeque::new(),
            time_ms,
            restoring: None,
            snapshot_wanted: None,
            snapshot_message: None,
        }
    }

    /// Leads, and everything that was ever acknowledged is applied.
    pub fn is_recovered(&self) -> bool {
        matches!(self.group.role(), Role::Leader { recovered_at, .. } if self.applied >= recovered_at)
    }

    pub fn group(&mut self) -> &mut Group {
        &mut self.group
    }

    /// The replicas as of what is committed.
    pub fn replicas(&self) -> &ReplicaSet {
        self.group.replicas()
    }

    pub fn role(&self) -> Role {
        self.group.role()
    }

    pub fn has_applied_most(&self) -> bool {
        self.group.has_applied_most()
    }

    pub fn is_hibernating(&self) -> bool {
        self.group.is_hibernating()
    }

    pub fn hibernates_with(&self) -> impl Iterator<Item = u32> + '_ {
        self.group.hibernates_with()
    }

    pub fn term(&self) -> u64 {
        self.group.term()
    }

    pub fn applied_index(&self) -> u64 {
        self.applied
    }

    pub fn waiting_count(&self) -> usize {
        self.waiting.len()
    }

    pub fn in_flight_count(&self) -> usize {
        self.commands_in_flight
    }

    /// Takes a command; its outcome comes when it was applied.
    pub fn take(&mut self, origin: Option<Origin>, command: Command) -> Result<(), QueueFull> {
        let bytes = command_bytes(&command);
        if self.waiting.len() >= COMMANDS_WAITING_MAX
            || self.waiting_bytes + bytes > COMMANDS_WAITING_BYTES_MAX
        {
            return Err(QueueFull);
        }
        self.waiting_bytes += bytes;
        self.waiting.push_back(Waiting { origin, command, bytes });
        Ok(())
    }

    /// Packs what waits into one entry, if this replica may propose and the pipeline has room. Gives the number of commands
    /// packed. `cuts`: what this leader tells of its log.
    pub fn propose(&mut self, now_ms: u64, cuts: Cuts) -> Result<usize, ReplicationError> {
        if self.waiting.is_empty()
            || !self.group.can_propose()
            || self.writes_in_flight >= LOG_WRITES_IN_FLIGHT_MAX
            || self.commands_in_flight >= COMMANDS_IN_FLIGHT_MAX
        {
            return Ok(0);
        }
        let count_max = self.waiting.len().min(ENTRY_COMMANDS_MAX);
        let mut commands = Vec::with_capacity(count_max);
        let mut origins = Vec::with_capacity(count_max);
        let mut bytes = 0;
        while commands.len() < count_max && bytes < ENTRY_BYTES_MAX {
            let Some(waiting) = self.waiting.pop_front() else { break };
            bytes += waiting.bytes;
            commands.push(waiting.command);
            origins.push(waiting.origin);
        }
        self.waiting_bytes -= bytes;
        self.commands_in_flight += commands.len();
        self.time_ms = self.time_ms.max(now_ms);
        let count = commands.len();
        if plant::active(Plant::NoDedupAfterFailover) {
            plant::tie_to_term(&mut commands, self.group.term());
        }
        let batch = CommandBatch { time_ms: self.time_ms, commands, feed_cut: cuts.feed, log_cut: cuts.log };
        let index = self.group.propose(encode_record(&batch))?;
        let proposed = Proposed { index, batch: Some(batch), origins, proposed_at: clock::now() };
        self.proposed.push_back(proposed);
        Ok(count)
    }

    /// Hands out what the group wants written, and what is committed.
    pub fn poll(&mut self, effects: &mut Effects) {
        if self.committed_bytes >= COMMITTED_BYTES_MAX || self.writes_in_flight >= LOG_WRITES_IN_FLIGHT_MAX {
            self.group.hold_breath();
        }
        // A follower's writes come with what its leader sends: what arrives while two are synced shares the next one.
        while self.committed_bytes < COMMITTED_BYTES_MAX && self.writes_in_flight < LOG_WRITES_IN_FLIGHT_MAX {
            let Some(output) = self.group.poll() else { break };
            effects.messages.extend(output.messages);
            self.readable.extend(output.readable);
            self.snapshot_wanted = output.snapshot_wanted.or(self.snapshot_wanted);
            self.snapshot_message = output.snapshot_message.or(self.snapshot_message.take());
            if output.restore.is_some() {
                self.begin_restoring();
            }
            if let Some(write) = output.write {
                self.writes_in_flight += 1;
                effects.writes.push(write);
            }
            let mut own = self.proposed.iter_mut().skip_while(|proposed| proposed.batch.is_none()).peekable();
            for LogEntry { index, record, replicas } in output.committed {
                self.committed_bytes += record.len();
                let batch = own.next_if(|proposed| proposed.index == index);
                let work = match (batch.and_then(|proposed| proposed.batch.take()), replicas) {
                    (Some(batch), _) => ApplyWork::Batch(batch),
                    (None, Some(replicas)) => ApplyWork::Replicas(replicas),
                    (None, None) => ApplyWork::Record(record),
                };
                self.committed.push_back(ApplyEntry { index, work });
            }
        }
        let is_free = self.jobs_in_flight < APPLY_JOBS_IN_FLIGHT_MAX && self.restoring.is_none();
        if is_free && !self.committed.is_empty() {
            self.jobs_in_flight += 1;
            let bytes = std::mem::take(&mut self.committed_bytes);
            let entries = std::mem::take(&mut self.committed).into();
            effects.applies.push(ApplyJob { shard: self.shard, entries, bytes });
        }
    }

    /// What was committed and not yet handed on is in the snapshot.
    fn begin_restoring(&mut self) {
        assert!(self.proposed.is_empty(), "only a follower takes a snapshot");
        self.restoring = Some(Restoring::Waits);
        self.committed.clear();
        self.committed_bytes = 0;
        self.readable.clear();
    }

    /// Whether a snapshot takes the place of log and state.
    pub fn is_restoring(&self) -> bool {
        self.restoring.is_some()
    }

    /// Whether the snapshot may be installed now. True once.
    pub fn may_install(&mut self) -> bool {
        let is_quiet = self.writes_in_flight == 0 && self.jobs_in_flight == 0;
        let may = is_quiet && self.restoring == Some(Restoring::Waits);
        if may {
            self.restoring = Some(Restoring::Installing);
        }
        may
    }

    /// Whether nothing is under way that a removal of log and rows could meet. True once.
    pub fn may_be_removed(&mut self) -> bool {
        let is_quiet = self.writes_in_flight == 0 && self.jobs_in_flight == 0;
        let may = is_quiet && self.restoring.is_none();
        if may {
            self.restoring = Some(Restoring::Installing);
        }
        may
    }

    /// The snapshot is installed.
    pub fn restored(&mut self, index: u64, time_ms: u64) {
        assert_eq!(self.restoring.take(), Some(Restoring::Installing), "a snapshot that was asked for");
        self.applied = index;
        self.time_ms = self.time_ms.max(time_ms);
        self.group.restored();
    }

    /// A node whose replica the log does not reach any more.
    pub fn take_snapshot_wanted(&mut self) -> Option<u32> {
        self.snapshot_wanted.take()
    }

    /// What is to be sent with the snapshot that was offered.
    pub fn take_snapshot_message(&mut self) -> Option<RaftMessage> {
        self.snapshot_message.take()
    }

    /// The log thread made this write durable.
    pub fn persisted(&mut self, number: u64) {
        self.writes_in_flight -= 1;
        self.group.persisted(number);
    }

    /// The store thread finished a job.
    pub fn job_done(&mut self) {
        self.jobs_in_flight -= 1;
    }

    /// An entry is readable. Gives who waits for it; `None`: it was proposed before this process started, or it
    /// opens the term.
    pub fn applied(&mut self, index: u64, time_ms: u64) -> Option<Proposed> {
        assert_eq!(index, self.applied + 1, "entries are applied one after another");
        self.applied = index;
        self.time_ms = self.time_ms.max(time_ms);
        if self.proposed.front()?.index != index {
            return None;
        }
        let proposed = self.proposed.pop_front()?;
        self.commands_in_flight -= proposed.origins.len();
        Some(proposed)
    }

    /// To be called after the last [`Self::applied`] of a job.
    pub fn advance(&mut self) {
        self.group.applied(self.applied);
    }

    /// The newest barrier up to which reads may be carried out now.
    pub fn readable_ticket(&mut self) -> Option<u64> {
        let mut newest = None;
        while let Some((ticket, index)) = self.readable.front().copied() {
            if index > self.applied {
                break;
            }
            newest = Some(ticket);
            self.readable.pop_front();
        }
        newest
    }

    /// The node failed, or another replica leads. Gives who waits.
    pub fn abandon(&mut self) -> Abandoned {
        let untouched = self.waiting.drain(..).filter_map(|waiting| waiting.origin).collect();
        self.waiting_bytes = 0;
        Abandoned { untouched, unknown: self.abandon_proposed() }
    }

    /// This replica leads on in another term. What clients have waiting stays; the shard's own commands do not, since what
    /// they are made of is made anew. Gives who waits for what was proposed.
    pub fn lead_on(&mut self) -> Vec<Origin> {
        self.waiting.retain(|waiting| waiting.origin.is_some());
        self.waiting_bytes = self.waiting.iter().map(|waiting| waiting.bytes).sum();
        self.abandon_proposed()
    }

    fn abandon_proposed(&mut self) -> Vec<Origin> {
        self.commands_in_flight = 0;
        self.readable.clear();
        self.proposed.drain(..).flat_map(|proposed| proposed.origins).flatten().collect()
    }
}

fn command_bytes(command: &Command) -> usize {
    match &command.kind {
        Some(command::Kind::SendMessage(send)) => COMMAND_BYTES + send.body.len(),
        Some(command::Kind::AdvanceCursor(_)) => COMMAND_BYTES,
        _ => COMMAND_BYTES + command.encoded_len(),
    }
}

//! One shard over real log files and rows in memory, taken forward one step at a time: the test decides when a write
//! is durable, when rows are readable, and when a read comes back.

use crate::config::LogConfig;
use crate::domain::{self, Overlay};
use crate::engine::{MemoryStore, Store};
use crate::feed::{HomeStart, SourceFeed};
use crate::observe::NodeMetrics;
use crate::replication::{Group, Log, Replicas, TICK_MS, decode_record};
use crate::shard::{
    AppliedEntry, AppliedJob, ApplyWork, Cuts, Effects, Levels, ReadDone, ReadJob, ReadWork, Shard,
    ShardMarks, ShardStart,
};
use crate::worker::LinkId;
use bytes::Bytes;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use wire_protocol::ids::{ConversationId, DeviceId, ShardId, UserId};
use wire_protocol::internal::raft_message::Kind;
use wire_protocol::internal::shard_request::Operation;
use wire_protocol::internal::shard_response::Result as Reply;
use wire_protocol::internal::{
    AttachSession, Command, CreateConversation, CreateUser, Delivery, DetachSession, Device, MessageApplied,
    Query, RaftMessage, SendMessage, SessionAddress, ShardPlace, ShardRequest, ShardResponse, command,
    outcome, query, shard_error,
};
use wire_protocol::v1::ConversationKind;

pub const SHARD: ShardId = ShardId(0);
pub const ADA: UserId = UserId([1; 16]);
pub const BOB: UserId = UserId([2; 16]);
pub const PHONE: DeviceId = DeviceId([3; 16]);

pub struct Rig {
    pub shard: Shard,
    pub effects: Effects,
    pub marks: Arc<ShardMarks>,
    pub now_ms: u64,
    log: Arc<Log>,
    store: Arc<MemoryStore>,
    request_last: u64,
    /// Nodes of other copies that answer.
    copies: Vec<u32>,
}

/// A gateway core.
pub fn link(number: u64) -> LinkId {
    LinkId::of_test(0, number)
}

pub fn session(slot: u32) -> SessionAddress {
    SessionAddress { slot, generation: 1 }
}

impl Rig {
    /// A shard that was never there before, and serves; no checkpoint of its feed is due yet.
    pub fn serving(folder: &Path) -> Self {
        let mut rig = Self::open(folder, Arc::default(), 500);
        rig.settle();
        assert!(rig.shard.is_serving());
        rig
    }

    /// A shard with copies on nodes 2 and 3, of which those in `copies` answer; nobody leads it yet.
    pub fn following(folder: &Path, copies: &[u32]) -> Self {
        let replicas = Replicas::of(1, &[1, 2, 3]);
        let mut rig = Self::open_as(folder, Arc::default(), 500, replicas);
        rig.copies = copies.to_vec();
        rig
    }

    /// The same; the copy here leads and serves.
    pub fn leading(folder: &Path, copies: &[u32]) -> Self {
        let mut rig = Self::following(folder, copies);
        for _ in 0..30 {
            rig.now_ms += TICK_MS;
            rig.settle();
        }
        assert!(rig.shard.is_serving());
        rig
    }

    /// Goes on from what log and rows hold; nothing has happened yet.
    pub fn open(folder: &Path, store: Arc<MemoryStore>, now_ms: u64) -> Self {
        Self::open_as(folder, store, now_ms, Replicas::alone(1))
    }

    /// As one of these replicas, or none of them.
    pub fn open_as(folder: &Path, store: Arc<MemoryStore>, now_ms: u64, replicas: Replicas) -> Self {
        let config = LogConfig { file_bytes: 1 << 20, keep_bytes: 2 << 20, prefill: false };
        let log = Arc::new(Log::open(folder, &config).expect("it opens"));
        let (applied, time_ms) = domain::applied_index(&*store, SHARD).expect("it reads");
        let group = Group::open(Arc::clone(&log), SHARD, applied, &replicas).expect("it opens");
        let homes = [HomeStart { shard: SHARD, durable_index: 0 }];
        let mut source = SourceFeed::new(SHARD, 1, &homes, 0);
        (1..=applied).for_each(|index| source.record(index, Vec::new()));
        let marks: Arc<ShardMarks> = Arc::default();
        let metrics = Arc::clone(&NodeMetrics::new(1).cores[0]);
        let start = ShardStart {
            id: SHARD,
            shard_count: 1,
            group,
            applied,
            time_ms,
            source: (replicas.set.voters.len() == 1).then_some(source),
            is_replicated: replicas.set.voters.len() > 1,
            log_cut: 0,
            replicas,
            marks: Arc::clone(&marks),
            metrics,
        };
        let mut shard = Shard::open(start);
        shard.fleet_changed(ShardPlace { nodes: vec![1, 2, 3], changed_at: 0 }, None, true);
        let effects = Effects::default();
        Self { shard, effects, marks, now_ms, log, store, request_last: 0, copies: Vec::new() }
    }

    /// The process dies; the rows that were written are there, whatever was synced.
    pub fn store(&self) -> Arc<MemoryStore> {
        Arc::clone(&self.store)
    }

    pub fn send(&mut self, link: LinkId, operation: Operation) -> u64 {
        self.request_last += 1;
        let id = self.request_last;
        let request = ShardRequest { id, shard: SHARD.0, operation: Some(operation) };
        self.shard.receive(link, request, &mut self.effects);
        id
    }

    pub fn turn(&mut self) {
        self.shard.turn(self.now_ms, &mut self.effects).expect("the group is well");
    }

    /// The log thread: makes durable what is to be written. False: there was nothing.
    pub fn persist(&mut self) -> bool {
        let writes = std::mem::take(&mut self.effects.writes);
        self.log.write(&writes).expect("it writes");
        writes.iter().for_each(|write| self.shard.persisted(write.number()));
        !writes.is_empty()
    }

    /// The store thread: makes the rows of committed entries readable. False: there were none.
    pub fn apply(&mut self) -> bool {
        let jobs = std::mem::take(&mut self.effects.applies);
        let any = !jobs.is_empty();
        for job in jobs {
            let mut entries = Vec::new();
            for entry in job.entries {
                let batch = match entry.work {
                    ApplyWork::Batch(batch) => Some(batch),
                    ApplyWork::Record(record) => decode_record(&record).expect("its own record"),
                    ApplyWork::Replicas(_) => None,
                };
                let mut overlay = Overlay::new(&*self.store);
                let (_, before_ms) = domain::applied_index(&*self.store, SHARD).expect("it reads");
                let time_ms = batch.as_ref().map_or(before_ms, |batch| batch.time_ms);
                let results =
                    batch.map(|batch| domain::apply(&mut overlay, SHARD, &batch).expect("it applies"));
                domain::set_applied_index(&mut overlay, SHARD, entry.index, time_ms);
                self.store.write(overlay.into_batch()).expect("it writes");
                entries.push(AppliedEntry {
                    cuts: Cuts::default(),
                    index: entry.index,
                    time_ms,
                    results: results.unwrap_or_default(),
                });
            }
            let done = AppliedJob { shard: SHARD, entries };
            self.shard.applied(self.now_ms, done, &mut self.effects);
        }
        any
    }

    /// The read threads, for what the shard asks for itself; queries and look-ups are the test's.
    pub fn read_positions(&mut self) -> bool {
        let mut any = false;
        for job in std::mem::take(&mut self.effects.reads) {
            match job.work {
                ReadWork::Load { source_as_of } => {
                    any = true;
                    let positions = domain::feed_positions(&*self.store, SHARD).expect("it reads");
                    let source = source_as_of.map(|applied| {
                        let homes = [HomeStart { shard: SHARD, durable_index: 0 }];
                        let mut source = SourceFeed::new(SHARD, 1, &homes, 0);
                        (1..=applied).for_each(|index| source.record(index, Vec::new()));
                        Box::new(source)
                    });
                    let done = ReadDone::Loaded { positions, source };
                    self.shard.read_done(self.now_ms, done, &mut self.effects);
                }
                ReadWork::Reread(_) => panic!("the queue of the feed was never full"),
                work => self.effects.reads.push(ReadJob { shard: job.shard, work }),
            }
        }
        any
    }

    /// The feed's way to the shard itself and back.
    pub fn exchange_feed(&mut self) -> bool {
        let batches = std::mem::take(&mut self.effects.batches);
        let acks = std::mem::take(&mut self.effects.acks);
        let any = !(batches.is_empty() && acks.is_empty());
        batches.into_iter().for_each(|batch| self.shard.take_batch(batch, &mut self.effects));
        acks.iter().for_each(|ack| self.shard.take_ack(self.now_ms, ack, &mut self.effects));
        any
    }

    /// The other copies: they have what they are told, and say so. False: they were told nothing.
    pub fn ask_copies(&mut self) -> bool {
        let messages = std::mem::take(&mut self.effects.messages);
        let heard = messages.into_iter().filter(|message| self.copies.contains(&message.to));
        let answers: Vec<RaftMessage> = heard.filter_map(|message| answer_of_copy(&message)).collect();
        let any = !answers.is_empty();
        answers.into_iter().for_each(|answer| self.shard.take_raft(answer));
        any
    }

    /// Everybody works until there is nothing left to do at this time.
    pub fn settle(&mut self) {
        loop {
            self.turn();
            let is_moved = [
                self.ask_copies(),
                self.persist(),
                self.apply(),
                self.read_positions(),
                self.exchange_feed(),
            ];
            if is_moved == [false; 5] {
                return;
            }
        }
    }

    /// Ids and results of what was answered over a link since the last call.
    pub fn answers(&mut self, to: LinkId) -> Vec<(u64, Reply)> {
        let (here, other): (Vec<_>, Vec<_>) =
            self.effects.responses.drain(..).partition(|(link, _)| *link == to);
        self.effects.responses = other;
        let answer = |(_, ShardResponse { id, result })| (id, result.expect("every answer has a result"));
        here.into_iter().map(answer).collect()
    }

    /// The look-ups for attaching sessions that are under way.
    pub fn look_ups(&mut self) -> Vec<u64> {
        let (look_ups, other): (Vec<_>, Vec<_>) = std::mem::take(&mut self.effects.reads)
            .into_iter()
            .partition(|job| matches!(job.work, ReadWork::Attach { .. }));
        self.effects.reads = other;
        let ticket = |job: ReadJob| match job.work {
            ReadWork::Attach { ticket, .. } => Some(ticket),
            _ => None,
        };
        look_ups.into_iter().filter_map(ticket).collect()
    }

    /// Queries handed to the read threads since the last call.
    pub fn queries(&mut self) -> usize {
        let before = self.effects.reads.len();
        self.effects.reads.retain(|job| !matches!(job.work, ReadWork::Query { .. }));
        before - self.effects.reads.len()
    }

    /// No copy answers any more.
    pub fn lose_copies(&mut self) {
        self.copies.clear();
    }

    /// A look-up comes back.
    pub fn looked_up(&mut self, ticket: u64, device_known: bool, stored_version: u64) {
        let done = ReadDone::Attach { ticket, device_known, stored_version };
        self.shard.read_done(self.now_ms, done, &mut self.effects);
    }

    pub fn session_count(&self) -> usize {
        let mut levels = Levels::default();
        self.shard.add_levels(&mut levels);
        levels.sessions
    }

    pub fn log_cut(&self) -> u64 {
        self.marks.log_cut.load(Ordering::Acquire)
    }

    /// As node 2 tells when it has won an election.
    pub fn won_by_two(&mut self) {
        self.shard.take_raft(RaftMessage {
            shard: SHARD.0,
            kind: Kind::Heartbeat as i32,
            from: 2,
            to: 1,
            term: 99,
            ..RaftMessage::default()
        });
        self.turn();
    }

    pub fn feed_cut(&self) -> u64 {
        self.marks.feed_cut.load(Ordering::Acquire)
    }

    /// Pushes since the last call.
    pub fn deliveries(&mut self) -> Vec<(LinkId, Delivery)> {
        std::mem::take(&mut self.effects.deliveries)
    }
}

/// What a copy answers that agrees with everything.
fn answer_of_copy(message: &RaftMessage) -> Option<RaftMessage> {
    let last = message.entries.last().map_or(message.index, |entry| entry.index);
    let (kind, index) = match message.kind() {
        Kind::PreVote => (Kind::PreVoteResponse, 0),
        Kind::Vote => (Kind::VoteResponse, 0),
        Kind::Append => (Kind::AppendResponse, last),
        Kind::Heartbeat => (Kind::HeartbeatResponse, 0),
        _ => return None,
    };
    Some(RaftMessage {
        shard: message.shard,
        kind: kind as i32,
        from: message.to,
        to: message.from,
        term: message.term,
        index,
        context: message.context.clone(),
        ..RaftMessage::default()
    })
}

pub fn room() -> ConversationId {
    ConversationId::direct(ADA, BOB)
}

fn of(kind: command::Kind) -> Operation {
    Operation::Command(Command { kind: Some(kind) })
}

pub fn create_user() -> Operation {
    let device = Device {
        device_id: PHONE.to_bytes(),
        name: "phone".into(),
        refresh_hash: Bytes::from_static(&[7; 32]),
        created_ms: 0,
    };
    of(command::Kind::CreateUser(CreateUser {
        user_id: ADA.to_bytes(),
        username: "ada".into(),
        display_name: "Ada".into(),
        password_hash: "hash".into(),
        device: Some(device),
    }))
}

pub fn create_room() -> Operation {
    of(command::Kind::CreateConversation(CreateConversation {
        conversation_id: room().to_bytes(),
        kind: ConversationKind::Direct as u32,
        member_ids: vec![ADA.to_bytes(), BOB.to_bytes()],
        title: String::new(),
    }))
}

pub fn message(client_message_id: u64, body_bytes: usize) -> Operation {
    message_of(ADA, client_message_id, body_bytes)
}

pub fn message_of(user: UserId, client_message_id: u64, body_bytes: usize) -> Operation {
    of(command::Kind::SendMessage(SendMessage {
        conversation_id: room().to_bytes(),
        user_id: user.to_bytes(),
        device_id: PHONE.to_bytes(),
        client_message_id,
        body: vec![b'x'; body_bytes].into(),
        ..SendMessage::default()
    }))
}

pub fn remove_device() -> Operation {
    let (user_id, device_id) = (ADA.to_bytes(), PHONE.to_bytes());
    of(command::Kind::RemoveDevice(wire_protocol::internal::RemoveDevice { user_id, device_id }))
}

pub fn attach(slot: u32) -> Operation {
    let (user_id, device_id) = (ADA.to_bytes(), PHONE.to_bytes());
    Operation::Attach(AttachSession { user_id, device_id, session: Some(session(slot)) })
}

pub fn detach(slot: u32) -> Operation {
    Operation::Detach(DetachSession { user_id: ADA.to_bytes(), session: Some(session(slot)) })
}

pub fn ask(kind: query::Kind) -> Operation {
    Operation::Query(Query { kind: Some(kind) })
}

/// The number that a message got.
pub fn seq(reply: &Reply) -> u64 {
    applied(reply).seq
}

/// What became of a message.
pub fn applied(reply: &Reply) -> &MessageApplied {
    match reply {
        Reply::Outcome(outcome) => match &outcome.kind {
            Some(outcome::Kind::MessageApplied(applied)) => applied,
            other => panic!("not applied: {other:?}"),
        },
        other => panic!("not applied: {other:?}"),
    }
}

/// The kind of a refusal that no rule of the domain gave.
pub fn refusal(reply: &Reply) -> shard_error::Kind {
    match reply {
        Reply::Error(error) => error.kind(),
        other => panic!("not refused: {other:?}"),
    }
}

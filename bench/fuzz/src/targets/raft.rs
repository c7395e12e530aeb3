//! One replica of a shard, and whatever the nodes of the others may send it.

use crate::Target;
use crate::input::Input;
use crate::targets::storage::{config, in_memory, in_own_thread};
use bytes::Bytes;
use prost::Message;
use std::sync::Arc;
use storage_node::replication::{Group, Log, LogWrite, Replicas, check_message, encode_record};
use wire_protocol::ids::ShardId;
use wire_protocol::internal::raft_message::Kind;
use wire_protocol::internal::{CommandBatch, RaftEntry, RaftMessage};

const SHARD: ShardId = ShardId(3);
/// The node whose replica it is, and all that have one.
const OWN: u32 = 2;
const VOTERS: [u32; 3] = [1, 2, 3];
/// Far from the highest term: elections follow.
const TERM_END: u64 = 1 << 20;
/// Steps of a story.
const STEPS_MAX: usize = 48;

/// See `holds`.
pub const RAFT_GROUP: Target = Target {
    name: "raft-group",
    holds: "whatever other nodes send, a replica refuses it or goes on: entries are committed once, in order, and what it \
            sends itself is well formed",
    run: raft_group,
};

struct Replica {
    log: Arc<Log>,
    group: Group,
    /// Not on disk yet.
    writes: Vec<LogWrite>,
    applied: u64,
    /// The last index and its term, as messages told.
    last: (u64, u64),
}

impl Replica {
    fn poll(&mut self) {
        while let Some(output) = self.group.poll() {
            self.writes.extend(output.write);
            for entry in output.committed {
                assert_eq!(entry.index, self.applied + 1, "committed entries come in order");
                self.applied = entry.index;
            }
            self.group.applied(self.applied);
            for message in output.messages {
                // Also one that is no voter here may be answered: it may have become one meanwhile. All else is for voters.
                let is_for_voter = VOTERS.contains(&message.to) || is_answer(&message);
                assert!(message.from == OWN && message.to != OWN && is_for_voter, "{message:?}");
                check_message(message).expect("what replicas send is taken by others");
            }
        }
    }

    fn sync(&mut self) {
        let writes = std::mem::take(&mut self.writes);
        if let Some(last) = writes.last().map(LogWrite::number) {
            self.log.write(&writes).expect("memory does not fail");
            self.group.persisted(last);
        }
    }

    fn step(&mut self, message: RaftMessage) {
        let told = message.entries.last().map(|entry| (entry.index, entry.term));
        match self.group.step(message) {
            Ok(()) => self.last = told.unwrap_or(self.last),
            Err(error) => assert!(error.to_string().starts_with("shard 3: ")),
        }
    }
}

fn is_answer(message: &RaftMessage) -> bool {
    use Kind::{AppendResponse, HeartbeatResponse, PreVoteResponse, VoteResponse};
    matches!(message.kind(), AppendResponse | HeartbeatResponse | PreVoteResponse | VoteResponse)
}

fn raft_group(data: &[u8]) {
    in_own_thread(|| story(data));
}

fn story(data: &[u8]) {
    let mut input = Input::new(data);
    let folder = in_memory().expect("a folder for a log");
    let log = Arc::new(Log::open(folder.path(), &config()).expect("it opens"));
    let preferred = VOTERS[input.below(2)];
    let replicas = Replicas { preferred, ..Replicas::of(OWN, &VOTERS) };
    let group = Group::open(Arc::clone(&log), SHARD, 0, &replicas).expect("it opens");
    let mut replica = Replica { log, group, writes: Vec::new(), applied: 0, last: (0, 0) };
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        match input.below(8) {
            0 => {
                let ticks = 1 + input.below(24);
                (0..ticks).for_each(|_| replica.group.pass(1));
                if ticks > 12 {
                    let node = VOTERS[ticks % VOTERS.len()];
                    replica.group.hear_leaders_node(node);
                    replica.group.hear_followers_node(node);
                }
            }
            1 => replica.sync(),
            2 if replica.group.can_propose() => {
                let record = encode_record(&CommandBatch::default());
                replica.group.propose(record).expect("it said so");
            }
            3 => {
                if let Ok(message) = RaftMessage::decode(input.slice()) {
                    let term = message.term % TERM_END;
                    replica.step(RaftMessage { shard: SHARD.0, to: OWN, term, ..message });
                }
            }
            _ => {
                let message = some_message(&mut input, &replica);
                replica.step(message);
            }
        }
        replica.poll();
    }
    replica.sync();
    replica.poll();
}

/// Near to what a replica in this state hears.
fn some_message(input: &mut Input<'_>, replica: &Replica) -> RaftMessage {
    let term = match input.below(8) {
        0 => input.number() % TERM_END,
        1 => replica.group.term() + 1,
        _ => replica.group.term().max(1),
    };
    let near = |input: &mut Input<'_>, number: u64| match input.byte() {
        0..=149 => number,
        150..=199 => number.saturating_sub(1),
        200..=239 => number.saturating_add(1),
        _ => input.number(),
    };
    let (index, log_term) = (near(input, replica.last.0), near(input, replica.last.1));
    let entry = |place: usize| RaftEntry {
        kind: 0,
        term,
        index: index.wrapping_add(1 + place as u64),
        record: Bytes::from_static(b"\x01"),
    };
    let kind = input.byte();
    RaftMessage {
        shard: SHARD.0,
        kind: (kind % 20).into(),
        hibernates: kind >= 160,
        beat: index,
        from: 1 + input.below(4) as u32,
        to: OWN,
        term,
        log_term,
        index,
        entries: (0..input.below(4)).map(entry).collect(),
        commit: near(input, index),
        commit_term: near(input, log_term),
        reject: input.below(4) == 0,
        reject_hint: near(input, index),
        context: Bytes::copy_from_slice(&input.number().to_be_bytes()),
        ..RaftMessage::default()
    }
}

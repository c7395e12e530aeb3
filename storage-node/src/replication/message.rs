//! Raft's messages as they travel, and as the consensus library knows them.
//!
//! The library's own encoding is not used between nodes: its decoder is not made for bytes of others (RUSTSEC-2024-0437),
//! and the wire format is ours to version. What may not come from another node is refused here.

use super::replicas::{decode_change, first, to_conf_state};
use prost::Message as _;
use raft::eraftpb::{Entry, EntryType, Message, MessageType, Snapshot};
use wire_protocol::ids::ShardId;
use wire_protocol::internal::raft_message::Kind;
use wire_protocol::internal::{RaftEntry, RaftMessage, ReplicaSet, SnapshotPoint};

/// A message that no replica sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("shard {shard}: a Raft message of {what}")]
pub struct MessageError {
    /// Whose.
    pub shard: ShardId,
    /// What is wrong with it.
    pub what: &'static str,
}

/// Kinds that travel, here and there; all others the library keeps to itself.
const KINDS: [(Kind, MessageType); 11] = [
    (Kind::Append, MessageType::MsgAppend),
    (Kind::AppendResponse, MessageType::MsgAppendResponse),
    (Kind::Vote, MessageType::MsgRequestVote),
    (Kind::VoteResponse, MessageType::MsgRequestVoteResponse),
    (Kind::Snapshot, MessageType::MsgSnapshot),
    (Kind::Heartbeat, MessageType::MsgHeartbeat),
    (Kind::HeartbeatResponse, MessageType::MsgHeartbeatResponse),
    (Kind::TransferLeader, MessageType::MsgTransferLeader),
    (Kind::TimeoutNow, MessageType::MsgTimeoutNow),
    (Kind::PreVote, MessageType::MsgRequestPreVote),
    (Kind::PreVoteResponse, MessageType::MsgRequestPreVoteResponse),
];
/// Highest term: 16 million elections. Versions of the change feed have room for no more (`feed/home.rs`), so a leader of
/// a higher one would end in an assertion.
const TERM_MAX: u64 = (1 << 24) - 1;
/// Entries that change the replicas, as [`RaftEntry::kind`].
const CHANGE_OF_REPLICAS: u32 = 2;

/// As it travels, unmarked by hibernation and pulse. `None`: a kind that does not travel.
pub(super) fn to_wire(shard: ShardId, message: Message) -> Option<RaftMessage> {
    let Message { msg_type, to, from, term, log_term, index, entries, commit, commit_term, .. } = message;
    let (kind, _) = KINDS.into_iter().find(|(_, known)| *known == msg_type)?;
    let snapshot = message.snapshot.into_option().map(|snapshot| {
        let set = replicas_of(&snapshot);
        let metadata = snapshot.metadata.unwrap_or_default();
        point(metadata.index, metadata.term, set)
    });
    Some(RaftMessage {
        shard: shard.0,
        kind: kind as i32,
        from: node_id(from),
        to: node_id(to),
        term,
        log_term,
        index,
        entries: entries.into_iter().map(entry_to_wire).collect(),
        commit,
        commit_term,
        reject: message.reject,
        reject_hint: message.reject_hint,
        context: message.context,
        priority: message.priority,
        request_snapshot: message.request_snapshot,
        snapshot,
        hibernates: false,
        beat: 0,
    })
}

/// As the library takes it.
pub(super) fn from_wire(message: RaftMessage) -> Result<Message, MessageError> {
    let shard = ShardId(message.shard);
    let wrong = |what| Err(MessageError { shard, what });
    let known = KINDS.into_iter().find(|(kind, _)| *kind as i32 == message.kind);
    let Some((kind, msg_type)) = known else {
        return wrong("an unknown kind");
    };
    if message.from == 0 || message.to == 0 || message.term == 0 {
        return wrong("no sender, no receiver or no term");
    }
    if message.term > TERM_MAX {
        return wrong("a term beyond all elections");
    }
    if matches!(kind, Kind::Append) && (message.index == 0) != (message.log_term == 0) {
        return wrong("an entry without a term before its own");
    }
    let terms = std::iter::once(message.log_term).chain(message.entries.iter().map(|entry| entry.term));
    if !terms.is_sorted() || message.entries.iter().any(|entry| entry.term == 0) {
        return wrong("entries whose terms fall");
    }
    let follows = |(place, entry): (usize, &RaftEntry)| {
        entry.index == message.index.wrapping_add(1 + place as u64) && entry.term <= message.term
    };
    if !message.entries.iter().enumerate().all(follows) {
        return wrong("entries that do not follow each other");
    }
    // Behind the highest index comes 0, where no log has an entry.
    if message.entries.iter().any(|entry| entry.index == 0) {
        return wrong("entries beyond the highest index");
    }
    let entries = entries_from_wire(shard, message.entries)?;
    let mut taken = Message {
        msg_type,
        from: message.from.into(),
        to: message.to.into(),
        term: message.term,
        log_term: message.log_term,
        index: message.index,
        entries: entries.into(),
        commit: message.commit,
        commit_term: message.commit_term,
        reject: message.reject,
        reject_hint: message.reject_hint,
        context: message.context,
        priority: message.priority,
        request_snapshot: message.request_snapshot,
        ..Message::default()
    };
    match (message.snapshot, kind) {
        (Some(point), Kind::Snapshot) => {
            if point.index == 0 || point.term == 0 || point.term > message.term {
                return wrong("a snapshot of nothing");
            }
            if point.voters.is_empty() || point.replicas.as_ref().is_some_and(|set| set.voters.is_empty()) {
                return wrong("a snapshot of no replicas");
            }
            taken.set_snapshot(snapshot(&point));
        }
        (None, Kind::Snapshot) => return wrong("a snapshot without its point"),
        (Some(_), _) => return wrong("a point without a snapshot"),
        _ => {}
    }
    Ok(taken)
}

/// Whether another node may have sent it.
pub fn check_message(message: RaftMessage) -> Result<(), MessageError> {
    from_wire(message).map(drop)
}

/// Whether the log takes these entries.
pub fn check_entries(shard: ShardId, entries: Vec<RaftEntry>) -> Result<(), MessageError> {
    entries_from_wire(shard, entries).map(drop)
}

/// The library's snapshot of a point: without rows. Its data is the set of replicas, of which the library keeps a part.
pub(super) fn snapshot(point: &SnapshotPoint) -> Snapshot {
    let old = || ReplicaSet { learners: point.learners.clone(), ..first(&point.voters) };
    let set = point.replicas.as_deref().cloned().unwrap_or_else(old);
    let mut snapshot = Snapshot { data: set.encode_to_vec().into(), ..Snapshot::default() };
    let metadata = snapshot.mut_metadata();
    (metadata.index, metadata.term) = (point.index, point.term);
    metadata.set_conf_state(to_conf_state(&set));
    snapshot
}

/// Where a snapshot is taken.
pub(super) fn point(index: u64, term: u64, set: ReplicaSet) -> SnapshotPoint {
    let (voters, learners) = (set.voters.clone(), set.learners.clone());
    SnapshotPoint { index, term, voters, learners, replicas: Some(Box::new(set)) }
}

/// The replicas of a snapshot that [`snapshot`] made.
pub(super) fn replicas_of(snapshot: &Snapshot) -> ReplicaSet {
    ReplicaSet::decode(snapshot.data.clone()).expect("it was encoded here")
}

fn node_id(id: u64) -> u32 {
    u32::try_from(id).expect("ids of replicas are those of their nodes")
}

/// Refuses entries of unknown kinds, and changes of replicas that cannot be.
pub(super) fn entries_from_wire(shard: ShardId, entries: Vec<RaftEntry>) -> Result<Vec<Entry>, MessageError> {
    entries.into_iter().map(|entry| entry_from_wire(shard, entry)).collect()
}

pub(super) fn entry_to_wire(entry: Entry) -> RaftEntry {
    let kind = match entry.entry_type {
        EntryType::EntryNormal => 0,
        EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => CHANGE_OF_REPLICAS,
    };
    RaftEntry { kind, term: entry.term, index: entry.index, record: entry.data }
}

fn entry_from_wire(shard: ShardId, entry: RaftEntry) -> Result<Entry, MessageError> {
    let entry_type = match entry.kind {
        0 => EntryType::EntryNormal,
        CHANGE_OF_REPLICAS => {
            decode_change(shard, &entry.record)?;
            EntryType::EntryConfChangeV2
        }
        _ => return Err(MessageError { shard, what: "an entry of an unknown kind" }),
    };
    Ok(Entry { entry_type, term: entry.term, index: entry.index, data: entry.record, ..Entry::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn append() -> RaftMessage {
        let entry = |index| RaftEntry { kind: 0, term: 3, index, record: Bytes::from_static(b"\x01record") };
        RaftMessage {
            shard: 7,
            kind: Kind::Append as i32,
            from: 1,
            to: 2,
            term: 4,
            log_term: 3,
            index: 10,
            entries: vec![entry(11), entry(12)],
            commit: 9,
            commit_term: 3,
            context: Bytes::from_static(b"read"),
            ..RaftMessage::default()
        }
    }

    #[test]
    fn messages_come_back_as_they_went() {
        let set = ReplicaSet {
            voters: vec![1, 2, 3],
            learners: vec![4],
            voters_outgoing: vec![2, 3, 5],
            changed_at: 4,
            ..ReplicaSet::default()
        };
        let point = point(5, 2, set);
        let kind = Kind::Snapshot as i32;
        let snapshot = RaftMessage { kind, entries: Vec::new(), snapshot: Some(point), ..append() };
        let kind = Kind::AppendResponse as i32;
        let rejected = RaftMessage { kind, entries: Vec::new(), reject: true, reject_hint: 8, ..append() };
        for message in [append(), snapshot, rejected] {
            let taken = from_wire(message.clone()).expect("replicas send such");
            assert_eq!(to_wire(ShardId(7), taken), Some(message));
        }
    }

    #[test]
    fn points_of_nodes_that_know_no_changes_are_understood() {
        let old = SnapshotPoint { index: 5, term: 2, voters: vec![1, 2], learners: vec![3], replicas: None };
        let set = ReplicaSet { voters: vec![1, 2], learners: vec![3], ..ReplicaSet::default() };
        assert_eq!(replicas_of(&snapshot(&old)), set);
    }

    #[test]
    fn what_no_replica_sends_is_refused() {
        let mut gap = append();
        gap.entries.remove(0);
        let mut later = append();
        later.entries[1].term = 5;
        let mut strange = append();
        strange.entries[0].kind = 9;
        let mut no_change = append();
        no_change.entries[0].kind = CHANGE_OF_REPLICAS;
        let no_replicas = SnapshotPoint { index: 5, term: 2, ..SnapshotPoint::default() };
        let mut falling = append();
        falling.entries[1].term = 2;
        let mut without_term = append();
        without_term.log_term = 0;
        without_term.entries[0].term = 0;
        let mut beyond = RaftMessage { index: u64::MAX, ..append() };
        beyond.entries.truncate(1);
        beyond.entries[0].index = 0;
        let kind = |kind: i32| RaftMessage { kind, ..append() };
        for message in [
            kind(0),
            kind(2),
            kind(10),
            kind(Kind::Snapshot as i32),
            RaftMessage { snapshot: Some(no_replicas), entries: vec![], ..kind(Kind::Snapshot as i32) },
            no_change,
            kind(99),
            RaftMessage { from: 0, ..append() },
            RaftMessage { to: 0, ..append() },
            RaftMessage { term: 0, ..append() },
            RaftMessage { term: TERM_MAX + 1, ..append() },
            RaftMessage { index: u64::MAX, ..append() },
            // Beyond the end of a log every term is 0: this would be taken for an entry that is there.
            RaftMessage { log_term: 0, entries: Vec::new(), ..append() },
            falling,
            beyond,
            without_term,
            gap,
            later,
            strange,
        ] {
            let error = from_wire(message).expect_err("refused");
            assert!(error.to_string().starts_with("shard 7: "), "{error}");
        }
        let local = Message { msg_type: MessageType::MsgCheckQuorum, ..Message::default() };
        assert_eq!(to_wire(ShardId(7), local), None);
    }
}

//! The frames between gateways and storage nodes. Other versions of this program read them during a rolling update,
//! and commands are what the log of a storage node holds: their bytes must never change; new ones may come.

use crate::frames::{ALICE, BOB, CONVERSATION, TIME_MS, entry, id};
use bytes::Bytes;
use wire_protocol::internal::*;
use wire_protocol::limits::LINK_CREDITS;
use wire_protocol::v1::{Conversation, ConversationKind, EntryKind, ErrorCode, Member, ReceiptEvent, User};

const DEVICE: u8 = 0x10;
const SESSION: SessionAddress = SessionAddress { slot: 70_000, generation: 3 };

/// What a caller sends, in an order that a serving half takes.
pub fn request_frames() -> Vec<(&'static str, LinkRequestFrame)> {
    let hello = LinkHello {
        version_min: 1,
        version_max: 1,
        role: link_hello::Role::Gateway as i32,
        peer_id: 7,
        incarnation: 0x0102_0304_0506_0708,
        core: 3,
    };
    let attach = AttachSession { user_id: id(ALICE), device_id: id(DEVICE), session: Some(SESSION) };
    let detach = DetachSession { user_id: id(ALICE), session: Some(SESSION) };
    let sessions = vec![shard_request::Operation::Attach(attach), shard_request::Operation::Detach(detach)];
    let none = LinkRequestFrame::default;
    vec![
        ("link-hello", LinkRequestFrame { hello: Some(hello), ..none() }),
        ("link-commands", LinkRequestFrame { requests: requests(100, commands()), ..none() }),
        ("link-command-of-fleet", LinkRequestFrame { requests: requests(150, fleet_command()), ..none() }),
        ("link-queries", LinkRequestFrame { requests: requests(200, queries()), ..none() }),
        ("link-sessions", LinkRequestFrame { requests: requests(300, sessions), ..none() }),
        ("link-feed", LinkRequestFrame { feed: vec![feed()], ..none() }),
        ("link-feed-acks-of-caller", LinkRequestFrame { feed_acks: feed_acks(), ..none() }),
        ("link-raft", LinkRequestFrame { raft: raft(), ..none() }),
        (
            "link-snapshot",
            LinkRequestFrame { snapshot_parts: parts(), snapshot_progress: progress(), ..none() },
        ),
        (
            "link-replicas",
            LinkRequestFrame {
                raft: vec![snapshot_of_replicas()],
                replica_reports: vec![report()],
                fleet_changes: vec![fleet()],
                ..none()
            },
        ),
        ("link-hibernating", LinkRequestFrame { raft: marked(), hibernating: hibernating(), ..none() }),
        ("link-beats", LinkRequestFrame { raft: beats(), ..none() }),
        ("link-ping", LinkRequestFrame { ping: true, ..none() }),
    ]
}

/// What a storage node says before its fleet has begun, in place of all else.
pub fn founding_frames() -> Vec<(&'static str, LinkResponseFrame)> {
    let welcome = LinkWelcome {
        version: 1,
        node_id: 2,
        credits: LINK_CREDITS,
        shard_count: 64,
        founding: true,
        folder: 0x2122_2324_2526_2728,
        caller_folder: 0x3132_3334_3536_3738,
        first_copies: 0x4142_4344,
        ..LinkWelcome::default()
    };
    vec![("link-founding", LinkResponseFrame { welcome: Some(welcome), ..LinkResponseFrame::default() })]
}

/// What a storage node sends, in an order that a calling half takes.
pub fn response_frames() -> Vec<(&'static str, LinkResponseFrame)> {
    let welcome = LinkWelcome {
        version: 1,
        node_id: 2,
        epoch: 0x1112_1314_1516_1718,
        credits: LINK_CREDITS,
        shard_count: 64,
        ..LinkWelcome::default()
    };
    let attached = SessionAttached { device_known: true, feed_version: 5 << 40 };
    let attached = vec![shard_response::Result::Attached(attached)];
    let refusal = LinkRefusal { version_min: 2, version_max: 3 };
    let none = LinkResponseFrame::default;
    vec![
        ("link-welcome", LinkResponseFrame { welcome: Some(welcome), ..none() }),
        ("link-outcomes", LinkResponseFrame { responses: responses(100, outcomes()), ..none() }),
        (
            "link-outcomes-of-copies",
            LinkResponseFrame { responses: responses(110, outcomes_of_copies()), ..none() },
        ),
        ("link-answers", LinkResponseFrame { responses: responses(200, answers()), ..none() }),
        ("link-attached", LinkResponseFrame { responses: responses(300, attached), ..none() }),
        ("link-errors", LinkResponseFrame { responses: responses(400, errors()), ..none() }),
        ("link-deliveries", LinkResponseFrame { deliveries: deliveries(), ..none() }),
        ("link-feed-acks", LinkResponseFrame { feed_acks: feed_acks(), ..none() }),
        (
            "link-error-not-leader",
            LinkResponseFrame { responses: responses(410, vec![not_leader()]), ..none() },
        ),
        (
            "link-error-leader-named",
            LinkResponseFrame { responses: responses(420, vec![leader_named()]), ..none() },
        ),
        ("link-leaders", LinkResponseFrame { leaders: leaders(), ..none() }),
        ("link-fleet", LinkResponseFrame { fleet: Some(fleet()), ..none() }),
        ("link-pong", LinkResponseFrame { pong: true, ..none() }),
        ("link-refusal", LinkResponseFrame { refusal: Some(refusal), ..none() }),
    ]
}

/// A message of every kind between replicas of one shard, each with what that kind may carry.
fn raft() -> Vec<RaftMessage> {
    use raft_message::Kind;
    let entry = |kind, index| RaftEntry { kind, term: 6, index, record: Bytes::from_static(b"\x01record") };
    let message = |kind: Kind| RaftMessage {
        shard: 5,
        kind: kind as i32,
        from: 1,
        to: 2,
        term: 7,
        log_term: 6,
        index: 40,
        ..RaftMessage::default()
    };
    let snapshot =
        SnapshotPoint { index: 40, term: 6, voters: vec![1, 2, 3], learners: vec![4], replicas: None };
    let context = Bytes::from_static(&[0, 0, 0, 0, 0, 0, 0, 9]);
    let entries = vec![entry(0, 41), entry(2, 42)];
    vec![
        RaftMessage { entries, commit: 39, commit_term: 6, ..message(Kind::Append) },
        RaftMessage { reject: true, reject_hint: 38, request_snapshot: 40, ..message(Kind::AppendResponse) },
        RaftMessage { priority: 1, ..message(Kind::Vote) },
        message(Kind::VoteResponse),
        RaftMessage { snapshot: Some(snapshot), ..message(Kind::Snapshot) },
        RaftMessage { context: context.clone(), commit: 40, ..message(Kind::Heartbeat) },
        RaftMessage { context, ..message(Kind::HeartbeatResponse) },
        message(Kind::TransferLeader),
        message(Kind::TimeoutNow),
        message(Kind::PreVote),
        message(Kind::PreVoteResponse),
    ]
}

/// The first part of a snapshot, and a later one that is the last.
fn parts() -> Vec<SnapshotPart> {
    let message = raft().into_iter().find(|message| message.snapshot.is_some());
    let entry = RaftEntry { kind: 0, term: 6, index: 40, record: Bytes::from_static(b"\x01record") };
    let row =
        SnapshotRow { key: Bytes::from_static(b"\x00\x07\x11key"), value: Bytes::from_static(b"value") };
    let part = SnapshotPart {
        shard: 5,
        from: 1,
        to: 2,
        term: 7,
        index: 40,
        message,
        entries: vec![entry],
        checksum: 0x2122_2324,
        ..SnapshotPart::default()
    };
    let last = SnapshotPart {
        number: 9,
        is_last: true,
        message: None,
        entries: Vec::new(),
        rows: vec![row],
        checksum: 0x3132_3334,
        ..part.clone()
    };
    vec![part, last]
}

fn progress() -> Vec<SnapshotProgress> {
    let taken = SnapshotProgress { shard: 6, from: 1, to: 3, term: 8, index: 77, next: 4, refused: false };
    vec![taken, SnapshotProgress { shard: 7, refused: true, ..taken }]
}

/// A heartbeat of a group that is quiet.
fn marked() -> Vec<RaftMessage> {
    let kind = raft_message::Kind::Heartbeat as i32;
    let heartbeat =
        RaftMessage { shard: 5, kind, from: 1, to: 2, term: 7, commit: 40, ..RaftMessage::default() };
    vec![RaftMessage { hibernates: true, ..heartbeat }]
}

/// A heartbeat that says when it was sent, and the answer that says it back.
fn beats() -> Vec<RaftMessage> {
    let [heartbeat, answer] = [raft_message::Kind::Heartbeat, raft_message::Kind::HeartbeatResponse];
    let beat = RaftMessage {
        shard: 5,
        kind: heartbeat as i32,
        from: 1,
        to: 2,
        term: 7,
        beat: 301,
        ..RaftMessage::default()
    };
    vec![beat.clone(), RaftMessage { kind: answer as i32, from: 2, to: 1, ..beat }]
}

/// Shards 0, 3 and 9 are led by the sender, 1 and 2 by the receiver.
fn hibernating() -> Vec<Hibernating> {
    let (led, followed) = (Bytes::from_static(&[0b1001, 0b10]), Bytes::from_static(&[0b110]));
    vec![Hibernating { from: 1, to: 2, led, followed }]
}

/// In the middle of a change.
fn snapshot_of_replicas() -> RaftMessage {
    let replicas = ReplicaSet {
        voters: vec![2, 3, 4],
        learners: vec![5],
        voters_outgoing: vec![1, 2, 3],
        learners_next: vec![1],
        auto_leave: true,
        changed_at: 70,
    };
    let (voters, learners) = (replicas.voters.clone(), replicas.learners.clone());
    let point = SnapshotPoint { index: 77, term: 8, voters, learners, replicas: Some(Box::new(replicas)) };
    RaftMessage {
        shard: 6,
        kind: raft_message::Kind::Snapshot as i32,
        from: 3,
        to: 5,
        term: 8,
        snapshot: Some(point),
        ..RaftMessage::default()
    }
}

fn report() -> ReplicaReport {
    ReplicaReport { shard: 6, voters: vec![2, 3, 4], changed_at: 78 }
}

/// A node leaves, another has come.
fn fleet() -> Fleet {
    let node = |id: u32, zone: &str, is_leaving| FleetNode {
        id,
        address: format!("10.0.0.{id}:7000"),
        zone: zone.to_owned(),
        is_leaving,
    };
    Fleet {
        epoch: 9,
        replicas: 3,
        nodes: vec![node(1, "a", true), node(2, "b", false), node(3, "c", false), node(4, "a", false)],
        shards: vec![
            ShardPlace { nodes: vec![4, 2, 3], changed_at: 78 },
            ShardPlace { nodes: vec![2, 3, 1], changed_at: 0 },
        ],
        moves: vec![ShardMove { shard: 1, nodes: vec![2, 3, 4] }],
        retired: vec![9],
    }
}

fn leaders() -> Vec<ShardLeader> {
    [(5, 1, 7), (6, 3, 9)].map(|(shard, node_id, term)| ShardLeader { shard, node_id, term }).into()
}

fn requests(first_id: u64, operations: Vec<shard_request::Operation>) -> Vec<ShardRequest> {
    let request = |(id, operation)| ShardRequest { id, shard: (id % 64) as u32, operation: Some(operation) };
    (first_id..).zip(operations).map(request).collect()
}

fn responses(first_id: u64, results: Vec<shard_response::Result>) -> Vec<ShardResponse> {
    (first_id..).zip(results).map(|(id, result)| ShardResponse { id, result: Some(result) }).collect()
}

fn device() -> Device {
    Device {
        device_id: id(DEVICE),
        name: "phone ☀".into(),
        refresh_hash: Bytes::from_static(&[0x77; 32]),
        created_ms: TIME_MS,
    }
}

fn feed_row() -> FeedRow {
    FeedRow {
        user_id: id(ALICE),
        conversation_id: id(CONVERSATION),
        version: (5 << 40) + 1,
        top_seq: 6,
        activity_ms: TIME_MS + 6,
    }
}

fn fleet_command() -> Vec<shard_request::Operation> {
    vec![shard_request::Operation::Command(Command { kind: Some(command::Kind::ChangeFleet(fleet())) })]
}

fn commands() -> Vec<shard_request::Operation> {
    let kinds = conversation_commands().into_iter().chain(account_commands());
    kinds.map(|kind| shard_request::Operation::Command(Command { kind: Some(kind) })).collect()
}

fn conversation_commands() -> Vec<command::Kind> {
    let create = CreateConversation {
        conversation_id: id(CONVERSATION),
        kind: ConversationKind::Group as u32,
        member_ids: vec![id(ALICE), id(BOB)],
        title: "Sunday".into(),
    };
    let send = SendMessage {
        conversation_id: id(CONVERSATION),
        user_id: id(ALICE),
        device_id: id(DEVICE),
        client_message_id: 0x0102_0304_0506_0708,
        predecessor: u64::MAX,
        kind: EntryKind::Image as u32,
        body: Bytes::from_static(&[0, 0xff, 0x80]),
    };
    let advance = AdvanceCursor {
        conversation_id: id(CONVERSATION),
        user_id: id(BOB),
        device_id: id(DEVICE),
        delivered_up_to: 301,
        read_up_to: 300,
    };
    // Never sent over a link, but it stands in the log beside the others.
    let positions = vec![FeedPosition { source_shard: 9, log_index: 1 << 33 }];
    let checkpoint = FeedCheckpoint { rows: vec![feed_row()], positions };
    vec![
        command::Kind::CreateConversation(create),
        command::Kind::SendMessage(send),
        command::Kind::AdvanceCursor(advance),
        command::Kind::FeedCheckpoint(checkpoint),
    ]
}

fn account_commands() -> Vec<command::Kind> {
    let create = CreateUser {
        user_id: id(ALICE),
        username: "alice".into(),
        display_name: "Alice ☀".into(),
        password_hash: "$argon2id$golden".into(),
        device: Some(device()),
    };
    let rotate = RotateRefresh {
        user_id: id(ALICE),
        device_id: id(DEVICE),
        old_hash: Bytes::from_static(&[0x77; 32]),
        new_hash: Bytes::from_static(&[0x78; 32]),
    };
    vec![
        command::Kind::ClaimName(ClaimName { name: "alice".into(), user_id: id(ALICE) }),
        command::Kind::ConfirmName(ConfirmName { name: "alice".into(), user_id: id(ALICE) }),
        command::Kind::CreateUser(create),
        command::Kind::AddDevice(AddDevice { user_id: id(ALICE), device: Some(device()) }),
        command::Kind::RotateRefresh(rotate),
        command::Kind::RemoveDevice(RemoveDevice { user_id: id(ALICE), device_id: id(DEVICE) }),
    ]
}

fn queries() -> Vec<shard_request::Operation> {
    use read_conversation::Range;
    let ranges = [
        Range::None(true),
        Range::AfterSeq(300),
        Range::BeforeSeq(200),
        Range::Latest(true),
        Range::AfterDeviceCursor(true),
    ];
    let read = |range| ReadConversation {
        conversation_id: id(CONVERSATION),
        user_id: id(ALICE),
        device_id: id(DEVICE),
        with_members: true,
        range: Some(range),
        entries_max: 50,
        bytes_max: 40_960,
    };
    let list = ReadConversationList {
        user_id: id(ALICE),
        rows_max: 20,
        before_activity_ms: TIME_MS,
        before_conversation_id: id(CONVERSATION),
    };
    let feed = ReadFeed { user_id: id(ALICE), since_version: 5 << 40, rows_max: 100 };
    let mut kinds: Vec<query::Kind> =
        ranges.into_iter().map(|range| query::Kind::ReadConversation(read(range))).collect();
    kinds.extend([
        query::Kind::ReadUser(ReadUser { user_id: id(ALICE) }),
        query::Kind::ReadProfiles(ReadProfiles { user_ids: vec![id(ALICE), id(BOB)] }),
        query::Kind::ReadName(ReadName { name: "alice".into() }),
        query::Kind::ReadFeed(feed),
        query::Kind::ReadConversationList(list),
    ]);
    kinds.into_iter().map(|kind| shard_request::Operation::Query(Query { kind: Some(kind) })).collect()
}

fn refused() -> Refused {
    Refused { code: ErrorCode::ErrorNotAMember as u32, detail: "user_id".into() }
}

fn outcomes() -> Vec<shard_response::Result> {
    let applied =
        MessageApplied { seq: 6, time_ms: TIME_MS + 6, repeated_send: true, ..MessageApplied::default() };
    let kinds = [
        outcome::Kind::Refused(refused()),
        outcome::Kind::ConversationCreated(ConversationCreated { existed: true }),
        outcome::Kind::MessageApplied(applied),
        outcome::Kind::Accepted(Accepted {}),
    ];
    kinds.map(|kind| shard_response::Result::Outcome(Outcome { kind: Some(kind) })).to_vec()
}

fn outcomes_of_copies() -> Vec<shard_response::Result> {
    let applied = |spans_zones| {
        let applied =
            MessageApplied { seq: 6, time_ms: TIME_MS + 6, repeated_send: false, copies: 2, spans_zones };
        shard_response::Result::Outcome(Outcome { kind: Some(outcome::Kind::MessageApplied(applied)) })
    };
    vec![applied(false), applied(true)]
}

fn answers() -> Vec<shard_response::Result> {
    let member = Member { ordinal: 1, user_id: id(BOB), delivered_up_to: 5, read_up_to: 4 };
    let conversation = Conversation {
        conversation_id: id(CONVERSATION),
        kind: ConversationKind::Direct as i32,
        members: vec![member],
        head_seq: 6,
        created_ms: TIME_MS,
        unread: 2,
        read_up_to: 3,
        delivered_up_to: 5,
        last: Some(entry(6, 0, EntryKind::Text, b"Yes!")),
        own_ordinal: 1,
        ..Conversation::default()
    };
    let view = ConversationView {
        conversation: Some(conversation),
        entries: vec![entry(5, 1, EntryKind::Text, "See you at the lake ☀".as_bytes())],
        truncated: true,
    };
    let user = UserRecord {
        user_id: id(ALICE),
        username: "alice".into(),
        display_name: "Alice ☀".into(),
        password_hash: "$argon2id$golden".into(),
        devices: vec![device()],
        created_ms: TIME_MS,
    };
    let profile = User { user_id: id(BOB), username: "bob".into(), display_name: "Bob".into() };
    let kinds = [
        answer::Kind::Refused(refused()),
        answer::Kind::Conversation(view),
        answer::Kind::User(user),
        answer::Kind::Profiles(Profiles { users: vec![profile] }),
        answer::Kind::Name(NameRecord { user_id: id(ALICE) }),
        answer::Kind::Feed(FeedPage { rows: vec![feed_row()], version: (5 << 40) + 9, more: true }),
        answer::Kind::ConversationList(ConversationListPage { rows: vec![feed_row()], more: true }),
    ];
    kinds.map(|kind| shard_response::Result::Answer(Answer { kind: Some(kind) })).to_vec()
}

fn errors() -> Vec<shard_response::Result> {
    use shard_error::Kind;
    let kinds = [Kind::NotHere, Kind::Unavailable, Kind::Overloaded, Kind::Malformed, Kind::Internal];
    let error = |kind: Kind| ShardError {
        kind: kind as i32,
        detail: "shard 3: commands waiting".into(),
        retry_after_ms: 100,
        ..ShardError::default()
    };
    kinds.map(|kind| shard_response::Result::Error(error(kind))).to_vec()
}

/// As nodes write it that do not name the leader beside the text.
fn not_leader() -> shard_response::Result {
    let kind = shard_error::Kind::NotLeader as i32;
    let detail = "shard 3: node 2 leads".into();
    shard_response::Result::Error(ShardError { kind, detail, retry_after_ms: 100, ..ShardError::default() })
}

fn leader_named() -> shard_response::Result {
    let kind = shard_error::Kind::NotLeader as i32;
    let detail = "shard 3: node 2 leads".into();
    let error = ShardError { kind, detail, retry_after_ms: 100, leader_node_id: 2, term: 7 };
    shard_response::Result::Error(error)
}

fn receipt() -> ReceiptEvent {
    ReceiptEvent { member: 1, delivered_up_to: 5, read_up_to: 4, ..ReceiptEvent::default() }
}

fn deliveries() -> Vec<Delivery> {
    let about = |event| Delivery {
        sessions: vec![SESSION, SessionAddress { slot: 1, generation: 9 }],
        conversation_id: id(CONVERSATION),
        event: Some(event),
    };
    let to_sessions = |event| Delivery { conversation_id: Bytes::new(), ..about(event) };
    vec![
        about(delivery::Event::Entry(entry(6, 0, EntryKind::Text, b"Yes!"))),
        about(delivery::Event::Receipt(receipt())),
        to_sessions(delivery::Event::DeviceRemoved(true)),
        to_sessions(delivery::Event::SyncNeeded(true)),
        Delivery { sessions: vec![], ..to_sessions(delivery::Event::SyncNeeded(true)) },
    ]
}

fn feed() -> FeedBatch {
    let item = |event| FeedItem {
        user_ids: vec![id(ALICE), id(BOB)],
        conversation_id: id(CONVERSATION),
        top_seq: 6,
        activity_ms: TIME_MS + 6,
        event,
        origin_device_id: id(DEVICE),
    };
    let items = vec![
        item(Some(feed_item::Event::Entry(entry(6, 0, EntryKind::Text, b"Yes!")))),
        item(Some(feed_item::Event::Receipt(receipt()))),
        // A place without an event: what a replay tells when an entry cannot be found any more.
        FeedItem { origin_device_id: Bytes::new(), ..item(None) },
    ];
    FeedBatch { source_shard: 9, home_shard: 4, from_index: 1 << 33, to_index: (1 << 33) + 3, items }
}

fn feed_acks() -> Vec<FeedAck> {
    let ack = FeedAck {
        source_shard: 9,
        home_shard: 4,
        durable_index: 1 << 33,
        received_index: (1 << 33) + 3,
        replay: false,
    };
    vec![ack, FeedAck { source_shard: 10, replay: true, ..ack }]
}

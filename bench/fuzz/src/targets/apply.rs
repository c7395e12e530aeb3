//! The state machine of a shard: sequences of commands, queries, and rows that a disk may hand back.

use crate::Target;
use crate::input::Input;
use crate::targets::books::{Books, Room};
use crate::targets::pages;
use bytes::Bytes;
use prost::Message;
use storage_node::domain::{self, Applied, Event, Overlay};
use storage_node::engine::{Direction, MemoryStore, Reader, Store, StoreError};
use wire_protocol::ids::{ConversationId, ShardId, UserId};
use wire_protocol::internal::{
    AddDevice, AdvanceCursor, ClaimName, Command, CommandBatch, ConfirmName, CreateConversation, CreateUser,
    Device, FeedCheckpoint, FeedPosition, FeedRow, Fleet, FleetNode, Query, ReadConversation,
    ReadConversationList, ReadFeed, ReadName, ReadProfiles, ReadUser, RemoveDevice, RotateRefresh,
    SendMessage, ShardMove, ShardPlace, answer, command, feed_item, outcome, query, read_conversation,
};

/// The one that keeps the fleet beside all else, and one that does not.
const SHARD: ShardId = ShardId(0);
const ANOTHER: ShardId = ShardId(3);
/// Users, devices of each, and conversations of a story.
const PEOPLE: usize = 4;
/// Batches of a story.
const BATCHES_MAX: usize = 24;
/// Commands of a batch.
const COMMANDS_MAX: usize = 6;

/// See `holds`.
pub const APPLY: Target = Target {
    name: "apply",
    holds: "answers and what people see are those of a model, bundled or not, also after a crash; a refusal changes nothing",
    run: apply,
};
/// See `holds`.
pub const QUERIES: Target = Target {
    name: "queries",
    holds: "any query over any state is answered or refused, by no more entries, rows and bytes than it may have: also where there \
            is more to tell",
    run: queries,
};
/// See `holds`.
pub const ROTTEN_ROWS: Target = Target {
    name: "rotten-rows",
    holds: "rows that do not decode are an error that names their table, never a panic",
    run: rotten_rows,
};

pub(super) fn user(number: usize) -> Bytes {
    Bytes::copy_from_slice(&[1 + number as u8; 16])
}

pub(super) fn device(user: usize, number: usize) -> Bytes {
    let mut id = [number as u8; 16];
    id[0] = user as u8;
    Bytes::copy_from_slice(&id)
}

/// Two groups, and the direct conversations of the first and the second two.
pub(super) fn conversation(number: usize) -> Bytes {
    let user = |number| UserId::from_slice(&user(number)).expect("16 bytes");
    match number {
        2 | 3 => ConversationId::direct(user(number - 2), user(number - 1)).to_bytes(),
        _ => Bytes::copy_from_slice(&[0xc0 + number as u8; 16]),
    }
}

/// An id that fits, or in one of sixteen cases anything.
fn id(input: &mut Input<'_>, fitting: fn(usize) -> Bytes) -> Bytes {
    match input.below(64) {
        0 => Bytes::copy_from_slice(input.slice()),
        choice => fitting(choice % PEOPLE),
    }
}

fn name(input: &mut Input<'_>) -> String {
    match input.below(8) {
        0 => String::from_utf8_lossy(input.slice()).into_owned(),
        choice => format!("name-{choice}"),
    }
}

fn some_device(input: &mut Input<'_>) -> Option<Device> {
    // More than an account may have.
    let (owner, number) = (input.below(PEOPLE), input.below(20));
    let device = Device {
        device_id: device(owner, number),
        name: name(input),
        refresh_hash: Bytes::copy_from_slice(&[input.byte() % 3; 32]),
        created_ms: input.number(),
    };
    (input.below(16) > 0).then_some(device)
}

fn some_command(input: &mut Input<'_>) -> Command {
    let kind = match input.byte() {
        0xf0..=0xf6 => Some(command::Kind::ChangeFleet(some_fleet(input))),
        // Of a kind that only newer nodes know.
        0xf7 => None,
        choice => Some(some_kind(choice % 16, input)),
    };
    Command { kind }
}

fn some_kind(choice: u8, input: &mut Input<'_>) -> command::Kind {
    use command::Kind;
    match choice {
        0..=6 => Kind::SendMessage(SendMessage {
            conversation_id: id(input, conversation),
            user_id: id(input, user),
            device_id: device(input.below(PEOPLE), input.below(3)),
            client_message_id: input.number() % 6,
            predecessor: input.number() % 6,
            kind: u32::from(input.byte() % 4),
            body: Bytes::copy_from_slice(input.slice()),
        }),
        7 => Kind::CreateConversation(CreateConversation {
            conversation_id: id(input, conversation),
            kind: u32::from(input.byte() % 4),
            member_ids: (0..input.below(6)).map(|_| id(input, user)).collect(),
            title: name(input),
        }),
        8 | 9 => Kind::AdvanceCursor(AdvanceCursor {
            conversation_id: id(input, conversation),
            user_id: id(input, user),
            device_id: device(input.below(PEOPLE), input.below(3)),
            delivered_up_to: input.number(),
            read_up_to: input.number(),
        }),
        10 => Kind::ClaimName(ClaimName { name: name(input), user_id: id(input, user) }),
        11 => Kind::ConfirmName(ConfirmName { name: name(input), user_id: id(input, user) }),
        12 => Kind::CreateUser(CreateUser {
            user_id: id(input, user),
            username: name(input),
            display_name: name(input),
            password_hash: name(input),
            device: some_device(input),
        }),
        13 => Kind::AddDevice(AddDevice { user_id: id(input, user), device: some_device(input) }),
        14 if input.below(2) == 0 => Kind::RotateRefresh(RotateRefresh {
            user_id: id(input, user),
            device_id: device(input.below(PEOPLE), input.below(3)),
            old_hash: Bytes::copy_from_slice(&[input.byte() % 3; 32]),
            new_hash: Bytes::copy_from_slice(&[input.byte() % 3; 32]),
        }),
        14 => Kind::RemoveDevice(RemoveDevice {
            user_id: id(input, user),
            device_id: device(input.below(PEOPLE), input.below(3)),
        }),
        _ => Kind::FeedCheckpoint(FeedCheckpoint {
            rows: (0..input.below(4)).map(|_| some_row(input)).collect(),
            positions: vec![FeedPosition { source_shard: 1, log_index: input.number() }],
        }),
    }
}

/// Often it follows the one before. Whether it makes sense is for others to see.
fn some_fleet(input: &mut Input<'_>) -> Fleet {
    Fleet {
        epoch: input.number() % 6,
        replicas: u32::from(input.byte() % 6),
        nodes: (0..input.below(4))
            .map(|_| FleetNode {
                id: u32::from(input.byte()),
                address: name(input),
                zone: name(input),
                is_leaving: input.below(4) == 0,
            })
            .collect(),
        shards: (0..input.below(4))
            .map(|_| ShardPlace { nodes: some_nodes(input), changed_at: input.number() })
            .collect(),
        moves: (0..input.below(3))
            .map(|_| ShardMove { shard: u32::from(input.byte()), nodes: some_nodes(input) })
            .collect(),
        retired: some_nodes(input),
    }
}

fn some_nodes(input: &mut Input<'_>) -> Vec<u32> {
    (0..input.below(4)).map(|_| u32::from(input.byte())).collect()
}

fn some_row(input: &mut Input<'_>) -> FeedRow {
    FeedRow {
        user_id: id(input, user),
        conversation_id: id(input, conversation),
        version: input.number(),
        top_seq: input.number(),
        activity_ms: input.number(),
    }
}

fn some_query(input: &mut Input<'_>) -> Query {
    use query::Kind;
    let kind = match input.below(8) {
        0..=2 => Kind::ReadConversation(ReadConversation {
            conversation_id: id(input, conversation),
            user_id: id(input, user),
            device_id: device(input.below(PEOPLE), input.below(3)),
            with_members: input.below(2) == 0,
            range: match input.below(6) {
                0 => None,
                1 => Some(read_conversation::Range::None(true)),
                2 => Some(read_conversation::Range::AfterSeq(input.number())),
                3 => Some(read_conversation::Range::BeforeSeq(input.number())),
                4 => Some(read_conversation::Range::Latest(true)),
                _ => Some(read_conversation::Range::AfterDeviceCursor(true)),
            },
            entries_max: input.number() as u32,
            bytes_max: input.number() as u32,
        }),
        3 => Kind::ReadUser(ReadUser { user_id: id(input, user) }),
        4 => Kind::ReadProfiles(ReadProfiles {
            user_ids: (0..input.below(6)).map(|_| id(input, user)).collect(),
        }),
        5 => Kind::ReadName(ReadName { name: name(input) }),
        6 => Kind::ReadFeed(ReadFeed {
            user_id: id(input, user),
            since_version: input.number(),
            rows_max: input.number() as u32,
        }),
        _ => match Query::decode(input.slice()) {
            Ok(Query { kind: Some(kind) }) => kind,
            _ => Kind::ReadConversationList(ReadConversationList {
                user_id: id(input, user),
                ..ReadConversationList::default()
            }),
        },
    };
    Query { kind: Some(kind) }
}

pub(super) fn carry_out(store: &MemoryStore, index: u64, batch: &CommandBatch) -> Vec<Applied> {
    let mut overlay = Overlay::new(store);
    let applied = domain::apply(&mut overlay, SHARD, batch).expect("memory does not fail");
    domain::set_applied_index(&mut overlay, SHARD, index, batch.time_ms);
    store.write(overlay.into_batch()).expect("memory does not fail");
    applied
}

/// The leader stamps time; every step is up to half a minute, and sometimes four days more: first answers and claims of
/// names grow old within a story.
fn later(input: &mut Input<'_>) -> u64 {
    let step = input.number();
    let days = if step >= 1 << 40 { 4 * 24 * 3_600_000 } else { 0 };
    days + step % 30_000
}

fn story(input: &mut Input<'_>) -> (MemoryStore, Vec<CommandBatch>, Vec<Vec<Applied>>, Books) {
    let (store, mut batches, mut answers) = (MemoryStore::new(), Vec::new(), Vec::new());
    let mut books = Books::default();
    let mut time_ms = 1_000;
    while !input.is_empty() && batches.len() < BATCHES_MAX {
        time_ms += later(input);
        let commands = (0..1 + input.below(COMMANDS_MAX)).map(|_| some_command(input)).collect();
        let batch = CommandBatch { time_ms, commands, feed_cut: 0, log_cut: 0 };
        let applied = carry_out(&store, batches.len() as u64 + 1, &batch);
        assert_eq!(applied.len(), batch.commands.len());
        for (command, applied) in batch.commands.iter().zip(&applied) {
            books.check(time_ms, command, applied);
        }
        batches.push(batch);
        answers.push(applied);
    }
    (store, batches, answers, books)
}

fn apply(data: &[u8]) {
    let (store, batches, answers, books) = story(&mut Input::new(data));
    one_by_one(&store, &batches, &answers);
    across_a_crash(&store, &batches, &answers);
    elsewhere(&batches);
    look(&store, &books);
    for batch in &batches {
        for event in domain::replay_events(&store, SHARD, batch).expect("readable") {
            let Event::Feed(item) = event else { continue };
            let room = &books.rooms[&item.conversation_id];
            assert!(item.user_ids == room.members && item.top_seq as usize <= room.entries.len());
            if let Some(feed_item::Event::Entry(entry)) = item.event {
                assert_eq!(room.entries[entry.seq as usize - 1], (entry.time_ms, entry.body));
            }
        }
    }
}

/// A batch is only a bundle: command by command it gives the same answers and rows, and what is refused leaves none.
fn one_by_one(store: &MemoryStore, batches: &[CommandBatch], answers: &[Vec<Applied>]) {
    let apart = MemoryStore::new();
    for (index, (batch, answers)) in (1..).zip(batches.iter().zip(answers)) {
        for (command, answer) in batch.commands.iter().zip(answers) {
            let single = CommandBatch { commands: vec![command.clone()], ..batch.clone() };
            let mut overlay = Overlay::new(&apart);
            let applied = domain::apply(&mut overlay, SHARD, &single).expect("memory does not fail");
            assert_eq!(applied.as_slice(), std::slice::from_ref(answer));
            let is_refused = matches!(answer.outcome.kind, Some(outcome::Kind::Refused(_)));
            assert!(!is_refused || overlay.pending_rows() == 0, "a refused command left rows: {command:?}");
            apart.write(overlay.into_batch()).expect("memory does not fail");
        }
        let mut overlay = Overlay::new(&apart);
        domain::set_applied_index(&mut overlay, SHARD, index, batch.time_ms);
        apart.write(overlay.into_batch()).expect("memory does not fail");
    }
    assert!(store.rows() == apart.rows(), "rows depend on how commands are bundled");
}

/// Another replica that loses power and applies its log again from where its rows are: the same answers and rows.
fn across_a_crash(store: &MemoryStore, batches: &[CommandBatch], answers: &[Vec<Applied>]) {
    let replica = MemoryStore::new();
    for (index, batch) in (1..).zip(batches) {
        carry_out(&replica, index, batch);
        if index % 3 == 0 {
            replica.sync().expect("memory does not fail");
        }
    }
    replica.crash_keeping(batches.len() % 3);
    let (kept, _) = domain::applied_index(&replica, SHARD).expect("readable");
    for (index, (batch, answers)) in (1..).zip(batches.iter().zip(answers)).skip(kept as usize) {
        assert_eq!(&carry_out(&replica, index, batch), answers, "another answer the second time");
    }
    assert!(store.rows() == replica.rows(), "two replicas differ");
    let (index, _) = domain::applied_index(store, SHARD).expect("readable");
    assert_eq!(index, batches.len() as u64);
}

/// Another shard does not keep the fleet: it refuses to change it.
fn elsewhere(batches: &[CommandBatch]) {
    let store = MemoryStore::new();
    for batch in batches {
        let of_fleet = |command: &Command| matches!(command.kind, Some(command::Kind::ChangeFleet(_)));
        let mut batch = batch.clone();
        batch.commands.retain(of_fleet);
        let mut overlay = Overlay::new(&store);
        let applied = domain::apply(&mut overlay, ANOTHER, &batch).expect("memory does not fail");
        let is_refused = |applied: &Applied| matches!(applied.outcome.kind, Some(outcome::Kind::Refused(_)));
        assert!(applied.iter().all(is_refused) && overlay.pending_rows() == 0, "{batch:?}");
    }
}

fn ask(store: &MemoryStore, kind: query::Kind) -> answer::Kind {
    let answer = domain::query(store, &Query { kind: Some(kind) }).expect("memory does not fail");
    answer.kind.expect("an answer says something")
}

/// Everything that people see is what the books say.
fn look(store: &MemoryStore, books: &Books) {
    for (id, room) in &books.rooms {
        room.members.iter().for_each(|member| look_at_room(store, id, room, member));
    }
    for (id, user) in &books.users {
        let answer::Kind::User(found) = ask(store, query::Kind::ReadUser(ReadUser { user_id: id.clone() }))
        else {
            panic!("{user:?} is gone")
        };
        let devices = found.devices.into_iter().map(|device| (device.device_id, device.refresh_hash));
        assert_eq!(devices.collect::<Vec<_>>(), user.devices);
    }
    for (name, holder) in &books.names {
        match ask(store, query::Kind::ReadName(ReadName { name: name.clone() })) {
            answer::Kind::Name(found) => assert!(holder.confirmed && found.user_id == holder.user),
            found => assert!(!holder.confirmed, "{found:?}"),
        }
    }
    assert_eq!(domain::fleet::fleet(store).expect("readable"), books.fleet);
}

fn look_at_room(store: &MemoryStore, id: &Bytes, room: &Room, member: &Bytes) {
    let (mut after_seq, mut entries) = (0, Vec::new());
    loop {
        let read = ReadConversation {
            conversation_id: id.clone(),
            user_id: member.clone(),
            device_id: member.clone(),
            with_members: true,
            range: Some(read_conversation::Range::AfterSeq(after_seq)),
            entries_max: 3,
            bytes_max: 200,
        };
        let answer::Kind::Conversation(page) = ask(store, query::Kind::ReadConversation(read)) else {
            panic!("a member may read")
        };
        let conversation = page.conversation.expect("it is there");
        let (delivered, read) = room.cursors_of(member);
        assert_eq!((conversation.delivered_up_to, conversation.read_up_to), (delivered, read));
        let head = room.entries.len() as u64;
        assert_eq!(conversation.head_seq, head);
        assert!(room.unread_of(member).is_none_or(|unread| unread == conversation.unread));
        assert_eq!(room.ordinal(member), Some(conversation.own_ordinal as usize));
        let found = conversation.members.iter().map(|other| {
            assert_eq!((other.delivered_up_to, other.read_up_to), room.cursors_of(&other.user_id));
            &other.user_id
        });
        assert!(found.eq(&room.members));
        for entry in page.entries {
            after_seq += 1;
            assert_eq!(entry.seq, after_seq, "a gap in a page");
            entries.push((entry.time_ms, entry.body));
        }
        if !page.truncated {
            break;
        }
    }
    assert_eq!(entries, room.entries);
}

fn queries(data: &[u8]) {
    let mut input = Input::new(data);
    let of_story = input.slice();
    let (store, ..) = story(&mut Input::new(of_story));
    for _ in 0..32 {
        if input.is_empty() {
            break;
        }
        let query = some_query(&mut input);
        pages::ask(&store, &query);
        pages::ask(pages::full_store(), &query);
    }
}

fn rotten_rows(data: &[u8]) {
    let mut input = Input::new(data);
    let of_story = input.slice();
    let (store, batches, ..) = story(&mut Input::new(of_story));
    let rows = store.rows();
    if rows.is_empty() {
        return;
    }
    let (key, value) = rows[(input.number() as usize) % rows.len()].clone();
    let rotten = Rotten { value: damaged(&value, &mut input), key, store };
    let told = |error: StoreError| assert!(!error.to_string().is_empty());
    for kind in reads() {
        let _ = domain::query(&rotten, &Query { kind: Some(kind) }).map_err(told);
    }
    let _ = domain::feed_positions(&rotten, SHARD).map_err(told);
    let _ = domain::applied_index(&rotten, SHARD).map_err(told);
    let _ = domain::fleet::fleet(&rotten).map_err(told);
    for batch in &batches {
        let mut overlay = Overlay::new(&rotten);
        let _ = domain::apply(&mut overlay, SHARD, batch).map_err(told);
        let _ = domain::replay_events(&rotten, SHARD, batch).map_err(told);
    }
}

/// One of each kind, for everybody.
fn reads() -> Vec<query::Kind> {
    let mut reads =
        vec![query::Kind::ReadProfiles(ReadProfiles { user_ids: (0..PEOPLE).map(user).collect() })];
    for number in 0..PEOPLE {
        let user_id = user(number);
        reads.extend((0..PEOPLE).map(|room| {
            query::Kind::ReadConversation(ReadConversation {
                conversation_id: conversation(room),
                user_id: user_id.clone(),
                device_id: device(number, 0),
                with_members: true,
                range: Some(read_conversation::Range::Latest(true)),
                entries_max: 50,
                bytes_max: 4_096,
            })
        }));
        reads.push(query::Kind::ReadUser(ReadUser { user_id: user_id.clone() }));
        reads.push(query::Kind::ReadName(ReadName { name: format!("name-{number}") }));
        reads.push(query::Kind::ReadFeed(ReadFeed { user_id: user_id.clone(), ..ReadFeed::default() }));
        let list = ReadConversationList { user_id, ..ReadConversationList::default() };
        reads.push(query::Kind::ReadConversationList(list));
    }
    reads
}

/// A store of which one row came back as something else.
struct Rotten {
    store: MemoryStore,
    key: Vec<u8>,
    value: Bytes,
}

impl Reader for Rotten {
    fn value(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        if key == self.key { Ok(Some(self.value.clone())) } else { self.store.value(key) }
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        direction: Direction,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        let mut visit =
            |key: &[u8], value: &[u8]| visit(key, if key == self.key { &self.value } else { value });
        self.store.scan(from, to, direction, &mut visit)
    }
}

fn damaged(value: &[u8], input: &mut Input<'_>) -> Bytes {
    let mut value = value.to_vec();
    match input.below(3) {
        0 => value = input.slice().to_vec(),
        1 => value.truncate(usize::from(input.byte()) % (value.len() + 1)),
        _ => {
            let place = usize::from(input.byte());
            if let Some(byte) = value.get_mut(place) {
                *byte ^= input.byte();
            }
        }
    }
    value.into()
}

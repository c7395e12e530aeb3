//! The state machine of a shard: sequences of commands, queries, and rows that a disk may hand back.

use crate::Target;
use crate::input::Input;
use bytes::Bytes;
use prost::Message;
use std::collections::BTreeMap;
use storage_node::domain::{self, Applied, Overlay};
use storage_node::engine::{Direction, MemoryStore, Reader, Store, StoreError};
use wire_protocol::ids::{ConversationId, ShardId};
use wire_protocol::internal::{
    AddDevice, AdvanceCursor, ClaimName, Command, CommandBatch, ConfirmName, CreateConversation, CreateUser,
    Device, FeedCheckpoint, FeedPosition, FeedRow, Outcome, Query, ReadConversation, ReadConversationList,
    ReadFeed, ReadName, ReadProfiles, ReadUser, RemoveDevice, RotateRefresh, SendMessage, command, outcome,
    query, read_conversation,
};

const SHARD: ShardId = ShardId(3);
/// Users, devices of each, and conversations of a story.
const PEOPLE: usize = 4;
/// Batches of a story.
const BATCHES_MAX: usize = 24;
/// Commands of a batch.
const COMMANDS_MAX: usize = 6;

/// See `holds`.
pub const APPLY: Target = Target {
    name: "apply",
    holds: "numbers of a conversation have no gap, a repeat is answered as before, a second replica arrives at the same rows",
    run: apply,
};
/// See `holds`.
pub const QUERIES: Target = Target {
    name: "queries",
    holds: "any query over any state is answered or refused within its bounds",
    run: queries,
};
/// See `holds`.
pub const ROTTEN_ROWS: Target = Target {
    name: "rotten-rows",
    holds: "rows that do not decode are an error that names their table, never a panic",
    run: rotten_rows,
};

fn user(number: usize) -> Bytes {
    Bytes::copy_from_slice(&[1 + number as u8; 16])
}

fn device(user: usize, number: usize) -> Bytes {
    Bytes::copy_from_slice(&[0x10 * (1 + user as u8) + number as u8; 16])
}

fn conversation(number: usize) -> Bytes {
    Bytes::copy_from_slice(&[0xc0 + number as u8; 16])
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
    let (owner, number) = (input.below(PEOPLE), input.below(3));
    let device = Device {
        device_id: device(owner, number),
        name: name(input),
        refresh_hash: Bytes::copy_from_slice(&[input.byte() % 3; 32]),
        created_ms: input.number(),
    };
    (input.below(16) > 0).then_some(device)
}

fn some_command(input: &mut Input<'_>) -> Command {
    use command::Kind;
    let kind = match input.below(16) {
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
    };
    Command { kind: Some(kind) }
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

fn carry_out(store: &MemoryStore, index: u64, batch: &CommandBatch) -> Vec<Applied> {
    let mut overlay = Overlay::new(store);
    let applied = domain::apply(&mut overlay, SHARD, batch).expect("memory does not fail");
    domain::set_applied_index(&mut overlay, SHARD, index, batch.time_ms);
    store.write(overlay.into_batch()).expect("memory does not fail");
    applied
}

/// What was sent: conversation, sender, its device, message id.
type Sent = (Bytes, Bytes, Bytes, u64);

/// Answers that must never change, and the last number of each conversation.
#[derive(Default)]
struct Books {
    answers: BTreeMap<Sent, u64>,
    heads: BTreeMap<Bytes, u64>,
}

impl Books {
    fn check(&mut self, command: &Command, outcome: &Outcome) {
        match (&command.kind, &outcome.kind) {
            (Some(command::Kind::SendMessage(send)), Some(outcome::Kind::MessageApplied(applied))) => {
                let sender = (send.user_id.clone(), send.device_id.clone());
                let key = (send.conversation_id.clone(), sender.0, sender.1, send.client_message_id);
                if applied.repeated_send {
                    assert_eq!(self.answers.get(&key), Some(&applied.seq), "another answer to a repeat");
                    return;
                }
                let head = self.heads.entry(send.conversation_id.clone()).or_insert(0);
                assert_eq!(applied.seq, *head + 1, "a gap, or a number twice");
                *head = applied.seq;
                assert!(self.answers.insert(key, applied.seq).is_none(), "a repeat was stored");
            }
            (
                Some(command::Kind::CreateConversation(create)),
                Some(outcome::Kind::ConversationCreated(created)),
            ) => {
                let is_known = self.heads.contains_key(&create.conversation_id);
                assert_eq!(created.existed, is_known);
                // The creation is the first entry.
                self.heads.entry(create.conversation_id.clone()).or_insert(1);
            }
            _ => {}
        }
    }
}

fn story(input: &mut Input<'_>) -> (MemoryStore, Vec<CommandBatch>) {
    let (store, mut batches, mut books) = (MemoryStore::new(), Vec::new(), Books::default());
    let mut time_ms = 1_000;
    while !input.is_empty() && batches.len() < BATCHES_MAX {
        // Steps of up to half a minute: idempotency rows must not expire within a story.
        time_ms += input.number() % 30_000;
        let commands = (0..1 + input.below(COMMANDS_MAX)).map(|_| some_command(input)).collect();
        let batch = CommandBatch { time_ms, commands, feed_cut: 0 };
        let applied = carry_out(&store, batches.len() as u64 + 1, &batch);
        assert_eq!(applied.len(), batch.commands.len());
        for (command, applied) in batch.commands.iter().zip(&applied) {
            books.check(command, &applied.outcome);
        }
        batches.push(batch);
    }
    (store, batches)
}

fn apply(data: &[u8]) {
    let mut input = Input::new(data);
    let (store, batches) = story(&mut input);
    let replica = MemoryStore::new();
    for (index, batch) in (1..).zip(&batches) {
        carry_out(&replica, index, batch);
        domain::replay_events(&store, SHARD, batch).expect("readable");
    }
    assert_eq!(store.rows(), replica.rows(), "two replicas differ");
    let (index, _) = domain::applied_index(&store, SHARD).expect("readable");
    assert_eq!(index, batches.len() as u64);
}

fn queries(data: &[u8]) {
    let mut input = Input::new(data);
    let of_story = input.slice();
    let (store, _) = story(&mut Input::new(of_story));
    for _ in 0..32 {
        if input.is_empty() {
            break;
        }
        let query = some_query(&mut input);
        domain::query(&store, &query).expect("memory does not fail");
    }
}

fn rotten_rows(data: &[u8]) {
    let mut input = Input::new(data);
    let of_story = input.slice();
    let (store, batches) = story(&mut Input::new(of_story));
    let rows = store.rows();
    if rows.is_empty() {
        return;
    }
    let (key, value) = rows[(input.number() as usize) % rows.len()].clone();
    let rotten = Rotten { value: damaged(&value, &mut input), key, store };
    let told = |error: StoreError| assert!(!error.to_string().is_empty());
    for number in 0..PEOPLE {
        let id = ConversationId::from_slice(&conversation(number)).expect("16 bytes");
        let read = ReadConversation {
            conversation_id: id.to_bytes(),
            user_id: user(number),
            with_members: true,
            range: Some(read_conversation::Range::Latest(true)),
            entries_max: 50,
            bytes_max: 4_096,
            ..ReadConversation::default()
        };
        let read = Query { kind: Some(query::Kind::ReadConversation(read)) };
        let _ = domain::query(&rotten, &read).map_err(told);
        let read = Query { kind: Some(query::Kind::ReadUser(ReadUser { user_id: user(number) })) };
        let _ = domain::query(&rotten, &read).map_err(told);
    }
    for batch in &batches {
        let mut overlay = Overlay::new(&rotten);
        let _ = domain::apply(&mut overlay, SHARD, batch).map_err(told);
    }
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

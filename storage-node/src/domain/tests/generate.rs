//! Random commands over a small world: few users, conversations, devices and client ids, so that repeats, strangers
//! and races are common.

use bytes::Bytes;
use proptest::prelude::*;
use wire_protocol::ids::{ConversationId, DeviceId, UserId};
use wire_protocol::internal::{self, command, read_conversation::Range};
use wire_protocol::v1::ConversationKind;

const USERS: u8 = 4;
const DEVICES: u8 = 20;

/// What happens to a shard.
#[derive(Clone, Debug)]
pub enum Step {
    /// A log entry, this long after the one before.
    Batch { wait_ms: u64, commands: Vec<internal::Command> },
    /// The rows become durable.
    Sync,
    /// Rows that were not durable are lost, except the first `kept` batches.
    Crash { kept: usize },
    /// Somebody reads.
    Look(Look),
}

/// What is read.
#[derive(Clone, Debug)]
pub struct Look {
    pub user: u8,
    pub read: internal::ReadConversation,
    pub since: u64,
    pub rows_max: u32,
}

pub fn id_of_user(user: u8) -> UserId {
    UserId([user + 1; 16])
}

pub fn id_of_device(user: u8, device: u8) -> DeviceId {
    let mut id = [device + 1; 16];
    id[0] = user;
    DeviceId(id)
}

pub fn name(name: u8) -> String {
    format!("name{name}")
}

/// Conversations 0 to 5 are direct, 6 and 7 groups of three.
pub fn room(room: u8) -> (ConversationId, Vec<UserId>, ConversationKind) {
    let pairs = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)];
    match pairs.get(usize::from(room)) {
        Some((a, b)) => {
            let (a, b) = (id_of_user(*a), id_of_user(*b));
            (ConversationId::direct(a, b), vec![a, b], ConversationKind::Direct)
        }
        None => {
            let creator = room % USERS;
            let members: Vec<UserId> = (0..3).map(|user| id_of_user((creator + user) % USERS)).collect();
            (ConversationId::group(id_of_user(creator), u64::from(room)), members, ConversationKind::Group)
        }
    }
}

/// Everything a shard may be asked for.
pub fn steps(steps_max: usize) -> impl Strategy<Value = Vec<Step>> {
    steps_of(command().boxed(), steps_max)
}

/// Accounts and names alone, so that the limit of devices and the races for a name are reached.
pub fn account_steps(steps_max: usize) -> impl Strategy<Value = Vec<Step>> {
    let kind = prop_oneof![3 => account(), 1 => claim(), 1 => confirm()];
    steps_of(kind.prop_map(|kind| internal::Command { kind: Some(kind) }).boxed(), steps_max)
}

fn steps_of(command: BoxedStrategy<internal::Command>, steps_max: usize) -> impl Strategy<Value = Vec<Step>> {
    let wait_ms = prop_oneof![
        6 => Just(0u64),
        6 => 1..100u64,
        1 => Just(61_000),
        1 => Just(4 * 24 * 3_600_000),
    ];
    let batch = (wait_ms, prop::collection::vec(command, 0..8))
        .prop_map(|(wait_ms, commands)| Step::Batch { wait_ms, commands });
    let step = prop_oneof![
        8 => batch,
        1 => Just(Step::Sync),
        1 => (0..4usize).prop_map(|kept| Step::Crash { kept }),
        4 => look().prop_map(Step::Look),
    ];
    prop::collection::vec(step, 1..steps_max)
}

fn look() -> impl Strategy<Value = Look> {
    let range = prop_oneof![
        Just(None),
        Just(Some(Range::None(true))),
        Just(Some(Range::Latest(true))),
        Just(Some(Range::AfterDeviceCursor(true))),
        (0..9u64).prop_map(|seq| Some(Range::AfterSeq(seq))),
        (0..9u64).prop_map(|seq| Some(Range::BeforeSeq(seq))),
        Just(Some(Range::AfterSeq(u64::MAX))),
        Just(Some(Range::BeforeSeq(u64::MAX))),
    ];
    let limits = (0..6u32, prop_oneof![Just(0u32), 20..200u32]);
    (0..USERS, 0..3u8, 0..8u8, range, limits, any::<bool>(), 0..40u64, 1..5u32).prop_map(
        |(user, device, room_index, range, (entries_max, bytes_max), with_members, since, rows_max)| Look {
            user,
            since,
            rows_max,
            read: internal::ReadConversation {
                conversation_id: room(room_index).0.to_bytes(),
                user_id: id_of_user(user).to_bytes(),
                device_id: id_of_device(user, device).to_bytes(),
                with_members,
                entries_max,
                bytes_max,
                range,
            },
        },
    )
}

fn command() -> impl Strategy<Value = internal::Command> {
    let kind = prop_oneof![
        4 => create_conversation(),
        12 => send(),
        5 => advance(),
        1 => claim(),
        1 => confirm(),
        4 => account(),
        2 => checkpoint(),
    ];
    kind.prop_map(|kind| internal::Command { kind: Some(kind) })
}

fn claim() -> impl Strategy<Value = command::Kind> {
    (0..3u8, 0..USERS).prop_map(|(n, user)| {
        command::Kind::ClaimName(internal::ClaimName { name: name(n), user_id: id_of_user(user).to_bytes() })
    })
}

fn confirm() -> impl Strategy<Value = command::Kind> {
    (0..3u8, 0..USERS).prop_map(|(n, user)| {
        command::Kind::ConfirmName(internal::ConfirmName {
            name: name(n),
            user_id: id_of_user(user).to_bytes(),
        })
    })
}

fn create_conversation() -> impl Strategy<Value = command::Kind> {
    (0..8u8, any::<bool>()).prop_map(|(index, reversed)| {
        let (id, mut members, kind) = room(index);
        if reversed && kind == ConversationKind::Direct {
            members.reverse();
        }
        let title = if kind == ConversationKind::Group { format!("group {index}") } else { String::new() };
        command::Kind::CreateConversation(internal::CreateConversation {
            conversation_id: id.to_bytes(),
            kind: kind as u32,
            member_ids: members.into_iter().map(UserId::to_bytes).collect(),
            title,
        })
    })
}

fn send() -> impl Strategy<Value = command::Kind> {
    let body = prop::collection::vec(any::<u8>(), 1..60);
    (0..8u8, 0..USERS, 0..2u8, 1..6u64, prop_oneof![3 => Just(0u64), 1 => 1..6u64], 0..5u32, body).prop_map(
        |(index, user, device, client_message_id, predecessor, kind, body)| {
            command::Kind::SendMessage(internal::SendMessage {
                conversation_id: room(index).0.to_bytes(),
                user_id: id_of_user(user).to_bytes(),
                device_id: id_of_device(user, device).to_bytes(),
                client_message_id,
                predecessor,
                kind,
                body: Bytes::from(body),
            })
        },
    )
}

fn advance() -> impl Strategy<Value = command::Kind> {
    (0..8u8, 0..USERS, 0..3u8, 0..9u64, 0..9u64).prop_map(
        |(index, user, device, delivered_up_to, read_up_to)| {
            command::Kind::AdvanceCursor(internal::AdvanceCursor {
                conversation_id: room(index).0.to_bytes(),
                user_id: id_of_user(user).to_bytes(),
                device_id: id_of_device(user, device).to_bytes(),
                delivered_up_to,
                read_up_to,
            })
        },
    )
}

fn account() -> impl Strategy<Value = command::Kind> {
    (0..2u8, 0..DEVICES, 0..3u8, 0..3u8, 0..12u8).prop_map(|(user, device, old, new, what)| {
        let user_id = id_of_user(user).to_bytes();
        let device_id = id_of_device(user, device).to_bytes();
        let hash = |hash: u8| Bytes::from(vec![hash; 32]);
        let added = internal::Device {
            device_id: device_id.clone(),
            name: "phone".into(),
            refresh_hash: hash(old),
            created_ms: 0,
        };
        match what {
            0 => command::Kind::CreateUser(internal::CreateUser {
                user_id,
                username: format!("user{user}"),
                display_name: "A user".into(),
                password_hash: format!("hash{}", old / 2),
                device: Some(added),
            }),
            1 => command::Kind::RemoveDevice(internal::RemoveDevice { user_id, device_id }),
            2 => command::Kind::RotateRefresh(internal::RotateRefresh {
                user_id,
                device_id,
                old_hash: hash(old),
                new_hash: hash(new),
            }),
            _ => command::Kind::AddDevice(internal::AddDevice { user_id, device: Some(added) }),
        }
    })
}

fn checkpoint() -> impl Strategy<Value = command::Kind> {
    // One version is one change of one conversation, as a home shard gives them.
    let row = (0..USERS, 0..8u8, 0..5u64, 0..5u64, 0..5u64);
    let position = (0..3u32, 0..20u64);
    (prop::collection::vec(row, 0..4), prop::collection::vec(position, 0..3)).prop_map(|(rows, positions)| {
        let row = |(user, index, step, top_seq, activity_ms): (u8, u8, u64, u64, u64)| internal::FeedRow {
            user_id: id_of_user(user).to_bytes(),
            conversation_id: room(index).0.to_bytes(),
            version: 1 + step * 8 + u64::from(index),
            top_seq,
            activity_ms,
        };
        let position = |(source_shard, log_index)| internal::FeedPosition { source_shard, log_index };
        command::Kind::FeedCheckpoint(internal::FeedCheckpoint {
            rows: rows.into_iter().map(row).collect(),
            positions: positions.into_iter().map(position).collect(),
        })
    })
}

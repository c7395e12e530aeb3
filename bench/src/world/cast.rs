//! Who takes part: users with their devices, and the rooms they are in.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use wire_protocol::ids::{BENCHMARK_USER_PREFIX, ConversationId, DeviceId, UserId};
use wire_protocol::v1::{ConversationKind, CreateConversation};

/// Each device's user: the first user has two.
pub const DEVICE_USERS: [usize; 5] = [0, 0, 1, 2, 3];
/// Users in each room; whoever is first makes it. Two are a direct conversation.
pub const ROOMS: [&[usize]; 4] = [&[0, 1], &[0, 1, 2, 3], &[1, 2, 3], &[3, 2]];

/// The user of this number.
pub fn user(number: usize) -> UserId {
    let mut id = [number as u8 + 1; 16];
    id[..BENCHMARK_USER_PREFIX.len()].copy_from_slice(&BENCHMARK_USER_PREFIX);
    UserId(id)
}

/// The number of this user.
pub fn user_of(id: &[u8]) -> Option<usize> {
    DEVICE_USERS.into_iter().find(|number| user(*number).0[..] == *id)
}

/// The device of this number.
pub fn device(number: usize) -> DeviceId {
    DeviceId([number as u8 + 0x41; 16])
}

/// The room of this number.
pub fn room(number: usize) -> ConversationId {
    static ROOM_IDS: [OnceLock<ConversationId>; ROOMS.len()] = [const { OnceLock::new() }; ROOMS.len()];
    *ROOM_IDS[number].get_or_init(|| room_id(number))
}

fn room_id(number: usize) -> ConversationId {
    match ROOMS[number] {
        &[a, b] => ConversationId::direct(user(a), user(b)),
        members => ConversationId::group(user(members[0]), creation_id(number)),
    }
}

fn creation_id(number: usize) -> u64 {
    900 + number as u64
}

/// What makes the room.
pub fn creation(number: usize) -> CreateConversation {
    let others = ROOMS[number][1..].iter().map(|other| user(*other).to_bytes()).collect();
    match ROOMS[number].len() {
        2 => CreateConversation {
            kind: ConversationKind::Direct as i32,
            member_ids: others,
            ..CreateConversation::default()
        },
        _ => CreateConversation {
            kind: ConversationKind::Group as i32,
            member_ids: others,
            title: "room".into(),
            creation_id: creation_id(number),
        },
    }
}

/// Rooms by their ids.
pub fn rooms_by_id() -> BTreeMap<ConversationId, usize> {
    (0..ROOMS.len()).map(|number| (room(number), number)).collect()
}

/// The shard of each room.
pub fn shards_by_room(shard_count: u32) -> Vec<u32> {
    (0..ROOMS.len()).map(|number| room(number).slot().shard(shard_count).0).collect()
}

/// Devices in each room.
pub fn devices_by_room() -> Vec<Vec<usize>> {
    let of = |users: &&[usize]| {
        (0..DEVICE_USERS.len()).filter(|device| users.contains(&DEVICE_USERS[*device])).collect()
    };
    ROOMS.iter().map(of).collect()
}

//! Where every row lives: the one place where the meaning of rows and the engines meet.
//!
//! A key is slot (u16, big endian), table (u8), the entity's id (16 bytes), then what orders the entity's rows, big
//! endian. So a slot is one range of keys, and moving a shard is moving ranges; an entity's rows of one table are
//! neighbours and share their first [`PREFIX_BYTES`] bytes, on which the engine's filters work.
//! `docs/storage.md` lists keys and values; the two change together, with [`super::format::FORMAT_VERSION`].

use sha2::{Digest, Sha256};
use wire_protocol::ids::{ClientMessageId, ConversationId, DeviceId, Seq, ShardId, Slot, UserId, name_slot};
use wire_protocol::limits::SLOT_COUNT;

/// Longest key, in bytes: the idempotency row's 45, rounded up to what keeps [`Key`] at 48.
pub const KEY_BYTES_MAX: usize = 47;
/// Slot, table and entity id: what all rows of one entity in one table share, in bytes.
pub const PREFIX_BYTES: usize = 2 + 1 + 16;

/// Pseudo slot of rows that belong to a shard of this node, not to an id.
const SLOT_OF_SHARDS: u16 = 0xfffe;
/// Pseudo slot of rows that belong to the whole database.
const SLOT_OF_DATABASE: u16 = 0xffff;

/// What a conversation is: kind, members, title.
pub const CONVERSATION: u8 = 0x10;
/// A conversation's newest sequence number, countable ordinal and time.
pub const HEAD: u8 = 0x11;
/// One entry of a conversation.
pub const MESSAGE: u8 = 0x12;
/// The first answer to a client message id. Expires by logged time.
pub const IDEMPOTENCY: u8 = 0x13;
/// A member's cursors, those of each device included.
pub const CURSORS: u8 = 0x14;
/// A user's account and devices.
pub const USER: u8 = 0x20;
/// A conversation in a user's change feed.
pub const FEED: u8 = 0x21;
/// Index of the change feed: version to conversation.
pub const FEED_BY_VERSION: u8 = 0x22;
/// Index of the change feed: time of the newest entry to conversation.
pub const FEED_BY_ACTIVITY: u8 = 0x23;
/// Directory entry of a unique name.
pub const NAME: u8 = 0x30;
/// A shard's applied log index and time; behind it its replicas, and of shard 0 the fleet.
pub const APPLIED: u8 = 0xf0;
/// How far a home shard has durably taken over a conversation shard's feed.
pub const FEED_POSITION: u8 = 0xf1;
/// The newest fleet that the node has heard of.
pub const KNOWN_FLEET: u8 = 0xf2;
/// Version of the on-disk format.
pub const FORMAT: u8 = 0xff;

const _: () = {
    assert!(SLOT_COUNT < SLOT_OF_SHARDS);
    assert!(PREFIX_BYTES + 2 + 16 + 8 <= KEY_BYTES_MAX);
    assert!(PREFIX_BYTES + 8 + 16 <= KEY_BYTES_MAX);
};

/// A key, kept in place.
#[derive(Clone, Copy)]
pub struct Key {
    bytes: [u8; KEY_BYTES_MAX],
    length: u8,
}

impl Key {
    /// The first key of an entity's rows in a table.
    fn new(slot: u16, table: u8, entity: &[u8; 16]) -> Self {
        Key { bytes: [0; KEY_BYTES_MAX], length: 0 }.with(&slot.to_be_bytes()).with(&[table]).with(entity)
    }

    fn with(mut self, part: &[u8]) -> Self {
        let start = usize::from(self.length);
        let end = start + part.len();
        let room =
            self.bytes.get_mut(start..end).expect("every key of this file fits: see the assertions above");
        room.copy_from_slice(part);
        self.length = end as u8;
        self
    }

    /// A key that was read somewhere; `None`: longer than any of ours.
    pub fn copy_of(key: &[u8]) -> Option<Self> {
        (key.len() <= KEY_BYTES_MAX).then(|| Key { bytes: [0; KEY_BYTES_MAX], length: 0 }.with(key))
    }

    /// The key's bytes.
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }

    /// Above every key that starts with this one.
    pub fn end(&self) -> Key {
        let mut end = Key { bytes: [0xff; KEY_BYTES_MAX], length: KEY_BYTES_MAX as u8 };
        let start = usize::from(self.length);
        if let (Some(to), Some(from)) = (end.bytes.get_mut(..start), self.bytes.get(..start)) {
            to.copy_from_slice(from);
        }
        end
    }
}

impl std::ops::Deref for Key {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl std::borrow::Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        self.as_slice()
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.as_slice().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Key {}

/// As its bytes, so that maps are searched by slices.
impl std::hash::Hash for Key {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.as_slice().hash(state);
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_slice().cmp(other.as_slice())
    }
}

/// What a conversation is.
pub fn conversation(id: ConversationId) -> Key {
    Key::new(id.slot().index(), CONVERSATION, &id.0)
}

/// A conversation's head.
pub fn head(id: ConversationId) -> Key {
    Key::new(id.slot().index(), HEAD, &id.0)
}

/// An entry. `Seq(0)` is below all entries of the conversation.
pub fn message(id: ConversationId, seq: Seq) -> Key {
    Key::new(id.slot().index(), MESSAGE, &id.0).with(&seq.0.to_be_bytes())
}

/// The sequence number in a key of [`message`].
pub fn message_seq(key: &[u8]) -> Option<Seq> {
    Some(Seq(u64_at(key, PREFIX_BYTES)?))
}

/// The first answer to a device's client message id.
pub fn idempotency(id: ConversationId, member: u16, device: DeviceId, client_id: ClientMessageId) -> Key {
    Key::new(id.slot().index(), IDEMPOTENCY, &id.0)
        .with(&member.to_be_bytes())
        .with(&device.0)
        .with(&client_id.0.to_be_bytes())
}

/// The cursors of one member.
pub fn cursors(id: ConversationId, member: u16) -> Key {
    Key::new(id.slot().index(), CURSORS, &id.0).with(&member.to_be_bytes())
}

/// Below the cursors of all members of a conversation.
pub fn cursors_of_all(id: ConversationId) -> Key {
    Key::new(id.slot().index(), CURSORS, &id.0)
}

/// The member ordinal in a key of [`cursors`].
pub fn cursors_member(key: &[u8]) -> Option<u16> {
    let bytes = key.get(PREFIX_BYTES..PREFIX_BYTES + 2)?;
    Some(u16::from_be_bytes(bytes.try_into().ok()?))
}

/// A user's account.
pub fn user(id: UserId) -> Key {
    Key::new(id.slot().index(), USER, &id.0)
}

/// A conversation in a user's feed.
pub fn feed(user: UserId, conversation: ConversationId) -> Key {
    Key::new(user.slot().index(), FEED, &user.0).with(&conversation.0)
}

/// Below all changes of a user's feed.
pub fn feed_by_version_of_all(user: UserId) -> Key {
    Key::new(user.slot().index(), FEED_BY_VERSION, &user.0)
}

/// The change of a user's feed that has this version.
pub fn feed_by_version(user: UserId, version: u64) -> Key {
    Key::new(user.slot().index(), FEED_BY_VERSION, &user.0).with(&version.to_be_bytes())
}

/// The version in a key of [`feed_by_version`].
pub fn feed_version(key: &[u8]) -> Option<u64> {
    u64_at(key, PREFIX_BYTES)
}

/// A conversation's place in a user's list.
pub fn feed_by_activity(user: UserId, activity_ms: u64, conversation: ConversationId) -> Key {
    Key::new(user.slot().index(), FEED_BY_ACTIVITY, &user.0)
        .with(&activity_ms.to_be_bytes())
        .with(&conversation.0)
}

/// Below all places of a user's list.
pub fn feed_by_activity_of_all(user: UserId) -> Key {
    Key::new(user.slot().index(), FEED_BY_ACTIVITY, &user.0)
}

/// Activity time and conversation in a key of [`feed_by_activity`].
pub fn feed_activity(key: &[u8]) -> Option<(u64, ConversationId)> {
    Some((u64_at(key, PREFIX_BYTES)?, ConversationId::from_slice(key.get(PREFIX_BYTES + 8..)?)?))
}

/// The directory entry of a name: its SHA-256, so that long names make no long keys.
pub fn name(name: &str) -> Key {
    let digest: [u8; 32] = Sha256::digest(name.as_bytes()).into();
    let mut entity = [0; 16];
    let (first, rest) = digest.split_at(16);
    entity.copy_from_slice(first);
    Key::new(name_slot(name).index(), NAME, &entity).with(rest)
}

/// A shard's applied index.
pub fn applied(shard: ShardId) -> Key {
    Key::new(SLOT_OF_SHARDS, APPLIED, &shard_entity(shard))
}

/// Who holds a shard's replicas: beside its applied index, so that it goes wherever that goes.
pub fn replicas(shard: ShardId) -> Key {
    applied(shard).with(&[1])
}

/// Where the replicas of all shards are: of shard 0.
pub fn fleet() -> Key {
    applied(ShardId(0)).with(&[2])
}

/// How far `home` has taken over the feed of `source`.
pub fn feed_position(home: ShardId, source: ShardId) -> Key {
    feed_positions(home).with(&source.0.to_be_bytes())
}

/// Below all feed positions of a home shard.
pub fn feed_positions(home: ShardId) -> Key {
    Key::new(SLOT_OF_SHARDS, FEED_POSITION, &shard_entity(home))
}

/// The source shard in a key of [`feed_position`].
pub fn feed_position_source(key: &[u8]) -> Option<ShardId> {
    let bytes = key.get(PREFIX_BYTES..PREFIX_BYTES + 4)?;
    Some(ShardId(u32::from_be_bytes(bytes.try_into().ok()?)))
}

/// The database's format row.
pub fn format() -> Key {
    Key::new(SLOT_OF_DATABASE, FORMAT, &[0; 16])
}

/// The fleet as a node has heard of it.
pub fn known_fleet() -> Key {
    Key::new(SLOT_OF_DATABASE, KNOWN_FLEET, &[0; 16])
}

/// The table of a key; `None` when it is too short to be one.
pub fn table(key: &[u8]) -> Option<u8> {
    key.get(2).copied()
}

/// First key of a slot and first key behind it: what moves when the slot moves.
pub fn slot_range(slot: Slot) -> ([u8; 2], [u8; 2]) {
    (slot.index().to_be_bytes(), (slot.index() + 1).to_be_bytes())
}

/// Slots of a shard.
pub fn slots_of_shard(shard: ShardId, shard_count: u32) -> std::ops::Range<u16> {
    let first_slot = |shard: u32| (shard * u32::from(SLOT_COUNT)).div_ceil(shard_count) as u16;
    first_slot(shard.0)..first_slot(shard.0 + 1)
}

/// First key of a table in a slot and first key behind it.
pub fn table_range(slot: u16, table: u8) -> ([u8; 3], [u8; 3]) {
    let [high, low] = slot.to_be_bytes();
    ([high, low, table], [high, low, table + 1])
}

/// The id of the entity that a key is of; `None` when it is too short to be one.
pub fn entity(key: &[u8]) -> Option<[u8; 16]> {
    key.get(3..PREFIX_BYTES)?.try_into().ok()
}

/// Ranges of keys that hold all rows of a shard, ascending: those of its slots, and those about the shard itself. Each is
/// its first key and the first key behind it.
pub fn ranges_of_shard(shard: ShardId, shard_count: u32) -> [(Vec<u8>, Vec<u8>); 3] {
    let slots = slots_of_shard(shard, shard_count);
    let slots = (slots.start.to_be_bytes(), slots.end.to_be_bytes());
    let (applied, positions) = (applied(shard), feed_positions(shard));
    [
        (slots.0.to_vec(), slots.1.to_vec()),
        (applied.to_vec(), applied.end().to_vec()),
        (positions.to_vec(), positions.end().to_vec()),
    ]
}

fn shard_entity(shard: ShardId) -> [u8; 16] {
    let mut entity = [0; 16];
    if let Some(low) = entity.last_chunk_mut() {
        *low = shard.0.to_be_bytes();
    }
    entity
}

fn u64_at(key: &[u8], start: usize) -> Option<u64> {
    let bytes = key.get(start..start + 8)?;
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_never_change() {
        // Stored data depends on these: a failure here is a broken on-disk format.
        let conversation_id = ConversationId([7; 16]);
        let slot = format!("{:04x}", conversation_id.slot().index());
        let id = "07".repeat(16);
        assert_eq!(format!("{:?}", conversation(conversation_id)), format!("{slot}10{id}"));
        assert_eq!(
            format!("{:?}", message(conversation_id, Seq(258))),
            format!("{slot}12{id}0000000000000102")
        );
        let key = idempotency(conversation_id, 3, DeviceId([9; 16]), ClientMessageId(5));
        assert_eq!(format!("{key:?}"), format!("{slot}13{id}0003{}0000000000000005", "09".repeat(16)));
        assert_eq!(format!("{:?}", applied(ShardId(2))), format!("fffef0{}02", "00".repeat(15)));
        assert_eq!(format!("{:?}", format()), format!("ffffff{}", "00".repeat(16)));
    }

    #[test]
    fn every_key_holds_a_whole_prefix() {
        let (user_id, conversation_id) = (UserId([1; 16]), ConversationId([2; 16]));
        let keys = [
            conversation(conversation_id),
            head(conversation_id),
            cursors_of_all(conversation_id),
            user(user_id),
            feed(user_id, conversation_id),
            name("ab"),
            applied(ShardId(0)),
            feed_positions(ShardId(0)),
            format(),
        ];
        assert!(keys.iter().all(|key| key.len() >= PREFIX_BYTES));
    }

    #[test]
    fn parts_read_back() {
        let conversation_id = ConversationId([2; 16]);
        assert_eq!(message_seq(&message(conversation_id, Seq(77))), Some(Seq(77)));
        assert_eq!(cursors_member(&cursors(conversation_id, 513)), Some(513));
        assert_eq!(feed_version(&feed_by_version(UserId([1; 16]), 99)), Some(99));
        let place = feed_by_activity(UserId([1; 16]), 12, conversation_id);
        assert_eq!(feed_activity(&place), Some((12, conversation_id)));
        assert_eq!(feed_position_source(&feed_position(ShardId(1), ShardId(4))), Some(ShardId(4)));
        assert_eq!(message_seq(b"short"), None);
        assert_eq!(feed_activity(b"short"), None);
    }

    #[test]
    fn every_row_is_in_the_ranges_of_its_shard_alone() {
        for shard_count in [1, 3, 8, 4_096] {
            for number in 0..200u8 {
                let user = UserId([number; 16]);
                let owner = user.slot().shard(shard_count);
                let position = feed_position(owner, ShardId(u32::MAX));
                for key in [super::user(user), applied(owner), feed_position(owner, ShardId(0)), position] {
                    let is_in = |shard: u32| {
                        let ranges = ranges_of_shard(ShardId(shard), shard_count);
                        assert!(ranges.is_sorted());
                        ranges.iter().any(|(from, to)| (&from[..]..&to[..]).contains(&key.as_slice()))
                    };
                    let neighbours = owner.0.saturating_sub(2)..(owner.0 + 3).min(shard_count);
                    let holders: Vec<u32> = neighbours.filter(|shard| is_in(*shard)).collect();
                    assert_eq!(holders, [owner.0], "{key:?} of {shard_count}");
                }
            }
        }
    }

    #[test]
    fn the_end_is_above_all_rows_of_the_entity() {
        let all = cursors_of_all(ConversationId([2; 16]));
        assert!(all.end() > cursors(ConversationId([2; 16]), u16::MAX));
        assert!(all.end().starts_with(&all));
    }
}

//! Identifiers: each its own type, none convertible into another by accident.
//!
//! Users and devices are 16 random bytes. A direct conversation is the hash of its two users, a group the hash
//! of its creator and the client's creation id, so that creating either twice gives the same one. Every id falls
//! in one of [`SLOT_COUNT`] slots for ever.

use crate::limits::SLOT_COUNT;
use sha2::{Digest, Sha256};
use std::fmt;
use xxhash_rust::xxh3::xxh3_64;

/// Bits of a feed version behind the first seven: see [`restores_of`].
pub const FEED_VERSION_BITS_OF_ONE_RESTORE: u32 = 57;

/// How often the storage that gave this feed version was restored from a backup before. Where it is another number than that
/// of a version that a client has stored, what the client holds may not be what the server has under the same numbers.
pub fn restores_of(feed_version: u64) -> u64 {
    feed_version >> FEED_VERSION_BITS_OF_ONE_RESTORE
}

macro_rules! id_of_16_bytes {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            /// From wire bytes; `None` unless there are exactly 16.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }

            /// For a protobuf field of type `bytes`.
            pub fn to_bytes(self) -> bytes::Bytes {
                bytes::Bytes::copy_from_slice(&self.0)
            }

            /// The slot this id lives in: XXH3-64 of kind and id, modulo [`SLOT_COUNT`].
            pub fn slot(self) -> Slot {
                let mut input = [0u8; 17];
                input[0] = $kind;
                input[1..].copy_from_slice(&self.0);
                Slot::of_hash(xxh3_64(&input))
            }

            /// Lower-case hexadecimal, 32 characters; `None` for anything else.
            pub fn from_hex(text: &str) -> Option<Self> {
                let text = text.as_bytes();
                if text.len() != 32 {
                    return None;
                }
                let mut id = [0u8; 16];
                for (byte, pair) in id.iter_mut().zip(text.chunks_exact(2)) {
                    let high = char::from(pair[0]).to_digit(16)?;
                    let low = char::from(pair[1]).to_digit(16)?;
                    *byte = (high * 16 + low) as u8;
                }
                Some(Self(id))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

id_of_16_bytes!(
    /// A user, for life.
    UserId, 1
);
id_of_16_bytes!(
    /// One device of a user: one log in.
    DeviceId, 2
);
id_of_16_bytes!(
    /// A conversation: see [`ConversationId::direct`] and [`ConversationId::group`].
    ConversationId, 3
);

/// First bytes of every user that a benchmark mints. Users who register get 16 random bytes: one in 2^64 begins so.
pub const BENCHMARK_USER_PREFIX: [u8; 8] = *b"rl-bench";

impl UserId {
    /// Whether only a benchmark's key speaks for this user.
    pub fn is_benchmark(self) -> bool {
        self.0.starts_with(&BENCHMARK_USER_PREFIX)
    }
}

impl ConversationId {
    /// The one conversation of two users, whoever asks.
    pub fn direct(a: UserId, b: UserId) -> Self {
        let (low, high) = if a <= b { (a, b) } else { (b, a) };
        Self::hash(b"ringline direct\0", &[&low.0, &high.0])
    }

    /// The group that `creator` made under this creation id.
    pub fn group(creator: UserId, creation_id: u64) -> Self {
        Self::hash(b"ringline group\0", &[&creator.0, &creation_id.to_be_bytes()])
    }

    fn hash(kind: &[u8], parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        hash.update(kind);
        parts.iter().for_each(|part| hash.update(part));
        let digest = hash.finalize();
        let mut id = [0u8; 16];
        id.copy_from_slice(&digest[..16]);
        Self(id)
    }
}

/// Kind byte of directory names in the slot hash.
const NAME_KIND: u8 = 4;

/// The slot of a unique name's directory entry.
pub fn name_slot(name: &str) -> Slot {
    let mut input = Vec::with_capacity(1 + name.len());
    input.push(NAME_KIND);
    input.extend_from_slice(name.as_bytes());
    Slot::of_hash(xxh3_64(&input))
}

/// One of [`SLOT_COUNT`] parts of the id space; never changes for an id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Slot(u16);

impl Slot {
    fn of_hash(hash: u64) -> Self {
        Slot((hash % u64::from(SLOT_COUNT)) as u16)
    }

    /// 0 to [`SLOT_COUNT`] - 1.
    pub fn index(self) -> u16 {
        self.0
    }

    /// The shard when the slots are cut into `shard_count` equal ranges.
    pub fn shard(self, shard_count: u32) -> ShardId {
        assert!(shard_count >= 1 && shard_count <= u32::from(SLOT_COUNT));
        ShardId(u32::from(self.0) * shard_count / u32::from(SLOT_COUNT))
    }
}

/// A set of slots that are stored, ordered and replicated together: one Raft group.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ShardId(pub u32);

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Position in a conversation: 1, 2, 3, … without gaps. 0 stands before the first entry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Seq(pub u64);

/// Chosen by a device for a message; with conversation, user and device the key of idempotency. Never 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ClientMessageId(pub u64);

/// A username in the one form under which it is unique: lower case, `a-z 0-9 . _ -`, 3 to 50 characters.
/// `None` if it cannot be brought into that form.
pub fn normal_username(text: &str) -> Option<String> {
    use crate::limits::{USERNAME_CHARS_MAX, USERNAME_CHARS_MIN};
    let name = text.trim().to_ascii_lowercase();
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
    let fits = (USERNAME_CHARS_MIN..=USERNAME_CHARS_MAX).contains(&name.len());
    (fits && name.chars().all(allowed)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_direct_conversation_is_the_same_for_both() {
        let (a, b) = (UserId([1; 16]), UserId([2; 16]));
        assert_eq!(ConversationId::direct(a, b), ConversationId::direct(b, a));
        assert_ne!(ConversationId::direct(a, b), ConversationId::direct(a, a));
    }

    #[test]
    fn slots_and_hashes_never_change() {
        // Stored data depends on these values: a failure here is a broken on-disk format.
        assert_eq!(UserId([7; 16]).slot().index(), 2374);
        assert_eq!(name_slot("ada").index(), 3297);
        assert_eq!(ConversationId::group(UserId([1; 16]), 9).to_string(), "a2a7530b682a17632c456994f8cbf4c7");
    }

    #[test]
    fn shards_are_equal_ranges_of_slots() {
        for shard_count in [1, 2, 8, 4096] {
            let mut slots = vec![0u32; shard_count as usize];
            (0..SLOT_COUNT).for_each(|slot| slots[Slot(slot).shard(shard_count).0 as usize] += 1);
            assert!(slots.iter().all(|&count| count == u32::from(SLOT_COUNT) / shard_count));
        }
    }

    #[test]
    fn hex_round_trips_and_refuses_the_rest() {
        let id = UserId([0xab; 16]);
        assert_eq!(UserId::from_hex(&id.to_string()), Some(id));
        assert_eq!(UserId::from_hex("ab"), None);
        assert_eq!(UserId::from_hex(&"é".repeat(16)), None);
    }

    #[test]
    fn usernames_have_one_form() {
        assert_eq!(normal_username(" Ada.L "), Some("ada.l".into()));
        assert_eq!(normal_username("a b"), None);
        assert_eq!(normal_username("ab"), None);
        assert_eq!(normal_username(&"a".repeat(51)), None);
    }
}

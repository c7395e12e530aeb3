//! Shards whose groups hibernate (`replication/group/hibernation.rs`): in place of a heartbeat of each, a core tells every
//! other node for which of them it goes on, and is told by that node's cores which of their replicas follow.

use super::PeerMessage;
use super::core::StorageCore;
use super::shared::Mail;
use crate::placement::Place;
use crate::replication::HEARTBEAT_MS;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use wire_protocol::ids::ShardId;
use wire_protocol::internal::Hibernating;

impl StorageCore {
    /// Tells the nodes of replicas that hibernate that their leaders go on.
    pub(super) fn tell_hibernating(&mut self, now_ms: u64) {
        let due_ms = self.hibernation_told_ms.saturating_add(HEARTBEAT_MS);
        if now_ms < due_ms {
            return;
        }
        // Turns come with ticks: one that is a moment early must not put it off to the next.
        self.hibernation_told_ms = if now_ms - due_ms < HEARTBEAT_MS { due_ms } else { now_ms };
        let mut led: BTreeMap<u32, Bits> = BTreeMap::new();
        for shard in &self.shards {
            for node in shard.hibernates_with() {
                led.entry(node).or_default().set(shard.id());
            }
        }
        let from = self.shared.node_id;
        for (to, led) in led {
            let told = Hibernating { from, to, led: led.into(), followed: Bytes::new() };
            self.send_to_node(to, PeerMessage::Hibernating(told));
        }
    }

    /// Takes for which shards another node goes on: of any core of this node.
    pub(super) fn pass_on_hibernating(&mut self, told: &Hibernating) {
        let shards = self.shards_in(&told.led).chain(self.shards_in(&told.followed));
        let cores: BTreeSet<usize> = shards
            .filter_map(|shard| match self.shared.map.place(shard) {
                Some(Place::Core(core)) => Some(core),
                Some(Place::Node(_)) | None => None,
            })
            .collect();
        for core in cores {
            // It is told again: nothing may grow because a core is slow.
            if core == self.core {
                self.take_hibernating(told);
            } else if self.has_mail_room(core) {
                self.send_mail(core, Mail::Hibernating(told.clone()));
            }
        }
        self.shared.inboxes[self.core].signal();
    }

    /// The same, of this core.
    pub(super) fn take_hibernating(&mut self, told: &Hibernating) {
        let (from, to) = (self.shared.node_id, told.from);
        let mut followed = Bits::default();
        for shard in self.shards_in(&told.led) {
            if self.shard_mut(shard).is_some_and(|shard| shard.hear_leaders_node(told.from)) {
                followed.set(shard);
            }
        }
        for shard in self.shards_in(&told.followed) {
            if let Some(shard) = self.shard_mut(shard) {
                shard.hear_followers_node(told.from);
            }
        }
        if !followed.is_empty() {
            let told = Hibernating { from, to, led: Bytes::new(), followed: followed.into() };
            self.send_to_node(to, PeerMessage::Hibernating(told));
        }
    }

    fn shards_in(&self, bits: &Bytes) -> impl Iterator<Item = ShardId> + use<> {
        shards_in(bits.clone(), self.shard_count())
    }
}

/// A set of shards as it travels: bit n % 8 of byte n / 8 is shard n.
#[derive(Default)]
struct Bits(Vec<u8>);

impl Bits {
    fn set(&mut self, shard: ShardId) {
        let byte = shard.0 as usize / 8;
        if self.0.len() <= byte {
            self.0.resize(byte + 1, 0);
        }
        self.0[byte] |= 1 << (shard.0 % 8);
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<Bits> for Bytes {
    fn from(bits: Bits) -> Self {
        bits.0.into()
    }
}

/// The shards of such a set, of so many that there are: a peer may say anything.
fn shards_in(bits: Bytes, count: u32) -> impl Iterator<Item = ShardId> {
    let is_set = move |shard: &u32| {
        let byte = bits.get(*shard as usize / 8).copied().unwrap_or(0);
        byte & (1 << (shard % 8)) != 0
    };
    (0..count).filter(is_set).map(ShardId)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_that_are_nowhere_are_left_out() {
        let shards: Vec<ShardId> = shards_in(Bytes::from_static(&[0xff; 1024]), 3).collect();
        assert_eq!(shards, [0, 1, 2].map(ShardId));
    }

    #[test]
    fn sets_of_shards_come_back_as_they_went() {
        for shards in [vec![], vec![0], vec![7, 8], vec![1, 2, 15, 16, 255]] {
            let mut bits = Bits::default();
            shards.iter().for_each(|shard| bits.set(ShardId(*shard)));
            assert_eq!(bits.is_empty(), shards.is_empty());
            let bits = Bytes::from(bits);
            assert!(bits.len() <= 32, "as many shards as there can be");
            assert_eq!(shards_in(bits, 256).map(|shard| shard.0).collect::<Vec<_>>(), shards);
        }
    }
}

//! What a device says of how far it has a room and its user has read it, and what it hears of others. It has chance of its own
//! for that, in runs in which it does so at all: apart from it, whatever comes to its mind is the same.

use super::{Device, Mood, Wish, contiguous};
use crate::workload::random::Random;
use crate::world::cast;
use crate::world::history::{Cursors, Event};
use crate::world::plan;
use crate::world::story::Story;
use std::collections::BTreeSet;
use wire_protocol::v1;

/// Makes another stream of a seed.
const STREAM: u64 = 0x6375_7273_6f72_735f;
/// Of so many things that come to a device's mind one has to do with cursors besides.
const ONE_IN: u64 = 8;
/// One in so many is no further than before, as of a device that lags, and must move nothing back.
const OLDER: u64 = 4;

/// The chance of a device of its own; `None`: it says nothing of cursors.
pub(super) fn chance(seed: u64, number: usize) -> Option<Random> {
    plan::is_free(seed).then(|| Random::new(seed ^ STREAM ^ ((number as u64) << 56)))
}

impl Device {
    /// What has to do with cursors and comes to its mind. Where devices only read, it does not.
    pub(super) fn think_of_cursors(&mut self, now_ms: u64, story: &mut Story) {
        let Some(chance) = self.chance.as_mut().filter(|_| self.mood != Mood::Reading) else { return };
        if chance.below(ONE_IN) > 0 {
            return;
        }
        let of_room = |(room, seqs): (&usize, &BTreeSet<u64>)| Some((*room, contiguous(seqs)?));
        let rooms: Vec<(usize, u64)> = self.stored.iter().filter_map(of_room).collect();
        if rooms.is_empty() {
            return;
        }
        let (room, last) = rooms[chance.below(rooms.len() as u64) as usize];
        let seq = if chance.below(OLDER) == 0 { 1 + chance.below(last) } else { last };
        let to = match chance.below(4) {
            0 => return self.wish(now_ms, Wish::Look(room)),
            1 => Cursors { delivered: seq, read: 0 },
            _ => Cursors { delivered: seq, read: seq },
        };
        story.tell(Event::Advanced { user: cast::DEVICE_USERS[self.number], room, to });
        self.wish(now_ms, Wish::Advance { room, to });
    }

    /// All is over: the cursors of every room are looked at.
    pub(super) fn look_at_cursors(&mut self, now_ms: u64) {
        if self.chance.is_some() {
            for room in self.rooms().collect::<Vec<_>>() {
                self.wish(now_ms, Wish::Look(room));
            }
        }
    }

    /// Its user's cursors are where they were to be.
    pub(super) fn cursors_kept(&mut self, room: usize, to: Cursors, story: &mut Story) {
        self.tried.cursors += 1;
        story.tell(Event::Kept { user: cast::DEVICE_USERS[self.number], room, to });
    }

    /// What was asked for after so many events shows a room's members with their cursors, and the own ones once more.
    pub(super) fn members_shown(&mut self, begun: usize, conversation: &v1::Conversation, story: &mut Story) {
        let Some(room) = story.room(&conversation.conversation_id) else { return };
        let own = Cursors { delivered: conversation.delivered_up_to, read: conversation.read_up_to };
        let mut members = vec![(cast::DEVICE_USERS[self.number], own)];
        for member in &conversation.members {
            let Some(user) = cast::user_of(&member.user_id) else { continue };
            story.know_member((room, member.ordinal), user);
            members.push((user, Cursors { delivered: member.delivered_up_to, read: member.read_up_to }));
        }
        story.tell(Event::Members { begun, device: self.number, room, members });
    }

    /// A live event: somebody's cursors moved.
    pub(super) fn receipt_came(&mut self, receipt: &v1::ReceiptEvent, story: &mut Story) {
        let Some(room) = story.room(&receipt.conversation_id) else { return };
        // Whose they are is known once somebody was shown the members.
        let Some(user) = story.member((room, receipt.member)) else { return };
        let cursors = Cursors { delivered: receipt.delivered_up_to, read: receipt.read_up_to };
        story.tell(Event::Receipt { device: self.number, room, user, cursors });
    }
}

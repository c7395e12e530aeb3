//! What all devices of a check share: its rooms, and who sends how much and when.

use super::VerifyError;
use super::audit::{Audit, Opened};
use super::cast::Seat;
use crate::agent::AgentError;
use crate::workload::population::{RoomIndex, UserIndex};
use aws_lc_rs::digest::{SHA256, digest};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Instant;
use wire_protocol::ids::{ConversationId, UserId};
use wire_protocol::v1;

/// How much is sent.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Amount {
    /// Messages of all devices together.
    pub messages: u64,
    /// Messages a second of all devices together.
    pub rate: f64,
}

/// Which rooms there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rooms {
    /// A direct conversation of each pair.
    Directs,
    /// The same, and a group of all.
    DirectsAndGroup,
}

/// A room and its account.
pub(super) struct Room {
    pub(super) index: RoomIndex,
    pub(super) id: ConversationId,
    pub(super) members: Vec<UserIndex>,
}

/// What all devices share.
pub(super) struct Stage<'a> {
    pub(super) audit: &'a RefCell<Audit>,
    pub(super) rooms: Vec<Room>,
    pub(super) started: Instant,
    pub(super) amount: Amount,
    pub(super) seat_count: u64,
}

impl Stage<'_> {
    /// Asks or tells the account.
    pub(super) fn audit<T>(&self, work: impl FnOnce(&mut Audit) -> T) -> T {
        work(&mut self.audit.borrow_mut())
    }

    /// A direct conversation of the first two accounts, the next two, …; the last of an odd number takes the first.
    pub(super) async fn open_rooms(&mut self, seats: &mut [Seat], rooms: Rooms) -> Result<(), VerifyError> {
        let users: BTreeMap<UserIndex, UserId> =
            seats.iter().map(|seat| (seat.user, seat.identity().user)).collect();
        let numbers: Vec<UserIndex> = users.keys().copied().collect();
        for pair in numbers.chunks(2) {
            let [one, rest @ ..] = pair else { continue };
            let other = rest.first().unwrap_or(&numbers[0]);
            let create = v1::CreateConversation {
                kind: v1::ConversationKind::Direct as i32,
                member_ids: vec![users[other].to_bytes()],
                ..v1::CreateConversation::default()
            };
            self.open(seats, "direct", *one, create, &users).await?;
        }
        if rooms == Rooms::DirectsAndGroup {
            let others = numbers[1..].iter().map(|number| users[number].to_bytes());
            let create = v1::CreateConversation {
                kind: v1::ConversationKind::Group as i32,
                member_ids: others.collect(),
                title: "ringline-bench verify".into(),
                creation_id: creation_id(&users),
            };
            self.open(seats, "group", numbers[0], create, &users).await?;
        }
        Ok(())
    }

    async fn open(
        &mut self,
        seats: &mut [Seat],
        kind: &str,
        creator: UserIndex,
        create: v1::CreateConversation,
        users: &BTreeMap<UserIndex, UserId>,
    ) -> Result<(), VerifyError> {
        let seat = seats.iter_mut().find(|seat| seat.user == creator).expect("every account has a device");
        let conversation = seat.ask(async |device| device.open(create.clone()).await).await?;
        let wrong = |what: &str| seat.failed(AgentError::Protocol(format!("{kind} conversation: {what}")));
        let id = ConversationId::from_slice(&conversation.conversation_id)
            .ok_or_else(|| wrong("an id of another length"))?;
        let ordinal = |user: &UserId| {
            let member = conversation.members.iter().find(|member| member.user_id == user.to_bytes())?;
            Some(member.ordinal)
        };
        let members: Vec<UserIndex> =
            users.iter().filter(|(_, id)| ordinal(id).is_some()).map(|(number, _)| *number).collect();
        let wanted = 1 + create.member_ids.len();
        if members.len() != wanted {
            return Err(wrong(&format!("{} of our accounts are members, not {wanted}", members.len())));
        }
        let names: Vec<String> = seats
            .iter()
            .filter(|seat| members.contains(&seat.user))
            .map(|seat| seat.identity().username.clone())
            .collect();
        let mut unique = names;
        unique.dedup();
        let devices =
            seats.iter().filter_map(|seat| Some((seat.index, ordinal(&seat.identity().user)?))).collect();
        let opened = Opened {
            name: format!("{kind} of {} ({id})", unique.join(", ")),
            head_seq: conversation.head_seq,
            members: devices,
        };
        let index = self.audit(|audit| audit.open(opened));
        self.rooms.push(Room { index, id, members });
        Ok(())
    }

    /// Rooms that an account is in.
    pub(super) fn rooms_of(&self, user: UserIndex) -> impl Iterator<Item = &Room> {
        self.rooms.iter().filter(move |room| room.members.contains(&user))
    }

    /// Messages of this device, the first of them at the start plus its share of a turn.
    pub(super) fn count_of(&self, seat: &Seat) -> u64 {
        let seat = u64::from(seat.index.0);
        (self.amount.messages + self.seat_count - 1 - seat) / self.seat_count
    }

    /// When a device's message is due, in milliseconds after the start.
    pub(super) fn due_ms(&self, seat: &Seat, number: u64) -> u64 {
        let place = (number - 1) * self.seat_count + u64::from(seat.index.0);
        (place as f64 / self.amount.rate * 1_000.0) as u64
    }
}

/// The same accounts find the same group again.
fn creation_id(users: &BTreeMap<UserIndex, UserId>) -> u64 {
    let mut ids: Vec<[u8; 16]> = users.values().map(|user| user.0).collect();
    ids.sort_unstable();
    let hash = digest(&SHA256, &ids.concat());
    let first = hash.as_ref().first_chunk().expect("32 bytes");
    u64::from_be_bytes(*first)
}

//! What a shard must answer, kept by hand: the rules of messages, cursors, names and devices over plain maps.
//!
//! Written from `docs/` and not from `storage-node/src/domain`, so that both agree only if both are right. Time that
//! passes between two commands matters here, too: first answers and claims of names grow old.

use bytes::Bytes;
use std::collections::BTreeMap;
use storage_node::domain::Applied;
use wire_protocol::ids::{ConversationId, normal_username};
use wire_protocol::internal::{
    AddDevice, AdvanceCursor, ClaimName, Command, ConfirmName, CreateConversation, CreateUser, Device, Fleet,
    MessageApplied, RemoveDevice, RotateRefresh, SendMessage, command, outcome,
};
use wire_protocol::limits::{
    BODY_BYTES_MAX, DEVICES_MAX, DISPLAY_NAME_CHARS_MAX, GROUP_MEMBERS_MAX, IDEMPOTENCY_MS, NAME_CLAIM_MS,
    TITLE_CHARS_MAX,
};
use wire_protocol::v1::{ConversationKind, EntryKind, ErrorCode};

/// Longest name of a directory entry and of a device, and longest password hash: as in `storage-node`.
const NAME_BYTES_MAX: usize = 254;
const DEVICE_NAME_CHARS_MAX: usize = 100;
const PASSWORD_HASH_BYTES_MAX: usize = 512;

/// Entries behind a cursor up to which unread messages are counted exactly.
const UNREAD_EXACT_MAX: usize = 64;

/// What was carried out: how many events others hear of it, and for a message its answer.
type Expected = Result<(usize, Option<MessageApplied>), ErrorCode>;

/// What was sent: sender, its device, message id.
type Sent = (Bytes, Bytes, u64);

/// A conversation as its members know it.
#[derive(Debug, Default)]
pub struct Room {
    /// By ordinal.
    pub members: Vec<Bytes>,
    /// Time and body, by sequence number from 1.
    pub entries: Vec<(u64, Bytes)>,
    /// Who sent them; the creation was nobody.
    senders: Vec<Option<Bytes>>,
    /// Delivered and read, by member.
    pub cursors: BTreeMap<Bytes, (u64, u64)>,
    answers: BTreeMap<Sent, (u64, u64)>,
}

/// An account.
#[derive(Debug, Default)]
pub struct User {
    username: String,
    password_hash: String,
    /// Device and hash of its refresh token, the oldest first.
    pub devices: Vec<(Bytes, Bytes)>,
}

/// Who has a name.
#[derive(Debug)]
pub struct Name {
    /// Whose.
    pub user: Bytes,
    claimed_ms: u64,
    /// For ever.
    pub confirmed: bool,
}

/// Everything that was answered.
#[derive(Debug, Default)]
pub struct Books {
    /// By id.
    pub rooms: BTreeMap<Bytes, Room>,
    /// By id.
    pub users: BTreeMap<Bytes, User>,
    /// By name.
    pub names: BTreeMap<String, Name>,
    /// The last one, if there was a change.
    pub fleet: Option<Fleet>,
}

fn needs(holds: bool) -> Result<(), ErrorCode> {
    if holds { Ok(()) } else { Err(ErrorCode::ErrorInvalidArgument) }
}

fn needs_ids(ids: &[&Bytes]) -> Result<(), ErrorCode> {
    needs(ids.iter().all(|id| id.len() == 16))
}

impl Books {
    /// Compares an answer with what it must be, and keeps it.
    pub fn check(&mut self, now_ms: u64, command: &Command, applied: &Applied) {
        let expected = match &command.kind {
            Some(command::Kind::SendMessage(command)) => self.send(now_ms, command),
            Some(command::Kind::CreateConversation(command)) => self.create(now_ms, command),
            Some(command::Kind::AdvanceCursor(command)) => self.advance(command),
            Some(command::Kind::ClaimName(command)) => self.claim(now_ms, command),
            Some(command::Kind::ConfirmName(command)) => self.confirm(now_ms, command),
            Some(command::Kind::CreateUser(command)) => self.create_user(command),
            Some(command::Kind::AddDevice(command)) => self.add_device(command),
            Some(command::Kind::RotateRefresh(command)) => self.rotate(command),
            Some(command::Kind::RemoveDevice(command)) => self.remove_device(command),
            Some(command::Kind::FeedCheckpoint(command)) => {
                let is_id = |row: &_| {
                    let wire_protocol::internal::FeedRow { user_id, conversation_id, .. } = row;
                    needs_ids(&[user_id, conversation_id])
                };
                command.rows.iter().try_for_each(is_id).map(|()| (1, None))
            }
            Some(command::Kind::ChangeFleet(next)) => self.change_fleet(next),
            None => Err(ErrorCode::ErrorInvalidArgument),
        };
        match (expected, &applied.outcome.kind) {
            (Err(code), Some(outcome::Kind::Refused(refused))) => {
                assert_eq!(refused.code, code as u32, "{command:?}: {}", refused.detail);
                assert!(!refused.detail.is_empty() && applied.events.is_empty());
            }
            (Ok((events, Some(answer))), Some(outcome::Kind::MessageApplied(found))) => {
                assert_eq!((found, applied.events.len()), (&answer, events), "{command:?}");
            }
            (Ok((events, None)), Some(outcome::Kind::ConversationCreated(created))) => {
                assert_eq!((created.existed, applied.events.len()), (events == 0, events), "{command:?}");
            }
            (Ok((events, None)), Some(outcome::Kind::Accepted(_))) => {
                assert_eq!(applied.events.len(), events, "{command:?}");
            }
            (expected, found) => panic!("{command:?}: {expected:?} expected, found {found:?}"),
        }
    }

    fn send(&mut self, now_ms: u64, send: &SendMessage) -> Expected {
        needs_ids(&[&send.conversation_id, &send.user_id, &send.device_id])?;
        needs(send.client_message_id != 0 && !send.body.is_empty())?;
        if send.body.len() > BODY_BYTES_MAX {
            return Err(ErrorCode::ErrorBodyTooLarge);
        }
        let kind = EntryKind::try_from(send.kind as i32);
        needs(kind.is_ok_and(|kind| kind != EntryKind::Created))?;
        let room = self.rooms.get_mut(&send.conversation_id).ok_or(ErrorCode::ErrorNotFound)?;
        room.ordinal(&send.user_id).ok_or(ErrorCode::ErrorNotAMember)?;
        let key = |id| (send.user_id.clone(), send.device_id.clone(), id);
        let answer = |id| {
            let first = room.answers.get(&key(id)).copied();
            first.filter(|(_, time_ms)| now_ms <= time_ms + IDEMPOTENCY_MS)
        };
        if let Some((seq, time_ms)) = answer(send.client_message_id) {
            return Ok((0, Some(MessageApplied { seq, time_ms, repeated_send: true, ..Default::default() })));
        }
        if send.predecessor != 0 && answer(send.predecessor).is_none() {
            return Err(ErrorCode::ErrorPredecessorMissing);
        }
        room.entries.push((now_ms, send.body.clone()));
        room.senders.push(Some(send.user_id.clone()));
        let seq = room.entries.len() as u64;
        room.answers.insert(key(send.client_message_id), (seq, now_ms));
        Ok((1, Some(MessageApplied { seq, time_ms: now_ms, ..Default::default() })))
    }

    fn create(&mut self, now_ms: u64, create: &CreateConversation) -> Expected {
        needs_ids(&[&create.conversation_id])?;
        needs_ids(&create.member_ids.iter().collect::<Vec<_>>())?;
        match ConversationKind::try_from(create.kind as i32) {
            Ok(ConversationKind::Direct) => {
                let [a, b] = create.member_ids.as_slice() else {
                    return Err(ErrorCode::ErrorInvalidArgument);
                };
                let id = |bytes: &Bytes| wire_protocol::ids::UserId::from_slice(bytes).expect("16 bytes");
                needs(ConversationId::direct(id(a), id(b)).to_bytes() == create.conversation_id)?;
                needs(create.title.is_empty())?;
            }
            Ok(ConversationKind::Group) => needs(!create.member_ids.is_empty())?,
            _ => return Err(ErrorCode::ErrorInvalidArgument),
        }
        if create.member_ids.len() > GROUP_MEMBERS_MAX {
            return Err(ErrorCode::ErrorTooManyMembers);
        }
        let once = |member: &Bytes| create.member_ids.iter().filter(|other| *other == member).count() == 1;
        needs(create.member_ids.iter().all(once))?;
        needs(create.title.chars().count() <= TITLE_CHARS_MAX)?;
        if self.rooms.contains_key(&create.conversation_id) {
            return Ok((0, None));
        }
        // The creation is the first entry.
        let entries = vec![(now_ms, Bytes::new())];
        let (members, senders) = (create.member_ids.clone(), vec![None]);
        let room = Room { members, entries, senders, ..Room::default() };
        self.rooms.insert(create.conversation_id.clone(), room);
        Ok((1, None))
    }

    fn advance(&mut self, advance: &AdvanceCursor) -> Expected {
        needs_ids(&[&advance.conversation_id, &advance.user_id, &advance.device_id])?;
        let room = self.rooms.get_mut(&advance.conversation_id).ok_or(ErrorCode::ErrorNotFound)?;
        room.ordinal(&advance.user_id).ok_or(ErrorCode::ErrorNotAMember)?;
        let head = room.entries.len() as u64;
        let read = advance.read_up_to.min(head);
        let delivered = advance.delivered_up_to.min(head).max(read);
        let cursors = room.cursors.entry(advance.user_id.clone()).or_default();
        let before = *cursors;
        *cursors = (before.0.max(delivered), before.1.max(read));
        Ok((usize::from(*cursors != before), None))
    }

    fn holder(&self, now_ms: u64, name: &str) -> Option<&Name> {
        let is_held = |name: &&Name| name.confirmed || now_ms <= name.claimed_ms + NAME_CLAIM_MS;
        self.names.get(name).filter(is_held)
    }

    fn claim(&mut self, now_ms: u64, claim: &ClaimName) -> Expected {
        needs_ids(&[&claim.user_id])?;
        needs((1..=NAME_BYTES_MAX).contains(&claim.name.len()))?;
        match self.holder(now_ms, &claim.name) {
            Some(name) if name.user != claim.user_id => return Err(ErrorCode::ErrorAlreadyExists),
            Some(name) if name.confirmed => {}
            _ => {
                let name = Name { user: claim.user_id.clone(), claimed_ms: now_ms, confirmed: false };
                self.names.insert(claim.name.clone(), name);
            }
        }
        Ok((0, None))
    }

    fn confirm(&mut self, now_ms: u64, confirm: &ConfirmName) -> Expected {
        needs_ids(&[&confirm.user_id])?;
        needs((1..=NAME_BYTES_MAX).contains(&confirm.name.len()))?;
        match self.holder(now_ms, &confirm.name) {
            None => return Err(ErrorCode::ErrorNotFound),
            Some(name) if name.user != confirm.user_id => return Err(ErrorCode::ErrorAlreadyExists),
            Some(_) => {}
        }
        self.names.get_mut(&confirm.name).expect("it is held").confirmed = true;
        Ok((0, None))
    }

    fn create_user(&mut self, create: &CreateUser) -> Expected {
        needs_ids(&[&create.user_id])?;
        needs(normal_username(&create.username).as_ref() == Some(&create.username))?;
        needs(create.display_name.chars().count() <= DISPLAY_NAME_CHARS_MAX)?;
        needs(create.password_hash.len() <= PASSWORD_HASH_BYTES_MAX)?;
        let device = fitting(create.device.as_ref())?;
        if let Some(known) = self.users.get(&create.user_id) {
            let is_same = known.username == create.username && known.password_hash == create.password_hash;
            return if is_same { Ok((0, None)) } else { Err(ErrorCode::ErrorAlreadyExists) };
        }
        let user = User {
            username: create.username.clone(),
            password_hash: create.password_hash.clone(),
            devices: vec![(device.device_id.clone(), device.refresh_hash.clone())],
        };
        self.users.insert(create.user_id.clone(), user);
        Ok((0, None))
    }

    fn add_device(&mut self, add: &AddDevice) -> Expected {
        needs_ids(&[&add.user_id])?;
        let device = fitting(add.device.as_ref())?;
        let user = self.users.get_mut(&add.user_id).ok_or(ErrorCode::ErrorNotFound)?;
        if user.devices.iter().any(|(known, _)| *known == device.device_id) {
            return Ok((0, None));
        }
        user.devices.push((device.device_id.clone(), device.refresh_hash.clone()));
        let surplus = user.devices.len().saturating_sub(DEVICES_MAX);
        user.devices.drain(..surplus);
        Ok((surplus, None))
    }

    fn rotate(&mut self, rotate: &RotateRefresh) -> Expected {
        needs_ids(&[&rotate.user_id, &rotate.device_id])?;
        needs(rotate.new_hash.len() == 32)?;
        let refused = ErrorCode::ErrorUnauthenticated;
        let user = self.users.get_mut(&rotate.user_id).ok_or(refused)?;
        let device = user.devices.iter_mut().find(|(device, _)| *device == rotate.device_id);
        let (_, hash) = device.ok_or(refused)?;
        if *hash != rotate.new_hash && *hash != rotate.old_hash {
            return Err(refused);
        }
        hash.clone_from(&rotate.new_hash);
        Ok((0, None))
    }

    fn remove_device(&mut self, remove: &RemoveDevice) -> Expected {
        needs_ids(&[&remove.user_id, &remove.device_id])?;
        let user = self.users.get_mut(&remove.user_id).ok_or(ErrorCode::ErrorNotFound)?;
        let count = user.devices.len();
        user.devices.retain(|(device, _)| *device != remove.device_id);
        Ok((count - user.devices.len(), None))
    }

    /// Of two changes of one fleet the first one counts.
    fn change_fleet(&mut self, next: &Fleet) -> Expected {
        let epoch = self.fleet.as_ref().map_or(0, |fleet| fleet.epoch);
        needs(next.epoch == epoch + 1)?;
        self.fleet = Some(next.clone());
        Ok((1, None))
    }
}

impl Room {
    /// The member's place.
    pub fn ordinal(&self, user: &Bytes) -> Option<usize> {
        self.members.iter().position(|member| member == user)
    }

    /// Messages of others after the member's read cursor. Far behind it is a number of all members' messages, and so
    /// `None` here.
    pub fn unread_of(&self, user: &Bytes) -> Option<u64> {
        let behind = self.senders.iter().skip(self.cursors_of(user).1 as usize);
        let of_others = |sender: &&Option<Bytes>| sender.as_ref().is_some_and(|sender| sender != user);
        (behind.len() <= UNREAD_EXACT_MAX).then(|| behind.filter(of_others).count() as u64)
    }

    /// Delivered and read by all devices of a member.
    pub fn cursors_of(&self, user: &Bytes) -> (u64, u64) {
        self.cursors.get(user).copied().unwrap_or_default()
    }
}

fn fitting(device: Option<&Device>) -> Result<&Device, ErrorCode> {
    let device = device.ok_or(ErrorCode::ErrorInvalidArgument)?;
    needs_ids(&[&device.device_id])?;
    needs(device.name.chars().count() <= DEVICE_NAME_CHARS_MAX && device.refresh_hash.len() == 32)?;
    Ok(device)
}

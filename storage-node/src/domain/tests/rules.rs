//! The rules one by one, above all the refusals.

use super::generate::{id_of_device, id_of_user, room};
use super::{SHARD, is_refused};
use crate::domain::{Applied, Event, Overlay, apply, query, replay_events};
use crate::engine::{MemoryStore, Store, StoreError, WriteBatch, keys};
use bytes::Bytes;
use wire_protocol::ids::{ClientMessageId, ConversationId, Seq, UserId};
use wire_protocol::internal::{self, answer, command, outcome, read_conversation::Range};
use wire_protocol::limits::{
    BODY_BYTES_MAX, DEVICES_MAX, GROUP_MEMBERS_MAX, IDEMPOTENCY_MS, LINK_BATCH_BYTES, LOOK_UP_USERS_MAX,
    NAME_CLAIM_MS, SYNC_LATEST_ENTRIES, TITLE_CHARS_MAX,
};
use wire_protocol::v1::{ConversationKind, ErrorCode};

/// A shard to which one command after the other is given.
#[derive(Default)]
struct Shard {
    store: MemoryStore,
    time_ms: u64,
}

impl Shard {
    /// With the direct conversation of users 0 and 1.
    fn with_room() -> Self {
        let mut shard = Self { time_ms: 1_000, ..Self::default() };
        let (id, members, kind) = room(0);
        let created = shard.command(command::Kind::CreateConversation(internal::CreateConversation {
            conversation_id: id.to_bytes(),
            kind: kind as u32,
            member_ids: members.into_iter().map(UserId::to_bytes).collect(),
            title: String::new(),
        }));
        assert_eq!(created.events.len(), 1);
        shard
    }

    fn command(&mut self, kind: command::Kind) -> Applied {
        self.batch(vec![kind]).remove(0)
    }

    fn batch(&mut self, kinds: Vec<command::Kind>) -> Vec<Applied> {
        let mut overlay = Overlay::new(&self.store);
        let applied = apply(&mut overlay, SHARD, &batch_of(self.time_ms, kinds)).unwrap();
        self.store.write(overlay.into_batch()).unwrap();
        applied
    }

    fn refusal(&mut self, kind: command::Kind) -> Option<ErrorCode> {
        match self.command(kind).outcome.kind {
            Some(outcome::Kind::Refused(refused)) => ErrorCode::try_from(refused.code as i32).ok(),
            _ => None,
        }
    }

    fn read(&self, range: Range, user: u8, device: u8) -> internal::ConversationView {
        let read = internal::ReadConversation {
            conversation_id: room(0).0.to_bytes(),
            user_id: id_of_user(user).to_bytes(),
            device_id: id_of_device(user, device).to_bytes(),
            range: Some(range),
            ..internal::ReadConversation::default()
        };
        match self.ask(internal::query::Kind::ReadConversation(read)) {
            answer::Kind::Conversation(view) => view,
            other => panic!("{other:?}"),
        }
    }

    fn ask(&self, kind: internal::query::Kind) -> answer::Kind {
        query(&self.store, &internal::Query { kind: Some(kind) }).unwrap().kind.unwrap()
    }
}

fn batch_of(time_ms: u64, kinds: Vec<command::Kind>) -> internal::CommandBatch {
    let commands = kinds.into_iter().map(|kind| internal::Command { kind: Some(kind) }).collect();
    internal::CommandBatch { time_ms, commands, feed_cut: 0, log_cut: 0 }
}

/// From device 0 of a user to the direct conversation of users 0 and 1.
fn message(user: u8, client_message_id: u64) -> internal::SendMessage {
    internal::SendMessage {
        conversation_id: room(0).0.to_bytes(),
        user_id: id_of_user(user).to_bytes(),
        device_id: id_of_device(user, 0).to_bytes(),
        client_message_id,
        predecessor: 0,
        kind: 0,
        body: Bytes::from_static(b"hello"),
    }
}

fn send(message: internal::SendMessage) -> command::Kind {
    command::Kind::SendMessage(message)
}

fn seq(applied: &Applied) -> (u64, bool) {
    match &applied.outcome.kind {
        Some(outcome::Kind::MessageApplied(applied)) => (applied.seq, applied.repeated_send),
        other => panic!("{other:?}"),
    }
}

fn device(user: u8, device: u8) -> internal::Device {
    internal::Device {
        device_id: id_of_device(user, device).to_bytes(),
        name: "phone".into(),
        refresh_hash: Bytes::from(vec![1; 32]),
        created_ms: 0,
    }
}

fn account() -> internal::CreateUser {
    internal::CreateUser {
        user_id: id_of_user(0).to_bytes(),
        username: "ada".into(),
        display_name: "Ada".into(),
        password_hash: "$argon2id$".into(),
        device: Some(device(0, 0)),
    }
}

#[test]
fn a_repeat_in_the_same_batch_gets_the_first_answer() {
    let mut shard = Shard::with_room();
    let sends = [message(0, 7), message(0, 7), message(1, 7), message(0, 8)].map(send).to_vec();
    let applied = shard.batch(sends);
    assert_eq!(applied.iter().map(seq).collect::<Vec<_>>(), [(2, false), (2, true), (3, false), (4, false)]);
    assert_eq!(applied.iter().map(|applied| applied.events.len()).collect::<Vec<_>>(), [1, 0, 1, 1]);
}

#[test]
fn the_first_answer_lasts_its_time_and_not_longer() {
    let mut shard = Shard::with_room();
    assert_eq!(seq(&shard.command(send(message(0, 7)))), (2, false));
    shard.time_ms += IDEMPOTENCY_MS;
    assert_eq!(seq(&shard.command(send(message(0, 7)))), (2, true));
    shard.time_ms += 1;
    assert_eq!(seq(&shard.command(send(message(0, 7)))), (3, false));
}

#[test]
fn a_predecessor_must_have_been_applied_by_the_same_device() {
    let mut shard = Shard::with_room();
    let second = internal::SendMessage { predecessor: 1, ..message(0, 2) };
    assert_eq!(shard.refusal(send(second.clone())), Some(ErrorCode::ErrorPredecessorMissing));
    shard.command(send(message(1, 1)));
    assert_eq!(shard.refusal(send(second.clone())), Some(ErrorCode::ErrorPredecessorMissing));
    let both = shard.batch(vec![send(message(0, 1)), send(second)]);
    assert_eq!(both.iter().map(seq).collect::<Vec<_>>(), [(3, false), (4, false)]);
}

#[test]
fn the_same_device_id_of_another_member_is_another_sender() {
    let mut shard = Shard::with_room();
    let same_device = internal::SendMessage { device_id: message(0, 7).device_id, ..message(1, 7) };
    let applied = shard.batch(vec![send(message(0, 7)), send(same_device)]);
    assert_eq!(applied.iter().map(seq).collect::<Vec<_>>(), [(2, false), (3, false)]);
}

#[test]
fn cursors_of_a_device_do_not_fall_when_a_late_report_comes() {
    let mut shard = Shard::with_room();
    shard.batch((1..=5).map(|client_id| send(message(0, client_id))).collect());
    let mut advance = |delivered_up_to: u64, read_up_to: u64| {
        shard.command(command::Kind::AdvanceCursor(internal::AdvanceCursor {
            conversation_id: room(0).0.to_bytes(),
            user_id: id_of_user(1).to_bytes(),
            device_id: id_of_device(1, 0).to_bytes(),
            delivered_up_to,
            read_up_to,
        }))
    };
    assert_eq!(advance(5, 4).events.len(), 1);
    assert_eq!(advance(3, 2).events, []);
    let found = shard.read(Range::AfterDeviceCursor(true), 1, 0);
    assert_eq!(found.entries.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [6]);
    let found = found.conversation.unwrap();
    assert_eq!((found.delivered_up_to, found.read_up_to, found.unread), (5, 4, 2));
}

/// One row more for each message would be the price of a cursor that moves with every send.
#[test]
fn own_messages_are_not_unread_and_move_no_cursor() {
    let mut shard = Shard::with_room();
    shard.batch(vec![send(message(0, 1)), send(message(1, 1)), send(message(0, 2)), send(message(0, 3))]);
    let unread = |shard: &Shard, user| {
        let found = shard.read(Range::None(true), user, 0).conversation.unwrap();
        (found.read_up_to, found.unread)
    };
    assert_eq!((unread(&shard, 0), unread(&shard, 1)), ((0, 1), (0, 3)));
    shard.command(command::Kind::AdvanceCursor(internal::AdvanceCursor {
        conversation_id: room(0).0.to_bytes(),
        user_id: id_of_user(0).to_bytes(),
        device_id: id_of_device(0, 0).to_bytes(),
        delivered_up_to: 3,
        read_up_to: 3,
    }));
    assert_eq!(unread(&shard, 0), (3, 0));
    shard.command(send(message(1, 2)));
    assert_eq!(unread(&shard, 0), (3, 1));
}

/// Reading is bounded: of what lies further back, own messages count as those of others do.
#[test]
fn far_behind_only_the_newest_own_messages_are_left_out() {
    let mut shard = Shard::with_room();
    shard.batch((1..=70).map(|client_id| send(message(0, client_id))).collect());
    shard.batch((1..=20).map(|client_id| send(message(1, client_id))).collect());
    shard.batch((71..=80).map(|client_id| send(message(0, client_id))).collect());
    let unread = |user| shard.read(Range::None(true), user, 0).conversation.unwrap().unread;
    // Of the newest 64 entries 20 are of the other; 36 of one's own lie below them.
    assert_eq!((unread(0), unread(1)), (20 + 36, 80));
}

#[test]
fn a_repeat_is_answered_though_its_predecessor_is_forgotten() {
    let mut shard = Shard::with_room();
    shard.command(send(message(0, 1)));
    shard.time_ms += 3_600_000;
    let second = internal::SendMessage { predecessor: 1, ..message(0, 2) };
    assert_eq!(seq(&shard.command(send(second.clone()))), (3, false));
    shard.time_ms += IDEMPOTENCY_MS - 1_800_000;
    assert_eq!(seq(&shard.command(send(second))), (3, true));
    let third = internal::SendMessage { predecessor: 1, ..message(0, 3) };
    assert_eq!(shard.refusal(send(third)), Some(ErrorCode::ErrorPredecessorMissing));
}

#[test]
fn a_claim_lasts_its_time_and_a_repeat_prolongs_it() {
    let mut shard = Shard { time_ms: 1_000, ..Shard::default() };
    let name = || "ada".to_owned();
    let claim = |user: u8| {
        command::Kind::ClaimName(internal::ClaimName { name: name(), user_id: id_of_user(user).to_bytes() })
    };
    let confirm = |user: u8| {
        command::Kind::ConfirmName(internal::ConfirmName {
            name: name(),
            user_id: id_of_user(user).to_bytes(),
        })
    };
    let taken = Some(ErrorCode::ErrorAlreadyExists);
    assert_eq!(shard.refusal(claim(0)), None);
    shard.time_ms += NAME_CLAIM_MS;
    assert_eq!(shard.refusal(claim(1)), taken, "to the last moment");
    assert_eq!(shard.refusal(claim(0)), None);
    shard.time_ms += NAME_CLAIM_MS;
    assert_eq!(shard.refusal(claim(1)), taken, "it was prolonged");
    let read = || internal::query::Kind::ReadName(internal::ReadName { name: name() });
    assert!(is_refused(&shard.ask(read()), ErrorCode::ErrorNotFound), "nobody's until it is confirmed");
    shard.time_ms += 1;
    assert_eq!(shard.refusal(confirm(0)), Some(ErrorCode::ErrorNotFound));
    assert_eq!(shard.refusal(claim(1)), None);
    assert_eq!(shard.refusal(confirm(0)), taken);
    shard.time_ms += NAME_CLAIM_MS;
    assert_eq!(shard.refusal(confirm(1)), None);
    shard.time_ms += 100 * NAME_CLAIM_MS;
    assert_eq!(shard.refusal(claim(0)), taken, "for ever");
    // Repeats after it was confirmed change nothing.
    assert_eq!(shard.refusal(claim(1)), None);
    assert_eq!(shard.refusal(confirm(1)), None);
    let found = shard.ask(read());
    assert_eq!(found, answer::Kind::Name(internal::NameRecord { user_id: id_of_user(1).to_bytes() }));
}

#[test]
fn a_page_is_never_more_than_a_link_frame_may_carry() {
    let mut shard = Shard::with_room();
    let count = 2 * LINK_BATCH_BYTES / BODY_BYTES_MAX;
    let body = Bytes::from(vec![1; BODY_BYTES_MAX]);
    let sends = (1..=count as u64).map(|id| internal::SendMessage { body: body.clone(), ..message(0, id) });
    shard.batch(sends.map(send).collect());
    let read = internal::ReadConversation {
        conversation_id: room(0).0.to_bytes(),
        user_id: id_of_user(0).to_bytes(),
        bytes_max: u32::MAX,
        range: Some(Range::AfterSeq(0)),
        ..Default::default()
    };
    let found = shard.ask(internal::query::Kind::ReadConversation(read));
    let answer::Kind::Conversation(found) = found else { panic!("{found:?}") };
    let bytes: usize = found.entries.iter().map(|entry| entry.body.len()).sum();
    assert!(bytes <= LINK_BATCH_BYTES && found.truncated, "{bytes} bytes");
}

#[test]
fn malformed_sends_are_refused() {
    use ErrorCode::*;
    let mut shard = Shard::with_room();
    let short = || Bytes::from_static(b"short");
    type Edit<'a> = &'a dyn Fn(&mut internal::SendMessage);
    let edits: [(Edit<'_>, ErrorCode); 10] = [
        (&|send| send.conversation_id = short(), ErrorInvalidArgument),
        (&|send| send.user_id = short(), ErrorInvalidArgument),
        (&|send| send.device_id = Bytes::new(), ErrorInvalidArgument),
        (&|send| send.client_message_id = 0, ErrorInvalidArgument),
        (&|send| send.body = Bytes::new(), ErrorInvalidArgument),
        (&|send| send.body = vec![0; BODY_BYTES_MAX + 1].into(), ErrorBodyTooLarge),
        (&|send| send.kind = 16, ErrorInvalidArgument),
        (&|send| send.kind = u32::MAX, ErrorInvalidArgument),
        (&|send| send.conversation_id = room(1).0.to_bytes(), ErrorNotFound),
        (&|send| send.user_id = id_of_user(2).to_bytes(), ErrorNotAMember),
    ];
    for (number, (edit, code)) in edits.into_iter().enumerate() {
        let mut edited = message(0, 7);
        edit(&mut edited);
        assert_eq!(shard.refusal(send(edited)), Some(code), "edit {number}");
    }
    let largest = internal::SendMessage { body: vec![0; BODY_BYTES_MAX].into(), ..message(0, 7) };
    assert_eq!(seq(&shard.command(send(largest))), (2, false), "refused sends took no number");
}

#[test]
fn a_time_that_falls_does_not_fall_in_the_conversation() {
    let mut shard = Shard::with_room();
    shard.command(send(message(0, 1)));
    shard.time_ms -= 500;
    shard.command(send(message(0, 2)));
    let times: Vec<u64> =
        shard.read(Range::AfterSeq(0), 0, 0).entries.iter().map(|entry| entry.time_ms).collect();
    assert_eq!(times, [1_000, 1_000, 1_000]);
}

#[test]
fn malformed_conversations_are_refused() {
    use ErrorCode::*;
    let member = |number: usize| Bytes::from([&[7; 8], &number.to_be_bytes()[..]].concat());
    let group = |members: usize| internal::CreateConversation {
        conversation_id: ConversationId::group(id_of_user(0), 1).to_bytes(),
        kind: ConversationKind::Group as u32,
        member_ids: (0..members).map(member).collect(),
        title: "title".into(),
    };
    let direct = || internal::CreateConversation {
        conversation_id: room(0).0.to_bytes(),
        kind: ConversationKind::Direct as u32,
        member_ids: vec![id_of_user(0).to_bytes(), id_of_user(1).to_bytes()],
        title: String::new(),
    };
    let mut twice = group(3);
    twice.member_ids.push(member(1));
    let mut short = group(3);
    short.member_ids.push(Bytes::from_static(b"short"));
    let long_title = "é".repeat(TITLE_CHARS_MAX + 1);
    let cases = [
        (group(0), ErrorInvalidArgument),
        (group(GROUP_MEMBERS_MAX + 1), ErrorTooManyMembers),
        (twice, ErrorInvalidArgument),
        (short, ErrorInvalidArgument),
        (internal::CreateConversation { title: long_title, ..group(2) }, ErrorInvalidArgument),
        (internal::CreateConversation { kind: 0, ..group(2) }, ErrorInvalidArgument),
        (internal::CreateConversation { kind: 77, ..group(2) }, ErrorInvalidArgument),
        (internal::CreateConversation { conversation_id: Bytes::new(), ..group(2) }, ErrorInvalidArgument),
        (
            internal::CreateConversation { conversation_id: room(1).0.to_bytes(), ..direct() },
            ErrorInvalidArgument,
        ),
        (internal::CreateConversation { title: "no".into(), ..direct() }, ErrorInvalidArgument),
        (internal::CreateConversation { member_ids: group(3).member_ids, ..direct() }, ErrorInvalidArgument),
    ];
    let mut shard = Shard::default();
    for (number, (create, code)) in cases.into_iter().enumerate() {
        assert_eq!(shard.refusal(command::Kind::CreateConversation(create)), Some(code), "case {number}");
    }
    assert!(shard.store.rows().is_empty(), "refusals leave no rows");
    let largest =
        internal::CreateConversation { title: "é".repeat(TITLE_CHARS_MAX), ..group(GROUP_MEMBERS_MAX) };
    assert_eq!(shard.refusal(command::Kind::CreateConversation(largest)), None);
    let read = internal::ReadConversation {
        conversation_id: ConversationId::group(id_of_user(0), 1).to_bytes(),
        user_id: member(GROUP_MEMBERS_MAX - 1),
        device_id: id_of_device(0, 0).to_bytes(),
        with_members: true,
        ..internal::ReadConversation::default()
    };
    let answer::Kind::Conversation(view) = shard.ask(internal::query::Kind::ReadConversation(read)) else {
        panic!("the last of its members reads it");
    };
    let group = view.conversation.expect("it is there");
    assert_eq!((group.members.len(), group.title.chars().count()), (GROUP_MEMBERS_MAX, TITLE_CHARS_MAX));
}

#[test]
fn malformed_commands_of_every_other_kind_are_refused() {
    let short = || Bytes::from_static(b"short");
    let user_id = || id_of_user(0).to_bytes();
    let device_id = || id_of_device(0, 0).to_bytes();
    let hash = |bytes: usize| Bytes::from(vec![7; bytes]);
    let rotate = |user_id, device_id, new_hash| {
        let old_hash = hash(32);
        command::Kind::RotateRefresh(internal::RotateRefresh { user_id, device_id, old_hash, new_hash })
    };
    let advance = |conversation_id, user_id, device_id| {
        let (delivered_up_to, read_up_to) = (1, 1);
        command::Kind::AdvanceCursor(internal::AdvanceCursor {
            conversation_id,
            user_id,
            device_id,
            delivered_up_to,
            read_up_to,
        })
    };
    let add = |user_id, device| command::Kind::AddDevice(internal::AddDevice { user_id, device });
    let row = |user_id| internal::FeedRow {
        user_id,
        conversation_id: room(0).0.to_bytes(),
        version: 1,
        ..Default::default()
    };
    // The row before the broken one is not stored either.
    let checkpoint = internal::FeedCheckpoint { rows: vec![row(user_id()), row(short())], positions: vec![] };
    let cases = vec![
        advance(short(), user_id(), device_id()),
        advance(room(0).0.to_bytes(), short(), device_id()),
        advance(room(0).0.to_bytes(), user_id(), short()),
        command::Kind::ClaimName(internal::ClaimName { name: "ada".into(), user_id: short() }),
        command::Kind::ClaimName(internal::ClaimName { name: String::new(), user_id: user_id() }),
        command::Kind::ClaimName(internal::ClaimName { name: "a".repeat(255), user_id: user_id() }),
        command::Kind::ConfirmName(internal::ConfirmName { name: "ada".into(), user_id: short() }),
        command::Kind::CreateUser(internal::CreateUser { user_id: short(), ..account() }),
        command::Kind::CreateUser(internal::CreateUser { username: "Ada".into(), ..account() }),
        command::Kind::CreateUser(internal::CreateUser { display_name: "é".repeat(101), ..account() }),
        command::Kind::CreateUser(internal::CreateUser { password_hash: "x".repeat(513), ..account() }),
        command::Kind::CreateUser(internal::CreateUser { device: None, ..account() }),
        add(short(), Some(device(0, 1))),
        add(user_id(), None),
        add(user_id(), Some(internal::Device { device_id: short(), ..device(0, 1) })),
        add(user_id(), Some(internal::Device { refresh_hash: short(), ..device(0, 1) })),
        add(user_id(), Some(internal::Device { name: "x".repeat(101), ..device(0, 1) })),
        rotate(short(), device_id(), hash(32)),
        rotate(user_id(), short(), hash(32)),
        rotate(user_id(), device_id(), hash(31)),
        command::Kind::RemoveDevice(internal::RemoveDevice { user_id: short(), device_id: device_id() }),
        command::Kind::RemoveDevice(internal::RemoveDevice { user_id: user_id(), device_id: short() }),
        command::Kind::FeedCheckpoint(checkpoint),
    ];
    let mut shard = Shard::with_room();
    assert_eq!(shard.refusal(command::Kind::CreateUser(account())), None);
    let before = shard.store.rows();
    for (number, command) in cases.into_iter().enumerate() {
        assert_eq!(shard.refusal(command), Some(ErrorCode::ErrorInvalidArgument), "case {number}");
    }
    assert_eq!(shard.store.rows(), before, "refusals leave no rows");
    let empty =
        internal::CommandBatch { commands: vec![internal::Command { kind: None }], ..Default::default() };
    let empty = apply(&mut Overlay::new(&shard.store), SHARD, &empty);
    assert!(matches!(empty.unwrap()[0].outcome.kind, Some(outcome::Kind::Refused(_))));
}

#[test]
fn malformed_queries_are_refused() {
    let shard = Shard::with_room();
    let short = || Bytes::from_static(b"short");
    let good = internal::ReadConversation {
        conversation_id: room(0).0.to_bytes(),
        user_id: id_of_user(0).to_bytes(),
        ..Default::default()
    };
    let list = internal::ReadConversationList { user_id: id_of_user(0).to_bytes(), ..Default::default() };
    let reads = [
        internal::ReadConversation { conversation_id: short(), ..good.clone() },
        internal::ReadConversation { user_id: short(), ..good.clone() },
        internal::ReadConversation { range: Some(Range::AfterDeviceCursor(true)), ..good },
    ];
    let mut kinds: Vec<_> = reads.into_iter().map(internal::query::Kind::ReadConversation).collect();
    let many = vec![id_of_user(0).to_bytes(); LOOK_UP_USERS_MAX + 1];
    kinds.extend([
        internal::query::Kind::ReadUser(internal::ReadUser { user_id: short() }),
        internal::query::Kind::ReadProfiles(internal::ReadProfiles { user_ids: vec![short()] }),
        internal::query::Kind::ReadProfiles(internal::ReadProfiles { user_ids: many }),
        internal::query::Kind::ReadName(internal::ReadName { name: String::new() }),
        internal::query::Kind::ReadFeed(internal::ReadFeed { user_id: short(), ..Default::default() }),
        internal::query::Kind::ReadConversationList(internal::ReadConversationList {
            before_conversation_id: short(),
            ..list.clone()
        }),
        internal::query::Kind::ReadConversationList(internal::ReadConversationList {
            before_activity_ms: 5,
            ..list
        }),
    ]);
    for kind in kinds {
        let found = shard.ask(kind.clone());
        assert!(is_refused(&found, ErrorCode::ErrorInvalidArgument), "{kind:?}: {found:?}");
    }
    let unknown = query(&shard.store, &internal::Query { kind: None }).unwrap();
    assert!(is_refused(&unknown.kind.unwrap(), ErrorCode::ErrorInvalidArgument));
}

#[test]
fn profiles_show_only_what_others_may_see() {
    let mut shard = Shard::default();
    assert_eq!(shard.refusal(command::Kind::CreateUser(account())), None);
    let user_ids = vec![id_of_user(3).to_bytes(), id_of_user(0).to_bytes()];
    let found = shard.ask(internal::query::Kind::ReadProfiles(internal::ReadProfiles { user_ids }));
    let answer::Kind::Profiles(found) = found else { panic!("{found:?}") };
    let user = wire_protocol::v1::User {
        user_id: id_of_user(0).to_bytes(),
        username: "ada".into(),
        display_name: "Ada".into(),
    };
    assert_eq!(found.users, [user]);
}

#[test]
fn the_oldest_device_makes_room() {
    let mut shard = Shard::default();
    assert_eq!(shard.refusal(command::Kind::CreateUser(account())), None);
    let add = |number: usize| {
        let device = Some(device(0, number as u8));
        command::Kind::AddDevice(internal::AddDevice { user_id: id_of_user(0).to_bytes(), device })
    };
    for number in 1..DEVICES_MAX {
        assert_eq!(shard.command(add(number)).events, []);
    }
    let removed = Event::DeviceRemoved { user: id_of_user(0), device: id_of_device(0, 0) };
    assert_eq!(shard.command(add(DEVICES_MAX)).events, [removed]);
    let found =
        shard.ask(internal::query::Kind::ReadUser(internal::ReadUser { user_id: id_of_user(0).to_bytes() }));
    let answer::Kind::User(user) = found else { panic!("{found:?}") };
    assert_eq!(user.devices.len(), DEVICES_MAX);
}

#[test]
fn a_device_too_many_forgets_the_cursors_furthest_behind() {
    let mut shard = Shard::with_room();
    let count = 2 * DEVICES_MAX as u8;
    shard.batch((1..=100).map(|client_id| send(message(0, client_id))).collect());
    let mut advance = |device: u8, delivered_up_to: u64| {
        shard.command(command::Kind::AdvanceCursor(internal::AdvanceCursor {
            conversation_id: room(0).0.to_bytes(),
            user_id: id_of_user(1).to_bytes(),
            device_id: id_of_device(1, device).to_bytes(),
            delivered_up_to,
            read_up_to: 0,
        }))
    };
    (0..count).for_each(|device| drop(advance(device, 10 + u64::from(device))));
    let moved = advance(count, 90);
    assert_eq!(moved.events.len(), 1);
    // Device 0 starts over as a new one would, the others go on.
    assert_eq!(shard.read(Range::AfterDeviceCursor(true), 1, 0).entries.len(), SYNC_LATEST_ENTRIES);
    assert_eq!(shard.read(Range::AfterDeviceCursor(true), 1, 1).entries[0].seq, 12);
    assert_eq!(shard.read(Range::AfterDeviceCursor(true), 1, count).entries[0].seq, 91);
}

#[test]
fn replay_tells_the_place_when_the_first_answer_is_gone() {
    let mut shard = Shard::with_room();
    shard.command(send(message(0, 7)));
    let mut batch = WriteBatch::new();
    batch.delete(keys::idempotency(room(0).0, 0, id_of_device(0, 0), ClientMessageId(7)));
    shard.store.write(batch).unwrap();
    let told = replay_events(&shard.store, SHARD, &batch_of(1_000, vec![send(message(0, 7))])).unwrap();
    let [Event::Feed(item)] = &told[..] else { panic!("{told:?}") };
    assert_eq!((item.top_seq, &item.event, item.user_ids.len()), (2, &None, 2));
}

#[test]
fn a_page_of_one_entry_is_better_than_none() {
    let mut shard = Shard::with_room();
    shard.command(send(internal::SendMessage { body: vec![1; 5_000].into(), ..message(0, 1) }));
    let read = |range| internal::ReadConversation {
        conversation_id: room(0).0.to_bytes(),
        user_id: id_of_user(0).to_bytes(),
        bytes_max: 1,
        range: Some(range),
        ..Default::default()
    };
    for range in [Range::AfterSeq(1), Range::Latest(true), Range::BeforeSeq(3)] {
        let found = shard.ask(internal::query::Kind::ReadConversation(read(range)));
        let answer::Kind::Conversation(found) = found else { panic!("{found:?}") };
        assert_eq!(found.entries.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [2]);
    }
}

#[test]
fn damaged_rows_fail_and_never_panic() {
    let shard = Shard::with_room();
    for (key, value) in shard.store.rows() {
        for length in 0..value.len() {
            let damaged = MemoryStore::new();
            let mut batch = WriteBatch::new();
            for key in
                [keys::conversation(room(0).0), keys::head(room(0).0), keys::message(room(0).0, Seq(1))]
            {
                let row = shard.store.rows().into_iter().find(|(known, _)| *known == *key).unwrap().1;
                batch.put(key, row);
            }
            let Some(cut) = batch.rows().iter().map(|(key, _)| *key).find(|known| **known == *key) else {
                continue;
            };
            batch.put(cut, value.slice(..length));
            damaged.write(batch).unwrap();
            let batch = batch_of(1_000, vec![send(message(0, 1))]);
            let applied = apply(&mut Overlay::new(&damaged), SHARD, &batch);
            let replayed = replay_events(&damaged, SHARD, &batch);
            let read = query(
                &damaged,
                &internal::Query {
                    kind: Some(internal::query::Kind::ReadConversation(internal::ReadConversation {
                        conversation_id: room(0).0.to_bytes(),
                        user_id: id_of_user(0).to_bytes(),
                        range: Some(Range::Latest(true)),
                        ..Default::default()
                    })),
                },
            );
            for error in [applied.err(), replayed.err(), read.err()].into_iter().flatten() {
                assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
            }
        }
    }
}

#[test]
fn a_fleet_takes_the_place_of_the_one_that_it_was_made_from() {
    let store = MemoryStore::default();
    let shard_of_fleet = crate::domain::fleet::SHARD_OF_FLEET;
    let change = |shard, epoch| {
        let fleet = internal::Fleet { epoch, replicas: epoch as u32, ..internal::Fleet::default() };
        let batch = batch_of(1_000, vec![command::Kind::ChangeFleet(fleet)]);
        let mut overlay = Overlay::new(&store);
        let applied = apply(&mut overlay, shard, &batch).unwrap().remove(0);
        store.write(overlay.into_batch()).unwrap();
        applied
    };
    for (epoch, is_taken) in [(2, false), (1, true), (1, false), (2, true), (4, false), (0, false)] {
        let applied = change(shard_of_fleet, epoch);
        assert_eq!(
            applied.outcome.kind == Some(outcome::Kind::Accepted(internal::Accepted {})),
            is_taken,
            "{epoch}"
        );
        assert_eq!(applied.events.len(), usize::from(is_taken));
    }
    assert_eq!(crate::domain::fleet::fleet(&store).unwrap().unwrap().replicas, 2);
    assert_eq!(change(SHARD, 3).events, [], "shard 0 alone keeps it");
}

type Rows = Vec<(Vec<u8>, Bytes)>;

/// A group of so many, to which one message with this body was sent: what it wrote, and what came of it.
fn written_by_message(members: usize, body: &[u8]) -> (Rows, Applied) {
    let member = |number: usize| Bytes::from((number as u128).to_be_bytes().to_vec());
    let conversation_id = ConversationId::group(id_of_user(0), 1).to_bytes();
    // The sender is the first of them: its rows name it by its place.
    let member_ids = std::iter::once(id_of_user(0).to_bytes()).chain((1..members).map(member)).collect();
    let mut shard = Shard { time_ms: 1_000, ..Shard::default() };
    let created = shard.refusal(command::Kind::CreateConversation(internal::CreateConversation {
        conversation_id: conversation_id.clone(),
        kind: ConversationKind::Group as u32,
        member_ids,
        title: String::new(),
    }));
    assert_eq!(created, None);
    let before = shard.store.rows();
    let sent = internal::SendMessage { conversation_id, body: Bytes::copy_from_slice(body), ..message(0, 7) };
    let applied = shard.command(send(sent));
    assert!(!seq(&applied).1);
    let written = shard.store.rows().into_iter().filter(|row| !before.contains(row)).collect();
    (written, applied)
}

#[test]
fn a_message_is_written_once_however_many_members_there_are() {
    let body = b"to be found again";
    let [(few, to_few), (many, to_many)] =
        [2, GROUP_MEMBERS_MAX].map(|members| written_by_message(members, body));
    assert_eq!(few, many, "the same rows");
    let with_body = many.iter().filter(|(_, value)| value.windows(body.len()).any(|part| part == body));
    assert_eq!(with_body.count(), 1);
    assert_eq!((to_few.events.len(), to_many.events.len()), (1, 1), "one event for all of them");
}

#[test]
fn nothing_but_the_body_depends_on_the_body() {
    // Text, markup, one of our own messages, and what is neither text nor anything.
    let own = internal::Command { kind: Some(send(message(1, 9))) };
    let own = prost::Message::encode_to_vec(&own);
    let length = own.len();
    let padded = |text: &str| format!("{text:length$}").into_bytes();
    let anything: Vec<u8> = (0..length).map(|place| (place * 151 + 7) as u8).collect();
    let bodies = [padded("hello"), padded("<script>alert(1)</script>"), anything, vec![0xff; length]];
    let (mut first, _) = written_by_message(3, &own);
    let without = |rows: &mut Rows, body: &[u8]| {
        for (_, value) in rows {
            if let Some(at) = value.windows(body.len()).position(|part| part == body) {
                *value = [&value[..at], &value[at + body.len()..]].concat().into();
            }
        }
    };
    without(&mut first, &own);
    for body in bodies {
        let (mut rows, applied) = written_by_message(3, &body);
        assert_eq!(seq(&applied), (2, false));
        without(&mut rows, &body);
        assert_eq!(rows, first, "{body:?}");
    }
}

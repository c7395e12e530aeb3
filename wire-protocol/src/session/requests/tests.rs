//! Every field of every request, at its limit and one beyond. They go through a session, since that resolves
//! the conversations.

use crate::ids::{DeviceId, UserId};
use crate::limits::*;
use crate::session::{Proof, ReadyInfo, ServerInput, ServerSession, client::ClientSession};
use crate::v1::client_frame::Body;
use crate::v1::{server_frame, *};
use bytes::{Bytes, BytesMut};
use prost::Message;

fn open() -> ServerSession {
    let (mut up, mut down) = (BytesMut::new(), BytesMut::new());
    ClientSession::new(0).hello(Proof::AccessToken("token".into()), 0, "test", &mut up);
    let mut session = ServerSession::new(0);
    session.handle_frame(0, up.freeze(), &mut down).expect("a good hello");
    let info = ReadyInfo {
        user: UserId([1; 16]),
        device: DeviceId([2; 16]),
        server_time_ms: 0,
        resume_token: Bytes::new(),
        feed_version: 0,
    };
    session.ready(0, info, &mut down);
    // Handle 1 is the conversation of sevens.
    let receipt = ReceiptEvent { conversation_id: id(), ..ReceiptEvent::default() };
    session.event(server_frame::Body::Receipt(receipt), &mut down);
    session
}

fn id() -> Bytes {
    Bytes::from_static(&[7; 16])
}

fn check(body: Body) -> Result<(), (ErrorCode, String)> {
    let mut out = BytesMut::new();
    let payload = ClientFrame { request_id: 1, body: Some(body) }.encode_to_vec().into();
    match open().handle_frame(0, payload, &mut out) {
        Ok(ServerInput::Request { .. }) => Ok(()),
        Ok(ServerInput::Handled) => {
            let frame = ServerFrame::decode(out.freeze()).expect("an answer");
            let Some(server_frame::Body::Error(error)) = frame.body else { panic!("{frame:?}") };
            assert_eq!(frame.request_id, 1);
            assert!(!error.retryable);
            Err((error.code(), error.detail))
        }
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn taken(body: Body) {
    assert_eq!(check(body), Ok(()));
}

/// Refused as an invalid argument, by a detail that starts with the field.
#[track_caller]
fn refused(field: &str, body: Body) {
    refused_with(ErrorCode::ErrorInvalidArgument, field, body);
}

#[track_caller]
fn refused_with(expected: ErrorCode, field: &str, body: Body) {
    let (code, detail) = check(body).expect_err(field);
    assert_eq!(code, expected, "{detail}");
    assert!(detail.starts_with(&format!("{field}: ")), "{detail:?} does not name {field}");
}

fn send() -> SendMessage {
    SendMessage {
        conversation_id: id(),
        client_message_id: 1,
        body: Bytes::from_static(b"x"),
        ..Default::default()
    }
}

#[test]
fn a_conversation_is_named_once() {
    let with = |handle, conversation_id: &[u8]| {
        let conversation_id = Bytes::copy_from_slice(conversation_id);
        Body::Get(GetConversation { handle, conversation_id })
    };
    taken(with(1, &[]));
    taken(with(0, &[7; 16]));
    refused("conversation_id", with(0, &[]));
    refused("conversation_id", with(0, &[7; 15]));
    refused("conversation_id", with(0, &[7; 17]));
    refused("conversation_id", with(1, &[7; 16]));
    refused("conversation_id", with(9, &[7; 16]));
    refused_with(ErrorCode::ErrorUnknownHandle, "handle", with(2, &[]));
    refused_with(ErrorCode::ErrorUnknownHandle, "handle", with(u32::MAX, &[]));
    // In every request that names one.
    let none = Bytes::new;
    refused("conversation_id", Body::Send(SendMessage { conversation_id: none(), ..send() }));
    refused("conversation_id", Body::Delivered(DeliveredUpTo { seq: 1, ..Default::default() }));
    refused("conversation_id", Body::Read(ReadUpTo { seq: 1, ..Default::default() }));
    refused("conversation_id", Body::History(History::default()));
    let cursor = |handle, conversation_id| SyncCursor { handle, conversation_id, after_seq: 0 };
    let sync = |cursors| Body::Sync(Sync { cursors, ..Default::default() });
    taken(sync(vec![cursor(1, none()), cursor(0, id())]));
    refused("cursors[1].conversation_id", sync(vec![cursor(1, none()), cursor(0, none())]));
    refused("cursors[0].conversation_id", sync(vec![cursor(1, id())]));
    refused_with(ErrorCode::ErrorUnknownHandle, "cursors[0].handle", sync(vec![cursor(2, none())]));
}

#[test]
fn send_is_checked() {
    let send = |change: fn(&mut SendMessage)| {
        let mut send = send();
        change(&mut send);
        Body::Send(send)
    };
    taken(send(|_| ()));
    taken(send(|send| send.predecessor = 2));
    taken(send(|send| send.body = Bytes::from(vec![1; BODY_BYTES_MAX])));
    for kind in [EntryKind::Text, EntryKind::Image, EntryKind::Video, EntryKind::File, EntryKind::VoiceNote] {
        taken(Body::Send(SendMessage { kind: kind as i32, ..self::send() }));
    }
    refused("client_message_id", send(|send| send.client_message_id = 0));
    refused("predecessor", send(|send| send.predecessor = send.client_message_id));
    refused("kind", send(|send| send.kind = EntryKind::Created as i32));
    refused("kind", send(|send| send.kind = 5));
    refused("kind", send(|send| send.kind = -1));
    refused("body", send(|send| send.body = Bytes::new()));
    let too_large = send(|send| send.body = Bytes::from(vec![1; BODY_BYTES_MAX + 1]));
    refused_with(ErrorCode::ErrorBodyTooLarge, "body", too_large);
}

#[test]
fn cursors_and_pages_are_checked() {
    taken(Body::Delivered(DeliveredUpTo { handle: 1, seq: u64::MAX, ..Default::default() }));
    refused("seq", Body::Delivered(DeliveredUpTo { handle: 1, ..Default::default() }));
    taken(Body::Read(ReadUpTo { handle: 1, seq: 1, ..Default::default() }));
    refused("seq", Body::Read(ReadUpTo { handle: 1, ..Default::default() }));

    let cursor = SyncCursor { handle: 1, ..Default::default() };
    taken(Body::Sync(Sync::default()));
    taken(Body::Sync(Sync { cursors: vec![cursor.clone(); SYNC_CURSORS_MAX], ..Default::default() }));
    refused(
        "cursors",
        Body::Sync(Sync { cursors: vec![cursor; SYNC_CURSORS_MAX + 1], ..Default::default() }),
    );

    let history = |before_seq, after_seq, limit| {
        Body::History(History { handle: 1, before_seq, after_seq, limit, ..Default::default() })
    };
    taken(history(0, 0, 0));
    taken(history(9, 0, HISTORY_ENTRIES_MAX as u32));
    taken(history(0, 9, 1));
    refused("before_seq, after_seq", history(9, 9, 1));
    refused("limit", history(0, 0, HISTORY_ENTRIES_MAX as u32 + 1));

    let list =
        |limit, token| Body::List(ListConversations { limit, page_token: Bytes::from(vec![1; token]) });
    taken(list(0, 0));
    taken(list(LIST_CONVERSATIONS_MAX as u32, PAGE_TOKEN_BYTES_MAX));
    refused("limit", list(LIST_CONVERSATIONS_MAX as u32 + 1, 0));
    refused("page_token", list(0, PAGE_TOKEN_BYTES_MAX + 1));
}

#[test]
fn create_is_checked() {
    let others = |count: usize| (0..count).map(|row| Bytes::from(vec![row as u8; 16])).collect::<Vec<_>>();
    let direct = CreateConversation { kind: 1, member_ids: others(1), ..Default::default() };
    taken(Body::Create(direct.clone()));
    refused("member_ids", Body::Create(CreateConversation { member_ids: vec![], ..direct.clone() }));
    refused("member_ids", Body::Create(CreateConversation { member_ids: others(2), ..direct.clone() }));
    refused(
        "member_ids[0]",
        Body::Create(CreateConversation { member_ids: vec![Bytes::new()], ..direct.clone() }),
    );
    refused("title", Body::Create(CreateConversation { title: "x".into(), ..direct.clone() }));
    refused("creation_id", Body::Create(CreateConversation { creation_id: 1, ..direct.clone() }));
    refused("kind", Body::Create(CreateConversation { kind: 0, ..direct.clone() }));
    refused("kind", Body::Create(CreateConversation { kind: 3, ..direct }));

    let title = "é".repeat(TITLE_CHARS_MAX);
    let group =
        CreateConversation { kind: 2, member_ids: others(GROUP_MEMBERS_MAX - 1), title, creation_id: 1 };
    taken(Body::Create(group.clone()));
    taken(Body::Create(CreateConversation { title: String::new(), ..group.clone() }));
    let too_many = CreateConversation { member_ids: others(GROUP_MEMBERS_MAX), ..group.clone() };
    refused_with(ErrorCode::ErrorTooManyMembers, "member_ids", Body::Create(too_many));
    let twice = [others(1), others(1)].concat();
    refused("member_ids", Body::Create(CreateConversation { member_ids: twice, ..group.clone() }));
    let short = [others(1), vec![Bytes::from_static(&[1; 15])]].concat();
    refused("member_ids[1]", Body::Create(CreateConversation { member_ids: short, ..group.clone() }));
    refused(
        "title",
        Body::Create(CreateConversation { title: "é".repeat(TITLE_CHARS_MAX + 1), ..group.clone() }),
    );
    refused("title", Body::Create(CreateConversation { title: "a\nb".into(), ..group.clone() }));
    refused("creation_id", Body::Create(CreateConversation { creation_id: 0, ..group }));
}

#[test]
fn look_up_is_checked() {
    let look_up = |ids: Vec<Bytes>, names: &[&str]| {
        Body::LookUp(LookUpUsers {
            user_ids: ids,
            usernames: names.iter().map(|&name| name.into()).collect(),
        })
    };
    taken(look_up(vec![id(); LOOK_UP_USERS_MAX - 1], &["Ada"]));
    refused("user_ids, usernames", look_up(vec![], &[]));
    refused("user_ids, usernames", look_up(vec![id(); LOOK_UP_USERS_MAX], &["ada"]));
    refused("user_ids[1]", look_up(vec![id(), Bytes::from_static(b"x")], &[]));
    refused("usernames[1]", look_up(vec![], &["ada", "a b c"]));
    refused("usernames[0]", look_up(vec![], &[&"a".repeat(USERNAME_CHARS_MAX + 1)]));
}

#[test]
fn the_rest_has_nothing_to_check() {
    taken(Body::LogOut(LogOut {}));
    let unknown = ClientFrame { request_id: 1, body: None }.encode_to_vec().into();
    let mut out = BytesMut::new();
    assert!(matches!(open().handle_frame(0, unknown, &mut out), Ok(ServerInput::Handled)));
    let Some(server_frame::Body::Error(error)) = ServerFrame::decode(out.freeze()).unwrap().body else {
        panic!()
    };
    assert_eq!(error.code(), ErrorCode::ErrorInvalidArgument);
    assert!(error.detail.starts_with("body: "));
}

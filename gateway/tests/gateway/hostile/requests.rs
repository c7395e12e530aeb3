//! Requests at the limits of their fields and beyond, by members and by strangers.

use super::assert_alive;
use crate::chat::{accepted, created, direct, group, refused, text};
use crate::client::{Client, Way, id};
use crate::server::Server;
use bytes::Bytes;
use wire_protocol::limits::*;
use wire_protocol::v1::client_frame::Body;
use wire_protocol::v1::{self, ConversationKind, EntryKind, ErrorCode, server_frame};

fn send(conversation_id: &Bytes, change: impl FnOnce(&mut v1::SendMessage)) -> Body {
    let mut send = v1::SendMessage {
        conversation_id: conversation_id.clone(),
        client_message_id: 1_000,
        body: "x".into(),
        ..Default::default()
    };
    change(&mut send);
    Body::Send(send)
}

fn create(member_ids: Vec<Bytes>, change: impl FnOnce(&mut v1::CreateConversation)) -> Body {
    let kind = ConversationKind::Group as i32;
    let mut create = v1::CreateConversation { kind, member_ids, title: "t".into(), creation_id: 77 };
    change(&mut create);
    Body::Create(create)
}

fn history(conversation_id: &Bytes, before_seq: u64, after_seq: u64, limit: u32) -> Body {
    let conversation_id = conversation_id.clone();
    Body::History(v1::History { conversation_id, before_seq, after_seq, limit, handle: 0 })
}

fn sync(since_version: u64, cursors: Vec<v1::SyncCursor>) -> Body {
    Body::Sync(v1::Sync { since_version, cursors, named_only: false })
}

fn cursor(conversation_id: &Bytes, after_seq: u64) -> v1::SyncCursor {
    v1::SyncCursor { conversation_id: conversation_id.clone(), after_seq, handle: 0 }
}

fn read(conversation_id: &Bytes, seq: u64) -> Body {
    Body::Read(v1::ReadUpTo { conversation_id: conversation_id.clone(), seq, handle: 0 })
}

fn delivered(conversation_id: &Bytes, seq: u64) -> Body {
    Body::Delivered(v1::DeliveredUpTo { conversation_id: conversation_id.clone(), seq, handle: 0 })
}

fn list(limit: u32, page_token: Vec<u8>) -> Body {
    Body::List(v1::ListConversations { limit, page_token: page_token.into() })
}

fn look_up(user_ids: Vec<Bytes>, usernames: Vec<String>) -> Body {
    Body::LookUp(v1::LookUpUsers { user_ids, usernames })
}

/// Each field of each request beyond its limit.
fn beyond(conversation: &Bytes, bob: &Bytes) -> Vec<(Body, ErrorCode)> {
    use ErrorCode::*;
    let invalid = ErrorInvalidArgument;
    let ids = |count: usize| (0..count).map(|number| Bytes::from(vec![number as u8; 16])).collect::<Vec<_>>();
    let wrong = |bytes: usize| Bytes::from(vec![1; bytes]);
    vec![
        (send(&wrong(0), |_| {}), invalid),
        (send(&wrong(15), |_| {}), invalid),
        (send(&wrong(17), |_| {}), invalid),
        (send(&wrong(40_000), |_| {}), invalid),
        (send(conversation, |send| send.client_message_id = 0), invalid),
        (send(conversation, |send| send.predecessor = 1_000), invalid),
        (send(conversation, |send| send.predecessor = u64::MAX), ErrorPredecessorMissing),
        (send(conversation, |send| send.kind = EntryKind::Created as i32), invalid),
        (send(conversation, |send| send.kind = i32::MIN), invalid),
        (send(conversation, |send| send.body = Bytes::new()), invalid),
        (send(conversation, |send| send.body = vec![0; BODY_BYTES_MAX + 1].into()), ErrorBodyTooLarge),
        (send(conversation, |send| send.body = vec![0; 60_000].into()), ErrorBodyTooLarge),
        (read(conversation, 0), invalid),
        (read(&wrong(3), 1), invalid),
        (delivered(conversation, 0), invalid),
        (history(conversation, 1, 1, 0), invalid),
        (history(conversation, 0, 0, HISTORY_ENTRIES_MAX as u32 + 1), invalid),
        (history(conversation, 0, 0, u32::MAX), invalid),
        (history(&wrong(17), 0, 0, 0), invalid),
        (sync(0, vec![cursor(conversation, 0); SYNC_CURSORS_MAX + 1]), invalid),
        (sync(0, vec![cursor(&wrong(1), 0)]), invalid),
        (list(LIST_CONVERSATIONS_MAX as u32 + 1, Vec::new()), invalid),
        (list(0, vec![0; PAGE_TOKEN_BYTES_MAX + 1]), invalid),
        (list(0, vec![0xff; 23]), invalid),
        (create(vec![wrong(15)], |_| {}), invalid),
        (create(vec![bob.clone(), bob.clone()], |_| {}), invalid),
        (create(ids(GROUP_MEMBERS_MAX), |_| {}), ErrorTooManyMembers),
        (create(ids(2_000), |_| {}), ErrorTooManyMembers),
        (create(ids(3), |_| {}), ErrorNotFound),
        (create(vec![bob.clone()], |create| create.kind = 0), invalid),
        (create(vec![bob.clone()], |create| create.kind = i32::MAX), invalid),
        (create(vec![bob.clone()], |create| create.title = "t".repeat(TITLE_CHARS_MAX + 1)), invalid),
        (create(vec![bob.clone()], |create| create.title = "a\u{7}b".into()), invalid),
        (create(vec![bob.clone()], |create| create.creation_id = 0), invalid),
        (create(vec![bob.clone()], |create| create.kind = ConversationKind::Direct as i32), invalid),
        (look_up(Vec::new(), Vec::new()), invalid),
        (look_up(ids(LOOK_UP_USERS_MAX + 1), Vec::new()), invalid),
        (look_up(vec![wrong(1)], Vec::new()), invalid),
        (look_up(Vec::new(), vec!["<script>".into()]), invalid),
        (Body::Get(v1::GetConversation { conversation_id: wrong(1), handle: 0 }), invalid),
        (
            Body::Get(v1::GetConversation { conversation_id: Bytes::new(), handle: 65_535 }),
            ErrorUnknownHandle,
        ),
        (
            Body::Get(v1::GetConversation { conversation_id: Bytes::new(), handle: u32::MAX }),
            ErrorUnknownHandle,
        ),
        (send(&Bytes::new(), |send| send.handle = 40_000), ErrorUnknownHandle),
    ]
}

#[test]
fn every_field_beyond_its_limit_is_refused_and_the_session_lives_on() {
    let server = Server::embedded();
    let (ada, bob) = (server.register("ada"), server.register("bob"));
    let mut client = Client::connect(&server, Way::WebSocket, &ada);
    let conversation = created(client.ask(direct(&bob))).conversation_id;
    for (body, code) in beyond(&conversation, &id(&bob.user_id)) {
        let shown = format!("{body:?}").chars().take(200).collect::<String>();
        let error = refused(client.ask(body));
        assert_eq!(error.code(), code, "{} for {shown}", error.detail);
    }
    assert_alive(&mut client);
    let get = v1::GetConversation { conversation_id: conversation.clone(), handle: 0 };
    assert_eq!(created(client.ask(Body::Get(get))).head_seq, 1, "nothing was stored");
    // At the limit, all of it passes.
    let largest = send(&conversation, |send| {
        send.body = vec![0xff; BODY_BYTES_MAX].into();
        send.client_message_id = u64::MAX;
        send.kind = EntryKind::VoiceNote as i32;
    });
    assert_eq!(accepted(client.ask(largest)).seq, 2);
    for body in [
        history(&conversation, u64::MAX, 0, HISTORY_ENTRIES_MAX as u32),
        history(&conversation, 0, u64::MAX, HISTORY_ENTRIES_MAX as u32),
        sync(u64::MAX, vec![cursor(&conversation, u64::MAX); SYNC_CURSORS_MAX]),
        list(LIST_CONVERSATIONS_MAX as u32, Vec::new()),
        look_up(vec![id(&bob.user_id); LOOK_UP_USERS_MAX], Vec::new()),
        create(vec![id(&bob.user_id)], |create| {
            create.title = "ü".repeat(TITLE_CHARS_MAX);
            create.creation_id = u64::MAX;
        }),
    ] {
        let shown = format!("{body:?}").chars().take(200).collect::<String>();
        let answer = client.ask(body);
        assert!(!matches!(answer, server_frame::Body::Error(_)), "{answer:?} for {shown}");
    }
}

#[test]
fn strangers_neither_read_nor_write_nor_mark() {
    let server = Server::embedded();
    let (ada, bob, eve) = (server.register("ada"), server.register("bob"), server.register("eve"));
    let mut adas = Client::connect(&server, Way::NativeTls, &ada);
    let mut eves = Client::connect(&server, Way::NativeTls, &eve);
    let pair = created(adas.ask(direct(&bob))).conversation_id;
    let crowd = created(adas.ask(group(&[&bob], 5))).conversation_id;
    for conversation in [pair, crowd] {
        assert_eq!(accepted(adas.ask(text(&conversation, 1, "a secret"))).seq, 2);
        let get = v1::GetConversation { conversation_id: conversation.clone(), handle: 0 };
        for body in [
            text(&conversation, 1, "hi"),
            read(&conversation, 2),
            delivered(&conversation, 2),
            history(&conversation, 0, 0, 0),
            history(&conversation, 0, 1, 0),
            Body::Get(get.clone()),
        ] {
            let shown = format!("{body:?}");
            assert_eq!(refused(eves.ask(body)).code(), ErrorCode::ErrorNotAMember, "{shown}");
        }
        for named_only in [false, true] {
            let cursors = vec![cursor(&conversation, 0)];
            let ask = Body::Sync(v1::Sync { since_version: 0, cursors, named_only });
            match eves.ask(ask) {
                server_frame::Body::SyncPage(page) => assert_eq!(page.conversations, []),
                other => assert_eq!(refused(other).code(), ErrorCode::ErrorNotAMember),
            }
        }
        let seen = created(adas.ask(Body::Get(get)));
        let eves_cursor = seen.members.iter().find(|member| member.user_id == id(&eve.user_id));
        assert_eq!((seen.head_seq, seen.members.len(), eves_cursor), (2, 2, None));
    }
    assert_eq!(eves.events_so_far(), 0);
    assert_alive(&mut eves);
}

#[test]
fn a_message_id_is_its_devices_own() {
    let server = Server::embedded();
    let (ada, bob) = (server.register("ada"), server.register("bob"));
    let ada_again = server.log_in("ada");
    let mut phone = Client::connect(&server, Way::NativeTls, &ada);
    let mut laptop = Client::connect(&server, Way::WebSocket, &ada_again);
    let mut bobs = Client::connect(&server, Way::NativePlain, &bob);
    let conversation = created(phone.ask(direct(&bob))).conversation_id;
    assert_eq!(accepted(phone.ask(text(&conversation, 7, "mine"))).seq, 2);
    // Neither steals the other's answer, nor takes its place, nor is taken for its predecessor.
    assert_eq!(accepted(bobs.ask(text(&conversation, 7, "not yours"))).seq, 3);
    assert_eq!(accepted(laptop.ask(text(&conversation, 7, "nor yours"))).seq, 4);
    assert_eq!(accepted(phone.ask(text(&conversation, 7, "changed"))).seq, 2);
    let behind = send(&conversation, |send| send.predecessor = 8);
    accepted(phone.ask(text(&conversation, 8, "eight")));
    assert_eq!(refused(bobs.ask(behind)).code(), ErrorCode::ErrorPredecessorMissing);
    let (entries, _) = crate::sync::catch_up(&mut bobs, &conversation, 0, 1);
    let bodies: Vec<_> = entries.iter().map(|entry| entry.body.clone()).collect();
    assert_eq!(bodies, ["mine", "not yours", "nor yours", "eight"]);
}

//! Creating, sending, live delivery, and that the same send is stored once.

use crate::client::{Client, Way, id};
use crate::server::{Account, PATIENCE_S, Server};
use bytes::Bytes;
use std::time::{Duration, Instant};
use wire_protocol::v1::{self, ConversationKind, ErrorCode, client_frame, server_frame};

pub fn direct(other: &Account) -> client_frame::Body {
    client_frame::Body::Create(v1::CreateConversation {
        kind: ConversationKind::Direct as i32,
        member_ids: vec![id(&other.user_id)],
        ..Default::default()
    })
}

pub fn group(others: &[&Account], creation_id: u64) -> client_frame::Body {
    client_frame::Body::Create(v1::CreateConversation {
        kind: ConversationKind::Group as i32,
        member_ids: others.iter().map(|other| id(&other.user_id)).collect(),
        title: "tea".into(),
        creation_id,
    })
}

pub fn text(conversation: &Bytes, client_message_id: u64, text: impl Into<Bytes>) -> client_frame::Body {
    client_frame::Body::Send(v1::SendMessage {
        conversation_id: conversation.clone(),
        client_message_id,
        body: text.into(),
        ..Default::default()
    })
}

pub fn created(body: server_frame::Body) -> v1::Conversation {
    match body {
        server_frame::Body::Conversation(conversation) => conversation,
        other => panic!("{other:?}"),
    }
}

pub fn accepted(body: server_frame::Body) -> v1::MessageAccepted {
    match body {
        server_frame::Body::Accepted(accepted) => accepted,
        other => panic!("{other:?}"),
    }
}

/// Sends until it is accepted: a refusal that may pass is repeated under the same id when it says, as a client does.
pub fn accepted_at_last(client: &mut Client, body: &client_frame::Body) -> v1::MessageAccepted {
    let deadline = Instant::now() + Duration::from_secs(PATIENCE_S);
    loop {
        match client.ask(body.clone()) {
            server_frame::Body::Error(error) if error.retryable => {
                assert!(Instant::now() < deadline, "refused again and again: {error:?}");
                std::thread::park_timeout(Duration::from_millis(error.retry_after_ms.into()));
            }
            answer => return accepted(answer),
        }
    }
}

pub fn refused(body: server_frame::Body) -> v1::Error {
    match body {
        server_frame::Body::Error(error) => error,
        other => panic!("{other:?}"),
    }
}

/// The next live entry after a conversation's first: its conversation, seq and body.
pub fn live(client: &mut Client) -> (Bytes, u64, Bytes) {
    client.event_with(|event| match event {
        server_frame::Body::Message(message) => {
            let entry = message.entry.expect("always there");
            (entry.kind() != v1::EntryKind::Created).then_some((
                message.conversation_id,
                entry.seq,
                entry.body,
            ))
        }
        _ => None,
    })
}

#[test]
fn a_message_reaches_the_other_user_and_the_senders_other_device() {
    let server = Server::embedded();
    let (ada, bob) = (server.register("ada"), server.register("bob"));
    let ada_again = server.log_in("ada");
    assert_ne!(ada.device_id, ada_again.device_id);
    let mut phone = Client::connect(&server, Way::NativeTls, &ada);
    let mut laptop = Client::connect(&server, Way::WebSocket, &ada_again);
    let mut bobs = Client::connect(&server, Way::NativePlain, &bob);
    let conversation = created(phone.ask(direct(&bob)));
    assert_eq!((conversation.head_seq, conversation.members.len()), (1, 2));
    let id = conversation.conversation_id;
    assert_eq!(created(bobs.ask(direct(&ada))).conversation_id, id, "one conversation for each pair");
    let sent = accepted(phone.ask(text(&id, 1, "hello")));
    assert_eq!(sent.seq, 2);
    for client in [&mut laptop, &mut bobs] {
        assert_eq!(live(client), (id.clone(), 2, "hello".into()));
    }
    // A repeat gets its first answer and stores nothing.
    assert_eq!(accepted(phone.ask(text(&id, 1, "hello"))).seq, 2);
    let answer = accepted(bobs.ask(text(&id, 1, "and to you")));
    assert_eq!(answer.seq, 3);
    for client in [&mut phone, &mut laptop] {
        assert_eq!(live(client).1, 3);
    }
    // Who sent it hears of it by the answer alone: all there is for bob is the answer to his own.
    assert_eq!(bobs.events_so_far(), 0);
}

#[test]
fn pipelined_sends_keep_their_order() {
    let server = Server::embedded();
    let (ada, bob) = (server.register("ada"), server.register("bob"));
    let mut sender = Client::connect(&server, Way::NativeTls, &ada);
    let mut receiver = Client::connect(&server, Way::WebSocket, &bob);
    let conversation = created(sender.ask(direct(&bob))).conversation_id;
    let sends: Vec<u32> = (1..=60u64)
        .map(|number| {
            let mut body = text(&conversation, number, number.to_string());
            if let client_frame::Body::Send(send) = &mut body {
                send.predecessor = number - 1;
            }
            sender.request(body)
        })
        .collect();
    for (index, request_id) in sends.into_iter().enumerate() {
        assert_eq!(accepted(sender.answer(request_id)).seq, index as u64 + 2);
    }
    for number in 1..=60u64 {
        assert_eq!(live(&mut receiver), (conversation.clone(), number + 1, number.to_string().into()));
    }
}

#[test]
fn a_group_is_made_once_and_tells_everyone() {
    let server = Server::embedded();
    let accounts: Vec<Account> = (0..5).map(|number| server.register(&format!("user{number}"))).collect();
    let mut clients: Vec<Client> =
        accounts.iter().map(|account| Client::connect(&server, Way::NativePlain, account)).collect();
    let others: Vec<&Account> = accounts.iter().skip(1).collect();
    let made = created(clients[0].ask(group(&others, 9)));
    assert_eq!((made.title.as_str(), made.members.len(), made.own_ordinal), ("tea", 5, 0));
    assert_eq!(created(clients[0].ask(group(&others, 9))).conversation_id, made.conversation_id);
    accepted(clients[0].ask(text(&made.conversation_id, 1, "x")));
    for client in &mut clients[1..] {
        while live(client).1 != 2 {}
        let get = v1::GetConversation { conversation_id: made.conversation_id.clone(), ..Default::default() };
        let seen = created(client.ask(client_frame::Body::Get(get)));
        assert_eq!((seen.head_seq, seen.unread, seen.members.len()), (2, 1, 5));
    }
}

#[test]
fn the_impossible_is_refused_and_the_session_lives_on() {
    let server = Server::embedded();
    let (ada, bob, eve) = (server.register("ada"), server.register("bob"), server.register("eve"));
    let mut adas = Client::connect(&server, Way::NativePlain, &ada);
    let mut eves = Client::connect(&server, Way::NativePlain, &eve);
    let conversation = created(adas.ask(direct(&bob))).conversation_id;
    let get = v1::GetConversation { conversation_id: conversation.clone(), ..Default::default() };
    let history = v1::History { conversation_id: conversation.clone(), ..Default::default() };
    for body in
        [text(&conversation, 1, "hi"), client_frame::Body::Get(get), client_frame::Body::History(history)]
    {
        assert_eq!(refused(eves.ask(body)).code(), ErrorCode::ErrorNotAMember);
    }
    let nowhere = text(&Bytes::from_static(&[9; 16]), 1, "hi");
    let code = refused(adas.ask(nowhere)).code();
    assert!(matches!(code, ErrorCode::ErrorNotFound | ErrorCode::ErrorNotAMember), "{code:?}");
    let nobody = Account { user_id: "ab".repeat(16), ..bob.clone() };
    assert_eq!(refused(adas.ask(direct(&nobody))).code(), ErrorCode::ErrorNotFound);
    assert_eq!(accepted(adas.ask(text(&conversation, 1, "hi"))).seq, 2);
}

#[test]
fn people_are_found_by_name_and_id() {
    let server = Server::embedded();
    let (ada, bob) = (server.register("ada"), server.register("bob"));
    let mut client = Client::connect(&server, Way::WebSocket, &ada);
    let look_up = v1::LookUpUsers {
        user_ids: vec![id(&bob.user_id), Bytes::from_static(&[1; 16])],
        usernames: vec!["ADA".into(), "nobody".into(), "bob".into()],
    };
    let server_frame::Body::Users(users) = client.ask(client_frame::Body::LookUp(look_up)) else {
        panic!("not users")
    };
    let names: Vec<_> = users.users.iter().map(|user| (&user.username[..], &user.display_name[..])).collect();
    assert_eq!(names, [("bob", "BOB"), ("ada", "ADA")]);
}

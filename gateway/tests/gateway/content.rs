//! What a message says is no business of the server's: bodies of one length make the same frames, whatever is in them.

use crate::chat::{created, direct, text};
use crate::client::{Client, Way};
use crate::server::Server;
use bytes::{Bytes, BytesMut};
use wire_protocol::frame::encode_message;
use wire_protocol::limits::BODY_BYTES_MAX;
use wire_protocol::v1::{self, EntryKind, client_frame, server_frame};

/// Bytes of bodies: a few lines, and the most. Both are multiples of the 16 bytes of the text in [`pieces`], so that it
/// stays one.
const BODY_BYTES: [usize; 2] = [640, BODY_BYTES_MAX];
/// What users write.
const KINDS: [EntryKind; 5] =
    [EntryKind::Text, EntryKind::Image, EntryKind::Video, EntryKind::File, EntryKind::VoiceNote];

/// What somebody was told.
type Told = Vec<(&'static str, server_frame::Body)>;

/// What bodies are made of, over and over: what means nothing to anybody, and what means something to some part of a server
/// that looks where it should not.
fn pieces() -> Vec<(&'static str, Bytes)> {
    let mut ours = BytesMut::new();
    let closing = server_frame::Body::Closing(v1::SessionClosing::default());
    encode_message(&v1::ServerFrame { body: Some(closing), ..Default::default() }, &mut ours);
    let log_out = client_frame::Body::LogOut(v1::LogOut {});
    encode_message(&v1::ClientFrame { request_id: 1, body: Some(log_out) }, &mut ours);
    let mut state = 7u64;
    let random = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    });
    vec![
        ("zeros", Bytes::from_static(&[0])),
        ("text", Bytes::from("Grüße 🦀 你")),
        ("no text", Bytes::from_static(&[0xff])),
        ("our frames", ours.freeze()),
        ("JSON", Bytes::from(r#"{"code":"ERROR_INTERNAL","detail":"none"}"#)),
        ("HTML", Bytes::from("<script>alert(1)</script>")),
        ("HTTP", Bytes::from("GET /v1/health/live HTTP/1.1\r\nHost: a\r\n\r\n")),
        ("a WebSocket's close", Bytes::from_static(&[0x88, 2, 3, 0xe8])),
        ("an alert of TLS", Bytes::from_static(&[21, 3, 3, 0, 2, 1, 0])),
        ("anything", random.take(BODY_BYTES_MAX).collect()),
    ]
}

#[test]
fn nothing_but_the_body_depends_on_the_body() {
    let server = Server::embedded();
    for bytes in BODY_BYTES {
        let mut first: Option<Told> = None;
        for (place, (what, piece)) in pieces().into_iter().enumerate() {
            let body: Bytes = piece.iter().copied().cycle().take(bytes).collect();
            let told = talk(&server, &format!("{bytes}of{place}"), &body);
            let first = first.get_or_insert_with(|| told.clone());
            assert_eq!(told, *first, "{what}, {bytes} bytes");
        }
    }
}

/// A conversation of two people and three devices, in which each message says the same. Everything that they are told.
fn talk(server: &Server, names: &str, body: &Bytes) -> Told {
    let (adas_name, bobs_name) = (format!("ada{names}"), format!("bob{names}"));
    let (ada, bob) = (server.register(&adas_name), server.register(&bobs_name));
    let mut phone = Client::connect(server, Way::NativeTls, &ada);
    let mut laptop = Client::connect(server, Way::NativePlain, &server.log_in(&adas_name));
    let mut bobs = Client::connect(server, Way::WebSocket, &bob);
    let conversation = created(phone.ask(direct(&bob))).conversation_id;
    let mut told = Told::new();
    for (client_message_id, kind) in (1..).zip(KINDS) {
        let send = send(&conversation, client_message_id, kind, body);
        // A repeat gets its first answer.
        told.push(("sender", phone.ask(send.clone())));
        told.push(("sender", phone.ask(send)));
        let is_last = |event: &server_frame::Body| seq_of(event) == Some(client_message_id + 1);
        told.extend(events_until("sender's other device", &mut laptop, is_last));
        told.extend(events_until("receiver", &mut bobs, is_last));
    }
    let mut too_early = send(&conversation, 99, EntryKind::Text, body);
    if let client_frame::Body::Send(send) = &mut too_early {
        send.predecessor = 98;
    }
    told.push(("sender", phone.ask(too_early)));
    let head_seq = KINDS.len() as u64 + 1;
    let pages = pages(server, &mut bobs, &conversation, head_seq);
    told.extend(pages.into_iter().map(|page| ("receiver", page)));
    let read = v1::ReadUpTo { conversation_id: conversation, seq: head_seq, handle: 0 };
    told.push(("receiver", bobs.ask(client_frame::Body::Read(read))));
    let is_receipt = |event: &server_frame::Body| matches!(event, server_frame::Body::Receipt(_));
    told.extend(events_until("sender", &mut phone, is_receipt));
    told.into_iter().map(|(who, frame)| (who, without_body(frame, body))).collect()
}

fn send(conversation: &Bytes, client_message_id: u64, kind: EntryKind, body: &Bytes) -> client_frame::Body {
    let mut send = text(conversation, client_message_id, body.clone());
    if let client_frame::Body::Send(send) = &mut send {
        send.kind = kind as i32;
    }
    send
}

fn seq_of(event: &server_frame::Body) -> Option<u64> {
    match event {
        server_frame::Body::Message(message) => message.entry.as_ref().map(|entry| entry.seq),
        _ => None,
    }
}

/// All events up to one, but for the entry that nobody wrote.
fn events_until(
    who: &'static str,
    client: &mut Client,
    is_last: impl Fn(&server_frame::Body) -> bool,
) -> Told {
    let mut events = Told::new();
    loop {
        let event = client.event();
        let is_over = is_last(&event);
        if seq_of(&event) != Some(1) {
            events.push((who, event));
        }
        if is_over {
            return events;
        }
    }
}

/// Each kind of page that has entries in it.
fn pages(
    server: &Server,
    client: &mut Client,
    conversation: &Bytes,
    head_seq: u64,
) -> Vec<server_frame::Body> {
    let conversation_id = conversation.clone();
    let cursor = v1::SyncCursor { conversation_id: conversation_id.clone(), after_seq: 0, handle: 0 };
    let sync = v1::Sync { since_version: 0, cursors: vec![cursor], named_only: true };
    let history = v1::History { conversation_id: conversation_id.clone(), ..Default::default() };
    let get = v1::GetConversation { conversation_id, handle: 0 };
    let mut pages = vec![
        client.ask(client_frame::Body::Sync(sync)),
        client.ask(client_frame::Body::History(history)),
        client.ask(client_frame::Body::Get(get)),
    ];
    // The list follows the messages in a moment.
    server.wait_until("it is listed", || {
        let list = client.ask(client_frame::Body::List(v1::ListConversations::default()));
        let server_frame::Body::ConversationPage(page) = &list else { panic!("{list:?}") };
        let is_listed = page.conversations.iter().any(|listed| listed.head_seq == head_seq);
        pages.extend(is_listed.then_some(list));
        is_listed
    });
    pages
}

/// A frame without ids, times and versions, and without the body, which is the one that was sent.
fn without_body(mut frame: server_frame::Body, body: &Bytes) -> server_frame::Body {
    use server_frame::Body;
    match &mut frame {
        Body::Accepted(accepted) => accepted.time_delta_ms = 0,
        Body::Message(message) => {
            message.conversation_id.clear();
            message.entry.iter_mut().for_each(|entry| strip_entry(entry, body));
        }
        Body::Receipt(receipt) => receipt.conversation_id.clear(),
        Body::HistoryPage(page) => {
            page.conversation_id.clear();
            page.entries.iter_mut().for_each(|entry| strip_entry(entry, body));
        }
        Body::Conversation(conversation) => strip_conversation(conversation, body),
        Body::ConversationPage(page) => {
            page.conversations.iter_mut().for_each(|conversation| strip_conversation(conversation, body));
        }
        Body::SyncPage(page) => {
            page.version = 0;
            for delta in &mut page.conversations {
                delta.conversation.iter_mut().for_each(|conversation| strip_conversation(conversation, body));
                delta.entries.iter_mut().for_each(|entry| strip_entry(entry, body));
            }
        }
        Body::Done(_) | Body::Error(_) => {}
        other => panic!("{other:?}"),
    }
    frame
}

fn strip_conversation(conversation: &mut v1::Conversation, body: &Bytes) {
    conversation.conversation_id.clear();
    conversation.created_ms = 0;
    conversation.members.iter_mut().for_each(|member| member.user_id.clear());
    conversation.last.iter_mut().for_each(|entry| strip_entry(entry, body));
}

fn strip_entry(entry: &mut v1::Entry, body: &Bytes) {
    entry.time_ms = 0;
    if entry.kind() != EntryKind::Created {
        assert!(entry.body == *body, "another body: {:?}", entry.body);
        entry.body.clear();
    }
}

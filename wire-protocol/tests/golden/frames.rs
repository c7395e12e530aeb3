//! The frames themselves. Their bytes must never change; new ones may come.

use bytes::Bytes;
use wire_protocol::limits::{FRAME_BYTES_MAX, REQUESTS_IN_FLIGHT_MAX};
use wire_protocol::v1::server_frame::Body;
use wire_protocol::v1::*;

pub fn id(first: u8) -> Bytes {
    (first..first + 16).collect::<Vec<u8>>().into()
}

pub const ALICE: u8 = 0xa0;
pub const BOB: u8 = 0xb0;
pub const CONVERSATION: u8 = 0xc0;
const OTHER_CONVERSATION: u8 = 0xe0;
pub const TIME_MS: u64 = 1_790_000_000_000;

/// The ways to begin.
pub fn hello_frames() -> Vec<(&'static str, client_frame::Body)> {
    let hello = Hello {
        version_min: 1,
        version_max: 1,
        features: 1,
        proof: Some(hello::Proof::AccessToken("header.claims.signature".into())),
        heartbeat_s: 30,
        client: "golden 1.0".into(),
    };
    let proof = Some(hello::Proof::ResumeToken(Bytes::from_static(b"\x01resume\xff")));
    let resumed = Hello { proof, heartbeat_s: 0, client: String::new(), ..hello.clone() };
    vec![
        ("client-hello", client_frame::Body::Hello(hello)),
        ("client-hello-resumed", client_frame::Body::Hello(resumed)),
    ]
}

/// Every kind of request, as an open session whose handle 1 is the conversation takes it.
fn requests() -> Vec<(&'static str, client_frame::Body)> {
    use client_frame::Body;
    let (handle, conversation_id) = (1, Bytes::new());
    let send = SendMessage {
        handle,
        conversation_id: conversation_id.clone(),
        client_message_id: 0x0102_0304_0506_0708,
        kind: EntryKind::Text as i32,
        body: Bytes::from_static("See you at the lake ☀".as_bytes()),
        predecessor: 0,
    };
    let by_id = SendMessage {
        handle: 0,
        conversation_id: id(CONVERSATION),
        kind: EntryKind::Image as i32,
        predecessor: send.client_message_id,
        client_message_id: u64::MAX,
        body: Bytes::from_static(&[0, 0xff, 0x80]),
    };
    let cursors = vec![
        SyncCursor { handle, conversation_id: conversation_id.clone(), after_seq: 300 },
        SyncCursor { handle: 0, conversation_id: id(OTHER_CONVERSATION), after_seq: 0 },
    ];
    let group = CreateConversation {
        kind: ConversationKind::Group as i32,
        member_ids: vec![id(BOB), id(0xd0)],
        title: "Sunday".into(),
        creation_id: 77,
    };
    let direct = CreateConversation {
        kind: ConversationKind::Direct as i32,
        member_ids: vec![id(BOB)],
        ..CreateConversation::default()
    };
    let history =
        History { handle, conversation_id: conversation_id.clone(), limit: 50, ..History::default() };
    let page_token = Bytes::from_static(b"page");
    vec![
        ("client-send", Body::Send(send)),
        ("client-send-by-id", Body::Send(by_id)),
        (
            "client-delivered",
            Body::Delivered(DeliveredUpTo { handle, conversation_id: Bytes::new(), seq: 301 }),
        ),
        ("client-read", Body::Read(ReadUpTo { handle, conversation_id: Bytes::new(), seq: 1 << 40 })),
        ("client-ping", Body::Ping(Ping {})),
        ("client-sync", Body::Sync(Sync { since_version: 5 << 40, cursors, named_only: false })),
        ("client-history", Body::History(History { before_seq: 200, ..history.clone() })),
        ("client-history-after", Body::History(History { after_seq: 200, limit: 0, ..history })),
        ("client-list", Body::List(ListConversations { limit: 20, page_token })),
        ("client-create-direct", Body::Create(direct)),
        ("client-create-group", Body::Create(group)),
        ("client-log-out", Body::LogOut(LogOut {})),
        (
            "client-look-up",
            Body::LookUp(LookUpUsers { user_ids: vec![id(BOB)], usernames: vec!["alice".into()] }),
        ),
        ("client-get", Body::Get(GetConversation { handle, conversation_id })),
    ]
}

/// Every kind of frame that a client sends.
pub fn client_frames() -> Vec<(&'static str, ClientFrame)> {
    let bodies = hello_frames().into_iter().chain(requests());
    let mut frames: Vec<_> = bodies
        .enumerate()
        .map(|(row, (name, body))| {
            let request_id = if matches!(body, client_frame::Body::Hello(_)) { 1 } else { row as u32 };
            (name, ClientFrame { request_id, body: Some(body) })
        })
        .collect();
    let read = client_frame::Body::Read(ReadUpTo { handle: 1, conversation_id: Bytes::new(), seq: 9 });
    frames.push(("client-read-unanswered", ClientFrame { request_id: 0, body: Some(read) }));
    frames
}

pub fn entry(seq: u64, sender: u32, kind: EntryKind, body: &'static [u8]) -> Entry {
    Entry { seq, sender, time_ms: TIME_MS + seq, kind: kind as i32, body: Bytes::from_static(body) }
}

fn conversation(members: bool) -> Conversation {
    let member = |ordinal, first, up_to| Member {
        ordinal,
        user_id: id(first),
        delivered_up_to: up_to,
        read_up_to: up_to - 1,
    };
    Conversation {
        handle: 1,
        conversation_id: Bytes::new(),
        kind: ConversationKind::Direct as i32,
        title: String::new(),
        members: if members { vec![member(0, ALICE, 5), member(1, BOB, 3)] } else { vec![] },
        head_seq: 5,
        created_ms: TIME_MS,
        unread: 2,
        read_up_to: 3,
        delivered_up_to: 5,
        last: Some(entry(5, 1, EntryKind::Text, b"Hi")),
        own_ordinal: 0,
    }
}

fn answer(name: &'static str, request_id: u32, body: server_frame::Body) -> (&'static str, ServerFrame) {
    (name, ServerFrame { request_id, body: Some(body), bindings: vec![] })
}

/// Every kind of answer and event, as a session takes them one after the other: handle 1 is bound by the first
/// that mentions it.
pub fn server_frames() -> Vec<(&'static str, ServerFrame)> {
    let mut frames = vec![ready()];
    frames.extend(events());
    frames.extend(answers_about_conversations());
    frames.extend(other_answers());
    frames.push(closing());
    frames.push(leaving());
    frames
}

fn ready() -> (&'static str, ServerFrame) {
    let ready = Ready {
        version: 1,
        features: 1,
        user_id: id(ALICE),
        device_id: id(0x10),
        server_time_ms: TIME_MS,
        heartbeat_s: 30,
        resume_token: Bytes::from_static(b"\x01resume\xff"),
        feed_version: 5 << 40,
        frame_bytes_max: FRAME_BYTES_MAX as u32,
        requests_in_flight_max: REQUESTS_IN_FLIGHT_MAX as u32,
    };
    answer("server-ready", 1, Body::Ready(ready))
}

fn events() -> Vec<(&'static str, ServerFrame)> {
    let message =
        |entry| Body::Message(MessageEvent { handle: 1, conversation_id: Bytes::new(), entry: Some(entry) });
    let first = ServerFrame {
        request_id: 0,
        body: Some(message(entry(5, 1, EntryKind::Text, "See you at the lake ☀".as_bytes()))),
        bindings: vec![Binding { handle: 1, conversation_id: id(CONVERSATION) }],
    };
    let receipt = ReceiptEvent {
        handle: 1,
        conversation_id: Bytes::new(),
        member: 1,
        delivered_up_to: 5,
        read_up_to: 4,
    };
    vec![
        ("server-message-binding", first),
        answer("server-message", 0, message(entry(6, 0, EntryKind::Text, b"Yes!"))),
        answer("server-receipt", 0, Body::Receipt(receipt)),
        answer("server-sync-needed", 0, Body::SyncNeeded(SyncNeeded {})),
    ]
}

fn answers_about_conversations() -> Vec<(&'static str, ServerFrame)> {
    let entries = vec![entry(1, 0, EntryKind::Created, b""), entry(2, 1, EntryKind::VoiceNote, &[0, 0xff])];
    let delta = ConversationDelta {
        conversation: Some(conversation(true)),
        entries: entries.clone(),
        truncated: true,
    };
    let page = SyncPage { conversations: vec![delta], version: (5 << 40) + 9, more: true };
    let history = HistoryPage { handle: 1, conversation_id: Bytes::new(), entries, head_seq: 6 };
    let group = Conversation {
        handle: 0,
        conversation_id: id(OTHER_CONVERSATION),
        kind: ConversationKind::Group as i32,
        title: "Sunday".into(),
        ..conversation(false)
    };
    let next = Bytes::from_static(b"page");
    let list = ConversationPage { conversations: vec![conversation(false), group], next };
    vec![
        answer("server-sync-page", 4, Body::SyncPage(page)),
        answer("server-history-page", 5, Body::HistoryPage(history)),
        answer("server-conversation-page", 6, Body::ConversationPage(list)),
        answer("server-conversation", 7, Body::Conversation(conversation(true))),
    ]
}

fn other_answers() -> Vec<(&'static str, ServerFrame)> {
    let synced = MessageAccepted { seq: 6, time_delta_ms: 86_400_000, durability: Durability::Synced as i32 };
    let quorum = MessageAccepted { seq: 7, time_delta_ms: -5, durability: Durability::Quorum as i32 };
    let zones = MessageAccepted { durability: Durability::QuorumOfZones as i32, ..quorum };
    let user = User { user_id: id(BOB), username: "bob".into(), display_name: "Bob ☀".into() };
    let error = Error {
        code: ErrorCode::ErrorThrottled as i32,
        detail: "sends: 20 a second allowed".into(),
        retryable: true,
        retry_after_ms: 1_500,
    };
    vec![
        answer("server-accepted", 1, Body::Accepted(synced)),
        answer("server-accepted-quorum", 2, Body::Accepted(quorum)),
        answer("server-accepted-zones", 11, Body::Accepted(zones)),
        answer("server-pong", 3, Body::Pong(Pong { server_time_ms: TIME_MS })),
        answer("server-done", 8, Body::Done(Done {})),
        answer("server-users", 9, Body::Users(Users { users: vec![user] })),
        answer("server-error", 10, Body::Error(error)),
    ]
}

fn closing() -> (&'static str, ServerFrame) {
    let closing = SessionClosing {
        reason: session_closing::Reason::Unauthenticated as i32,
        retry_after_ms: 0,
        detail: "token expired".into(),
        code: ErrorCode::ErrorTokenExpired as i32,
        gateways: Vec::new(),
    };
    answer("server-closing", 0, Body::Closing(closing))
}

fn leaving() -> (&'static str, ServerFrame) {
    let closing = SessionClosing {
        reason: session_closing::Reason::Draining as i32,
        retry_after_ms: 1_500,
        detail: "the gateway leaves".into(),
        code: ErrorCode::ErrorUnspecified as i32,
        gateways: vec!["gw-2.chat.example.org:8443".into(), "[2001:db8::7]:8443".into()],
    };
    answer("server-closing-draining", 0, Body::Closing(closing))
}

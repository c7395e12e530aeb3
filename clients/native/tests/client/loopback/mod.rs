//! The whole client over real sockets: TLS, WebSocket, REST, against the fake server.

mod full_disk;
mod gateway;
mod http;
mod kill;
mod places;

use crate::folder::Folder;
use gateway::Gateway;
use ringline_client::engine::Failure;
use ringline_client::{
    Client, ClientMessageId, Config, ConnectionState, ConversationId, EntryKind, Error, Event, EventStream,
    PendingState, Progress, RestError, Seq, TransportKind, Trust,
};
use std::time::Duration;

/// Long enough for a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(120);

/// A client, its events, and the folder of its store.
struct Person {
    client: Client,
    events: EventStream,
    folder: Folder,
}

impl Person {
    async fn register(gateway: &Gateway, name: &str, transport: TransportKind) -> Self {
        let folder = Folder::new("loopback");
        let person = Self::open(gateway, folder, transport).await;
        person.client.register(name, &name.to_uppercase(), "password").await.expect("registered");
        person
    }

    async fn open(gateway: &Gateway, folder: Folder, transport: TransportKind) -> Self {
        let config = config(gateway, &folder, transport);
        let client = Client::open(config).await.expect("opened");
        let events = client.events();
        Self { client, events, folder }
    }

    /// Shuts down and opens again.
    async fn reopen(self, gateway: &Gateway, transport: TransportKind) -> Self {
        self.client.shutdown().await;
        Self::open(gateway, self.folder, transport).await
    }

    async fn until<T>(&mut self, mut wanted: impl FnMut(&Event) -> Option<T>) -> T {
        let found = async {
            loop {
                let event = self.events.next().await.expect("the client goes on");
                if let Some(found) = wanted(&event) {
                    return found;
                }
            }
        };
        tokio::time::timeout(PATIENCE, found).await.expect("the event comes")
    }

    async fn until_state(&mut self, wanted: ConnectionState) {
        if self.client.connection() != wanted {
            self.until(|event| (*event == Event::Connection(wanted)).then_some(())).await;
        }
    }

    /// The news that it is online. What was said before is heard then: what ends from here on is this connection.
    async fn until_online(&mut self) {
        self.until(|event| (*event == Event::Connection(ConnectionState::Online)).then_some(())).await;
    }

    /// An open connection ends. The wait for the next one is drawn at random, and one of 0 is none.
    async fn until_dropped(&mut self) {
        let dropped = |state: &ConnectionState| {
            matches!(state, ConnectionState::Offline { .. } | ConnectionState::Connecting)
        };
        self.until(|event| matches!(event, Event::Connection(state) if dropped(state)).then_some(())).await;
    }

    async fn until_text(&mut self, text: &str) -> (ConversationId, Seq) {
        let wanted = |event: &Event| match event {
            Event::Message(message) if message.text() == text => Some((message.conversation, message.seq)),
            _ => None,
        };
        self.until(wanted).await
    }

    async fn texts(&self, conversation: ConversationId) -> Vec<String> {
        let messages = self.client.stored_history(conversation, None, 500).await.expect("stored");
        messages.iter().map(|message| message.text().into_owned()).filter(|text| !text.is_empty()).collect()
    }
}

fn config(gateway: &Gateway, folder: &Folder, transport: TransportKind) -> Config {
    let mut config = Config::new(gateway.address(transport), folder.path());
    config.trust = Trust::CertFile(gateway.certificate.clone());
    config.transport = transport;
    config
}

fn numbered(from: usize, to: usize) -> Vec<String> {
    (from..to).map(|number| format!("text {number}")).collect()
}

async fn two_people_chat(transport: TransportKind) {
    let gateway = Gateway::start().await;
    let mut ada = Person::register(&gateway, "ada", transport).await;
    let mut bob = Person::register(&gateway, "bob", transport).await;
    let room = ada.client.create_direct("bob").await.expect("created");
    for text in numbered(0, 20) {
        ada.client.send_text(room, &text).await.expect("taken over");
    }
    let (seen, seq) = bob.until_text("text 19").await;
    assert_eq!(seen, room);
    // Whoever learns of a conversation late begins with its newest; the rest is there for the asking.
    bob.client.history(room, None, 50).await.expect("fetched");
    assert_eq!(bob.texts(room).await, numbered(0, 20));
    let facts = bob.client.conversation(room).await.expect("stored").expect("known");
    assert_eq!((facts.title.as_str(), facts.unread), ("ADA", 20));

    ada.until(|event| {
        matches!(event, Event::Receipt { delivered_up_to, .. } if *delivered_up_to == seq).then_some(())
    })
    .await;
    let facts = ada.client.conversation(room).await.expect("stored").expect("known");
    assert_eq!(facts.progress(seq), Progress::Delivered);
    bob.client.mark_read(room, seq).await.expect("taken over");
    ada.until(|event| matches!(event, Event::Receipt { read_up_to, .. } if *read_up_to == seq).then_some(()))
        .await;
    let facts = ada.client.conversation(room).await.expect("stored").expect("known");
    assert_eq!(facts.progress(seq), Progress::Read);
    assert!(ada.client.pending(room).await.expect("stored").is_empty());

    let group = bob.client.create_group("games", &["ada"]).await.expect("created");
    bob.client.send_text(group, "who plays?").await.expect("taken over");
    assert_eq!(ada.until_text("who plays?").await.0, group);
    let answers_pings = transport != TransportKind::Native;
    assert_eq!(gateway.pong_count() > 0, answers_pings, "{} pings were answered", gateway.pong_count());
    let failed = ada.client.create_direct("nobody").await;
    assert!(matches!(failed, Err(Error::Request(Failure::NoSuchUser(name))) if name == "nobody"));
}

#[tokio::test]
async fn two_people_chat_over_tls() {
    two_people_chat(TransportKind::Native).await;
}

#[tokio::test]
async fn two_people_chat_over_websocket() {
    two_people_chat(TransportKind::WebSocket).await;
}

#[tokio::test]
async fn two_people_chat_over_plain_websocket_on_loopback() {
    two_people_chat(TransportKind::WebSocketPlain).await;
}

#[tokio::test]
async fn messages_survive_cut_connections_and_restarts() {
    let gateway = Gateway::start().await;
    let mut ada = Person::register(&gateway, "ada", TransportKind::Native).await;
    let mut bob = Person::register(&gateway, "bob", TransportKind::Native).await;
    let room = ada.client.create_direct("bob").await.expect("created");
    for (index, text) in numbered(0, 60).iter().enumerate() {
        ada.client.send_text(room, text).await.expect("taken over, connected or not");
        match index % 20 {
            7 => gateway.cut_all(),
            13 => ada = ada.reopen(&gateway, TransportKind::Native).await,
            17 => bob = bob.reopen(&gateway, TransportKind::Native).await,
            _ => {}
        }
    }
    let last = |event: &Event| match event {
        Event::Message(message) if message.text() == "text 59" => Some(()),
        _ => None,
    };
    bob.until(last).await;
    // Had it learned of the conversation late, it would have begun with the newest.
    bob.client.history(room, None, 100).await.expect("fetched");
    assert_eq!(bob.texts(room).await, numbered(0, 60));
    assert_eq!(gateway.texts(room), numbered(0, 60));
}

#[tokio::test]
async fn an_unknown_certificate_is_never_spoken_to() {
    let (gateway, other) = (Gateway::start().await, Gateway::start().await);
    let folder = Folder::new("loopback");
    let mut config = config(&gateway, &folder, TransportKind::Native);
    config.trust = Trust::CertFile(other.certificate.clone());
    let client = Client::open(config.clone()).await.expect("opened");
    let refused = client.register("ada", "Ada", "password").await;
    assert!(matches!(refused, Err(Error::Rest(RestError::Connect(_)))), "{refused:?}");
    assert_eq!(gateway.request_count(), 0);
    client.shutdown().await;
    // The right certificate under another name is no better.
    config.trust = Trust::CertFile(gateway.certificate.clone());
    config.server_name = Some("chat.example.org".into());
    let client = Client::open(config).await.expect("opened");
    assert!(matches!(
        client.register("ada", "Ada", "password").await,
        Err(Error::Rest(RestError::Connect(_)))
    ));
}

#[tokio::test]
async fn refused_proofs_lead_to_a_refresh_and_then_to_a_log_in() {
    let gateway = Gateway::start().await;
    let mut ada = Person::register(&gateway, "ada", TransportKind::Native).await;
    let _bob = Person::register(&gateway, "bob", TransportKind::Native).await;
    ada.until_online().await;
    let room = ada.client.create_direct("bob").await.expect("created");

    gateway.forget_sessions_and_access_tokens();
    gateway.cut_all();
    ada.until_dropped().await;
    ada.client.send_text(room, "after a refresh").await.expect("taken over");
    ada.until_text("after a refresh").await;
    // The other one had to refresh as well, sooner or later.
    assert!(gateway.refresh_count() >= 1);

    gateway.forget_sessions_and_access_tokens();
    gateway.forget_refresh_tokens();
    gateway.cut_all();
    ada.until_state(ConnectionState::LoggedOut).await;
    assert!(!ada.client.is_logged_in().await.expect("stored"));
    ada.client.send_text(room, "waits for a log in").await.expect("the outbox takes it");
    ada.client.log_in("ada", "password").await.expect("logged in");
    ada.until_text("waits for a log in").await;
    assert!(matches!(ada.client.log_in("ada", "wrong").await, Err(Error::Rest(RestError::Refused { .. }))));
}

#[tokio::test]
async fn a_log_out_leaves_nothing_behind() {
    let gateway = Gateway::start().await;
    let ada = Person::register(&gateway, "ada", TransportKind::Native).await;
    let _bob = Person::register(&gateway, "bob", TransportKind::Native).await;
    let room = ada.client.create_direct("bob").await.expect("created");
    ada.client.send_text(room, "soon gone").await.expect("taken over");
    assert!(ada.client.log_out().await.expect("logged out"));
    assert_eq!(ada.client.identity().await.expect("stored"), None);
    assert!(ada.client.conversations(10).await.expect("stored").is_empty());
    assert!(matches!(ada.client.send_text(room, "no").await, Err(Error::LoggedOut)));
    let ada = ada.reopen(&gateway, TransportKind::Native).await;
    assert_eq!(ada.client.connection(), ConnectionState::LoggedOut);
}

#[tokio::test]
async fn without_a_server_everything_stored_is_there_and_the_store_is_one_s_own() {
    let gateway = Gateway::start().await;
    let mut ada = Person::register(&gateway, "ada", TransportKind::Native).await;
    let _bob = Person::register(&gateway, "bob", TransportKind::Native).await;
    let room = ada.client.create_direct("bob").await.expect("created");
    ada.client.send_text(room, "stays").await.expect("taken over");
    ada.until_text("stays").await;
    gateway.stop();
    let ada = ada.reopen(&gateway, TransportKind::Native).await;
    assert_eq!(ada.texts(room).await, ["stays"]);
    ada.client.send_text(room, "waits").await.expect("taken over");
    assert_eq!(ada.client.pending(room).await.expect("stored").len(), 1);
    let second = Client::open(config(&gateway, &ada.folder, TransportKind::Native)).await;
    assert!(matches!(second, Err(Error::Store(ringline_client::store::StoreError::InUse))));
}

#[tokio::test]
async fn older_history_is_fetched_when_it_is_asked_for() {
    let gateway = Gateway::start().await;
    let ada = Person::register(&gateway, "ada", TransportKind::Native).await;
    let _bob = Person::register(&gateway, "bob", TransportKind::Native).await;
    let room = ada.client.create_direct("bob").await.expect("created");
    gateway.fill(room, 300);
    let folder = Folder::new("loopback");
    let mut second = Person::open(&gateway, folder, TransportKind::Native).await;
    second.client.log_in("ada", "password").await.expect("logged in");
    second.until_text("filler 299").await;
    second.until_state(ConnectionState::Online).await;
    assert!(second.texts(room).await.len() < 50, "a new device begins with the newest");
    let page = second.client.history(room, None, 250).await.expect("fetched");
    assert_eq!(page.len(), 250);
    let older = second.client.history(room, Some(page[0].seq), 250).await.expect("fetched");
    assert_eq!(older.len(), 51, "fifty, and the entry of the creation");
}

#[tokio::test]
async fn a_refused_message_waits_to_be_retried_or_discarded() {
    let gateway = Gateway::start().await;
    let mut ada = Person::register(&gateway, "ada", TransportKind::Native).await;
    let _bob = Person::register(&gateway, "bob", TransportKind::Native).await;
    let room = ada.client.create_direct("bob").await.expect("created");
    let id = ada.client.send_text(room, "refuse me").await.expect("taken over");
    let refused = |of: ClientMessageId| {
        move |event: &Event| match event {
            Event::Refused { client_message_id, .. } if *client_message_id == of => Some(()),
            _ => None,
        }
    };
    ada.until(refused(id)).await;
    ada.client.send_text(room, "goes on").await.expect("taken over");
    ada.until_text("goes on").await;
    let states = async |client: &Client| -> Vec<(ClientMessageId, bool)> {
        let pending = client.pending(room).await.expect("stored");
        let state = |state: &PendingState| matches!(state, PendingState::Refused(_));
        pending.iter().map(|message| (message.client_message_id, state(&message.state))).collect()
    };
    // It is still there after a restart, and is not sent by itself.
    let mut ada = ada.reopen(&gateway, TransportKind::Native).await;
    assert_eq!(states(&ada.client).await, [(id, true)]);
    ada.client.retry(room, id).await.expect("taken over");
    ada.until(refused(id)).await;
    assert_eq!(states(&ada.client).await, [(id, true)]);
    ada.client.discard(room, id).await.expect("taken over");
    assert_eq!(states(&ada.client).await, []);
    assert!(matches!(ada.client.retry(room, id).await, Err(Error::UnknownMessage)));
    assert_eq!(gateway.texts(room), ["goes on"]);
}

#[tokio::test]
async fn a_body_of_the_wrong_size_is_refused_at_once() {
    let gateway = Gateway::start().await;
    let ada = Person::register(&gateway, "ada", TransportKind::Native).await;
    let _bob = Person::register(&gateway, "bob", TransportKind::Native).await;
    let room = ada.client.create_direct("bob").await.expect("created");
    let body_bytes_max = wire_protocol::limits::BODY_BYTES_MAX;
    for bytes in [0, body_bytes_max + 1] {
        let sent = ada.client.send(room, EntryKind::Image, vec![1; bytes].into()).await;
        assert!(matches!(sent, Err(Error::BodySize)), "{bytes} bytes");
    }
    ada.client.send(room, EntryKind::Image, vec![1; body_bytes_max].into()).await.expect("taken over");
}

#[tokio::test]
async fn a_rotated_token_is_stored_before_it_is_used() {
    let gateway = Gateway::start().await;
    let mut ada = Person::register(&gateway, "ada", TransportKind::Native).await;
    ada.until_state(ConnectionState::Online).await;
    for round in 1..=3 {
        // The stored access token and resume token are void: only the refresh token helps, and each only once.
        gateway.forget_sessions_and_access_tokens();
        ada = ada.reopen(&gateway, TransportKind::Native).await;
        ada.until_state(ConnectionState::Online).await;
        assert_eq!(gateway.refresh_count(), round);
    }
}

#[tokio::test]
async fn a_server_that_does_not_name_the_protocol_is_not_spoken_to() {
    let server = gateway::WithoutProtocol::start().await;
    let folder = Folder::new("loopback");
    let mut config = Config::new(&server.address, folder.path());
    config.trust = Trust::CertFile(server.certificate.clone());
    let client = Client::open(config).await.expect("opened");
    let refused = client.register("ada", "Ada", "password").await;
    let error = match refused {
        Err(Error::Rest(RestError::Connect(error))) => error.to_string(),
        other => panic!("{other:?}"),
    };
    assert!(error.contains("does not speak this protocol"), "{error}");
}

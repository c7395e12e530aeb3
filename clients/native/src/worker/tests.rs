//! What a turn of several commands leaves on disk.

use super::*;
use crate::config::TransportKind;
use crate::engine::writes::ConversationFacts;
use crate::store::Store;
use std::path::PathBuf;
use wire_protocol::ids::{DeviceId, UserId};

const ROOM: ConversationId = ConversationId([3; 16]);

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn identity(device: u8) -> Identity {
    let (user, device) = (UserId([1; 16]), DeviceId([device; 16]));
    Identity { user, device, username: "ada".into(), display_name: "Ada".into() }
}

fn credentials() -> Credentials {
    Credentials { refresh_token: "refresh".into(), access_token: "access".into(), access_ends_ms: u64::MAX }
}

/// A store of somebody who has a conversation.
fn stored(folder: &Folder) {
    let mut store = Store::open(&folder.0).expect("opens");
    store.set_identity(&identity(1), &credentials()).expect("stored");
    let facts = ConversationFacts {
        id: ROOM,
        kind: 1,
        title: "room".into(),
        own_ordinal: 0,
        created_ms: 1,
        unread: 0,
        unread_at: 0,
    };
    store.commit(&[Write::Conversation(facts)]).expect("committed");
}

/// The commands are there before the worker looks: one turn takes them all.
#[tokio::test]
async fn what_was_taken_over_before_a_log_in_is_stored() {
    let folder = Folder(std::env::temp_dir().join(format!("ringline-worker-{}", std::process::id())));
    stored(&folder);
    // Nobody listens there.
    let mut config = Config::new("127.0.0.1:1", &folder.0);
    config.transport = TransportKind::WebSocketPlain;
    let (store, closed) = StoreHandle::open(folder.0.clone()).await.expect("opens");
    let (send, commands) = mpsc::channel(COMMANDS_MAX);
    let (events, _listener) = broadcast::channel(16);
    let (connection_state, state) = watch::channel(ConnectionState::LoggedOut);
    let start = Start {
        connector: Connector::new(&config).expect("a server"),
        clock: Clock::start(),
        config,
        store,
        commands,
        events,
        connection_state,
    };
    let worker = Worker::start(start).await.expect("the store can be read");
    // Before its first turn: nobody who asks now may think that a log in is needed.
    assert_eq!(*state.borrow(), ConnectionState::Connecting);
    let id = ClientMessageId(5);
    let message = NewMessage { conversation: ROOM, id, kind: 0, body: "text".into() };
    let (taken, taken_over) = oneshot::channel();
    let (logged, logged_in) = oneshot::channel();
    let (left, gone) = oneshot::channel();
    for command in [
        Command::Send { message, reply: taken },
        Command::LoggedIn { identity: identity(2), credentials: credentials(), reply: logged },
        Command::Shutdown { reply: left },
    ] {
        assert!(send.try_send(command).is_ok());
    }
    worker.run().await;
    assert!(matches!(taken_over.await, Ok(Ok(()))), "it was promised");
    assert!(matches!(logged_in.await, Ok(Ok(()))));
    gone.await.expect("it ended properly");
    closed.await.expect("the file is closed");
    let store = Store::open(&folder.0).expect("opens");
    assert_eq!(store.identity().expect("read"), Some(identity(2)));
    assert!(store.pending_message(ROOM, id).expect("read").is_some());
}

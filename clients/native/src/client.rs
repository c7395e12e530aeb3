//! The app's handle.

use crate::clock::{Clock, random_id};
use crate::config::Config;
use crate::engine::NewMessage;
use crate::engine::operations::{Failure, Operation, Outcome};
use crate::limits::{COMMANDS_MAX, EVENTS_MAX, HISTORY_PAGE_MAX};
use crate::model::{ConnectionState, Conversation, Event, Identity, Message, PendingMessage, PendingState};
use crate::rest::{self, LogIn, Registration, RestError};
use crate::store::thread::StoreHandle;
use crate::store::{Credentials, StoreError};
use crate::transport::{ConnectError, Connector};
use crate::worker::{Command, Start, Worker};
use bytes::Bytes;
use futures_util::Stream;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use wire_protocol::ids::{ClientMessageId, ConversationId, Seq};
use wire_protocol::limits::{BODY_BYTES_MAX, HISTORY_ENTRIES_MAX};
use wire_protocol::v1::EntryKind;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The configuration, or no connection for a log in.
    #[error("{0}")]
    Connect(#[from] ConnectError),
    /// Register or log in was refused.
    #[error("{0}")]
    Rest(#[from] RestError),
    /// What was asked for was not carried out.
    #[error("{0}")]
    Request(#[from] Failure),
    /// Register or log in first.
    #[error("not logged in")]
    LoggedOut,
    /// The conversation is not on this device.
    #[error("unknown conversation")]
    UnknownConversation,
    /// No such message waits.
    #[error("unknown message")]
    UnknownMessage,
    /// As many messages wait as the device may hold.
    #[error("the outbox is full")]
    OutboxFull,
    /// A message has 1 byte at least and `BODY_BYTES_MAX` at most.
    #[error("a message has 1 to {BODY_BYTES_MAX} bytes")]
    BodySize,
    /// The client was shut down.
    #[error("the client was shut down")]
    ShutDown,
}

/// A chat client: cheap to clone, all clones are one. Needs a tokio runtime.
///
/// Connects and reconnects by itself while it is logged in. Dropping the last clone ends it; better is
/// [`Client::shutdown`], which waits until the store is closed.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    config: Config,
    clock: Clock,
    connector: Connector,
    store: StoreHandle,
    commands: mpsc::Sender<Command>,
    events: broadcast::Sender<Event>,
    /// Hears everything since the client was opened; the first stream takes it.
    first_events: std::sync::Mutex<Option<broadcast::Receiver<Event>>>,
    connection_state: watch::Receiver<ConnectionState>,
    closed: tokio::sync::Mutex<Option<oneshot::Receiver<()>>>,
}

impl Client {
    /// Opens the store and, if somebody is logged in there, goes on where it stopped.
    pub async fn open(config: Config) -> Result<Self, Error> {
        let connector = Connector::new(&config)?;
        let (store, closed) = StoreHandle::open(config.store.clone()).await?;
        let clock = Clock::start();
        let (commands, to_take) = mpsc::channel(COMMANDS_MAX);
        let (events, first) = broadcast::channel(EVENTS_MAX);
        let (state, connection_state) = watch::channel(ConnectionState::LoggedOut);
        let start = Start {
            config: config.clone(),
            clock,
            connector: connector.clone(),
            store: store.clone(),
            commands: to_take,
            events: events.clone(),
            connection_state: state,
        };
        tokio::spawn(Worker::start(start).await?.run());
        let closed = tokio::sync::Mutex::new(Some(closed));
        let first_events = std::sync::Mutex::new(Some(first));
        let shared = Shared {
            config,
            clock,
            connector,
            store,
            commands,
            events,
            first_events,
            connection_state,
            closed,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Makes an account, with this as its first device.
    pub async fn register(
        &self,
        username: &str,
        display_name: &str,
        password: &str,
    ) -> Result<Identity, Error> {
        let device_name = &self.shared.config.device_name;
        let registration = Registration { username, display_name, password, device_name };
        let now_ms = self.shared.clock.now_ms();
        let (identity, credentials) = rest::register(&self.shared.connector, &registration, now_ms).await?;
        self.begin(identity, credentials).await
    }

    /// Makes this a device of an account. Another user than before finds nothing of the earlier one.
    pub async fn log_in(&self, username: &str, password: &str) -> Result<Identity, Error> {
        let log_in = LogIn { username, password, device_name: &self.shared.config.device_name };
        let now_ms = self.shared.clock.now_ms();
        let (identity, credentials) = rest::log_in(&self.shared.connector, &log_in, now_ms).await?;
        self.begin(identity, credentials).await
    }

    async fn begin(&self, identity: Identity, credentials: Credentials) -> Result<Identity, Error> {
        let begun = identity.clone();
        self.ask(|reply| Command::LoggedIn { identity, credentials, reply }).await?;
        Ok(begun)
    }

    /// Who is, or was last, logged in here.
    pub async fn identity(&self) -> Result<Option<Identity>, Error> {
        Ok(self.shared.store.run(|store| store.identity()).await?)
    }

    /// Whether there is something to connect with; without it register or log in.
    pub async fn is_logged_in(&self) -> Result<bool, Error> {
        Ok(self.shared.store.run(|store| Ok(store.credentials()?.is_some())).await?)
    }

    /// The server forgets this device, and this device forgets the user and everything of theirs, the outbox
    /// included. False: the server could not be told.
    pub async fn log_out(&self) -> Result<bool, Error> {
        self.ask(|reply| Command::LogOut { reply }).await
    }

    /// The connection's state now; changes come as events.
    pub fn connection(&self) -> ConnectionState {
        *self.shared.connection_state.borrow()
    }

    /// The device has another network: connect now instead of waiting for the next attempt.
    pub async fn network_changed(&self) -> Result<(), Error> {
        self.shared.commands.send(Command::NetworkChanged).await.map_err(|_| Error::ShutDown)
    }

    /// What changes: the first stream begins when the client was opened, later ones now. A reader that falls
    /// behind is told [`Event::Lagged`].
    pub fn events(&self) -> EventStream {
        let first = self.shared.first_events.lock().map_or(None, |mut first| first.take());
        let receiver = first.unwrap_or_else(|| self.shared.events.subscribe());
        let next = async |mut receiver: broadcast::Receiver<Event>| match receiver.recv().await {
            Ok(event) => Some((event, receiver)),
            Err(broadcast::error::RecvError::Lagged(_)) => Some((Event::Lagged, receiver)),
            Err(broadcast::error::RecvError::Closed) => None,
        };
        EventStream { events: Box::pin(futures_util::stream::unfold(receiver, next)) }
    }

    /// The direct conversation with a user; the same one each time.
    pub async fn create_direct(&self, username: &str) -> Result<ConversationId, Error> {
        self.create(Operation::CreateDirect { username: username.into() }).await
    }

    /// A new group with these users and oneself.
    pub async fn create_group(&self, title: &str, usernames: &[&str]) -> Result<ConversationId, Error> {
        let usernames = usernames.iter().map(|name| (*name).to_owned()).collect();
        let operation = Operation::CreateGroup { title: title.into(), usernames, creation_id: random_id() };
        self.create(operation).await
    }

    async fn create(&self, operation: Operation) -> Result<ConversationId, Error> {
        match self.ask(|reply| Command::Operation { operation, reply }).await? {
            Outcome::Conversation(conversation) => Ok(conversation),
            Outcome::Failed(failure) => Err(failure.into()),
            Outcome::Fetched(_) | Outcome::Done => unreachable!("a creation ends with a conversation"),
        }
    }

    /// Takes over a text for sending.
    pub async fn send_text(
        &self,
        conversation: ConversationId,
        text: &str,
    ) -> Result<ClientMessageId, Error> {
        self.send(conversation, EntryKind::Text, Bytes::copy_from_slice(text.as_bytes())).await
    }

    /// Takes over a message for sending. On return it is on this device's disk and will reach the server once,
    /// in order, whatever crashes or breaks; [`Event::Accepted`] tells when it has.
    pub async fn send(
        &self,
        conversation: ConversationId,
        kind: EntryKind,
        body: Bytes,
    ) -> Result<ClientMessageId, Error> {
        if body.is_empty() || body.len() > BODY_BYTES_MAX {
            return Err(Error::BodySize);
        }
        let id = ClientMessageId(random_id());
        let message = NewMessage { conversation, id, kind: kind as i32, body };
        self.ask(|reply| Command::Send { message, reply }).await?;
        Ok(id)
    }

    /// Sends a refused message once more.
    pub async fn retry(&self, conversation: ConversationId, id: ClientMessageId) -> Result<(), Error> {
        let pending = self.shared.store.run(move |store| store.pending_message(conversation, id)).await?;
        let pending = pending.ok_or(Error::UnknownMessage)?;
        if !matches!(pending.state, PendingState::Refused(_)) {
            return Ok(());
        }
        let message = NewMessage { conversation, id, kind: pending.kind as i32, body: pending.body };
        self.ask(|reply| Command::Retry { message, reply }).await
    }

    /// Takes a message out of the outbox. One that was sent already may arrive all the same.
    pub async fn discard(&self, conversation: ConversationId, id: ClientMessageId) -> Result<(), Error> {
        self.ask(|reply| Command::Discard { conversation, id, reply }).await
    }

    /// The user has read everything up to `seq`.
    pub async fn mark_read(&self, conversation: ConversationId, seq: Seq) -> Result<(), Error> {
        self.ask(|reply| Command::Read { conversation, seq, reply }).await
    }

    /// The newest conversations by activity, as this device knows them.
    pub async fn conversations(&self, limit: usize) -> Result<Vec<Conversation>, Error> {
        Ok(self.shared.store.run(move |store| store.conversations(limit)).await?)
    }

    /// One conversation, as this device knows it.
    pub async fn conversation(&self, id: ConversationId) -> Result<Option<Conversation>, Error> {
        Ok(self.shared.store.run(move |store| store.conversation(id)).await?)
    }

    /// Asks the server for a conversation's members and cursors anew.
    pub async fn refresh(&self, conversation: ConversationId) -> Result<(), Error> {
        self.create(Operation::Refresh { conversation }).await.map(drop)
    }

    /// The newest `limit` messages below `before` (without it: of all), ascending. What this device does not
    /// have is fetched if the server can be reached; the first page of a conversation may then be short.
    pub async fn history(
        &self,
        conversation: ConversationId,
        before: Option<Seq>,
        limit: usize,
    ) -> Result<Vec<Message>, Error> {
        let limit = limit.clamp(1, HISTORY_PAGE_MAX);
        loop {
            let stored = self.shared.store.run(move |store| {
                Ok((store.history(conversation, before, limit)?, store.window_low(conversation)?))
            });
            let (messages, low) = stored.await?;
            let online = matches!(self.connection(), ConnectionState::Online | ConnectionState::Syncing);
            if messages.len() >= limit || low <= 1 || !online {
                return Ok(messages);
            }
            let limit = HISTORY_ENTRIES_MAX as u32;
            let operation = Operation::FetchOlder { conversation, limit };
            match self.ask(|reply| Command::Operation { operation, reply }).await {
                Ok(Outcome::Fetched(count)) if count > 0 => {}
                // What is here is better than nothing; the next call asks again.
                Ok(_) => return Ok(messages),
                Err(error) => return Err(error),
            }
        }
    }

    /// The same without asking the server: what this device has.
    pub async fn stored_history(
        &self,
        conversation: ConversationId,
        before: Option<Seq>,
        limit: usize,
    ) -> Result<Vec<Message>, Error> {
        let limit = limit.clamp(1, HISTORY_PAGE_MAX);
        Ok(self.shared.store.run(move |store| store.history(conversation, before, limit)).await?)
    }

    /// Own messages that are not yet part of the history, in the order they were sent.
    pub async fn pending(&self, conversation: ConversationId) -> Result<Vec<PendingMessage>, Error> {
        Ok(self.shared.store.run(move |store| store.pending(conversation)).await?)
    }

    /// Where an own message stands in its conversation; `None`: not accepted yet.
    pub async fn accepted_seq(
        &self,
        conversation: ConversationId,
        id: ClientMessageId,
    ) -> Result<Option<Seq>, Error> {
        Ok(self.shared.store.run(move |store| store.own_entry(conversation, id)).await?)
    }

    /// Says good-bye and closes the store. Every clone is void afterwards.
    pub async fn shutdown(&self) {
        let (reply, done) = oneshot::channel();
        if self.shared.commands.send(Command::Shutdown { reply }).await.is_ok() {
            // The worker answers or has ended: either way it is over.
            let _ = done.await;
        }
        if let Some(closed) = self.shared.closed.lock().await.take() {
            let _ = closed.await;
        }
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, Error>>) -> Command,
    ) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        self.shared.commands.send(command(reply)).await.map_err(|_| Error::ShutDown)?;
        answer.await.map_err(|_| Error::ShutDown)?
    }
}

/// Events from the moment it was made on. A [`Stream`], and with a `next` of its own.
pub struct EventStream {
    events: Pin<Box<dyn Stream<Item = Event> + Send>>,
}

impl EventStream {
    /// The next event; `None`: the client was shut down.
    pub async fn next(&mut self) -> Option<Event> {
        std::future::poll_fn(|context| self.events.as_mut().poll_next(context)).await
    }
}

impl Stream for EventStream {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        self.events.as_mut().poll_next(context)
    }
}

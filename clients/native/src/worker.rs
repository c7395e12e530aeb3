//! The driver of the engine: waits, hands in, stores, and only then sends and tells.
//!
//! One task owns the engine and the connection. Whatever has arrived by then is taken in one turn, and all that
//! the turn wrote is one synced transaction: the busier it is, the more share a sync. No rule of chatting lives
//! here.

use crate::client::Error;
use crate::clock::{Clock, random_id};
use crate::config::Config;
use crate::engine::operations::{Operation, OperationId, Outcome};
use crate::engine::{
    Action, ConnectFailure, Engine, EngineConfig, NewMessage, ProofWanted, SendRefused, Snapshot, Write,
};
use crate::limits::{
    COMMANDS_MAX, GATEWAYS_MS, LOG_OUT_MS_MAX, OPERATION_MS_MAX, RECEIVED_MAX, TOKEN_RESERVE_MS,
};
use crate::model::{ConnectionState, Event, Identity};
use crate::rest::{self, RestError};
use crate::store::thread::StoreHandle;
use crate::store::{Credentials, StoreError};
use crate::transport::{Connection, Connector};
use std::collections::HashMap;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use wire_protocol::ids::{ClientMessageId, ConversationId, Seq};
use wire_protocol::session::Proof;
use wire_protocol::v1::ErrorCode;

/// What the app's calls ask of the worker.
pub(crate) enum Command {
    Send { message: NewMessage, reply: oneshot::Sender<Result<(), Error>> },
    Retry { message: NewMessage, reply: oneshot::Sender<Result<(), Error>> },
    Discard { conversation: ConversationId, id: ClientMessageId, reply: oneshot::Sender<Result<(), Error>> },
    Read { conversation: ConversationId, seq: Seq, reply: oneshot::Sender<Result<(), Error>> },
    Operation { operation: Operation, reply: oneshot::Sender<Result<Outcome, Error>> },
    LoggedIn { identity: Identity, credentials: Credentials, reply: oneshot::Sender<Result<(), Error>> },
    LogOut { reply: oneshot::Sender<Result<bool, Error>> },
    NetworkChanged,
    Shutdown { reply: oneshot::Sender<()> },
}

/// Who waits for the end of an operation.
enum Waiting {
    App(oneshot::Sender<Result<Outcome, Error>>),
    /// Whatever the server says, the device is forgotten.
    LogOut(oneshot::Sender<Result<bool, Error>>),
}

/// The connection as the driver holds it.
enum Line {
    None,
    Connecting(JoinHandle<Attempt>),
    Open(Connection),
}

struct Connected {
    connection: Connection,
    proof: Proof,
}

/// What came of connecting.
struct Attempt {
    /// Where the server says that this user should go, best first, if it was asked.
    gateways: Vec<String>,
    outcome: Result<Connected, ConnectFailure>,
}

/// What happened while the worker waited.
enum Happened {
    Command(Option<Command>),
    Connected(Attempt),
    Payload(Option<bytes::Bytes>),
    Time,
}

pub(crate) struct Worker {
    pub(crate) config: Config,
    pub(crate) clock: Clock,
    pub(crate) connector: Connector,
    pub(crate) store: StoreHandle,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) events: broadcast::Sender<Event>,
    pub(crate) connection_state: watch::Sender<ConnectionState>,
    engine: Option<Engine>,
    line: Line,
    waiting: HashMap<OperationId, Waiting>,
    /// Answers that go out once this turn's writes are on disk.
    accepted: Vec<oneshot::Sender<Result<(), Error>>>,
    lazy: Vec<Write>,
    next_operation: u64,
    /// The list of gateways is not asked for before: what it named was tried.
    gateways_until_ms: u64,
}

/// What a worker starts with.
pub(crate) struct Start {
    pub(crate) config: Config,
    pub(crate) clock: Clock,
    pub(crate) connector: Connector,
    pub(crate) store: StoreHandle,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) events: broadcast::Sender<Event>,
    pub(crate) connection_state: watch::Sender<ConnectionState>,
}

impl Worker {
    /// Goes on where the store stopped.
    pub(crate) async fn start(start: Start) -> Result<Self, StoreError> {
        let Start { config, clock, connector, store, commands, events, connection_state } = start;
        let mut worker = Self {
            config,
            clock,
            connector,
            store,
            commands,
            events,
            connection_state,
            engine: None,
            line: Line::None,
            waiting: HashMap::new(),
            accepted: Vec::new(),
            lazy: Vec::new(),
            next_operation: 1,
            gateways_until_ms: 0,
        };
        let stored =
            worker.store.run(|store| Ok((store.identity()?, store.credentials()?, store.snapshot()?)));
        let (identity, credentials, snapshot) = stored.await?;
        if let Some(identity) = identity {
            worker.start_engine(&identity, snapshot, credentials.is_some());
        }
        Ok(worker)
    }

    fn start_engine(&mut self, identity: &Identity, snapshot: Snapshot, logged_in: bool) {
        let config = EngineConfig {
            user: identity.user,
            device: identity.device,
            heartbeat_s: self.config.heartbeat_s,
            client_name: concat!("ringline-client/", env!("CARGO_PKG_VERSION")).into(),
            jitter_seed: random_id(),
        };
        let now_ms = self.clock.now_ms();
        let mut engine = Engine::new(config, snapshot, now_ms);
        if !logged_in {
            engine.handle_shutdown();
            engine.handle_timeout(now_ms);
        } else {
            // Whoever is told of the log in next must not find the state of before. The event comes with the first turn.
            self.connection_state.send_replace(ConnectionState::Connecting);
        }
        self.engine = Some(engine);
    }

    /// Until the app shuts down or drops its last handle.
    pub(crate) async fn run(mut self) {
        self.flush().await;
        loop {
            let happened = self.wait().await;
            let now_ms = self.clock.now_ms();
            let goes_on = match happened {
                Happened::Command(None) => self.shut_down(None).await,
                Happened::Command(Some(command)) => self.take_commands(now_ms, command).await,
                Happened::Connected(attempt) => self.take_connected(now_ms, attempt),
                Happened::Payload(payload) => self.take_payloads(now_ms, payload),
                Happened::Time => self.with_engine(|engine| engine.handle_timeout(now_ms)),
            };
            if !goes_on {
                return;
            }
            self.flush().await;
        }
    }

    /// True, for the loop's sake.
    fn with_engine(&mut self, act: impl FnOnce(&mut Engine)) -> bool {
        if let Some(engine) = &mut self.engine {
            act(engine);
        }
        true
    }

    async fn wait(&mut self) -> Happened {
        let now_ms = self.clock.now_ms();
        let at_ms = self.engine.as_ref().and_then(|engine| engine.poll_timeout(now_ms));
        let clock = self.clock;
        let timer = async move {
            match at_ms {
                Some(at_ms) => tokio::time::sleep_until(clock.instant(at_ms)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            command = self.commands.recv() => Happened::Command(command),
            happened = line_event(&mut self.line) => happened,
            () = timer => Happened::Time,
        }
    }

    /// This command and those that wait behind it, so that they share a sync.
    async fn take_commands(&mut self, now_ms: u64, first: Command) -> bool {
        let mut next = Some(first);
        for _ in 0..COMMANDS_MAX {
            let Some(command) = next else { break };
            if !self.take_command(now_ms, command).await {
                return false;
            }
            next = self.commands.try_recv().ok();
        }
        true
    }

    /// False: the worker ends.
    async fn take_command(&mut self, now_ms: u64, command: Command) -> bool {
        match command {
            Command::Send { message, reply } => {
                self.accept(reply, |engine| engine.handle_send(now_ms, message).map_err(Error::from));
            }
            Command::Retry { message, reply } => {
                self.accept(reply, |engine| engine.handle_retry(now_ms, message).map_err(Error::from));
            }
            Command::Discard { conversation, id, reply } => self.accept(reply, |engine| {
                engine.handle_discard(now_ms, conversation, id);
                Ok(())
            }),
            Command::Read { conversation, seq, reply } => self.accept(reply, |engine| {
                engine.handle_read(now_ms, conversation, seq);
                Ok(())
            }),
            Command::Operation { operation, reply } => {
                self.start_operation(now_ms, operation, Waiting::App(reply));
            }
            Command::LogOut { reply } => {
                self.start_operation(now_ms, Operation::LogOut, Waiting::LogOut(reply));
            }
            Command::LoggedIn { identity, credentials, reply } => {
                // What the old engine still holds is stored first.
                self.flush().await;
                let logged_in = self.take_log_in(identity, credentials).await;
                let _ = reply.send(logged_in);
            }
            Command::NetworkChanged => {
                self.with_engine(|engine| engine.handle_network_changed(now_ms));
            }
            Command::Shutdown { reply } => return self.shut_down(Some(reply)).await,
        }
        true
    }

    fn accept(
        &mut self,
        reply: oneshot::Sender<Result<(), Error>>,
        act: impl FnOnce(&mut Engine) -> Result<(), Error>,
    ) {
        let outcome = match &mut self.engine {
            Some(engine) => act(engine),
            None => Err(self.absent()),
        };
        match outcome {
            Ok(()) => self.accepted.push(reply),
            // Whoever asked may have gone.
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    /// Why there is no engine.
    fn absent(&self) -> Error {
        match *self.connection_state.borrow() {
            ConnectionState::StoreFailed => Error::Store(StoreError::Failed),
            _ => Error::LoggedOut,
        }
    }

    fn start_operation(&mut self, now_ms: u64, operation: Operation, waiting: Waiting) {
        let Some(engine) = &mut self.engine else {
            let error = self.absent();
            match waiting {
                Waiting::App(reply) => drop(reply.send(Err(error))),
                Waiting::LogOut(reply) => drop(reply.send(Err(error))),
            }
            return;
        };
        let id = OperationId(self.next_operation);
        self.next_operation += 1;
        self.waiting.insert(id, waiting);
        let limit_ms = if operation == Operation::LogOut { LOG_OUT_MS_MAX } else { OPERATION_MS_MAX };
        engine.handle_operation(now_ms, id, operation, now_ms + limit_ms);
    }

    /// A new identity: the old engine and its connection end.
    async fn take_log_in(&mut self, identity: Identity, credentials: Credentials) -> Result<(), Error> {
        self.line = Line::None;
        self.engine = None;
        self.lazy.clear();
        self.waiting.clear();
        let stored = identity.clone();
        let snapshot = self.store.run(move |store| {
            store.set_identity(&stored, &credentials)?;
            store.snapshot()
        });
        let snapshot = match snapshot.await {
            Ok(snapshot) => snapshot,
            Err(error) => {
                self.fail_store(&error);
                return Err(Error::Store(error));
            }
        };
        self.start_engine(&identity, snapshot, true);
        Ok(())
    }

    fn take_connected(&mut self, now_ms: u64, attempt: Attempt) -> bool {
        self.line = Line::None;
        let Some(engine) = &mut self.engine else { return true };
        if !attempt.gateways.is_empty() {
            self.gateways_until_ms = now_ms + GATEWAYS_MS;
            engine.handle_gateways(&attempt.gateways);
        }
        match attempt.outcome {
            Ok(Connected { connection, proof }) => {
                self.line = Line::Open(connection);
                engine.handle_connected(now_ms, proof);
            }
            Err(failure) => engine.handle_connect_failed(now_ms, failure),
        }
        true
    }

    /// This payload and those that wait behind it, so that they share a sync.
    fn take_payloads(&mut self, now_ms: u64, first: Option<bytes::Bytes>) -> bool {
        let Some(engine) = &mut self.engine else { return true };
        let Some(payload) = first else {
            self.line = Line::None;
            engine.handle_disconnected(now_ms);
            return true;
        };
        engine.handle_payload(now_ms, payload);
        for _ in 1..RECEIVED_MAX {
            let Line::Open(connection) = &mut self.line else { break };
            let Some(payload) = connection.try_receive() else { break };
            engine.handle_payload(now_ms, payload);
        }
        true
    }

    /// Stores what the turn wrote, then does and tells the rest.
    async fn flush(&mut self) {
        while self.engine.is_some() {
            if !self.store_writes().await {
                return;
            }
            self.accepted.drain(..).for_each(|reply| drop(reply.send(Ok(()))));
            let now_ms = self.clock.now_ms();
            let done = !self.act().await;
            self.send_payloads(now_ms);
            self.tell();
            self.answer().await;
            if done {
                return;
            }
        }
    }

    /// False: the store failed.
    async fn store_writes(&mut self) -> bool {
        let Some(engine) = &mut self.engine else { return true };
        let writes = engine.poll_writes();
        let urgent = writes.iter().any(|write| !write.is_lazy());
        self.lazy.extend(writes);
        if !urgent && self.lazy.len() < LAZY_WRITES_MAX {
            return true;
        }
        let batch = std::mem::take(&mut self.lazy);
        match self.store.run(move |store| store.commit(&batch)).await {
            Ok(()) => true,
            Err(error) => {
                self.fail_store(&error);
                false
            }
        }
    }

    /// Nothing is accepted any more; the app must open the store again.
    fn fail_store(&mut self, error: &StoreError) {
        tracing::error!(%error, "the store failed: the client stops");
        self.engine = None;
        self.line = Line::None;
        self.lazy.clear();
        self.waiting.clear();
        self.accepted.drain(..).for_each(|reply| drop(reply.send(Err(Error::Store(StoreError::Failed)))));
        self.publish(Event::Connection(ConnectionState::StoreFailed));
    }

    /// True: there was something to do.
    async fn act(&mut self) -> bool {
        let mut acted = false;
        while let Some(action) = self.engine.as_mut().and_then(Engine::poll_action) {
            acted = true;
            match action {
                Action::Connect(wanted) => self.line = Line::Connecting(self.connect(wanted)),
                Action::Disconnect => {
                    if let Line::Open(connection) = std::mem::replace(&mut self.line, Line::None) {
                        tokio::spawn(connection.close());
                    }
                }
                Action::LoggedOut => {
                    if let Err(error) = self.store.run(|store| store.forget_credentials()).await {
                        self.fail_store(&error);
                    }
                }
            }
        }
        acted
    }

    fn connect(&self, wanted: ProofWanted) -> JoinHandle<Attempt> {
        let place = self.engine.as_ref().and_then(Engine::place);
        let connector = place.map_or_else(|| self.connector.clone(), |place| self.connector.towards(place));
        let is_new = self.gateways_until_ms <= self.clock.now_ms();
        let asks = place.is_none() && is_new;
        let (store, clock) = (self.store.clone(), self.clock);
        tokio::spawn(async move {
            let mut gateways = Vec::new();
            let outcome = async {
                let proof = prove(&connector, &store, clock, wanted).await?;
                if let Proof::AccessToken(token) = &proof
                    && asks
                {
                    gateways = ask_for_gateways(&connector, token).await;
                }
                let towards =
                    gateways.first().map_or_else(|| connector.clone(), |best| connector.towards(best));
                let connection = towards.connect().await.map_err(|error| {
                    tracing::info!(%error, "no connection");
                    ConnectFailure::Network
                })?;
                Ok(Connected { connection, proof })
            };
            let outcome = outcome.await;
            Attempt { gateways, outcome }
        })
    }

    fn send_payloads(&mut self, now_ms: u64) {
        let (Some(engine), Line::Open(connection)) = (&mut self.engine, &self.line) else { return };
        while let Some(payload) = engine.poll_payload() {
            if !connection.transmit(payload) {
                // The socket has not taken anything for so long that all requests in flight wait before it.
                self.line = Line::None;
                engine.handle_disconnected(now_ms);
                return;
            }
        }
    }

    fn tell(&mut self) {
        while let Some(event) = self.engine.as_mut().and_then(Engine::poll_event) {
            self.publish(event);
        }
    }

    fn publish(&self, event: Event) {
        if let Event::Connection(state) = &event {
            self.connection_state.send_replace(*state);
        }
        // Nobody may be listening.
        let _ = self.events.send(event);
    }

    async fn answer(&mut self) {
        while let Some((id, outcome)) = self.engine.as_mut().and_then(Engine::poll_outcome) {
            match self.waiting.remove(&id) {
                Some(Waiting::App(reply)) => drop(reply.send(Ok(outcome))),
                Some(Waiting::LogOut(reply)) => {
                    let forgotten = self.forget().await;
                    let _ = reply.send(forgotten.map(|()| outcome == Outcome::Done).map_err(Error::Store));
                }
                None => {}
            }
        }
    }

    /// The user and all of theirs leave this device.
    async fn forget(&mut self) -> Result<(), StoreError> {
        self.engine = None;
        self.lazy.clear();
        self.waiting.clear();
        if let Line::Open(connection) = std::mem::replace(&mut self.line, Line::None) {
            connection.close().await;
        }
        self.store.run(|store| store.wipe()).await?;
        self.publish(Event::Connection(ConnectionState::LoggedOut));
        Ok(())
    }

    /// Stores what waited, says good-bye, closes the file. False, for the loop's sake.
    async fn shut_down(&mut self, reply: Option<oneshot::Sender<()>>) -> bool {
        self.with_engine(Engine::handle_shutdown);
        self.flush().await;
        let batch = std::mem::take(&mut self.lazy);
        if let Err(error) = self.store.run(move |store| store.commit(&batch)).await {
            tracing::warn!(%error, "what could wait was not stored");
        }
        match std::mem::replace(&mut self.line, Line::None) {
            Line::Open(connection) => connection.close().await,
            // It may hold a token that was just rotated: the store waits for it.
            Line::Connecting(connecting) => drop(connecting),
            Line::None => {}
        }
        self.store.close().await;
        if let Some(reply) = reply {
            let _ = reply.send(());
        }
        false
    }
}

/// Writes that may wait for company, at most: losing them costs as many repeated reports.
const LAZY_WRITES_MAX: usize = 256;

async fn line_event(line: &mut Line) -> Happened {
    match line {
        Line::None => std::future::pending().await,
        Line::Connecting(connecting) => match connecting.await {
            Ok(attempt) => Happened::Connected(attempt),
            Err(error) => {
                tracing::error!(%error, "connecting ended in a panic");
                let (gateways, outcome) = (Vec::new(), Err(ConnectFailure::Network));
                Happened::Connected(Attempt { gateways, outcome })
            }
        },
        Line::Open(connection) => Happened::Payload(connection.receive().await),
    }
}

/// After a log in or a refresh, which went through any gateway: which one is this user's. A server that does not say is
/// one gateway, or an older one.
async fn ask_for_gateways(connector: &Connector, access_token: &str) -> Vec<String> {
    match rest::gateways(connector, access_token).await {
        Ok(gateways) => gateways,
        Err(error) => {
            tracing::debug!(%error, "no list of gateways");
            Vec::new()
        }
    }
}

/// What the hello will carry. A refreshed token is on disk before it is used: the old one is void by then.
async fn prove(
    connector: &Connector,
    store: &StoreHandle,
    clock: Clock,
    wanted: ProofWanted,
) -> Result<Proof, ConnectFailure> {
    let fresh = match wanted {
        ProofWanted::Resume(token) => return Ok(Proof::ResumeToken(token)),
        ProofWanted::Access => false,
        ProofWanted::FreshAccess => true,
    };
    let stored = store.run(|store| store.credentials()).await.map_err(|_| ConnectFailure::Network)?;
    let stored = stored.ok_or(ConnectFailure::LoginNeeded)?;
    if !fresh && stored.access_ends_ms > clock.now_ms() + TOKEN_RESERVE_MS {
        return Ok(Proof::AccessToken(stored.access_token));
    }
    let refreshed = rest::refresh(connector, &stored.refresh_token, clock.now_ms()).await;
    let credentials = refreshed.map_err(|error| {
        tracing::info!(%error, "no fresh access token");
        match error {
            RestError::Refused {
                code: ErrorCode::ErrorUnauthenticated | ErrorCode::ErrorTokenExpired,
                ..
            } => ConnectFailure::LoginNeeded,
            RestError::Refused { retry_after_ms, .. } => ConnectFailure::Busy { retry_after_ms },
            RestError::Connect(_) | RestError::NoAnswer | RestError::NotUnderstood => ConnectFailure::Network,
        }
    })?;
    let access_token = credentials.access_token.clone();
    let saved = store.run(move |store| store.set_credentials(&credentials)).await;
    saved.map_err(|_| ConnectFailure::Network)?;
    Ok(Proof::AccessToken(access_token))
}

impl From<SendRefused> for Error {
    fn from(refused: SendRefused) -> Self {
        match refused {
            SendRefused::UnknownConversation => Error::UnknownConversation,
            SendRefused::OutboxFull => Error::OutboxFull,
        }
    }
}

#[cfg(test)]
mod tests;

//! The client without any I/O: what to send, what to store, what to tell the app.
//!
//! The engine owns no socket, file, clock or randomness. Its driver hands in what happened (`handle_*`, with
//! the time in milliseconds since 1970) and takes out what is to be done (`poll_*`), always in this order:
//! writes first, and only when they are on disk the payloads, events and outcomes. So nothing is ever told to
//! the server or to the app that a crash could take back.
//!
//! A message of the app goes [`outbox`] → [`link`] → the server → [`timeline`]; one of somebody else arrives by a
//! push, a page of [`sync`] or a filled gap ([`fetches`]), all of which end in the timeline and move the
//! [`cursors`].

pub mod jitter;
pub mod outbox;
pub mod link;
pub mod timeline;
pub mod sync;
pub mod fetches;
pub mod cursors;
pub mod operations;
mod places;
pub mod writes;
mod requests;
mod answers;
mod entries;
mod names;

pub use link::{Action, ConnectFailure, ProofWanted};
pub use operations::{Failure, Operation, OperationId, Outcome};
pub use writes::{Snapshot, Write};

use crate::limits::{CONVERSATIONS_MAX, OUTBOX_MESSAGES_MAX, UNCONFIRMED_MS};
use crate::model::{ConnectionState, Event, Refusal};
use bytes::{Bytes, BytesMut};
use cursors::{Cursors, Pair};
use fetches::{Fetch, Fetches};
use jitter::Jitter;
use link::{Ending, Link, State};
use names::Names;
use operations::Operations;
use outbox::{Outbox, Outgoing};
use requests::Requests;
use std::collections::{BTreeMap, VecDeque};
use sync::SyncRounds;
use timeline::Timeline;
use wire_protocol::ids::{ClientMessageId, ConversationId, DeviceId, Seq, UserId};
use wire_protocol::session::{ClientEvent, ClientFault, ClientSession, Proof};

/// What the engine must be told about its surroundings.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// The user on this device.
    pub user: UserId,
    /// This device.
    pub device: DeviceId,
    /// Wished heartbeat in seconds; 0: the server's default.
    pub heartbeat_s: u32,
    /// Free text for the server's operators.
    pub client_name: String,
    /// Drawn at random: spreads the waiting times of many clients.
    pub jitter_seed: u64,
}

/// Why the outbox did not take a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SendRefused {
    /// The conversation is not on this device.
    #[error("unknown conversation")]
    UnknownConversation,
    /// As many messages wait as the device may hold.
    #[error("the outbox is full")]
    OutboxFull,
}

/// The client's state machine.
#[derive(Debug)]
pub struct Engine {
    config: EngineConfig,
    jitter: Jitter,
    link: Link,
    requests: Requests,
    outbox: Outbox,
    timelines: BTreeMap<ConversationId, Timeline>,
    sync: SyncRounds,
    /// Sync waits for the answers to repeated sends until then: they tell which entries are ours.
    sync_hold_ms: u64,
    cursors: Cursors,
    fetches: Fetches,
    names: Names,
    operations: Operations,
    server_time_ms: u64,
    told: Option<ConnectionState>,
    /// Outputs, in the order the driver takes them.
    writes: Vec<Write>,
    actions: VecDeque<Action>,
    payloads: VecDeque<Bytes>,
    events: VecDeque<Event>,
    outcomes: VecDeque<(OperationId, Outcome)>,
}

impl Engine {
    /// Goes on where the store stopped. The first connection is wished for at once.
    pub fn new(config: EngineConfig, snapshot: Snapshot, now_ms: u64) -> Self {
        let jitter = Jitter::new(config.jitter_seed);
        let mut engine = Self {
            jitter,
            link: Link::new(snapshot.resume_token),
            requests: Requests::default(),
            outbox: Outbox::default(),
            timelines: BTreeMap::new(),
            sync: SyncRounds::restore(snapshot.feed_version, snapshot.restores),
            sync_hold_ms: 0,
            cursors: Cursors::default(),
            fetches: Fetches::default(),
            names: Names::restore(snapshot.users),
            operations: Operations::default(),
            server_time_ms: 0,
            told: None,
            writes: Vec::new(),
            actions: VecDeque::new(),
            payloads: VecDeque::new(),
            events: VecDeque::new(),
            outcomes: VecDeque::new(),
            config,
        };
        for stored in snapshot.conversations {
            engine.restore_conversation(stored);
        }
        snapshot.outbox.into_iter().for_each(|message| engine.outbox.push(message));
        engine.handle_timeout(now_ms);
        engine
    }

    fn restore_conversation(&mut self, stored: writes::StoredConversation) {
        let mut timeline = Timeline::restore(stored.low, stored.high, stored.head, stored.ahead);
        timeline.own_ordinal = stored.own_ordinal;
        timeline.read_up_to = stored.read_up_to;
        timeline.members = stored.members;
        let wanted = Pair { delivered: timeline.high(), read: stored.read_up_to };
        let confirmed = Pair { delivered: stored.delivered_confirmed, read: stored.read_confirmed };
        self.cursors.restore(stored.id, wanted, confirmed);
        self.names.want(timeline.members.iter().map(|(_, user)| *user));
        if timeline.members.is_empty() {
            self.fetches.want(Fetch::Facts(stored.id));
        }
        if timeline.gap().is_some() {
            self.fetches.want(Fetch::Gap(stored.id));
        }
        self.timelines.insert(stored.id, timeline);
    }

    /// A message of the app. After the writes are on disk it will be sent, whatever happens.
    pub fn handle_send(&mut self, now_ms: u64, message: NewMessage) -> Result<(), SendRefused> {
        if !self.timelines.contains_key(&message.conversation) {
            return Err(SendRefused::UnknownConversation);
        }
        if self.outbox.message_count() >= OUTBOX_MESSAGES_MAX {
            return Err(SendRefused::OutboxFull);
        }
        let NewMessage { conversation, id, kind, body } = message;
        let message = Outgoing { conversation, id, kind, body, queued_ms: now_ms, first_attempt_ms: None };
        self.writes.push(Write::Queued(message.clone()));
        self.outbox.push(message);
        self.pump(now_ms);
        Ok(())
    }

    /// The user wants a refused message sent all the same, under the same id, behind those that wait.
    pub fn handle_retry(&mut self, now_ms: u64, message: NewMessage) -> Result<(), SendRefused> {
        let (conversation, id) = (message.conversation, message.id);
        if self.outbox.message(conversation, id).is_some() {
            return Ok(());
        }
        self.writes.push(Write::Unqueued { conversation, id });
        self.handle_send(now_ms, message)
    }

    /// The user gives up a message that waits. One that was sent may have arrived all the same.
    pub fn handle_discard(&mut self, now_ms: u64, conversation: ConversationId, id: ClientMessageId) {
        self.outbox.remove(conversation, id);
        self.writes.push(Write::Unqueued { conversation, id });
        self.pump(now_ms);
    }

    /// The user has read up to `seq`.
    pub fn handle_read(&mut self, now_ms: u64, conversation: ConversationId, seq: Seq) {
        let Some(timeline) = self.timelines.get_mut(&conversation) else { return };
        let seq = seq.0.min(timeline.high());
        if seq > timeline.read_up_to {
            timeline.read_up_to = seq;
            self.writes.push(Write::ReadUpTo { conversation, seq });
            self.cursors.want_read(conversation, seq);
            self.events.push_back(Event::ConversationChanged(conversation));
            self.pump(now_ms);
        }
    }

    /// The app asks for something and waits until `deadline_ms` at most.
    pub fn handle_operation(&mut self, now_ms: u64, id: OperationId, operation: Operation, deadline_ms: u64) {
        if matches!(self.link.state, State::Stopped) {
            self.outcomes.push_back((id, Outcome::Failed(Failure::LoggedOut)));
        } else if !self.operations.start(id, operation, deadline_ms) {
            self.outcomes.push_back((id, Outcome::Failed(Failure::TooMany)));
        }
        self.pump(now_ms);
    }

    /// A connection was made; it opens with this proof.
    pub fn handle_connected(&mut self, now_ms: u64, proof: Proof) {
        assert!(matches!(self.link.state, State::Connecting), "a connection that was asked for");
        let mut session = Box::new(ClientSession::new(now_ms));
        let mut payload = BytesMut::new();
        session.hello(proof, self.config.heartbeat_s, &self.config.client_name, &mut payload);
        self.payloads.push_back(payload.freeze());
        self.link.state = State::Opening(session);
        self.tell_connection(now_ms);
    }

    /// Where the server says that this user should go, best first. A connection that was made since it was asked went to
    /// the first one.
    pub fn handle_gateways(&mut self, gateways: &[String]) {
        self.link.handle_gateways(gateways);
    }

    /// No connection was made.
    pub fn handle_connect_failed(&mut self, now_ms: u64, failure: ConnectFailure) {
        let ending = match failure {
            ConnectFailure::Network => Ending::Lost,
            ConnectFailure::Busy { retry_after_ms } => Ending::Busy { retry_after_ms },
            ConnectFailure::LoginNeeded => Ending::LoggedOut,
        };
        self.end_connection(now_ms, ending);
    }

    /// The connection brought a payload.
    pub fn handle_payload(&mut self, now_ms: u64, payload: Bytes) {
        let Some(session) = self.link.session() else { return };
        match session.handle_frame(now_ms, payload) {
            Ok(ClientEvent::Ready(ready)) => self.handle_ready(now_ms, ready),
            Ok(ClientEvent::Answer { request_id, body }) => self.handle_answer(now_ms, request_id, body),
            Ok(ClientEvent::Event(body)) => self.handle_event(now_ms, body),
            Ok(ClientEvent::Closing(closing)) => {
                tracing::info!(reason = ?closing.reason(), detail = closing.detail, "the server closes");
                self.actions.push_back(Action::Disconnect);
                self.link.handle_closing(&closing);
                self.end_connection(now_ms, Ending::of_closing(&closing));
            }
            Ok(ClientEvent::Handled) => {}
            Err(fault) => self.give_up(now_ms, &fault),
        }
        self.pump(now_ms);
    }

    /// The connection is gone.
    pub fn handle_disconnected(&mut self, now_ms: u64) {
        if self.link.session().is_some() {
            self.end_connection(now_ms, Ending::Lost);
        }
    }

    /// The device has another network now: no more waiting for the next attempt.
    pub fn handle_network_changed(&mut self, now_ms: u64) {
        self.link.handle_network_changed(now_ms);
        self.handle_timeout(now_ms);
    }

    /// The app leaves: no more connections.
    pub fn handle_shutdown(&mut self) {
        self.link.stop();
        self.fail_operations();
    }

    /// Call it when [`Self::poll_timeout`] says so.
    pub fn handle_timeout(&mut self, now_ms: u64) {
        while let Some(id) = self.operations.poll_expired(now_ms) {
            self.outcomes.push_back((id, Outcome::Failed(Failure::TimedOut)));
        }
        self.link.handle_timeout(now_ms);
        let mut ping = BytesMut::new();
        let alive = self.link.session().map_or(Ok(()), |session| session.handle_timeout(now_ms, &mut ping));
        if !ping.is_empty() {
            self.payloads.push_back(ping.freeze());
        }
        match alive {
            Err(fault) => self.give_up(now_ms, &fault),
            Ok(()) if self.requests.overdue(now_ms) => self.give_up(now_ms, &ClientFault::Dead),
            Ok(()) => {}
        }
        if self.link.is_open() {
            self.sync.handle_timeout(now_ms);
        }
        self.pump(now_ms);
        self.tell_connection(now_ms);
    }

    /// When [`Self::handle_timeout`] has something to do, milliseconds since 1970.
    pub fn poll_timeout(&self, now_ms: u64) -> Option<u64> {
        let mut times = vec![self.link.poll_timeout(), self.operations.poll_timeout(now_ms)];
        if self.link.is_open() {
            let sync_ms = self.sync.poll_timeout();
            let held = self.sync_held(sync_ms.max(now_ms));
            times.push(Some(if held { self.sync_hold_ms } else { sync_ms }));
            times.push(self.outbox.poll_timeout(now_ms));
            times.push(self.cursors.poll_timeout(now_ms));
            times.push(self.fetches.poll_timeout(now_ms));
            times.push(self.names.poll_timeout(now_ms));
            times.push(self.requests.poll_timeout());
        }
        times.into_iter().flatten().filter(|at_ms| *at_ms != u64::MAX).min()
    }

    /// What is to be stored, all in one transaction, before anything else is polled.
    pub fn poll_writes(&mut self) -> Vec<Write> {
        std::mem::take(&mut self.writes)
    }

    /// What is to be done about the connection.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front().or_else(|| self.link.poll_connect().map(Action::Connect))
    }

    /// Where the connection that [`Action::Connect`] asks for is to go; `None`: to the configured server.
    pub fn place(&self) -> Option<&str> {
        self.link.place()
    }

    /// A payload for the connection.
    pub fn poll_payload(&mut self) -> Option<Bytes> {
        self.payloads.pop_front()
    }

    /// Something for the app.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// An operation ended.
    pub fn poll_outcome(&mut self) -> Option<(OperationId, Outcome)> {
        self.outcomes.pop_front()
    }

    /// The connection's state as the app was last told.
    pub fn connection(&self) -> Option<ConnectionState> {
        self.told
    }

    /// Messages on their way out.
    pub fn outbox_message_count(&self) -> usize {
        self.outbox.message_count()
    }

    /// The window of a conversation: first and last sequence number that are here without a gap.
    pub fn window(&self, conversation: ConversationId) -> Option<(Seq, Seq)> {
        let timeline = self.timelines.get(&conversation)?;
        Some((Seq(timeline.low()), Seq(timeline.high())))
    }

    /// A connection that cannot be trusted to answer any more.
    fn give_up(&mut self, now_ms: u64, fault: &ClientFault) {
        tracing::info!(%fault, "connection given up");
        self.actions.push_back(Action::Disconnect);
        let ending = if matches!(fault, ClientFault::Dead) { Ending::Lost } else { Ending::Faulty };
        self.end_connection(now_ms, ending);
    }

    fn end_connection(&mut self, now_ms: u64, ending: Ending) {
        self.payloads.clear();
        self.requests.handle_disconnected();
        self.outbox.handle_disconnected();
        self.sync.handle_disconnected();
        self.cursors.handle_disconnected();
        self.fetches.handle_disconnected();
        self.names.handle_disconnected();
        self.operations.handle_disconnected();
        if self.link.handle_ending(ending, now_ms, &mut self.jitter) {
            self.writes.push(Write::ResumeToken(None));
            self.actions.push_back(Action::LoggedOut);
            self.fail_operations();
        }
        self.handle_timeout(now_ms);
    }

    fn fail_operations(&mut self) {
        for (id, operation) in self.operations.take_all() {
            let outcome = match operation {
                Operation::LogOut => Outcome::Done,
                _ => Outcome::Failed(Failure::LoggedOut),
            };
            self.outcomes.push_back((id, outcome));
        }
    }

    /// Messages that may have arrived, but that the server could by now take for new ones.
    fn set_aside_unconfirmed(&mut self, now_ms: u64) {
        for message in self.outbox.remove_unconfirmed(now_ms.saturating_sub(UNCONFIRMED_MS)) {
            let (conversation, id) = (message.conversation, message.id);
            self.refuse_message(conversation, id, Refusal::Unconfirmed);
        }
    }

    fn refuse_message(&mut self, conversation: ConversationId, id: ClientMessageId, refusal: Refusal) {
        self.writes.push(Write::Refused { conversation, id, refusal: refusal.clone() });
        self.events.push_back(Event::Refused { conversation, client_message_id: id, refusal });
    }

    /// Tells the app when the connection's state is another one.
    fn tell_connection(&mut self, now_ms: u64) {
        let state = match &self.link.state {
            State::Stopped => ConnectionState::LoggedOut,
            State::Waiting { until_ms, .. } => {
                ConnectionState::Offline { retry_in_ms: until_ms.saturating_sub(now_ms) }
            }
            State::Wanted | State::Connecting | State::Opening(_) => ConnectionState::Connecting,
            State::Open(_) if self.sync.is_done() => ConnectionState::Online,
            State::Open(_) => ConnectionState::Syncing,
        };
        // The same wait, counted down, is no news.
        let waits = |state| matches!(state, Some(ConnectionState::Offline { .. }));
        if self.told != Some(state) && !(waits(self.told) && waits(Some(state))) {
            self.told = Some(state);
            self.events.push_back(Event::Connection(state));
        }
    }

    /// Room for one more conversation.
    fn has_room(&self) -> bool {
        self.timelines.len() < CONVERSATIONS_MAX
    }
}

/// A message that the app hands over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewMessage {
    /// Where to.
    pub conversation: ConversationId,
    /// Drawn at random, not 0.
    pub id: ClientMessageId,
    /// `EntryKind` as it stands on the wire.
    pub kind: i32,
    /// Content, not empty, `BODY_BYTES_MAX` at most.
    pub body: Bytes,
}

#[cfg(test)]
mod tests;

//! What the front reports, and how sessions end.

use super::Core;
use crate::front::{ConnectionToken, FrameFault, FrontEvent, TransportKind};
use crate::observe::Metric;
use crate::session::outbox::SLOW_READER_MS;
use crate::session::table::address_of;
use crate::session::{Fate, Outbox};
use crate::worker::mailbox::ShardKey;
use crate::worker::pending::PendingTable;
use bytes::Bytes;
use wire_protocol::error::RequestError;
use wire_protocol::ids::UserId;
use wire_protocol::internal::{DetachSession, ShardRequest, shard_request};
use wire_protocol::session::{Fatal, ServerInput};
use wire_protocol::v1::ErrorCode;
use wire_protocol::v1::session_closing::Reason;

impl Core {
    pub(super) fn take_front_events(&mut self) {
        let mut events = std::mem::take(&mut self.front_events);
        self.clients.turn(self.now_ms, &mut events);
        for event in events.drain(..) {
            self.take_front_event(event);
        }
        self.front_events = events;
    }

    fn take_front_event(&mut self, event: FrontEvent) {
        match event {
            FrontEvent::Opened { token, peer, kind, .. } => {
                let is_web_socket = matches!(kind, TransportKind::WebSocket { .. });
                self.sessions.open(token, peer.ip().into(), is_web_socket, self.now_ms);
                self.look_again(token);
            }
            FrontEvent::Frame { token, payload } => self.take_frame(token, payload),
            FrontEvent::Malformed { token, fault } => {
                let code = match fault {
                    FrameFault::TooLarge => ErrorCode::ErrorFrameTooLarge,
                    FrameFault::Malformed | FrameFault::Text => ErrorCode::ErrorMalformedFrame,
                };
                let error = RequestError::new(code, format!("{fault:?}"));
                self.fail_session(token, &Fatal { reason: Reason::ProtocolError, error });
            }
            FrontEvent::Http { token, peer, secure, first } => {
                if self.http.open(&mut self.clients, token, peer, secure, first).is_err() {
                    self.observer.add(Metric::HttpOverflows, 1);
                }
            }
            FrontEvent::HttpBytes { token, bytes } => {
                if self.http.bytes(&mut self.clients, token, bytes).is_err() {
                    self.observer.add(Metric::HttpOverflows, 1);
                }
            }
            FrontEvent::HttpEof { token } => self.http.eof(token),
            FrontEvent::Drained { token } => self.connection_drained(token),
            FrontEvent::Closed { token, .. } => self.connection_closed(token),
        }
    }

    fn take_frame(&mut self, token: ConnectionToken, payload: Bytes) {
        let Some(session) = self.sessions.find(token) else { return };
        let input = session.protocol.handle_frame(self.now_ms, payload, &mut self.space);
        match input {
            Ok(ServerInput::Handled) => {
                let fate = self.send_space(token);
                self.settle(token, fate);
                self.answered_by_protocol(token);
            }
            Ok(ServerInput::Authenticate { proof }) => self.authenticate(token, proof),
            Ok(ServerInput::Request { request_id, body }) => self.start_request(token, request_id, body),
            Err(fatal) => self.fail_session(token, &fatal),
        }
    }

    fn connection_drained(&mut self, token: ConnectionToken) {
        match self.sessions.find(token) {
            None => self.http.drained(&mut self.clients, token),
            Some(session) => {
                let was_slow = session.slow_since_ms != 0;
                let (sockets, space) = (&mut self.clients, &mut self.space);
                let fate = Outbox { sockets, token, space }.drained(session);
                self.observer.add(Metric::SyncsAsked, u64::from(was_slow));
                self.settle(token, fate);
            }
        }
    }

    fn connection_closed(&mut self, token: ConnectionToken) {
        match self.sessions.find(token).map(|session| session.identity) {
            None => self.http.closed(token),
            Some(_) => {
                self.detach(token);
                self.sessions.remove(token);
                self.session_timers.clear(token.slot);
            }
        }
    }

    /// What a frame's fate means for its session.
    pub(super) fn settle(&mut self, token: ConnectionToken, fate: Fate) {
        match fate {
            Fate::Queued | Fate::Dropped => {}
            Fate::Replaced => self.observer.add(Metric::AnswersTooLarge, 1),
            Fate::TooSlow => self.close_session(token, Reason::TooSlow, "the outbox is full", 0),
        }
    }

    /// Queues what was written for the session.
    pub(super) fn send_space(&mut self, token: ConnectionToken) -> Fate {
        Outbox { sockets: &mut self.clients, token, space: &mut self.space }.send()
    }

    /// Ends a session for a reason of ours.
    pub(super) fn close_session(
        &mut self,
        token: ConnectionToken,
        reason: Reason,
        detail: &str,
        retry_after_ms: u32,
    ) {
        let Some(session) = self.sessions.find(token) else { return };
        session.protocol.closing(reason, detail, retry_after_ms, &mut self.space);
        self.end_session(token);
    }

    /// Ends a session whose client broke the protocol, or fell silent.
    pub(super) fn fail_session(&mut self, token: ConnectionToken, fatal: &Fatal) {
        let Some(session) = self.sessions.find(token) else { return };
        tracing::debug!(slot = token.slot, error = %fatal.error, "session failed");
        session.protocol.fail(fatal, &mut self.space);
        self.end_session(token);
    }

    /// Sends the closing frame that was written, and closes. The session stays until the front says it is gone.
    pub(super) fn end_session(&mut self, token: ConnectionToken) {
        if !self.space.is_empty() {
            self.observer.add(Metric::SessionsClosed, 1);
        }
        // A full outbox has no room for the closing frame: the close itself must do.
        let _ = self.send_space(token);
        self.detach(token);
        self.clients.close(token);
        self.session_timers.clear(token.slot);
    }

    /// Tells the home shard that the session is gone.
    fn detach(&mut self, token: ConnectionToken) {
        let Some(session) = self.sessions.find(token) else { return };
        let Some((user, _)) = session.identity else { return };
        if std::mem::take(&mut session.is_attached) {
            self.submit_detach(user, token);
        }
    }

    fn submit_detach(&mut self, user: UserId, token: ConnectionToken) {
        let operation = shard_request::Operation::Detach(DetachSession {
            user_id: user.to_bytes(),
            session: Some(address_of(token)),
        });
        let shard = self.router.shard(&ShardKey::User(user));
        let id = self.pending.nobodys_call();
        debug_assert!(PendingTable::is_nobodys(id));
        let request = ShardRequest { id, shard: shard.0, operation: Some(operation) };
        // A link that is away has forgotten the session by itself.
        if self.storage.submit(self.router.link(shard), request).is_ok() {
            self.submitted = true;
        }
    }

    /// Sets the session's timer to what it waits for next.
    pub(super) fn look_again(&mut self, token: ConnectionToken) {
        let Some(session) = self.sessions.find(token) else { return };
        let mut deadline_ms = session.protocol.deadline_ms();
        if session.slow_since_ms != 0 {
            deadline_ms = deadline_ms.min(session.slow_since_ms + SLOW_READER_MS);
        }
        if deadline_ms != u64::MAX {
            self.session_timers.set(token.slot, deadline_ms);
        }
    }

    pub(super) fn meet_deadlines(&mut self) {
        while let Some(slot) = self.session_timers.poll(self.now_ms) {
            let Some(token) = self.sessions.token_at(slot) else { continue };
            let Some(session) = self.sessions.find(token) else { continue };
            let slow_since_ms = session.slow_since_ms;
            if slow_since_ms != 0 && self.now_ms >= slow_since_ms + SLOW_READER_MS {
                self.close_session(token, Reason::TooSlow, "live events were not read", 0);
            } else if let Some(fatal) = session.protocol.handle_timeout(self.now_ms) {
                self.fail_session(token, &fatal);
            } else {
                self.look_again(token);
            }
        }
        while let Some(id) = self.pending.poll_timeout(self.now_ms) {
            self.observer.add(Metric::RequestTimeouts, 1);
            let detail = "storage did not answer in time; whether it was done is unknown";
            self.give_up(id, RequestError::new(ErrorCode::ErrorTimedOut, detail));
        }
        while let Some(token) = self.hushed.due(self.now_ms) {
            self.clients.resume(token);
        }
    }
}

//! A request's way to storage.

use super::Core;
use super::hush::THROTTLED_IN_A_ROW_MAX;
use super::pending::{PendingId, Request, Waiting};
use crate::admission::requests::{Asked, Culprit, Throttled, What};
use crate::admission::{self, Weight};
use crate::clock::moment;
use crate::domain::{Asker, Progress, Work};
use crate::front::ConnectionToken;
use crate::observe::{Metric, latency_of};
use crate::session::Outbox;
use crate::worker::mailbox::{ShardKey, StorageResult};
use tokio::sync::oneshot;
use wire_protocol::error::{Actor, RequestError, meaning};
use wire_protocol::internal::{ShardRequest, shard_request};
use wire_protocol::v1::{ErrorCode, client_frame, server_frame};

/// Wait named when the core has no place for another request, in milliseconds.
const FULL_RETRY_MS: u32 = 100;

impl Core {
    /// A session's client asks for something.
    pub(super) fn start_request(
        &mut self,
        token: ConnectionToken,
        request_id: u32,
        body: client_frame::Body,
    ) {
        self.observer.request(&body);
        let Some(session) = self.sessions.find(token) else { return };
        let Some((user, device)) = session.identity else { return };
        let weight = if Work::is_heavy(&body) { Weight::Heavy } else { Weight::Light };
        let latency = latency_of(&body);
        let is_log_out = matches!(body, client_frame::Body::LogOut(_));
        let server_time_ms = session.protocol.server_time_ms();
        let what = What::of(&body, weight);
        let asked = Asked { user, address: session.address, what };
        if let Err(throttled) = self.rates.admit(asked, self.now_ms) {
            return self.answer_throttled(token, request_id, throttled);
        }
        session.throttled = 0;
        if let Err(error) = admission::admit(session, weight) {
            return self.answer_error(token, request_id, error);
        }
        session.is_logging_out |= is_log_out;
        let asker = Asker { user, device, server_time_ms, router: &self.router };
        let (work, progress) = match Work::start(&asker, body, &mut self.calls) {
            Ok(started) => started,
            Err(error) => {
                drop(self.calls.drain());
                admission::release(session, weight);
                return self.answer_error(token, request_id, error);
            }
        };
        let request = Request {
            token,
            request_id,
            user,
            device,
            server_time_ms,
            work,
            weight,
            conversation: what.conversation(),
            latency,
            started: moment(),
        };
        match progress {
            Progress::Waiting => self.wait_for_storage(request),
            progress => self.finish_request(request, progress),
        }
    }

    fn wait_for_storage(&mut self, request: Request) {
        match self.pending.insert(self.now_ms, Waiting::Request(Box::new(request))) {
            Ok(id) => self.carry_calls(id),
            Err(Waiting::Request(request)) => {
                drop(self.calls.drain());
                let error =
                    RequestError::new(ErrorCode::ErrorOverloaded, "the gateway's requests: all places taken");
                self.finish_request(*request, Progress::Failed(error.after_ms(FULL_RETRY_MS)));
            }
            Err(_) => unreachable!("the table gives back what it was given"),
        }
    }

    /// Sends the calls that a request has left. A link that takes none answers at once.
    pub(super) fn carry_calls(&mut self, id: PendingId) {
        while !self.calls.is_empty() {
            let mut refused = Vec::new();
            for call in self.calls.drain() {
                let shard = self.router.shard(&call.shard_key);
                let request =
                    ShardRequest { id: id.call(call.part), shard: shard.0, operation: Some(call.operation) };
                match self.storage.submit(self.router.link(shard), request) {
                    Ok(()) => self.submitted = true,
                    Err(error) => refused.push((call.part, error)),
                }
                self.observer.add(Metric::StorageCalls, 1);
            }
            self.observer.add(Metric::StorageRefused, refused.len() as u64);
            for (part, error) in refused {
                if !self.step_request(id, part, Err(error)) {
                    return;
                }
            }
        }
    }

    /// Takes the result of one call of a waiting request, and finishes it if that was all; whether it waits on.
    pub(super) fn step_request(&mut self, id: PendingId, part: u16, result: StorageResult) -> bool {
        let Some(Waiting::Request(request)) = self.pending.find(id) else { return false };
        let asker = Asker {
            user: request.user,
            device: request.device,
            server_time_ms: request.server_time_ms,
            router: &self.router,
        };
        let progress = request.work.handle_result(&asker, part, result, &mut self.calls);
        if matches!(progress, Progress::Waiting) {
            return true;
        }
        drop(self.calls.drain());
        if let Some(Waiting::Request(request)) = self.pending.remove(id) {
            self.finish_request(*request, progress);
        }
        false
    }

    /// Answers a request and gives its places back.
    pub(super) fn finish_request(&mut self, request: Request, progress: Progress) {
        let Request { token, request_id, user, weight, conversation, latency, started, work, .. } = request;
        if let Some(session) = self.sessions.find(token) {
            admission::release(session, weight);
        }
        match progress {
            Progress::Waiting => unreachable!("a request that waits is not finished"),
            Progress::Failed(error) => {
                if matches!(work, Work::LogOut(_))
                    && let Some(session) = self.sessions.find(token)
                {
                    session.is_logging_out = false;
                }
                if let Some(conversation) = conversation
                    && meaning(error.code).actor == Actor::PeerRequest
                {
                    self.rates.not_sent(user, conversation);
                }
                self.answer_error(token, request_id, error);
            }
            Progress::Answered(body) => {
                self.observer.latency(latency, started.elapsed());
                self.observer.add(Metric::Acks, u64::from(matches!(body, server_frame::Body::Accepted(_))));
                self.answer(token, request_id, body);
                if matches!(work, Work::LogOut(_)) {
                    self.close_logged_out(token);
                }
            }
        }
    }

    fn answer(&mut self, token: ConnectionToken, request_id: u32, body: server_frame::Body) {
        if request_id == 0 {
            return;
        }
        let Some(session) = self.sessions.find(token) else { return };
        let (sockets, space) = (&mut self.clients, &mut self.space);
        let fate = Outbox { sockets, token, space }.answer(session, request_id, body);
        self.settle(token, fate);
    }

    fn answer_throttled(&mut self, token: ConnectionToken, request_id: u32, throttled: Throttled) {
        self.too_soon(token, throttled);
        self.answer_error(token, request_id, throttled.into());
    }

    /// The protocol itself has answered a frame: a ping, or a request too many. That costs as much as a request.
    pub(super) fn answered_by_protocol(&mut self, token: ConnectionToken) {
        let Some(session) = self.sessions.find(token) else { return };
        let Some((user, _)) = session.identity else { return };
        let asked = Asked { user, address: session.address, what: What::Other(Weight::Light) };
        match self.rates.admit(asked, self.now_ms) {
            Ok(()) => session.throttled = 0,
            Err(throttled) => self.too_soon(token, throttled),
        }
    }

    /// Counts what came too soon. Some in a row, and the session is not read for a moment.
    fn too_soon(&mut self, token: ConnectionToken, throttled: Throttled) {
        let metric = match throttled.culprit {
            Culprit::User => Metric::ThrottledUsers,
            Culprit::Conversation => Metric::ThrottledConversations,
            Culprit::Address => Metric::ThrottledAddresses,
        };
        self.observer.add(metric, 1);
        let Some(session) = self.sessions.find(token) else { return };
        session.throttled = session.throttled.saturating_add(1);
        if session.throttled > THROTTLED_IN_A_ROW_MAX && self.clients.pause(token) {
            self.hushed.add(self.now_ms, token);
        }
    }

    fn answer_error(&mut self, token: ConnectionToken, request_id: u32, error: RequestError) {
        self.observer.error(error.code);
        if request_id == 0 {
            self.observer.add(Metric::CursorsDropped, 1);
            return;
        }
        self.answer(token, request_id, server_frame::Body::Error(error.to_wire()));
    }

    /// The HTTP side asks.
    pub(super) fn call_for_http(
        &mut self,
        shard_key: &ShardKey,
        operation: shard_request::Operation,
        reply: oneshot::Sender<StorageResult>,
    ) {
        let shard = self.router.shard(shard_key);
        let id = match self.pending.insert(self.now_ms, Waiting::Http { reply }) {
            Ok(id) => id,
            Err(Waiting::Http { reply }) => {
                let error =
                    RequestError::new(ErrorCode::ErrorOverloaded, "the gateway's requests: all places taken");
                // Who does not wait any more needs no answer.
                let _ = reply.send(Err(error.after_ms(FULL_RETRY_MS)));
                return;
            }
            Err(_) => unreachable!("the table gives back what it was given"),
        };
        let request = ShardRequest { id: id.call(0), shard: shard.0, operation: Some(operation) };
        self.observer.add(Metric::StorageCalls, 1);
        match self.storage.submit(self.router.link(shard), request) {
            Ok(()) => self.submitted = true,
            Err(error) => {
                self.observer.add(Metric::StorageRefused, 1);
                self.give_up(id, error);
            }
        }
    }

    /// A request that will not be answered by storage.
    pub(super) fn give_up(&mut self, id: PendingId, error: RequestError) {
        match self.pending.remove(id) {
            None => {}
            Some(Waiting::Request(request)) => self.finish_request(*request, Progress::Failed(error)),
            Some(Waiting::Http { reply }) => {
                self.observer.error(error.code);
                // Who does not wait any more needs no answer.
                let _ = reply.send(Err(error));
            }
            Some(Waiting::Hello { token, .. } | Waiting::Provision { token, .. }) => {
                self.refuse_hello(token, &error);
            }
            Some(Waiting::Attach { token }) => {
                self.announcements.settled();
                self.announce_again(token);
            }
        }
    }
}

//! What comes from the server: answers to requests, and events.

use super::cursors::{Cursors, Moment};
use super::fetches::{Fetch, Fetches};
use super::link::Ending;
use super::operations::{Operation, OperationId, Outcome, Step};
use super::outbox::{Cause, Refused};
use super::requests::Purpose;
use super::sync::{PageFacts, SyncRounds};
use super::timeline::Arrived;
use super::{Action, Engine, Failure, Write};
use crate::model::{Event, Refusal};
use wire_protocol::error::meaning;
use wire_protocol::ids::{ClientMessageId, ConversationId, Seq, UserId, normal_username, restores_of};
use wire_protocol::session::ClientFault;
use wire_protocol::v1::{self, ErrorCode, server_frame::Body};

/// Sync waits for the answers to repeated sends at most this long, in milliseconds: a round trip on a bad
/// network. Afterwards a message may for a moment be seen both as an entry and as pending.
const SYNC_HOLD_MS: u64 = 2_000;

impl Engine {
    pub(super) fn handle_ready(&mut self, now_ms: u64, ready: v1::Ready) {
        let expected = (self.config.user.to_bytes(), self.config.device.to_bytes());
        if (&ready.user_id, &ready.device_id) != (&expected.0, &expected.1) {
            tracing::error!("the server opened the session of another device");
            return self.give_up(now_ms, &ClientFault::Protocol("another device"));
        }
        self.link.state = match std::mem::replace(&mut self.link.state, super::State::Stopped) {
            super::State::Opening(session) => super::State::Open(session),
            state => state,
        };
        self.server_time_ms = ready.server_time_ms;
        self.writes.push(Write::ResumeToken(Some(ready.resume_token.clone())));
        self.link.handle_ready(ready.resume_token);
        if self.sync.was_restored(ready.feed_version) {
            self.begin_anew(ready.feed_version);
        }
        let restores = self.sync.handle_ready(ready.feed_version, now_ms);
        self.writes.extend(restores.map(Write::Restores));
        self.sync_hold_ms = now_ms + SYNC_HOLD_MS;
        self.set_aside_unconfirmed(now_ms);
    }

    pub(super) fn handle_event(&mut self, now_ms: u64, body: Body) {
        match body {
            Body::Message(event) => self.handle_message_event(event),
            Body::Receipt(event) => self.handle_receipt(event),
            Body::SyncNeeded(_) => self.sync.want(),
            Body::Error(error) => {
                tracing::warn!(code = ?error.code(), error.detail, "the server refused a frame")
            }
            _ => self.give_up(now_ms, &ClientFault::Protocol("an answer as an event")),
        }
    }

    fn handle_message_event(&mut self, event: v1::MessageEvent) {
        let Some(conversation) = ConversationId::from_slice(&event.conversation_id) else { return };
        let Some(entry) = event.entry else { return };
        if self.timelines.contains_key(&conversation) {
            self.take_entry(conversation, Arrived { entry, link: None });
            self.after_entries(conversation);
        } else if self.has_room() {
            self.fetches.want(Fetch::Facts(conversation));
        }
    }

    fn handle_receipt(&mut self, event: v1::ReceiptEvent) {
        let Some(conversation) = ConversationId::from_slice(&event.conversation_id) else { return };
        let Some(timeline) = self.timelines.get(&conversation) else { return };
        let (member, delivered, read) = (event.member, event.delivered_up_to, event.read_up_to);
        self.writes.push(Write::Receipt { conversation, member, delivered, read });
        if member == timeline.own_ordinal {
            self.learn_own_read(conversation, read);
        }
        self.events.push_back(Event::Receipt {
            conversation,
            member_ordinal: member,
            delivered_up_to: Seq(delivered),
            read_up_to: Seq(read),
        });
    }

    pub(super) fn handle_answer(&mut self, now_ms: u64, request_id: u32, body: Body) {
        let Some(purpose) = self.requests.take(request_id) else { return };
        if let Body::Error(error) = body {
            return self.handle_error(now_ms, purpose, error);
        }
        let understood = match (purpose, body) {
            (Purpose::Send { conversation, id }, Body::Accepted(accepted)) => {
                self.handle_accepted(conversation, id, accepted);
                true
            }
            (Purpose::Report(report), Body::Done(_)) => {
                let confirmed = self.cursors.handle_confirmed(report);
                let (delivered, read) = (confirmed.delivered, confirmed.read);
                self.writes.push(Write::Confirmed { conversation: report.conversation, delivered, read });
                true
            }
            (Purpose::Sync, Body::SyncPage(page)) => {
                self.handle_sync_page(now_ms, page);
                true
            }
            (Purpose::Fetch(fetch @ Fetch::Gap(conversation)), Body::HistoryPage(page)) => {
                self.handle_gap_page(now_ms, fetch, conversation, page);
                true
            }
            (Purpose::Fetch(fetch @ Fetch::Facts(_)), Body::Conversation(conversation)) => {
                self.fetches.handle_done(fetch);
                self.take_conversation(&conversation).is_some()
            }
            (Purpose::Names(asked), Body::Users(users)) => {
                self.take_users(users);
                self.names.handle_answer(&asked);
                true
            }
            (Purpose::Operation(id), body) => self.handle_operation_answer(id, body),
            _ => false,
        };
        if !understood {
            let fault = ClientFault::Protocol("an answer of another kind");
            self.give_up(now_ms, &fault);
        }
    }

    fn handle_accepted(
        &mut self,
        conversation: ConversationId,
        id: ClientMessageId,
        accepted: v1::MessageAccepted,
    ) {
        let Some(message) = self.outbox.handle_accepted(conversation, id) else { return };
        let time_ms = self.server_time_ms.saturating_add_signed(accepted.time_delta_ms);
        self.writes.push(Write::Unqueued { conversation, id });
        let seq = Seq(accepted.seq);
        self.events.push_back(Event::Accepted { conversation, client_message_id: id, seq, time_ms });
        let Some(timeline) = self.timelines.get(&conversation) else { return };
        let entry = v1::Entry {
            seq: accepted.seq,
            sender: timeline.own_ordinal,
            time_ms,
            kind: message.kind,
            body: message.body,
        };
        let arrived = Arrived { entry, link: Some(id) };
        // Stored at once, wherever its place is: the outbox has let go of it.
        self.writes.push(Write::Entry { conversation, arrived: arrived.clone() });
        self.take_entry(conversation, arrived);
        self.after_entries(conversation);
    }

    fn handle_sync_page(&mut self, now_ms: u64, page: v1::SyncPage) {
        if self.sync.was_restored(page.version) {
            // The connection outlived the restore. What was asked before it is answered for nothing.
            self.begin_anew(page.version);
            self.actions.push_back(Action::Disconnect);
            return self.end_connection(now_ms, Ending::Lost);
        }
        let mut anything_new = false;
        for delta in page.conversations {
            let Some(facts) = delta.conversation else { continue };
            let Some(taken) = self.take_conversation(&facts) else { continue };
            self.sync.saw(taken.conversation);
            let grown = self.take_page(taken.conversation, delta.entries);
            anything_new |= taken.new || grown;
        }
        let facts = PageFacts { version: page.version, more: page.more, anything_new };
        if self.sync.handle_page(facts, now_ms) {
            self.writes.push(Write::FeedVersion(page.version));
        }
    }

    /// The server was restored from a backup: other messages may have the numbers of those that are here. What came from
    /// it goes, and comes anew; what waits to be sent stays.
    fn begin_anew(&mut self, feed_version: u64) {
        tracing::warn!("the server was restored from a backup: what it has is fetched anew");
        self.timelines.clear();
        self.cursors = Cursors::default();
        self.fetches = Fetches::default();
        let restores = restores_of(feed_version);
        self.sync = SyncRounds::restore(0, Some(restores));
        self.sync.want();
        self.writes.extend([Write::Forgotten, Write::Restores(restores)]);
        self.events.push_back(Event::Restored);
    }

    fn handle_gap_page(
        &mut self,
        now_ms: u64,
        fetch: Fetch,
        conversation: ConversationId,
        page: v1::HistoryPage,
    ) {
        if let Some(timeline) = self.timelines.get_mut(&conversation) {
            timeline.raise_head(page.head_seq);
        }
        if self.take_page(conversation, page.entries) {
            self.fetches.handle_done(fetch);
            self.after_entries(conversation);
        } else if self.timelines.get(&conversation).is_some_and(|timeline| timeline.gap().is_some()) {
            // The server does not have (yet) what it announced.
            let at = Moment { now_ms, retry_after_ms: 0 };
            self.fetches.handle_retryable(fetch, at, &mut self.jitter);
        } else {
            self.fetches.handle_done(fetch);
        }
    }

    fn handle_error(&mut self, now_ms: u64, purpose: Purpose, error: v1::Error) {
        let (code, retry_after_ms) = (error.code(), error.retry_after_ms);
        let retryable = error.retryable || meaning(code).retryable;
        let at = Moment { now_ms, retry_after_ms };
        tracing::debug!(?code, error.detail, retryable, ?purpose, "refused");
        match (purpose, retryable) {
            (Purpose::Send { conversation, id }, true) => {
                let cause = match code {
                    ErrorCode::ErrorPredecessorMissing => Cause::PredecessorMissing,
                    _ => Cause::Other { retry_after_ms },
                };
                self.outbox.handle_retryable(Refused { conversation, id, cause }, now_ms, &mut self.jitter);
            }
            (Purpose::Send { conversation, id }, false) => {
                if self.outbox.remove(conversation, id).is_some() {
                    let refusal = Refusal::Server { code, detail: error.detail };
                    self.refuse_message(conversation, id, refusal);
                }
            }
            (Purpose::Report(report), true) => self.cursors.handle_retryable(report, at, &mut self.jitter),
            (Purpose::Report(report), false) => {
                tracing::warn!(?report, ?code, error.detail, "a cursor was refused");
                self.cursors.handle_confirmed(report);
            }
            // Nothing the client could do differently: later.
            (Purpose::Sync, _) => self.sync.handle_retryable(now_ms, retry_after_ms, &mut self.jitter),
            (Purpose::Fetch(fetch), true) => self.fetches.handle_retryable(fetch, at, &mut self.jitter),
            (Purpose::Fetch(fetch), false) => {
                tracing::warn!(?fetch, ?code, error.detail, "a fetch was refused");
                self.fetches.handle_done(fetch);
            }
            (Purpose::Names(_), true) => self.names.handle_retryable(at, &mut self.jitter),
            (Purpose::Names(asked), false) => self.names.handle_answer(&asked),
            (Purpose::Operation(id), true) => self.operations.handle_retryable(id, at, &mut self.jitter),
            (Purpose::Operation(id), false) => {
                let failure = Failure::Refused { code, detail: error.detail };
                self.finish_operation(id, Outcome::Failed(failure));
            }
        }
    }

    /// False: the answer does not belong to the question.
    fn handle_operation_answer(&mut self, id: OperationId, body: Body) -> bool {
        let Some(running) = self.operations.peek(id).cloned() else { return true };
        match (running.step, running.operation, body) {
            (Step::LookUp { usernames }, _, Body::Users(users)) => {
                match self.find_all(&usernames, &users) {
                    Ok(members) => self.operations.proceed(id, Step::Create { members }),
                    Err(name) => self.finish_operation(id, Outcome::Failed(Failure::NoSuchUser(name))),
                }
                self.take_users(users);
                true
            }
            (Step::Create { .. } | Step::Refresh, _, Body::Conversation(conversation)) => {
                let Some(taken) = self.take_conversation(&conversation) else { return false };
                self.finish_operation(id, Outcome::Conversation(taken.conversation));
                true
            }
            (Step::FetchOlder, Operation::FetchOlder { conversation, .. }, Body::HistoryPage(page)) => {
                let fetched = self.take_older(conversation, page.entries);
                self.finish_operation(id, Outcome::Fetched(fetched));
                true
            }
            (Step::LogOut, _, Body::Done(_)) => {
                self.finish_operation(id, Outcome::Done);
                true
            }
            _ => false,
        }
    }

    /// The users with these names, or the first name that nobody has.
    fn find_all(&self, usernames: &[String], users: &v1::Users) -> Result<Vec<UserId>, String> {
        let find = |name: &String| {
            let normal = normal_username(name);
            let user = users.users.iter().find(|user| Some(&user.username) == normal.as_ref());
            user.and_then(|user| UserId::from_slice(&user.user_id)).ok_or_else(|| name.clone())
        };
        let mut members = usernames.iter().map(find).collect::<Result<Vec<_>, _>>()?;
        members.sort_unstable();
        members.dedup();
        Ok(members)
    }
}

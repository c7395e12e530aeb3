//! Requests without an answer, and turning what the machines want into requests.

use super::cursors::{Cursor, Report};
use super::fetches::Fetch;
use super::operations::{Operation, OperationId, Outcome, Running, Step};
use super::timeline::Gap;
use super::{Engine, Failure, Write};
use crate::limits::{AHEAD_ENTRIES_MAX, ANSWER_MS_MAX, SENDS_IN_FLIGHT_MAX};
use bytes::BytesMut;
use std::collections::BTreeMap;
use wire_protocol::ids::{ClientMessageId, ConversationId, UserId};
use wire_protocol::limits::{HISTORY_ENTRIES_MAX, SYNC_CURSORS_MAX};
use wire_protocol::v1::{self, client_frame::Body};

/// What a request was for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    Send { conversation: ConversationId, id: ClientMessageId },
    Report(Report),
    Sync,
    Fetch(Fetch),
    Names(Vec<UserId>),
    Operation(OperationId),
}

#[derive(Clone, Debug)]
struct Waiting {
    purpose: Purpose,
    sent_ms: u64,
    /// A send that an earlier connection had sent already.
    repeat: bool,
}

/// Requests of this connection without an answer.
#[derive(Clone, Debug, Default)]
pub(super) struct Requests {
    waiting: BTreeMap<u32, Waiting>,
    repeat_count: usize,
}

impl Requests {
    pub(super) fn take(&mut self, request_id: u32) -> Option<Purpose> {
        let waiting = self.waiting.remove(&request_id)?;
        self.repeat_count -= usize::from(waiting.repeat);
        Some(waiting.purpose)
    }

    /// Sends repeated from earlier connections that have no answer.
    pub(super) fn repeat_count(&self) -> usize {
        self.repeat_count
    }

    /// The server owes an answer for too long.
    pub(super) fn overdue(&self, now_ms: u64) -> bool {
        self.poll_timeout().is_some_and(|at_ms| now_ms >= at_ms)
    }

    pub(super) fn poll_timeout(&self) -> Option<u64> {
        let oldest = self.waiting.values().map(|waiting| waiting.sent_ms).min();
        oldest.map(|sent_ms| sent_ms + ANSWER_MS_MAX)
    }

    pub(super) fn handle_disconnected(&mut self) {
        *self = Self::default();
    }
}

impl Engine {
    /// Sends what may be sent now. Messages first: the answers to repeated ones tell which entries are ours.
    pub(super) fn pump(&mut self, now_ms: u64) {
        if !self.link.is_open() {
            return;
        }
        self.pump_sends(now_ms);
        self.pump_sync(now_ms);
        self.pump_reports(now_ms);
        self.pump_fetches(now_ms);
        self.pump_operations(now_ms);
        if self.can_request()
            && let Some(users) = self.names.poll(now_ms)
        {
            let user_ids = users.iter().map(|user| user.to_bytes()).collect();
            let body = Body::LookUp(v1::LookUpUsers { user_ids, usernames: Vec::new() });
            self.request(now_ms, Purpose::Names(users), body);
        }
        self.tell_connection(now_ms);
    }

    fn can_request(&mut self) -> bool {
        self.link.session().is_some_and(|session| session.can_request())
    }

    fn request(&mut self, now_ms: u64, purpose: Purpose, body: Body) {
        self.request_once_more(now_ms, purpose, body, false);
    }

    fn request_once_more(&mut self, now_ms: u64, purpose: Purpose, body: Body, repeat: bool) {
        let mut payload = BytesMut::new();
        let session = self.link.session().expect("looked at before by can_request");
        let request_id =
            session.request(now_ms, body, &mut payload).expect("looked at before by can_request");
        self.payloads.push_back(payload.freeze());
        self.requests.waiting.insert(request_id, Waiting { purpose, sent_ms: now_ms, repeat });
        self.requests.repeat_count += usize::from(repeat);
    }

    fn pump_sends(&mut self, now_ms: u64) {
        while self.outbox.in_flight_count() < SENDS_IN_FLIGHT_MAX && self.can_request() {
            // Accepted messages wait in memory while a gap before them is filled: not without end.
            let (timelines, is_synced) = (&self.timelines, self.sync.is_done());
            let has_room = |conversation: ConversationId| {
                let timeline = timelines.get(&conversation);
                // One that is not here after a sync is for the server to refuse.
                timeline.map_or(is_synced, |timeline| timeline.own_ahead_count() < AHEAD_ENTRIES_MAX)
            };
            let Some(send) = self.outbox.poll_send(now_ms, has_room) else { return };
            let (conversation, id) = (send.message.conversation, send.message.id);
            if send.first_attempt {
                self.writes.push(Write::Attempted { conversation, id, at_ms: now_ms });
            }
            let body = Body::Send(v1::SendMessage {
                handle: 0,
                conversation_id: conversation.to_bytes(),
                client_message_id: id.0,
                kind: send.message.kind,
                body: send.message.body,
                predecessor: send.predecessor.map_or(0, |predecessor| predecessor.0),
            });
            self.request_once_more(now_ms, Purpose::Send { conversation, id }, body, !send.first_attempt);
        }
    }

    /// While repeated sends wait for their answers, entries of a sync could be taken for somebody else's.
    pub(super) fn sync_held(&self, now_ms: u64) -> bool {
        now_ms < self.sync_hold_ms && self.requests.repeat_count() > 0
    }

    fn pump_sync(&mut self, now_ms: u64) {
        if self.sync_held(now_ms) || !self.can_request() || !self.sync.poll_request(now_ms) {
            return;
        }
        let body = Body::Sync(v1::Sync {
            since_version: self.sync.version(),
            cursors: self.sync_cursors(),
            named_only: false,
        });
        self.request(now_ms, Purpose::Sync, body);
    }

    /// The server starts a conversation where this device last confirmed; named are those where it stands
    /// elsewhere, and those of this round's earlier pages.
    fn sync_cursors(&self) -> Vec<v1::SyncCursor> {
        let begun = self.timelines.iter().filter(|(_, timeline)| timeline.low() != 0);
        let differs = |conversation: &ConversationId, high: u64| {
            self.cursors.confirmed(*conversation).delivered != high || self.sync.seen().contains(conversation)
        };
        let named = begun.filter(|(conversation, timeline)| differs(conversation, timeline.high()));
        let cursor = |(conversation, timeline): (&ConversationId, &super::Timeline)| v1::SyncCursor {
            handle: 0,
            conversation_id: conversation.to_bytes(),
            after_seq: timeline.high(),
        };
        named.map(cursor).take(SYNC_CURSORS_MAX).collect()
    }

    fn pump_reports(&mut self, now_ms: u64) {
        while self.can_request() {
            let Some(report) = self.cursors.poll_report(now_ms) else { return };
            let conversation_id = report.conversation.to_bytes();
            let body = match report.cursor {
                Cursor::Delivered => {
                    Body::Delivered(v1::DeliveredUpTo { handle: 0, conversation_id, seq: report.seq })
                }
                Cursor::Read => Body::Read(v1::ReadUpTo { handle: 0, conversation_id, seq: report.seq }),
            };
            self.request(now_ms, Purpose::Report(report), body);
        }
    }

    fn pump_fetches(&mut self, now_ms: u64) {
        while self.can_request() {
            let Some(fetch) = self.fetches.poll(now_ms, self.sync.is_done()) else { return };
            let body = match fetch {
                Fetch::Facts(conversation) => Some(Body::Get(get(conversation))),
                Fetch::Gap(conversation) => self.gap_request(conversation).map(Body::History),
            };
            match body {
                Some(body) => self.request(now_ms, Purpose::Fetch(fetch), body),
                None => self.fetches.handle_done(fetch),
            }
        }
    }

    fn gap_request(&self, conversation: ConversationId) -> Option<v1::History> {
        let after_seq = match self.timelines.get(&conversation)?.gap()? {
            Gap::Newest => 0,
            Gap::After(seq) => seq,
        };
        let limit = HISTORY_ENTRIES_MAX as u32;
        Some(v1::History {
            handle: 0,
            conversation_id: conversation.to_bytes(),
            before_seq: 0,
            after_seq,
            limit,
        })
    }

    fn pump_operations(&mut self, now_ms: u64) {
        while self.can_request() {
            let Some((id, running)) = self.operations.poll(now_ms) else { return };
            match self.operation_request(&running) {
                Ok(body) => self.request(now_ms, Purpose::Operation(id), body),
                Err(outcome) => self.finish_operation(id, outcome),
            }
        }
    }

    pub(super) fn finish_operation(&mut self, id: OperationId, outcome: Outcome) {
        if self.operations.finish(id).is_some() {
            self.outcomes.push_back((id, outcome));
        }
    }

    /// The next request of an operation, or how it ends without one.
    fn operation_request(&self, running: &Running) -> Result<Body, Outcome> {
        Ok(match (&running.step, &running.operation) {
            (Step::LookUp { usernames }, _) => {
                Body::LookUp(v1::LookUpUsers { user_ids: Vec::new(), usernames: usernames.clone() })
            }
            (Step::Create { members }, operation) => Body::Create(create(operation, members)),
            (Step::FetchOlder, Operation::FetchOlder { conversation, limit }) => {
                let timeline = self.timelines.get(conversation);
                let timeline = timeline.ok_or(Outcome::Failed(Failure::UnknownConversation))?;
                if timeline.low() <= 1 {
                    return Err(Outcome::Fetched(0));
                }
                Body::History(v1::History {
                    handle: 0,
                    conversation_id: conversation.to_bytes(),
                    before_seq: timeline.low(),
                    after_seq: 0,
                    limit: (*limit).clamp(1, HISTORY_ENTRIES_MAX as u32),
                })
            }
            (Step::Refresh, Operation::Refresh { conversation }) => Body::Get(get(*conversation)),
            (Step::LogOut, _) => Body::LogOut(v1::LogOut {}),
            (Step::FetchOlder | Step::Refresh, _) => unreachable!("a step belongs to its operation"),
        })
    }
}

fn get(conversation: ConversationId) -> v1::GetConversation {
    v1::GetConversation { handle: 0, conversation_id: conversation.to_bytes() }
}

fn create(operation: &Operation, members: &[UserId]) -> v1::CreateConversation {
    let member_ids = members.iter().map(|user| user.to_bytes()).collect();
    match operation {
        Operation::CreateGroup { title, creation_id, .. } => v1::CreateConversation {
            kind: v1::ConversationKind::Group as i32,
            member_ids,
            title: title.clone(),
            creation_id: *creation_id,
        },
        _ => v1::CreateConversation {
            kind: v1::ConversationKind::Direct as i32,
            member_ids,
            title: String::new(),
            creation_id: 0,
        },
    }
}

//! Requests of the workload as frames, and answers as events.

use super::{Ringline, error_code};
use crate::agent::protocol::names::{Names, RoomShape};
use crate::agent::protocol::{Message, NotSent, ProtocolEvent, ProtocolFault, Request, Token};
use crate::workload::population::RoomIndex;
use bytes::{Bytes, BytesMut};
use wire_protocol::ids::ConversationId;
use wire_protocol::limits::{HISTORY_ENTRIES_MAX, SYNC_CURSORS_MAX};
use wire_protocol::v1::{self, EntryKind, ErrorCode, client_frame, server_frame};

/// Title of every group.
const GROUP_TITLE: &str = "ringline-bench";

/// A request without its answer.
pub(super) struct Pending {
    /// As the session numbers it.
    pub(super) id: u32,
    pub(super) wanted: Wanted,
}

/// What an answer means.
#[derive(Clone, Copy)]
pub(super) enum Wanted {
    /// That this room exists.
    Room(Token, RoomIndex),
    Acceptance(Token),
    /// Of the [`CatchUp`] that runs.
    SyncPage,
    History(Token, RoomIndex),
    Done(Token),
}

/// Between the request to catch up and its last page.
pub(super) struct CatchUp {
    token: Token,
    /// Named in every page: where the device stands, and conversations that were cut off, as they now stand.
    cursors: Vec<v1::SyncCursor>,
}

impl CatchUp {
    pub(super) fn new(token: Token, cursors: Vec<v1::SyncCursor>) -> Self {
        Self { token, cursors }
    }

    /// Takes note of where a conversation now stands, if it was cut off now or before.
    fn note(&mut self, conversation_id: &Bytes, delta: &v1::ConversationDelta) {
        let last_seq = delta.entries.last().map(|entry| entry.seq);
        let known = self.cursors.iter_mut().find(|cursor| cursor.conversation_id == *conversation_id);
        match (known, last_seq) {
            (Some(cursor), Some(seq)) => cursor.after_seq = seq,
            (None, _) if delta.truncated => self.cursors.push(v1::SyncCursor {
                handle: 0,
                conversation_id: conversation_id.clone(),
                after_seq: last_seq.unwrap_or(0),
            }),
            (Some(_), None) | (None, _) => {}
        }
    }
}

impl Ringline {
    /// A request as a frame's body, and what its answer will mean.
    pub(super) fn translate(
        &self,
        token: Token,
        request: &Request,
    ) -> Result<(client_frame::Body, Wanted), NotSent> {
        use client_frame::Body;
        let id = |room: RoomIndex| {
            self.shared.names.conversation(room).map(ConversationId::to_bytes).ok_or(NotSent::Unsupported)
        };
        Ok(match request {
            Request::Open(room) => (Body::Create(self.create(*room)?), Wanted::Room(token, *room)),
            Request::Send { room, message, predecessor, body } => {
                let send = v1::SendMessage {
                    handle: 0,
                    conversation_id: id(*room)?,
                    client_message_id: *message,
                    kind: EntryKind::Text as i32,
                    body: body.clone(),
                    predecessor: predecessor.unwrap_or(0),
                };
                (Body::Send(send), Wanted::Acceptance(token))
            }
            Request::CatchUp { from, .. } => (self.sync(self.cursors(from)), Wanted::SyncPage),
            Request::History { room, before, limit } => {
                let history = v1::History {
                    handle: 0,
                    conversation_id: id(*room)?,
                    before_seq: before.unwrap_or(0),
                    after_seq: 0,
                    limit: (*limit).min(HISTORY_ENTRIES_MAX as u32),
                };
                (Body::History(history), Wanted::History(token, *room))
            }
            Request::Delivered { room, seq } => {
                let cursor = v1::DeliveredUpTo { handle: 0, conversation_id: id(*room)?, seq: *seq };
                (Body::Delivered(cursor), Wanted::Done(token))
            }
            Request::Read { room, seq } => {
                let cursor = v1::ReadUpTo { handle: 0, conversation_id: id(*room)?, seq: *seq };
                (Body::Read(cursor), Wanted::Done(token))
            }
        })
    }

    /// Where the device stands, as sync takes it. Rooms beyond its limit are left to what the server knows.
    pub(super) fn cursors(&self, from: &[(RoomIndex, u64)]) -> Vec<v1::SyncCursor> {
        let cursor = |(room, after_seq): &(RoomIndex, u64)| {
            let conversation_id = self.shared.names.conversation(*room)?.to_bytes();
            Some(v1::SyncCursor { handle: 0, conversation_id, after_seq: *after_seq })
        };
        from.iter().filter_map(cursor).take(SYNC_CURSORS_MAX).collect()
    }

    fn sync(&self, cursors: Vec<v1::SyncCursor>) -> client_frame::Body {
        let since_version = self.since_version;
        client_frame::Body::Sync(v1::Sync { since_version, cursors, named_only: false })
    }

    fn create(&self, room: RoomIndex) -> Result<v1::CreateConversation, NotSent> {
        let (names, own) = (&self.shared.names, self.user());
        let ids = |others: Vec<_>| others.into_iter().map(|user| names.user(user).to_bytes()).collect();
        match names.shape(room).ok_or(NotSent::Unsupported)? {
            RoomShape::Direct { a, b } if own == a || own == b => Ok(v1::CreateConversation {
                kind: v1::ConversationKind::Direct as i32,
                member_ids: ids(vec![if own == a { b } else { a }]),
                title: String::new(),
                creation_id: 0,
            }),
            // Another creator would make another group.
            RoomShape::Group { mut members } if members.first() == Some(&own) => {
                members.remove(0);
                Ok(v1::CreateConversation {
                    kind: v1::ConversationKind::Group as i32,
                    member_ids: ids(members),
                    title: GROUP_TITLE.to_owned(),
                    creation_id: Names::creation_id(room),
                })
            }
            RoomShape::Direct { .. } | RoomShape::Group { .. } => Err(NotSent::Unsupported),
        }
    }

    /// What the answer to a request says.
    pub(super) fn take_answer(
        &mut self,
        now_us: u64,
        wanted: Wanted,
        body: server_frame::Body,
        out: &mut BytesMut,
        events: &mut Vec<ProtocolEvent>,
    ) -> Result<(), ProtocolFault> {
        use server_frame::Body;
        match (wanted, body) {
            (Wanted::Acceptance(token), Body::Error(error))
                if error.code() == ErrorCode::ErrorPredecessorMissing =>
            {
                events.push(ProtocolEvent::PredecessorMissing(token));
            }
            (wanted, Body::Error(error)) => {
                let token = match wanted {
                    Wanted::Room(token, _)
                    | Wanted::Acceptance(token)
                    | Wanted::History(token, _)
                    | Wanted::Done(token) => Some(token),
                    Wanted::SyncPage => self.catch_up.take().map(|catch_up| catch_up.token),
                };
                events.push(refused(token, &error));
            }
            (Wanted::Room(token, room), Body::Conversation(made)) => {
                let expected = self.shared.names.conversation(room);
                if ConversationId::from_slice(&made.conversation_id) != expected {
                    return Err(ProtocolFault("a room under another id".into()));
                }
                events.push(ProtocolEvent::Done(token));
            }
            (Wanted::Acceptance(token), Body::Accepted(accepted)) => {
                events.push(ProtocolEvent::Accepted { token, seq: Some(accepted.seq) });
            }
            (Wanted::Done(token), Body::Done(_)) => events.push(ProtocolEvent::Done(token)),
            (Wanted::History(token, room), Body::HistoryPage(page)) => {
                let messages = page.entries.into_iter().map(|entry| message(room, entry)).collect();
                events.push(ProtocolEvent::Page { token, messages });
            }
            (Wanted::SyncPage, Body::SyncPage(page)) => self.take_page(now_us, page, out, events)?,
            _ => return Err(ProtocolFault("an answer of another kind".into())),
        }
        Ok(())
    }

    fn take_page(
        &mut self,
        now_us: u64,
        page: v1::SyncPage,
        out: &mut BytesMut,
        events: &mut Vec<ProtocolEvent>,
    ) -> Result<(), ProtocolFault> {
        let Some(mut catch_up) = self.catch_up.take() else {
            return Err(ProtocolFault("a sync page to nothing".into()));
        };
        for delta in page.conversations {
            let id = delta.conversation.as_ref().map(|conversation| conversation.conversation_id.clone());
            // The session lets no page pass without it.
            let Some(id) = id else { continue };
            catch_up.note(&id, &delta);
            self.tell_messages(&id, delta.entries, events);
        }
        self.since_version = page.version;
        if !page.more {
            events.push(ProtocolEvent::CaughtUp(catch_up.token));
            return Ok(());
        }
        let sync = self.sync(catch_up.cursors.clone());
        self.catch_up = Some(catch_up);
        // The page before has just freed its place.
        self.write_request(now_us, sync, Wanted::SyncPage, out)
            .map_err(|refused| ProtocolFault(refused.to_string()))
    }

    /// What came by itself.
    pub(super) fn take_unasked(&self, body: server_frame::Body, events: &mut Vec<ProtocolEvent>) {
        use server_frame::Body;
        match body {
            Body::Message(event) => self.tell_messages(&event.conversation_id, event.entry, events),
            Body::SyncNeeded(_) => events.push(ProtocolEvent::SyncNeeded),
            Body::Error(error) => events.push(refused(None, &error)),
            // Receipts are not accounted for.
            _ => {}
        }
    }

    fn tell_messages(
        &self,
        conversation_id: &[u8],
        entries: impl IntoIterator<Item = v1::Entry>,
        events: &mut Vec<ProtocolEvent>,
    ) {
        let id = ConversationId::from_slice(conversation_id);
        match id.and_then(|id| self.shared.names.room(id, self.user())) {
            Some(room) => {
                let messages = entries.into_iter().map(|entry| message(room, entry));
                events.extend(messages.map(ProtocolEvent::Message));
            }
            None => events.push(ProtocolEvent::Refused {
                token: None,
                code: "unknown_room".into(),
                retryable: false,
                retry_after_ms: 0,
            }),
        }
    }
}

/// An entry as a message. What the server wrote itself is one, too: it has a number, and its body is nobody's.
fn message(room: RoomIndex, entry: v1::Entry) -> Message {
    Message { room, seq: Some(entry.seq), body: entry.body }
}

fn refused(token: Option<Token>, error: &v1::Error) -> ProtocolEvent {
    ProtocolEvent::Refused {
        token,
        code: error_code(error.code),
        retryable: error.retryable,
        retry_after_ms: error.retry_after_ms,
    }
}

//! What a device is told: frames of its session, answers to what it asked, pages, and live messages.

use super::{AGAIN_MS, Asked, Device, HEARTBEAT_S, Told, Wish, short};
use crate::world::HOSTS;
use crate::world::history::{Event, Seen};
use crate::world::network::{ConnectionId, Parcel};
use crate::world::outside::Outside;
use crate::world::story::Story;
use bytes::{Bytes, BytesMut};
use wire_protocol::session::{ClientEvent, ClientSession, Proof};
use wire_protocol::v1::session_closing::Reason;
use wire_protocol::v1::{self, server_frame};

/// Why a session ends that breaks the protocol, or whose device may not have it: none of it is so of any device here.
const REFUSALS: [Reason; 3] = [Reason::Unauthenticated, Reason::ProtocolError, Reason::LoggedOut];

impl Device {
    /// Something arrived.
    pub fn arrived(&mut self, id: ConnectionId, parcel: Parcel, story: &mut Story, outside: &mut Outside) {
        if self.seat.as_ref().is_none_or(|seat| seat.id != id) {
            return;
        }
        match parcel {
            Parcel::Accepted => {}
            Parcel::Connected => {
                let mut session = ClientSession::new(outside.now_ms);
                let mut out = BytesMut::new();
                session.hello(Proof::AccessToken(self.token.clone()), HEARTBEAT_S, "world", &mut out);
                if let Some(seat) = &mut self.seat {
                    seat.session = Some(session);
                }
                self.send(out, outside);
            }
            Parcel::Bytes(bytes) => {
                if self.take_bytes(&bytes, story, outside).is_none() {
                    self.leave(outside);
                }
            }
            Parcel::Closed => self.leave(outside),
        }
        self.plan(outside);
    }

    /// `None`: the connection has to go.
    fn take_bytes(&mut self, bytes: &Bytes, story: &mut Story, outside: &mut Outside) -> Option<()> {
        self.seat.as_mut()?.decoder.push(bytes);
        loop {
            let seat = self.seat.as_mut()?;
            let payload = match seat.decoder.next_frame() {
                Ok(Some(payload)) => payload,
                Ok(None) => return Some(()),
                Err(error) => {
                    story.tell(Event::Refused { device: self.number, what: error.to_string() });
                    return None;
                }
            };
            let event = seat.session.as_mut()?.handle_frame(outside.now_ms, payload);
            match event {
                Ok(ClientEvent::Ready(ready)) => {
                    seat.server_time_ms = ready.server_time_ms;
                    self.tried.followed += u64::from(seat.is_named);
                    self.away_since_ms = None;
                    self.wish(outside.now_ms, Wish::Sync);
                }
                Ok(ClientEvent::Answer { request_id, body }) => {
                    let asked = seat.asked.remove(&request_id)?;
                    let server_time_ms = seat.server_time_ms;
                    self.answered(asked, body, server_time_ms, story, outside);
                }
                Ok(ClientEvent::Event(body)) => self.take_event(body, story, outside),
                Ok(ClientEvent::Closing(closing)) => {
                    if REFUSALS.contains(&closing.reason()) {
                        let what = format!("its session: {closing:?}");
                        story.tell(Event::Refused { device: self.number, what });
                    }
                    self.told = self.heed(&closing, story);
                    return None;
                }
                Ok(ClientEvent::Handled) => {}
                Err(fault) => {
                    story.tell(Event::Refused { device: self.number, what: fault.to_string() });
                    return None;
                }
            }
        }
    }

    /// What a gateway says that sends its client away: where to go, if it leaves, and when. Who is refused since storage is
    /// away comes back sooner than is said, so that more happens.
    fn heed(&mut self, closing: &v1::SessionClosing, story: &mut Story) -> Option<Told> {
        let after_ms = u64::from(closing.retry_after_ms);
        let put_off = closing.code == v1::ErrorCode::ErrorOverloaded as i32;
        let Some(first) = closing.gateways.first() else {
            let is_leaving = closing.reason() == Reason::Draining;
            self.tried.sent_on += u64::from(is_leaving);
            self.tried.put_off += u64::from(put_off);
            return (is_leaving || put_off).then_some(Told::Wait(after_ms));
        };
        self.tried.sent_on += 1;
        let named = HOSTS.gateway_at(first).filter(|gateway| Some(*gateway) != self.gateway());
        if named.is_none() {
            let what = format!("sent on to nowhere, or back: {closing:?}");
            story.tell(Event::Refused { device: self.number, what });
        }
        named.map(|gateway| Told::GoTo(gateway, after_ms))
    }

    fn take_event(&mut self, body: server_frame::Body, story: &mut Story, outside: &mut Outside) {
        match body {
            server_frame::Body::Message(message) => {
                let (device, room) = (self.number, story.room(&message.conversation_id));
                let Some((room, entry)) = room.zip(message.entry) else {
                    let what = "a live message of a strange room, or without an entry".to_owned();
                    return story.tell(Event::Refused { device, what });
                };
                let entry = story.seen(&entry);
                self.stored.entry(room).or_default().insert(entry.seq);
                story.tell(Event::Live { device, room, entry });
            }
            server_frame::Body::Receipt(receipt) => self.receipt_came(&receipt, story),
            server_frame::Body::SyncNeeded(_) => self.wish(outside.now_ms, Wish::Sync),
            _ => {}
        }
    }

    fn answered(
        &mut self,
        asked: Asked,
        body: server_frame::Body,
        server_time_ms: u64,
        story: &mut Story,
        outside: &mut Outside,
    ) {
        let device = self.number;
        match (asked.wish, body) {
            (wish, server_frame::Body::Error(error)) => self.refused(wish, &error, story, outside),
            (Wish::Create(room), server_frame::Body::Conversation(conversation))
                if story.room(&conversation.conversation_id) == Some(room) => {}
            (Wish::Send(message), server_frame::Body::Accepted(accepted)) => {
                let facts = &mut story.messages[message];
                facts.seq = facts.seq.or(Some(accepted.seq));
                let (room, seq, begun) = (facts.room, accepted.seq, asked.begun);
                let time_ms = server_time_ms.saturating_add_signed(accepted.time_delta_ms);
                let durability = accepted.durability();
                story.tell(Event::Acked { begun, message, room, seq, time_ms, durability });
            }
            (Wish::Advance { room, to }, server_frame::Body::Done(_)) => self.cursors_kept(room, to, story),
            (Wish::Look(room), server_frame::Body::Conversation(conversation))
                if story.room(&conversation.conversation_id) == Some(room) =>
            {
                self.members_shown(asked.begun, &conversation, story);
            }
            (Wish::Sync, server_frame::Body::SyncPage(page)) => {
                self.synced(asked.begun, page, story, outside)
            }
            (Wish::Read { room, after }, server_frame::Body::HistoryPage(page))
                if story.room(&page.conversation_id) == Some(room) =>
            {
                let entries = page.entries.iter().map(|entry| story.seen(entry)).collect();
                let (begun, head) = (asked.begun, page.head_seq);
                story.tell(Event::Read { begun, device, room, after, head, entries });
            }
            (Wish::Whole { room, mut entries }, server_frame::Body::HistoryPage(page))
                if story.room(&page.conversation_id) == Some(room) =>
            {
                let is_empty = page.entries.is_empty();
                entries.extend(page.entries.iter().map(|entry| story.seen(entry)));
                if is_empty || entries.last().is_some_and(|last| last.seq >= page.head_seq) {
                    self.wholes.insert(room);
                    story.tell(Event::Whole { device, room, entries });
                } else {
                    self.wish(outside.now_ms, Wish::Whole { room, entries });
                }
            }
            (wish, other) => {
                story.tell(Event::Refused { device, what: format!("{}: {other:?}", short(&wish)) });
            }
        }
    }

    fn refused(&mut self, wish: Wish, error: &v1::Error, story: &mut Story, outside: &mut Outside) {
        // A room with somebody who never came yet cannot be made yet.
        let is_early = matches!(wish, Wish::Create(_)) && error.code == v1::ErrorCode::ErrorNotFound as i32;
        if !error.retryable && !is_early {
            let what = format!("{}: {error:?}", short(&wish));
            return story.tell(Event::Refused { device: self.number, what });
        }
        if let Wish::Send(message) = &wish {
            story.messages[*message].refusals += 1;
        }
        let after_ms = u64::from(error.retry_after_ms).max(AGAIN_MS);
        self.wish(outside.now_ms + after_ms, wish);
    }

    fn synced(&mut self, begun: usize, page: v1::SyncPage, story: &mut Story, outside: &mut Outside) {
        let device = self.number;
        for delta in page.conversations {
            let Some(conversation) = delta.conversation else { continue };
            let Some(room) = story.room(&conversation.conversation_id) else {
                story.tell(Event::Refused { device, what: "a sync page with a strange room".into() });
                continue;
            };
            self.members_shown(begun, &conversation, story);
            let entries: Vec<Seen> = delta.entries.iter().map(|entry| story.seen(entry)).collect();
            self.stored.entry(room).or_default().extend(entries.iter().map(|entry| entry.seq));
            let head = self.heads.entry(room).or_default();
            *head = (*head).max(conversation.head_seq);
            story.tell(Event::Synced { device, room, head: conversation.head_seq, entries });
        }
        self.version = page.version;
        if page.more {
            self.wish(outside.now_ms, Wish::Sync);
        }
    }
}

//! What goes to a client: answers always, live events while there is room.
//!
//! The bytes queued for a client are the front's. This room decides what may still join them. Live events stop
//! at three quarters, so that answers find room; a client that lost one is told to sync once it has read, and is
//! closed when it never does. An answer without room becomes a small, retryable error.

use super::table::Session;
use crate::front::{Clients, ConnectionToken, SendRefused};
use bytes::BytesMut;
use wire_protocol::error::RequestError;
use wire_protocol::limits::{OUTBOX_BYTES_MAX, SYNC_CONVERSATIONS_MAX};
use wire_protocol::v1::{self, ErrorCode, server_frame};

/// Bytes up to which live events are queued: the rest is for answers.
pub const EVENTS_BYTES_MAX: usize = OUTBOX_BYTES_MAX / 4 * 3;
/// A client that lost events and did not read the rest for this long is closed, in milliseconds: as long as one
/// heartbeat, so that it is still there.
pub const SLOW_READER_MS: u64 = 30_000;
/// Wait named in an error that stands for an answer without room, in milliseconds: a round trip or two.
const ROOM_RETRY_MS: u32 = 200;
/// Bytes a frame adds to its body: request id, tags, lengths, and the framing of the transport and TLS.
const FRAME_OVERHEAD_BYTES: usize = 64;
/// Bytes of one new handle in a frame.
const BINDING_BYTES: usize = 28;

/// Where frames are queued: the front, and in tests a list.
pub trait Sockets {
    /// Queues one frame payload.
    fn send(&mut self, token: ConnectionToken, payload: &[u8]) -> Result<(), SendRefused>;
    /// Bytes queued for the client.
    fn queued_bytes(&self, token: ConnectionToken) -> usize;
}

impl Sockets for Clients {
    fn send(&mut self, token: ConnectionToken, payload: &[u8]) -> Result<(), SendRefused> {
        Clients::send(self, token, payload)
    }

    fn queued_bytes(&self, token: ConnectionToken) -> usize {
        Clients::queued_bytes(self, token)
    }
}

/// What became of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// Queued, or there was nothing to say.
    Queued,
    /// A live event that the client will learn of by syncing.
    Dropped,
    /// An error went out instead of the answer.
    Replaced,
    /// The client's outbox takes nothing more: close the session as too slow.
    TooSlow,
}

/// One session's end of its connection.
pub struct Outbox<'a, S: Sockets> {
    /// Where frames are queued.
    pub sockets: &'a mut S,
    /// Whose.
    pub token: ConnectionToken,
    /// Encoding space, empty between frames.
    pub space: &'a mut BytesMut,
}

impl<S: Sockets> Outbox<'_, S> {
    /// Answers a request. One that is no longer in flight is passed over.
    pub fn answer(&mut self, session: &mut Session, request_id: u32, body: server_frame::Body) -> Fate {
        let bytes = answer_bytes(&body);
        if self.sockets.queued_bytes(self.token) + bytes <= OUTBOX_BYTES_MAX {
            session.protocol.answer(request_id, body, self.space);
            return self.send();
        }
        let error =
            RequestError::new(ErrorCode::ErrorOverloaded, "outbox: no room for the answer; read first");
        session.protocol.answer_error(request_id, &error.after_ms(ROOM_RETRY_MS), self.space);
        match self.send() {
            Fate::Queued => Fate::Replaced,
            fate => fate,
        }
    }

    /// A live event. Dropped if the client reads too slowly for it.
    pub fn event(&mut self, session: &mut Session, now_ms: u64, body: server_frame::Body) -> Fate {
        if !session.protocol.is_ready() {
            return Fate::Queued;
        }
        let queued = self.sockets.queued_bytes(self.token);
        if session.slow_since_ms != 0 {
            return Fate::Dropped;
        }
        if queued + answer_bytes(&body) > EVENTS_BYTES_MAX {
            session.slow_since_ms = now_ms.max(1);
            return Fate::Dropped;
        }
        session.protocol.event(body, self.space);
        self.send()
    }

    /// The client has read: if it lost events it is told so.
    pub fn drained(&mut self, session: &mut Session) -> Fate {
        if session.slow_since_ms == 0 {
            return Fate::Queued;
        }
        session.slow_since_ms = 0;
        session.protocol.event(server_frame::Body::SyncNeeded(v1::SyncNeeded {}), self.space);
        self.send()
    }

    /// Queues what was written to `space`, which may be nothing.
    pub fn send(&mut self) -> Fate {
        if self.space.is_empty() {
            return Fate::Queued;
        }
        let sent = self.sockets.send(self.token, self.space);
        self.space.clear();
        match sent {
            // A connection that is gone says so itself.
            Ok(()) | Err(SendRefused::Gone) => Fate::Queued,
            Err(SendRefused::Full) => Fate::TooSlow,
        }
    }
}

/// Bytes a frame with this body takes at most, with a new handle for each conversation in it.
fn answer_bytes(body: &server_frame::Body) -> usize {
    let conversations = match body {
        server_frame::Body::SyncPage(page) => page.conversations.len(),
        server_frame::Body::ConversationPage(page) => page.conversations.len(),
        _ => 1,
    };
    debug_assert!(conversations <= SYNC_CONVERSATIONS_MAX);
    body.encoded_len() + conversations * BINDING_BYTES + FRAME_OVERHEAD_BYTES
}

const _: () = {
    // The front says that a connection drained only if it was more than half full.
    use wire_protocol::limits::BODY_BYTES_MAX;
    assert!(EVENTS_BYTES_MAX - (BODY_BYTES_MAX + 1_024) > OUTBOX_BYTES_MAX / 2);
};

#[cfg(test)]
pub(crate) mod tests;

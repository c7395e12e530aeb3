//! The client's half of one session: one for each connection. What outlives a connection (the outbox, stored
//! cursors, the resume token) belongs to the client library above.

use super::Proof;
use super::handles::HandleTable;
use super::mentions::{self, Mention};
use crate::limits::{
    CLIENT_NAME_BYTES_MAX, FEATURE_HANDLES, FEATURES, FRAME_BYTES_MAX, HEARTBEAT_S_MAX,
    HEARTBEATS_MISSED_MAX, HELLO_FRAME_BYTES_MAX, HELLO_TIMEOUT_MS, REQUESTS_IN_FLIGHT_MAX, VERSION_MAX,
    VERSION_MIN,
};
use crate::v1::{
    self, Binding, ClientFrame, Hello, Ping, Ready, ServerFrame, SessionClosing, client_frame, hello,
    server_frame,
};
use bytes::{Bytes, BytesMut};
use prost::Message;

/// Request id of hello.
const HELLO_REQUEST_ID: u32 = 1;
/// Request id of pings: beyond those of requests, which are 1 to [`REQUESTS_IN_FLIGHT_MAX`], and one byte long.
const PING_REQUEST_ID: u32 = REQUESTS_IN_FLIGHT_MAX as u32 + 1;

const _: () = {
    assert!(REQUESTS_IN_FLIGHT_MAX <= u64::BITS as usize, "ids in flight are the bits of a u64");
    assert!(PING_REQUEST_ID < 0x80, "one byte");
};

/// The client's half of one session.
#[derive(Debug)]
pub struct ClientSession {
    stage: Stage,
    /// Feature bits offered.
    features: u64,
    /// When the last frame came, or the connection was made.
    heard_ms: u64,
}

#[derive(Debug)]
enum Stage {
    New,
    HelloSent,
    Open(Open),
    Closed,
}

#[derive(Debug)]
struct Open {
    /// `None`: the server does not give them.
    handles: Option<HandleTable>,
    /// Bit n: request id n + 1 waits for its answer. Ids are reused, smallest first, so that they stay short.
    in_flight: u64,
    in_flight_max: u32,
    frame_bytes_max: usize,
    heartbeat_ms: u64,
    /// When the last frame was written.
    sent_ms: u64,
    /// When the last ping was written, or the session opened.
    pinged_ms: u64,
}

/// What a received frame means. Conversations always go by `conversation_id`.
#[derive(Clone, PartialEq, Debug)]
pub enum ClientEvent {
    /// The session is open.
    Ready(Ready),
    /// Answers a request; its id is free again. An error comes as `Body::Error`.
    Answer {
        /// As [`ClientSession::request`] gave it.
        request_id: u32,
        /// The answer.
        body: server_frame::Body,
    },
    /// Belongs to no request: `Message`, `Receipt`, `SyncNeeded`, or an `Error` about a frame that wanted no
    /// answer.
    Event(server_frame::Body),
    /// The last frame: the server closes. Also how a hello is refused.
    Closing(SessionClosing),
    /// Nothing to do (a pong).
    Handled,
}

/// Why the connection is to be given up; reconnect after a pause.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ClientFault {
    /// Not a frame, or one that breaks the protocol.
    #[error("the server broke the protocol: {0}")]
    Protocol(&'static str),
    /// No answer to hello in time, or nothing heard for three heartbeats.
    #[error("nothing heard from the server")]
    Dead,
}

/// Why a request was not written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RequestRefused {
    /// Ready has not come, or the session is closing.
    #[error("the session is not open")]
    NotReady,
    /// As many requests as the server allows wait for their answers.
    #[error("too many requests in flight")]
    TooManyInFlight,
}

impl ClientSession {
    /// A connection was made; the client speaks every feature this code knows.
    pub fn new(now_ms: u64) -> Self {
        Self::with_features(now_ms, FEATURES)
    }

    /// The same with only these feature bits.
    pub fn with_features(now_ms: u64, features: u64) -> Self {
        Self { stage: Stage::New, features, heard_ms: now_ms }
    }

    /// Writes the first frame. `heartbeat_s` 0: the server's default. `client` is cut to its limit.
    pub fn hello(&mut self, proof: Proof, heartbeat_s: u32, client: &str, out: &mut BytesMut) {
        assert!(matches!(self.stage, Stage::New), "hello is said once");
        let mut client_bytes = client.len().min(CLIENT_NAME_BYTES_MAX);
        while !client.is_char_boundary(client_bytes) {
            client_bytes -= 1;
        }
        let hello = Hello {
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            features: self.features,
            heartbeat_s,
            client: client.get(..client_bytes).unwrap_or_default().to_owned(),
            proof: Some(match proof {
                Proof::AccessToken(token) => hello::Proof::AccessToken(token),
                Proof::ResumeToken(token) => hello::Proof::ResumeToken(token),
            }),
        };
        write(HELLO_REQUEST_ID, client_frame::Body::Hello(hello), out);
        self.stage = Stage::HelloSent;
    }

    /// Writes a request; set `conversation_id`, the half takes handles by itself. The id is taken until the
    /// answer comes: who gives up waiting simply ignores it.
    pub fn request(
        &mut self,
        now_ms: u64,
        body: client_frame::Body,
        out: &mut BytesMut,
    ) -> Result<u32, RequestRefused> {
        let Stage::Open(open) = &mut self.stage else { return Err(RequestRefused::NotReady) };
        if open.in_flight.count_ones() >= open.in_flight_max {
            return Err(RequestRefused::TooManyInFlight);
        }
        let place = open.in_flight.trailing_ones();
        open.in_flight |= 1 << place;
        open.write(now_ms, place + 1, body, out);
        Ok(place + 1)
    }

    /// Writes a frame that wants no answer: delivered, read or ping. False: not open, nothing written.
    pub fn notify(&mut self, now_ms: u64, body: client_frame::Body, out: &mut BytesMut) -> bool {
        use client_frame::Body;
        assert!(matches!(body, Body::Delivered(_) | Body::Read(_) | Body::Ping(_)), "this wants an answer");
        let Stage::Open(open) = &mut self.stage else { return false };
        open.write(now_ms, 0, body, out);
        true
    }

    /// Takes one received frame's payload. After a fault, or the closing frame, nothing more is taken.
    pub fn handle_frame(&mut self, now_ms: u64, payload: Bytes) -> Result<ClientEvent, ClientFault> {
        let result = self.take_frame(now_ms, payload);
        match &result {
            Ok(ClientEvent::Closing(_)) | Err(_) => self.stage = Stage::Closed,
            Ok(_) => self.heard_ms = self.heard_ms.max(now_ms),
        }
        result
    }

    fn take_frame(&mut self, now_ms: u64, payload: Bytes) -> Result<ClientEvent, ClientFault> {
        use server_frame::Body;
        if payload.len() > FRAME_BYTES_MAX {
            return Err(ClientFault::Protocol("frame too large"));
        }
        let frame = ServerFrame::decode(payload).map_err(|_| ClientFault::Protocol("malformed frame"))?;
        match (&mut self.stage, frame.body) {
            (Stage::New | Stage::Closed, _) => Err(ClientFault::Protocol("a frame outside of the session")),
            (_, Some(Body::Closing(closing))) => Ok(ClientEvent::Closing(closing)),
            (Stage::HelloSent, Some(Body::Ready(ready))) if frame.request_id == HELLO_REQUEST_ID => {
                self.stage = Stage::Open(Open::new(now_ms, self.features, &ready)?);
                Ok(ClientEvent::Ready(ready))
            }
            (Stage::HelloSent, _) => Err(ClientFault::Protocol("not an answer to hello")),
            (Stage::Open(open), body) => open.handle_frame(frame.request_id, body, frame.bindings),
        }
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Option<u64> {
        match &self.stage {
            Stage::New | Stage::HelloSent => Some(self.heard_ms.saturating_add(HELLO_TIMEOUT_MS)),
            Stage::Open(open) => Some(open.ping_due_ms(self.heard_ms).min(open.dead_ms(self.heard_ms))),
            Stage::Closed => None,
        }
    }

    /// Writes a ping if one is due; `Dead` if the server has been silent too long.
    pub fn handle_timeout(&mut self, now_ms: u64, out: &mut BytesMut) -> Result<(), ClientFault> {
        let dead = match &mut self.stage {
            Stage::New | Stage::HelloSent => now_ms >= self.heard_ms.saturating_add(HELLO_TIMEOUT_MS),
            Stage::Open(open) => {
                let dead = now_ms >= open.dead_ms(self.heard_ms);
                if !dead && now_ms >= open.ping_due_ms(self.heard_ms) {
                    open.pinged_ms = now_ms;
                    open.write(now_ms, PING_REQUEST_ID, client_frame::Body::Ping(Ping {}), out);
                }
                dead
            }
            Stage::Closed => false,
        };
        if dead {
            self.stage = Stage::Closed;
            return Err(ClientFault::Dead);
        }
        Ok(())
    }

    /// Between Ready and the closing frame.
    pub fn is_ready(&self) -> bool {
        matches!(self.stage, Stage::Open(_))
    }

    /// Whether [`Self::request`] would take a request now.
    pub fn can_request(&self) -> bool {
        matches!(&self.stage, Stage::Open(open) if open.in_flight.count_ones() < open.in_flight_max)
    }

    /// Largest payload that may be sent now, in bytes.
    pub fn frame_bytes_max(&self) -> usize {
        match &self.stage {
            Stage::Open(open) => open.frame_bytes_max,
            _ => HELLO_FRAME_BYTES_MAX,
        }
    }

    /// Ids without an answer, ascending. Ask before dropping a lost session: the fate of these requests is
    /// unknown, and repeating them in the next session is safe.
    pub fn unanswered(&self) -> Vec<u32> {
        match &self.stage {
            Stage::Open(open) => (1..=u64::BITS).filter(|id| open.in_flight >> (id - 1) & 1 == 1).collect(),
            _ => Vec::new(),
        }
    }
}

impl Open {
    fn new(now_ms: u64, features: u64, ready: &Ready) -> Result<Self, ClientFault> {
        if !(VERSION_MIN..=VERSION_MAX).contains(&ready.version) || ready.features & !features != 0 {
            return Err(ClientFault::Protocol("ready: version or features that were not offered"));
        }
        if ready.user_id.len() != 16 || ready.device_id.len() != 16 {
            return Err(ClientFault::Protocol("ready: ids are 16 bytes"));
        }
        let heartbeat_valid = (1..=HEARTBEAT_S_MAX).contains(&ready.heartbeat_s);
        if !heartbeat_valid || ready.requests_in_flight_max == 0 || ready.frame_bytes_max == 0 {
            return Err(ClientFault::Protocol("ready: limits"));
        }
        Ok(Self {
            handles: (ready.features & FEATURE_HANDLES != 0).then(HandleTable::default),
            in_flight: 0,
            in_flight_max: ready.requests_in_flight_max.min(REQUESTS_IN_FLIGHT_MAX as u32),
            frame_bytes_max: ready.frame_bytes_max as usize,
            heartbeat_ms: u64::from(ready.heartbeat_s) * 1_000,
            sent_ms: now_ms,
            pinged_ms: now_ms,
        })
    }

    fn handle_frame(
        &mut self,
        request_id: u32,
        body: Option<server_frame::Body>,
        bindings: Vec<Binding>,
    ) -> Result<ClientEvent, ClientFault> {
        use server_frame::Body;
        bindings.into_iter().try_for_each(|binding| self.bind(binding))?;
        let Some(mut body) = body else {
            // An event of a later version says nothing to this one.
            let unknown_event = request_id == 0;
            return unknown_event
                .then_some(ClientEvent::Handled)
                .ok_or(ClientFault::Protocol("an empty answer"));
        };
        let handles = self.handles.as_ref();
        mentions::of_answer(&mut body, |mention| resolve(handles, mention))?;
        match &body {
            Body::Ready(_) => return Err(ClientFault::Protocol("a second ready")),
            Body::Pong(_) if request_id == PING_REQUEST_ID => return Ok(ClientEvent::Handled),
            Body::Message(v1::MessageEvent { entry: None, .. }) => {
                return Err(ClientFault::Protocol("a message without its entry"));
            }
            Body::SyncPage(page) if page.conversations.iter().any(|delta| delta.conversation.is_none()) => {
                return Err(ClientFault::Protocol("a sync page without its conversation"));
            }
            _ => {}
        }
        let is_event = matches!(&body, Body::Message(_) | Body::Receipt(_) | Body::SyncNeeded(_));
        match request_id {
            0 if is_event || matches!(&body, Body::Error(_)) => Ok(ClientEvent::Event(body)),
            0 => Err(ClientFault::Protocol("an answer to no request")),
            _ if is_event => Err(ClientFault::Protocol("an event as an answer")),
            _ => {
                self.free(request_id)?;
                Ok(ClientEvent::Answer { request_id, body })
            }
        }
    }

    fn free(&mut self, request_id: u32) -> Result<(), ClientFault> {
        let bit = request_id.checked_sub(1).and_then(|place| 1u64.checked_shl(place)).unwrap_or(0);
        if self.in_flight & bit == 0 {
            return Err(ClientFault::Protocol("an answer to a request that was not made"));
        }
        self.in_flight &= !bit;
        Ok(())
    }

    fn bind(&mut self, binding: Binding) -> Result<(), ClientFault> {
        let Some(handles) = &mut self.handles else {
            return Err(ClientFault::Protocol("a binding without the feature"));
        };
        let id = <[u8; 16]>::try_from(binding.conversation_id.as_ref());
        match id {
            Ok(id) if binding.handle == handles.next() && handles.handle(&id).is_none() => {
                handles.bind(id).map(|_| ()).ok_or(ClientFault::Protocol("more bindings than allowed"))
            }
            _ => Err(ClientFault::Protocol("a binding out of order, or not of 16 bytes")),
        }
    }

    /// Writes a frame with handles in place of the conversations that have one.
    fn write(&mut self, now_ms: u64, request_id: u32, mut body: client_frame::Body, out: &mut BytesMut) {
        if let Some(handles) = &self.handles {
            let Ok(()) = mentions::of_request(&mut body, |mention| {
                let id = <[u8; 16]>::try_from(mention.conversation_id.as_ref()).ok();
                if let Some(handle) = id.and_then(|id| handles.handle(&id)) {
                    *mention.handle = handle;
                    *mention.conversation_id = Bytes::new();
                }
                Ok::<(), std::convert::Infallible>(())
            });
        }
        write(request_id, body, out);
        self.sent_ms = self.sent_ms.max(now_ms);
    }

    /// A heartbeat after either direction fell silent: the server must hear us, and we must hear it.
    fn ping_due_ms(&self, heard_ms: u64) -> u64 {
        self.sent_ms.min(heard_ms).max(self.pinged_ms).saturating_add(self.heartbeat_ms)
    }

    fn dead_ms(&self, heard_ms: u64) -> u64 {
        heard_ms.saturating_add(self.heartbeat_ms * u64::from(HEARTBEATS_MISSED_MAX))
    }
}

/// Brings a mention into the form that code above the session sees: the id, and no handle.
fn resolve(handles: Option<&HandleTable>, mention: Mention<'_>) -> Result<(), ClientFault> {
    match (*mention.handle, mention.conversation_id.len()) {
        (0, 16) => Ok(()),
        (handle, 0) => {
            let id = handles.and_then(|handles| handles.id(handle));
            let id = id.ok_or(ClientFault::Protocol("a handle that was not given"))?;
            *mention.conversation_id = Bytes::copy_from_slice(id);
            *mention.handle = 0;
            Ok(())
        }
        (_, _) => Err(ClientFault::Protocol("a conversation that is not 16 bytes, or named twice")),
    }
}

fn write(request_id: u32, body: client_frame::Body, out: &mut BytesMut) {
    ClientFrame { request_id, body: Some(body) }.encode(out).expect("a BytesMut grows");
}

#[cfg(test)]
mod tests;

//! The server's half of one session.
//!
//! A gateway holds one for each connection, 150 million of them idle over the fleet: it is kept small (a test
//! holds it to 128 bytes), and allocates only for requests in flight and for handles given.

use super::Proof;
use super::handles::HandleTable;
use super::hello::{Agreed, read_hello};
use super::mentions::{self, Mention};
use super::requests::{self, invalid};
use crate::error::RequestError;
use crate::frame::FrameError;
use crate::ids::{DeviceId, UserId};
use crate::limits::{
    CLOSING_GATEWAYS_MAX, FEATURE_HANDLES, FRAME_BYTES_MAX, HEARTBEATS_MISSED_MAX, HELLO_TIMEOUT_MS,
    IN_FLIGHT_RETRY_AFTER_MS, REQUEST_TIMEOUT_MS, REQUESTS_IN_FLIGHT_MAX,
};
use crate::v1::session_closing::Reason;
use crate::v1::{
    Binding, ClientFrame, ErrorCode, Pong, Ready, ServerFrame, SessionClosing, SyncNeeded, client_frame,
    server_frame,
};
use bytes::{Bytes, BytesMut};
use prost::Message;

/// The server's half of one session.
#[derive(Debug)]
pub struct ServerSession {
    stage: Stage,
    /// When the last frame came, or the connection was made. The deadline counts from here.
    heard_ms: u64,
}

/// Where the conversation stands; each stage holds what it needs and no more.
#[derive(Debug)]
enum Stage {
    Hello,
    Authenticating(Agreed),
    Open(Open),
    /// Nothing is read any more; the closing frame is still to be written if not `told`.
    Closing {
        told: bool,
    },
}

#[derive(Debug)]
struct Open {
    /// Base of `MessageAccepted.time_delta_ms`.
    server_time_ms: u64,
    /// Server time is the driver's clock plus this.
    clock_offset_ms: i64,
    /// `None`: the client does not understand them.
    handles: Option<HandleTable>,
    /// Ids of requests not answered yet, in no order. Unallocated while there are none.
    in_flight: Vec<u32>,
    heartbeat_s: u32,
}

/// What the gateway knows once a proof was accepted.
#[derive(Clone, Debug)]
pub struct ReadyInfo {
    /// Whose session it is.
    pub user: UserId,
    /// On which device.
    pub device: DeviceId,
    /// Milliseconds since 1970: base of `time_delta_ms` in this session.
    pub server_time_ms: u64,
    /// For the next connection.
    pub resume_token: Bytes,
    /// The user's newest change-feed version.
    pub feed_version: u64,
}

/// What a received frame asks of the gateway.
#[derive(Debug)]
pub enum ServerInput {
    /// The first frame was a good hello: check the proof, then call `ready` or `refuse`.
    Authenticate {
        /// To be checked.
        proof: Proof,
    },
    /// A request whose fields are within their limits; every conversation in it goes by `conversation_id`.
    Request {
        /// To be given to `answer`. 0: no answer is wanted.
        request_id: u32,
        /// What is asked. Never hello or ping.
        body: client_frame::Body,
    },
    /// Nothing to do; if there is an answer it was written already.
    Handled,
}

/// The session cannot go on: pass it to [`ServerSession::fail`], send what that writes, and close.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fatal {
    /// For `SessionClosing`.
    pub reason: Reason,
    /// Names the culprit.
    pub error: RequestError,
}

impl Fatal {
    pub(super) fn new(reason: Reason, code: ErrorCode, detail: impl Into<String>) -> Self {
        Self { reason, error: RequestError::new(code, detail) }
    }

    pub(super) fn protocol(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self::new(Reason::ProtocolError, code, detail)
    }
}

impl From<FrameError> for Fatal {
    fn from(error: FrameError) -> Self {
        let code = match error {
            FrameError::TooLarge { .. } => ErrorCode::ErrorFrameTooLarge,
            FrameError::LengthOverlong => ErrorCode::ErrorMalformedFrame,
        };
        Self::protocol(code, error.to_string())
    }
}

impl ServerSession {
    /// A connection was accepted.
    pub fn new(now_ms: u64) -> Self {
        Self { stage: Stage::Hello, heard_ms: now_ms }
    }

    /// Takes one received frame's payload. If something is written to `out`, it is the payload of one frame.
    /// After the closing frame, or an error, whatever comes is ignored.
    pub fn handle_frame(
        &mut self,
        now_ms: u64,
        payload: Bytes,
        out: &mut BytesMut,
    ) -> Result<ServerInput, Fatal> {
        let result = match &mut self.stage {
            Stage::Closing { .. } => return Ok(ServerInput::Handled),
            Stage::Hello => read_hello(payload).map(|(agreed, proof)| {
                self.stage = Stage::Authenticating(agreed);
                ServerInput::Authenticate { proof }
            }),
            Stage::Authenticating(_) => {
                Err(Fatal::protocol(ErrorCode::ErrorUnexpectedFrame, "a frame before the answer to hello"))
            }
            Stage::Open(open) => open.handle_frame(now_ms, payload, out),
        };
        match &result {
            Ok(_) => self.heard_ms = self.heard_ms.max(now_ms),
            Err(_) => self.stage = Stage::Closing { told: false },
        }
        result
    }

    /// The proof was accepted: writes the answer to hello. Writes nothing if the session is closing.
    pub fn ready(&mut self, now_ms: u64, info: ReadyInfo, out: &mut BytesMut) {
        let agreed = match self.stage {
            Stage::Authenticating(agreed) => agreed,
            Stage::Closing { .. } => return,
            Stage::Hello | Stage::Open(_) => {
                unreachable!("ready answers a hello that handle_frame handed on")
            }
        };
        let ready = Ready {
            version: agreed.version,
            features: agreed.features,
            user_id: info.user.to_bytes(),
            device_id: info.device.to_bytes(),
            server_time_ms: info.server_time_ms,
            heartbeat_s: agreed.heartbeat_s,
            resume_token: info.resume_token,
            feed_version: info.feed_version,
            frame_bytes_max: FRAME_BYTES_MAX as u32,
            requests_in_flight_max: REQUESTS_IN_FLIGHT_MAX as u32,
        };
        write(agreed.request_id, server_frame::Body::Ready(ready), Vec::new(), out);
        self.heard_ms = self.heard_ms.max(now_ms);
        self.stage = Stage::Open(Open {
            server_time_ms: info.server_time_ms,
            clock_offset_ms: (info.server_time_ms as i64).wrapping_sub(now_ms as i64),
            handles: (agreed.features & FEATURE_HANDLES != 0).then(HandleTable::default),
            in_flight: Vec::new(),
            heartbeat_s: agreed.heartbeat_s,
        });
    }

    /// The proof was not accepted, or could not be checked: writes the closing frame. Send it and close.
    pub fn refuse(&mut self, error: &RequestError, out: &mut BytesMut) {
        use crate::error::{Actor, meaning};
        let reason = match meaning(error.code).actor {
            Actor::PeerProof => Reason::Unauthenticated,
            Actor::PeerProtocol | Actor::PeerRequest => Reason::ProtocolError,
            Actor::Load | Actor::Storage | Actor::Us => Reason::Overloaded,
        };
        self.fail(&Fatal { reason, error: error.clone() }, out);
    }

    /// Answers a request and frees its place. False, and nothing written, if no such request is in flight:
    /// it was answered before, or the session is closing.
    ///
    /// What is written must be sent, here and in [`Self::event`], for it may bind handles that later frames
    /// use: look for room in the outbox before, or close the session.
    ///
    /// An answer above `FRAME_BYTES_MAX` goes out as `ERROR_INTERNAL` instead, an event as `SyncNeeded`.
    pub fn answer(&mut self, request_id: u32, body: server_frame::Body, out: &mut BytesMut) -> bool {
        let Stage::Open(open) = &mut self.stage else { return false };
        let Some(place) = open.in_flight.iter().position(|&id| id == request_id) else { return false };
        open.in_flight.swap_remove(place);
        if open.in_flight.is_empty() {
            open.in_flight = Vec::new();
        }
        open.write(request_id, body, out);
        true
    }

    /// [`Self::answer`] with an error.
    pub fn answer_error(&mut self, request_id: u32, error: &RequestError, out: &mut BytesMut) -> bool {
        self.answer(request_id, server_frame::Body::Error(error.to_wire()), out)
    }

    /// An event. Writes nothing unless the session is open.
    pub fn event(&mut self, body: server_frame::Body, out: &mut BytesMut) {
        if let Stage::Open(open) = &mut self.stage {
            open.write(0, body, out);
        }
    }

    /// Writes the last frame, once. Whatever follows is ignored, in both directions.
    pub fn closing(&mut self, reason: Reason, detail: &str, retry_after_ms: u32, out: &mut BytesMut) {
        let detail = detail.to_owned();
        self.close(
            SessionClosing { reason: reason as i32, retry_after_ms, detail, ..SessionClosing::default() },
            out,
        );
    }

    /// [`Self::closing`] of a gateway that leaves: where to go, best first, and when.
    pub fn leaving(&mut self, retry_after_ms: u32, gateways: Vec<String>, out: &mut BytesMut) {
        debug_assert!(gateways.len() <= CLOSING_GATEWAYS_MAX);
        self.close(
            SessionClosing {
                reason: Reason::Draining as i32,
                retry_after_ms,
                detail: "the gateway leaves".to_owned(),
                gateways,
                ..SessionClosing::default()
            },
            out,
        );
    }

    /// [`Self::closing`] for what `handle_frame` or `handle_timeout` found.
    pub fn fail(&mut self, fatal: &Fatal, out: &mut BytesMut) {
        let RequestError { code, detail, retry_after_ms } = &fatal.error;
        let closing = SessionClosing {
            reason: fatal.reason as i32,
            retry_after_ms: *retry_after_ms,
            detail: detail.clone(),
            code: *code as i32,
            ..SessionClosing::default()
        };
        self.close(closing, out);
    }

    fn close(&mut self, closing: SessionClosing, out: &mut BytesMut) {
        if matches!(self.stage, Stage::Closing { told: true }) {
            return;
        }
        self.stage = Stage::Closing { told: true };
        write(0, server_frame::Body::Closing(closing), Vec::new(), out);
    }

    /// Between `ready` and the closing frame.
    pub fn is_ready(&self) -> bool {
        matches!(self.stage, Stage::Open(_))
    }

    /// Base of `time_delta_ms`; 0 unless the session is open.
    pub fn server_time_ms(&self) -> u64 {
        match &self.stage {
            Stage::Open(open) => open.server_time_ms,
            _ => 0,
        }
    }

    /// Requests that wait for their answer.
    pub fn in_flight_count(&self) -> usize {
        match &self.stage {
            Stage::Open(open) => open.in_flight.len(),
            _ => 0,
        }
    }

    /// When [`Self::handle_timeout`] has something to say unless a frame comes before; `u64::MAX` once closing.
    pub fn deadline_ms(&self) -> u64 {
        let patience_ms = match &self.stage {
            Stage::Hello => HELLO_TIMEOUT_MS,
            Stage::Authenticating(_) => REQUEST_TIMEOUT_MS,
            Stage::Open(open) => u64::from(open.heartbeat_s) * 1_000 * u64::from(HEARTBEATS_MISSED_MAX),
            Stage::Closing { .. } => return u64::MAX,
        };
        self.heard_ms.saturating_add(patience_ms)
    }

    /// The fault, if the deadline has passed.
    pub fn handle_timeout(&mut self, now_ms: u64) -> Option<Fatal> {
        if now_ms < self.deadline_ms() {
            return None;
        }
        let code = ErrorCode::ErrorTimedOut;
        let fatal = match &self.stage {
            Stage::Hello => Fatal::protocol(ErrorCode::ErrorHelloExpected, "no hello in time"),
            Stage::Authenticating(_) => {
                Fatal::new(Reason::Overloaded, code, "the proof was not checked in time")
            }
            Stage::Open(open) => {
                let detail =
                    format!("no frame in {HEARTBEATS_MISSED_MAX} heartbeats of {} s", open.heartbeat_s);
                Fatal::new(Reason::Idle, code, detail)
            }
            Stage::Closing { .. } => return None,
        };
        self.stage = Stage::Closing { told: false };
        Some(fatal)
    }
}

pub(super) fn decode(payload: Bytes, payload_bytes_max: usize) -> Result<ClientFrame, Fatal> {
    if payload.len() > payload_bytes_max {
        let detail = format!("frame of {} bytes, {payload_bytes_max} allowed", payload.len());
        return Err(Fatal::protocol(ErrorCode::ErrorFrameTooLarge, detail));
    }
    ClientFrame::decode(payload)
        .map_err(|error| Fatal::protocol(ErrorCode::ErrorMalformedFrame, error.to_string()))
}

impl Open {
    fn handle_frame(
        &mut self,
        now_ms: u64,
        payload: Bytes,
        out: &mut BytesMut,
    ) -> Result<ServerInput, Fatal> {
        let ClientFrame { request_id, body } = decode(payload, FRAME_BYTES_MAX)?;
        let wants_answer = request_id != 0;
        if wants_answer && self.in_flight.contains(&request_id) {
            let detail = format!("request_id: {request_id} is in flight");
            return Err(Fatal::protocol(ErrorCode::ErrorUnexpectedFrame, detail));
        }
        let mut body = match body {
            Some(client_frame::Body::Hello(_)) => {
                return Err(Fatal::protocol(ErrorCode::ErrorUnexpectedFrame, "a second hello"));
            }
            Some(client_frame::Body::Ping(_)) => {
                self.pong(now_ms, request_id, out);
                return Ok(ServerInput::Handled);
            }
            Some(body) if wants_answer || may_go_unanswered(&body) => body,
            None if wants_answer => {
                self.write_error(request_id, &invalid("body: no request that is known here"), out);
                return Ok(ServerInput::Handled);
            }
            _ => return Err(Fatal::protocol(ErrorCode::ErrorMalformedFrame, "request_id: 0 in a request")),
        };
        if let Err(error) = self.admit(request_id, &mut body) {
            self.write_error(request_id, &error, out);
            return Ok(ServerInput::Handled);
        }
        Ok(ServerInput::Request { request_id, body })
    }

    /// Checks the request, resolves its conversations and takes a place for it.
    fn admit(&mut self, request_id: u32, body: &mut client_frame::Body) -> Result<(), RequestError> {
        if request_id != 0 && self.in_flight.len() >= REQUESTS_IN_FLIGHT_MAX {
            let detail = format!("{REQUESTS_IN_FLIGHT_MAX} requests are in flight");
            let error = RequestError::new(ErrorCode::ErrorTooManyInFlight, detail);
            return Err(error.after_ms(IN_FLIGHT_RETRY_AFTER_MS));
        }
        requests::check(body)?;
        let handles = self.handles.as_ref();
        mentions::of_request(body, |mention| resolve(handles, mention))?;
        if request_id != 0 {
            self.in_flight.push(request_id);
        }
        Ok(())
    }

    fn pong(&mut self, now_ms: u64, request_id: u32, out: &mut BytesMut) {
        if request_id != 0 {
            let server_time_ms = (now_ms as i64).wrapping_add(self.clock_offset_ms) as u64;
            write(request_id, server_frame::Body::Pong(Pong { server_time_ms }), Vec::new(), out);
        }
    }

    fn write_error(&mut self, request_id: u32, error: &RequestError, out: &mut BytesMut) {
        write(request_id, server_frame::Body::Error(error.to_wire()), Vec::new(), out);
    }

    /// Writes a frame with handles in place of the conversations that have one or can get one.
    fn write(&mut self, request_id: u32, mut body: server_frame::Body, out: &mut BytesMut) {
        let mut bindings = Vec::new();
        if let Some(handles) = &mut self.handles {
            let Ok(()) = mentions::of_answer(&mut body, |mention| {
                shorten(handles, mention, &mut bindings);
                Ok::<(), std::convert::Infallible>(())
            });
        }
        write(request_id, body, bindings, out);
    }
}

/// Cursors and pings are the only frames that may forgo an answer.
fn may_go_unanswered(body: &client_frame::Body) -> bool {
    use client_frame::Body;
    matches!(body, Body::Delivered(_) | Body::Read(_) | Body::Ping(_))
}

/// Brings a mention into the form that code above the session sees: the id, and no handle.
fn resolve(handles: Option<&HandleTable>, mention: Mention<'_>) -> Result<(), RequestError> {
    let field = |name: &str| match mention.row {
        Some(row) => format!("cursors[{row}].{name}"),
        None => name.to_owned(),
    };
    match (*mention.handle, mention.conversation_id.len()) {
        (0, 16) => Ok(()),
        (0, 0) => Err(invalid(format!("{}: missing, and no handle", field("conversation_id")))),
        (0, bytes) => Err(invalid(format!("{}: {bytes} bytes, 16 expected", field("conversation_id")))),
        (handle, 0) => {
            let Some(id) = handles.and_then(|handles| handles.id(handle)) else {
                let detail = format!("{}: {handle} was not given", field("handle"));
                return Err(RequestError::new(ErrorCode::ErrorUnknownHandle, detail));
            };
            *mention.conversation_id = Bytes::copy_from_slice(id);
            *mention.handle = 0;
            Ok(())
        }
        (_, _) => Err(invalid(format!("{}: beside a handle", field("conversation_id")))),
    }
}

/// Puts a handle in place of the id: the known one, or a new one with its binding while there is room.
fn shorten(handles: &mut HandleTable, mention: Mention<'_>, bindings: &mut Vec<Binding>) {
    let Ok(id) = <[u8; 16]>::try_from(mention.conversation_id.as_ref()) else {
        debug_assert!(false, "code above the session names conversations by 16 bytes");
        return;
    };
    let handle = match handles.handle(&id) {
        Some(handle) => handle,
        None => {
            let Some(handle) = handles.bind(id) else { return };
            bindings.push(Binding { handle, conversation_id: std::mem::take(mention.conversation_id) });
            handle
        }
    };
    *mention.handle = handle;
    *mention.conversation_id = Bytes::new();
}

/// Appends one frame's payload. What is above the limit is replaced, an answer by an error and an event by
/// the demand to sync; its bindings are kept, for they are given.
fn write(request_id: u32, body: server_frame::Body, bindings: Vec<Binding>, out: &mut BytesMut) {
    let mut frame = ServerFrame { request_id, body: Some(body), bindings };
    if frame.encoded_len() > FRAME_BYTES_MAX {
        let error = RequestError::new(ErrorCode::ErrorInternal, "the answer is larger than a frame");
        frame.body = Some(match request_id {
            0 => server_frame::Body::SyncNeeded(SyncNeeded {}),
            _ => server_frame::Body::Error(error.to_wire()),
        });
    }
    frame.encode(out).expect("a BytesMut grows");
}

#[cfg(test)]
mod tests;

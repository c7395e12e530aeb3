//! Ringline's own protocol: the client half of `wire-protocol` behind length prefixes or WebSocket.
//!
//! ```text
//! native:     opened ------------------------> Hello -> Ready -> requests
//! WebSocket:  opened -> upgrade -> agreed ---> Hello -> Ready -> requests
//! ```
//!
//! The first connection of a device proves itself by a token that the benchmark key signs, later ones by the resume
//! token of the one before; where that is refused, the next one signs again. A room becomes a conversation by
//! [`Names`]; [`Request::Open`] is for the room's first member alone, whose group it is.

mod requests;
#[cfg(test)]
mod tests;
mod websocket;

use super::names::Names;
use super::targets::TargetNames;
use super::{ClientProtocol, DeviceMemory, NotSent, ProtocolEvent, ProtocolFault, Request, Token};
use crate::agent::engine::Clients;
use crate::agent::identity::Minter;
use crate::workload::population::{DeviceIndex, UserIndex};
use bytes::{Bytes, BytesMut};
use requests::{CatchUp, Pending, Wanted};
use std::sync::Arc;
use websocket::{Opening, Upgraded};
use wire_protocol::frame::{FrameDecoder, encode_frame};
use wire_protocol::limits::FRAME_BYTES_MAX;
use wire_protocol::session::{ClientEvent, ClientFault, ClientSession, Proof, RequestRefused};
use wire_protocol::v1::session_closing::Reason;
use wire_protocol::v1::{self, ErrorCode, client_frame};

/// What `Hello.client` says.
const CLIENT_NAME: &str = "ringline-bench";
/// First size of a frame's buffer, in bytes: a message of a usual size.
const FRAME_BYTES: usize = 512;
/// So long a server has to end a connection after its last frame, in microseconds; then the client does. A gateway ends it
/// once that frame is written.
const CLOSING_US_MAX: u64 = 2_000_000;
/// Microseconds of a hundredth of a second.
const CENTISECOND_US: u64 = 10_000;

/// How frames travel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Framing {
    /// Behind length prefixes.
    Native,
    /// As binary messages of a WebSocket.
    WebSocket {
        /// The `Host` header.
        host: String,
    },
}

/// What all connections of an agent share.
pub struct Shared {
    /// The run's ids.
    pub names: Arc<Names>,
    /// Signs for devices without a resume token.
    pub minter: Minter,
    /// How frames travel.
    pub framing: Framing,
    /// Heartbeat that is asked for, in seconds; 0: the server's own.
    pub heartbeat_s: u32,
    /// What the agent's clock showed as 0, in milliseconds since 1970.
    pub zero_wall_ms: u64,
    /// Where a gateway that leaves may send a device.
    pub targets: TargetNames,
}

/// A run's devices as clients of gateways.
pub struct RinglineClients {
    /// What their connections share.
    pub shared: Arc<Shared>,
}

impl Clients for RinglineClients {
    fn protocol(&mut self, device: DeviceIndex, memory: DeviceMemory) -> Box<dyn ClientProtocol> {
        Box::new(Ringline::new(Arc::clone(&self.shared), device, &memory))
    }
}

/// One connection of one device.
pub struct Ringline {
    shared: Arc<Shared>,
    /// Where to catch up from.
    since_version: u64,
    /// Of the last Ready; empty: there is none, or it was refused.
    resume_token: Box<[u8]>,
    session: ClientSession,
    codec: Codec,
    /// Requests without an answer, in no order. Unallocated while there are none.
    pending: Vec<Pending>,
    /// There is one at a time.
    catch_up: Option<Box<CatchUp>>,
    device: DeviceIndex,
    /// The server has said its last frame, and whatever follows says nothing: when its end is given up, in hundredths of a
    /// second of the agent's clock, which is half as large as microseconds. 0: it has not.
    give_up_cs: u32,
}

enum Codec {
    Native(FrameDecoder),
    /// The upgrade's answer has not come.
    Opening(Box<Opening>),
    WebSocket(Box<Upgraded>),
}

impl Ringline {
    /// For the next connection of `device`, with what its last one left.
    pub fn new(shared: Arc<Shared>, device: DeviceIndex, memory: &DeviceMemory) -> Self {
        // Nothing but `into_memory` writes it; what is no memory of ours is a device without one.
        let (since_version, resume_token) = match memory.0.split_first_chunk() {
            Some((version, token)) => (u64::from_be_bytes(*version), token.into()),
            None => (0, Box::default()),
        };
        let codec = match &shared.framing {
            Framing::Native => Codec::Native(FrameDecoder::new(FRAME_BYTES_MAX)),
            Framing::WebSocket { host } => Codec::Opening(Box::new(Opening::new(host, device))),
        };
        Self {
            shared,
            since_version,
            resume_token,
            session: ClientSession::new(0),
            codec,
            pending: Vec::new(),
            catch_up: None,
            device,
            give_up_cs: 0,
        }
    }

    /// When the server's end of the connection is given up; `None`: it has not said its last frame.
    fn give_up_us(&self) -> Option<u64> {
        (self.give_up_cs > 0).then(|| u64::from(self.give_up_cs) * CENTISECOND_US)
    }

    fn user(&self) -> UserIndex {
        self.shared.names.owner(self.device)
    }

    fn hello(&mut self, now_us: u64, out: &mut BytesMut) -> Result<(), ProtocolFault> {
        let proof = if self.resume_token.is_empty() {
            let names = &self.shared.names;
            let wall_ms = self.shared.zero_wall_ms + now_us / 1_000;
            let (user, device) = (names.user(self.user()), names.device(self.device));
            let token = self.shared.minter.mint(user, device, wall_ms);
            Proof::AccessToken(token.map_err(|error| ProtocolFault(error.to_string()))?)
        } else {
            Proof::ResumeToken(Bytes::copy_from_slice(&self.resume_token))
        };
        let mut payload = BytesMut::with_capacity(FRAME_BYTES);
        self.session.hello(proof, self.shared.heartbeat_s, CLIENT_NAME, &mut payload);
        self.write(&payload, out);
        Ok(())
    }

    fn write(&mut self, payload: &[u8], out: &mut BytesMut) {
        match &mut self.codec {
            Codec::Native(_) => encode_frame(payload, out),
            Codec::WebSocket(upgraded) => upgraded.write(payload, out),
            Codec::Opening(_) => unreachable!("the session is opened after the upgrade"),
        }
    }

    fn write_request(
        &mut self,
        now_us: u64,
        body: client_frame::Body,
        wanted: Wanted,
        out: &mut BytesMut,
    ) -> Result<(), RequestRefused> {
        let mut payload = BytesMut::with_capacity(FRAME_BYTES);
        let id = self.session.request(now_us / 1_000, body, &mut payload)?;
        self.write(&payload, out);
        self.pending.push(Pending { id, wanted });
        Ok(())
    }

    /// Hands whole frames on.
    fn take_frames(
        &mut self,
        now_us: u64,
        out: &mut BytesMut,
        events: &mut Vec<ProtocolEvent>,
    ) -> Result<(), ProtocolFault> {
        while self.give_up_cs == 0 {
            let payload = match &mut self.codec {
                Codec::Native(decoder) => {
                    decoder.next_frame().map_err(|error| ProtocolFault(error.to_string()))?
                }
                Codec::WebSocket(upgraded) => upgraded.next_payload(out)?,
                Codec::Opening(_) => None,
            };
            let Some(payload) = payload else { break };
            let event = self.session.handle_frame(now_us / 1_000, payload).map_err(fault)?;
            self.take_event(now_us, event, out, events)?;
        }
        Ok(())
    }

    fn take_event(
        &mut self,
        now_us: u64,
        event: ClientEvent,
        out: &mut BytesMut,
        events: &mut Vec<ProtocolEvent>,
    ) -> Result<(), ProtocolFault> {
        match event {
            ClientEvent::Ready(ready) => {
                if ready.user_id.as_ref() != self.shared.names.user(self.user()).0 {
                    return Err(ProtocolFault("ready: another user".into()));
                }
                self.resume_token = ready.resume_token.as_ref().into();
                events.push(ProtocolEvent::Ready);
            }
            ClientEvent::Answer { request_id, body } => {
                let place = self.pending.iter().position(|pending| pending.id == request_id);
                // The session lets no answer pass that belongs to no request.
                let Some(place) = place else { return Err(ProtocolFault("an answer to nothing".into())) };
                let Pending { wanted, .. } = self.pending.swap_remove(place);
                if self.pending.is_empty() {
                    self.pending = Vec::new();
                }
                self.take_answer(now_us, wanted, body, out, events)?;
            }
            ClientEvent::Event(body) => self.take_unasked(body, events),
            ClientEvent::Closing(closing) => {
                let give_up_cs = (now_us + CLOSING_US_MAX).div_ceil(CENTISECOND_US);
                self.give_up_cs = u32::try_from(give_up_cs).unwrap_or(u32::MAX);
                if closing.reason == Reason::Unauthenticated as i32 {
                    self.resume_token = Box::default();
                }
                let leaves = closing.reason == Reason::Draining as i32;
                let named = if leaves { closing.gateways.as_slice() } else { &[] };
                let go_to = self.shared.targets.known(named);
                let (code, retry_after_ms) = (closing_code(&closing), closing.retry_after_ms);
                events.push(ProtocolEvent::Closing { code, retry_after_ms, go_to });
            }
            ClientEvent::Handled => {}
        }
        Ok(())
    }
}

impl ClientProtocol for Ringline {
    fn opened(&mut self, now_us: u64, out: &mut BytesMut) {
        self.session = ClientSession::new(now_us / 1_000);
        match &mut self.codec {
            Codec::Opening(opening) => opening.begin(out),
            // Only signing can fail, for want of a proper key, which the minter has. Without a hello the session
            // times out and says so.
            _ => self.hello(now_us, out).unwrap_or_default(),
        }
    }

    fn received(
        &mut self,
        now_us: u64,
        bytes: &[u8],
        out: &mut BytesMut,
        events: &mut Vec<ProtocolEvent>,
    ) -> Result<(), ProtocolFault> {
        if self.give_up_us().is_some() {
            return Ok(());
        }
        match &mut self.codec {
            Codec::Native(decoder) => decoder.push(bytes),
            Codec::WebSocket(upgraded) => upgraded.push(bytes),
            Codec::Opening(opening) => {
                if let Some(upgraded) = opening.received(bytes)? {
                    self.codec = Codec::WebSocket(Box::new(upgraded));
                    self.hello(now_us, out)?;
                }
            }
        }
        self.take_frames(now_us, out, events)
    }

    fn request(
        &mut self,
        now_us: u64,
        token: Token,
        request: &Request,
        out: &mut BytesMut,
    ) -> Result<(), NotSent> {
        if !self.session.is_ready() {
            return Err(NotSent::NotReady);
        }
        let catches_up = matches!(request, Request::CatchUp { .. });
        if !self.session.can_request() || (catches_up && self.catch_up.is_some()) {
            return Err(NotSent::Full);
        }
        let (body, wanted) = self.translate(token, request)?;
        if let Request::CatchUp { from, .. } = request {
            self.catch_up = Some(Box::new(CatchUp::new(token, self.cursors(from))));
        }
        self.write_request(now_us, body, wanted, out).map_err(|refused| match refused {
            RequestRefused::NotReady => NotSent::NotReady,
            RequestRefused::TooManyInFlight => NotSent::Full,
        })
    }

    fn poll_timeout(&self) -> Option<u64> {
        self.give_up_us().or_else(|| Some(self.session.poll_timeout()?.saturating_mul(1_000)))
    }

    fn handle_timeout(&mut self, now_us: u64, out: &mut BytesMut) -> Result<(), ProtocolFault> {
        if let Some(give_up_us) = self.give_up_us() {
            let is_over = now_us >= give_up_us;
            return if is_over { Err(ProtocolFault("closing: the end did not come".into())) } else { Ok(()) };
        }
        let mut payload = BytesMut::new();
        self.session.handle_timeout(now_us / 1_000, &mut payload).map_err(fault)?;
        if !payload.is_empty() {
            self.write(&payload, out);
        }
        Ok(())
    }

    fn into_memory(self: Box<Self>) -> DeviceMemory {
        let version = self.since_version.to_be_bytes();
        DeviceMemory(Bytes::from([&version[..], &self.resume_token].concat()))
    }
}

fn fault(fault: ClientFault) -> ProtocolFault {
    ProtocolFault(fault.to_string())
}

/// The wire's name of an error.
fn error_code(code: i32) -> String {
    ErrorCode::try_from(code).map_or_else(|_| format!("ERROR_{code}"), |code| code.as_str_name().to_owned())
}

/// The reason's name, and the error's where there is one: "UNAUTHENTICATED/ERROR_TOKEN_EXPIRED".
fn closing_code(closing: &v1::SessionClosing) -> String {
    let reason = Reason::try_from(closing.reason)
        .map_or_else(|_| format!("REASON_{}", closing.reason), |reason| reason.as_str_name().to_owned());
    match closing.code {
        0 => reason,
        code => format!("{reason}/{}", error_code(code)),
    }
}

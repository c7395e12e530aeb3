//! One connection from ciphertext to frames and back, without its socket.

use super::opening::{Decision, Opening};
use super::{FrameFault, TransportKind};
use crate::ring::{SendBuffer, SendBuffers};
use crate::tls::{Handshake, Received, TlsFailure, TlsSession, ciphertext_bytes_max};
use bytes::{Buf, Bytes, BytesMut};
use wire_protocol::frame::{FrameDecoder, FrameError, encode_frame};
use wire_protocol::limits::{ALPN_HTTP, ALPN_NATIVE, HELLO_FRAME_BYTES_MAX, OUTBOX_BYTES_MAX};
use wire_protocol::websocket::{self, CloseCode, Item, Violation};

/// What a client's bytes turned out to be.
#[derive(Debug)]
pub enum TransportEvent {
    /// TLS is ready; what is spoken over it is not known yet.
    Secured(Handshake),
    /// Frames are spoken, in this way.
    Opened(TransportKind),
    /// One frame payload.
    Frame(Bytes),
    /// HTTP is spoken: everything read so far.
    Http(Bytes),
    /// More bytes of HTTP.
    HttpBytes(Bytes),
    /// The client sends nothing more, but reads on: HTTP only.
    HttpEnd,
}

/// Why nothing more is read from the client.
#[derive(Clone, PartialEq, Debug)]
pub enum Ending {
    /// It said so: close_notify, or a WebSocket close, which was answered.
    Peer,
    /// Its request was refused, and the answer is queued.
    Refused,
    /// The TLS handshake failed; an alert may be queued.
    Handshake(TlsFailure),
    /// TLS broke afterwards; an alert may be queued.
    Tls(TlsFailure),
    /// It broke the framing.
    Frames(FrameFault),
}

/// TLS, protocol and outbox of one client.
pub struct Connection {
    /// `None`: plain text.
    security: Option<Box<TlsSession>>,
    protocol: Protocol,
    /// Framed plaintext that waits to be sent. Unallocated when empty.
    outbox: BytesMut,
    /// What the last [`Self::next_send`] gave and has not been sent.
    in_flight_bytes: u32,
    /// What a WebSocket close frame will say.
    close_code: CloseCode,
    /// `false`: what the client sends is dropped.
    reading: bool,
    /// The decoder may have frames that were not asked for: see [`Self::is_unfinished`].
    unfinished: bool,
    /// After those frames comes close_notify.
    peer_closed: bool,
    /// Nothing more is queued; after the outbox comes the farewell.
    closing: bool,
    /// close_notify was queued.
    farewell: bool,
}

/// What is spoken.
enum Protocol {
    Opening(Box<Opening>),
    Native(FrameDecoder),
    WebSocket(Box<websocket::Decoder>),
    Http,
}

impl Connection {
    /// A client that has not said anything yet.
    pub fn new(security: Option<TlsSession>) -> Self {
        Self {
            security: security.map(Box::new),
            protocol: Protocol::Opening(Box::new(Opening::sniff())),
            outbox: BytesMut::new(),
            in_flight_bytes: 0,
            close_code: CloseCode::NORMAL,
            reading: true,
            unfinished: false,
            peer_closed: false,
            closing: false,
            farewell: false,
        }
    }

    /// Whether TLS protects it.
    pub fn is_secure(&self) -> bool {
        self.security.is_some()
    }

    /// Whether it speaks HTTP, other than WebSocket.
    pub fn is_http(&self) -> bool {
        matches!(self.protocol, Protocol::Http)
    }

    /// Takes bytes from the socket, changing them, and gives at most `frames_max` frames. `scratch` is any buffer, used
    /// for plaintext. While it [is unfinished](Self::is_unfinished) it takes no bytes, and gives more of what it has.
    pub fn receive(
        &mut self,
        bytes: &mut [u8],
        scratch: &mut Vec<u8>,
        origins: &[String],
        frames_max: u32,
        sink: &mut impl FnMut(TransportEvent),
    ) -> Result<(), Ending> {
        if !self.reading {
            return Ok(());
        }
        let mut allowed = Allowed { origins, frames: frames_max };
        let outcome = if self.unfinished {
            debug_assert!(bytes.is_empty(), "what came before comes first");
            self.receive_rest(&mut allowed, sink)
        } else {
            self.receive_while_reading(bytes, scratch, &mut allowed, sink)
        };
        if outcome.is_err() {
            self.reading = false;
        }
        outcome
    }

    /// Whether frames that were received may not have been given yet.
    pub fn is_unfinished(&self) -> bool {
        self.unfinished && self.reading
    }

    /// The socket has no more. `Ok`: the client still reads.
    pub fn receive_end(&mut self, sink: &mut impl FnMut(TransportEvent)) -> Result<(), Ending> {
        if !std::mem::take(&mut self.reading) {
            return Ok(());
        }
        match self.protocol {
            Protocol::Http => {
                sink(TransportEvent::HttpEnd);
                Ok(())
            }
            _ => Err(Ending::Peer),
        }
    }

    /// Queues a frame payload; `false` if the outbox has no room for it.
    pub fn queue_frame(&mut self, payload: &[u8]) -> bool {
        debug_assert!(!self.closing, "nothing follows the farewell");
        if self.queued_bytes() + payload.len() + websocket::HEADER_BYTES_MAX > OUTBOX_BYTES_MAX {
            return false;
        }
        match self.protocol {
            Protocol::WebSocket(_) => websocket::encode_binary(payload, &mut self.outbox),
            _ => encode_frame(payload, &mut self.outbox),
        }
        true
    }

    /// Queues bytes as they are; `false` if the outbox has no room for them.
    pub fn queue_raw(&mut self, bytes: &[u8]) -> bool {
        debug_assert!(!self.closing, "nothing follows the farewell");
        let fits = self.queued_bytes() + bytes.len() <= OUTBOX_BYTES_MAX;
        if fits {
            self.outbox.extend_from_slice(bytes);
        }
        fits
    }

    /// The largest frame payload taken from now on.
    pub fn set_frame_bytes_max(&mut self, frame_bytes_max: usize) {
        match &mut self.protocol {
            Protocol::Native(decoder) => decoder.set_payload_bytes_max(frame_bytes_max),
            Protocol::WebSocket(decoder) => decoder.set_message_bytes_max(frame_bytes_max),
            Protocol::Opening(_) | Protocol::Http => {}
        }
    }

    /// Ends the conversation after what is queued: a WebSocket close frame, then close_notify.
    pub fn close(&mut self) {
        if !std::mem::replace(&mut self.closing, true) {
            if let Protocol::WebSocket(_) = self.protocol {
                websocket::encode_close(self.close_code, "", &mut self.outbox);
            }
            self.reading = false;
        }
    }

    /// Bytes queued and not known to be sent.
    pub fn queued_bytes(&self) -> usize {
        let records = self.security.as_ref().map_or(0, |tls| tls.outgoing().len());
        self.outbox.len() + records + self.in_flight_bytes as usize
    }

    /// Whether [`Self::next_send`] would give something.
    pub fn wants_send(&self) -> bool {
        if self.in_flight_bytes > 0 {
            return false;
        }
        let records = self.security.as_ref().is_some_and(|tls| !tls.outgoing().is_empty());
        records || !self.outbox.is_empty() || self.wants_farewell()
    }

    /// Whether everything was sent, farewell included.
    pub fn is_flushed(&self) -> bool {
        self.queued_bytes() == 0 && !self.wants_farewell()
    }

    /// The next bytes for the socket: records as full as what is queued allows. One at a time:
    /// [`Self::sent`] before the next.
    pub fn next_send(&mut self, buffers: &mut SendBuffers) -> Result<Option<SendBuffer>, TlsFailure> {
        if !self.wants_send() {
            return Ok(None);
        }
        let buffer = match &mut self.security {
            None => {
                let mut buffer = buffers.take(self.outbox.len());
                let taken = buffer.append(&self.outbox);
                self.outbox.advance(taken);
                buffer
            }
            Some(tls) => {
                let mut buffer = buffers.take(tls.outgoing().len() + ciphertext_bytes_max(self.outbox.len()));
                drain_outgoing(tls, &mut buffer);
                if tls.outgoing().is_empty() && !self.outbox.is_empty() {
                    let encrypted = tls.encrypt(&self.outbox, buffer.spare_mut())?;
                    buffer.fill(encrypted.ciphertext);
                    self.outbox.advance(encrypted.plaintext);
                }
                if self.closing && self.outbox.is_empty() && !std::mem::replace(&mut self.farewell, true) {
                    tls.close();
                    drain_outgoing(tls, &mut buffer);
                }
                buffer
            }
        };
        if self.outbox.is_empty() {
            self.outbox = BytesMut::new();
        }
        if buffer.unsent().is_empty() {
            buffers.give_back(buffer);
            return Ok(None);
        }
        self.in_flight_bytes = buffer.unsent().len() as u32;
        Ok(Some(buffer))
    }

    /// What [`Self::next_send`] gave has been sent.
    pub fn sent(&mut self) {
        self.in_flight_bytes = 0;
    }

    fn wants_farewell(&self) -> bool {
        self.closing && !self.farewell && self.security.is_some()
    }

    fn receive_rest(
        &mut self,
        allowed: &mut Allowed<'_>,
        sink: &mut impl FnMut(TransportEvent),
    ) -> Result<(), Ending> {
        self.receive_plaintext(&[], allowed, sink)?;
        if self.peer_closed && !self.unfinished { Err(Ending::Peer) } else { Ok(()) }
    }

    fn receive_while_reading(
        &mut self,
        bytes: &mut [u8],
        scratch: &mut Vec<u8>,
        allowed: &mut Allowed<'_>,
        sink: &mut impl FnMut(TransportEvent),
    ) -> Result<(), Ending> {
        let Some(tls) = &mut self.security else {
            return self.receive_plaintext(bytes, allowed, sink);
        };
        scratch.clear();
        let handshaking = tls.is_handshaking();
        let mut received = Received::default();
        let outcome = tls.receive(bytes, scratch, &mut received);
        if let Some(handshake) = received.finished {
            let alpn = tls.alpn().map(|name| (name == ALPN_NATIVE, name == ALPN_HTTP));
            sink(TransportEvent::Secured(handshake));
            match alpn {
                Some((true, _)) => self.open_native(sink),
                Some((_, true)) => self.protocol = Protocol::Opening(Box::new(Opening::http())),
                _ => {}
            }
        }
        // What came before a broken record is still the client's word.
        if !scratch.is_empty() {
            self.receive_plaintext(scratch, allowed, sink)?;
        }
        match outcome {
            Err(failure) if handshaking && received.finished.is_none() => Err(Ending::Handshake(failure)),
            Err(failure) => Err(Ending::Tls(failure)),
            Ok(()) if received.peer_closed && self.unfinished => {
                self.peer_closed = true;
                Ok(())
            }
            Ok(()) if received.peer_closed => self.receive_end(sink),
            Ok(()) => Ok(()),
        }
    }

    fn receive_plaintext(
        &mut self,
        bytes: &[u8],
        allowed: &mut Allowed<'_>,
        sink: &mut impl FnMut(TransportEvent),
    ) -> Result<(), Ending> {
        match &mut self.protocol {
            Protocol::Opening(opening) => {
                let secure = self.security.is_some();
                match opening.receive(bytes, secure, allowed.origins) {
                    None => Ok(()),
                    Some(decision) => self.decide(decision, allowed, sink),
                }
            }
            Protocol::Native(decoder) => {
                decoder.push(bytes);
                self.unfinished = give_native(decoder, allowed, sink)?;
                Ok(())
            }
            Protocol::WebSocket(decoder) => {
                decoder.push(bytes);
                self.unfinished = self.give_websocket(allowed, sink)?;
                Ok(())
            }
            Protocol::Http => {
                sink(TransportEvent::HttpBytes(Bytes::copy_from_slice(bytes)));
                Ok(())
            }
        }
    }

    fn decide(
        &mut self,
        decision: Decision,
        allowed: &mut Allowed<'_>,
        sink: &mut impl FnMut(TransportEvent),
    ) -> Result<(), Ending> {
        let read = match decision {
            Decision::Native { read } => {
                self.open_native(sink);
                read
            }
            Decision::WebSocket { response, origin, read } => {
                self.outbox.extend_from_slice(&response);
                let decoder = websocket::Decoder::new(HELLO_FRAME_BYTES_MAX);
                self.protocol = Protocol::WebSocket(Box::new(decoder));
                sink(TransportEvent::Opened(TransportKind::WebSocket { origin }));
                read
            }
            Decision::Http { read } => {
                self.protocol = Protocol::Http;
                sink(TransportEvent::Http(Bytes::from(read)));
                return Ok(());
            }
            Decision::Refused { response } => {
                self.outbox.extend_from_slice(&response);
                return Err(Ending::Refused);
            }
        };
        if read.is_empty() { Ok(()) } else { self.receive_plaintext(&read, allowed, sink) }
    }

    fn open_native(&mut self, sink: &mut impl FnMut(TransportEvent)) {
        self.protocol = Protocol::Native(FrameDecoder::new(HELLO_FRAME_BYTES_MAX));
        sink(TransportEvent::Opened(TransportKind::Native));
    }

    /// Whether there may be more. Control frames count, too.
    fn give_websocket(
        &mut self,
        allowed: &mut Allowed<'_>,
        sink: &mut impl FnMut(TransportEvent),
    ) -> Result<bool, Ending> {
        let Protocol::WebSocket(decoder) = &mut self.protocol else { return Ok(false) };
        while allowed.take_frame() {
            match decoder.next_item() {
                Ok(None) => return Ok(false),
                Ok(Some(Item::Binary(payload))) => sink(TransportEvent::Frame(payload)),
                Ok(Some(Item::Ping(payload))) => {
                    // Whoever pings without reading the answers gets fewer of them: RFC 6455 allows that.
                    if self.outbox.len() < OUTBOX_BYTES_MAX / 2 {
                        websocket::encode_pong(&payload, &mut self.outbox);
                    }
                }
                Ok(Some(Item::Pong(_))) => {}
                Ok(Some(Item::Text(_))) => {
                    self.close_code = CloseCode::UNSUPPORTED;
                    return Err(Ending::Frames(FrameFault::Text));
                }
                Ok(Some(Item::Close { code, .. })) => {
                    self.close_code = code.unwrap_or(CloseCode::NORMAL);
                    return Err(Ending::Peer);
                }
                Err(violation) => {
                    self.close_code = violation.close_code();
                    return Err(Ending::Frames(match violation {
                        Violation::MessageTooLarge { .. } => FrameFault::TooLarge,
                        _ => FrameFault::Malformed,
                    }));
                }
            }
        }
        Ok(true)
    }
}

/// What may come of bytes.
struct Allowed<'a> {
    /// Whose pages may open a WebSocket, beside our own.
    origins: &'a [String],
    /// Frames that may still be given.
    frames: u32,
}

impl Allowed<'_> {
    fn take_frame(&mut self) -> bool {
        let left = self.frames.checked_sub(1);
        self.frames = left.unwrap_or(0);
        left.is_some()
    }
}

/// Whether there may be more.
fn give_native(
    decoder: &mut FrameDecoder,
    allowed: &mut Allowed<'_>,
    sink: &mut impl FnMut(TransportEvent),
) -> Result<bool, Ending> {
    while allowed.take_frame() {
        match decoder.next_frame() {
            Ok(Some(payload)) => sink(TransportEvent::Frame(payload)),
            Ok(None) => return Ok(false),
            Err(FrameError::TooLarge { .. }) => return Err(Ending::Frames(FrameFault::TooLarge)),
            Err(FrameError::LengthOverlong) => return Err(Ending::Frames(FrameFault::Malformed)),
        }
    }
    Ok(true)
}

fn drain_outgoing(tls: &mut TlsSession, buffer: &mut SendBuffer) {
    let taken = buffer.append(tls.outgoing());
    if taken > 0 {
        tls.take_outgoing(taken);
    }
}

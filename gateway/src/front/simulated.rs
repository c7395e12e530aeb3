//! Clients of a simulation: connections without sockets, whose bytes it brings and takes. Frames are cut by the real
//! decoder. There is no TLS, no WebSocket, no HTTP, and no hello deadline; an outbox is as large as a real one.

use super::{CloseReason, ConnectionToken, FrameFault, FrontEvent, FrontMetrics, SendRefused, TransportKind};
use bytes::{Bytes, BytesMut};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use wire_protocol::frame::{FrameDecoder, FrameError, encode_frame};
use wire_protocol::limits::{HELLO_FRAME_BYTES_MAX, OUTBOX_BYTES_MAX};

/// All client connections of one simulated core.
#[derive(Default)]
pub struct SimClients {
    clients: BTreeMap<u32, SimClient>,
    events: Vec<FrontEvent>,
    generation_last: u32,
    /// Nobody new is let in: the core ends.
    is_shut: bool,
}

struct SimClient {
    generation: u32,
    peer: SocketAddr,
    decoder: FrameDecoder,
    /// The loop knows of it.
    told: bool,
    paused: bool,
    closing: bool,
    out: BytesMut,
}

impl SimClients {
    /// Whether there is still a listener to connect to.
    pub fn accepts(&self) -> bool {
        !self.is_shut
    }

    /// A client connected.
    pub fn connect(&mut self, peer: SocketAddr) -> ConnectionToken {
        self.generation_last += 1;
        let slot = (0..).find(|slot| !self.clients.contains_key(slot)).expect("there are few");
        let client = SimClient {
            generation: self.generation_last,
            peer,
            decoder: FrameDecoder::new(HELLO_FRAME_BYTES_MAX),
            told: false,
            paused: false,
            closing: false,
            out: BytesMut::new(),
        };
        self.clients.insert(slot, client);
        ConnectionToken { slot, generation: self.generation_last }
    }

    /// Bytes of a client arrived.
    pub fn receive(&mut self, token: ConnectionToken, bytes: &[u8]) {
        let Some(client) = self.clients.get_mut(&token.slot).filter(|it| it.generation == token.generation)
        else {
            return;
        };
        client.decoder.push(bytes);
        deliver(token, client, &mut self.events);
    }

    /// What was sent to a client. `None`: the connection is closed, and this was all.
    pub fn take_sent(&mut self, token: ConnectionToken) -> Option<BytesMut> {
        let client = self.client_mut(token)?;
        let sent = client.out.split();
        if client.closing && sent.is_empty() {
            self.remove(token, CloseReason::Ours);
            return None;
        }
        Some(sent)
    }

    /// The client's connection is gone.
    pub fn hang_up(&mut self, token: ConnectionToken) {
        if self.client_mut(token).is_some() {
            self.remove(token, CloseReason::Peer);
        }
    }

    fn client_mut(&mut self, token: ConnectionToken) -> Option<&mut SimClient> {
        self.clients.get_mut(&token.slot).filter(|client| client.generation == token.generation)
    }

    fn remove(&mut self, token: ConnectionToken, reason: CloseReason) {
        if self.clients.remove(&token.slot).is_some_and(|client| client.told) {
            self.events.push(FrontEvent::Closed { token, reason });
        }
    }

    pub(super) fn turn(&mut self, _now_ms: u64, events: &mut Vec<FrontEvent>) {
        events.append(&mut self.events);
    }

    pub(super) fn send(&mut self, token: ConnectionToken, payload: &[u8]) -> Result<(), SendRefused> {
        let client = self.client_mut(token).filter(|client| !client.closing).ok_or(SendRefused::Gone)?;
        if client.out.len() + payload.len() > OUTBOX_BYTES_MAX {
            return Err(SendRefused::Full);
        }
        encode_frame(payload, &mut client.out);
        Ok(())
    }

    pub(super) fn send_raw(&mut self, _token: ConnectionToken, _bytes: Bytes) -> Result<(), SendRefused> {
        Err(SendRefused::Gone)
    }

    pub(super) fn close(&mut self, token: ConnectionToken) {
        if let Some(client) = self.client_mut(token) {
            client.closing = true;
        }
    }

    pub(super) fn pause(&mut self, token: ConnectionToken) -> bool {
        self.client_mut(token).is_some_and(|client| !std::mem::replace(&mut client.paused, true))
    }

    pub(super) fn resume(&mut self, token: ConnectionToken) {
        let mut events = std::mem::take(&mut self.events);
        if let Some(client) = self.client_mut(token) {
            client.paused = false;
            deliver(token, client, &mut events);
        }
        self.events = events;
    }

    pub(super) fn set_frame_bytes_max(&mut self, token: ConnectionToken, frame_bytes_max: usize) {
        if let Some(client) = self.client_mut(token) {
            client.decoder.set_payload_bytes_max(frame_bytes_max);
        }
    }

    pub(super) fn queued_bytes(&self, token: ConnectionToken) -> usize {
        let client = self.clients.get(&token.slot).filter(|client| client.generation == token.generation);
        client.map_or(0, |client| client.out.len())
    }

    pub(super) fn flush(&mut self, _now_ms: u64) {}

    pub(super) fn next_deadline_ms(&self) -> Option<u64> {
        (!self.events.is_empty()).then_some(0)
    }

    pub(super) fn stop_accepting(&mut self) {
        self.is_shut = true;
    }

    pub(super) fn connection_count(&self) -> usize {
        self.clients.len()
    }

    pub(super) fn metrics(&self) -> FrontMetrics {
        FrontMetrics { connections: self.clients.len() as u64, ..FrontMetrics::default() }
    }
}

/// Tells of whole frames.
fn deliver(token: ConnectionToken, client: &mut SimClient, events: &mut Vec<FrontEvent>) {
    while !client.paused && !client.closing {
        let payload = match client.decoder.next_frame() {
            Ok(Some(payload)) => payload,
            Ok(None) => return,
            Err(error) => {
                let fault = match error {
                    FrameError::TooLarge { .. } => FrameFault::TooLarge,
                    _ => FrameFault::Malformed,
                };
                events.push(FrontEvent::Malformed { token, fault });
                return;
            }
        };
        if !std::mem::replace(&mut client.told, true) {
            let (peer, kind) = (client.peer, TransportKind::Native);
            events.push(FrontEvent::Opened { token, peer, kind, secure: true });
        }
        events.push(FrontEvent::Frame { token, payload });
    }
}

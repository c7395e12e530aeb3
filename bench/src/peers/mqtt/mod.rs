//! MQTT 3.1.1 with quality of service 1 and a session that the server keeps: a client of Mosquitto.
//!
//! ```text
//! CONNECT -> CONNACK -> (SUBSCRIBE -> SUBACK) -> Ready -> PUBLISH -> PUBACK …
//! ```
//!
//! A subscription that both sides remember is not asked for again. What came while the device was away is sent by
//! the server as soon as the session is there, in order and before anything newer. There is no word for "that was
//! all", so [`Request::CatchUp`] sends a marker to the device itself: when it comes back, everything that was queued
//! before it has come. At least once: after a reconnect a message may come again.

mod packet;

use super::heartbeat::{Beat, Heartbeat};
use super::names::{Names, Place};
use super::partial::{Partial, fault};
use crate::agent::protocol::{
    ClientProtocol, DeviceMemory, Message, NotSent, ProtocolEvent, ProtocolFault, Request, Token,
};
use bytes::{Bytes, BytesMut};
use packet::{PACKET_BYTES_MAX, Packet};
use std::collections::VecDeque;

/// Unanswered packets of one device: far below the 65,535 packet ids, far above what a device of a plan has.
const UNANSWERED_MAX: usize = 1024;
/// Bytes of a marker: a token and a moment.
const MARKER_BYTES: usize = 16;
/// In a device's memory: the server has confirmed the subscriptions.
const SUBSCRIBED: &[u8] = b"subscribed";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Connecting,
    Subscribing,
    Ready,
    Closed,
}

/// What an unanswered packet was for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Purpose {
    Subscribe,
    Send(Token),
    Marker,
}

/// One device's half of a connection.
#[derive(Debug)]
pub struct Mqtt {
    names: Names,
    stage: Stage,
    subscribed: bool,
    partial: Partial,
    heartbeat: Heartbeat,
    id_next: u16,
    unanswered: VecDeque<(u16, Purpose)>,
    /// Pings without an answer, and who waits for it.
    pings: VecDeque<Option<Token>>,
    marker: Option<(Token, [u8; MARKER_BYTES])>,
}

impl Mqtt {
    /// For a new connection of a device.
    pub fn new(names: Names, memory: &DeviceMemory) -> Self {
        let heartbeat = Heartbeat::new(names.heartbeat_s);
        Self {
            names,
            stage: Stage::Connecting,
            subscribed: memory.0 == SUBSCRIBED,
            partial: Partial::default(),
            heartbeat,
            id_next: 1,
            unanswered: VecDeque::new(),
            pings: VecDeque::new(),
            marker: None,
        }
    }

    fn marker_topic(&self) -> String {
        format!("{}/m/{}", self.names.run(), self.names.device.0)
    }

    fn handle(
        &mut self,
        packet: Packet<'_>,
        out: &mut BytesMut,
        events: &mut Vec<ProtocolEvent>,
    ) -> Result<(), ProtocolFault> {
        match (packet, self.stage) {
            (_, Stage::Closed) => {}
            (Packet::ConnAck { session_present, code: 0 }, Stage::Connecting) => {
                self.welcomed(session_present, out, events);
            }
            (Packet::ConnAck { code, .. }, Stage::Connecting) => {
                self.stage = Stage::Closed;
                events.push(ProtocolEvent::Closing {
                    code: refusal(code),
                    retry_after_ms: 0,
                    go_to: Vec::new(),
                });
            }
            (_, Stage::Connecting) | (Packet::ConnAck { .. }, _) => {
                return Err(fault("the welcome came not first, or twice"));
            }
            (Packet::Publish { id, topic, payload }, _) => {
                self.message(topic, payload, events)?;
                if let Some(id) = id {
                    packet::puback(out, id);
                }
            }
            (Packet::PubAck(id), _) => match self.answered(id)? {
                Purpose::Send(token) => events.push(ProtocolEvent::Accepted { token, seq: None }),
                Purpose::Marker => {}
                Purpose::Subscribe => return Err(fault("a subscription was answered as a message")),
            },
            (Packet::SubAck { id, codes }, _) => {
                if self.answered(id)? != Purpose::Subscribe || codes.iter().any(|code| *code != 1) {
                    return Err(fault(format!("the subscription was answered {codes:?}")));
                }
                self.subscribed = true;
                self.ready(events);
            }
            (Packet::PingResp, _) => {
                let waiting = self.pings.pop_front().ok_or_else(|| fault("a ping was answered twice"))?;
                events.extend(waiting.map(ProtocolEvent::Done));
            }
        }
        Ok(())
    }

    fn welcomed(&mut self, session_present: bool, out: &mut BytesMut, events: &mut Vec<ProtocolEvent>) {
        if session_present && self.subscribed {
            return self.ready(events);
        }
        self.subscribed = false;
        self.stage = Stage::Subscribing;
        let mut filters = self.names.filters('/', '+');
        filters.push(self.marker_topic());
        let id = self.take_id(Purpose::Subscribe);
        packet::subscribe(out, id, &filters);
    }

    fn ready(&mut self, events: &mut Vec<ProtocolEvent>) {
        self.stage = Stage::Ready;
        events.push(ProtocolEvent::Ready);
    }

    fn message(
        &mut self,
        topic: &str,
        payload: &[u8],
        events: &mut Vec<ProtocolEvent>,
    ) -> Result<(), ProtocolFault> {
        if topic == self.marker_topic() {
            // Markers of earlier connections, and repeated ones, say nothing.
            if let Some((token, _)) = self.marker.take_if(|(_, marker)| marker == payload) {
                events.push(ProtocolEvent::CaughtUp(token));
            }
            return Ok(());
        }
        match self.names.place(topic, '/') {
            Some(Place::Room(room)) => {
                let body = Bytes::copy_from_slice(payload);
                events.push(ProtocolEvent::Message(Message { room, seq: None, body }));
                Ok(())
            }
            Some(Place::Echo) => Ok(()),
            None => Err(fault(format!("a message for {topic:?}, to which nobody listens"))),
        }
    }

    /// A packet id that no unanswered packet has.
    fn take_id(&mut self, purpose: Purpose) -> u16 {
        loop {
            let id = self.id_next;
            self.id_next = self.id_next.checked_add(1).unwrap_or(1);
            if !self.unanswered.iter().any(|(taken, _)| *taken == id) {
                self.unanswered.push_back((id, purpose));
                return id;
            }
        }
    }

    fn answered(&mut self, id: u16) -> Result<Purpose, ProtocolFault> {
        let place = self.unanswered.iter().position(|(other, _)| *other == id);
        let found = place.and_then(|place| self.unanswered.remove(place));
        found
            .map(|(_, purpose)| purpose)
            .ok_or_else(|| fault(format!("an answer to packet {id}, never sent")))
    }
}

fn refusal(code: u8) -> String {
    match code {
        1 => "protocol_version".into(),
        2 => "client_id".into(),
        3 => "server_unavailable".into(),
        4 => "bad_credentials".into(),
        5 => "not_authorized".into(),
        other => format!("connack_{other}"),
    }
}

impl ClientProtocol for Mqtt {
    fn opened(&mut self, now_us: u64, out: &mut BytesMut) {
        self.heartbeat.opened(now_us);
        let client_id = format!("{}d{}", self.names.run(), self.names.device.0);
        // The server gives up after one and a half of it. Beyond 18 hours none is asked for.
        packet::connect(out, &client_id, u16::try_from(self.names.heartbeat_s).unwrap_or(0));
    }

    fn received(
        &mut self,
        now_us: u64,
        bytes: &[u8],
        out: &mut BytesMut,
        events: &mut Vec<ProtocolEvent>,
    ) -> Result<(), ProtocolFault> {
        self.heartbeat.received(now_us);
        let mut partial = std::mem::take(&mut self.partial);
        partial.feed(bytes, PACKET_BYTES_MAX, |bytes| match packet::decode(bytes)? {
            None => Ok(0),
            Some((packet, taken)) => self.handle(packet, out, events).map(|()| taken),
        })?;
        self.partial = partial;
        Ok(())
    }

    fn request(
        &mut self,
        now_us: u64,
        token: Token,
        request: &Request,
        out: &mut BytesMut,
    ) -> Result<(), NotSent> {
        if self.stage != Stage::Ready {
            return Err(NotSent::NotReady);
        }
        if self.unanswered.len() + self.pings.len() >= UNANSWERED_MAX {
            return Err(NotSent::Full);
        }
        match request {
            Request::Send { room, body, .. } => {
                let topic = self.names.topic(*room, '/');
                let id = self.take_id(Purpose::Send(token));
                packet::publish_once(out, id, &topic, body);
            }
            // Topics exist by being used; the answer is a round trip.
            Request::Open(_) => {
                self.pings.push_back(Some(token));
                packet::pingreq(out);
            }
            Request::CatchUp { .. } => {
                if self.marker.is_some() {
                    return Err(NotSent::Full);
                }
                let mut marker = [0; MARKER_BYTES];
                marker[..8].copy_from_slice(&token.0.to_be_bytes());
                marker[8..].copy_from_slice(&now_us.to_be_bytes());
                self.marker = Some((token, marker));
                let topic = self.marker_topic();
                let id = self.take_id(Purpose::Marker);
                packet::publish_once(out, id, &topic, &marker);
            }
            Request::History { .. } | Request::Delivered { .. } | Request::Read { .. } => {
                return Err(NotSent::Unsupported);
            }
        }
        Ok(())
    }

    fn poll_timeout(&self) -> Option<u64> {
        self.heartbeat.poll_timeout()
    }

    fn handle_timeout(&mut self, now_us: u64, out: &mut BytesMut) -> Result<(), ProtocolFault> {
        if self.heartbeat.check(now_us)? == Beat::Ping && self.stage != Stage::Connecting {
            self.pings.push_back(None);
            packet::pingreq(out);
        }
        Ok(())
    }

    fn into_memory(self: Box<Self>) -> DeviceMemory {
        DeviceMemory(if self.subscribed { Bytes::from_static(SUBSCRIBED) } else { Bytes::new() })
    }
}

#[cfg(test)]
mod tests;

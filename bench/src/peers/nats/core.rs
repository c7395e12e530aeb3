//! Core NATS: messages pass by. Nothing is kept, and a message is never acknowledged, so "accepted" is the weakest
//! that can be seen at all: the server has answered a ping that stood behind the message, and has therefore taken
//! the message from its socket and put it into the buffers of those who listen at that moment.

use super::op::{self, Delivery, OP_BYTES_MAX};
use super::{Heard, Link, Stage, UNANSWERED_MAX, publish};
use crate::agent::protocol::{
    ClientProtocol, DeviceMemory, Message, NotSent, ProtocolEvent, ProtocolFault, Request, Token,
};
use crate::peers::names::{Names, Place};
use crate::peers::partial::{Partial, fault};
use bytes::{Bytes, BytesMut};

/// One device's half of a connection.
#[derive(Debug)]
pub struct Core {
    names: Names,
    link: Link,
    partial: Partial,
    /// Pings that were not sent behind a message.
    opens: Vec<Token>,
}

impl Core {
    /// For a new connection of a device.
    pub fn new(names: Names) -> Self {
        let filters = names.filters('.', '*');
        let link = Link::new(&names, (1..).zip(filters).collect());
        Self { names, link, partial: Partial::default(), opens: Vec::new() }
    }

    fn handle(
        &mut self,
        op: op::Op<'_>,
        out: &mut BytesMut,
        events: &mut Vec<ProtocolEvent>,
    ) -> Result<(), ProtocolFault> {
        match self.link.handle(op, out)? {
            Heard::Nothing => {}
            Heard::Opened => events.push(ProtocolEvent::Ready),
            Heard::Event(event) => events.push(event),
            Heard::Delivery(delivery) => events.extend(message(&self.names, &delivery)?),
            Heard::Ponged(token) => {
                let open = self.opens.iter().position(|other| *other == token);
                events.push(match open {
                    Some(place) => ProtocolEvent::Done(self.opens.swap_remove(place)),
                    None => ProtocolEvent::Accepted { token, seq: None },
                });
            }
        }
        Ok(())
    }
}

/// A message for a device; `None`: its own.
pub(super) fn message(
    names: &Names,
    delivery: &Delivery<'_>,
) -> Result<Option<ProtocolEvent>, ProtocolFault> {
    match names.place(delivery.subject, '.') {
        Some(Place::Room(room)) => {
            let body = Bytes::copy_from_slice(delivery.payload);
            Ok(Some(ProtocolEvent::Message(Message { room, seq: None, body })))
        }
        Some(Place::Echo) => Ok(None),
        None => Err(fault(format!("a message for {:?}, to which nobody listens", delivery.subject))),
    }
}

impl ClientProtocol for Core {
    fn opened(&mut self, now_us: u64, _out: &mut BytesMut) {
        self.link.heartbeat.opened(now_us);
    }

    fn received(
        &mut self,
        now_us: u64,
        bytes: &[u8],
        out: &mut BytesMut,
        events: &mut Vec<ProtocolEvent>,
    ) -> Result<(), ProtocolFault> {
        self.link.heartbeat.received(now_us);
        let mut partial = std::mem::take(&mut self.partial);
        partial.feed(bytes, OP_BYTES_MAX, |bytes| match op::decode(bytes)? {
            None => Ok(0),
            Some((op, taken)) => self.handle(op, out, events).map(|()| taken),
        })?;
        self.partial = partial;
        Ok(())
    }

    fn request(
        &mut self,
        _now_us: u64,
        token: Token,
        request: &Request,
        out: &mut BytesMut,
    ) -> Result<(), NotSent> {
        if self.link.stage != Stage::Open {
            return Err(NotSent::NotReady);
        }
        if self.link.pings.len() >= UNANSWERED_MAX {
            return Err(NotSent::Full);
        }
        match request {
            Request::Send { room, body, .. } => {
                publish(out, &self.names.topic(*room, '.'), None, body);
            }
            // Subjects exist by being used; the answer is a round trip.
            Request::Open(_) => self.opens.push(token),
            Request::CatchUp { .. }
            | Request::History { .. }
            | Request::Delivered { .. }
            | Request::Read { .. } => return Err(NotSent::Unsupported),
        }
        self.link.ping(Some(token), out);
        Ok(())
    }

    fn poll_timeout(&self) -> Option<u64> {
        self.link.heartbeat.poll_timeout()
    }

    fn handle_timeout(&mut self, now_us: u64, out: &mut BytesMut) -> Result<(), ProtocolFault> {
        self.link.handle_timeout(now_us, out)
    }

    fn into_memory(self: Box<Self>) -> DeviceMemory {
        DeviceMemory::default()
    }
}

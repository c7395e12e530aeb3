//! Committed events on their last step: from a storage link to the sessions of this core.
//!
//! Storage names the sessions; a session that is gone is passed over, one that reads too slowly is told to sync
//! instead. Nothing here is ever needed for correctness: what is lost is delivered by the next sync.

use crate::front::ConnectionToken;
use crate::session::table::token_of;
use crate::session::{Fate, Outbox, SessionTable, Sockets};
use bytes::{Bytes, BytesMut};
use wire_protocol::internal::{Delivery, delivery};
use wire_protocol::v1::{self, server_frame};

/// What the worker still has to do after a delivery.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Aftermath {
    /// The session's device was removed: close it.
    DeviceRemoved(ConnectionToken),
    /// Live events of this session are dropped from now on: look at it again in a while.
    BecameSlow(ConnectionToken),
    /// The session's outbox takes nothing more: close it.
    TooSlow(ConnectionToken),
}

/// How many live events went where.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Delivered {
    /// Queued to sessions.
    pub queued: u64,
    /// Dropped; the session will be told to sync.
    pub dropped: u64,
}

/// Queues the event of `delivery` to each session it names.
pub fn deliver<S: Sockets>(
    delivery: Delivery,
    now_ms: u64,
    sessions: &mut SessionTable,
    sockets: &mut S,
    space: &mut BytesMut,
    aftermath: &mut Vec<Aftermath>,
) -> Delivered {
    let Delivery { sessions: addresses, conversation_id, event } = delivery;
    let mut delivered = Delivered::default();
    let tokens = addresses.into_iter().map(token_of);
    let Some(event) = event else { return delivered };
    if let delivery::Event::DeviceRemoved(_) = event {
        aftermath.extend(tokens.map(Aftermath::DeviceRemoved));
        return delivered;
    }
    for token in tokens {
        let Some(session) = sessions.find(token) else { continue };
        let was_slow = session.slow_since_ms != 0;
        let body = body(&event, &conversation_id);
        match (Outbox { sockets, token, space }).event(session, now_ms, body) {
            Fate::Queued | Fate::Replaced => delivered.queued += 1,
            Fate::Dropped => {
                delivered.dropped += 1;
                if !was_slow {
                    aftermath.push(Aftermath::BecameSlow(token));
                }
            }
            Fate::TooSlow => aftermath.push(Aftermath::TooSlow(token)),
        }
    }
    delivered
}

/// The event as a client sees it. Its bytes are shared, not copied.
fn body(event: &delivery::Event, conversation_id: &Bytes) -> server_frame::Body {
    match event {
        delivery::Event::Entry(entry) => server_frame::Body::Message(v1::MessageEvent {
            handle: 0,
            conversation_id: conversation_id.clone(),
            entry: Some(entry.clone()),
        }),
        delivery::Event::Receipt(receipt) => server_frame::Body::Receipt(v1::ReceiptEvent {
            conversation_id: conversation_id.clone(),
            ..receipt.clone()
        }),
        delivery::Event::SyncNeeded(_) | delivery::Event::DeviceRemoved(_) => {
            server_frame::Body::SyncNeeded(v1::SyncNeeded {})
        }
    }
}

#[cfg(test)]
mod tests;

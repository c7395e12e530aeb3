//! One ring and the clients on it.

use super::client::{Client, Phase};
use super::event::{CloseReason, ConnectionToken, FrontEvent, SendRefused};
use super::shared::Shared;
use crate::admission::addresses::AddressRefused;
use crate::ring::{ClientRing, ReceivedBuffer, RingEvent, SlotToken};
use crate::tls::TlsSession;
use crate::transport::{Connection, Ending};
use std::net::SocketAddr;
use wire_protocol::limits::OUTBOX_BYTES_MAX;

/// Receive buffers of a ring, together 1 MiB: what 64 completions need four times over, so that they run out only
/// when a core is far behind.
pub(super) const RECEIVE_BUFFERS: u16 = 256;
/// Bytes of a receive buffer: many messages, or a quarter of a full record.
pub(super) const RECEIVE_BUFFER_BYTES: u32 = 4 * 1024;
/// Bytes held for a paused client, at most. The kernel may have filled every buffer for it before it saw the pause,
/// and some of those again.
const HELD_BYTES_MAX: usize = 2 * RECEIVE_BUFFERS as usize * RECEIVE_BUFFER_BYTES as usize;
/// Completions taken from one ring before others have their turn.
const COMPLETIONS_A_TURN: u32 = 64;
/// Above this an outbox stops the reading from its client, in bytes.
const OUTBOX_HIGH_BYTES: usize = OUTBOX_BYTES_MAX / 2;
/// Below this it lets it go on, in bytes.
const OUTBOX_LOW_BYTES: usize = OUTBOX_BYTES_MAX / 4;

/// One ring and the clients on it. A client's place is its slot in the ring.
pub(super) struct Lane {
    pub ring: ClientRing,
    /// Number of this lane's first place among all places of the core.
    first_slot: u32,
    /// By slot of the ring; grows as slots are used, within what was reserved.
    places: Vec<Place>,
    connections: u64,
}

struct Place {
    generation: u32,
    client: Option<Client>,
}

impl Lane {
    pub(super) fn new(ring: ClientRing, first_slot: u32, slots: u32) -> Self {
        // Reserved, not touched: growing never moves clients.
        Self { ring, first_slot, places: Vec::with_capacity(slots as usize), connections: 0 }
    }

    pub(super) fn connections(&self) -> u64 {
        self.connections
    }

    pub(super) fn client(&self, token: ConnectionToken) -> Option<&Client> {
        let place = self.places.get(self.slot(token)?.slot as usize)?;
        place.client.as_ref().filter(|_| place.generation == token.generation)
    }

    pub(super) fn client_mut(&mut self, token: ConnectionToken) -> Option<&mut Client> {
        let slot = self.slot(token)?;
        find(&mut self.places, slot)
    }

    /// Takes what the ring has.
    pub(super) fn turn(&mut self, shared: &mut Shared, events: &mut Vec<FrontEvent>) {
        let mut budget = COMPLETIONS_A_TURN;
        while let Some(event) = self.ring.next_event(&mut budget) {
            match event {
                RingEvent::Accepted { token, listener, peer } => self.accepted(token, listener, peer, shared),
                RingEvent::Received { token, buffer } => self.received(token, buffer, shared, events),
                RingEvent::Ended { token } => self.ended(token, shared, events),
                RingEvent::Failed { token, error } => {
                    self.remove(self.token(token), CloseReason::Socket(error), shared, events);
                }
                RingEvent::Sent { .. } => self.sent(event, shared, events),
            }
        }
    }

    /// Takes sends that are over already; whether there were any.
    pub(super) fn take_sent(&mut self, shared: &mut Shared, events: &mut Vec<FrontEvent>) {
        while let Some(event) = self.ring.next_sent() {
            self.sent(event, shared, events);
        }
    }

    /// Queues something on an open connection.
    pub(super) fn queue(
        &mut self,
        token: ConnectionToken,
        shared: &mut Shared,
        queue: impl FnOnce(&mut Connection) -> bool,
    ) -> Result<(), SendRefused> {
        let client = self.client_mut(token).ok_or(SendRefused::Gone)?;
        if client.phase != Phase::Open {
            return Err(SendRefused::Gone);
        }
        if !queue(&mut client.connection) {
            client.drain_owed = true;
            shared.metrics.outboxes_full += 1;
            return Err(SendRefused::Full);
        }
        self.after_queueing(token, shared);
        Ok(())
    }

    /// Starts to close: what is queued is sent first.
    pub(super) fn close(
        &mut self,
        token: ConnectionToken,
        reason: CloseReason,
        shared: &mut Shared,
        events: &mut Vec<FrontEvent>,
    ) {
        let Some(client) = self.client_mut(token) else { return };
        if client.phase != Phase::Open {
            return;
        }
        client.phase = Phase::Closing(reason);
        client.connection.close();
        client.held = None;
        if reason != CloseReason::Ours && std::mem::take(&mut client.told) {
            events.push(FrontEvent::Closed { token, reason });
        }
        // What still comes is dropped; the end is waited for.
        self.ring.resume_receiving(self.slot_of(token));
        shared.close_deadlines.set(shared.now_ms, token);
        self.after_queueing(token, shared);
        self.mark_dirty(token, shared);
    }

    /// Closes now.
    pub(super) fn remove(
        &mut self,
        token: ConnectionToken,
        reason: CloseReason,
        shared: &mut Shared,
        events: &mut Vec<FrontEvent>,
    ) {
        let Some(slot) = self.slot(token) else { return };
        if find(&mut self.places, slot).is_none() {
            return;
        }
        let Some(client) = self.places[slot.slot as usize].client.take() else { return };
        self.connections -= 1;
        shared.gate.leave(client.address);
        shared.metrics.queued_bytes -= u64::from(client.counted_bytes);
        if client.told {
            let reason = match client.phase {
                Phase::Lingering(begun) => begun,
                Phase::Open | Phase::Closing(_) => reason,
            };
            events.push(FrontEvent::Closed { token, reason });
        }
        self.ring.close(slot);
    }

    pub(super) fn pause(&mut self, token: ConnectionToken) -> bool {
        let open = self.client_mut(token).filter(|client| client.phase == Phase::Open);
        let paused = open.is_some_and(|client| !std::mem::replace(&mut client.paused_by_caller, true));
        if paused {
            self.ring.pause_receiving(self.slot_of(token));
        }
        paused
    }

    pub(super) fn resume(&mut self, token: ConnectionToken, shared: &mut Shared) {
        let Some(client) = self.client_mut(token) else { return };
        if std::mem::take(&mut client.paused_by_caller) {
            self.read_on(token, shared);
        }
    }

    /// Delivers a share of what was held for a client, and reads on when that was all.
    pub(super) fn deliver_held(
        &mut self,
        token: ConnectionToken,
        shared: &mut Shared,
        events: &mut Vec<FrontEvent>,
    ) {
        let slot = self.slot_of(token);
        let Some(client) = find(&mut self.places, slot) else { return };
        if client.is_paused() || client.phase != Phase::Open {
            return;
        }
        let Some(mut held) = client.held.take() else { return self.ring.resume_receiving(slot) };
        let mut outcome = Ok(());
        if client.connection.is_unfinished() && !client.is_sated(shared) {
            outcome = client.receive(token, &mut [], shared, events);
        }
        let mut delivered = 0;
        for bytes in held.bytes.chunks_mut(RECEIVE_BUFFER_BYTES as usize) {
            if outcome.is_err() || client.connection.is_unfinished() || client.is_sated(shared) {
                break;
            }
            delivered += bytes.len();
            outcome = client.receive(token, bytes, shared, events);
        }
        if outcome.is_ok() && (delivered < held.bytes.len() || client.connection.is_unfinished()) {
            held.bytes.drain(..delivered);
            client.held = Some(held);
            shared.resumed.push(token);
        } else if outcome.is_ok() && held.ended {
            outcome = client.receive_end(token, events);
        } else {
            self.ring.resume_receiving(slot);
        }
        self.after_receiving(token, outcome, shared, events);
    }

    /// The hello deadline has come.
    pub(super) fn hello_due(
        &mut self,
        token: ConnectionToken,
        shared: &mut Shared,
        events: &mut Vec<FrontEvent>,
    ) {
        if self.client(token).is_some_and(Client::awaits_hello) {
            shared.metrics.hello_timeouts += 1;
            self.remove(token, CloseReason::HelloTimeout, shared, events);
        }
    }

    /// The close deadline has come.
    pub(super) fn close_due(
        &mut self,
        token: ConnectionToken,
        shared: &mut Shared,
        events: &mut Vec<FrontEvent>,
    ) {
        let Some(client) = self.client(token).filter(|client| client.awaits_close()) else { return };
        let reason =
            if client.phase == Phase::Open { CloseReason::Malformed } else { CloseReason::CloseTimeout };
        self.remove(token, reason, shared, events);
    }

    /// Hands the next bytes of a client to the ring, or takes its close a step further.
    pub(super) fn pump(&mut self, token: ConnectionToken, shared: &mut Shared, events: &mut Vec<FrontEvent>) {
        let slot = self.slot_of(token);
        let Some(client) = self.client_mut(token) else { return };
        client.dirty = false;
        match client.connection.next_send(&mut shared.buffers) {
            Ok(Some(buffer)) => {
                count(client, shared);
                if let Err(buffer) = self.ring.send(slot, buffer) {
                    shared.buffers.give_back(buffer);
                }
            }
            Ok(None) => self.finish_close(token, shared, events),
            Err(_) => self.remove(token, CloseReason::Tls, shared, events),
        }
    }

    fn finish_close(&mut self, token: ConnectionToken, shared: &mut Shared, events: &mut Vec<FrontEvent>) {
        let Some(client) = self.client_mut(token) else { return };
        let Phase::Closing(reason) = client.phase else { return };
        if !client.connection.is_flushed() {
            return;
        }
        client.phase = Phase::Lingering(reason);
        if client.ended {
            self.remove(token, reason, shared, events);
        } else {
            self.ring.shut_down_sending(self.slot_of(token));
        }
    }

    fn accepted(&mut self, slot: SlotToken, listener: usize, peer: SocketAddr, shared: &mut Shared) {
        let token = self.token(slot);
        shared.accepted += 1;
        if let Err(refused) = shared.gate.enter(peer.ip().into(), shared.now_ms) {
            match refused {
                AddressRefused::TooMany => shared.metrics.refused_too_many += 1,
                AddressRefused::TooFast => shared.metrics.refused_too_fast += 1,
            }
            return self.ring.close(slot);
        }
        let security = match (&shared.tls, shared.secure_listeners.get(listener)) {
            (Some(config), Some(true)) => match TlsSession::new(config.clone()) {
                Ok(session) => Some(session),
                Err(_) => {
                    shared.gate.leave(peer.ip().into());
                    return self.ring.close(slot);
                }
            },
            _ => None,
        };
        let index = slot.slot as usize;
        if index >= self.places.len() {
            self.places.resize_with(index + 1, || Place { generation: 0, client: None });
        }
        let client = Client::new(Connection::new(security), peer);
        self.places[index] = Place { generation: slot.generation, client: Some(client) };
        self.connections += 1;
        shared.hello_deadlines.set(shared.now_ms, token);
    }

    fn received(
        &mut self,
        slot: SlotToken,
        mut buffer: ReceivedBuffer,
        shared: &mut Shared,
        events: &mut Vec<FrontEvent>,
    ) {
        let token = self.token(slot);
        let bytes = self.ring.bytes_mut(&mut buffer);
        let mut flooded = false;
        let mut sated = false;
        let outcome = match find(&mut self.places, slot) {
            Some(client) if client.phase == Phase::Open => {
                sated = !client.is_paused() && client.held.is_none() && client.is_sated(shared);
                if sated || client.is_paused() || client.held.is_some() {
                    let held = client.held.get_or_insert_default();
                    held.bytes.extend_from_slice(bytes);
                    flooded = held.bytes.len() > HELD_BYTES_MAX;
                    Ok(())
                } else {
                    let outcome = client.receive(token, bytes, shared, events);
                    if outcome.is_ok() && client.connection.is_unfinished() {
                        // The rest of its frames comes first, in the next turn.
                        client.held.get_or_insert_default();
                        sated = true;
                    }
                    outcome
                }
            }
            _ => Ok(()),
        };
        self.ring.give_back(buffer);
        if flooded {
            return self.remove(token, CloseReason::Flooded, shared, events);
        }
        if sated {
            self.ring.pause_receiving(slot);
            shared.resumed.push(token);
        }
        self.after_receiving(token, outcome, shared, events);
    }

    fn ended(&mut self, slot: SlotToken, shared: &mut Shared, events: &mut Vec<FrontEvent>) {
        let token = self.token(slot);
        let Some(client) = find(&mut self.places, slot) else { return };
        match client.phase {
            Phase::Open => {
                if let Some(held) = &mut client.held {
                    held.ended = true;
                    return;
                }
                let outcome = client.receive_end(token, events);
                self.after_receiving(token, outcome, shared, events);
            }
            Phase::Closing(_) => client.ended = true,
            Phase::Lingering(reason) => self.remove(token, reason, shared, events),
        }
    }

    fn sent(&mut self, event: RingEvent, shared: &mut Shared, events: &mut Vec<FrontEvent>) {
        let RingEvent::Sent { token: slot, buffer, result } = event else { return };
        shared.buffers.give_back(buffer);
        let token = self.token(slot);
        let Some(client) = find(&mut self.places, slot) else { return };
        client.connection.sent();
        if let Err(error) = result {
            return self.remove(token, CloseReason::Socket(error), shared, events);
        }
        count(client, shared);
        if client.connection.queued_bytes() < OUTBOX_LOW_BYTES && client.phase == Phase::Open {
            if std::mem::take(&mut client.drain_owed) {
                events.push(FrontEvent::Drained { token });
            }
            if std::mem::take(&mut client.paused_by_outbox) {
                self.read_on(token, shared);
            }
        }
        self.mark_dirty(token, shared);
    }

    fn after_receiving(
        &mut self,
        token: ConnectionToken,
        outcome: Result<(), Ending>,
        shared: &mut Shared,
        events: &mut Vec<FrontEvent>,
    ) {
        match outcome {
            Ok(()) => self.after_queueing(token, shared),
            Err(Ending::Peer) => self.close(token, CloseReason::Peer, shared, events),
            Err(Ending::Refused) => {
                shared.metrics.upgrades_refused += 1;
                self.close(token, CloseReason::Peer, shared, events);
            }
            Err(Ending::Handshake(_)) => {
                shared.metrics.handshakes_failed += 1;
                self.close(token, CloseReason::Tls, shared, events);
            }
            Err(Ending::Tls(_)) => self.close(token, CloseReason::Tls, shared, events),
            Err(Ending::Frames(fault)) => {
                let Some(client) = self.client_mut(token) else { return };
                client.malformed = true;
                client.settled = true;
                events.push(FrontEvent::Malformed { token, fault });
                shared.close_deadlines.set(shared.now_ms, token);
                self.after_queueing(token, shared);
            }
        }
    }

    /// Counts what is queued, lists the client for the flush, and stops reading from it if it does not read.
    fn after_queueing(&mut self, token: ConnectionToken, shared: &mut Shared) {
        let slot = self.slot_of(token);
        let Some(client) = find(&mut self.places, slot) else { return };
        count(client, shared);
        if client.connection.queued_bytes() > OUTBOX_HIGH_BYTES
            && client.phase == Phase::Open
            && !client.paused_by_outbox
        {
            client.drain_owed = true;
            client.paused_by_outbox = true;
            shared.metrics.reads_paused += 1;
            self.ring.pause_receiving(slot);
        }
        if client.connection.wants_send() {
            self.mark_dirty(token, shared);
        }
    }

    /// Nothing pauses the client any more, perhaps: what was held comes first, in the next turn.
    fn read_on(&mut self, token: ConnectionToken, shared: &mut Shared) {
        if self.client(token).is_some_and(|client| !client.is_paused()) {
            shared.resumed.push(token);
        }
    }

    fn mark_dirty(&mut self, token: ConnectionToken, shared: &mut Shared) {
        let Some(client) = self.client_mut(token) else { return };
        let closing = matches!(client.phase, Phase::Closing(_));
        if (client.connection.wants_send() || closing) && !std::mem::replace(&mut client.dirty, true) {
            shared.dirty.push(token);
        }
    }

    fn token(&self, slot: SlotToken) -> ConnectionToken {
        ConnectionToken { slot: self.first_slot + slot.slot, generation: slot.generation }
    }

    /// `None`: of another lane.
    fn slot(&self, token: ConnectionToken) -> Option<SlotToken> {
        let slot = token.slot.checked_sub(self.first_slot)?;
        Some(SlotToken { slot, generation: token.generation })
    }

    fn slot_of(&self, token: ConnectionToken) -> SlotToken {
        self.slot(token).expect("a client is asked for in its own lane")
    }
}

fn find(places: &mut [Place], slot: SlotToken) -> Option<&mut Client> {
    let place = places.get_mut(slot.slot as usize)?;
    let holds = place.generation == slot.generation;
    place.client.as_mut().filter(|_| holds)
}

/// Keeps the count of all queued bytes.
fn count(client: &mut Client, shared: &mut Shared) {
    let queued = client.connection.queued_bytes() as u32;
    let before = std::mem::replace(&mut client.counted_bytes, queued);
    shared.metrics.queued_bytes = shared.metrics.queued_bytes + u64::from(queued) - u64::from(before);
}

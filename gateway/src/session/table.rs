//! The sessions of one core, each at its connection's place in the front's slab.

use crate::admission::addresses::AddressKey;
use crate::front::ConnectionToken;
use wire_protocol::ids::{DeviceId, UserId};
use wire_protocol::internal::SessionAddress;
use wire_protocol::session::ServerSession;

/// One connection that speaks frames.
#[derive(Debug)]
pub struct Session {
    generation: u32,
    /// The protocol's own state: hello, requests in flight, handles, deadline.
    pub protocol: ServerSession,
    /// Whose it is; `None` until the proof was accepted.
    pub identity: Option<(UserId, DeviceId)>,
    /// Where it comes from.
    pub address: AddressKey,
    /// Requests of this session that wait for storage, those without answer included.
    pub requests: u16,
    /// Of which heavy.
    pub heavy_requests: u8,
    /// Requests in a row that came too soon.
    pub throttled: u8,
    /// It came as a WebSocket.
    pub is_web_socket: bool,
    /// Its home shard was asked to attach it, and has to be told when it goes.
    pub is_attached: bool,
    /// Its own log out is on the way.
    pub is_logging_out: bool,
    /// Since when live events are dropped because it does not read, in milliseconds; 0: they are not.
    pub slow_since_ms: u64,
}

impl Session {
    fn new(generation: u32, address: AddressKey, is_web_socket: bool, now_ms: u64) -> Self {
        Self {
            generation,
            protocol: ServerSession::new(now_ms),
            identity: None,
            address,
            requests: 0,
            heavy_requests: 0,
            throttled: 0,
            is_web_socket,
            is_attached: false,
            is_logging_out: false,
            slow_since_ms: 0,
        }
    }
}

/// The sessions of one core.
#[derive(Default)]
pub struct SessionTable {
    places: Vec<Option<Session>>,
    native_count: usize,
    web_socket_count: usize,
}

impl SessionTable {
    /// A connection that speaks frames was opened.
    pub fn open(&mut self, token: ConnectionToken, address: AddressKey, is_web_socket: bool, now_ms: u64) {
        let place = token.slot as usize;
        if self.places.len() <= place {
            self.places.resize_with(place + 1, || None);
        }
        let session = Session::new(token.generation, address, is_web_socket, now_ms);
        let before = self.places[place].replace(session);
        assert!(before.is_none(), "the front says closed before it gives a place again");
        *self.count(is_web_socket) += 1;
    }

    /// The session of this connection; `None` for one that is gone, or never spoke frames.
    pub fn find(&mut self, token: ConnectionToken) -> Option<&mut Session> {
        let session = self.places.get_mut(token.slot as usize)?.as_mut()?;
        (session.generation == token.generation).then_some(session)
    }

    /// The connection is gone.
    pub fn remove(&mut self, token: ConnectionToken) -> Option<Session> {
        self.find(token)?;
        let session = self.places[token.slot as usize].take()?;
        *self.count(session.is_web_socket) -= 1;
        Some(session)
    }

    /// The token of the session at this place.
    pub fn token_at(&self, slot: u32) -> Option<ConnectionToken> {
        let session = self.places.get(slot as usize)?.as_ref()?;
        Some(ConnectionToken { slot, generation: session.generation })
    }

    /// Places that were ever used; slots below it may hold a session.
    pub fn place_count(&self) -> u32 {
        self.places.len() as u32
    }

    /// Sessions over the native protocol.
    pub fn native_count(&self) -> usize {
        self.native_count
    }

    /// Sessions over WebSocket.
    pub fn web_socket_count(&self) -> usize {
        self.web_socket_count
    }

    fn count(&mut self, is_web_socket: bool) -> &mut usize {
        if is_web_socket { &mut self.web_socket_count } else { &mut self.native_count }
    }
}

/// The name storage knows a session by.
pub fn address_of(token: ConnectionToken) -> SessionAddress {
    SessionAddress { slot: token.slot, generation: token.generation }
}

/// The session that storage names.
pub fn token_of(address: SessionAddress) -> ConnectionToken {
    ConnectionToken { slot: address.slot, generation: address.generation }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_token_never_finds_a_new_session() {
        let mut table = SessionTable::default();
        let first = ConnectionToken { slot: 3, generation: 1 };
        let second = ConnectionToken { slot: 3, generation: 2 };
        table.open(first, AddressKey::default(), false, 0);
        assert!(table.find(first).is_some() && table.find(second).is_none());
        assert!(table.remove(second).is_none());
        assert!(table.remove(first).is_some());
        table.open(second, AddressKey::default(), true, 0);
        assert!(table.find(first).is_none() && table.remove(first).is_none());
        assert_eq!(table.token_at(3), Some(second));
        assert_eq!((table.native_count(), table.web_socket_count()), (0, 1));
    }

    #[test]
    fn a_session_stays_small() {
        // 600 bytes are the goal for a whole idle connection; this is what the table adds to the protocol's state.
        assert!(size_of::<Option<Session>>() <= size_of::<ServerSession>() + 72, "{}", size_of::<Session>());
    }
}

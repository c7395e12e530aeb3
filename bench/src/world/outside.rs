//! What a host sees of the world: the time, the network, and when it wants to be called again.

use super::agenda::{Agenda, Due, Thread};
use super::network::{ConnectionId, Line, Network, Side};
use crate::workload::random::Random;
use bytes::BytesMut;

/// An end of a connection.
pub type End = (ConnectionId, Side);

/// Everything around a host.
pub struct Outside {
    /// The true time; hosts may have another.
    pub now_ms: u64,
    /// Connections.
    pub network: Network,
    /// What is due.
    pub agenda: Agenda,
    /// Chance, from the seed.
    pub random: Random,
}

impl Outside {
    /// Begins to connect.
    pub fn connect(&mut self, line: Line) -> ConnectionId {
        self.network.connect(self.now_ms, line, &mut self.random, &mut self.agenda)
    }

    /// Sends bytes.
    pub fn send(&mut self, end: End, bytes: BytesMut) {
        self.network.send_bytes(self.now_ms, end, bytes.freeze(), &mut self.random, &mut self.agenda);
    }

    /// Whether this end of a link may send at present.
    pub fn has_room(&self, end: End) -> bool {
        self.network.has_room(end)
    }

    /// Gives a connection up.
    pub fn close(&mut self, end: End) {
        self.network.close(self.now_ms, end, &mut self.random, &mut self.agenda);
    }

    /// Gives a connection up, and what was said over it and has not arrived.
    pub fn cut_off(&mut self, end: End) {
        self.network.cut_off(self.now_ms, end, &mut self.random, &mut self.agenda);
    }

    /// Up to so much, each amount as likely.
    pub fn up_to(&mut self, most: u64) -> u64 {
        self.random.below(most + 1)
    }

    /// True once in so many times.
    pub fn one_in(&mut self, times: u64) -> bool {
        self.random.below(times) == 0
    }

    /// The host's next turn.
    pub fn plan_turn(&mut self, at_ms: u64, host: usize, life: u64) {
        self.agenda.plan(at_ms, Due::Turn { host, life });
    }

    /// A round of a thread.
    pub fn plan_work(&mut self, after_ms: u64, host: usize, life: u64, thread: Thread) {
        self.agenda.plan(self.now_ms + after_ms, Due::Work { host, life, thread });
    }
}

//! The client connections of a core: on its rings, or in a simulation of a cluster wherever that has them.

#[cfg(feature = "sim")]
use super::simulated::SimClients;
use super::{ConnectionToken, Front, FrontEvent, FrontMetrics, SendRefused};
use bytes::Bytes;

/// What the loop above knows of its clients; each method is [`Front`]'s of the same name.
pub enum Clients {
    /// Sockets on rings.
    Front(Box<Front>),
    /// Whatever a simulation says.
    #[cfg(feature = "sim")]
    Simulated(SimClients),
}

/// The same call on whichever it is.
macro_rules! of_either {
    ($clients:expr, $name:ident => $call:expr) => {
        match $clients {
            Clients::Front($name) => $call,
            #[cfg(feature = "sim")]
            Clients::Simulated($name) => $call,
        }
    };
}

impl Clients {
    /// See [`Front::turn`].
    pub fn turn(&mut self, now_ms: u64, events: &mut Vec<FrontEvent>) {
        of_either!(self, clients => clients.turn(now_ms, events));
    }

    /// See [`Front::send`].
    pub fn send(&mut self, token: ConnectionToken, payload: &[u8]) -> Result<(), SendRefused> {
        of_either!(self, clients => clients.send(token, payload))
    }

    /// See [`Front::send_raw`].
    pub fn send_raw(&mut self, token: ConnectionToken, bytes: Bytes) -> Result<(), SendRefused> {
        of_either!(self, clients => clients.send_raw(token, bytes))
    }

    /// See [`Front::close`].
    pub fn close(&mut self, token: ConnectionToken) {
        of_either!(self, clients => clients.close(token));
    }

    /// See [`Front::pause`].
    pub fn pause(&mut self, token: ConnectionToken) -> bool {
        of_either!(self, clients => clients.pause(token))
    }

    /// See [`Front::resume`].
    pub fn resume(&mut self, token: ConnectionToken) {
        of_either!(self, clients => clients.resume(token));
    }

    /// See [`Front::set_frame_bytes_max`].
    pub fn set_frame_bytes_max(&mut self, token: ConnectionToken, frame_bytes_max: usize) {
        of_either!(self, clients => clients.set_frame_bytes_max(token, frame_bytes_max));
    }

    /// See [`Front::queued_bytes`].
    pub fn queued_bytes(&self, token: ConnectionToken) -> usize {
        of_either!(self, clients => clients.queued_bytes(token))
    }

    /// See [`Front::flush`].
    pub fn flush(&mut self, now_ms: u64) {
        of_either!(self, clients => clients.flush(now_ms));
    }

    /// See [`Front::next_deadline_ms`].
    pub fn next_deadline_ms(&self) -> Option<u64> {
        of_either!(self, clients => clients.next_deadline_ms())
    }

    /// See [`Front::stop_accepting`].
    pub fn stop_accepting(&mut self) {
        of_either!(self, clients => clients.stop_accepting());
    }

    /// See [`Front::connection_count`].
    pub fn connection_count(&self) -> usize {
        of_either!(self, clients => clients.connection_count())
    }

    /// See [`Front::metrics`].
    pub fn metrics(&self) -> FrontMetrics {
        of_either!(self, clients => clients.metrics())
    }

    /// See [`Front::local_addresses`].
    #[cfg(test)]
    pub fn local_addresses(&self) -> &[std::net::SocketAddr] {
        match self {
            Clients::Front(front) => front.local_addresses(),
            #[cfg(feature = "sim")]
            Clients::Simulated(_) => &[],
        }
    }
}

//! The load of one agent as a state machine: it is told what happened to its devices, and says what they do next.
//!
//! ```text
//! engine: event of a device -> handle      poll -> action -> engine carries it out
//! ```
//!
//! It refuses to know of sockets and protocols; the engine (`agent/engine/`) and the simulation drive it alike.

mod devices;
mod returning;
mod operations;
mod streams;
mod figures;
mod machine;
mod due;
mod sending;
mod events;
mod settle;
#[cfg(test)]
mod tests;

pub use machine::AgentLoad;
pub use returning::Targets;

use crate::agent::protocol::{ProtocolEvent, Request, TargetIndex, Token};
use crate::workload::population::DeviceIndex;

/// What happened to a device.
#[derive(Clone, PartialEq, Debug)]
pub enum DeviceEvent {
    /// TCP, and TLS where there is one, are there; the protocol's own opening follows.
    Connected {
        /// Whether a ticket spared the full handshake.
        resumed: bool,
    },
    /// Something of the protocol.
    Protocol(ProtocolEvent),
    /// A request could not be written although the device was thought ready for it: ask again later.
    Busy(Token),
    /// The connection is gone, or was never made. Unanswered requests of the device have an unknown fate.
    Lost {
        /// Short and bounded in variety: a key in tables of errors ("refused", "reset", "end", "tls", "timeout").
        reason: String,
    },
}

/// What a device does next.
#[derive(Clone, PartialEq, Debug)]
pub enum Action {
    /// Connects. Answered by `Connected` and `Ready`, or `Lost`.
    Connect {
        /// Who.
        device: DeviceIndex,
        /// Where to.
        target: TargetIndex,
        /// Whether a ticket may be used, if there is one.
        resume: bool,
    },
    /// Drops the connection without a word. Not answered.
    Disconnect {
        /// Who.
        device: DeviceIndex,
    },
    /// Asks its server for something.
    Request {
        /// Who.
        device: DeviceIndex,
        /// Comes back with the answer.
        token: Token,
        /// What.
        request: Request,
    },
    /// Reads no more from its socket, until `Resume`.
    Pause {
        /// Who.
        device: DeviceIndex,
    },
    /// Reads again.
    Resume {
        /// Who.
        device: DeviceIndex,
    },
}

/// What the engine drives. `now_us` is the agent's own clock and never falls.
pub trait Workload {
    /// Takes an event of one of its devices.
    fn handle(&mut self, now_us: u64, device: DeviceIndex, event: DeviceEvent);

    /// The next thing to do now; asked until there is none.
    fn poll(&mut self, now_us: u64) -> Option<Action>;

    /// When `poll` has something to do although nothing happens.
    fn next_due_us(&self) -> Option<u64>;

    /// The request's bytes were given to the kernel, or as many as it takes: what comes later is not the agent's doing.
    fn handed_over(&mut self, _now_us: u64, _device: DeviceIndex, _token: Token) {}
}

//! The servers that Ringline is compared with: their protocols for the engine, and how they are started.
//!
//! A *subject* is a server with one setting and one way to use it: a row of a table. [`protocol`] gives the client's
//! half of a subject's protocol, [`servers`] starts its processes on this machine. Whoever measures says beside each
//! number what [`Subject::durability`] says: an acknowledgement means something else in each of them.
//!
//! The protocols are state machines like Ringline's own (`agent/protocol/`) and know nothing of sockets;
//! [`blocking`] drives one over one socket, for setting up and for `examples/peer_check.rs`.

mod heartbeat;
mod names;
mod partial;
mod subjects;
pub mod mqtt;
pub mod nats;
pub mod xmpp;
pub mod blocking;
pub mod servers;
mod clients;

pub use clients::{MadeClients, clients};
pub use names::Names;
pub use subjects::{Subject, protocol, subject, subjects};

//! How a coordinator steers agents: the messages, their transport, and who may steer.
//!
//! ```text
//! trust (certificates) -> tls (handshake) -> transport (frames) -> link (threads, mailboxes) -> agents, relay, service
//!                         gate (who is let in, one at a time)
//! ```

pub mod messages;
pub mod clocks;
pub mod transport;
pub mod link;
pub mod tls;
pub mod trust;
pub mod authority;
pub mod gate;
pub mod flags;

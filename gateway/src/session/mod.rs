//! Sessions: what a connection that speaks frames is between its first frame and its last.
//!
//! The protocol itself is [`wire_protocol::session::ServerSession`]; here is what a gateway adds to it: a place
//! in the core's [`table`], an [`outbox`] that never grows, and [`timers`]. The worker drives all three.
//!
//! ```text
//! opened ─> hello ─> proof checked ─> attached at the home shard ─> ready ⇄ requests, events ─> closing ─> gone
//! ```

pub mod table;
pub mod outbox;
pub mod timers;

pub use outbox::{Fate, Outbox, Sockets};
pub use table::{Session, SessionTable};
pub use timers::TimerWheel;

//! Named places on a message's last steps, at which a test lets the process die or wait. What may happen at one, and which
//! variable says so: [`tuning::failpoint`]. A gateway with embedded storage has the storage node's places, too.

pub(crate) use tuning::failpoint::pass;

use tuning::failpoint::Place;

/// The places, in the order in which a delivery comes by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Failpoint {
    /// Storage has delivered something; no session has it.
    Received,
    /// It is in the outboxes of its sessions; no socket has it.
    Queued,
    /// The kernel has taken it for the sockets of its clients, as far as these have room.
    Written,
}

impl Place for Failpoint {
    fn name(&self) -> &'static str {
        match self {
            Self::Received => "deliveries-received",
            Self::Queued => "deliveries-queued",
            Self::Written => "deliveries-written",
        }
    }
}

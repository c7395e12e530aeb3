//! What a completion belongs to, packed into the 64 bits that travel through the kernel with an operation.

/// Bits of a tag that name the slot; a table of descriptors is far smaller than 2^24.
const SLOT_BITS: u32 = 24;

/// Largest slot number a tag can carry.
pub(super) const SLOT_MAX: u32 = (1 << SLOT_BITS) - 1;

/// What was asked of the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Operation {
    /// An accept of one socket.
    Accept = 1,
    /// An ordinary descriptor of the connection's socket.
    Install = 2,
    /// Multishot receive.
    Receive = 3,
    /// A send.
    Send = 4,
    /// A cancellation. Reports only failures.
    Cancel = 5,
    /// The end of a direct descriptor. Reports only failures.
    Close = 6,
}

/// An operation of one connection, or one of a listener's accepts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Tag {
    pub operation: Operation,
    /// At most [`SLOT_MAX`]. Of an accept: its listener.
    pub slot: u32,
    /// Of the connection that had the slot when the operation began. Of an accept: which of its listener's.
    pub generation: u32,
}

impl Tag {
    pub(super) fn new(operation: Operation, slot: u32, generation: u32) -> Self {
        assert!(slot <= SLOT_MAX, "tables of descriptors are smaller than 2^24");
        Self { operation, slot, generation }
    }

    /// `operation << 56 | slot << 32 | generation`.
    pub(super) fn pack(self) -> u64 {
        (self.operation as u64) << 56 | u64::from(self.slot) << 32 | u64::from(self.generation)
    }

    /// `None` for a number that [`Self::pack`] never gives.
    pub(super) fn unpack(packed: u64) -> Option<Self> {
        let operation = match packed >> 56 {
            1 => Operation::Accept,
            2 => Operation::Install,
            3 => Operation::Receive,
            4 => Operation::Send,
            5 => Operation::Cancel,
            6 => Operation::Close,
            _ => return None,
        };
        Some(Self { operation, slot: (packed >> 32) as u32 & SLOT_MAX, generation: packed as u32 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_survive_the_kernel() {
        use Operation::*;
        for operation in [Accept, Install, Receive, Send, Cancel, Close] {
            for (slot, generation) in [(0, 0), (1, u32::MAX), (SLOT_MAX, 7)] {
                let tag = Tag::new(operation, slot, generation);
                assert_eq!(Tag::unpack(tag.pack()), Some(tag));
            }
        }
        assert_eq!(Tag::unpack(0), None);
        assert_eq!(Tag::unpack(u64::MAX), None);
    }
}

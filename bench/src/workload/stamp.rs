//! What the harness writes at the start of each body, so that whoever receives it knows which message it is.

use crate::workload::population::DeviceIndex;

/// Bytes of a stamp.
pub const STAMP_BYTES: usize = 32;
/// First bytes of every stamp: other bodies are not ours.
const MAGIC: [u8; 4] = *b"RLb1";

/// Which message a body is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Stamp {
    /// Who sent it.
    pub sender: DeviceIndex,
    /// The sender's count of messages, from 1: also its client message id.
    pub number: u64,
    /// When it was due by the clock of the sender's agent, in microseconds.
    pub due_us: u64,
    /// Which run: other runs' messages are left alone.
    pub run: u64,
}

impl Stamp {
    /// A body of `bytes` bytes that begins with the stamp; the rest follows from it.
    pub fn body(&self, bytes: usize) -> bytes::Bytes {
        let mut body = Vec::with_capacity(bytes.max(STAMP_BYTES));
        body.extend_from_slice(&MAGIC);
        body.extend_from_slice(&self.sender.0.to_be_bytes());
        body.extend_from_slice(&self.number.to_be_bytes());
        body.extend_from_slice(&self.due_us.to_be_bytes());
        body.extend_from_slice(&self.run.to_be_bytes());
        // Printable and not one letter only: a server that compresses gains little, a person can still read it.
        let mut state = self.number ^ (u64::from(self.sender.0) << 32) | 1;
        while body.len() < bytes {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            body.push(b'a' + (state >> 59) as u8 % 26);
        }
        body.into()
    }

    /// The stamp of a body; `None`: it has none.
    pub fn read(body: &[u8]) -> Option<Self> {
        let (magic, rest) = body.split_first_chunk::<4>()?;
        let (sender, rest) = rest.split_first_chunk()?;
        let (number, rest) = rest.split_first_chunk()?;
        let (due, rest) = rest.split_first_chunk()?;
        let (run, _) = rest.split_first_chunk()?;
        (*magic == MAGIC).then_some(Self {
            sender: DeviceIndex(u32::from_be_bytes(*sender)),
            number: u64::from_be_bytes(*number),
            due_us: u64::from_be_bytes(*due),
            run: u64::from_be_bytes(*run),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_round_trip_and_others_are_not_ours() {
        let stamp = Stamp { sender: DeviceIndex(7), number: 9, due_us: 1 << 40, run: 3 };
        let body = stamp.body(200);
        assert_eq!((body.len(), Stamp::read(&body)), (200, Some(stamp)));
        assert_eq!(body, stamp.body(200), "a body follows from its stamp");
        assert_eq!(stamp.body(1).len(), STAMP_BYTES);
        assert_eq!(Stamp::read(&body[..STAMP_BYTES - 1]), None);
        assert_eq!(Stamp::read(&[b'x'; 64]), None);
    }
}

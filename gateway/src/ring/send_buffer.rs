//! Bytes on their way out, and the pool that keeps their memory for the next ones.
//!
//! A buffer is filled by the layers above, lent to the kernel by [`ClientRing::send`](super::ClientRing::send) and
//! given back by the event that says it was sent. Between sends no connection owns one.

/// Bytes of a small buffer: an answer or a few messages in one record.
pub const SMALL_BYTES: usize = 2 * 1024;
/// Bytes of a large buffer: four full TLS records (16,384 bytes and 22 of record each) and a key update.
pub const LARGE_BYTES: usize = 4 * (16 * 1024 + 22) + 256;
/// Small buffers kept for reuse, at most: 2 MiB a core.
const SMALL_KEPT_MAX: usize = 1_024;
/// Large buffers kept for reuse, at most: 2 MiB a core.
const LARGE_KEPT_MAX: usize = 32;

/// A buffer for one send. Its memory stays where it is while the kernel reads it.
#[derive(Debug)]
pub struct SendBuffer(Box<Parts>);

#[derive(Debug)]
struct Parts {
    /// Never grows or shrinks; `sent <= filled <= bytes.len()`.
    bytes: Box<[u8]>,
    filled: u32,
    sent: u32,
}

impl SendBuffer {
    fn new(bytes: usize) -> Self {
        Self(Box::new(Parts { bytes: vec![0; bytes].into_boxed_slice(), filled: 0, sent: 0 }))
    }

    /// Room for more.
    pub fn spare_mut(&mut self) -> &mut [u8] {
        let filled = self.0.filled as usize;
        &mut self.0.bytes[filled..]
    }

    /// Counts bytes that were written to the front of [`Self::spare_mut`].
    pub fn fill(&mut self, bytes: usize) {
        let filled = self.0.filled as usize + bytes;
        assert!(filled <= self.0.bytes.len(), "filled beyond the buffer");
        self.0.filled = filled as u32;
    }

    /// Appends as much as there is room for, and tells how much that was.
    pub fn append(&mut self, bytes: &[u8]) -> usize {
        let spare = self.spare_mut();
        let taken = bytes.len().min(spare.len());
        spare[..taken].copy_from_slice(&bytes[..taken]);
        self.fill(taken);
        taken
    }

    /// Bytes not yet sent.
    pub fn unsent(&self) -> &[u8] {
        &self.0.bytes[self.0.sent as usize..self.0.filled as usize]
    }

    /// Counts bytes that were sent.
    pub(super) fn advance(&mut self, bytes: usize) {
        let sent = self.0.sent as usize + bytes;
        assert!(sent <= self.0.filled as usize, "the kernel sent more than it was given");
        self.0.sent = sent as u32;
    }
}

/// Buffers of two sizes, kept for reuse up to a limit.
#[derive(Default, Debug)]
pub struct SendBuffers {
    small: Vec<SendBuffer>,
    large: Vec<SendBuffer>,
}

impl SendBuffers {
    /// An empty buffer with room for `bytes`, or for [`LARGE_BYTES`] if that is less.
    pub fn take(&mut self, bytes: usize) -> SendBuffer {
        let (kept, size) = match bytes <= SMALL_BYTES {
            true => (&mut self.small, SMALL_BYTES),
            false => (&mut self.large, LARGE_BYTES),
        };
        kept.pop().unwrap_or_else(|| SendBuffer::new(size))
    }

    /// Takes a buffer back, whatever is left in it.
    pub fn give_back(&mut self, mut buffer: SendBuffer) {
        let (kept, kept_max) = match buffer.0.bytes.len() == SMALL_BYTES {
            true => (&mut self.small, SMALL_KEPT_MAX),
            false => (&mut self.large, LARGE_KEPT_MAX),
        };
        if kept.len() < kept_max {
            buffer.0.filled = 0;
            buffer.0.sent = 0;
            kept.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_takes_what_fits_and_gives_what_is_unsent() {
        let mut buffer = SendBuffers::default().take(10);
        assert_eq!(buffer.append(b"hello"), 5);
        buffer.advance(2);
        assert_eq!(buffer.unsent(), b"llo");
        assert_eq!(buffer.append(&[0; SMALL_BYTES]), SMALL_BYTES - 5);
        assert_eq!(buffer.append(b"more"), 0);
    }

    #[test]
    fn the_pool_is_bounded_and_gives_empty_buffers() {
        let mut pool = SendBuffers::default();
        let taken: Vec<_> = (0..LARGE_KEPT_MAX + 5).map(|_| pool.take(SMALL_BYTES + 1)).collect();
        for mut buffer in taken {
            buffer.append(b"rest");
            pool.give_back(buffer);
        }
        assert_eq!(pool.large.len(), LARGE_KEPT_MAX);
        assert!(pool.take(LARGE_BYTES).unsent().is_empty());
    }
}

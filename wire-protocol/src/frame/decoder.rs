//! Cuts a stream of received bytes into payloads, however the network has cut it.
//!
//! The announced length is checked before a byte is reserved for it, and memory grows with what was received,
//! never with what was announced: a peer that promises 64 KiB and goes silent costs the three bytes it sent.
//! Between two frames the decoder holds no buffer at all.

use bytes::{Buf, Bytes, BytesMut};

/// Bytes of the longest length prefix: 32 bits in groups of 7.
const PREFIX_BYTES_MAX: usize = 5;

/// Cuts received bytes into frames. See the module for what it costs.
#[derive(Debug)]
pub struct FrameDecoder {
    /// Received and not yet handed on. Starts at a length prefix. Unallocated when empty.
    buffer: BytesMut,
    /// Largest payload taken.
    payload_bytes_max: u32,
    /// An error was found at the front of `buffer`; nothing after it is looked at or kept.
    failed: bool,
}

/// The peer's framing is broken: the connection cannot go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    /// The announced payload is larger than allowed.
    #[error("frame of {bytes} bytes, {bytes_max} allowed")]
    TooLarge {
        /// What the prefix announced.
        bytes: u32,
        /// What is allowed now.
        bytes_max: u32,
    },
    /// The length prefix is longer than it need be, or passes 32 bits.
    #[error("overlong frame length")]
    LengthOverlong,
}

impl FrameDecoder {
    /// A decoder that refuses payloads above `payload_bytes_max`.
    pub fn new(payload_bytes_max: usize) -> Self {
        Self { buffer: BytesMut::new(), payload_bytes_max: bytes_max(payload_bytes_max), failed: false }
    }

    /// Changes the limit for frames that were not handed on yet.
    pub fn set_payload_bytes_max(&mut self, payload_bytes_max: usize) {
        // A raised limit must not turn a refused frame into an accepted one.
        if !self.failed {
            self.payload_bytes_max = bytes_max(payload_bytes_max);
        }
    }

    /// Takes over received bytes. Call [`Self::next_frame`] until it gives `None` before the next push: then
    /// no more than one unfinished frame is ever held.
    pub fn push(&mut self, bytes: &[u8]) {
        if !self.failed {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// The next whole payload, if one is there. An error stays: nothing follows it.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, FrameError> {
        let prefix = match read_prefix(&self.buffer) {
            Ok(Some(prefix)) => prefix,
            Ok(None) => return Ok(None),
            Err(error) => return Err(self.fail(error)),
        };
        if prefix.payload_bytes > self.payload_bytes_max {
            let (bytes, bytes_max) = (prefix.payload_bytes, self.payload_bytes_max);
            return Err(self.fail(FrameError::TooLarge { bytes, bytes_max }));
        }
        let payload_bytes = prefix.payload_bytes as usize;
        let whole = prefix.bytes + payload_bytes;
        if self.buffer.len() < whole {
            return Ok(None);
        }
        // The last frame takes the buffer along; what stays behind is unallocated.
        let mut frame = if self.buffer.len() == whole {
            std::mem::take(&mut self.buffer)
        } else {
            self.buffer.split_to(whole)
        };
        frame.advance(prefix.bytes);
        debug_assert_eq!(frame.len(), payload_bytes);
        Ok(Some(frame.freeze()))
    }

    /// Whether the stream stands between two frames. A connection that ends elsewhere was cut.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Bytes allocated.
    #[cfg(test)]
    pub(super) fn buffer_bytes(&self) -> usize {
        self.buffer.capacity()
    }

    /// Keeps only the prefix, which is enough to find the same error again.
    fn fail(&mut self, error: FrameError) -> FrameError {
        if !self.failed {
            self.failed = true;
            self.buffer = self.buffer.iter().copied().take(PREFIX_BYTES_MAX).collect();
        }
        error
    }
}

fn bytes_max(payload_bytes_max: usize) -> u32 {
    u32::try_from(payload_bytes_max).expect("limits are far below 4 GiB")
}

/// A whole length prefix.
struct Prefix {
    /// Its own length.
    bytes: usize,
    /// What it announces.
    payload_bytes: u32,
}

/// `None`: more bytes are needed. Only the shortest form of a number is taken.
fn read_prefix(bytes: &[u8]) -> Result<Option<Prefix>, FrameError> {
    let mut value = 0u64;
    for (index, &byte) in bytes.iter().take(PREFIX_BYTES_MAX).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            let shortest = byte != 0 || index == 0;
            return match u32::try_from(value) {
                Ok(payload_bytes) if shortest => Ok(Some(Prefix { bytes: index + 1, payload_bytes })),
                _ => Err(FrameError::LengthOverlong),
            };
        }
    }
    if bytes.len() < PREFIX_BYTES_MAX { Ok(None) } else { Err(FrameError::LengthOverlong) }
}

//! Choices made by the bytes of an input: the same bytes, the same choices.

/// Reads choices from the front. After the end every choice is 0, so that a short input is a short story.
#[derive(Clone, Debug)]
pub struct Input<'a> {
    bytes: &'a [u8],
}

impl<'a> Input<'a> {
    /// From an input's bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// Whether anything is left to choose by.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// One byte.
    pub fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.bytes.split_first() else { return 0 };
        self.bytes = rest;
        first
    }

    /// Below `end`, which is from 1 to 256.
    pub fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end
    }

    /// A number with many small ones, and all large ones.
    pub fn number(&mut self) -> u64 {
        match self.byte() {
            small @ 0..=249 => u64::from(small),
            250 => u64::from(u16::from_le_bytes([self.byte(), self.byte()])),
            251 => 1 << self.below(64),
            252 => u64::MAX - u64::from(self.byte()),
            _ => {
                let mut bytes = [0; 8];
                bytes.iter_mut().for_each(|byte| *byte = self.byte());
                u64::from_le_bytes(bytes)
            }
        }
    }

    /// As many bytes as the next one says, or as are left; one in eight times more.
    pub fn slice(&mut self) -> &'a [u8] {
        let length = match self.byte() {
            short @ 0..=223 => usize::from(short),
            long => usize::from(long - 223) * 256 + usize::from(self.byte()),
        };
        let (slice, rest) = self.bytes.split_at(length.min(self.bytes.len()));
        self.bytes = rest;
        slice
    }

    /// Everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.bytes)
    }
}

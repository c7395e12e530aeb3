//! The table of session-local handles: handle `n` stands for the `n`-th conversation mentioned.

use crate::limits::HANDLES_MAX;

/// Grows in steps of half its size, at least this many rows: an idle session pays for few it does not use.
const ROWS_STEP_MIN: usize = 4;

/// Conversations by handle, from 1 upwards. Nothing is allocated before the first.
///
/// Looking up a handle is a scan of 16-byte rows, 320 bytes for the usual 20 conversations; an index beside
/// them would cost every idle session memory to save a busy one some nanoseconds.
#[derive(Default, Debug)]
pub(super) struct HandleTable {
    ids: Vec<[u8; 16]>,
}

impl HandleTable {
    /// The conversation that `handle` stands for.
    pub(super) fn id(&self, handle: u32) -> Option<&[u8; 16]> {
        self.ids.get(usize::try_from(handle).ok()?.checked_sub(1)?)
    }

    /// The handle that stands for the conversation.
    pub(super) fn handle(&self, id: &[u8; 16]) -> Option<u32> {
        self.ids.iter().position(|known| known == id).map(|index| index as u32 + 1)
    }

    /// The next handle, for a conversation that has none; `None` if the table is full.
    pub(super) fn bind(&mut self, id: [u8; 16]) -> Option<u32> {
        let count = self.ids.len();
        if count == HANDLES_MAX {
            return None;
        }
        if count == self.ids.capacity() {
            self.ids.reserve_exact((count / 2).max(ROWS_STEP_MIN).min(HANDLES_MAX - count));
        }
        self.ids.push(id);
        Some(count as u32 + 1)
    }

    /// What the next binding must be called.
    pub(super) fn next(&self) -> u32 {
        self.ids.len() as u32 + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> [u8; 16] {
        (number as u128).to_be_bytes()
    }

    #[test]
    fn handles_count_from_one_and_end_at_the_limit() {
        let mut table = HandleTable::default();
        for number in 1..=HANDLES_MAX {
            assert_eq!(table.next() as usize, number);
            assert_eq!(table.handle(&id(number)), None);
            assert_eq!(table.bind(id(number)), Some(number as u32));
            assert!(table.ids.capacity() <= HANDLES_MAX);
        }
        assert_eq!(table.bind(id(0)), None);
        assert_eq!(table.handle(&id(0)), None);
        for number in 1..=HANDLES_MAX {
            assert_eq!(table.handle(&id(number)), Some(number as u32));
            assert_eq!(table.id(number as u32), Some(&id(number)));
        }
        for unknown in [0, HANDLES_MAX as u32 + 1, u32::MAX] {
            assert_eq!(table.id(unknown), None);
        }
    }

    #[test]
    fn twenty_conversations_cost_little() {
        let mut table = HandleTable::default();
        assert_eq!(table.ids.capacity(), 0);
        (0..20).for_each(|number| assert!(table.bind(id(number)).is_some()));
        assert!(table.ids.capacity() * 16 <= 448, "{} rows", table.ids.capacity());
    }
}

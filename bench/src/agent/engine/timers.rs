//! When connections want to be looked at although nothing came.
//!
//! Nearly every frame moves the time of a heartbeat, and nearly none comes due. So a connection has one entry; when
//! that comes due, the connection is asked for its real time, and entered again if that is later. A time that moves
//! forward gets a second entry, and the first one is stale.

use crate::workload::population::DeviceIndex;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// When the connection's entry comes due; [`NO_ENTRY`]: it has none.
pub(super) type EntryUs = u64;
/// See [`EntryUs`].
pub(super) const NO_ENTRY: EntryUs = u64::MAX;

/// Entries by time.
#[derive(Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(u64, DeviceIndex)>>,
}

impl Timers {
    /// Makes sure that the device is looked at when `due_us` comes.
    pub(super) fn schedule(&mut self, device: DeviceIndex, due_us: Option<u64>, entry: &mut EntryUs) {
        if let Some(due_us) = due_us
            && due_us < *entry
        {
            *entry = due_us;
            self.heap.push(Reverse((due_us, device)));
        }
    }

    /// The next device to look at, and the time it was entered for: stale unless that is its connection's entry.
    pub(super) fn take_due(&mut self, now_us: u64) -> Option<(u64, DeviceIndex)> {
        let Reverse(entry) = *self.heap.peek()?;
        (entry.0 <= now_us).then(|| self.heap.pop())?;
        Some(entry)
    }

    /// When that will be.
    pub(super) fn next_us(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((due_us, _))| *due_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_time_costs_no_entry_and_an_earlier_one_is_kept() {
        let mut timers = Timers::default();
        let mut entry = NO_ENTRY;
        timers.schedule(DeviceIndex(1), Some(100), &mut entry);
        timers.schedule(DeviceIndex(1), Some(200), &mut entry);
        timers.schedule(DeviceIndex(1), None, &mut entry);
        assert_eq!((entry, timers.heap.len()), (100, 1));
        timers.schedule(DeviceIndex(1), Some(50), &mut entry);
        assert_eq!((entry, timers.next_us()), (50, Some(50)));
        assert_eq!(timers.take_due(49), None);
        assert_eq!(timers.take_due(50), Some((50, DeviceIndex(1))));
        assert_eq!(timers.take_due(99), None);
        assert_eq!(timers.take_due(100), Some((100, DeviceIndex(1))), "stale: no longer the entry");
    }
}

//! A hashed timer wheel of coarse slots: one timer for each index, no allocation for each.
//!
//! Timers are kept in lists threaded through two arrays, one list a slot of the wheel. A timer beyond the
//! wheel's horizon waits in its last slot and is looked at again there. Who uses it looks at the true deadline
//! when a timer fires and sets it anew if that has moved: so a session that is heard of costs nothing here.

/// Milliseconds of one slot: how late a timer may be.
pub const TIMER_SLOT_MS: u64 = 1_000;
/// Slots of the wheel: a horizon of 34 minutes, beyond three of the longest heartbeats.
const TIMER_SLOTS: usize = 2_048;
/// No index.
const NONE: u32 = u32::MAX;

/// One timer for each index.
pub struct TimerWheel {
    /// First index of each slot's list.
    heads: Vec<u32>,
    links: Vec<Link>,
    /// The slot that is looked at next, counted from the beginning of time.
    next_slot: u64,
    count: usize,
}

#[derive(Clone, Copy)]
struct Link {
    before: u32,
    after: u32,
    /// Place in `heads`, or [`NONE`]: not set.
    slot: u32,
}

const UNSET: Link = Link { before: NONE, after: NONE, slot: NONE };

impl TimerWheel {
    /// No timers.
    pub fn new(now_ms: u64) -> Self {
        Self {
            heads: vec![NONE; TIMER_SLOTS],
            links: Vec::new(),
            next_slot: now_ms / TIMER_SLOT_MS,
            count: 0,
        }
    }

    /// Sets the timer of `index`, instead of the one it had.
    pub fn set(&mut self, index: u32, deadline_ms: u64) {
        self.clear(index);
        let place = index as usize;
        if self.links.len() <= place {
            self.links.resize(place + 1, UNSET);
        }
        // A slot fires when it is over, so that no timer fires early.
        let horizon = self.next_slot + TIMER_SLOTS as u64 - 1;
        let slot = (deadline_ms / TIMER_SLOT_MS).clamp(self.next_slot, horizon);
        let slot = (slot % TIMER_SLOTS as u64) as usize;
        let after = std::mem::replace(&mut self.heads[slot], index);
        if after != NONE {
            self.links[after as usize].before = index;
        }
        self.links[place] = Link { before: NONE, after, slot: slot as u32 };
        self.count += 1;
    }

    /// Takes the timer of `index` away.
    pub fn clear(&mut self, index: u32) {
        let Some(link) = self.links.get_mut(index as usize) else { return };
        let Link { before, after, slot } = std::mem::replace(link, UNSET);
        if slot == NONE {
            return;
        }
        match before {
            NONE => self.heads[slot as usize] = after,
            before => self.links[before as usize].after = after,
        }
        if after != NONE {
            self.links[after as usize].before = before;
        }
        self.count -= 1;
    }

    /// The next index whose slot is over, its timer taken away. Call until `None`.
    pub fn poll(&mut self, now_ms: u64) -> Option<u32> {
        let current = now_ms / TIMER_SLOT_MS;
        if self.count == 0 {
            self.next_slot = self.next_slot.max(current);
            return None;
        }
        while self.next_slot < current {
            let head = self.heads[(self.next_slot % TIMER_SLOTS as u64) as usize];
            if head != NONE {
                self.clear(head);
                return Some(head);
            }
            self.next_slot += 1;
        }
        None
    }

    /// When [`Self::poll`] may have something; not later than the next timer.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        (self.count > 0).then(|| (self.next_slot + 1) * TIMER_SLOT_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: [u32; 0] = [];

    fn fired(wheel: &mut TimerWheel, now_ms: u64) -> Vec<u32> {
        let mut fired: Vec<u32> = std::iter::from_fn(|| wheel.poll(now_ms)).collect();
        fired.sort_unstable();
        fired
    }

    #[test]
    fn timers_fire_once_and_not_early() {
        let mut wheel = TimerWheel::new(50_500);
        wheel.set(0, 52_000);
        wheel.set(1, 52_999);
        wheel.set(2, 53_000);
        wheel.set(3, 1);
        assert_eq!(fired(&mut wheel, 50_999), NOTHING);
        assert_eq!(fired(&mut wheel, 52_999), [3], "a deadline that has passed fires with the next slot");
        assert_eq!(fired(&mut wheel, 53_000), [0, 1]);
        assert_eq!(wheel.next_deadline_ms(), Some(54_000));
        assert_eq!(fired(&mut wheel, 60_000), [2]);
        assert_eq!(wheel.next_deadline_ms(), None);
        assert_eq!(fired(&mut wheel, 90_000), NOTHING);
    }

    #[test]
    fn a_timer_is_replaced_and_taken_away() {
        let mut wheel = TimerWheel::new(0);
        (0..5).for_each(|index| wheel.set(index, 3_000));
        wheel.set(2, 8_000);
        wheel.clear(0);
        wheel.clear(4);
        wheel.clear(4);
        wheel.clear(99);
        assert_eq!(fired(&mut wheel, 5_000), [1, 3]);
        assert_eq!(fired(&mut wheel, 9_000), [2]);
    }

    #[test]
    fn timers_beyond_the_horizon_are_looked_at_again_there() {
        let mut wheel = TimerWheel::new(0);
        let far_ms = 10 * TIMER_SLOTS as u64 * TIMER_SLOT_MS;
        wheel.set(7, far_ms);
        let horizon_ms = TIMER_SLOTS as u64 * TIMER_SLOT_MS;
        assert_eq!(fired(&mut wheel, horizon_ms - TIMER_SLOT_MS), NOTHING);
        assert_eq!(fired(&mut wheel, horizon_ms), [7]);
    }

    #[test]
    fn a_wheel_without_timers_jumps_over_any_time() {
        let mut wheel = TimerWheel::new(0);
        assert_eq!(wheel.poll(u64::MAX / 2), None);
        wheel.set(1, 5);
        assert_eq!(fired(&mut wheel, u64::MAX / 2 + 2 * TIMER_SLOT_MS), [1]);
    }
}

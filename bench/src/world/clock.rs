//! The clock of one machine: ahead of the true time or behind it, by as much as a fault says.

/// A wall clock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub struct Clock {
    ahead_ms: i64,
}

impl Clock {
    /// It jumps.
    pub fn jump(&mut self, by_ms: i64) {
        self.ahead_ms += by_ms;
    }

    /// What it shows at a true time.
    pub fn at(self, true_ms: u64) -> u64 {
        true_ms.saturating_add_signed(self.ahead_ms)
    }

    /// The true time at which it shows this, if it does not jump before.
    pub fn when(self, shown_ms: u64) -> u64 {
        shown_ms.saturating_add_signed(-self.ahead_ms)
    }
}

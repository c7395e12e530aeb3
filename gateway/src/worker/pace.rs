//! How long a busy loop waits for company before its next turn.
//!
//! About 70 µs of a turn do not depend on how much it carries: wakes, submissions, one entry of the log and its way
//! through three threads. A loop that is busy most of the time and makes many short turns spends its time on that. A
//! pause of some hundred microseconds lets several messages share a turn; it costs latency only where a queue was
//! about to grow, and nothing while the loop is mostly idle.

use std::time::Duration;

/// Longest pause, in microseconds: about two of a disk's syncs.
pub const PAUSE_US_MAX: u64 = 500;
/// The whole of the time, in which shares of it are counted: fine enough that no turn is rounded away.
const WHOLE: u64 = 1_000_000;
/// Share of time spent in turns from which on the loop pauses.
const BUSY: u64 = WHOLE / 2;
/// A turn this long, in microseconds, carries enough.
const LONG_TURN_US: u64 = 1_000;
/// Time over which the share is taken, in microseconds: tens of turns.
const MEMORY_US: u64 = 20_000;

/// Share of time that turns took lately.
#[derive(Debug, Default)]
pub struct Pace {
    busy: u64,
}

impl Pace {
    /// A turn took this long, and the loop had slept this long before it. Gives the pause before the next turn.
    pub fn turned(&mut self, slept: Duration, turn: Duration) -> Duration {
        let (slept_us, turn_us) = (micros(slept), micros(turn));
        let passed_us = (slept_us + turn_us).clamp(1, MEMORY_US);
        let share = turn_us.min(passed_us) * WHOLE / passed_us;
        self.busy = (self.busy * (MEMORY_US - passed_us) + share * passed_us) / MEMORY_US;
        let short_us = LONG_TURN_US.saturating_sub(turn_us);
        let pause_us =
            PAUSE_US_MAX * self.busy.saturating_sub(BUSY) / (WHOLE - BUSY) * short_us / LONG_TURN_US;
        Duration::from_micros(pause_us)
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).min(MEMORY_US)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(us: u64) -> Duration {
        Duration::from_micros(us)
    }

    /// The pause after this went on for a while.
    fn settled(slept_us: u64, turn_us: u64) -> Duration {
        let mut pace = Pace::default();
        (0..10_000).fold(Duration::ZERO, |_, _| pace.turned(us(slept_us), us(turn_us)))
    }

    #[test]
    fn a_loop_that_mostly_sleeps_never_pauses() {
        assert_eq!(settled(1_000_000, 50), Duration::ZERO);
        assert_eq!(settled(200, 190), Duration::ZERO);
        let mut pace = Pace::default();
        assert_eq!(pace.turned(us(1_000), us(900)), Duration::ZERO, "one long turn is no load");
    }

    #[test]
    fn a_busy_loop_of_short_turns_pauses_and_longer_the_busier_it_is() {
        let (half, most, all) = (settled(80, 120), settled(40, 160), settled(0, 200));
        assert!(
            us(50) < half && half < most && most < all && all <= us(PAUSE_US_MAX),
            "{half:?} {most:?} {all:?}"
        );
    }

    #[test]
    fn long_turns_need_no_company() {
        assert_eq!(settled(0, LONG_TURN_US), Duration::ZERO);
        assert!(settled(0, 900) < us(60));
        assert_eq!(settled(0, u64::MAX), Duration::ZERO);
    }

    #[test]
    fn a_load_that_ends_is_forgotten() {
        let mut pace = Pace::default();
        let busy = (0..1_000).fold(Duration::ZERO, |_, _| pace.turned(us(0), us(200)));
        assert!(busy > us(300), "{busy:?}");
        assert_eq!(pace.turned(us(1_000_000), us(200)), Duration::ZERO);
    }
}

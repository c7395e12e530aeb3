//! How often something may happen: a steady rate, and how much at once.

use std::fmt;
use std::str::FromStr;

/// Largest burst and largest count of a rate: far beyond what any limit means.
pub const RATE_COUNT_MAX: u32 = 1_000_000;
/// Longest time that a refusal names, in milliseconds: a client that waits that long has given up.
pub const THROTTLE_WAIT_MS_MAX: u64 = 60_000;

/// A token bucket's shape. Written `20 per second, burst 100`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    /// From 1 to [`RATE_COUNT_MAX`].
    count: u32,
    period: Period,
    /// From 1 to [`RATE_COUNT_MAX`].
    burst: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Period {
    Second,
    Minute,
}

impl Rate {
    /// This many a second, and a burst.
    pub const fn per_second(count: u32, burst: u32) -> Self {
        Self { count, period: Period::Second, burst }
    }

    /// This many a minute, and a burst.
    pub const fn per_minute(count: u32, burst: u32) -> Self {
        Self { count, period: Period::Minute, burst }
    }

    /// What all of `keys` may together.
    pub(super) fn times(self, keys: u32) -> Self {
        Self { count: self.count.saturating_mul(keys), burst: self.burst.saturating_mul(keys), ..self }
    }

    /// How many a second, at least 1.
    pub fn whole_per_second(self) -> u32 {
        u32::try_from(1_000_000 / self.token_us()).unwrap_or(u32::MAX).max(1)
    }

    /// Time in which one token grows, in microseconds.
    pub(super) fn token_us(self) -> u64 {
        let period_us = match self.period {
            Period::Second => 1_000_000,
            Period::Minute => 60_000_000,
        };
        (period_us / u64::from(self.count)).max(1)
    }
}

/// One token bucket, as the moment at which it will be full again, in microseconds: a past one is a full bucket.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Bucket {
    full_us: u64,
}

impl Bucket {
    /// Takes `cost` tokens, at most the burst; or takes nothing and says how long to wait, in milliseconds.
    pub fn take(&mut self, rate: Rate, cost: u32, now_ms: u64) -> Result<(), u32> {
        let now_us = now_ms.saturating_mul(1_000);
        let cost_us = u64::from(cost.min(rate.burst)) * rate.token_us();
        let full_us = self.full_us.max(now_us) + cost_us;
        let latest_us = now_us + u64::from(rate.burst) * rate.token_us();
        if full_us > latest_us {
            let wait_ms = (full_us - latest_us).div_ceil(1_000).min(THROTTLE_WAIT_MS_MAX);
            return Err(wait_ms as u32);
        }
        self.full_us = full_us;
        Ok(())
    }

    /// Takes `cost` tokens even if they are not there, for what has happened already; how long it takes until the bucket
    /// owes nothing, in milliseconds.
    pub fn owe(&mut self, rate: Rate, cost: u32, now_ms: u64) -> u64 {
        let now_us = now_ms.saturating_mul(1_000);
        self.full_us = self.full_us.max(now_us) + u64::from(cost) * rate.token_us();
        let latest_us = now_us + u64::from(rate.burst) * rate.token_us();
        self.full_us.saturating_sub(latest_us).div_ceil(1_000)
    }

    /// Gives back what was taken.
    pub fn give_back(&mut self, rate: Rate, cost: u32) {
        self.full_us = self.full_us.saturating_sub(u64::from(cost.min(rate.burst)) * rate.token_us());
    }

    /// Whether there is nothing to remember.
    pub fn is_full(self, now_ms: u64) -> bool {
        self.full_us <= now_ms.saturating_mul(1_000)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let period = match self.period {
            Period::Second => "second",
            Period::Minute => "minute",
        };
        write!(f, "{} per {period}, burst {}", self.count, self.burst)
    }
}

/// What a rate that cannot be read should have been.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "expected like \"20 per second, burst 100\", or minute; numbers from 1 to {RATE_COUNT_MAX}; or \"none\""
)]
pub struct RateUnreadable;

impl FromStr for Rate {
    type Err = RateUnreadable;

    fn from_str(text: &str) -> Result<Self, RateUnreadable> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let [count, "per", period, "burst", burst] = words[..] else { return Err(RateUnreadable) };
        let period = match period {
            "second," => Period::Second,
            "minute," => Period::Minute,
            _ => return Err(RateUnreadable),
        };
        let number = |text: &str| {
            let number = text.parse().ok().filter(|number| (1..=RATE_COUNT_MAX).contains(number));
            number.ok_or(RateUnreadable)
        };
        Ok(Self { count: number(count)?, period, burst: number(burst)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RATE: Rate = Rate::per_second(20, 100);

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let mut bucket = Bucket::default();
        for _ in 0..100 {
            assert_eq!(bucket.take(RATE, 1, 5_000), Ok(()));
        }
        assert_eq!(bucket.take(RATE, 1, 5_000), Err(50));
        assert_eq!(bucket.take(RATE, 1, 5_049), Err(1));
        assert_eq!(bucket.take(RATE, 3, 5_050), Err(100));
        assert_eq!(bucket.take(RATE, 1, 5_050), Ok(()), "a refusal took nothing");
        assert_eq!(bucket.take(RATE, 1, 5_050), Err(50));
        assert!(!bucket.is_full(10_049) && bucket.is_full(10_050));
    }

    #[test]
    fn what_was_given_back_may_be_taken_again() {
        let mut bucket = Bucket::default();
        assert_eq!(bucket.take(RATE, 500, 0), Ok(()), "no cost is beyond the burst");
        assert_eq!(bucket.take(RATE, 1, 0), Err(50));
        bucket.give_back(RATE, 2);
        assert_eq!(bucket.take(RATE, 2, 0), Ok(()));
        assert!(bucket.take(RATE, 1, 0).is_err());
        bucket.give_back(RATE, 1_000);
        bucket.give_back(RATE, 1_000);
        assert_eq!(bucket.take(RATE, 101, 0), Ok(()));
        assert!(bucket.take(RATE, 1, 0).is_err(), "a bucket holds a burst, however much is given back");
    }

    #[test]
    fn rates_are_read_as_they_are_written() {
        for text in
            ["20 per second, burst 100", "10 per minute, burst 1", "1000000 per second, burst 1000000"]
        {
            assert_eq!(text.parse::<Rate>().map(|rate| rate.to_string()).as_deref(), Ok(text));
        }
        for text in [
            "",
            "20",
            "0 per second, burst 1",
            "1 per second, burst 0",
            "1 per hour, burst 1",
            "1 per second burst 1",
            "1 per second, burst 1000001",
            "-1 per second, burst 1",
            "1 per second, burst 1 x",
        ] {
            assert_eq!(text.parse::<Rate>(), Err(RateUnreadable), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_span_lets_more_through_than_its_burst_and_rate(
            count in 1u32..1_000, burst in 1u32..200,
            asks in proptest::collection::vec((0u64..300, 1u32..5), 1..200),
        ) {
            let rate = Rate::per_second(count, burst);
            let (mut bucket, mut now_ms, mut taken) = (Bucket::default(), 1_000u64, 0u64);
            for (pause_ms, cost) in asks {
                now_ms += pause_ms;
                match bucket.take(rate, cost, now_ms) {
                    Ok(()) => taken += u64::from(cost.min(burst)),
                    Err(wait_ms) => {
                        // Exactly the wait that was named is enough.
                        let mut later = bucket;
                        prop_assert!(wait_ms > 0);
                        prop_assert!(later.take(rate, cost, now_ms + u64::from(wait_ms)).is_ok());
                    }
                }
                // A token's time is rounded down to a microsecond: 0.1 % at these rates.
                let grown = (now_ms - 1_000) * u64::from(count) * 1_001 / 1_000_000 + 1;
                prop_assert!(taken <= u64::from(burst) + grown, "{taken} in {} ms", now_ms - 1_000);
            }
        }
    }
}

//! Clocks of two processes against each other, by probes (Cristian's algorithm). No probe can tell how a round trip
//! divides between there and back, so an offset comes with its bound: half of the round trip.

use crate::clock;
use std::time::Instant;

/// Probes of one measurement: enough that one of them meets a quiet moment of both machines.
pub const PROBES: u32 = 16;
/// How far two clocks may run apart, in microseconds a second: ten times what quartz does, and as much as a clock
/// that is being slewed does at most over a measurement's life.
const DRIFT_US_A_SECOND: u64 = 100;

/// The clock of a process, in microseconds since it was made. Copies agree with each other.
#[derive(Clone, Copy, Debug)]
pub struct ProcessClock {
    origin: Instant,
    /// Reading at the origin.
    ahead_us: u64,
}

impl ProcessClock {
    /// A clock that reads 0 now.
    pub fn start() -> Self {
        Self { origin: clock::now(), ahead_us: 0 }
    }

    /// The same clock set forward: what another machine's clock looks like.
    pub fn set_forward(self, us: u64) -> Self {
        Self { origin: self.origin, ahead_us: self.ahead_us + us }
    }

    /// Reading.
    pub fn now_us(&self) -> u64 {
        let passed = clock::now().duration_since(self.origin).as_micros();
        self.ahead_us + u64::try_from(passed).unwrap_or(u64::MAX / 2)
    }
}

/// One probe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sample {
    /// When it was sent, by the own clock, in microseconds.
    pub sent_us: u64,
    /// What the other clock read when it answered.
    pub agent_us: u64,
    /// When the answer was there, by the own clock.
    pub received_us: u64,
}

/// Another clock against the own one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClockEstimate {
    /// Add it to the other's readings to have the own clock's, in microseconds.
    pub offset_us: i64,
    /// The offset was off by no more than this when it was measured.
    pub bound_us: u64,
    /// When it was measured, by the own clock.
    pub measured_us: u64,
}

impl ClockEstimate {
    /// What one probe says; `None` if its times run backwards.
    pub fn of(sample: Sample) -> Option<Self> {
        let round_trip_us = sample.received_us.checked_sub(sample.sent_us)?;
        let middle_us = sample.sent_us + round_trip_us / 2;
        let offset_us = i64::try_from(i128::from(middle_us) - i128::from(sample.agent_us)).ok()?;
        // Each reading is cut to whole microseconds: together they are off by less than one more.
        Some(Self { offset_us, bound_us: round_trip_us.div_ceil(2) + 1, measured_us: sample.received_us })
    }

    /// The bound later on, both clocks having run apart meanwhile.
    pub fn bound_at(&self, now_us: u64) -> u64 {
        let age_us = now_us.saturating_sub(self.measured_us);
        self.bound_us + (age_us * DRIFT_US_A_SECOND).div_ceil(1_000_000)
    }

    /// A moment of the own clock, by the other one.
    pub fn theirs(&self, own_us: u64) -> u64 {
        let theirs = i128::from(own_us) - i128::from(self.offset_us);
        u64::try_from(theirs.max(0)).unwrap_or(u64::MAX)
    }
}

/// The offset by the probe with the quickest round trip; `None` without any probe.
pub fn offset(samples: &[Sample]) -> Option<ClockEstimate> {
    samples.iter().filter_map(|sample| ClockEstimate::of(*sample)).min_by_key(|estimate| estimate.bound_us)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Probes of a clock that is behind by `offset_us`, with the given delays there and back.
    fn probes(offset_us: i64, delays: &[(u64, u64)]) -> Vec<Sample> {
        let mut now_us = 5_000_000u64;
        let mut samples = Vec::new();
        for (there, back) in delays {
            let answered_us = now_us + there;
            let agent_us = u64::try_from(answered_us as i64 - offset_us).expect("a clock's reading");
            samples.push(Sample { sent_us: now_us, agent_us, received_us: answered_us + back });
            now_us += there + back + 1_000;
        }
        samples
    }

    #[test]
    fn the_true_offset_lies_within_the_bound_however_uneven_the_delays() {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut random = |limit: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % limit
        };
        for round in 0..2_000 {
            let true_us = random(8_000_000) as i64 - 4_000_000;
            // Every other round all of the delay is on one way: the worst that the bound must cover.
            let delays: Vec<(u64, u64)> = (0..PROBES)
                .map(|_| match round % 4 {
                    0 => (random(3_000), 0),
                    1 => (0, random(3_000)),
                    _ => (random(2_000), random(40)),
                })
                .collect();
            let estimate = offset(&probes(true_us, &delays)).expect("there are probes");
            let off_us = (estimate.offset_us - true_us).unsigned_abs();
            assert!(off_us <= estimate.bound_us, "off by {off_us} us, bound {} us", estimate.bound_us);
            let quickest_us = delays.iter().map(|(there, back)| there + back).min().expect("not empty");
            assert_eq!(estimate.bound_us, quickest_us.div_ceil(2) + 1, "of the quickest probe");
        }
    }

    #[test]
    fn moments_are_carried_over_and_bounds_grow_with_age() {
        let estimate = offset(&probes(-3_000_000, &[(200, 200), (50, 50), (90, 10)])).expect("probes");
        assert_eq!((estimate.offset_us, estimate.bound_us), (-3_000_000, 51));
        assert_eq!(estimate.theirs(10_000_000), 13_000_000);
        let behind = ClockEstimate { offset_us: 500, ..estimate };
        assert_eq!((behind.theirs(700), behind.theirs(400)), (200, 0));
        assert_eq!(estimate.bound_at(estimate.measured_us), 51);
        assert_eq!(estimate.bound_at(estimate.measured_us + 2_000_000), 251);
    }

    #[test]
    fn no_probe_or_one_that_runs_backwards_gives_no_offset() {
        assert_eq!(offset(&[]), None);
        assert_eq!(offset(&[Sample { sent_us: 9, agent_us: 1, received_us: 8 }]), None);
    }
}

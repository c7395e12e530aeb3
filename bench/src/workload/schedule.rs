//! When actions are due. Pure: a schedule is a function from an action's number to its moment.
//!
//! The run's actions are numbered 0, 1, 2, …; agent `i` of `n` does those with `number % n == i`, so that all agents
//! together keep the schedule exactly. Poisson streams are drawn by each agent for itself at its part of the rate:
//! the sum of independent Poisson streams is one.

use super::plan::Schedule;
use super::population::Share;
use super::random::Random;

/// One agent's part of an open-loop schedule: due moments in microseconds from the phase's start.
#[derive(Clone, Debug)]
pub struct DueTimes {
    shape: Shape,
    share: Share,
    seconds: f64,
    /// Actions of this agent that were taken.
    taken: u64,
    random: Random,
    /// Poisson only: the next moment, in seconds.
    next_s: f64,
}

#[derive(Clone, Debug)]
enum Shape {
    /// Pieces of constant rate: (length in seconds, actions a second).
    Pieces(Vec<(f64, f64)>),
    /// Rate falls or grows linearly.
    Ramp { from: f64, to: f64 },
    /// Of this agent's part of the rate.
    Poisson { rate: f64 },
}

impl DueTimes {
    /// For a phase of this length. `None`: the schedule is closed-loop and has no due times.
    pub fn new(schedule: &Schedule, seconds: f64, share: Share, seed: u64) -> Option<Self> {
        let shape = match schedule {
            Schedule::Constant { rate } => Shape::Pieces(vec![(seconds, *rate)]),
            Schedule::Step { rates } => {
                let length = seconds / rates.len() as f64;
                Shape::Pieces(rates.iter().map(|rate| (length, *rate)).collect())
            }
            Schedule::Ramp { from, to } => Shape::Ramp { from: *from, to: *to },
            Schedule::Poisson { rate } => Shape::Poisson { rate: rate / f64::from(share.agents) },
            Schedule::Closed { .. } => return None,
        };
        let mut due = Self {
            shape,
            share,
            seconds,
            taken: 0,
            random: Random::new(seed ^ u64::from(share.agent).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            next_s: 0.0,
        };
        due.draw();
        Some(due)
    }

    /// The next due moment; `None`: the schedule is at its end.
    pub fn peek_us(&self) -> Option<u64> {
        let seconds = match &self.shape {
            Shape::Poisson { .. } => self.next_s,
            Shape::Pieces(pieces) => moment_in_pieces(pieces, self.number())?,
            Shape::Ramp { from, to } => moment_in_ramp(*from, *to, self.seconds, self.number())?,
        };
        (seconds < self.seconds).then_some((seconds * 1e6) as u64)
    }

    /// Takes it.
    pub fn take(&mut self) -> Option<u64> {
        let due_us = self.peek_us()?;
        self.taken += 1;
        self.draw();
        Some(due_us)
    }

    /// The run's number of this agent's next action.
    fn number(&self) -> f64 {
        (self.taken * u64::from(self.share.agents) + u64::from(self.share.agent)) as f64
    }

    fn draw(&mut self) {
        if let Shape::Poisson { rate } = self.shape {
            // Exponential gaps by inversion.
            self.next_s += -self.random.unit().ln() / rate;
        }
    }
}

/// When this many actions have fallen due.
fn moment_in_pieces(pieces: &[(f64, f64)], number: f64) -> Option<f64> {
    let (mut at, mut done) = (0.0, 0.0);
    for (length, rate) in pieces {
        let here = length * rate;
        if number < done + here {
            return Some(at + (number - done) / rate);
        }
        at += length;
        done += here;
    }
    None
}

/// The same for a rate that goes linearly from `from` to `to`: N(t) = from t + (to - from) t² / 2T, solved for t in
/// the form that loses no digits when the slope is small.
fn moment_in_ramp(from: f64, to: f64, seconds: f64, number: f64) -> Option<f64> {
    let slope = (to - from) / seconds;
    let inside = from * from + 2.0 * slope * number;
    if inside < 0.0 {
        return None;
    }
    let divisor = from + inside.sqrt();
    if divisor == 0.0 { Some(0.0) } else { Some(2.0 * number / divisor) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(schedule: &Schedule, seconds: f64, agents: u32) -> Vec<u64> {
        let mut moments = Vec::new();
        for agent in 0..agents {
            let share = Share { agent, agents };
            let mut due = DueTimes::new(schedule, seconds, share, 7).expect("open loop");
            moments.extend(std::iter::from_fn(|| due.take()));
        }
        moments.sort_unstable();
        moments
    }

    #[test]
    fn agents_together_keep_the_schedule_of_one() {
        let shapes = [
            Schedule::Constant { rate: 1_000.0 },
            Schedule::Ramp { from: 10.0, to: 900.0 },
            Schedule::Ramp { from: 900.0, to: 0.0 },
            Schedule::Ramp { from: 0.0, to: 500.0 },
            Schedule::Step { rates: vec![100.0, 0.0, 700.0] },
        ];
        for shape in shapes {
            let one = all(&shape, 3.0, 1);
            for agents in [2, 7] {
                assert_eq!(all(&shape, 3.0, agents), one, "{shape:?} by {agents}");
            }
        }
    }

    #[test]
    fn as_many_are_due_as_the_rate_says() {
        assert_eq!(all(&Schedule::Constant { rate: 1_000.0 }, 2.0, 3).len(), 2_000);
        // The area under the ramp: (100 + 300) / 2 * 4.
        let ramp = all(&Schedule::Ramp { from: 100.0, to: 300.0 }, 4.0, 1);
        assert!((799..=801).contains(&ramp.len()), "{}", ramp.len());
        let first_half = ramp.iter().filter(|us| **us < 2_000_000).count();
        assert!((299..=301).contains(&first_half), "{first_half}");
        let step = all(&Schedule::Step { rates: vec![100.0, 50.0] }, 4.0, 1);
        assert_eq!(step.iter().filter(|us| **us < 2_000_000).count(), 200);
        assert_eq!(step.len(), 300);
    }

    #[test]
    fn poisson_gaps_have_the_rate_and_the_spread_of_independent_users() {
        let moments = all(&Schedule::Poisson { rate: 5_000.0 }, 10.0, 4);
        let count = moments.len() as f64;
        // Five standard deviations of a Poisson count of 50,000.
        assert!((count - 50_000.0).abs() < 5.0 * 50_000f64.sqrt(), "{count}");
        let gaps: Vec<f64> = moments.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        let variation = variance.sqrt() / mean;
        assert!((0.97..1.03).contains(&variation), "1 for exponential gaps, 0 for even ones: {variation}");
        assert_ne!(
            all(&Schedule::Poisson { rate: 50.0 }, 1.0, 1),
            all(&Schedule::Constant { rate: 50.0 }, 1.0, 1)
        );
    }

    #[test]
    fn a_closed_loop_has_no_due_times() {
        let closed = Schedule::Closed { in_flight: 8, count: 0 };
        assert!(DueTimes::new(&closed, 1.0, Share { agent: 0, agents: 1 }, 1).is_none());
    }
}

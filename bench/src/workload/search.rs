//! The highest rate that meets a latency target: a search over runs, pure.
//!
//! ```text
//! double until a run fails  ->  halve the gap between the best and the worst  ->  done when the gap is small
//! ```
//!
//! A run fails when its latency misses the target, and also when it is void because the rate was not reached. A run
//! that is void because of its generator says nothing of the server: the search ends there and says so.

/// What one run at a rate showed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The target was met.
    Met,
    /// The target was missed, or the server did not follow.
    Missed,
    /// The generator was the bottleneck: no higher rate can be tried from here.
    GeneratorBound,
}

/// The next step.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Step {
    /// Run at this rate.
    Try(f64),
    /// The search is over.
    Done(Outcome),
}

/// What was found.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Outcome {
    /// Highest rate that met the target; `None`: not even the lowest one did.
    pub met: Option<f64>,
    /// Lowest rate that missed it; `None`: none did.
    pub missed: Option<f64>,
    /// The generator ended the search: the server may carry more.
    pub generator_bound: bool,
}

/// A search under way.
#[derive(Clone, Debug)]
pub struct Search {
    outcome: Outcome,
    next: f64,
    runs_left: u32,
    /// The gap at which it ends, as a share of the rate.
    precision: f64,
}

impl Search {
    /// Starts at `first` (actions a second), ends when the gap is `precision` (0.05: five per cent) or after `runs`.
    pub fn new(first: f64, precision: f64, runs: u32) -> Self {
        let outcome = Outcome { met: None, missed: None, generator_bound: false };
        Self { outcome, next: first, runs_left: runs, precision }
    }

    /// What to do now.
    pub fn step(&self) -> Step {
        let Outcome { met, missed, generator_bound } = self.outcome;
        let is_close =
            matches!((met, missed), (Some(met), Some(missed)) if missed - met <= met * self.precision);
        if generator_bound || is_close || self.runs_left == 0 {
            Step::Done(self.outcome)
        } else {
            Step::Try(self.next)
        }
    }

    /// The run at the rate that [`Self::step`] named showed this.
    pub fn tried(&mut self, verdict: Verdict) {
        let rate = self.next;
        self.runs_left = self.runs_left.saturating_sub(1);
        let outcome = &mut self.outcome;
        match verdict {
            Verdict::Met => outcome.met = Some(outcome.met.map_or(rate, |met| met.max(rate))),
            Verdict::Missed => outcome.missed = Some(outcome.missed.map_or(rate, |missed| missed.min(rate))),
            Verdict::GeneratorBound => outcome.generator_bound = true,
        }
        self.next = match (outcome.met, outcome.missed) {
            (Some(met), Some(missed)) => (met + missed) / 2.0,
            (Some(met), None) => met * 2.0,
            (None, Some(missed)) => missed / 2.0,
            (None, None) => rate,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Searches a server that carries `limit`, through a generator that makes `generator`.
    fn found(first: f64, limit: f64, generator: f64) -> (Outcome, u32) {
        let mut search = Search::new(first, 0.05, 20);
        let mut runs = 0;
        loop {
            match search.step() {
                Step::Done(outcome) => return (outcome, runs),
                Step::Try(rate) if rate > generator => search.tried(Verdict::GeneratorBound),
                Step::Try(rate) if rate <= limit => search.tried(Verdict::Met),
                Step::Try(_) => search.tried(Verdict::Missed),
            }
            runs += 1;
        }
    }

    #[test]
    fn the_limit_is_found_from_below_and_from_above() {
        for first in [100.0, 30_000.0, 1_000_000.0] {
            let (outcome, runs) = found(first, 44_000.0, f64::MAX);
            let met = outcome.met.expect("something was met");
            assert!((44_000.0 / 1.05..=44_000.0).contains(&met), "from {first}: {outcome:?}");
            assert!(runs <= 20, "{runs}");
        }
    }

    #[test]
    fn a_generator_at_its_end_is_told_from_a_server_at_its_end() {
        let (outcome, _) = found(1_000.0, 44_000.0, 10_000.0);
        assert!(outcome.generator_bound && outcome.missed.is_none());
        assert_eq!(outcome.met, Some(8_000.0));
    }

    #[test]
    fn it_ends_even_when_nothing_is_met() {
        let (outcome, runs) = found(1_000.0, 0.0, f64::MAX);
        assert_eq!((outcome.met, runs), (None, 20));
    }
}

//! What a phase's figures are made of, on one agent.

use super::devices::Stage;
use super::returning::Told;
use crate::coordinator::control::messages::{PhaseShare, Progress, StreamShare};
use crate::measure::histogram::Latencies;
use crate::report::results::{ConnectionCounts, ReturnCounts};
use std::collections::BTreeMap;

/// One stream's counts over the measured time.
#[derive(Debug, Default)]
pub(super) struct StreamFigures {
    pub(super) due: u64,
    pub(super) begun: u64,
    pub(super) succeeded: u64,
    pub(super) errors: BTreeMap<String, u64>,
    pub(super) unanswered: u64,
    pub(super) deliveries: u64,
    pub(super) answer: Latencies,
    pub(super) delivery: Latencies,
    /// Of the answers, those to devices that began at a gateway that no fault of the plan ends.
    pub(super) spared: Latencies,
}

impl StreamFigures {
    fn share(&self) -> StreamShare {
        let mut histograms = BTreeMap::new();
        for (name, latencies) in
            [("answer", &self.answer), ("delivery", &self.delivery), ("spared", &self.spared)]
        {
            if latencies.count() > 0 {
                histograms.insert(name.to_owned(), latencies.to_text());
            }
        }
        StreamShare {
            due: self.due,
            begun: self.begun,
            succeeded: self.succeeded,
            errors: self.errors.clone(),
            unanswered: self.unanswered,
            deliveries: self.deliveries,
            histograms,
        }
    }
}

/// A phase's figures.
#[derive(Debug, Default)]
pub(super) struct PhaseFigures {
    pub(super) streams: Vec<StreamFigures>,
    pub(super) connections: ConnectionCounts,
    /// These, and `recovery`, are of the whole phase: from when it was set, a moment before it begins, to the end of its grace.
    pub(super) losses: BTreeMap<String, u64>,
    pub(super) returns: ReturnCounts,
    pub(super) ledger_full: bool,
    /// Lost unasked → ready again.
    pub(super) recovery: Latencies,
    /// Due → handed to the kernel.
    pub(super) lag: Latencies,
    /// Of the second that runs.
    pub(super) second: SecondFigures,
}

/// The second that runs.
#[derive(Debug, Default)]
pub(super) struct SecondFigures {
    pub(super) due: u64,
    pub(super) succeeded: u64,
    pub(super) errors: u64,
    /// This and `sent_on`: not what comes before the phase begins.
    pub(super) log_ins: u64,
    pub(super) sent_on: u64,
    pub(super) latency: Latencies,
}

impl PhaseFigures {
    pub(super) fn new(streams: usize) -> Self {
        Self { streams: (0..streams).map(|_| StreamFigures::default()).collect(), ..Self::default() }
    }

    /// The second is over.
    pub(super) fn take_second(&mut self, phase: u32, second: u32) -> Progress {
        let taken = std::mem::take(&mut self.second);
        Progress {
            phase,
            second,
            due: taken.due,
            succeeded: taken.succeeded,
            errors: taken.errors,
            connections: self.connections.at_end,
            log_ins: taken.log_ins,
            sent_on: taken.sent_on,
            latency: if taken.latency.count() > 0 { taken.latency.to_text() } else { String::new() },
            cpu_milli: 0,
        }
    }

    pub(super) fn lose(&mut self, reason: &str) {
        *self.losses.entry(reason.to_owned()).or_default() += 1;
    }

    /// A connection has ended that nobody ended on purpose. `told`: the server's last words on it. Gives whether it was a
    /// session that was told where to go.
    pub(super) fn ended(&mut self, stage: Stage, told: Option<Told>, reason: &str) -> bool {
        // What the server said was counted when it did.
        if told.is_none() {
            self.lose(reason);
        }
        let returns = &mut self.returns;
        let is_sent_on = stage == Stage::Ready && matches!(told, Some(Told::Where(_)));
        returns.sent_on += u64::from(is_sent_on);
        match (stage, told) {
            (Stage::Ready, None) => returns.cut += 1,
            (Stage::Ready, Some(_)) => returns.told += 1,
            (_, Some(Told::When(_) | Told::Where(_))) => returns.put_off += 1,
            (_, None | Some(Told::Closed)) => returns.failed += 1,
        }
        is_sent_on
    }

    /// Samples beyond what histograms hold.
    pub(super) fn samples_lost(&self) -> u64 {
        let streams = self.streams.iter().map(|stream| stream.answer.lost() + stream.delivery.lost());
        streams.sum::<u64>() + self.lag.lost() + self.recovery.lost()
    }

    /// Everything, as it travels. The generators' part is the service's to add.
    pub(super) fn share(&self, phase: u32, measured_s: f64) -> PhaseShare {
        PhaseShare {
            phase,
            measured_s,
            streams: self.streams.iter().map(StreamFigures::share).collect(),
            connections: self.connections,
            losses: self.losses.clone(),
            ledger_full: self.ledger_full,
            recovery: if self.recovery.count() > 0 { self.recovery.to_text() } else { String::new() },
            returns: self.returns,
            ..PhaseShare::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_apart_by_what_was_said_and_by_what_was_there() {
        let mut figures = PhaseFigures::new(0);
        let told = [None, Some(Told::Closed), Some(Told::When(1)), Some(Told::Where(1))];
        for told in told {
            let is_sent_on = figures.ended(Stage::Ready, told, "reset");
            assert_eq!(is_sent_on, matches!(told, Some(Told::Where(_))));
            assert!(!figures.ended(Stage::Connecting, told, "refused"), "it was no session");
        }
        let expected = ReturnCounts { cut: 1, told: 3, sent_on: 1, put_off: 2, failed: 2 };
        assert_eq!(figures.returns, expected);
        let losses = [("refused".to_owned(), 1), ("reset".to_owned(), 1)];
        assert_eq!(figures.losses, BTreeMap::from(losses), "what the server said has its own code");
    }
}

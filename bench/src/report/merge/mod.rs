//! Many agents' shares become one: counts are added, histograms merged, nothing is averaged. Coordinators and relays
//! use the same sums, so it does not matter how the tree of agents is shaped.

use super::results::{ConnectionCounts, GeneratorResult, PhaseResult, ReturnCounts, Second, StreamResult};
use crate::coordinator::control::messages::{PhaseShare, Progress, StreamShare};
use crate::measure::histogram::{HistogramError, Latencies};
use crate::measure::sampler::{PhaseSample, SecondSample};
use crate::workload::plan::{Phase, Schedule};
use std::collections::BTreeMap;

/// Shares that do not belong together.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MergeError {
    /// Of different phases.
    #[error("a share of phase {other} cannot be added to phase {phase}")]
    Phase {
        /// The sum's.
        phase: u32,
        /// The other one's.
        other: u32,
    },
    /// Of different seconds.
    #[error("progress of second {other} cannot be added to second {second}")]
    Second {
        /// The sum's.
        second: u32,
        /// The other one's.
        other: u32,
    },
    /// Not one share for each of the plan's streams.
    #[error("phase {phase}: a share has {other} streams, not {streams}")]
    Streams {
        /// Which phase.
        phase: u32,
        /// The sum's.
        streams: usize,
        /// The other one's.
        other: usize,
    },
    /// A text that is no histogram.
    #[error("phase {phase}: {name}: {error}")]
    Histogram {
        /// Which phase.
        phase: u32,
        /// Which histogram.
        name: String,
        /// Why.
        error: HistogramError,
    },
}

/// Sum of the shares of one phase. Histograms stay decoded until the end.
#[derive(Clone, Debug, Default)]
pub struct ShareSum {
    phase: Option<u32>,
    measured_s: f64,
    streams: Vec<StreamSum>,
    connections: ConnectionCounts,
    generators: Vec<GeneratorResult>,
    losses: BTreeMap<String, u64>,
    ledger_full: bool,
    recovery: Latencies,
    returns: ReturnCounts,
}

#[derive(Clone, Debug, Default)]
struct StreamSum {
    counts: StreamShare,
    histograms: BTreeMap<String, Latencies>,
}

impl ShareSum {
    /// Adds one agent's share, or a relay's sum. A refused one changes nothing.
    pub fn add(&mut self, share: &PhaseShare) -> Result<(), MergeError> {
        let phase = self.phase.unwrap_or(share.phase);
        if phase != share.phase {
            return Err(MergeError::Phase { phase, other: share.phase });
        }
        let decoded: Vec<_> =
            share.streams.iter().map(|stream| decode(phase, stream)).collect::<Result<_, _>>()?;
        let recovery = Latencies::from_text(&share.recovery).map_err(|error| MergeError::Histogram {
            phase,
            name: "recovery".to_owned(),
            error,
        })?;
        if self.phase.is_none() {
            self.streams.resize_with(share.streams.len(), StreamSum::default);
        }
        let (streams, other) = (self.streams.len(), share.streams.len());
        if streams != other {
            return Err(MergeError::Streams { phase, streams, other });
        }
        self.phase = Some(phase);
        for ((sum, stream), histograms) in self.streams.iter_mut().zip(&share.streams).zip(decoded) {
            sum.add(stream, histograms);
        }
        // All agents have the same plan: the times differ only by how clocks round.
        self.measured_s = self.measured_s.max(share.measured_s);
        self.connections.at_end += share.connections.at_end;
        self.connections.peak += share.connections.peak;
        self.connections.full_handshakes += share.connections.full_handshakes;
        self.connections.resumed_handshakes += share.connections.resumed_handshakes;
        self.generators.extend_from_slice(&share.generators);
        self.generators.sort_by_key(|generator| generator.agent);
        add_counts(&mut self.losses, &share.losses);
        self.ledger_full |= share.ledger_full;
        self.recovery.merge(&recovery);
        self.returns.cut += share.returns.cut;
        self.returns.told += share.returns.told;
        self.returns.sent_on += share.returns.sent_on;
        self.returns.put_off += share.returns.put_off;
        self.returns.failed += share.returns.failed;
        Ok(())
    }

    /// The sum as a share: what a relay hands up.
    pub fn finish(self) -> PhaseShare {
        PhaseShare {
            phase: self.phase.unwrap_or_default(),
            measured_s: self.measured_s,
            streams: self.streams.into_iter().map(StreamSum::finish).collect(),
            connections: self.connections,
            generators: self.generators,
            losses: self.losses,
            ledger_full: self.ledger_full,
            recovery: if self.recovery.count() > 0 { self.recovery.to_text() } else { String::new() },
            returns: self.returns,
        }
    }
}

impl StreamSum {
    fn add(&mut self, share: &StreamShare, histograms: BTreeMap<String, Latencies>) {
        self.counts.due += share.due;
        self.counts.begun += share.begun;
        self.counts.succeeded += share.succeeded;
        self.counts.unanswered += share.unanswered;
        self.counts.deliveries += share.deliveries;
        add_counts(&mut self.counts.errors, &share.errors);
        for (name, latencies) in histograms {
            match self.histograms.get_mut(&name) {
                Some(sum) => sum.merge(&latencies),
                None => drop(self.histograms.insert(name, latencies)),
            }
        }
    }

    fn finish(self) -> StreamShare {
        let histograms = self.histograms.into_iter().map(|(name, sum)| (name, sum.to_text())).collect();
        StreamShare { histograms, ..self.counts }
    }
}

fn decode(phase: u32, stream: &StreamShare) -> Result<BTreeMap<String, Latencies>, MergeError> {
    let read = |(name, text): (&String, &String)| match Latencies::from_text(text) {
        Ok(latencies) => Ok((name.clone(), latencies)),
        Err(error) => Err(MergeError::Histogram { phase, name: name.clone(), error }),
    };
    stream.histograms.iter().map(read).collect()
}

fn add_counts(sum: &mut BTreeMap<String, u64>, more: &BTreeMap<String, u64>) {
    for (key, count) in more {
        *sum.entry(key.clone()).or_default() += count;
    }
}

/// Sum of the shares of one phase, of agents or of relays.
pub fn merge_shares(shares: &[PhaseShare]) -> Result<PhaseShare, MergeError> {
    let mut sum = ShareSum::default();
    shares.iter().try_for_each(|share| sum.add(share))?;
    Ok(sum.finish())
}

/// Sum of one second of several agents or relays.
#[derive(Clone, Debug, Default)]
pub struct ProgressSum {
    sum: Progress,
    latency: Latencies,
    added: u32,
}

impl ProgressSum {
    /// Adds one agent's second, or a relay's sum. A refused one changes nothing.
    pub fn add(&mut self, progress: &Progress) -> Result<(), MergeError> {
        let Progress { phase, second, .. } = *progress;
        if self.added == 0 {
            (self.sum.phase, self.sum.second) = (phase, second);
        }
        if self.sum.phase != phase {
            return Err(MergeError::Phase { phase: self.sum.phase, other: phase });
        }
        if self.sum.second != second {
            return Err(MergeError::Second { second: self.sum.second, other: second });
        }
        let latency = Latencies::from_text(&progress.latency);
        let name = "latency of a second".to_owned();
        self.latency.merge(&latency.map_err(|error| MergeError::Histogram { phase, name, error })?);
        self.sum.due += progress.due;
        self.sum.succeeded += progress.succeeded;
        self.sum.errors += progress.errors;
        self.sum.connections += progress.connections;
        self.sum.log_ins += progress.log_ins;
        self.sum.sent_on += progress.sent_on;
        self.sum.cpu_milli = self.sum.cpu_milli.max(progress.cpu_milli);
        self.added += 1;
        Ok(())
    }

    /// How many were added.
    pub fn added(&self) -> u32 {
        self.added
    }

    /// The sum as progress: what a relay hands up.
    pub fn finish(&self) -> Progress {
        Progress { latency: self.latency.to_text(), ..self.sum.clone() }
    }

    /// The sum beside what was sampled of the servers.
    pub fn second(&self, sample: SecondSample) -> Second {
        Second {
            second: self.sum.second,
            due: self.sum.due,
            succeeded: self.sum.succeeded,
            errors: self.sum.errors,
            connections: self.sum.connections,
            log_ins: self.sum.log_ins,
            sent_on: self.sum.sent_on,
            p50_us: self.latency.at(0.5),
            p99_us: self.latency.at(0.99),
            max_us: self.latency.max(),
            server_cpu_milli: sample.server_cpu_milli,
            server_private_bytes: sample.server_private_bytes,
            kernel_bytes: sample.kernel_bytes,
            agent_cpu_milli: self.sum.cpu_milli,
        }
    }
}

/// Sum of one second of several agents or relays.
pub fn merge_progress(progress: &[Progress]) -> Result<Progress, MergeError> {
    let mut sum = ProgressSum::default();
    progress.iter().try_for_each(|one| sum.add(one))?;
    Ok(sum.finish())
}

/// A phase's result from the plan, the sum of all shares, the seconds, the samples, and what was done to servers.
pub fn phase_result(
    phase: &Phase,
    share: PhaseShare,
    seconds: Vec<Second>,
    sample: PhaseSample,
    faults: Vec<(u64, String)>,
) -> Result<PhaseResult, MergeError> {
    let (streams, other) = (phase.streams.len(), share.streams.len());
    if streams != other {
        return Err(MergeError::Streams { phase: share.phase, streams, other });
    }
    let measured_s = share.measured_s;
    let streams = phase.streams.iter().zip(share.streams).map(|(planned, share)| {
        let open_loop = !matches!(planned.schedule, Schedule::Closed { .. });
        stream_result(super::numbers::name_of(planned.action), open_loop, share, measured_s)
    });
    Ok(PhaseResult {
        name: phase.name.clone(),
        preparation: phase.preparation,
        measured_s,
        streams: streams.collect(),
        connections: share.connections,
        seconds,
        generators: share.generators,
        servers: sample.servers,
        machine: sample.machine,
        losses: share.losses,
        recovery: share.recovery,
        returns: share.returns,
        faults,
    })
}

fn stream_result(action: String, open_loop: bool, share: StreamShare, measured_s: f64) -> StreamResult {
    // A phase that ended at once has no rate; JSON could not hold what a division by zero gives.
    let rate = |count: u64| if measured_s > 0.0 { count as f64 / measured_s } else { 0.0 };
    StreamResult {
        action,
        open_loop,
        due: share.due,
        begun: share.begun,
        succeeded: share.succeeded,
        errors: share.errors,
        unanswered: share.unanswered,
        deliveries: share.deliveries,
        offered_rate: rate(share.due),
        achieved_rate: rate(share.succeeded),
        histograms: share.histograms,
    }
}

#[cfg(test)]
mod tests;

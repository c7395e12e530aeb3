//! Figures that follow from a result: percentiles, costs of a message, memory of a connection. Text, page and
//! comparison take them from here, so they cannot disagree.

use super::results::{PhaseResult, RunResult, Second, ServerResult, StreamResult};
use crate::measure::histogram::Latencies;

/// A slope is told only if connections grew or fell by so many at least: fewer drown in what else moves memory.
const SLOPE_CONNECTIONS_MIN: u64 = 100;
/// And by so much of the largest count, in hundredths.
const SLOPE_SPREAD_MIN_PERCENT: u64 = 10;
/// Start to end must make up so much of the spread, in hundredths: memory does not follow connections that go and
/// come back.
const SLOPE_TREND_MIN_PERCENT: u64 = 80;
/// Points that a slope needs.
const SLOPE_POINTS_MIN: usize = 2;
/// Last seconds of a phase of which the middle one, by memory, stands for its settled end.
const SETTLED_SECONDS: usize = 3;

/// A histogram in six numbers; microseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Percentiles {
    /// Values.
    pub count: u64,
    /// 50 % are not above it.
    pub p50_us: u64,
    /// 90 %.
    pub p90_us: u64,
    /// 99 %.
    pub p99_us: u64,
    /// 99.9 %.
    pub p999_us: u64,
    /// All.
    pub max_us: u64,
}

impl Percentiles {
    /// Of a histogram.
    pub fn of(latencies: &Latencies) -> Self {
        Self {
            count: latencies.count(),
            p50_us: latencies.at(0.5),
            p90_us: latencies.at(0.9),
            p99_us: latencies.at(0.99),
            p999_us: latencies.at(0.999),
            max_us: latencies.max(),
        }
    }
}

/// A stream's histogram by name; empty if it has none. Files are checked when they are read, so none is broken.
pub fn latencies(stream: &StreamResult, name: &str) -> Latencies {
    stream.histograms.get(name).and_then(|text| Latencies::from_text(text).ok()).unwrap_or_default()
}

/// The most of something in any one second of a phase.
pub fn most(phase: &PhaseResult, value: fn(&Second) -> u64) -> u64 {
    phase.seconds.iter().map(value).max().unwrap_or(0)
}

/// What agents added themselves, all of them merged: due → handed to the kernel.
pub fn lag(phase: &PhaseResult) -> Latencies {
    let mut lag = Latencies::default();
    for generator in &phase.generators {
        lag.merge(&Latencies::from_text(&generator.lag).unwrap_or_default());
    }
    lag
}

/// Costs of one answered action.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Costs {
    /// Actions that were answered well, all streams.
    pub actions: u64,
    /// Server CPU in the processes, in microseconds.
    pub user_us: f64,
    /// And in the kernel.
    pub system_us: f64,
    /// Voluntary switches.
    pub voluntary: f64,
    /// Involuntary ones.
    pub involuntary: f64,
    /// Reads and writes that the kernel counts.
    pub read_write_calls: f64,
    /// System calls; `None`: not counted on every server.
    pub system_calls: Option<f64>,
    /// Bytes on the wire.
    pub wire_bytes: f64,
    /// Packets.
    pub wire_packets: f64,
    /// Bytes to the disk.
    pub disk_bytes: f64,
    /// Syncs of logs; `None`: no server counts them.
    pub log_syncs: Option<f64>,
}

impl Costs {
    /// User and system, in microseconds.
    pub fn cpu_us(&self) -> f64 {
        self.user_us + self.system_us
    }
}

/// Costs of an answered action; `None`: nothing was answered.
pub fn costs(phase: &PhaseResult) -> Option<Costs> {
    let actions: u64 = phase.streams.iter().map(|stream| stream.succeeded).sum();
    if actions == 0 {
        return None;
    }
    let each = |sum: u64| sum as f64 / actions as f64;
    let servers = |value: fn(&ServerResult) -> u64| each(phase.servers.iter().map(value).sum());
    let calls: Option<Vec<u64>> = phase.servers.iter().map(|server| server.system_calls).collect();
    let syncs: Vec<u64> = phase.servers.iter().filter_map(|server| server.log_syncs).collect();
    Some(Costs {
        actions,
        user_us: servers(|server| server.user_ms) * 1e3,
        system_us: servers(|server| server.system_ms) * 1e3,
        voluntary: servers(|server| server.switches_voluntary),
        involuntary: servers(|server| server.switches_involuntary),
        read_write_calls: servers(|server| server.read_write_calls),
        system_calls: calls.filter(|calls| !calls.is_empty()).map(|calls| each(calls.iter().sum())),
        wire_bytes: each(phase.machine.wire_bytes),
        wire_packets: each(phase.machine.wire_packets),
        disk_bytes: servers(|server| server.disk_write_bytes),
        log_syncs: (!syncs.is_empty()).then(|| each(syncs.iter().sum())),
    })
}

/// CPU of an answered action in servers of one role ("gateway", "storage"), in microseconds.
pub fn role_cpu_us(phase: &PhaseResult, role: &str) -> Option<f64> {
    let actions: u64 = phase.streams.iter().map(|stream| stream.succeeded).sum();
    let of_role = phase.servers.iter().filter(|server| server.name.starts_with(role));
    let ms: u64 = of_role.map(|server| server.user_ms + server.system_ms).sum();
    (actions > 0).then(|| ms as f64 * 1e3 / actions as f64)
}

/// What an answered action of this phase is called.
pub fn action_word(phase: &PhaseResult) -> &'static str {
    let sends = phase.streams.iter().all(|stream| stream.action.starts_with("send_"));
    if sends && !phase.streams.is_empty() { "message" } else { "action" }
}

/// Memory over connections, by least squares.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Slope {
    /// Servers' private bytes for each connection.
    pub user_bytes: f64,
    /// Servers' private bytes without any.
    pub user_base: f64,
    /// Kernel bytes for each connection.
    pub kernel_bytes: f64,
    /// Kernel bytes without any.
    pub kernel_base: f64,
    /// Fewest connections.
    pub from: u64,
    /// Most connections.
    pub to: u64,
}

/// Slope over the seconds of a phase; `None`: connections did not grow or fell enough for one.
pub fn phase_slope(phase: &PhaseResult) -> Option<Slope> {
    slope(&phase.seconds)
}

/// Slope over the settled ends of all measured phases, or else that of the phase with the widest spread.
pub fn run_slope(run: &RunResult) -> Option<Slope> {
    let measured = || run.phases.iter().filter(|phase| !phase.preparation);
    let ends: Vec<Second> = measured().filter_map(settled_end).collect();
    let widest = measured().filter_map(phase_slope).max_by_key(|slope| slope.to - slope.from);
    slope(&ends).or(widest)
}

fn settled_end(phase: &PhaseResult) -> Option<Second> {
    let mut last: Vec<&Second> = phase.seconds.iter().rev().take(SETTLED_SECONDS).collect();
    last.sort_by_key(|second| second.server_private_bytes);
    last.get(last.len() / 2).map(|second| (*second).clone())
}

fn slope(seconds: &[Second]) -> Option<Slope> {
    let counts = || seconds.iter().map(|second| second.connections);
    let (from, to) = (counts().min()?, counts().max()?);
    let (spread, trend) = (to - from, counts().next()?.abs_diff(counts().next_back()?));
    if seconds.len() < SLOPE_POINTS_MIN
        || spread < SLOPE_CONNECTIONS_MIN
        || spread * 100 < to * SLOPE_SPREAD_MIN_PERCENT
        || trend * 100 < spread * SLOPE_TREND_MIN_PERCENT
    {
        return None;
    }
    let points = |bytes: fn(&Second) -> u64| -> Vec<(f64, f64)> {
        seconds.iter().map(|second| (second.connections as f64, bytes(second) as f64)).collect()
    };
    let (user_base, user_bytes) = fit(&points(|second| second.server_private_bytes));
    let (kernel_base, kernel_bytes) = fit(&points(|second| second.kernel_bytes));
    Some(Slope { user_bytes, user_base, kernel_bytes, kernel_base, from, to })
}

/// Least squares: value at zero, and slope. The points must differ in x.
fn fit(points: &[(f64, f64)]) -> (f64, f64) {
    let count = points.len() as f64;
    let mean_x = points.iter().map(|(x, _)| x).sum::<f64>() / count;
    let mean_y = points.iter().map(|(_, y)| y).sum::<f64>() / count;
    let (mut product, mut square) = (0.0, 0.0);
    for (x, y) in points {
        product += (x - mean_x) * (y - mean_y);
        square += (x - mean_x) * (x - mean_x);
    }
    let slope = product / square;
    (mean_y - slope * mean_x, slope)
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::*;

    fn seconds(counts: &[u64]) -> Vec<Second> {
        let second = |(index, connections): (usize, &u64)| Second {
            second: index as u32,
            connections: *connections,
            server_private_bytes: 5_000_000 + 8_000 * connections,
            kernel_bytes: 90_000_000 + 4_500 * connections,
            ..Second::default()
        };
        counts.iter().enumerate().map(second).collect()
    }

    #[test]
    fn a_slope_is_the_bytes_that_one_more_connection_takes() {
        let slope = slope(&seconds(&[0, 1_000, 2_000, 7_000, 10_000])).expect("wide enough");
        assert!((slope.user_bytes - 8_000.0).abs() < 1e-3 && (slope.kernel_bytes - 4_500.0).abs() < 1e-3);
        assert!((slope.user_base - 5e6).abs() < 1.0 && (slope.kernel_base - 9e7).abs() < 1.0);
        assert_eq!((slope.from, slope.to), (0, 10_000));
    }

    #[test]
    fn no_slope_is_made_of_too_little() {
        for counts in [
            &[][..],
            &[0, 0, 0, 0],
            &[10_000],
            &[0, 50, 99],
            &[10_000, 10_300, 10_500],
            &[10_000, 0, 5_000, 10_000],
        ] {
            assert_eq!(slope(&seconds(counts)), None, "{counts:?}");
        }
    }

    #[test]
    fn costs_are_sums_over_answered_actions() {
        let mut phase = example::run("ringline", 1).phases.remove(1);
        phase.streams.truncate(1);
        phase.streams[0].succeeded = 1_000;
        phase.servers.truncate(1);
        phase.servers.push(phase.servers[0].clone());
        for server in &mut phase.servers {
            (server.user_ms, server.system_ms) = (10, 5);
            (server.system_calls, server.log_syncs) = (Some(2_000), None);
        }
        phase.servers[1].log_syncs = Some(50);
        phase.machine.wire_bytes = 400_000;
        let costs_of = costs(&phase).expect("something was answered");
        assert!((costs_of.cpu_us() - 30.0).abs() < 1e-9 && (costs_of.system_us - 10.0).abs() < 1e-9);
        assert_eq!((costs_of.system_calls, costs_of.log_syncs), (Some(4.0), Some(0.05)));
        assert!((costs_of.wire_bytes - 400.0).abs() < 1e-9);
        phase.servers[1].name = "storage-1".to_owned();
        let by_role = ["gateway", "storage", "peer"].map(|role| role_cpu_us(&phase, role));
        assert_eq!(by_role, [Some(15.0), Some(15.0), Some(0.0)]);
        phase.servers[0].system_calls = None;
        assert_eq!(costs(&phase).expect("answered").system_calls, None, "one server's calls are unknown");
        phase.streams[0].succeeded = 0;
        assert_eq!((costs(&phase), role_cpu_us(&phase, "storage")), (None, None));
    }

    #[test]
    fn the_run_is_fitted_over_the_ends_of_its_phases() {
        let mut run = example::run("ringline", 1);
        let mut small = run.phases[1].clone();
        let mut large = small.clone();
        small.seconds = seconds(&[0, 900, 2_000, 2_000, 2_000]);
        large.seconds = seconds(&[2_000, 9_000, 18_000, 18_000, 18_000]);
        // A start-up that takes memory once must not be taken for connections.
        small.seconds[0].server_private_bytes = 0;
        run.phases = vec![small, large];
        let slope = run_slope(&run).expect("two sizes");
        assert!((slope.user_bytes - 8_000.0).abs() < 1e-3, "{slope:?}");
        assert_eq!((slope.from, slope.to), (2_000, 18_000));
        run.phases.push(run.phases[0].clone());
        run.phases[2].seconds = seconds(&[2_000; 5]);
        let widest = run_slope(&run).expect("that of a phase");
        assert_eq!((widest.from, widest.to), (2_000, 18_000), "ends that come back have no slope");
        run.phases.truncate(1);
        run.phases[0].seconds = seconds(&[2_000; 5]);
        assert_eq!(run_slope(&run), None);
    }
}

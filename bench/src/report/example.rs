//! A made-up run: for tests of reports, and to look at a page without measuring anything. No number in it was
//! measured.

use super::results::{
    ClockOffset, ConnectionCounts, GeneratorResult, HostFacts, LedgerResult, MachineResult, PhaseResult,
    ReturnCounts, RunResult, SCHEMA_VERSION, Second, ServerResult, StreamResult, TuningFact, VoidReason,
};
use crate::measure::histogram::Latencies;
use crate::workload::plan::Plan;
use std::path::Path;

const PLAN: &str = r#"
name = "example"
about = "Connections that stay, messages at 10,000 a second, and a gateway that is killed."
[population]
users = 18000
devices = 1
cell_users = 200
directs = 2
groups = 1
group_members = 64
[ledger]
keep = true
[[phase]]
name = "prepare"
seconds = 20
until_done = true
preparation = true
stream = [{ action = "open_room", schedule = { kind = "closed", in_flight = 256 } }]
[[phase]]
name = "send"
seconds = 60
warm_up_s = 5
connections_min = 2000
stream = [
    { action = "send_direct", schedule = { kind = "poisson", rate = 10000 } },
    { action = "history", schedule = { kind = "constant", rate = 50 } },
]
[[phase]]
name = "connect"
seconds = 80
stream = [{ action = "connect", schedule = { kind = "ramp", from = 100, to = 300 } }]
[[phase]]
name = "kill"
seconds = 40
slow_readers = 0.01
stream = [{ action = "send_group", schedule = { kind = "step", rates = [100, 200] } }]
fault = [{ at_s = 15, kill = "gateway-1", restart_after_s = 2, always = true }]
"#;

/// Random numbers that follow from a seed.
struct Chance(u64);

impl Chance {
    /// From 0 to 1, without 0.
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) + 1) as f64 / (1u64 << 31) as f64
    }

    /// Around `value`, off by a few hundredths.
    fn near(&mut self, value: f64) -> f64 {
        value * (1.0 + 0.08 * (self.uniform() - 0.5))
    }

    /// A latency as servers have them: most near the median, few far above it.
    fn latency_us(&mut self, median_us: f64) -> u64 {
        let normal = (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos();
        let hiccup = if self.uniform() < 0.002 { 6.0 + 30.0 * self.uniform() } else { 1.0 };
        (median_us * (0.45 * normal).exp() * hiccup) as u64
    }

    fn latencies(&mut self, count: u64, median_us: f64) -> Latencies {
        let mut latencies = Latencies::default();
        (0..count).for_each(|_| latencies.record(self.latency_us(median_us)));
        latencies
    }
}

/// A run of a plan that exists nowhere else; another `number` gives slightly other figures.
pub fn run(subject: &str, number: u64) -> RunResult {
    let mut chance = Chance(number);
    // The first numbers of neighbouring seeds are alike.
    for _ in 0..8 {
        chance.uniform();
    }
    let plan = Plan::parse(PLAN, Path::new("example")).expect("the plan above");
    RunResult {
        schema_version: SCHEMA_VERSION,
        subject: subject.to_owned(),
        durability: "an acknowledged message is synced to disk on one node".into(),
        commit: "0123456789abcdef0123456789abcdef01234567+changes".into(),
        command_line: ["ringline-bench", "run", "bench/plans/example.toml", "--faults"]
            .map(Into::into)
            .into(),
        started_ms: 1_764_288_258_123 + number * 400_000,
        plan,
        limit_profile: [("defaults".to_owned(), "all".to_owned())].into(),
        hosts: vec![host("coordinator"), host("agent-1")],
        tuning: vec![
            tuning("net.core.somaxconn", "4096", "65536", false),
            tuning("fs.nr_open", "1073741816", "20000000", true),
        ],
        clocks: vec![ClockOffset { agent: 1, offset_us: -1_204, bound_us: 41 }],
        phases: vec![prepare(&mut chance), send(&mut chance), connect(&mut chance), kill(&mut chance)],
        ledger: Some(LedgerResult {
            acknowledged: 559_872,
            unacknowledged: 12,
            checked: 1_119_744,
            ..LedgerResult::default()
        }),
        void: Vec::new(),
    }
}

/// The same with everything that a result may hold, and void.
pub fn void_run(subject: &str, number: u64) -> RunResult {
    let mut run = run(subject, number);
    let reason = |phase: &str, rule: &str, detail: &str| VoidReason {
        phase: phase.into(),
        rule: rule.into(),
        detail: detail.into(),
    };
    run.void = vec![
        reason("send", "generator_busy", "agent 1 used 97 % of its core; at most 80 % are trusted"),
        reason("", "ledger_full", "more than 20,000,000 messages"),
    ];
    if let Some(ledger) = &mut run.ledger {
        ledger.lost = 1;
        ledger.examples = vec!["message 17 of device 3 is missing on device 4".into()];
    }
    run
}

fn host(role: &str) -> HostFacts {
    HostFacts {
        role: role.into(),
        kernel: "6.12.0".into(),
        cpu_model: "Example Processor 9000 @ 2.90GHz".into(),
        cpus: 2,
        memory_bytes: 24 << 30,
        open_files_max: 20_000,
        governor: "performance".into(),
        clock_source: "tsc".into(),
    }
}

fn tuning(setting: &str, present: &str, wanted: &str, serves: bool) -> TuningFact {
    TuningFact { setting: setting.into(), present: present.into(), wanted: wanted.into(), serves }
}

/// A phase's second, before anything of its own is put in.
fn second(chance: &mut Chance, number: u32, rate: f64, connections: u64, median_us: f64) -> Second {
    let due = chance.near(rate) as u64;
    let latencies = chance.latencies(due.min(2_000), median_us);
    Second {
        second: number,
        due,
        succeeded: due,
        errors: 0,
        connections,
        log_ins: 0,
        sent_on: 0,
        p50_us: latencies.at(0.5),
        p99_us: latencies.at(0.99),
        max_us: latencies.max(),
        server_cpu_milli: chance.near(80.0 + rate * 0.065) as u64,
        server_private_bytes: 61_000_000 + chance.near(8_428.0 * connections as f64) as u64,
        kernel_bytes: 182_000_000 + chance.near(4_960.0 * connections as f64) as u64,
        agent_cpu_milli: chance.near(40.0 + rate * 0.036) as u64,
    }
}

fn stream(
    action: &str,
    rate: f64,
    measured_s: f64,
    answer: &Latencies,
    delivery: Option<&Latencies>,
) -> StreamResult {
    let due = (rate * measured_s) as u64;
    let mut histograms = vec![("answer".to_owned(), answer.to_text())];
    histograms.extend(delivery.map(|latencies| ("delivery".to_owned(), latencies.to_text())));
    StreamResult {
        action: action.into(),
        open_loop: true,
        due,
        begun: due,
        succeeded: due - due / 60_000,
        errors: if due > 60_000 { [("ERROR_OVERLOADED".to_owned(), due / 60_000)].into() } else { [].into() },
        unanswered: 0,
        deliveries: if delivery.is_some() { due - due / 60_000 } else { 0 },
        offered_rate: due as f64 / measured_s,
        achieved_rate: (due - due / 60_000) as f64 / measured_s,
        histograms: histograms.into_iter().collect(),
    }
}

/// A phase around its streams and seconds, with what servers and agents would have said.
fn phase(
    chance: &mut Chance,
    name: &str,
    measured_s: f64,
    streams: Vec<StreamResult>,
    seconds: Vec<Second>,
) -> PhaseResult {
    let done: u64 = streams.iter().map(|stream| stream.succeeded).sum();
    let connections = seconds.last().map_or(0, |second| second.connections);
    let each = |cost: f64| (done as f64 * cost) as u64;
    let last = seconds.last().cloned().unwrap_or_default();
    let first = seconds.first().cloned().unwrap_or_default();
    PhaseResult {
        name: name.into(),
        preparation: false,
        measured_s,
        connections: ConnectionCounts {
            at_end: connections,
            peak: connections,
            full_handshakes: connections / 10,
            resumed_handshakes: connections - connections / 10,
        },
        generators: vec![GeneratorResult {
            agent: 1,
            cpu_milli: chance.near(410.0) as u64,
            lag: chance.latencies(20_000, 22.0).to_text(),
            samples_lost: 0,
            private_bytes: 74_000_000,
        }],
        servers: vec![ServerResult {
            name: "gateway-1".into(),
            user_ms: each(0.0412),
            system_ms: each(0.0217),
            threads: vec![("ringline-core-0".into(), each(0.03)), ("store-0".into(), each(0.026))],
            private_bytes_start: first.server_private_bytes,
            private_bytes_end: last.server_private_bytes,
            switches_voluntary: each(0.31),
            switches_involuntary: each(0.02),
            read_write_calls: each(0.4),
            system_calls: Some(each(1.2)),
            disk_write_bytes: each(412.0),
            log_syncs: Some(each(0.031)),
            open_files: connections + 40,
            counters: [("ringline_acks_total{core=\"0\"}".to_owned(), done as f64)].into(),
            levels: [("ringline_sessions_native{core=\"0\"}".to_owned(), 400.0)].into(),
        }],
        machine: MachineResult {
            cpu_busy_milli: vec![871, 455],
            cpu_stolen_milli: vec![2, 11],
            wire_bytes: each(612.0),
            wire_packets: each(2.1),
            kernel_bytes_start: first.kernel_bytes,
            kernel_bytes_end: last.kernel_bytes,
        },
        recovery: chance.latencies(50, 900_000.0).to_text(),
        returns: ReturnCounts::default(),
        losses: [].into(),
        faults: Vec::new(),
        streams,
        seconds,
    }
}

fn prepare(chance: &mut Chance) -> PhaseResult {
    let seconds = (0..3).map(|number| second(chance, number, 3_000.0, 0, 900.0)).collect();
    let answer = chance.latencies(3_000, 900.0);
    let mut closed = stream("open_room", 3_000.0, 3.0, &answer, None);
    closed.open_loop = false;
    let prepared = phase(chance, "prepare", 3.0, vec![closed], seconds);
    PhaseResult { preparation: true, ..prepared }
}

fn send(chance: &mut Chance) -> PhaseResult {
    let seconds = (0..60).map(|number| second(chance, number, 10_050.0, 2_000, 430.0)).collect();
    let (answer, delivery) = (chance.latencies(55_000, 430.0), chance.latencies(55_000, 610.0));
    let history = chance.latencies(2_750, 820.0);
    let streams = vec![
        stream("send_direct", 10_000.0, 55.0, &answer, Some(&delivery)),
        stream("history", 50.0, 55.0, &history, None),
    ];
    phase(chance, "send", 55.0, streams, seconds)
}

fn connect(chance: &mut Chance) -> PhaseResult {
    let mut connections = 2_000.0;
    let mut seconds = Vec::new();
    for number in 0..80 {
        let rate = 100.0 + 200.0 * f64::from(number) / 80.0;
        connections += rate;
        seconds.push(second(chance, number, rate, connections as u64, 1_900.0));
    }
    let answer = chance.latencies(16_000, 1_900.0);
    phase(chance, "connect", 80.0, vec![stream("connect", 200.0, 80.0, &answer, None)], seconds)
}

fn kill(chance: &mut Chance) -> PhaseResult {
    let seconds: Vec<Second> = (0..40u32)
        .map(|number| {
            let down = (15..18).contains(&number);
            let rate = if number < 20 { 100.0 } else { 200.0 };
            let mut second = second(chance, number, rate, if down { 0 } else { 2_000 }, 2_400.0);
            if down {
                (second.errors, second.succeeded) = (second.due / 3, 0);
                (second.p50_us, second.p99_us, second.max_us) = (0, 0, 0);
                (second.server_cpu_milli, second.server_private_bytes) = (0, 0);
            } else if number == 18 {
                (second.succeeded, second.p99_us, second.max_us) = (second.due * 3, 2_900_000, 3_120_000);
            }
            second
        })
        .collect();
    let (answer, delivery) = (chance.latencies(6_000, 2_400.0), chance.latencies(60_000, 3_900.0));
    let streams = vec![stream("send_group", 150.0, 40.0, &answer, Some(&delivery))];
    let killed = phase(chance, "kill", 40.0, streams, seconds);
    PhaseResult {
        losses: [("reset".to_owned(), 1_999), ("refused".to_owned(), 212)].into(),
        faults: vec![(15_000_000, "kill gateway-1".into()), (17_002_113, "start gateway-1".into())],
        ..killed
    }
}

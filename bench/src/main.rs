//! `ringline-bench`: measures a Ringline server that it starts itself on this machine.

#![forbid(unsafe_code)]

use bench::agent::{AgentError, Route};
use bench::coordinator::{Cluster, ClusterError, Shape};
use bench::workload::{idle, messages};
use std::process::ExitCode;

const HELP: &str = "ringline-bench COMMAND [NAME=VALUE…]

  direct   1:1 messages synced before the tick: highest rate, then latency at half of it
           pairs=100 in_flight=8 bytes=200 seconds=10 cores=1
  idle     bytes of an idle TLS connection: slope over registered, connected, quiet users
           from=2000 to=18000 conversations=20 cores=2
";

#[derive(Debug, thiserror::Error)]
enum BenchError {
    #[error("{0}\n{HELP}")]
    Usage(String),
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(transparent)]
    Agent(#[from] AgentError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

fn main() -> ExitCode {
    match run(std::env::args().skip(1).collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringline-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Vec<String>) -> Result<(), BenchError> {
    let (command, settings) =
        arguments.split_first().ok_or_else(|| BenchError::Usage("no command".into()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match command.as_str() {
        "direct" => {
            let [pairs, in_flight, bytes, seconds, cores] = read(
                settings,
                [("pairs", 100), ("in_flight", 8), ("bytes", 200), ("seconds", 10), ("cores", 1)],
            )?;
            let load = messages::Load {
                pairs,
                in_flight: in_flight.clamp(1, 64),
                body_bytes: bytes,
                rate: 0,
                run_ms: seconds as u64 * 1_000,
            };
            runtime.block_on(direct(load, cores))
        }
        "idle" => {
            let [from, to, conversations, cores] =
                read(settings, [("from", 2_000), ("to", 18_000), ("conversations", 20), ("cores", 2)])?;
            Ok(runtime.block_on(idle::run(idle::Plan { from, to, conversations, cores }))?)
        }
        other => Err(BenchError::Usage(format!("unknown command {other}"))),
    }
}

fn read<const N: usize>(settings: &[String], known: [(&str, usize); N]) -> Result<[usize; N], BenchError> {
    let mut values = known.map(|(_, value)| value);
    for setting in settings {
        let parsed = setting.split_once('=').and_then(|(name, value)| Some((name, value.parse().ok()?)));
        let (name, value) =
            parsed.ok_or_else(|| BenchError::Usage(format!("{setting} is not NAME=NUMBER")))?;
        let index = known.iter().position(|(known, _)| *known == name);
        let index = index.ok_or_else(|| BenchError::Usage(format!("{name} is not known here")))?;
        values[index] = value;
    }
    Ok(values)
}

async fn direct(load: messages::Load, cores: usize) -> Result<(), BenchError> {
    let cluster = Cluster::start(Shape::Embedded, "direct", cores)?;
    let (target, pid) = (&cluster.targets[0], cluster.gateways[0].pid().unwrap_or(0));
    let before = bench::measure::process(pid)?;
    let highest = messages::run(target, Route::Native, load, "high").await?;
    let after = bench::measure::process(pid)?;
    let rate = highest.acknowledged as f64 / highest.seconds;
    println!("closed loop: {load:?}");
    print_measured(&highest);
    // CPU includes registering and the warm-up, messages do not: an upper bound.
    let cpu_us = (after.cpu_ms - before.cpu_ms) as f64 * 1_000.0 / highest.acknowledged as f64;
    println!("server CPU: {cpu_us:.1} us a message (registering and warm-up included)");
    let half = messages::Load { rate: (rate / 2.0) as u64, in_flight: 64, ..load };
    println!("open loop at half the rate: {half:?}");
    print_measured(&messages::run(target, Route::Native, half, "half").await?);
    Ok(())
}

fn print_measured(measured: &messages::Measured) {
    println!(
        "  acknowledged {} ({:.0}/s), delivered {} ({:.0}/s)",
        measured.acknowledged,
        measured.acknowledged as f64 / measured.seconds,
        measured.delivered,
        measured.delivered as f64 / measured.seconds
    );
    for (name, histogram) in [("ack", &measured.ack_us), ("delivery", &measured.delivery_us)] {
        let at = |quantile| histogram.value_at_quantile(quantile);
        println!(
            "  {name:8} us: p50 {} p90 {} p99 {} p99.9 {} max {}",
            at(0.5),
            at(0.9),
            at(0.99),
            at(0.999),
            histogram.max()
        );
    }
}

//! `faults`: one fault after another on real processes in network namespaces.

use super::Failure;
use super::run::{plan, scale_rates};
use bench::coordinator::control::flags::Flags;
use bench::coordinator::enclosure::{Enclosure, NOT_PERMITTED, Side};
use bench::coordinator::network::NetworkError;
use bench::faults::kinds::{Kind, Length};
use bench::faults::outcome::{Outcome, table};
use bench::faults::{Binaries, Faults};
use bench::report::progress::Output;
use std::process::ExitCode;

/// The load when none is named.
const PLAN_DEFAULT: &str = "faults-namespaces";
/// Longest time without service after a leader was lost, in seconds, when no other is named.
const LIMIT_S_DEFAULT: f64 = 3.0;

/// `ringline-bench faults …`.
pub fn command(arguments: &[String]) -> Result<ExitCode, Failure> {
    let valued = ["--limit-s", "--bin-dir", "--previous", "--rate-scale", "--out", "--plan"];
    let mut flags = Flags::parse(arguments, &valued, &["--short", "--list"])?;
    if flags.has("--list") {
        Kind::ALL.iter().for_each(|kind| println!("{}", kind.name()));
        println!("{} (with --previous)", Kind::RollingUpgrade.name());
        return Ok(ExitCode::SUCCESS);
    }
    let length = if flags.has("--short") { Length::Short } else { Length::Long };
    let mut kinds = Vec::new();
    for name in flags.operands() {
        kinds.push(
            Kind::named(&name).ok_or_else(|| format!("there is no fault {name}; faults --list names all"))?,
        );
    }
    let previous = flags.one("--previous")?;
    if previous.is_some() && kinds.is_empty() {
        kinds.push(Kind::RollingUpgrade);
    }
    if previous.is_some() != kinds.contains(&Kind::RollingUpgrade) {
        return Err(
            "rolling-upgrade, and nothing else, needs --previous: a folder with the release before this one"
                .into(),
        );
    }
    if kinds.is_empty() {
        kinds = Kind::ALL.to_vec();
    }
    let limit_ms = (flags.decimal("--limit-s")?.unwrap_or(LIMIT_S_DEFAULT) * 1_000.0) as u64;
    let mut plan = plan(&flags.one("--plan")?.unwrap_or_else(|| PLAN_DEFAULT.to_owned()))?;
    if let Some(scale) = flags.decimal("--rate-scale")? {
        scale_rates(&mut plan, scale);
        plan.check()?;
    }
    let out = flags.one("--out")?;
    let faults = Faults {
        kinds,
        length,
        plan,
        binaries: Binaries {
            current: flags.one("--bin-dir")?.map(Into::into),
            previous: previous.map(Into::into),
        },
        command_line: std::env::args().collect(),
        output: Output::of_stdout(),
    };
    let enclosure = match Enclosure::enter() {
        Ok(Side::Inner(enclosure)) => enclosure,
        Ok(Side::Outer(code)) => return Ok(code),
        Err(error @ (NetworkError::NotPermitted(_) | NetworkError::NoTool { .. })) => {
            eprintln!("ringline-bench: faults: {error}");
            return Ok(ExitCode::from(NOT_PERMITTED));
        }
        Err(error) => return Err(error.into()),
    };
    let told =
        |outcome: &Outcome| println!("{}", table(std::slice::from_ref(outcome)).lines().nth(1).unwrap_or(""));
    let outcomes = faults.make(&enclosure, told)?;
    print!("\n{}", table(&outcomes));
    if let Some(out) = out {
        let text = serde_json::to_string_pretty(&outcomes)?;
        std::fs::write(&out, text).map_err(|error| format!("{out}: {error}"))?;
    }
    let broken: Vec<String> = outcomes.iter().flat_map(|outcome| outcome.broken(limit_ms)).collect();
    broken.iter().for_each(|what| println!("BROKEN {what}"));
    Ok(if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

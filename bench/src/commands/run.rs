//! `run`: one plan, one result. Also what the other commands make their runs with.

use super::Failure;
use bench::coordinator::agents::read_agents_file;
use bench::coordinator::control::flags::Flags;
use bench::coordinator::control::trust::{CoordinatorTrust, TrustFiles};
use bench::coordinator::run::{Drivers, Run};
use bench::coordinator::tested::{Fleet, Wanted};
use bench::report::progress::Output;
use bench::report::results::RunResult;
use bench::report::{file, html, text};
use bench::workload::plan::{Plan, Schedule};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The plan when none is named.
pub const PLAN_DEFAULT: &str = "canonical";
/// Plans that the binary brings along, by name.
const PLANS: [(&str, &str); 24] = [
    ("canonical", include_str!("../../plans/canonical.toml")),
    ("quick", include_str!("../../plans/quick.toml")),
    ("direct", include_str!("../../plans/direct.toml")),
    ("rates", include_str!("../../plans/rates.toml")),
    ("copies-1", include_str!("../../plans/copies-1.toml")),
    ("copies-3", include_str!("../../plans/copies-3.toml")),
    ("idle", include_str!("../../plans/idle.toml")),
    ("connect-storm", include_str!("../../plans/connect-storm.toml")),
    ("connect-storm-resumed", include_str!("../../plans/connect-storm-resumed.toml")),
    ("group-8", include_str!("../../plans/group-8.toml")),
    ("group-64", include_str!("../../plans/group-64.toml")),
    ("group-256", include_str!("../../plans/group-256.toml")),
    ("group-1000", include_str!("../../plans/group-1000.toml")),
    ("catch-up-1000", include_str!("../../plans/catch-up-1000.toml")),
    ("catch-up-200-conversations", include_str!("../../plans/catch-up-200-conversations.toml")),
    ("reconnect-storm", include_str!("../../plans/reconnect-storm.toml")),
    ("storm-paced", include_str!("../../plans/storm-paced.toml")),
    ("drain", include_str!("../../plans/drain.toml")),
    ("slow-readers", include_str!("../../plans/slow-readers.toml")),
    ("faults", include_str!("../../plans/faults.toml")),
    ("faults-replicated", include_str!("../../plans/faults-replicated.toml")),
    ("faults-namespaces", include_str!("../../plans/faults-namespaces.toml")),
    ("day", include_str!("../../plans/day.toml")),
    ("soak", include_str!("../../plans/soak.toml")),
];
/// Flags that say what is tested, and by whom.
pub const RUN_FLAGS: [&str; 13] = [
    "--agents",
    "--subject",
    "--bin-dir",
    "--target",
    "--ca",
    "--tls-name",
    "--bench-key",
    "--agents-file",
    "--authority",
    "--cert",
    "--key",
    "--rate-scale",
    "--html",
];

/// A plan by the name it has among the binary's own, or from a file.
pub fn plan(name: &str) -> Result<Plan, Failure> {
    match PLANS.iter().find(|(known, _)| *known == name) {
        Some((known, text)) => Ok(Plan::parse(text, Path::new(known))?),
        None if Path::new(name).exists() => Ok(Plan::read(Path::new(name))?),
        None => {
            let known: Vec<&str> = PLANS.iter().map(|(known, _)| *known).collect();
            Err(format!("there is no plan {name}, nor such a file; there are: {}", known.join(", ")).into())
        }
    }
}

/// A run as flags describe it.
pub fn prepare(flags: &mut Flags, plan: Plan) -> Result<Run, Failure> {
    let mut plan = plan;
    if let Some(scale) = flags.decimal("--rate-scale")? {
        scale_rates(&mut plan, scale);
        plan.check()?;
    }
    let agents = flags.number("--agents")?.unwrap_or(0) as usize;
    let drivers = match flags.one("--agents-file")? {
        None => Drivers::Local(agents),
        Some(list) => {
            let files = TrustFiles {
                authority: flags.needed("--authority")?.into(),
                cert: flags.needed("--cert")?.into(),
                key: flags.needed("--key")?.into(),
            };
            Drivers::Remote(read_agents_file(Path::new(&list))?, Box::new(CoordinatorTrust::read(&files)?))
        }
    };
    let bin_dir = flags.one("--bin-dir")?.map(PathBuf::from);
    let targets = flags.all("--target");
    let subject = flags.one("--subject")?.unwrap_or_else(|| "ringline".to_owned());
    let wanted = match subject.as_str() {
        "ringline" if targets.is_empty() => Wanted::Ringline { bin_dir },
        "ringline" => Wanted::Fleet(Fleet {
            targets,
            tls_name: flags.needed("--tls-name")?,
            ca: flags.needed("--ca")?.into(),
            benchmark_key: flags.needed("--bench-key")?.into(),
        }),
        "null" => Wanted::Null,
        peer => {
            Wanted::Peer(bench::peers::subject(peer).ok_or_else(|| format!("there is no subject {peer}"))?)
        }
    };
    Ok(Run {
        plan,
        wanted,
        drivers,
        faults: flags.has("--faults"),
        command_line: std::env::args().collect(),
        output: Output::of_stdout(),
    })
}

/// Multiplies every open-loop rate.
pub fn scale_rates(plan: &mut Plan, scale: f64) {
    for stream in plan.phases.iter_mut().flat_map(|phase| &mut phase.streams) {
        match &mut stream.schedule {
            Schedule::Constant { rate } | Schedule::Poisson { rate } => *rate *= scale,
            Schedule::Ramp { from, to } => (*from, *to) = (*from * scale, *to * scale),
            Schedule::Step { rates } => rates.iter_mut().for_each(|rate| *rate *= scale),
            Schedule::Closed { .. } => {}
        }
    }
}

/// `ringline-bench run …`.
pub fn command(arguments: &[String]) -> Result<ExitCode, Failure> {
    let valued: Vec<&str> = RUN_FLAGS.into_iter().chain(["--out"]).collect();
    let mut flags = Flags::parse(arguments, &valued, &["--faults"])?;
    let mut operands = flags.operands();
    let name = operands.pop().unwrap_or_else(|| PLAN_DEFAULT.to_owned());
    if let Some(extra) = operands.pop() {
        return Err(format!("{extra} is one too many").into());
    }
    let (out, page) = (flags.one("--out")?, flags.one("--html")?);
    let result = prepare(&mut flags, plan(&name)?)?.make()?;
    print!("{}", text::table(&result));
    if let Some(out) = out {
        file::write(Path::new(&out), &result)?;
    }
    if let Some(page) = page {
        std::fs::write(&page, html::page(std::slice::from_ref(&result))?)
            .map_err(|e| format!("{page}: {e}"))?;
    }
    Ok(exit_code(&result))
}

/// 0: the run counts and nothing was lost; 1: it is void, or its ledger does not balance.
pub fn exit_code(result: &RunResult) -> ExitCode {
    let balances = result.ledger.as_ref().is_none_or(|ledger| ledger.is_balanced());
    if result.void.is_empty() && balances { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

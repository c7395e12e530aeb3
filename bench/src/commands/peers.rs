//! `peers`: Ringline and others by the same plans, in turn.

use super::Failure;
use super::run::prepare;
use bench::coordinator::control::flags::Flags;
use bench::peers::subjects;
use bench::report::results::RunResult;
use bench::report::{file, html, text};
use bench::workload::plan::Plan;
use std::path::Path;
use std::process::ExitCode;

/// What is compared, by plan.
const PLANS: [&str; 5] = [
    include_str!("../../peers/plans/idle.toml"),
    include_str!("../../peers/plans/direct.toml"),
    include_str!("../../peers/plans/fan-out.toml"),
    include_str!("../../peers/plans/offline.toml"),
    include_str!("../../peers/plans/kill.toml"),
];

/// `ringline-bench peers …`.
pub fn command(arguments: &[String]) -> Result<ExitCode, Failure> {
    let mut flags =
        Flags::parse(arguments, &["--only", "--plans", "--runs", "--out", "--html"], &["--list"])?;
    flags.no_operand()?;
    if flags.has("--list") {
        for subject in subjects() {
            println!("{:<26} {}\n{:<26} {}", subject.name, subject.durability, "", subject.remark);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let names =
        chosen(flags.one("--only")?, std::iter::once("ringline").chain(subjects().iter().map(|s| s.name)))?;
    let plans: Vec<Plan> =
        PLANS.iter().map(|text| Plan::parse(text, Path::new("peers/plans"))).collect::<Result<_, _>>()?;
    let wanted = chosen(flags.one("--plans")?, plans.iter().map(|plan| plan.name.as_str()))?;
    let runs = flags.number("--runs")?.unwrap_or(1).max(1) as usize;
    let (out, pages) = (flags.one("--out")?, flags.one("--html")?);
    for folder in [&out, &pages].into_iter().flatten() {
        std::fs::create_dir_all(folder).map_err(|error| format!("{folder}: {error}"))?;
    }
    let mut results = Vec::new();
    for plan in plans.iter().filter(|plan| wanted.contains(&plan.name)) {
        let from = results.len();
        for round in 0..runs {
            // Each round begins with another subject, so that what drifts on the machine favours none.
            let order = names.iter().cycle().skip(round).take(names.len());
            for name in order {
                results.extend(one(name, plan, round, out.as_deref())?);
            }
        }
        if let Some(pages) = &pages {
            let page = Path::new(pages).join(format!("{}.html", plan.name));
            let shown = results.get(from..).unwrap_or_default();
            let shown = shown.get(..shown.len().min(html::RUNS_MAX)).unwrap_or_default();
            if !shown.is_empty() {
                let written = std::fs::write(&page, html::page(shown)?);
                written.map_err(|error| format!("{}: {error}", page.display()))?;
            }
        }
    }
    let table = bench::report::peers::table(&results);
    println!("{table}");
    if let Some(out) = out {
        let path = Path::new(&out).join("peers.md");
        std::fs::write(&path, table).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Those of `known` that a list names, in the order of `known`; without a list all.
fn chosen<'n>(list: Option<String>, known: impl Iterator<Item = &'n str>) -> Result<Vec<String>, Failure> {
    let known: Vec<String> = known.map(ToOwned::to_owned).collect();
    let Some(list) = list else { return Ok(known) };
    let wanted: Vec<&str> = list.split(',').collect();
    if let Some(stranger) = wanted.iter().find(|name| !known.iter().any(|one| one == *name)) {
        return Err(format!("there is no {stranger}; there are: {}", known.join(", ")).into());
    }
    Ok(known.into_iter().filter(|name| wanted.contains(&name.as_str())).collect())
}

/// One subject by one plan; a peer that is not installed, or cannot do it, says so and is passed over.
fn one(name: &str, plan: &Plan, round: usize, out: Option<&str>) -> Result<Option<RunResult>, Failure> {
    let unsupported = bench::peers::subject(name).map_or([].as_slice(), |subject| subject.unsupported);
    let needs = plan.phases.iter().flat_map(|phase| &phase.streams).map(|stream| stream.action);
    if let Some(action) = needs.into_iter().find(|action| unsupported.contains(action)) {
        println!("{name}: {} is left out: it cannot {action:?}", plan.name);
        return Ok(None);
    }
    println!("{name}: {}", plan.name);
    let mut flags = Flags::parse(&["--subject".to_owned(), name.to_owned()], &["--subject"], &[])?;
    match prepare(&mut flags, plan.clone())?.make() {
        Ok(result) => {
            print!("{}", text::table(&result));
            if let Some(out) = out {
                file::write(
                    &Path::new(out).join(format!("{}-{name}-{}.json", plan.name, round + 1)),
                    &result,
                )?;
            }
            Ok(Some(result))
        }
        Err(error) => {
            println!("{name}: {} was not measured: {error}", plan.name);
            Ok(None)
        }
    }
}

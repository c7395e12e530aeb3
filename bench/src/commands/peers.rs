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
    let mut flags = Flags::parse(arguments, &["--only", "--plans", "--out", "--html"], &["--list"])?;
    flags.no_operand()?;
    if flags.has("--list") {
        for subject in subjects() {
            println!("{:<26} {}\n{:<26} {}", subject.name, subject.durability, "", subject.remark);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let split = |list: Option<String>| -> Option<Vec<String>> {
        list.map(|list| list.split(',').map(ToOwned::to_owned).collect())
    };
    let (only, wanted_plans) = (split(flags.one("--only")?), split(flags.one("--plans")?));
    let (out, page) = (flags.one("--out")?, flags.one("--html")?);
    let mut results = Vec::new();
    for text in PLANS {
        let plan = Plan::parse(text, Path::new("peers/plans"))?;
        if wanted_plans.as_ref().is_some_and(|wanted| !wanted.contains(&plan.name)) {
            continue;
        }
        let names = std::iter::once("ringline").chain(subjects().iter().map(|subject| subject.name));
        for name in names.filter(|name| only.as_ref().is_none_or(|only| only.iter().any(|one| one == name))) {
            results.extend(one(name, &plan, out.as_deref())?);
        }
    }
    if let Some(page) = page {
        std::fs::write(&page, html::page(&results)?).map_err(|error| format!("{page}: {error}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// One subject by one plan; a peer that is not installed, or cannot do it, says so and is passed over.
fn one(name: &str, plan: &Plan, out: Option<&str>) -> Result<Option<RunResult>, Failure> {
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
                file::write(&Path::new(out).join(format!("{}-{name}.json", plan.name)), &result)?;
            }
            Ok(Some(result))
        }
        Err(error) => {
            println!("{name}: {} was not measured: {error}", plan.name);
            Ok(None)
        }
    }
}

//! `compare`: two builds, run in turn.

use super::Failure;
use super::run::{PLAN_DEFAULT, plan, prepare};
use bench::coordinator::control::flags::Flags;
use bench::report::compare::{RUNS_MIN, VoidRuns, compare, html, text};
use bench::report::file;
use bench::report::results::RunResult;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// `ringline-bench compare A B …`: A and B are folders with the servers' binaries. `compare --from DIR`: runs of before.
pub fn command(arguments: &[String]) -> Result<ExitCode, Failure> {
    let is_of_before = arguments.iter().any(|argument| argument == "--from");
    let valued: &[&str] = match is_of_before {
        true => &["--from", "--html"],
        false => &["--plan", "--plan-b", "--runs", "--html", "--out"],
    };
    let mut flags = Flags::parse(arguments, valued, &["--with-void"])?;
    let page = flags.one("--html")?;
    let void = if flags.has("--with-void") { VoidRuns::Accept } else { VoidRuns::LeaveOut };
    let results = match flags.one("--from")? {
        Some(_) if !flags.operands().is_empty() => return Err("compare: --from or two folders".into()),
        Some(folder) => kept(Path::new(&folder))?,
        None => in_turn(&mut flags)?,
    };
    let comparison = compare(&results[0], &results[1], void)?;
    print!("{}", text(&comparison));
    if let Some(page) = page {
        std::fs::write(&page, html(&comparison)).map_err(|error| format!("{page}: {error}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs both in turn.
fn in_turn(flags: &mut Flags) -> Result<[Vec<RunResult>; 2], Failure> {
    let folders = flags.operands();
    let [a, b] = folders.as_slice() else { return Err("compare: two folders are wanted".into()) };
    let name = flags.one("--plan")?.unwrap_or_else(|| PLAN_DEFAULT.to_owned());
    // The same load on servers of another shape, say.
    let name_b = flags.one("--plan-b")?.unwrap_or_else(|| name.clone());
    let runs = flags.number("--runs")?.unwrap_or(RUNS_MIN as u64).max(RUNS_MIN as u64);
    let out = flags.one("--out")?;
    if let Some(out) = &out {
        // Now, and not after the first run.
        std::fs::create_dir_all(out).map_err(|error| format!("{out}: {error}"))?;
    }
    let mut results = [Vec::new(), Vec::new()];
    for number in 1..=runs {
        // Every second pair the other way round, so that what drifts on the machine favours neither.
        let order = if number % 2 == 1 { [0, 1] } else { [1, 0] };
        for side in order {
            let (folder, name) = if side == 0 { (a, &name) } else { (b, &name_b) };
            println!("run {number} of {runs}: {folder}, {name}");
            let mut flags = Flags::parse(&["--bin-dir".to_owned(), folder.clone()], &["--bin-dir"], &[])?;
            let mut result = prepare(&mut flags, plan(name)?)?.make()?;
            result.subject = format!("{} ({folder}, {name})", result.subject);
            if let Some(out) = &out {
                file::write(&kept_at(Path::new(out), side, number), &result)?;
            }
            results[side].push(result);
        }
    }
    Ok(results)
}

/// What `--out` kept in this folder: every pair of which both runs ended.
fn kept(folder: &Path) -> Result<[Vec<RunResult>; 2], Failure> {
    let mut results = [Vec::new(), Vec::new()];
    for number in 1.. {
        let files = [0, 1].map(|side| kept_at(folder, side, number));
        if !files.iter().all(|file| file.exists()) {
            break;
        }
        for (side, file) in files.iter().enumerate() {
            results[side].push(file::read(file)?);
        }
    }
    if results[0].is_empty() {
        return Err(format!("{}: no a-1.json and b-1.json there", folder.display()).into());
    }
    Ok(results)
}

fn kept_at(folder: &Path, side: usize, number: u64) -> PathBuf {
    let side = if side == 0 { "a" } else { "b" };
    folder.join(format!("{side}-{number}.json"))
}

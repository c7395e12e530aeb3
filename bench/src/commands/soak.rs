//! `soak`: rounds of load and kills for as long as one likes, and whether anything grew, slowed down or got lost.

use super::Failure;
use super::run::{RUN_FLAGS, plan, prepare};
use bench::coordinator::control::flags::Flags;
use bench::report::soak::Soak;
use bench::report::{file, html, text};
use std::path::Path;
use std::process::ExitCode;

/// Minutes when none are named.
const MINUTES_DEFAULT: u64 = 30;
/// Longest soak: a week.
const MINUTES_MAX: u64 = 7 * 24 * 60;
/// Rounds as a plan.
const PLAN_DEFAULT: &str = "soak";

/// `ringline-bench soak …`.
pub fn command(arguments: &[String]) -> Result<ExitCode, Failure> {
    let valued: Vec<&str> = RUN_FLAGS.into_iter().chain(["--minutes", "--out"]).collect();
    let mut flags = Flags::parse(arguments, &valued, &["--faults"])?;
    let round = plan(&flags.operands().pop().unwrap_or_else(|| PLAN_DEFAULT.to_owned()))?;
    let minutes = flags.number("--minutes")?.unwrap_or(MINUTES_DEFAULT);
    if !(1..=MINUTES_MAX).contains(&minutes) {
        return Err(format!("--minutes: {minutes} is not from 1 to {MINUTES_MAX}").into());
    }
    let rounds = (minutes as f64 * 60.0 / round.round_s()).ceil() as u32;
    let (out, page) = (flags.one("--out")?, flags.one("--html")?);
    let result = prepare(&mut flags, round.in_rounds(rounds))?.make()?;
    let soak = Soak::of(&result);
    if let Some(out) = out {
        file::write(Path::new(&out), &result)?;
    }
    if let Some(page) = page {
        std::fs::write(&page, html::page(std::slice::from_ref(&result))?)
            .map_err(|e| format!("{page}: {e}"))?;
    }
    print!("{}{}", text::frame(&result), soak.text());
    Ok(if soak.wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

//! `world`: clusters simulated from seeds, many of them or one again.

use super::Failure;
use bench::coordinator::control::flags::Flags;
use bench::world::{Plant, Tried, run_many_with, run_with};
use std::ops::Range;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Seeds when none are named.
const SEEDS_DEFAULT: Range<u64> = 0..1_000;
/// A line is printed after so many runs.
const LINE_EVERY: u64 = 100;

/// `ringline-bench world …`.
pub fn command(arguments: &[String]) -> Result<ExitCode, Failure> {
    let mut flags = Flags::parse(arguments, &["--seeds", "--seed", "--threads", "--plant"], &["--show"])?;
    flags.no_operand()?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = flags.number("--threads")?.map_or(threads, |threads: u64| threads as usize);
    let shows = flags.has("--show");
    let plant = flags.one("--plant")?.map(|name| planted(&name)).transpose()?;
    if let Some(seed) = flags.number("--seed")? {
        return Ok(one(plant, seed, shows));
    }
    let seeds = match flags.one("--seeds")? {
        Some(text) => range(&text)?,
        None => SEEDS_DEFAULT,
    };
    Ok(many(plant, seeds, threads))
}

fn planted(name: &str) -> Result<Plant, Failure> {
    let names = || Plant::ALL.map(Plant::name).join(", ");
    Plant::named(name).ok_or_else(|| format!("--plant: {name} is none of {}", names()).into())
}

fn range(text: &str) -> Result<Range<u64>, Failure> {
    let range = text.split_once("..").and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    range.ok_or_else(|| format!("--seeds: {text} is no range like 0..1000").into())
}

fn one(plant: Option<Plant>, seed: u64, shows: bool) -> ExitCode {
    match run_with(plant, seed) {
        Ok(outcome) => {
            if shows {
                outcome.history.events.iter().for_each(|event| println!("{event:?}"));
            }
            let wishes: String =
                outcome.wishes.iter().map(|it| format!(" {} from {} ms on,", it.wish, it.at_ms)).collect();
            println!(
                "seed {seed}:{wishes} {} messages, {} faults, {} moves, {} simulated seconds, history {:016x}: every promise was kept",
                outcome.messages,
                outcome.faults.len(),
                outcome.moves,
                outcome.simulated_ms / 1_000,
                outcome.history.fingerprint()
            );
            println!("tried: {}", outcome.tried);
            ExitCode::SUCCESS
        }
        Err(failure) => {
            if shows {
                failure.history.events.iter().for_each(|event| println!("{event:?}"));
                failure.ends.iter().for_each(|end| println!("{end}"));
            }
            println!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn many(plant: Option<Plant>, seeds: Range<u64>, threads: usize) -> ExitCode {
    let started = bench::clock::now();
    let [runs, messages, faults, moves, simulated_ms] = [const { AtomicU64::new(0) }; 5];
    let tried = Mutex::new(Tried::default());
    let line = |runs: u64| {
        let seconds = Duration::as_secs_f64(&started.elapsed());
        let faults = faults.load(Ordering::Relaxed);
        let [messages, moves] = [&messages, &moves].map(|count| count.load(Ordering::Relaxed));
        let hours = simulated_ms.load(Ordering::Relaxed) as f64 / 3_600_000.0;
        println!(
            "{runs} runs in {seconds:.0} s: {messages} messages, {faults} faults, {moves} moves, {hours:.1} simulated hours"
        );
    };
    let ended = run_many_with(plant, seeds, threads, &|_, outcome| {
        messages.fetch_add(outcome.messages as u64, Ordering::Relaxed);
        faults.fetch_add(outcome.faults.len() as u64, Ordering::Relaxed);
        moves.fetch_add(outcome.moves as u64, Ordering::Relaxed);
        simulated_ms.fetch_add(outcome.simulated_ms, Ordering::Relaxed);
        *tried.lock().unwrap_or_else(PoisonError::into_inner) += outcome.tried;
        let runs = runs.fetch_add(1, Ordering::Relaxed) + 1;
        if runs.is_multiple_of(LINE_EVERY) {
            line(runs);
        }
    });
    line(runs.load(Ordering::Relaxed));
    println!("tried: {}", tried.lock().unwrap_or_else(PoisonError::into_inner));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            println!("{failure}");
            ExitCode::FAILURE
        }
    }
}

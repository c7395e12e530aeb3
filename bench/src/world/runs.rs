//! Runs of many seeds, and what to say of one that failed.

use super::history::History;
use super::promises::{self, Broken};
use super::{Planned, START_MS, Tried, Wished, World};
use ::gateway::worker::sim::SimKeys;
use std::fmt;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use storage_node::plant::{self, Plant};

/// A run in which every promise was kept.
#[derive(Debug)]
pub struct Outcome {
    /// Messages that were acknowledged.
    pub messages: usize,
    /// Faults that came.
    pub faults: Vec<Planned>,
    /// Nodes that came or went.
    pub wishes: Vec<Wished>,
    /// Shards that moved.
    pub moves: usize,
    /// How often what may come about did.
    pub tried: Tried,
    /// Simulated time, in milliseconds.
    pub simulated_ms: u64,
    /// What devices did and saw.
    pub history: History,
}

/// A run in which one was not.
#[derive(Debug)]
pub struct Failure {
    /// The seed that shows it again,
    pub seed: u64,
    /// with this bug in the storage nodes, if any was planted.
    pub plant: Option<Plant>,
    /// What was promised, and what happened.
    pub broken: Broken,
    /// What went wrong before.
    pub faults: Vec<Planned>,
    /// Nodes that were to come or to go.
    pub wishes: Vec<Wished>,
    /// What devices did and saw.
    pub history: History,
    /// At the end: what each device waits for, and what each node's copies were.
    pub ends: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Broken { promise, how } = &self.broken;
        writeln!(formatter, "seed {}: {promise} is broken: {how}", self.seed)?;
        for Planned { at_ms, lasts_ms, fault } in &self.faults {
            writeln!(formatter, "  at {at_ms} ms for {lasts_ms} ms: {fault:?}")?;
        }
        for Wished { at_ms, wish } in &self.wishes {
            writeln!(formatter, "  from {at_ms} ms on: {wish}")?;
        }
        write!(formatter, "again: ringline-bench world --seed {}", self.seed)?;
        self.plant.map_or(Ok(()), |plant| write!(formatter, " --plant {}", plant.name()))
    }
}

/// Keys cost more to make than a run; they decide nothing.
fn keys() -> &'static SimKeys {
    static KEYS: OnceLock<SimKeys> = OnceLock::new();
    KEYS.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        SimKeys::make(folder.path()).expect("keys are made")
    })
}

/// One run.
pub fn run(seed: u64) -> Result<Outcome, Box<Failure>> {
    run_with(None, seed)
}

/// One run with a bug in all storage nodes.
pub fn run_with(plant: Option<Plant>, seed: u64) -> Result<Outcome, Box<Failure>> {
    let mut world = World::new(seed, keys());
    let faults = world.faults.clone();
    let ended = catch_unwind(AssertUnwindSafe(|| plant::during(plant, || world.run())));
    let simulated_ms = world.outside.now_ms - START_MS;
    let checked = match ended {
        Ok(()) => promises::check(&world.story.history),
        Err(panic) => {
            let said = panic.downcast_ref::<String>().map(String::as_str);
            let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            Err(Broken { promise: "assertions", how: format!("panicked: {said}") })
        }
    };
    // Some come up by what happens.
    let wishes = world.operator.wishes.clone();
    let messages = world.story.messages.iter().filter(|message| message.seq.is_some()).count();
    let history = std::mem::take(&mut world.story.history);
    if let Err(broken) = checked {
        // What panicked may do so again.
        let ends = catch_unwind(AssertUnwindSafe(|| world.ends())).unwrap_or_default();
        return Err(Box::new(Failure { seed, plant, broken, faults, wishes, history, ends }));
    }
    let (moves, tried) = (world.fleet.moves, world.tried());
    Ok(Outcome { messages, faults, wishes, moves, tried, simulated_ms, history })
}

/// Runs seeds on so many threads, until the first failure: that of the lowest seed that was begun. `told` hears of
/// each run that went well.
pub fn run_many(
    seeds: Range<u64>,
    threads: usize,
    told: &(dyn Fn(u64, &Outcome) + Sync),
) -> Result<(), Box<Failure>> {
    run_many_with(None, seeds, threads, told)
}

/// As [`run_many`], with a bug in all storage nodes.
pub fn run_many_with(
    plant: Option<Plant>,
    seeds: Range<u64>,
    threads: usize,
    told: &(dyn Fn(u64, &Outcome) + Sync),
) -> Result<(), Box<Failure>> {
    let next = AtomicU64::new(seeds.start);
    let failed = AtomicBool::new(false);
    let one_thread = || {
        while !failed.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                break;
            }
            match run_with(plant, seed) {
                Ok(outcome) => told(seed, &outcome),
                Err(failure) => {
                    failed.store(true, Ordering::Relaxed);
                    return Some(failure);
                }
            }
        }
        None
    };
    let mut failures: Vec<Box<Failure>> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(one_thread)).collect();
        running.into_iter().filter_map(|thread| thread.join().expect("runs catch panics")).collect()
    });
    failures.sort_by_key(|failure| failure.seed);
    failures.into_iter().next().map_or(Ok(()), Err)
}

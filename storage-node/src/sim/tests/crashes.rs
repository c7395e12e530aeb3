//! The node is stopped at every step of the disk, and again while it recovers.

use super::{after_crashes, count_of, first_seed};
use crate::sim::{Crash, Ended, World};
use std::collections::BTreeMap;

/// Messages of a small world.
const MESSAGES: usize = 24;
/// Messages of a world whose beginning matters alone.
const FEW_MESSAGES: usize = 3;
/// Messages of a world in which the log is cut and recycled again and again.
const MANY_MESSAGES: usize = 120;
/// Worlds with several crashes that are tried when nothing else is said.
const SEEDS_DEFAULT: u64 = 150;
/// A start of a small world and what it applies takes no more steps of the disk.
const RECOVERY_STEPS: u64 = 40;

/// What small worlds do with their disks, and who does it; without a name it does not matter who. Syncs that are not
/// here belong to recoveries (below, `rewrites.rs`), snapshots, removals, restores and backups, each with its own tests.
const KINDS: &[&str] = &[
    // A new folder, in the order of the start.
    "Starting make data",
    "Starting write rows",
    "Starting sync RowsOpening",
    "Starting sync DataFolderName",
    "Starting make node.toml.new",
    "Starting cut node.toml.new",
    "Starting write node.toml.new",
    "Starting sync Identity",
    "Starting rename node.toml.new",
    "Starting sync IdentityName",
    "Starting make log",
    "Starting sync LogName",
    // In two of the worlds.
    "Starting make raftlog.reserved",
    "Starting write raftlog.reserved",
    "Starting make raftlog",
    "Starting grow raftlog",
    "Starting write raftlog",
    "Starting sync LogHead",
    "Starting sync LogFolder",
    "Starting make rewrite",
    "Starting grow rewrite",
    "Starting write rewrite",
    "Starting sync RewriteWrite",
    // Messages.
    "LogThread grow raftlog",
    "LogThread write raftlog",
    "LogThread sync LogWrite",
    "StoreThread write rows",
    // The next file of the log: made, or one that was kept for it.
    "LogThread make raftlog",
    "LogThread rename raftlog.reserved",
    "LogThread sync LogFolder",
    // Rows are made durable, the log is cut, old files go.
    "Maintenance sync Rows",
    "Maintenance write raftlog",
    "Maintenance sync LogCut",
    "Maintenance write rewrite",
    "Maintenance sync RewriteWrite",
    "Maintenance sync Rewrite",
    "Maintenance delete raftlog",
    // An old file becomes a new one, or is kept for later when the log is closed.
    "rename raftlog",
    // The room behind the last write, when the log is closed.
    "cut raftlog",
];

/// The same of recoveries.
const RECOVERY_KINDS: &[&str] = &[
    "Starting sync LogName",
    "Starting sync LogOpening",
    // What a start found waits for the first write, whose doing it may be.
    "cut raftlog",
    "LogThread write raftlog",
    "LogThread write rewrite",
    "LogThread sync LogFolder",
    "LogThread sync LogWrite",
    "StoreThread write rows",
];

/// Kinds of steps at which nodes were stopped, and how often.
#[derive(Default)]
struct Stopped(BTreeMap<String, u64>);

impl Stopped {
    /// Counts the last of a world's stops, unless that life was over before it.
    fn count_last(&mut self, world: &World, stops: &[(u64, Crash)]) {
        let steps = world.disk.last_steps(usize::MAX);
        let (mut before, mut last) = (0_u64, None);
        for ((stop_after, _), life) in stops.iter().zip(steps.split("crash: ")) {
            last = None;
            if let Some((number, kind)) = life.lines().rev().find_map(step_of) {
                last = (number == before + *stop_after).then_some(kind);
                before = number;
            }
        }
        if let Some(kind) = last {
            *self.0.entry(kind).or_default() += 1;
        }
    }

    fn assert_at_each(&self, wanted: &[&str]) {
        let is_known = |wanted: &str| self.0.keys().any(|kind| kind.ends_with(wanted));
        let missing: Vec<&str> = wanted.iter().copied().filter(|&wanted| !is_known(wanted)).collect();
        assert!(missing.is_empty(), "nobody was stopped at {missing:?}, but at {:#?}", self.0);
    }
}

/// A step as the disk tells it: its number, and who did what to which kind of file, or asked for which sync.
fn step_of(line: &str) -> Option<(u64, String)> {
    let mut words = line.split_whitespace();
    let number = words.next()?.parse::<u64>().ok()?;
    let who = words.next()?.trim_start_matches("Some(").trim_end_matches(')');
    let what = words.next()?;
    let name = words.next()?.rsplit('/').next()?;
    let which = name.trim_start_matches(|letter: char| letter.is_ascii_digit() || letter == '.');
    Some((number, format!("{who} {what} {which}")))
}

#[test]
fn a_node_that_nobody_stops_keeps_its_promises() {
    for seed in 0..8 {
        let mut world = World::new(seed, MANY_MESSAGES);
        let ended = world.live(None);
        assert_eq!(ended, Ended::Finished, "seed {seed}: {}", world.disk.last_steps(40));
        world.crash(Crash::PowerKeepsNothing);
        assert_eq!(world.live(None), Ended::Finished, "seed {seed}, again");
    }
}

#[test]
fn a_node_stopped_at_any_step_keeps_its_promises() {
    let (mut points, mut stopped) = (0, Stopped::default());
    for (seed, crash) in (100..108).zip(Crash::ALL.into_iter().cycle()) {
        let mut world = World::new(seed, MESSAGES);
        assert_eq!(world.live(None), Ended::Finished);
        let steps = world.disk.steps();
        points += steps;
        for stop_after in 1..=steps {
            let stops = [(stop_after, crash)];
            let world =
                after_crashes(seed, MESSAGES, &stops, &[]).unwrap_or_else(|broken| panic!("{broken}"));
            stopped.count_last(&world, &stops);
        }
    }
    println!("{points} crash points: {:#?}", stopped.0);
    stopped.assert_at_each(KINDS);
}

/// The very first writes are torn in many ways.
#[test]
fn a_node_stopped_in_its_first_steps_starts_again() {
    for (seed, stop_after) in (300..340).flat_map(|seed| (4..16).map(move |stop_after| (seed, stop_after))) {
        after_crashes(seed, FEW_MESSAGES, &[(stop_after, Crash::PowerKeepsSome)], &[])
            .unwrap_or_else(|broken| panic!("{broken}"));
    }
}

#[test]
fn a_node_stopped_again_at_any_step_of_its_recovery_keeps_its_promises() {
    let mut stopped = Stopped::default();
    for (seed, crash) in (200..208).zip(Crash::ALL.into_iter().cycle()) {
        let stop_after = 60 + seed % 7 * 17;
        for again_after in 1..=RECOVERY_STEPS {
            let second = if again_after % 2 == 0 { Crash::PowerKeepsSome } else { Crash::PowerKeepsNothing };
            let stops = [(stop_after, crash), (again_after, second)];
            let world =
                after_crashes(seed, MESSAGES, &stops, &[]).unwrap_or_else(|broken| panic!("{broken}"));
            stopped.count_last(&world, &stops);
        }
    }
    println!("crash points: {:#?}", stopped.0);
    stopped.assert_at_each(RECOVERY_KINDS);
}

#[test]
fn a_node_stopped_several_times_keeps_its_promises() {
    let first = first_seed(1_000);
    for seed in first..first + count_of("RINGLINE_SIM_SEEDS", SEEDS_DEFAULT) {
        let mut choose = crate::sim::Random::new(seed ^ 0x5eed);
        let stops: Vec<(u64, Crash)> = (0..1 + choose.below(5))
            .map(|_| (1 + choose.below(250) as u64, Crash::ALL[choose.below(Crash::ALL.len())]))
            .collect();
        after_crashes(seed, MANY_MESSAGES, &stops, &[]).unwrap_or_else(|broken| panic!("{broken}"));
    }
}

//! The node is stopped at every step of the disk, and again while it recovers.

use super::{after_crashes, count_of, first_seed};
use crate::sim::{Crash, Ended, World};

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
    let mut points = 0;
    for (seed, crash) in (100..108).zip(Crash::ALL.into_iter().cycle()) {
        let mut world = World::new(seed, MESSAGES);
        assert_eq!(world.live(None), Ended::Finished);
        let steps = world.disk.steps();
        points += steps;
        for stop_after in 1..=steps {
            after_crashes(seed, MESSAGES, &[(stop_after, crash)], &[])
                .unwrap_or_else(|broken| panic!("{broken}"));
        }
    }
    println!("{points} crash points");
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
    for (seed, crash) in (200..208).zip(Crash::ALL.into_iter().cycle()) {
        let stop_after = 60 + seed % 7 * 17;
        for again_after in 1..=RECOVERY_STEPS {
            let second = if again_after % 2 == 0 { Crash::PowerKeepsSome } else { Crash::PowerKeepsNothing };
            let stops = [(stop_after, crash), (again_after, second)];
            after_crashes(seed, MESSAGES, &stops, &[]).unwrap_or_else(|broken| panic!("{broken}"));
        }
    }
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

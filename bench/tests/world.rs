//! Simulated clusters: many seeds, within the time that all tests may take; and the seeds that once failed.
//!
//! ```text
//! RINGLINE_WORLD_SEEDS=20000 cargo test -p bench --test world
//! ```

use bench::world::{Tried, run, run_many};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Runs when nothing else is said, from seed 0 on: at some 0.09 s of CPU each a minute and a half of two cores.
const SEEDS_DEFAULT: u64 = 2_000;

#[test]
fn every_promise_is_kept() {
    let seeds = std::env::var("RINGLINE_WORLD_SEEDS").ok();
    let seeds = seeds.map_or(SEEDS_DEFAULT, |text| text.parse().expect("a number"));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let [messages, moves] = [const { AtomicU64::new(0) }; 2];
    let tried = Mutex::new(Tried::default());
    let ended = run_many(0..seeds, threads, &|_, outcome| {
        messages.fetch_add(outcome.messages as u64, Ordering::Relaxed);
        moves.fetch_add(outcome.moves as u64, Ordering::Relaxed);
        *tried.lock().expect("nobody panics with it") += outcome.tried;
    });
    if let Err(failure) = ended {
        panic!("{failure}");
    }
    let [messages, moves] = [messages, moves].map(AtomicU64::into_inner);
    assert!(moves > seeds / 2, "{moves} moves in {seeds} runs, of which half have nodes that come and go");
    assert!(messages > 50 * seeds, "{messages} messages in {seeds} runs: they do hardly anything");
    let tried = tried.into_inner().expect("nobody panicked with it");
    println!("tried: {tried}");
    comes_about(seeds, &tried);
}

/// What is planned for some of 32 seeds in a row comes about in many of them: a run that tries nothing keeps every promise.
fn comes_about(seeds: u64, tried: &Tried) {
    let rounds = seeds / 32;
    // Connections are lost in nearly every run.
    assert!(tried.doubled >= rounds && tried.overtaken >= rounds, "{tried}");
    assert!(tried.pauses >= 6 * rounds && tried.leaders_replaced >= rounds, "{tried}");
    assert!(tried.syncs_failed >= rounds, "{tried}");
    assert!(tried.fleets_begun >= 8 * rounds && tried.begins_cut >= 2 * rounds, "{tried}");
    assert!(tried.folders_known >= rounds, "{tried}");
    assert!(tried.disks_lost >= 3 * rounds, "{tried}");
    // What is done with such a node is one of four things.
    assert!(tried.starts_refused >= rounds / 4 && tried.forgotten >= rounds / 4, "{tried}");
    assert!(tried.begins_refused >= rounds / 4, "{tried}");
    assert!(tried.drained >= rounds && tried.sent_on >= rounds, "{tried}");
    assert!(tried.followed >= tried.sent_on / 4, "{tried}");
    assert!(tried.put_off >= rounds / 2, "{tried}");
    assert!(tried.cursors >= 50 * rounds, "{tried}");
    assert!(tried.old_links >= 2 * rounds, "{tried}");
    assert!(tried.rests_under_faults >= rounds && tried.rests_afterwards >= 2 * seeds, "{tried}");
}

/// Seeds that found something, here or planted: see `docs/reliability.md`.
#[test]
fn seeds_that_once_failed_are_well() {
    for seed in [
        0, 1, 2, 4, 11, 23, 30, 45, 118, 254, 329, 348, 362, 413, 429, 446, 462, 526, 550, 589, 621, 716,
        742, 830, 922, 1003, 2216, 3997, 4169,
    ] {
        if let Err(failure) = run(seed) {
            panic!("{failure}");
        }
    }
}

//! Simulated clusters: many seeds, within the time that all tests may take; and the seeds that once failed.
//!
//! ```text
//! RINGLINE_WORLD_SEEDS=20000 cargo test -p bench --test world
//! ```

use bench::world::{Aim, Fault, Loss, Outcome, Planned, Tried, Wish, run, run_many};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use storage_node::sim::Crash;

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
    assert!(tried.fleets_begun >= 8 * rounds && tried.begins_cut >= 2 * rounds, "{tried}");
    assert!(tried.folders_known >= rounds, "{tried}");
    assert!(tried.syncs_failed >= rounds && tried.power_lost >= rounds / 8, "{tried}");
    // What is aimed at leaders waits for something, and may wait in vain.
    assert!(tried.voters_struck >= rounds / 4 && tried.patience_tried >= rounds / 4, "{tried}");
    assert!(tried.snapshots >= rounds, "{tried}");
    // It takes a move, a node that leaves in time, and four seeds in 32 that try.
    assert!(tried.came_back >= rounds / 2 && tried.came_back_whole >= rounds / 8, "{tried}");
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

/// Seeds that found something, here or planted (`docs/reliability.md`), by what their runs tried when they did.
struct Kept {
    seeds: &'static [u64],
    /// What they try,
    what: &'static str,
    /// and whether a run has.
    tries: fn(&Outcome) -> bool,
}

/// A seed is another run whenever what is planned for it changes. One that does not try any more what it was kept for would
/// pass and tell nothing: it goes, and one that does takes its place.
const KEPT: [Kept; 13] = [
    Kept { seeds: &[0, 2], what: "power fails at a storage node", tries: loses_power },
    Kept { seeds: &[1, 4, 550], what: "a storage node is cut off", tries: isolates_node },
    Kept { seeds: &[11, 23], what: "a leader is cut off with a gateway", tries: sets_leader_apart },
    // It tries what 45 was kept for, whose faults are others since zones are lost.
    Kept { seeds: &[215], what: "a promise to a leader is to be forgotten", tries: lets_forget },
    Kept { seeds: &[187], what: "a leader pauses, and is replaced", tries: pauses_leader },
    Kept { seeds: &[30], what: "a storage node's clock falls by minutes", tries: sets_clock_back },
    Kept { seeds: &[2216], what: "power fails while servers are cut off", tries: loses_power_unheard },
    Kept { seeds: &[3997], what: "shards move", tries: moves },
    Kept { seeds: &[254, 329, 348, 446, 589, 830], what: "one node joins, one leaves", tries: exchanges },
    Kept { seeds: &[362, 413, 462, 526, 716, 742, 922], what: "the new node is to leave", tries: sends_away },
    Kept { seeds: &[429], what: "the same, and power fails", tries: loses_power_and_sends_away },
    Kept { seeds: &[118, 621, 4169], what: "shards move, and power fails", tries: loses_power_and_moves },
    Kept { seeds: &[628], what: "a replica comes back soon", tries: comes_back },
];

#[test]
fn seeds_that_once_failed_are_well() {
    for Kept { seeds, what, tries } in KEPT {
        for seed in seeds {
            let outcome = run(*seed).unwrap_or_else(|failure| panic!("{failure}"));
            let Outcome { faults, wishes, moves, tried, .. } = &outcome;
            assert!(
                tries(&outcome),
                "seed {seed} is kept for this: {what}. It does not try that any more: {faults:?}, {wishes:?}, {moves} moves, {tried}"
            );
        }
    }
}

fn has(run: &Outcome, is_such: impl Fn(&Fault) -> bool) -> bool {
    run.faults.iter().any(|planned| is_such(&planned.fault))
}

fn is_power_failure(fault: &Fault) -> bool {
    match fault {
        Fault::Crash { crash, .. }
        | Fault::Blackout(crash)
        | Fault::Torn { crash, .. }
        | Fault::ZoneLost { loss: Loss::Crash(crash), .. } => *crash != Crash::Process,
        _ => false,
    }
}

fn loses_power(run: &Outcome) -> bool {
    has(run, is_power_failure)
}

/// Somebody who connects may wait for a machine that is not there any more.
fn loses_power_unheard(run: &Outcome) -> bool {
    let cuts = |fault: &Fault| {
        let is_zone = matches!(fault, Fault::ZoneLost { loss: Loss::Cut, .. });
        is_zone || matches!(fault, Fault::Isolate(_) | Fault::OneWay(..) | Fault::Split(_))
    };
    let cut: Vec<&Planned> = run.faults.iter().filter(|planned| cuts(&planned.fault)).collect();
    let is_cut_at = |at_ms: u64| cut.iter().any(|it| (it.at_ms..it.at_ms + it.lasts_ms).contains(&at_ms));
    run.faults.iter().any(|planned| is_power_failure(&planned.fault) && is_cut_at(planned.at_ms))
}

fn isolates_node(run: &Outcome) -> bool {
    // The first hosts are the storage nodes.
    has(run, |fault| matches!(fault, Fault::Isolate(0..3)))
}

fn sets_leader_apart(run: &Outcome) -> bool {
    has(run, |fault| matches!(fault, Fault::Aimed { aim: Aim::Apart(_), .. }))
}

fn lets_forget(run: &Outcome) -> bool {
    has(run, |fault| matches!(fault, Fault::Aimed { aim: Aim::Forgotten(_), .. }))
}

fn pauses_leader(run: &Outcome) -> bool {
    let is_planned = has(run, |fault| matches!(fault, Fault::Aimed { aim: Aim::Paused { .. }, .. }));
    is_planned && run.tried.leaders_replaced > 0
}

fn sets_clock_back(run: &Outcome) -> bool {
    has(run, |fault| matches!(fault, Fault::Clock(_, by_ms) if *by_ms < -60_000))
}

fn moves(run: &Outcome) -> bool {
    run.moves > 0
}

fn exchanges(run: &Outcome) -> bool {
    matches!(wishes(run)[..], [Wish::Joins(_), Wish::Leaves(_)])
}

fn sends_away(run: &Outcome) -> bool {
    matches!(wishes(run)[..], [Wish::Joins(new), Wish::Leaves(old)] if new == old)
}

fn loses_power_and_sends_away(run: &Outcome) -> bool {
    loses_power(run) && sends_away(run)
}

fn loses_power_and_moves(run: &Outcome) -> bool {
    loses_power(run) && moves(run)
}

fn comes_back(run: &Outcome) -> bool {
    has(run, |fault| matches!(fault, Fault::ComesBack(_))) && run.tried.came_back > 0
}

fn wishes(run: &Outcome) -> Vec<Wish> {
    run.wishes.iter().map(|wished| wished.wish).collect()
}

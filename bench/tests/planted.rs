//! Bugs that are planted in the storage nodes of simulated clusters, one at a time: each is found by the checker of a promise
//! that it breaks, by one of few seeds, and what was found is not there without it.
//!
//! ```text
//! cargo test -p bench --test planted -- --nocapture          # says by which seed, and what the checker said
//! ringline-bench world --plant lost-vote --seeds 0..240      # the same search
//! ```

use bench::world::{Plant, run_many_with, run_with};

/// What the run of a node ends with that notices its own mistake. It is no checker: the search goes on.
const ASSERTIONS: &str = "assertions";

/// Promises that a bug breaks, by the names of their checkers, and so many seeds, from 0 on, of which one has to show it:
/// about ten times as many as it should take, since a seed is another run whenever the simulation changes.
fn expected(plant: Plant) -> (&'static [&'static str], u64) {
    match plant {
        // The acknowledged message is gone, so that its number is another one's, it is stored again when it is repeated, or
        // whoever reads misses it; or it is a cursor that falls.
        Plant::AckBeforeQuorum => (&["order", "repeat", "fresh", "durable", "cursors"], 120),
        // The repeat has another number than the first, behind what its device wrote meanwhile.
        Plant::NoDedupAfterFailover => (&["repeat", "order"], 40),
        Plant::StaleRead => (&["fresh", "cursors"], 240),
        Plant::LostVote => (&["elections"], 240),
        // A node does not start: its log begins behind its rows.
        Plant::CutWithoutSync => (&["heals"], 60),
        // Whether a node whose disk was lost begins a fleet again is looked at by itself: what it has promised before need not
        // be asked for again.
        Plant::BeginsAgain => (&["heals"], 160),
        // The node goes on. Or its disk keeps nothing, and what was acknowledged, or a vote, is gone before that is told.
        Plant::ForgottenSync => (&["heals", "elections", "order", "repeat", "fresh"], 120),
    }
}

fn is_found(plant: Plant) {
    let (promises, seeds) = expected(plant);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (mut first, mut noticed) = (0, 0);
    let failure = loop {
        match run_many_with(Some(plant), first..seeds, threads, &|_, _| {}) {
            Err(failure) if failure.broken.promise == ASSERTIONS => {
                first = failure.seed + 1;
                noticed += 1;
            }
            Err(failure) => break failure,
            Ok(()) => {
                panic!("no checker found {plant:?} by seeds 0..{seeds}; assertions did {noticed} times")
            }
        }
    };
    println!("{plant:?}, noticed by assertions {noticed} times before: {failure}");
    assert!(
        promises.contains(&failure.broken.promise),
        "{plant:?} breaks {promises:?}, and not this: {failure}"
    );
    if let Err(failure) = run_with(None, failure.seed) {
        panic!("it is so without {plant:?}, too: {failure}");
    }
}

#[test]
fn acknowledged_before_a_quorum_has_it() {
    is_found(Plant::AckBeforeQuorum);
}

#[test]
fn no_first_answer_after_a_failover() {
    is_found(Plant::NoDedupAfterFailover);
}

#[test]
fn read_from_a_leader_of_before() {
    is_found(Plant::StaleRead);
}

#[test]
fn a_vote_that_is_not_written() {
    is_found(Plant::LostVote);
}

#[test]
fn a_node_that_lost_its_folder_begins_again() {
    is_found(Plant::BeginsAgain);
}

#[test]
fn a_log_that_is_cut_behind_rows_that_are_not_synced() {
    is_found(Plant::CutWithoutSync);
}

#[test]
fn a_sync_that_fails_and_is_forgotten() {
    is_found(Plant::ForgottenSync);
}

//! The same seed is the same run.

use super::run;

/// Seeds that are kept, and others: with pauses, syncs that fail, gateways that leave, fleets that begin, a node that lost its
/// disk and would begin another one, and a replica that has to come back.
const SEEDS: [u64; 10] = [0, 1, 2, 3, 5, 7, 16, 17, 19, 20];

#[test]
fn a_seed_is_a_run() {
    for seed in SEEDS {
        let [first, second] =
            [run(seed), run(seed)].map(|outcome| outcome.unwrap_or_else(|failure| panic!("{failure}")));
        assert_eq!(first.history.fingerprint(), second.history.fingerprint(), "seed {seed}");
        assert_eq!(first.simulated_ms, second.simulated_ms, "seed {seed}");
        assert_eq!((first.moves, first.tried), (second.moves, second.tried), "seed {seed}");
        assert!(first.messages > 5, "seed {seed}: {} messages", first.messages);
    }
}

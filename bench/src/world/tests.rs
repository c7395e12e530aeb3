//! The same seed is the same run.

use super::run;

#[test]
fn a_seed_is_a_run() {
    for seed in 0..3 {
        let [first, second] =
            [run(seed), run(seed)].map(|outcome| outcome.unwrap_or_else(|failure| panic!("{failure}")));
        assert_eq!(first.history.fingerprint(), second.history.fingerprint(), "seed {seed}");
        assert_eq!(first.simulated_ms, second.simulated_ms, "seed {seed}");
        assert!(first.messages > 5, "seed {seed}: {} messages", first.messages);
    }
}

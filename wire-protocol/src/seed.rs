//! Repeatable chance for tests: everything random in a test comes from one seed, and a failure names it.

/// A stream of numbers from a seed (SplitMix64).
pub(crate) struct Seed(u64);

impl Seed {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 to `bound` - 1.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// True once in `of`.
    pub(crate) fn once_in(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

/// Runs `test` with the seeds 0 to `count` - 1, or with that of the variable `RINGLINE_SEED` alone.
pub(crate) fn with_seeds(count: u64, mut test: impl FnMut(&mut Seed)) {
    let only =
        std::env::var("RINGLINE_SEED").ok().map(|seed| seed.parse().expect("RINGLINE_SEED is a number"));
    for seed in only.map_or(0..count, |seed| seed..seed + 1) {
        let _named = NameOnPanic(seed);
        test(&mut Seed(seed));
    }
}

struct NameOnPanic(u64);

impl Drop for NameOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {}: repeat with RINGLINE_SEED={} cargo test", self.0, self.0);
        }
    }
}

//! Every promise, after every crash. A longer run, and a single world again:
//!
//! ```text
//! RINGLINE_SIM_SEEDS=5000 RINGLINE_SIM_FIRST_SEED=7000 cargo test -p storage-node --lib sim::
//! ```

mod crashes;
mod faults;
mod syncs;
mod rewrites;

use super::{Crash, Ended, SyncKind, World};

/// A number from the environment.
fn count_of(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().map_or(default, |text| text.parse().expect("a number"))
}

fn first_seed(default: u64) -> u64 {
    count_of("RINGLINE_SIM_FIRST_SEED", default)
}

/// A world whose node is stopped after so many steps of each life, and then lives until everything is done. `skipped`:
/// syncs that are left out.
fn after_crashes(
    seed: u64,
    messages: usize,
    stops: &[(u64, Crash)],
    skipped: &[SyncKind],
) -> Result<World, String> {
    let mut world = World::new(seed, messages);
    world.disk.skip(skipped);
    let told = |world: &World, ended: &Ended| {
        let steps = world.disk.last_steps(60);
        Err(format!("{steps}\nseed {seed}, {messages} messages, stopped after {stops:?}: {ended:?}"))
    };
    for &(stop_after, crash) in stops {
        let ended = world.live(Some(stop_after));
        // A start that a crash before its end left nothing to do may be done before it is stopped.
        if !matches!(ended, Ended::Stopped | Ended::Finished) {
            return told(&world, &ended);
        }
        world.crash(crash);
    }
    match world.live(None) {
        Ended::Finished => Ok(world),
        ended => told(&world, &ended),
    }
}

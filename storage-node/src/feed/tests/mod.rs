//! Both halves of the feed joined by a fake link, and the limits of each.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod limits;
mod pages;
mod world;

use proptest::prelude::*;
use world::World;

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_row_ends_at_its_top_whatever_is_lost(steps in world::steps()) {
        let mut world = World::new();
        for step in steps {
            world.run(step)?;
        }
        world.heal()?;
    }
}

//! Whether the copies of shards are in as many zones as there can be: asked of real fleets and of simulated ones, with
//! where their machines stand, whatever the fleet says of it.

use std::collections::{BTreeMap, BTreeSet};

/// How copies lie in zones.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ZoneSpread {
    /// Zones that the copies of each shard are in at the least; 0 if there is no shard.
    pub zones_min: u32,
    /// Shards whose copies could be in more zones, in words.
    pub crowded: Vec<String>,
}

impl ZoneSpread {
    /// `zones`: of each node that may hold copies; without a name it is in a zone of its own. `shards`: nodes that hold
    /// copies, by shard.
    pub fn of<'a>(zones: &BTreeMap<u32, String>, shards: impl Iterator<Item = &'a [u32]>) -> Self {
        let zone_of = |node: &u32| match zones.get(node) {
            Some(zone) if !zone.is_empty() => zone.clone(),
            _ => format!("that of node {node}"),
        };
        let there: BTreeSet<String> = zones.keys().map(zone_of).collect();
        let (mut spans, mut crowded) = (Vec::new(), Vec::new());
        for (shard, copies) in shards.enumerate() {
            let within: BTreeSet<String> = copies.iter().map(zone_of).collect();
            if within.len() < there.len().min(copies.len()) {
                crowded.push(format!(
                    "the copies of shard {shard} are on nodes {copies:?}, in zones {within:?} of {there:?}"
                ));
            }
            spans.push(within.len() as u32);
        }
        Self { zones_min: spans.into_iter().min().unwrap_or(0), crowded }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(zones: &[&str], shards: &[&[u32]]) -> ZoneSpread {
        let zones: BTreeMap<u32, String> = (1..).zip(zones.iter().map(|zone| (*zone).to_owned())).collect();
        ZoneSpread::of(&zones, shards.iter().copied())
    }

    #[test]
    fn copies_that_could_be_further_apart_are_named() {
        let zones = ["a", "b", "c", "a"];
        let found = spread(&zones, &[&[1, 2, 3], &[4, 2, 3]]);
        assert_eq!(found, ZoneSpread { zones_min: 3, crowded: Vec::new() });
        let found = spread(&zones, &[&[1, 2, 3], &[1, 4, 3]]);
        assert_eq!((found.zones_min, found.crowded.len()), (2, 1), "{found:?}");
        assert!(found.crowded[0].contains("shard 1 are on nodes [1, 4, 3]"), "{found:?}");
    }

    #[test]
    fn a_zone_that_comes_later_is_asked_for_as_soon_as_it_is_there() {
        let shards: [&[u32]; 2] = [&[1, 2, 3], &[3, 2, 1]];
        let before = spread(&["a", "a", "b"], &shards);
        assert_eq!(before, ZoneSpread { zones_min: 2, crowded: Vec::new() });
        let joined = spread(&["a", "a", "b", "c"], &shards);
        assert_eq!((joined.zones_min, joined.crowded.len()), (2, 2), "{joined:?}");
        let parted = spread(&["a", "a", "b", "c"], &[&[4, 2, 3], &[3, 4, 1]]);
        assert_eq!(parted, ZoneSpread { zones_min: 3, crowded: Vec::new() });
    }

    #[test]
    fn no_more_is_asked_for_than_can_be() {
        for (zones, shard, zones_min) in [
            (&["a", "b", "a"][..], &[1, 2, 3][..], 2),
            (&["a", "a", "a"], &[1, 2, 3], 1),
            (&["a", "b", "c"], &[2], 1),
            (&["", "", "", "a"], &[1, 2, 3], 3),
        ] {
            let found = spread(zones, &[shard]);
            assert_eq!(found, ZoneSpread { zones_min, crowded: Vec::new() }, "{zones:?}");
        }
        assert_eq!(spread(&["a"], &[]).zones_min, 0);
    }
}

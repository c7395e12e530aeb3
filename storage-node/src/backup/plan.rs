//! Which node's copy of each shard is taken, and where the logs begin: a function of the backups alone, so that every node
//! that is restored from them comes to the same.

use super::manifest::{Manifest, sha256_hex};
use crate::feed::home::COUNTER_BITS;
use wire_protocol::ids::FEED_VERSION_BITS_OF_ONE_RESTORE;

/// Entries that are left out above the furthest one of all backups: more than were ever written in the time that is lost.
const INDEX_STEP: u64 = 1 << 32;
/// Terms from one restore to the next. A version of a change feed begins with the term in 24 bits, so there is room for
/// 127 restores.
const TERMS_OF_RESTORE: u64 = 1 << 17;
const _: () = assert!(TERMS_OF_RESTORE.trailing_zeros() + COUNTER_BITS == FEED_VERSION_BITS_OF_ONE_RESTORE);
/// Elections that may have gone by between the backup and the loss.
const TERMS_LOST_MAX: u64 = 1 << 16;
/// A term that no restored log may begin with.
const TERM_END: u64 = 1 << 24;
/// Terms from which logs of one restore begin, by what they were restored from.
const TERM_MARKS: u64 = 1 << 8;

/// What all restored nodes agree on without a word.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Plan {
    /// For each shard the place of the backup to take it from.
    pub chosen: Vec<usize>,
    /// The logs begin with an entry of this index,
    pub index: u64,
    /// and of this term.
    pub term: u64,
    /// Tells plans apart.
    pub mark: String,
}

/// For each shard the place of the manifest whose copy went furthest; of equals, the first. An error names what is missing.
pub(super) fn choose(manifests: &[&Manifest]) -> Result<Vec<usize>, String> {
    let Some(first) = manifests.first() else {
        return Err("there is no whole backup of any node".to_owned());
    };
    let shard_count = first.shard_count;
    if let Some(other) = manifests.iter().find(|manifest| manifest.shard_count != shard_count) {
        return Err(format!(
            "node {} has {} shards, node {} has {shard_count}: these are backups of two fleets",
            other.node_id, other.shard_count, first.node_id
        ));
    }
    (0..shard_count)
        .map(|shard| {
            let applied = |place: &usize| manifests[*place].point(shard).map(|point| point.applied);
            let holders = (0..manifests.len()).filter(|place| applied(place).is_some());
            let furthest = holders.rev().max_by_key(|place| applied(place));
            furthest.ok_or_else(|| format!("shard {shard} is in the newest backup of no node"))
        })
        .collect()
}

impl Plan {
    /// `copies`: for each shard the nodes that are to hold it, on which those that are restored must agree, too. An error
    /// names what is missing.
    pub fn of(manifests: &[&Manifest], copies: &[Vec<u32>]) -> Result<Self, String> {
        let chosen = choose(manifests)?;
        let points = || manifests.iter().flat_map(|manifest| &manifest.shards);
        let furthest = points().map(|point| point.applied).max().unwrap_or(0);
        let newest = points().map(|point| point.term).max().unwrap_or(0);
        let text: String = manifests.iter().map(|manifest| manifest.to_text()).collect();
        let places: String = copies.iter().map(|nodes| format!("{nodes:?}\n")).collect();
        let mark = sha256_hex((text + &places).as_bytes());
        // Copies that were restored from different backups, or for different nodes, must not take each other's log for their own.
        let mark_number = u64::from_str_radix(&mark[..2], 16).expect("hexadecimal digits") % TERM_MARKS;
        let term = ((newest + TERMS_LOST_MAX) / TERMS_OF_RESTORE + 1) * TERMS_OF_RESTORE + mark_number;
        if term + TERMS_OF_RESTORE > TERM_END {
            return Err(format!("term {newest}: this fleet was restored as often as it can be"));
        }
        Ok(Self { chosen, index: furthest + INDEX_STEP, term, mark: mark[..12].to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::ShardPoint;

    fn manifest(node_id: u32, points: &[(u32, u64, u64)]) -> Manifest {
        let point = |&(shard, applied, term): &(u32, u64, u64)| ShardPoint {
            shard,
            applied,
            term,
            time_ms: 7,
            copies: vec![node_id],
        };
        Manifest {
            format: Manifest::format(),
            number: 1,
            node_id,
            shard_count: 3,
            made_ms: 5,
            nodes: vec![1, 2],
            shards: points.iter().map(point).collect(),
            files: Vec::new(),
        }
    }

    fn plan(manifests: &[Manifest]) -> Result<Plan, String> {
        Plan::of(&manifests.iter().collect::<Vec<_>>(), &[vec![1, 2], vec![2, 1]])
    }

    #[test]
    fn of_each_shard_the_copy_that_went_furthest_is_taken() {
        let manifests =
            [manifest(1, &[(0, 10, 2), (1, 5, 9)]), manifest(2, &[(0, 9, 3), (1, 5, 3), (2, 1, 1)])];
        let plan = plan(&manifests).expect("all are there");
        assert_eq!(plan.chosen, [0, 0, 1]);
        assert!(plan.index > 10 + u64::from(u32::MAX));
        assert!(plan.term > 9 + TERMS_LOST_MAX, "{}", plan.term);
    }

    #[test]
    fn what_is_missing_or_of_two_fleets_is_named() {
        let error = plan(&[manifest(1, &[(0, 1, 1), (2, 1, 1)])]).expect_err("one is missing");
        assert!(error.contains("shard 1 is in the newest backup of no node"), "{error}");
        let mut other = manifest(2, &[(0, 1, 1), (1, 1, 1)]);
        other.shard_count = 2;
        let error = plan(&[manifest(1, &[(0, 1, 1)]), other]).expect_err("two fleets");
        assert!(error.contains("node 2 has 2 shards, node 1 has 3"), "{error}");
        assert!(plan(&[]).is_err());
    }

    #[test]
    fn restores_follow_each_other_with_growing_terms_until_there_are_no_more() {
        let whole = |term| [manifest(1, &[(0, 1, term), (1, 1, 1), (2, 1, 1)])];
        let (mut term, mut restores) = (1, 0);
        while let Ok(plan) = plan(&whole(term)) {
            assert!(plan.term > term + TERMS_LOST_MAX && plan.term < TERM_END);
            // Each of these fleets has had elections before its backup.
            term = plan.term + 20_000;
            restores += 1;
        }
        assert!(restores >= 120, "{restores}");
    }

    #[test]
    fn another_backup_makes_another_plan() {
        let first = [manifest(1, &[(0, 1, 1), (1, 1, 1), (2, 1, 1)])];
        let mut second = first.clone();
        second[0].made_ms += 1;
        let (first, second) = (plan(&first).expect("whole"), plan(&second).expect("whole"));
        assert_ne!(first.mark, second.mark);
        assert_eq!(first.index, second.index);
    }

    #[test]
    fn nodes_that_would_hold_other_copies_see_it_by_the_name() {
        let manifests = [manifest(1, &[(0, 1, 1), (1, 1, 1), (2, 1, 1)])];
        let manifests: Vec<&Manifest> = manifests.iter().collect();
        let mark = |copies: &[Vec<u32>]| Plan::of(&manifests, copies).expect("whole").mark;
        assert_eq!(mark(&[vec![1, 2, 3]]), mark(&[vec![1, 2, 3]]));
        assert_ne!(mark(&[vec![1, 2, 3]]), mark(&[vec![1, 2, 4]]));
    }
}

//! Copies as far apart as zones let them be, while nodes come and go: by example, and in all small fleets.

use crate::placement::fleet::{MOVES_AT_ONCE, goal, staying};
use crate::placement::moves::tests::{fleet, held, led, node, settle};
use crate::placement::moves::{add_node, plan, remove_node, reported};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use wire_protocol::ids::ShardId;
use wire_protocol::internal::{Fleet, ReplicaReport, ShardMove, ShardPlace};

/// Where a node may stand; first: nowhere that has a name.
const ZONES: [&str; 4] = ["", "a", "b", "c"];

/// A fleet in these zones that dealt its copies out when there were none.
fn crowded(zones: &[&str], shards: u32) -> Fleet {
    let mut crowded = fleet(zones.len() as u32, shards);
    for (node, zone) in crowded.nodes.iter_mut().zip(zones) {
        node.zone = (*zone).to_owned();
    }
    crowded
}

fn planned(fleet: Fleet) -> Fleet {
    let (moves, epoch) = (plan(&fleet), fleet.epoch + 1);
    Fleet { moves, epoch, ..fleet }
}

fn joined(fleet: &Fleet, id: u32, zone: &str) -> Fleet {
    add_node(fleet, node(id, zone)).expect("it fits")
}

/// Copies that nodes hold, by node.
fn counts(fleet: &Fleet) -> Vec<usize> {
    fleet.nodes.iter().map(|node| held(fleet, node.id)).collect()
}

/// Copies of a shard, or nodes, by zone, the most first.
fn crowds(fleet: &Fleet, copies: &[u32]) -> Vec<usize> {
    let mut crowds = BTreeMap::<(u32, &str), usize>::new();
    for node in fleet.nodes.iter().filter(|node| copies.contains(&node.id)) {
        let alone = if node.zone.is_empty() { node.id } else { 0 };
        *crowds.entry((alone, node.zone.as_str())).or_default() += 1;
    }
    let mut crowds: Vec<usize> = crowds.into_values().collect();
    crowds.sort_unstable_by_key(|count| Reverse(*count));
    crowds
}

/// The same of copies that could not be further apart: one after the other is where fewest are.
fn furthest(fleet: &Fleet, copies: usize) -> Vec<usize> {
    let ids: Vec<u32> = staying(fleet).iter().map(|node| node.id).collect();
    let room = crowds(fleet, &ids);
    let mut furthest = vec![0_usize; room.len()];
    for _ in 0..copies {
        let open = (0..room.len()).filter(|zone| furthest[*zone] < room[*zone]);
        let zone = open.min_by_key(|zone| furthest[*zone]).expect("there are as many nodes");
        furthest[zone] += 1;
    }
    furthest.retain(|count| *count > 0);
    furthest.sort_unstable_by_key(|count| Reverse(*count));
    furthest
}

/// Whether no copy could go to a node that holds at least two fewer, and come no nearer to another by it.
fn is_level(fleet: &Fleet) -> bool {
    let helps = |copies: &[u32], from: u32, to: u32| {
        let moved: Vec<u32> = copies.iter().map(|id| if *id == from { to } else { *id }).collect();
        !copies.contains(&to) && crowds(fleet, &moved) == crowds(fleet, copies)
    };
    let counts: Vec<(u32, usize)> = fleet.nodes.iter().map(|node| (node.id, held(fleet, node.id))).collect();
    let mut uneven = counts.iter().flat_map(|(from, most)| {
        let fewer = counts.iter().filter(move |(_, least)| *most > *least + 1);
        fewer.map(move |(to, _)| (*from, *to))
    });
    !uneven.any(|(from, to)| {
        let mut places = fleet.shards.iter().filter(|place| place.nodes.contains(&from));
        places.any(|place| helps(&place.nodes, from, to))
    })
}

/// Where shards go, in whatever order.
fn ends(moves: &[ShardMove]) -> BTreeMap<u32, BTreeSet<u32>> {
    let ends: BTreeMap<u32, BTreeSet<u32>> =
        moves.iter().map(|to| (to.shard, to.nodes.iter().copied().collect())).collect();
    assert_eq!(ends.len(), moves.len(), "a shard moves once: {moves:?}");
    ends
}

/// A fleet when all has moved, where it ends as it should: what holds of every plan.
fn settled(moving: Fleet) -> Fleet {
    assert_eq!(ends(&plan(&moving)), ends(&moving.moves), "on the way nothing else is planned: {moving:?}");
    let after = settle(moving);
    assert_eq!(plan(&after), [], "it is as it should be: {after:?}");
    let furthest = furthest(&after, after.shards[0].nodes.len());
    for place in &after.shards {
        assert_eq!(crowds(&after, &place.nodes), furthest, "{place:?} of {after:?}");
    }
    assert!(is_level(&after), "{after:?}");
    after
}

/// Copies that are on other nodes than before.
fn came(before: &Fleet, after: &Fleet) -> usize {
    let places = before.shards.iter().zip(&after.shards);
    places.map(|(from, to)| to.nodes.iter().filter(|id| !from.nodes.contains(id)).count()).sum()
}

/// Copies without which gaps would stay, or shards be in fewer zones: one copy may do for both.
fn needed(before: &Fleet, after: &Fleet) -> usize {
    let of_shard = |(from, to): (&ShardPlace, &ShardPlace)| {
        let (kept, all) = (crowds(after, &from.nodes), crowds(after, &to.nodes));
        let gaps = to.nodes.len() - kept.iter().sum::<usize>();
        gaps.max(all.len() - kept.len())
    };
    before.shards.iter().zip(&after.shards).map(of_shard).sum()
}

/// Copies that nodes had above their share.
fn above_share(before: &Fleet, after: &Fleet) -> usize {
    let share = after.shards.iter().map(|place| place.nodes.len()).sum::<usize>() / after.nodes.len();
    after.nodes.iter().map(|node| held(before, node.id).saturating_sub(share)).sum()
}

/// As [`settled`], and no more came than had to: what goes for its gap or zone to a node that has its share already may
/// send another copy on from there. `before`: nothing moved.
fn checked(before: &Fleet, moving: Fleet) -> Fleet {
    let after = settled(moving);
    let (came, needed) = (came(before, &after), needed(before, &after));
    let most = 2 * needed + above_share(before, &after);
    assert!((needed..=most).contains(&came), "{came} came, of {needed} to {most}: {before:?}, {after:?}");
    after
}

#[test]
fn a_zone_that_comes_later_gets_a_copy_of_every_shard() {
    let before = crowded(&["a", "a", "b"], 8);
    assert_eq!(plan(&before), [], "there are two zones, and all shards are in both");
    let moving = joined(&before, 4, "c");
    assert!(moving.moves.iter().all(|to| to.nodes.contains(&3) && to.nodes.contains(&4)), "{moving:?}");
    let after = checked(&before, moving);
    assert_eq!((came(&before, &after), counts(&after)), (8, vec![4, 4, 8, 8]));
    assert_eq!((1..=4).map(|id| led(&after, id)).collect::<Vec<_>>(), [2, 2, 2, 2]);
}

#[test]
fn of_copies_in_two_zones_one_each_goes_to_the_third() {
    let before = crowded(&["a", "a", "b", "b"], 8);
    let after = checked(&before, joined(&before, 5, "c"));
    assert_eq!((came(&before, &after), counts(&after)), (8, vec![4, 4, 4, 4, 8]));
}

#[test]
fn two_zones_that_come_at_once_share_what_goes_there() {
    let mut before = crowded(&["a", "a", "b", "b"], 8);
    before.nodes.extend([node(5, "c"), node(6, "d")]);
    let after = checked(&before, planned(before.clone()));
    assert_eq!((came(&before, &after), counts(&after)), (8, vec![4; 6]));
}

#[test]
fn one_node_becomes_three_in_two_zones_and_four_in_three() {
    let mut one = Fleet { replicas: 3, nodes: vec![node(1, "a")], ..Fleet::default() };
    one.shards = vec![ShardPlace { nodes: vec![1], changed_at: 0 }; 8];
    let two = settled(joined(&one, 2, "b"));
    assert_eq!(counts(&two), [4, 4], "two replicas are less than one");
    let three = settled(joined(&two, 3, "b"));
    assert_eq!(counts(&three), [8, 8, 8]);
    let four = checked(&three, joined(&three, 4, "c"));
    assert_eq!((came(&three, &four), counts(&four)), (8, vec![8, 4, 4, 8]));
}

#[test]
fn a_node_without_a_zone_is_one_by_itself_and_parts_nobody_from_its_like() {
    let before = crowded(&["a", "a", "b"], 8);
    let after = checked(&before, joined(&before, 4, ""));
    assert_eq!(counts(&after), [4, 4, 8, 8]);
    let unnamed = crowded(&["", "", ""], 16);
    let after = checked(&unnamed, joined(&unnamed, 4, ""));
    assert_eq!((came(&unnamed, &after), counts(&after)), (12, vec![12; 4]), "its share alone");
}

#[test]
fn where_zones_are_more_than_copies_shares_alone_move() {
    let before = crowded(&["a", "b", "c", "d", "e"], 10);
    let after = checked(&before, joined(&before, 6, "f"));
    assert_eq!((came(&before, &after), counts(&after)), (5, vec![5; 6]));
}

#[test]
fn a_zone_may_lose_its_only_node_and_get_another() {
    let three = settled(joined(&crowded(&["a", "a", "b"], 8), 4, "c"));
    let two = checked(&three, remove_node(&three, 4).expect("three are left"));
    assert_eq!(counts(&two), [8, 8, 8], "nodes 1 to 3 have all");
    let three = checked(&two, joined(&two, 5, "c"));
    assert_eq!((came(&two, &three), counts(&three)), (8, vec![4, 4, 8, 8]));
}

#[test]
fn of_five_copies_no_zone_keeps_a_majority() {
    let mut before = crowded(&["a", "a", "a", "b", "c"], 6);
    before.replicas = 5;
    before.shards = vec![ShardPlace { nodes: vec![1, 2, 3, 4, 5], changed_at: 0 }; 6];
    assert_eq!(plan(&before), [], "no other zone has a second node");
    let after = settled(joined(&before, 6, "b"));
    assert!(after.shards.iter().all(|place| crowds(&after, &place.nodes) == [2, 2, 1]), "{after:?}");
    assert_eq!((came(&before, &after), counts(&after)), (6, vec![4, 4, 4, 6, 6, 6]));
}

#[test]
fn copies_part_at_the_pace_of_all_moves_and_on_the_way_nothing_else_is_planned() {
    let mut moving = joined(&crowded(&["a", "a", "b"], 8), 4, "c");
    for left in (1..=8).rev() {
        let under_way = (0..8).filter(|shard| goal(&moving, ShardId(*shard)).is_some()).count();
        assert_eq!((moving.moves.len(), under_way), (left, left.min(MOVES_AT_ONCE)), "{moving:?}");
        let to = moving.moves[0].clone();
        let report = ReplicaReport { shard: to.shard, voters: to.nodes, changed_at: 10 };
        moving = reported(&moving, &report).expect("it is news");
        assert_eq!(ends(&plan(&moving)), ends(&moving.moves), "{moving:?}");
    }
    assert_eq!(moving.moves, []);
}

/// All ways to put so many nodes into three zones or none, but for what zones are called.
fn labellings(nodes: u32) -> impl Iterator<Item = Vec<&'static str>> {
    let zone = |number: usize, place: u32| ZONES[number / ZONES.len().pow(place) % ZONES.len()];
    let all = 0..ZONES.len().pow(nodes);
    let all = all.map(move |number| (0..nodes).map(|place| zone(number, place)).collect::<Vec<_>>());
    all.filter(|zones| {
        let first = |name: &str| zones.iter().position(|zone| *zone == name).unwrap_or(zones.len());
        first("a") <= first("b") && first("b") <= first("c")
    })
}

/// From copies that were dealt out before there were zones, and from copies that are all on three nodes.
#[test]
fn in_all_small_fleets_copies_are_as_far_apart_as_can_be_and_no_more_move_than_must() {
    const SHARDS: u32 = 7;
    let mut tried = 0;
    for zones in (3..=6).flat_map(labellings) {
        let nodes = zones.len() as u32;
        let dealt_out = crowded(&zones, SHARDS);
        let piled_up = ShardPlace { nodes: vec![1, 2, 3], changed_at: 0 };
        let piled_up = Fleet { shards: vec![piled_up; SHARDS as usize], ..dealt_out.clone() };
        for before in [dealt_out, piled_up] {
            let at_rest = checked(&before, planned(before.clone()));
            for zone in ZONES {
                let one = joined(&at_rest, nodes + 1, zone);
                // Another one comes before anything has moved.
                settled(joined(&one, nodes + 2, "c"));
                checked(&at_rest, one);
            }
            for id in (1..=nodes).filter(|_| nodes > 3) {
                checked(&at_rest, remove_node(&at_rest, id).expect("enough are left"));
            }
            tried += 1;
        }
    }
    assert!(tried > 1_000, "{tried}");
}

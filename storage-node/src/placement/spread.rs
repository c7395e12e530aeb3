//! Which nodes hold copies of a shard: a function of the list of nodes alone, so that every node and every gateway
//! comes to the same table.

/// What is known of a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SpreadNode {
    /// Its id.
    pub id: u32,
    /// Where it stands; empty: a zone of its own.
    pub zone: String,
}

/// Copies of each shard, the preferred leader first. Shard by shard the next node begins, so that leaders are spread
/// evenly; copies of one shard are in different zones while there are any. `nodes` in any order, `replicas` at most as
/// many as there are.
pub fn spread(shard_count: u32, nodes: &[SpreadNode], replicas: usize) -> Vec<Vec<u32>> {
    let mut nodes: Vec<&SpreadNode> = nodes.iter().collect();
    nodes.sort_by_key(|node| node.id);
    assert!((1..=nodes.len()).contains(&replicas), "{replicas} copies on {} nodes", nodes.len());
    (0..shard_count as usize)
        .map(|shard| {
            // Begun one node further in each round, so that not the same pairs share all shards.
            let round = shard / nodes.len();
            let in_turn = |step: usize| {
                let first = shard % nodes.len();
                let step = if step == 0 { 0 } else { 1 + (step - 1 + round) % (nodes.len() - 1) };
                nodes[(first + step) % nodes.len()]
            };
            let mut chosen: Vec<&SpreadNode> = Vec::with_capacity(replicas);
            for other_zone in [true, false] {
                for step in 0..nodes.len() {
                    let node = in_turn(step);
                    let is_new = chosen.iter().all(|taken| taken.id != node.id);
                    let shares = |taken: &&SpreadNode| !taken.zone.is_empty() && taken.zone == node.zone;
                    if chosen.len() < replicas && is_new && !(other_zone && chosen.iter().any(shares)) {
                        chosen.push(node);
                    }
                }
            }
            chosen.into_iter().map(|node| node.id).collect()
        })
        .collect()
}

/// Whether, of any majority of these copies, one is left when a whole zone is lost. Nodes without a zone are of none that
/// is known to be another.
pub fn spans_zones(nodes: &[SpreadNode], copies: &[u32]) -> bool {
    let zone = |id: &u32| nodes.iter().find(|node| node.id == *id).map_or("", |node| node.zone.as_str());
    let zones: Vec<&str> = copies.iter().map(zone).collect();
    let majority = copies.len() / 2 + 1;
    let is_spread = |zone: &&str| zones.iter().filter(|other| *other == zone).count() < majority;
    copies.len() > 1 && zones.iter().all(|zone| !zone.is_empty() && is_spread(zone))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn nodes(zones: &[&str]) -> Vec<SpreadNode> {
        (1..).zip(zones).map(|(id, zone)| SpreadNode { id, zone: (*zone).to_owned() }).collect()
    }

    #[test]
    fn leaders_and_copies_are_spread_evenly() {
        for (count, replicas) in [(3, 3), (4, 3), (5, 3), (7, 5), (3, 1)] {
            let table = spread(840, &nodes(&vec![""; count]), replicas);
            for node in 1..=count as u32 {
                let leads = table.iter().filter(|copies| copies[0] == node).count();
                let holds = table.iter().filter(|copies| copies.contains(&node)).count();
                assert_eq!(leads, 840 / count, "{count} nodes, {replicas} copies: node {node}");
                let fair = 840 * replicas / count;
                assert!(holds.abs_diff(fair) <= fair / 20, "{count} nodes: node {node} holds {holds}");
            }
            let pairs: BTreeSet<(u32, u32)> =
                table.iter().filter(|copies| copies.len() > 1).map(|copies| (copies[0], copies[1])).collect();
            assert!(replicas == 1 || pairs.len() == count * (count - 1), "{pairs:?}");
        }
    }

    #[test]
    fn a_majority_spans_zones_where_no_zone_holds_one() {
        for (zones, copies, spans) in [
            (&["a", "b", "c"][..], &[1, 2, 3][..], true),
            (&["a", "b", "a"], &[1, 2, 3], false),
            (&["a", "b", ""], &[1, 2, 3], false),
            (&["", "", ""], &[1, 2, 3], false),
            (&["a", "b", "a", "b", "c"], &[1, 2, 3, 4, 5], true),
            (&["a", "b", "a", "a", "c"], &[1, 2, 3, 4, 5], false),
            (&["a"], &[1], false),
        ] {
            assert_eq!(spans_zones(&nodes(zones), copies), spans, "{zones:?}");
        }
    }

    #[test]
    fn copies_are_in_different_zones_while_there_are_any() {
        for zones in [&["a", "a", "b", "b", "c", "c"][..], &["a", "b", "c"], &["c", "a", "a", "a", "b"]] {
            let nodes = nodes(zones);
            for copies in spread(64, &nodes, 3) {
                let zones: BTreeSet<&str> =
                    copies.iter().map(|id| nodes[*id as usize - 1].zone.as_str()).collect();
                assert_eq!((copies.len(), zones.len()), (3, 3), "{copies:?}");
            }
        }
        let two = nodes(&["a", "a", "a", "b"]);
        for copies in spread(64, &two, 3) {
            assert!(
                copies.contains(&4) && copies.len() == 3,
                "{copies:?}: one zone must not hold all copies"
            );
        }
    }

    #[test]
    fn the_order_of_the_list_does_not_matter() {
        let mut nodes = nodes(&["a", "b", "c", ""]);
        let table = spread(16, &nodes, 3);
        nodes.reverse();
        assert_eq!(spread(16, &nodes, 3), table);
    }
}

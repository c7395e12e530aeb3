//! Who leads which shard, by what the storage nodes write in their logs. Each says "leads" with shard and term when it
//! wins an election; the highest term counts.

use crate::coordinator::Server;
use std::collections::BTreeMap;

/// Leaders: shard to (term, index of the node).
pub type Leaders = BTreeMap<u32, (u64, usize)>;

/// Reads the logs of all nodes, in their order.
pub fn of(storages: &[Server]) -> Leaders {
    let mut leaders = Leaders::new();
    for (node, server) in storages.iter().enumerate() {
        // A log that cannot be read names nobody.
        let log = std::fs::read_to_string(server.log()).unwrap_or_default();
        for (shard, term) in log.lines().filter_map(won) {
            let known = leaders.entry(shard).or_insert((term, node));
            *known = (*known).max((term, node));
        }
    }
    leaders
}

/// The node that leads most shards.
pub fn busiest(leaders: &Leaders) -> usize {
    let mut counts = BTreeMap::<usize, u32>::new();
    leaders.values().for_each(|(_, node)| *counts.entry(*node).or_default() += 1);
    counts.into_iter().max_by_key(|(_, count)| *count).map_or(0, |(node, _)| node)
}

/// Shards that a node leads.
pub fn led_by(leaders: &Leaders, node: usize) -> Vec<u32> {
    leaders.iter().filter(|(_, (_, leader))| *leader == node).map(|(shard, _)| *shard).collect()
}

/// "… leads shard=3 term=5" as shard and term.
fn won(line: &str) -> Option<(u32, u64)> {
    let (_, rest) = line.split_once(" leads shard=")?;
    let (shard, term) = rest.split_once(" term=")?;
    Some((shard.parse().ok()?, term.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elections_are_read_from_logs() {
        let line = "2026-01-01T00:00:00.1Z  INFO storage_node::shard::role: leads shard=3 term=5";
        assert_eq!(won(line), Some((3, 5)));
        assert_eq!(won("INFO storage_node::shard::role: leads no more shard=3"), None);
        let leaders = Leaders::from([(0, (2, 1)), (1, (2, 1)), (2, (9, 0))]);
        assert_eq!((busiest(&leaders), led_by(&leaders, 1)), (1, vec![0, 1]));
    }
}

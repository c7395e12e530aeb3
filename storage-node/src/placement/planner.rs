//! Where replicas should be, as far as that is a matter of nodes, zones and counts: the steps of
//! [`plan`](super::moves::plan), which knows where they are. None of them takes back what one before it has reached.
//!
//! ```text
//! fill: so many as there should be -> part: so far apart as zones let them be
//!     -> level: nodes hold about as many as each other -> lead_evenly: and lead
//! ```

use super::SpreadNode;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Who holds what while it is planned.
pub(super) struct Planner<'a> {
    /// Those that may hold replicas.
    nodes: &'a [SpreadNode],
    /// Zones by node; empty: one of its own.
    zones: BTreeMap<u32, &'a str>,
    /// Replicas by node.
    held: BTreeMap<u32, usize>,
    /// Replicas that each shard is to have.
    copies: usize,
}

impl<'a> Planner<'a> {
    /// Nobody holds anything yet.
    pub fn new(nodes: &'a [SpreadNode], copies: usize) -> Self {
        let zones = nodes.iter().map(|node| (node.id, node.zone.as_str())).collect();
        Self { nodes, zones, held: BTreeMap::new(), copies }
    }

    /// These hold a shard.
    pub fn count(&mut self, shard: &[u32]) {
        shard.iter().for_each(|id| *self.held.entry(*id).or_default() += 1);
    }

    fn held(&self, id: u32) -> usize {
        self.held.get(&id).copied().unwrap_or(0)
    }

    /// Replicas of a shard in a zone; 0 where it has no name, since whatever is there is alone.
    fn in_zone(&self, shard: &[u32], zone: &str) -> usize {
        let is_there =
            |id: &&u32| !zone.is_empty() && self.zones.get(*id).is_some_and(|other| *other == zone);
        shard.iter().filter(is_there).count()
    }

    /// Of the nodes without a replica of a shard one in the zone that has fewest, the one that holds least.
    fn best_place(&self, shard: &[u32]) -> Option<&'a SpreadNode> {
        let free = self.nodes.iter().filter(|node| !shard.contains(&node.id));
        free.min_by_key(|node| (self.in_zone(shard, &node.zone), self.held(node.id), node.id))
    }

    /// Gives a shard the replicas that it lacks.
    pub fn fill(&mut self, shard: &mut Vec<u32>) {
        while shard.len() < self.copies {
            let Some(best) = self.best_place(shard) else { return };
            shard.push(best.id);
            self.count(&[best.id]);
        }
    }

    /// Moves replicas of a shard from the zone that has most of them to one that has at least two fewer, while there is
    /// one. Each step leaves fewer pairs in one zone, so there is an end; then no zone has two more than another one in
    /// which there is room, and as many have one as can.
    pub fn part(&mut self, shard: &mut [u32]) {
        while let Some((place, to)) = self.best_parting(shard) {
            self.replace(&mut shard[place], to);
        }
    }

    fn best_parting(&self, shard: &[u32]) -> Option<(usize, u32)> {
        let crowd = |id: u32| self.zones.get(&id).map_or(0, |zone| self.in_zone(shard, zone));
        // Of the nodes in that zone the one that holds most goes without, so that counts become even by it, too; of these
        // rather not the one that should lead.
        let places = shard.iter().copied().enumerate();
        let (place, from) = places.max_by_key(|(place, id)| (crowd(*id), self.held(*id), *place))?;
        let to = self.best_place(shard)?;
        (self.in_zone(shard, &to.zone) + 1 < crowd(from)).then_some((place, to.id))
    }

    fn replace(&mut self, replica: &mut u32, to: u32) {
        let from = std::mem::replace(replica, to);
        *self.held.entry(from).or_default() -= 1;
        self.count(&[to]);
    }

    /// Moves replicas from who has most to who has least, while that helps and none of a shard comes nearer to another.
    pub fn level(&mut self, wanted: &mut [Vec<u32>]) {
        for _ in 0..wanted.len() * self.copies {
            let Some((shard, place, to)) = self.best_swap(wanted) else { return };
            self.replace(&mut wanted[shard][place], to);
        }
    }

    fn best_swap(&self, wanted: &[Vec<u32>]) -> Option<(usize, usize, u32)> {
        let mut pairs: Vec<(&SpreadNode, &SpreadNode)> = self
            .nodes
            .iter()
            .flat_map(|from| self.nodes.iter().map(move |to| (from, to)))
            .filter(|(from, to)| self.held(from.id) > self.held(to.id) + 1)
            .collect();
        pairs.sort_by_key(|(from, to)| (Reverse(self.held(from.id) - self.held(to.id)), from.id, to.id));
        pairs.into_iter().find_map(|(from, to)| {
            wanted.iter().enumerate().find_map(|(shard, nodes)| {
                let place = nodes.iter().position(|id| *id == from.id)?;
                let others: Vec<u32> = nodes.iter().copied().filter(|id| *id != from.id).collect();
                let is_nearer = self.in_zone(&others, &to.zone) > self.in_zone(&others, &from.zone);
                (!nodes.contains(&to.id) && !is_nearer).then_some((shard, place, to.id))
            })
        })
    }
}

/// Puts first, in each shard, a node that leads few others.
pub(super) fn lead_evenly(wanted: &mut [Vec<u32>], nodes: &[SpreadNode]) {
    let mut leads: BTreeMap<u32, usize> = nodes.iter().map(|node| (node.id, 0)).collect();
    let fair = wanted.len().div_ceil(nodes.len().max(1));
    // Who leads few enough already goes on.
    let mut open = Vec::new();
    for (shard, nodes) in wanted.iter().enumerate() {
        match nodes.first().and_then(|first| leads.get_mut(first)) {
            Some(count) if *count < fair => *count += 1,
            _ => open.push(shard),
        }
    }
    for shard in open {
        let nodes = &mut wanted[shard];
        let count = |id: &u32| leads.get(id).copied().unwrap_or(0);
        if let Some(best) = (0..nodes.len()).min_by_key(|place| (count(&nodes[*place]), *place)) {
            nodes[..=best].rotate_right(1);
            *leads.entry(nodes[0]).or_default() += 1;
        }
    }
}

#[cfg(test)]
mod tests;

//! Where copies are and where they are to be: what is watched of the fleet, and what there must be when it is at rest.

use super::history::Voters;
use super::{HOSTS, World};
use crate::workload::zones::ZoneSpread;
use std::collections::BTreeMap;
use std::sync::Arc;
use wire_protocol::internal::Fleet;

/// The newest fleet that was seen.
#[derive(Default)]
pub(super) struct FleetWatch {
    newest: Option<Arc<Fleet>>,
    /// Moves that ended.
    pub moves: usize,
    /// By host of a storage node and shard: whom it knew to vote when it did something last, and since which change.
    voters: BTreeMap<(usize, u32), (u64, Vec<u32>)>,
}

impl World {
    /// The newest fleet that any node has heard of which runs.
    pub(super) fn newest_fleet(&self) -> Option<Arc<Fleet>> {
        self.nodes.iter().filter_map(|node| node.fleet()).max_by_key(|fleet| fleet.epoch)
    }

    /// Counts moves.
    pub(super) fn watch_fleet(&mut self) {
        let Some(newest) = self.newest_fleet() else { return };
        let Some(seen) = self.fleet.newest.replace(Arc::clone(&newest)) else { return };
        let places = newest.shards.iter().zip(&seen.shards);
        self.fleet.moves += places.filter(|(now, before)| now.changed_at > before.changed_at).count();
    }

    /// A node did something. Whom it knows to vote in each shard is noted when that is news.
    pub(super) fn watch_voters(&mut self, host: usize) {
        let place = HOSTS.node_place(host).expect("a host of a storage node");
        for shard in 0..self.applied.len() as u32 {
            let Some(set) = self.nodes[place].replicas(shard) else { return };
            let known = self.fleet.voters.entry((host, shard)).or_default();
            if known.0 == set.changed_at && known.1 == set.voters {
                continue;
            }
            *known = (set.changed_at, set.voters.clone());
            let zones = set.voters.iter().map(|id| self.zones.of_node(*id)).collect();
            let (at, has_changed) = (self.story.history.events.len(), set.changed_at > 0);
            self.story.history.voters.push(Voters { at, host, shard, zones, has_changed });
            let back = self.returns.note(shard, set, self.outside.now_ms);
            back.into_iter().for_each(|node| self.count_return(shard, node));
        }
    }

    /// What is not as the operator wants it, not as the fleet says, or not as far apart as it could be: while shards move,
    /// and never afterwards.
    pub(super) fn moves_open(&mut self) -> Vec<String> {
        let Some(fleet) = self.newest_fleet() else { return vec!["no node runs".to_owned()] };
        let wishes = self.operator.wishes.iter().map(|wished| wished.wish);
        let mut open: Vec<String> = wishes
            .filter(|wish| !wish.is_of(&fleet))
            .map(|wish| format!("{wish}: the fleet says nothing of it"))
            .collect();
        let moves = fleet.moves.iter();
        open.extend(moves.map(|to| format!("shard {} is still to move to nodes {:?}", to.shard, to.nodes)));
        let leaving = fleet.nodes.iter().filter(|node| node.is_leaving);
        open.extend(leaving.map(|node| format!("node {} still leaves", node.id)));
        let is_there = |id: &u32| fleet.nodes.iter().any(|node| node.id == *id);
        let places = fleet.shards.iter().filter(|place| !place.nodes.iter().all(is_there));
        open.extend(
            places.map(|place| format!("a shard is on nodes {:?}, not all of the fleet", place.nodes)),
        );
        open.extend(self.crowded(&fleet));
        for node in self.nodes.iter_mut().filter(|node| !node.is_gone()) {
            match node.fleet() {
                Some(known) if known.epoch == fleet.epoch => {
                    open.extend(node.misplaced(&fleet));
                }
                Some(known) => {
                    open.push(format!("host {} knows fleet {} of {}", node.host, known.epoch, fleet.epoch));
                }
                None => open.push(format!("host {} knows no fleet", node.host)),
            }
        }
        open
    }

    /// Shards whose copies are in fewer zones than they could be: by where their machines stand, so that it shows as well
    /// when the fleet was told nothing of it.
    fn crowded(&self, fleet: &Fleet) -> Vec<String> {
        let zone = |id: u32| (id, self.zones.of_node(id).to_owned());
        let zones: BTreeMap<u32, String> = fleet.nodes.iter().map(|node| zone(node.id)).collect();
        ZoneSpread::of(&zones, fleet.shards.iter().map(|place| place.nodes.as_slice())).crowded
    }

    /// Places among the nodes of those that vote in a shard, as the fleet says.
    fn voters(&self, fleet: &Fleet, shard: usize) -> Vec<usize> {
        let voters = fleet.shards.get(shard).map(|place| place.nodes.as_slice()).unwrap_or_default();
        voters.iter().map(|id| *id as usize - 1).filter(|place| *place < self.nodes.len()).collect()
    }

    /// Copies that vote and lack what was applied elsewhere when everything was answered.
    pub(super) fn copies_behind(&mut self) -> Vec<String> {
        let Some(fleet) = self.newest_fleet() else { return Vec::new() };
        let mut behind = Vec::new();
        for (shard, wanted) in self.applied.iter().enumerate() {
            for place in self.voters(&fleet, shard) {
                let (host, applied) = (self.nodes[place].host, self.nodes[place].applied(shard as u32));
                if applied < *wanted {
                    behind.push(format!(
                        "the copy of shard {shard} on host {host} is at {applied} of {wanted}"
                    ));
                }
            }
        }
        behind
    }

    /// Holds copies that vote against each other. False: those of a shard have not applied the same entries at present.
    pub(super) fn compare_copies(&mut self) -> bool {
        let Some(fleet) = self.newest_fleet() else { return false };
        let mut differing = Vec::new();
        for shard in 0..self.applied.len() {
            let voters: Vec<_> =
                self.voters(&fleet, shard).into_iter().map(|place| &self.nodes[place]).collect();
            let Some((first, others)) = voters.split_first() else { return false };
            let applied = first.applied(shard as u32);
            if others.iter().any(|other| other.applied(shard as u32) != applied) {
                return false;
            }
            let rows = first.rows(shard as u32);
            let differ = others.iter().filter(|other| other.rows(shard as u32) != rows);
            differing.extend(differ.map(|other| {
                let hosts = format!("hosts {} and {}", first.host, other.host);
                format!("{hosts} have applied {applied} entries of shard {shard}, and their rows differ")
            }));
        }
        self.story.history.differing = differing;
        true
    }

    /// What each node is and knows, for a person.
    pub(super) fn statuses(&mut self) -> Vec<String> {
        let shards = 0..self.applied.len() as u32;
        let mut statuses = Vec::new();
        for node in &mut self.nodes {
            let (host, fleet) = (node.host, node.fleet());
            statuses.push(format!(
                "host {host}: {}",
                fleet.map_or_else(|| "no fleet".to_owned(), |it| text(&it))
            ));
            let copies =
                shards.clone().map(|shard| format!("host {host}, shard {shard}: {}", node.status(shard)));
            statuses.extend(copies.collect::<Vec<_>>());
        }
        statuses
    }
}

fn text(fleet: &Fleet) -> String {
    let nodes = fleet.nodes.iter().map(|node| (node.id, &node.zone, node.is_leaving)).collect::<Vec<_>>();
    let places = fleet.shards.iter().map(|place| (place.changed_at, &place.nodes)).collect::<Vec<_>>();
    let moves = fleet.moves.iter().map(|to| (to.shard, &to.nodes)).collect::<Vec<_>>();
    let Fleet { epoch, retired, .. } = fleet;
    format!(
        "fleet {epoch}, nodes, zones and whether they leave {nodes:?}, places {places:?}, moves {moves:?}, retired {retired:?}"
    )
}

//! Nodes that join and leave the fleet, and how far their shards are.

use super::catch_up::{self, CatchUp, Known};
use crate::backup::Progress;
use crate::clock;
use crate::placement::fleet::{FLEET_NODES_MAX, MOVES_AT_ONCE};
use crate::placement::moves::{PlanError, add_node, remove_node};
use crate::worker::NodeShared;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;
use wire_protocol::ids::ShardId;
use wire_protocol::internal::{Fleet, FleetNode};

/// A change of the fleet that the shard which keeps it has not taken by then is asked for again.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(5);
/// So many times: moves end meanwhile, and each end is a change, too.
const CHANGE_TRIES_MAX: u32 = 6;
/// How often it is looked what became of something.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A change that an operator wants.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FleetWish {
    /// A node that runs, with `--join`, gets its share of replicas.
    Add {
        /// Its id: one that no node ever had.
        id: u32,
        /// Where others reach it.
        address: SocketAddr,
        /// Where it stands; empty: a zone of its own.
        zone: String,
    },
    /// All replicas of a node move to others; then it is retired.
    Remove {
        /// Which.
        id: u32,
    },
}

/// The fleet, for a person.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FleetStatus {
    /// Grows with each change.
    pub epoch: u64,
    /// Replicas that each shard is to have, once there are as many nodes.
    pub replicas: u32,
    /// Ascending by id.
    pub nodes: Vec<NodeShare>,
    /// By shard: nodes that vote, the preferred leader first.
    pub shards: Vec<Vec<u32>>,
    /// In the order in which they are made; the first few are under way.
    pub moves: Vec<Move>,
    /// Ids that are never given again.
    pub retired: Vec<u32>,
}

/// A node and what it has.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeShare {
    /// Its id.
    pub id: u32,
    /// Where others reach it.
    pub address: String,
    /// Where it stands.
    pub zone: String,
    /// Whether it is to be retired.
    pub is_leaving: bool,
    /// Whether the node that was asked has no link to it.
    #[serde(default)]
    pub is_away: bool,
    /// Shards of which it holds a replica.
    pub holds: u32,
    /// Shards that it leads while all are well.
    pub leads: u32,
}

/// Where a shard goes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Move {
    /// Which.
    pub shard: u32,
    /// Nodes that vote.
    pub from: Vec<u32>,
    /// Nodes that are to vote.
    pub to: Vec<u32>,
    /// Whether it goes on now.
    pub is_under_way: bool,
    /// Nodes without which it does not go on, and to which the node that was asked has no link.
    #[serde(default)]
    pub waits_for: Vec<u32>,
    /// How far the replicas are that are to vote, if it goes on now and the node that was asked leads the shard.
    #[serde(default)]
    pub catching_up: Vec<CatchUp>,
    /// The node that leads the shard and knows how far they are, if that is another one than was asked.
    #[serde(default)]
    pub known_at: Option<u32>,
}

impl FleetStatus {
    fn of(fleet: &Fleet, is_away: &dyn Fn(u32) -> bool) -> Self {
        let count =
            |is: &dyn Fn(&[u32]) -> bool| fleet.shards.iter().filter(|place| is(&place.nodes)).count() as u32;
        let share = |node: &FleetNode| NodeShare {
            id: node.id,
            address: node.address.clone(),
            zone: node.zone.clone(),
            is_leaving: node.is_leaving,
            is_away: is_away(node.id),
            holds: count(&|nodes| nodes.contains(&node.id)),
            leads: count(&|nodes| nodes.first() == Some(&node.id)),
        };
        let moves = fleet.moves.iter().enumerate().map(|(place, to)| Move {
            shard: to.shard,
            from: fleet.shards.get(to.shard as usize).map(|from| from.nodes.clone()).unwrap_or_default(),
            to: to.nodes.clone(),
            is_under_way: place < MOVES_AT_ONCE,
            waits_for: to.nodes.iter().copied().filter(|node| is_away(*node)).collect(),
            catching_up: Vec::new(),
            known_at: None,
        });
        Self {
            epoch: fleet.epoch,
            replicas: fleet.replicas,
            nodes: fleet.nodes.iter().map(share).collect(),
            shards: fleet.shards.iter().map(|place| place.nodes.clone()).collect(),
            moves: moves.collect(),
            retired: fleet.retired.clone(),
        }
    }

    /// Nodes, then moves.
    pub fn to_text(&self) -> String {
        let mut text = format!(
            "fleet, change {}: {} shards, {} replicas each once there are as many nodes\n{:>5} {:<22} {:<8} {:>6} {:>6}\n",
            self.epoch,
            self.shards.len(),
            self.replicas,
            "node",
            "address",
            "zone",
            "holds",
            "leads",
        );
        for node in &self.nodes {
            let NodeShare { id, address, zone, is_leaving, is_away, holds, leads } = node;
            let leaves = if *is_leaving { " leaves" } else { "" };
            let away = if *is_away { " away" } else { "" };
            let _ = writeln!(text, "{id:>5} {address:<22} {zone:<8} {holds:>6} {leads:>6}{leaves}{away}");
        }
        if self.moves.is_empty() {
            text.push_str("no moves\n");
        }
        for one in &self.moves {
            let _ = writeln!(text, "{}", one.to_text());
        }
        text
    }
}

impl Move {
    fn to_text(&self) -> String {
        let Self { shard, from, to, is_under_way, waits_for, catching_up, known_at } = self;
        let when = match (is_under_way, waits_for.is_empty()) {
            (true, true) => "under way".to_owned(),
            (true, false) => format!("waits for node {}, which is away", ids(waits_for)),
            (false, _) => "its turn comes later".to_owned(),
        };
        let far = match (catching_up.as_slice(), known_at) {
            ([], Some(leader)) => format!("; node {leader} leads it and knows how far it is"),
            ([], None) => String::new(),
            (replicas, _) => {
                let replicas: Vec<String> = replicas.iter().map(CatchUp::to_text).collect();
                format!("; {}", replicas.join(", "))
            }
        };
        format!("shard {shard}: {} -> {}, {when}{far}", ids(from), ids(to))
    }
}

fn ids(nodes: &[u32]) -> String {
    nodes.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

/// The fleet as this node knows it.
pub(super) fn status(shared: &NodeShared) -> Result<FleetStatus, String> {
    known(shared).map(|fleet| seen(shared, &fleet))
}

/// A fleet that there is, and how far its moves are.
fn seen(shared: &NodeShared, fleet: &Fleet) -> FleetStatus {
    let mut status = FleetStatus::of(fleet, &|node| is_away(shared, node));
    for one in status.moves.iter_mut().filter(|one| one.is_under_way) {
        match catch_up::known(shared, ShardId(one.shard)) {
            Known::Here(replicas) => one.catching_up = replicas,
            Known::At(leader) => one.known_at = Some(leader),
            Known::Nowhere => {}
        }
    }
    status
}

/// A fleet that there might be. That there is no link to a node which is not of the fleet says nothing of it.
fn planned(shared: &NodeShared, fleet: &Fleet, next: &Fleet) -> FleetStatus {
    let is_new = |node: u32| fleet.nodes.iter().all(|known| known.id != node);
    FleetStatus::of(next, &|node| !is_new(node) && is_away(shared, node))
}

fn is_away(shared: &NodeShared, node: u32) -> bool {
    node != shared.node_id && shared.reach.is_away(node)
}

fn known(shared: &NodeShared) -> Result<Fleet, String> {
    if !shared.map.is_replicated() {
        return Err(
            "there is one copy of each shard (replicas = 1): nodes neither join nor leave. From one node to \
                    three: see \"From one node to three\" in docs/operations.md"
                .to_owned(),
        );
    }
    if !shared.fleet.is_heard() {
        return Err("this node has heard of no fleet yet: ask one that is of it".to_owned());
    }
    Ok(Fleet::clone(&shared.fleet.get()))
}

/// The fleet as somebody wants it to be, and asked for; whether it comes to that the fleet tells.
#[cfg(any(test, feature = "sim"))]
pub(crate) fn ask_once(shared: &NodeShared, wish: &FleetWish) -> Result<(), String> {
    let next = wished(&known(shared)?, wish).map_err(|error| error.to_string())?;
    shared.ask_for_fleet(next);
    Ok(())
}

fn wished(fleet: &Fleet, wish: &FleetWish) -> Result<Fleet, PlanError> {
    match wish {
        FleetWish::Add { id, address, zone } => {
            let (address, zone) = (address.to_string(), zone.clone());
            add_node(fleet, FleetNode { id: *id, address, zone, is_leaving: false })
        }
        FleetWish::Remove { id } => remove_node(fleet, *id),
    }
}

/// Whether a fleet came of what was asked for as `next`: as it was, or with later changes on top, as when a move ended
/// before anybody looked.
fn has_come(fleet: &Fleet, next: &Fleet, wish: &FleetWish) -> bool {
    fleet == next || (fleet.epoch > next.epoch && is_fulfilled(fleet, wish))
}

fn is_fulfilled(fleet: &Fleet, wish: &FleetWish) -> bool {
    let mut nodes = fleet.nodes.iter();
    match wish {
        FleetWish::Add { id, address, zone } => {
            let address = address.to_string();
            nodes.any(|node| node.id == *id && node.address == address && node.zone == *zone)
        }
        FleetWish::Remove { id } => {
            fleet.retired.contains(id) || nodes.any(|node| node.id == *id && node.is_leaving)
        }
    }
}

/// Makes the change, or tells what it would be. Gives the fleet with its moves.
pub(super) fn change(
    shared: &NodeShared,
    wish: &FleetWish,
    is_dry_run: bool,
    progress: Progress<'_>,
) -> Result<FleetStatus, String> {
    let mut fleet = known(shared)?;
    for _ in 0..CHANGE_TRIES_MAX {
        let next = wished(&fleet, wish).map_err(|error| error.to_string())?;
        if is_dry_run {
            return Ok(planned(shared, &fleet, &next));
        }
        progress(format!("asks shard 0 for change {}: {} moves", next.epoch, next.moves.len()))?;
        shared.ask_for_fleet(next.clone());
        let asked = clock::now();
        while asked.elapsed() < CHANGE_TIMEOUT && shared.fleet.get().epoch < next.epoch {
            thread::sleep(LOOK_EVERY);
        }
        // The next try begins with the very fleet that is judged here: this one's change cannot come in between.
        fleet = Fleet::clone(&shared.fleet.get());
        if has_come(&fleet, &next, wish) {
            return Ok(seen(shared, &fleet));
        }
        progress("another change came before, or nobody leads shard 0: tries again".to_owned())?;
    }
    Err(format!(
        "nothing came of it in {CHANGE_TRIES_MAX} tries: does shard 0 have a leader (admin status)? The change may still \
         be made: look at the fleet before it is asked for again"
    ))
}

/// Tells of moves until none is left: when one ends, and once a second.
pub(super) fn wait(shared: &NodeShared, progress: Progress<'_>) -> Result<FleetStatus, String> {
    let (mut told, mut most) = (None, 0);
    loop {
        let fleet = known(shared)?;
        if fleet.moves.is_empty() {
            return Ok(seen(shared, &fleet));
        }
        // Also when nothing changes, so that whoever waits knows that the node lives.
        let second = clock::now_ms() / 1_000;
        if told != Some((fleet.epoch, second)) {
            told = Some((fleet.epoch, second));
            most = most.max(fleet.moves.len());
            progress(progress_text(&seen(shared, &fleet).moves, most))?;
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// What somebody is told who waits for these moves. `most`: so many there were at once since the waiting began.
fn progress_text(moves: &[Move], most: usize) -> String {
    let under_way: Vec<String> = moves.iter().filter(|one| one.is_under_way).map(Move::to_text).collect();
    format!("{} of {most} moves done; {}", most.saturating_sub(moves.len()), under_way.join("; "))
}

const _: () = assert!(FLEET_NODES_MAX <= 4_096, "gateways hold links to all of them");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::CatchUpProgress;
    use crate::placement::moves::reported;
    use wire_protocol::internal::{ReplicaReport, ShardMove, ShardPlace};

    #[test]
    fn a_person_sees_nodes_and_moves() {
        let node = |id, is_leaving| FleetNode {
            id,
            address: format!("10.0.0.{id}:7000"),
            zone: "a".into(),
            is_leaving,
        };
        let fleet = Fleet {
            epoch: 4,
            replicas: 3,
            nodes: vec![node(1, true), node(2, false)],
            shards: vec![ShardPlace { nodes: vec![1], changed_at: 7 }; 3],
            moves: (0..3).map(|shard| ShardMove { shard, nodes: vec![2] }).collect(),
            retired: vec![9],
        };
        let text = FleetStatus::of(&fleet, &|_| false).to_text();
        assert!(text.contains("1 10.0.0.1:7000          a             3      3 leaves\n"), "{text}");
        assert!(text.contains("shard 1: 1 -> 2, under way\nshard 2: 1 -> 2, its turn comes later"), "{text}");
        let text = FleetStatus::of(&fleet, &|node| node == 2).to_text();
        assert!(text.contains("2 10.0.0.2:7000          a             0      0 away\n"), "{text}");
        assert!(text.contains("shard 1: 1 -> 2, waits for node 2, which is away\n"), "{text}");
    }

    /// Three nodes with copies of all shards.
    fn three() -> Fleet {
        let node = |id: u32| FleetNode {
            id,
            address: format!("10.0.0.{id}:7000"),
            zone: String::new(),
            is_leaving: false,
        };
        Fleet {
            epoch: 0,
            replicas: 3,
            nodes: (1..=3).map(node).collect(),
            shards: vec![ShardPlace { nodes: vec![1, 2, 3], changed_at: 0 }; 4],
            moves: Vec::new(),
            retired: Vec::new(),
        }
    }

    fn add(id: u32, address: &str, zone: &str) -> FleetWish {
        FleetWish::Add { id, address: address.parse().expect("an address"), zone: zone.to_owned() }
    }

    /// The fleet when the first of its moves has ended.
    fn moved_on(fleet: &Fleet) -> Fleet {
        let to = &fleet.moves[0];
        let report =
            ReplicaReport { shard: to.shard, voters: to.nodes.clone(), changed_at: 100 + fleet.epoch };
        reported(fleet, &report).expect("it is news")
    }

    #[test]
    fn a_change_that_is_overtaken_by_the_end_of_a_move_has_come_all_the_same() {
        let (fleet, join) = (three(), add(4, "10.0.0.4:7000", "a"));
        let next = wished(&fleet, &join).expect("it fits");
        assert!(!has_come(&fleet, &next, &join), "nothing came yet");
        assert!(has_come(&next, &next, &join));
        let later = moved_on(&next);
        assert!(has_come(&later, &next, &join));

        let leave = FleetWish::Remove { id: 1 };
        let next = wished(&later, &leave).expect("three are left");
        assert!(!has_come(&later, &next, &leave), "it stays as yet");
        let mut fleet = moved_on(&next);
        assert!(has_come(&fleet, &next, &leave));
        while !fleet.moves.is_empty() {
            fleet = moved_on(&fleet);
        }
        assert_eq!(fleet.retired, [1]);
        assert!(has_come(&fleet, &next, &leave));
    }

    #[test]
    fn what_somebody_else_changed_is_not_what_was_asked_for() {
        let fleet = three();
        let later = moved_on(&wished(&fleet, &add(4, "10.0.0.4:7000", "a")).expect("it fits"));
        // The same id, and another address or zone.
        for join in [add(4, "10.0.0.5:7000", "a"), add(4, "10.0.0.4:7000", "b")] {
            let next = wished(&fleet, &join).expect("it fits");
            assert!(!has_come(&later, &next, &join), "{join:?}");
            assert_eq!(wished(&later, &join), Err(PlanError::Known(4)));
        }
        // Another node, in the place of this one or before it.
        let join = add(5, "10.0.0.5:7000", "");
        let next = wished(&fleet, &join).expect("it fits");
        let other = wished(&fleet, &add(4, "10.0.0.4:7000", "a")).expect("it fits");
        assert_eq!(other.epoch, next.epoch);
        assert!(!has_come(&other, &next, &join));
        assert!(!has_come(&later, &next, &join));
        let leave = FleetWish::Remove { id: 4 };
        let next = wished(&other, &leave).expect("three are left");
        assert!(!has_come(&moved_on(&later), &next, &leave), "it stays");
    }

    #[test]
    fn whoever_waits_is_told_how_far_the_moves_and_their_new_replicas_are() {
        let far = |catching_up: Vec<CatchUp>, known_at| Move {
            shard: 3,
            from: vec![1],
            to: vec![1, 2],
            is_under_way: true,
            waits_for: Vec::new(),
            catching_up,
            known_at,
        };
        let at = |node, progress| CatchUp { node, progress };
        let snapshot = CatchUpProgress::Snapshot { bytes: 1_024, percent: 40 };
        let here = far(vec![at(2, snapshot), at(4, CatchUpProgress::Waits)], None);
        let nearly = far(vec![at(2, CatchUpProgress::Entries { lacks: 5, last: 90 })], None);
        let later = Move { is_under_way: false, ..far(Vec::new(), None) };
        for (moves, said) in [
            (
                vec![here, later.clone()],
                "2 of 4 moves done; shard 3: 1 -> 1,2, under way; node 2 was sent 1024 bytes of a snapshot, about \
                 40 %, node 4 waits for a snapshot",
            ),
            (
                vec![nearly, later.clone()],
                "2 of 4 moves done; shard 3: 1 -> 1,2, under way; node 2 lacks 5 of 90 entries",
            ),
            (
                vec![far(Vec::new(), Some(7)), far(Vec::new(), None), later],
                "1 of 4 moves done; shard 3: 1 -> 1,2, under way; node 7 leads it and knows how far it is; shard 3: \
                 1 -> 1,2, under way",
            ),
        ] {
            assert_eq!(progress_text(&moves, 4), said);
        }
    }
}

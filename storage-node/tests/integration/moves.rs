//! Nodes that join and leave a fleet of processes while it serves: shards move to and from them, and nothing that was
//! acknowledged is lost, doubled or out of order.

use crate::fleet::Fleet;
use crate::process::Patience;
use crate::requests::{self, Person, applied, person};
use std::path::Path;
use storage_node::admin::{AdminDone, AdminRequest};
use storage_node::placement::moves::{add_node, remove_node};
use wire_protocol::ids::ConversationId;

const SHARDS: u32 = 4;
/// Of the first three nodes, where nodes have zones.
const ZONES: [&str; 3] = ["a", "b", "c"];

/// Two people who write to each other all the time, and what they were told.
struct Talk {
    people: [Person; 2],
    seqs: Vec<u64>,
}

impl Talk {
    fn begin(fleet: &mut Fleet<'_>) -> Self {
        let people = [person(1), person(2)];
        for person in people {
            fleet.call(requests::create_user(SHARDS, person));
        }
        fleet.call(requests::create_direct(SHARDS, people[0], people[1]));
        Self { people, seqs: Vec::new() }
    }

    fn conversation(&self) -> ConversationId {
        ConversationId::direct(self.people[0].user, self.people[1].user)
    }

    fn send(&mut self, fleet: &mut Fleet<'_>) {
        let next = self.seqs.len() as u64 + 1;
        let sent = fleet.call(requests::send(SHARDS, self.people[0], self.conversation(), next));
        self.seqs.push(applied(&sent).seq);
    }

    /// Sends until the fleet is as it is wanted.
    fn send_until(&mut self, fleet: &mut Fleet<'_>, what: &str, is: impl Fn(&Fleet<'_>) -> bool) {
        let mut patience = Patience::begin(fleet.known().epoch);
        while !is(fleet) {
            let is_over = patience.is_over(fleet.known().epoch);
            assert!(!is_over, "{what} did not happen: {:?}", fleet.known());
            self.send(fleet);
            fleet.pump();
        }
    }

    fn check(&self, fleet: &mut Fleet<'_>) {
        assert!(self.seqs.iter().copied().eq(2..self.seqs.len() as u64 + 2), "{:?}", self.seqs);
        for (client_id, seq) in (1..).zip(&self.seqs) {
            let send = requests::send(SHARDS, self.people[0], self.conversation(), client_id);
            let repeated = applied(&fleet.call(send));
            assert_eq!((repeated.seq, repeated.repeated_send), (*seq, true));
        }
        fleet.wait_for_feed(self.people[1], self.conversation(), self.seqs.len() as u64 + 1);
    }
}

fn has_settled(fleet: &Fleet<'_>) -> bool {
    fleet.known().moves.is_empty()
}

fn holds(fleet: &Fleet<'_>, id: u32) -> usize {
    fleet.known().shards.iter().filter(|place| place.nodes.contains(&id)).count()
}

fn start(folder: &Path) -> Fleet<'_> {
    Fleet::start(folder, SHARDS, 3, |_| Vec::new())
}

#[test]
fn a_node_joins_another_leaves_and_whoever_dies_meanwhile_nothing_is_lost() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut fleet = start(folder.path());
    let mut talk = Talk::begin(&mut fleet);
    (0..30).for_each(|_| talk.send(&mut fleet));
    fleet.join();
    let fourth = fleet.as_fleet_node(3);
    fleet.change(|known| add_node(known, fourth.clone()));
    talk.send_until(&mut fleet, "the new node's share", |fleet| has_settled(fleet) && holds(fleet, 4) == 3);
    // It dies and comes back as what it is now, though its configuration says otherwise.
    fleet.kill(3);
    talk.send(&mut fleet);
    fleet.start_node(3);
    fleet.change(|known| remove_node(known, 1));
    talk.send_until(&mut fleet, "the first node's end", |fleet| fleet.known().retired == [1]);
    fleet.kill(0);
    (0..30).for_each(|_| talk.send(&mut fleet));
    // What is left is a fleet as any: one of three may die.
    fleet.kill(1);
    (0..30).for_each(|_| talk.send(&mut fleet));
    fleet.start_node(1);
    talk.check(&mut fleet);
}

#[test]
fn a_dead_node_is_replaced() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut fleet = start(folder.path());
    let mut talk = Talk::begin(&mut fleet);
    (0..30).for_each(|_| talk.send(&mut fleet));
    let says = |done: &AdminDone, words: &str| done.to_text().contains(words);
    fleet.asked_until(0, &AdminRequest::Fleet {}, |done| !says(done, " away\n"));
    fleet.kill(1);
    talk.send(&mut fleet);
    fleet.asked_until(0, &AdminRequest::Fleet {}, |done| says(done, " away\n"));
    // With an empty folder under the old id it can promise nothing, and says so.
    fleet.start_without_disk(1);
    let done = fleet.asked_until(1, &AdminRequest::Status {}, |done| says(done, "with a new id and --join"));
    assert!(says(&done, "holds 0 of"), "{done:?}");
    talk.send(&mut fleet);
    fleet.kill(1);
    fleet.join();
    let fourth = fleet.as_fleet_node(3);
    fleet.change(|known| add_node(known, fourth.clone()));
    fleet.change(|known| remove_node(known, 2));
    talk.send_until(&mut fleet, "the dead node's end", |fleet| fleet.known().retired == [2]);
    assert_eq!(holds(&fleet, 4), SHARDS as usize);
    // Another one may die now.
    fleet.kill(0);
    (0..30).for_each(|_| talk.send(&mut fleet));
    talk.check(&mut fleet);
}

/// Whether each shard has a copy in every zone.
fn are_apart(fleet: &Fleet<'_>) -> bool {
    let known = fleet.known();
    known.shards.iter().all(|place| {
        let holds =
            |zone: &str| known.nodes.iter().any(|node| node.zone == zone && place.nodes.contains(&node.id));
        ZONES.iter().all(|zone| holds(zone))
    })
}

/// Node and zone of each row of a fleet as a person reads it.
fn zones_told(text: &str) -> Vec<[&str; 2]> {
    let rows = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let of_nodes = rows.filter(|row| row.first().is_some_and(|id| id.parse::<u32>().is_ok()));
    of_nodes.map(|row| [row[0], row[2]]).collect()
}

#[test]
fn copies_stay_in_different_zones_whoever_joins_and_is_replaced_and_a_zone_may_be_lost() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut fleet = Fleet::start_in_zones(folder.path(), SHARDS, &ZONES);
    let mut talk = Talk::begin(&mut fleet);
    (0..30).for_each(|_| talk.send(&mut fleet));
    fleet.join_in("a");
    let fourth = fleet.as_fleet_node(3);
    // Who is about to change the fleet is shown where each node stands.
    let plan = fleet.admin(0, &["add-node", "4", &fourth.address, "--zone", "a", "--dry-run"]);
    assert_eq!(zones_told(&plan), [["1", "a"], ["2", "b"], ["3", "c"], ["4", "a"]], "{plan}");
    fleet.change(|known| add_node(known, fourth.clone()));
    // Both nodes of the zone share what one of them had; what the others have stays where it is.
    talk.send_until(&mut fleet, "the new node's share", |fleet| {
        assert!(are_apart(fleet), "{:?}", fleet.known());
        has_settled(fleet) && holds(fleet, 4) == 2 && holds(fleet, 1) == 2
    });
    fleet.kill(2);
    fleet.join_in("c");
    let fifth = fleet.as_fleet_node(4);
    fleet.change(|known| add_node(known, fifth.clone()));
    fleet.change(|known| remove_node(known, 3));
    talk.send_until(&mut fleet, "the dead node's end", |fleet| {
        assert!(are_apart(fleet), "{:?}", fleet.known());
        fleet.known().retired == [3]
    });
    assert_eq!(holds(&fleet, 5), SHARDS as usize);
    // Half of the nodes go, and one copy of each shard.
    fleet.kill(0);
    fleet.kill(3);
    (0..30).for_each(|_| talk.send(&mut fleet));
    talk.check(&mut fleet);
}

#[test]
fn one_node_becomes_three_that_join_at_once() {
    become_three(|_, _| {});
}

/// Shards move to the second node, with one copy each, and have to come back to the first when the third is there: under
/// the leader that has seen them go.
#[test]
fn one_node_becomes_three_that_join_one_after_the_other() {
    become_three(|talk, fleet| {
        talk.send_until(fleet, "the second node's share", |fleet| has_settled(fleet) && holds(fleet, 2) > 0);
    });
}

fn become_three(after_each: impl Fn(&mut Talk, &mut Fleet<'_>)) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut fleet = Fleet::start_one(folder.path(), SHARDS);
    let mut talk = Talk::begin(&mut fleet);
    (0..30).for_each(|_| talk.send(&mut fleet));
    for place in [1, 2] {
        fleet.join();
        let node = fleet.as_fleet_node(place);
        fleet.change(|known| add_node(known, node.clone()));
        after_each(&mut talk, &mut fleet);
    }
    let is_whole = |fleet: &Fleet<'_>| {
        has_settled(fleet) && fleet.known().shards.iter().all(|place| place.nodes.len() == 3)
    };
    talk.send_until(&mut fleet, "three replicas", is_whole);
    fleet.kill(0);
    (0..30).for_each(|_| talk.send(&mut fleet));
    talk.check(&mut fleet);
}

/// A node dies at each place of taking over a shard and of giving one up, and goes on from there.
#[test]
fn whoever_dies_while_a_shard_moves_finds_it_as_it_should_be() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut fleet = start(folder.path());
    let mut talk = Talk::begin(&mut fleet);
    (0..30).for_each(|_| talk.send(&mut fleet));
    fleet.join();
    fleet.kill(3);
    let fourth = fleet.as_fleet_node(3);
    fleet.change(|known| add_node(known, fourth.clone()));
    for failpoint in ["snapshot-received", "snapshot-decided", "snapshot-installed"] {
        fleet.start_dying_at(3, failpoint);
    }
    fleet.start_node(3);
    talk.send_until(&mut fleet, "the new node's share", has_settled);
    // It is away while its shards go to others: it hears of that when it is back.
    fleet.kill(1);
    fleet.change(|known| remove_node(known, 2));
    talk.send_until(&mut fleet, "two moves", |fleet| holds(fleet, 2) <= 1);
    for failpoint in ["removal-decided", "removed"] {
        fleet.start_dying_at(1, failpoint);
    }
    fleet.start_node(1);
    talk.send_until(&mut fleet, "the second node's end", |fleet| fleet.known().retired == [2]);
    talk.check(&mut fleet);
}

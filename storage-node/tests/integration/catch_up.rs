//! Whoever waits for shards to move is told how far they are.

use crate::fleet::Fleet;
use crate::process::{PATIENCE, Patience};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use storage_node::admin::{AdminDone, AdminRequest, FleetStatus, call};
use storage_node::clock;
use storage_node::placement::moves::add_node;

const SHARDS: u32 = 4;
/// What the leader of a shard says of its replica on a node that is away.
const WAITS: &str = "node 4 waits for a snapshot";
/// What the others say.
const ELSEWHERE: &str = "leads it and knows how far it is";

/// What the first three nodes say of the moves of the fleet.
fn said(fleet: &Fleet<'_>) -> Vec<String> {
    let ask = |place| call(&fleet.data(place), &AdminRequest::Fleet {}, |_| {}).expect("the node answers");
    let texts = (0..3).map(|place| ask(place).to_text());
    texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// Whether of some shard one node says how far it is, and the two others who knows it.
fn is_known_at_its_leader(said: &[String]) -> bool {
    let of = |line: &String| line.split(':').next().unwrap_or_default().to_owned();
    let shards = said.iter().filter(|line| line.contains(WAITS)).map(of);
    let elsewhere = said.iter().filter(|line| line.contains(ELSEWHERE)).map(of).collect::<Vec<_>>();
    shards.into_iter().any(|shard| elsewhere.iter().filter(|other| **other == shard).count() == 2)
}

/// Somebody who waits until nothing moves: what the node tells, line by line, and what it answers in the end.
fn wait_for_moves(fleet: &Fleet<'_>) -> (Receiver<String>, JoinHandle<FleetStatus>) {
    let data = fleet.data(0);
    let (sender, lines) = channel();
    let waiting = std::thread::spawn(move || {
        let tell = |line| sender.send(line).expect("the test listens");
        match call(&data, &AdminRequest::WaitForMoves {}, tell).expect("the node answers") {
            AdminDone::Fleet(status) => status,
            other => panic!("{other:?}"),
        }
    });
    (lines, waiting)
}

#[test]
fn how_far_a_new_replica_is_its_leader_tells_and_the_others_say_who_that_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut fleet = Fleet::start(folder.path(), SHARDS, 3, |_| Vec::new());
    fleet.join();
    // The fleet is to get it, and it is away.
    fleet.kill(3);
    let fourth = fleet.as_fleet_node(3);
    fleet.change(|known| add_node(known, fourth.clone()));
    let (moves, epoch) = (fleet.known().moves.len(), fleet.known().epoch);
    assert!(moves > 1, "{:?}", fleet.known());
    let started = clock::now();
    while !is_known_at_its_leader(&said(&fleet)) {
        assert!(started.elapsed() < PATIENCE, "{:?}", said(&fleet));
        fleet.pump();
    }

    let started = clock::now();
    let (lines, waiting) = wait_for_moves(&fleet);
    let first = lines.recv_timeout(PATIENCE).expect("it tells at once");
    assert!(first.starts_with(&format!("0 of {moves} moves done; shard ")), "{first}");
    fleet.start_node(3);
    let mut patience = Patience::begin(epoch);
    while !waiting.is_finished() {
        assert!(!patience.is_over(fleet.known().epoch), "{:?}", fleet.known());
        fleet.pump();
    }
    let status = waiting.join().expect("it does not panic");
    assert!(status.moves.is_empty(), "{status:?}");
    // With each change of the fleet, and with each second.
    let lines: Vec<String> = lines.iter().collect();
    let lines_max = started.elapsed().as_secs() + 2 + (status.epoch - epoch);
    assert!(lines.len() as u64 <= lines_max, "{} lines, {lines_max} at most: {lines:?}", lines.len());
}

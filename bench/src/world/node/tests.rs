//! What a node may end for by itself.

use super::*;
use crate::workload::random::Random;
use crate::world::START_MS;
use crate::world::agenda::Agenda;
use crate::world::network::Network;

/// Its fleet is there, and begins with nobody being asked.
const SEED: u64 = 0;

fn outside() -> Outside {
    let network = Network::new(HOSTS.count());
    Outside { now_ms: START_MS, network, agenda: Agenda::default(), random: Random::new(SEED) }
}

/// A node that runs, with room for so many more bytes, or for any number, and then ends for this reason. Whether that is one.
fn may_end_for(room_bytes: Option<usize>, why: &str) -> bool {
    let (mut outside, mut node) = (outside(), NodeHost::new(0, 1, SEED));
    node.start(&mut outside);
    assert!(node.is_up() && !node.is_stopped() && node.failure.is_none(), "it runs");
    node.fill(room_bytes);
    node.failed(why.to_owned(), &mut outside);
    assert_ne!(node.is_stopped(), node.failure.is_some());
    node.is_stopped()
}

#[test]
fn a_full_disk_is_a_reason_to_end_and_no_excuse_for_others() {
    let no_room = format!("log in /data/log: write /data/log/1: {FULL_ERROR} (no room)");
    assert!(may_end_for(Some(0), &no_room));
    assert!(!may_end_for(None, &no_room), "there is room");
    for other in ["proposal dropped", "an entry of the log is missing", SYNC_ERROR] {
        assert!(!may_end_for(Some(0), other), "{other}");
    }
}

#[test]
fn a_node_without_room_says_so_when_it_is_started() {
    let (mut outside, mut node) = (outside(), NodeHost::new(0, 1, SEED));
    node.fill(Some(0));
    node.start(&mut outside);
    assert!(node.is_stopped() && !node.is_up(), "it has no room for its first file");
    assert_eq!(node.failure, None);
}

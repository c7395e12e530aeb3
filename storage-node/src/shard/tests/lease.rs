//! Reads that a leader answers by its lease, and those it does not.

use super::*;
use crate::shard::{HAND_OVER_SETTLE_MS, LEASE_MS};
use wire_protocol::internal::ReadConversation;

fn leading(folder: &tempfile::TempDir) -> Rig {
    with_people(Rig::leading(folder.path(), &[2, 3]))
}

fn page() -> Operation {
    ask(query::Kind::ReadConversation(ReadConversation {
        conversation_id: rig::room().to_bytes(),
        user_id: ADA.to_bytes(),
        device_id: PHONE.to_bytes(),
        ..ReadConversation::default()
    }))
}

fn account() -> Operation {
    ask(query::Kind::ReadUser(ReadUser { user_id: ADA.to_bytes() }))
}

/// The first read asks, and its answer is the lease. Gives when it was asked.
fn with_lease(rig: &mut Rig) -> u64 {
    // Whatever lease there was is over.
    rig.now_ms += LEASE_MS;
    rig.settle();
    rig.send(link(1), page());
    rig.settle();
    assert_eq!(rig.queries(), 1);
    rig.now_ms
}

#[test]
fn within_the_lease_nobody_is_asked_and_behind_it_everybody() {
    let folder = folder();
    let mut rig = leading(&folder);
    let asked_ms = with_lease(&mut rig);
    rig.lose_copies();
    rig.now_ms = asked_ms + LEASE_MS - 1;
    rig.send(link(1), page());
    rig.settle();
    assert_eq!(rig.queries(), 1, "at once");
    rig.now_ms = asked_ms + LEASE_MS;
    rig.send(link(1), page());
    rig.settle();
    assert_eq!(rig.queries(), 0, "nobody says that it still leads");
}

#[test]
fn a_lease_that_is_used_is_renewed_meanwhile() {
    let folder = folder();
    let mut rig = leading(&folder);
    let asked_ms = with_lease(&mut rig);
    rig.now_ms = asked_ms + LEASE_MS / 2;
    rig.send(link(1), page());
    rig.settle();
    rig.lose_copies();
    rig.now_ms = asked_ms + LEASE_MS + LEASE_MS / 2 - 1;
    rig.send(link(1), page());
    rig.settle();
    assert_eq!(rig.queries(), 2);
}

#[test]
fn who_is_let_in_is_read_after_a_question() {
    let folder = folder();
    let mut rig = leading(&folder);
    with_lease(&mut rig);
    rig.lose_copies();
    rig.send(link(1), account());
    rig.send(link(1), attach(1));
    rig.settle();
    assert_eq!((rig.queries(), rig.look_ups()), (0, vec![]));
}

#[test]
fn a_leader_that_offered_its_place_has_no_lease_until_another_term() {
    let folder = folder();
    let mut rig = leading(&folder);
    with_lease(&mut rig);
    rig.shard.hand_over(rig.now_ms, 2);
    // Node 2 hears of it at any time.
    rig.now_ms += HAND_OVER_SETTLE_MS;
    rig.settle();
    rig.send(link(1), page());
    rig.settle();
    assert_eq!(rig.queries(), 1, "by a question");
    rig.lose_copies();
    rig.send(link(1), page());
    rig.settle();
    assert_eq!(rig.queries(), 0);
}

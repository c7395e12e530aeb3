//! Each checker finds what it is for, and passes what is well.

use super::check;
use crate::world::history::{Cursors, Event, History, NOBODYS, Seen, Voters};
use wire_protocol::v1::Durability;

fn entry(seq: u64, message: usize) -> Seen {
    Seen { seq, time_ms: 10 * seq, message: Some(message) }
}

fn acked(message: usize, seq: u64) -> Event {
    said_to_be(Durability::Quorum, 0, message, seq)
}

fn said_to_be(durability: Durability, begun: usize, message: usize, seq: u64) -> Event {
    Event::Acked { begun, message, room: 0, seq, time_ms: 10 * seq, durability }
}

fn read(begun: usize, head: u64) -> Event {
    Event::Read { begun, device: 1, room: 0, after: head, head, entries: Vec::new() }
}

fn synced(device: usize, entries: &[Seen]) -> Event {
    let head = entries.last().map_or(0, |last| last.seq);
    Event::Synced { device, room: 0, head, entries: entries.to_vec() }
}

fn whole(device: usize, entries: &[Seen]) -> Event {
    Event::Whole { device, room: 0, entries: entries.to_vec() }
}

/// Two devices in a room of two messages, both of which are told and read by both.
fn good() -> Vec<Event> {
    let both = [entry(1, 7), entry(2, 8)];
    vec![
        acked(7, 1),
        read(1, 1),
        acked(8, 2),
        acked(7, 1),
        read(4, 2),
        synced(0, &both),
        synced(1, &both),
        whole(0, &both),
        whole(1, &both),
    ]
}

fn judged(events: Vec<Event>) -> &'static str {
    let history = History { events, rooms: vec![vec![0, 1]], ..History::default() };
    check(&history).map_or_else(|broken| broken.promise, |()| "kept")
}

fn with(place: usize, event: Event) -> Vec<Event> {
    let mut events = good();
    events[place] = event;
    events
}

#[test]
fn a_good_history_is_good() {
    assert_eq!(judged(good()), "kept");
}

#[test]
fn each_checker_finds_its_own() {
    let both = [entry(1, 7), entry(2, 8)];
    let durability = Durability::Quorum;
    let early = Event::Acked { begun: 0, message: 8, room: 0, seq: 2, time_ms: 5, durability };
    let strange = Event::Live { device: 2, room: 0, entry: both[0] };
    let sent = |room| Event::Sent { message: 7, device: 0, room };
    assert_eq!(judged([sent(0)].into_iter().chain(good()).collect()), "kept");
    for (promise, events) in [
        ("durable", with(8, whole(1, &both[..1]))),
        ("durable", with(5, Event::Live { device: 0, room: 0, entry: entry(3, NOBODYS) })),
        ("durable", [sent(1)].into_iter().chain(good()).collect()),
        ("order", with(8, whole(1, &both[1..]))),
        ("order", with(5, synced(0, &[entry(1, 8)]))),
        ("order", with(2, early)),
        ("repeat", with(3, acked(7, 3))),
        ("fresh", with(4, read(4, 1))),
        ("feed", with(6, synced(1, &both[..1]))),
        ("feed", with(6, read(6, 2))),
        ("feed", good().into_iter().chain([strange]).collect()),
        ("heals", with(4, Event::Refused { device: 1, what: "no".into() })),
    ] {
        assert_eq!(judged(events.clone()), promise, "{events:#?}");
    }
    let unsettled = vec!["message 7 has no answer".to_owned()];
    let history = History { events: good(), rooms: vec![vec![0, 1]], unsettled, ..History::default() };
    assert_eq!(check(&history).map_err(|broken| broken.promise), Err("heals"));
}

#[test]
fn two_leaders_of_one_term_are_found_and_copies_that_differ() {
    let leaders = [((0, 3), [1].into()), ((0, 4), [0, 1].into())].into();
    let history = History { events: good(), rooms: vec![vec![0, 1]], leaders, ..History::default() };
    assert_eq!(check(&history).map_err(|broken| broken.promise), Err("elections"));
    let differing = vec!["hosts 0 and 1".to_owned()];
    let history = History { events: good(), rooms: vec![vec![0, 1]], differing, ..History::default() };
    assert_eq!(check(&history).map_err(|broken| broken.promise), Err("copies"));
}

#[test]
fn an_acknowledgement_says_of_copies_what_is_true() {
    use Durability::{Quorum, QuorumOfZones, Synced};
    let (apart, near) = (["a", "b", "c"], ["a", "b", "b"]);
    // `at`: behind the acknowledgements that are good whatever zones there are.
    let of_shard = |shard, at: usize, host, zones: [&'static str; 3], has_changed| {
        assert!(at > 3);
        Voters { at, host, shard, zones: zones.to_vec(), has_changed }
    };
    let voters = |at, host, zones, has_changed| of_shard(0, at, host, zones, has_changed);
    let first = |zones| voters(4, 0, zones, false);
    let judged = |known: &[Voters], begun, durability| {
        let mut events = good();
        events.push(said_to_be(durability, begun, 8, 2));
        let (rooms, shards, voters) = (vec![vec![0, 1]], vec![0], known.to_vec());
        let history = History { events, rooms, shards, voters, ..History::default() };
        check(&history).map_or_else(|broken| broken.promise, |()| "kept")
    };
    let came_near = [first(apart), voters(6, 0, near, true)];
    let one_knows_better = [first(apart), voters(4, 1, apart, false), voters(5, 0, near, true)];
    let came_apart = [first(near), voters(8, 0, apart, true)];
    for (known, begun, durability) in [
        (&[first(apart)][..], 7, QuorumOfZones),
        (&[first(near)], 7, Quorum),
        (&[first(["", "", ""])], 7, Quorum),
        (&[of_shard(1, 4, 0, apart, false)], 7, Quorum),
        (&came_near, 5, QuorumOfZones),
        (&came_near, 5, Quorum),
        (&came_near, 7, Quorum),
        (&one_knows_better, 7, QuorumOfZones),
        (&came_apart, 7, QuorumOfZones),
        // The fleet has not heard of it yet.
        (&came_apart, 9, Quorum),
    ] {
        assert_eq!(judged(known, begun, durability), "kept", "{known:?}, {begun}, {durability:?}");
    }
    for (known, begun, durability) in [
        (&[first(apart)][..], 7, Synced),
        (&[first(near)], 7, Synced),
        (&[first(apart)], 7, Quorum),
        (&[first(near)], 7, QuorumOfZones),
        (&[first(["a", "b", ""])], 7, QuorumOfZones),
        (&[of_shard(1, 4, 0, apart, false)], 7, QuorumOfZones),
        (&[], 7, QuorumOfZones),
        (&came_near, 7, QuorumOfZones),
        (&[first(near), voters(10, 0, apart, true)], 7, QuorumOfZones),
    ] {
        assert_eq!(judged(known, begun, durability), "durable", "{known:?}, {begun}, {durability:?}");
    }
}

#[test]
fn a_message_comes_after_what_was_known_when_it_was_written() {
    let sent = Event::Sent { message: 8, device: 0, room: 0 };
    let mut events = good();
    events.insert(2, sent.clone());
    assert_eq!(judged(events), "kept");
    // Entry 2 is known before message 8 is written, which then turns out to be that entry.
    let mut events = good();
    events.splice(2..2, [Event::Synced { device: 0, room: 0, head: 2, entries: Vec::new() }, sent]);
    assert_eq!(judged(events), "fresh");
}

#[test]
fn what_one_device_wrote_in_a_room_keeps_its_order() {
    let judged_after = |sent: [(usize, usize, usize); 2]| {
        let sent = sent.map(|(message, device, room)| Event::Sent { message, device, room });
        judged(sent.into_iter().chain(good()).collect())
    };
    assert_eq!(judged_after([(7, 0, 0), (8, 0, 0)]), "kept");
    assert_eq!(judged_after([(8, 0, 0), (7, 0, 0)]), "order");
    // Others may write meanwhile; and so may it elsewhere.
    assert_eq!(judged_after([(8, 0, 0), (7, 1, 0)]), "kept");
    assert_eq!(judged_after([(8, 0, 0), (9, 0, 0)]), "kept", "what never arrived has no place");
}

#[test]
fn a_page_has_what_it_says_that_there_is() {
    let page = |after: u64, head: u64, entries: &[Seen]| {
        with(4, Event::Read { begun: 4, device: 1, room: 0, after, head, entries: entries.to_vec() })
    };
    let both = [entry(1, 7), entry(2, 8)];
    for (after, entries) in [(0, &both[..]), (0, &both[1..]), (1, &both[1..]), (2, &[])] {
        assert_eq!(judged(page(after, 2, entries)), "kept", "{after} {entries:?}");
    }
    for (after, entries) in [(0, &both[..1]), (0, &[]), (1, &[])] {
        assert_eq!(judged(page(after, 2, entries)), "fresh", "{after} {entries:?}");
    }
}

#[test]
fn cursors_that_fall_or_were_never_there_are_found() {
    let at = |delivered, read| Cursors { delivered, read };
    let advanced = |seq| Event::Advanced { user: 0, room: 0, to: at(seq, seq) };
    let kept = |seq| Event::Kept { user: 0, room: 0, to: at(seq, seq) };
    let receipt =
        |delivered, read| Event::Receipt { device: 1, room: 0, user: 0, cursors: at(delivered, read) };
    let first = good().len();
    // `after`: of the events behind the good ones those that had happened when it was asked for.
    let members = |after: usize, delivered, read| Event::Members {
        begun: first + after,
        device: 1,
        room: 0,
        members: vec![(0, at(delivered, read))],
    };
    let judged_behind = |events: &[Event]| judged(good().into_iter().chain(events.to_vec()).collect());
    for events in [
        &[advanced(2), kept(2), members(2, 2, 2)][..],
        &[advanced(2), kept(2), advanced(1), kept(1), members(4, 2, 2)],
        // It was under way when the cursor was acknowledged; it is an old event.
        &[advanced(2), kept(2), members(1, 0, 0)],
        &[advanced(2), kept(2), receipt(1, 1)],
        &[advanced(2), members(1, 2, 1), members(2, 2, 2)],
    ] {
        assert_eq!(judged_behind(events), "kept", "{events:#?}");
    }
    for events in [
        &[advanced(2), kept(2), members(2, 2, 1)][..],
        &[advanced(2), kept(2), members(2, 1, 1)],
        &[advanced(2), members(1, 2, 2), members(2, 2, 1)],
        &[advanced(2), receipt(2, 2), members(2, 0, 0)],
        &[advanced(1), members(1, 2, 1)],
        &[advanced(1), receipt(2, 1)],
        &[advanced(2), members(1, 1, 2)],
    ] {
        assert_eq!(judged_behind(events), "cursors", "{events:#?}");
    }
}

#[test]
fn a_read_that_was_under_way_may_miss_what_came_meanwhile() {
    assert_eq!(judged(with(4, read(1, 1))), "kept");
}

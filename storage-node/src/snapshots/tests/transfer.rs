//! Parts on their way.

use super::super::incoming::{Incoming, Refusal, Taken, progress};
use super::super::outgoing::{Answered, Step};
use super::super::{PART_AGAIN_MS, PART_BYTES, PART_MS_MAX};
use super::*;
use crate::sim::Random;
use prost::Message;
use std::path::PathBuf;
use wire_protocol::internal::{SnapshotPart, SnapshotRow};

const SHARD: ShardId = ShardId(2);

/// Everything a snapshot consists of.
fn parts(log: &Log, store: &MemoryStore) -> Vec<SnapshotPart> {
    let mut outgoing = outgoing(store, SHARD);
    let (mut parts, mut now_ms) = (Vec::new(), 0);
    loop {
        match outgoing.step(now_ms, log) {
            Step::Wait(until_ms) => now_ms = until_ms,
            Step::Send(part) => {
                let mut receiver = wire_protocol::internal::SnapshotProgress {
                    shard: SHARD.0,
                    from: 2,
                    to: 1,
                    term: TERM,
                    index: INDEX,
                    next: part.number + 1,
                    refused: false,
                };
                receiver.next = part.number + 1;
                parts.push(*part);
                if outgoing.take(&receiver) == Answered::Arrived {
                    return parts;
                }
            }
            Step::GiveUp(reason) => panic!("{reason}"),
        }
    }
}

struct World {
    folder: tempfile::TempDir,
    log: Log,
    store: MemoryStore,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let log = leader_log(&folder.path().join("log"), SHARD);
        let store = MemoryStore::new();
        fill(&store, SHARD, 0..600, INDEX);
        Self { folder, log, store }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("snapshot")
    }

    fn begin(&self, part: &SnapshotPart) -> Incoming {
        Incoming::begin(&Disk::Real, &self.path(), SHARDS, part, 0).expect("it begins")
    }
}

#[test]
fn a_snapshot_is_sent_in_bounded_parts_and_is_the_whole_shard() {
    let world = World::new();
    let parts = parts(&world.log, &world.store);
    assert!(parts.len() > 5, "{}", parts.len());
    let entries: Vec<u64> = parts.iter().flat_map(|part| &part.entries).map(|entry| entry.index).collect();
    assert_eq!(entries, (FEED_CUT..=INDEX).collect::<Vec<_>>());
    let rows = parts.iter().flat_map(|part| part.rows.clone());
    let rows: Vec<(Vec<u8>, Bytes)> = rows.map(|row| (row.key.to_vec(), row.value)).collect();
    assert_eq!(rows, rows_of(&world.store, SHARD));
    let bytes = |part: &SnapshotPart| part.rows.iter().map(|row| row.value.len()).sum::<usize>();
    assert!(parts.iter().all(|part| bytes(part) < PART_BYTES + 10_000));
    let mut incoming = world.begin(&parts[0]);
    let last = parts.len() - 1;
    for (number, part) in parts.into_iter().enumerate() {
        match incoming.take(0, part).expect("it fits") {
            Taken::Whole(told) => assert_eq!((*told, number), (message(SHARD), last)),
            taken => assert_eq!((taken, number < last), (Taken::Part, true)),
        }
    }
}

#[test]
fn how_far_it_is_goes_from_nothing_to_all_with_its_parts() {
    let world = World::new();
    let mut outgoing = outgoing(&world.store, SHARD);
    let (mut now_ms, mut bytes, mut percents) = (0, 0, vec![outgoing.sent().percent]);
    loop {
        match outgoing.step(now_ms, &world.log) {
            Step::Wait(until_ms) => now_ms = until_ms,
            Step::Send(part) => {
                bytes += part.encoded_len() as u64;
                let sent = outgoing.sent();
                assert_eq!((sent.shard, sent.node, sent.bytes), (SHARD, 2, bytes), "part {}", part.number);
                percents.push(sent.percent);
                // Sent again it counts once.
                assert!(matches!(outgoing.step(now_ms + PART_AGAIN_MS, &world.log), Step::Send(_)));
                assert_eq!(outgoing.sent().bytes, bytes);
                let answer = progress(2, SHARD, (1, TERM, INDEX), part.number + 1, false);
                if outgoing.take(&answer) == Answered::Arrived {
                    break;
                }
            }
            Step::GiveUp(reason) => panic!("{reason}"),
        }
    }
    assert!(percents.is_sorted(), "{percents:?}");
    assert_eq!((percents.first(), percents.last()), (Some(&0), Some(&100)));
    assert!(percents.iter().filter(|percent| (1..100).contains(*percent)).count() > 2, "{percents:?}");
}

#[test]
fn parts_and_answers_may_be_lost_doubled_and_late() {
    let world = World::new();
    for seed in 0..20 {
        let mut random = Random::new(seed);
        let mut outgoing = outgoing(&world.store, SHARD);
        let mut incoming: Option<Incoming> = None;
        let (mut now_ms, mut late, mut answers) = (0, Vec::<SnapshotPart>::new(), Vec::new());
        let arrived = loop {
            match outgoing.step(now_ms, &world.log) {
                Step::Wait(until_ms) => now_ms = until_ms.min(now_ms + PART_AGAIN_MS / 3),
                Step::Send(part) => late.push(*part),
                Step::GiveUp(reason) => panic!("seed {seed}: {reason}"),
            }
            if !late.is_empty() && !random.one_in(3) {
                let place = random.below(late.len());
                let part = if random.one_in(4) { late[place].clone() } else { late.swap_remove(place) };
                let incoming = incoming.get_or_insert_with(|| world.begin(&part));
                incoming.take(now_ms, part).expect("it fits");
                answers.push(incoming.progress(2));
            }
            if !answers.is_empty() && !random.one_in(3) {
                let answer = answers.swap_remove(random.below(answers.len()));
                if outgoing.take(&answer) == Answered::Arrived {
                    break true;
                }
            }
            if random.one_in(10) {
                late.pop();
                answers.pop();
            }
        };
        assert!(arrived && incoming.is_some_and(|incoming| incoming.is_whole()), "seed {seed}");
    }
}

#[test]
fn a_receiver_that_is_silent_or_has_lost_its_beginning_is_given_up() {
    let world = World::new();
    let mut silent = outgoing(&world.store, SHARD);
    let Step::Send(first) = silent.step(0, &world.log) else { panic!("it begins") };
    let Step::Send(again) = silent.step(PART_AGAIN_MS, &world.log) else { panic!("it begins") };
    assert_eq!(first, again);
    assert!(matches!(silent.step(PART_MS_MAX, &world.log), Step::GiveUp(_)));

    let mut outgoing = outgoing(&world.store, SHARD);
    let mut incoming = world.begin(&first);
    for now_ms in [0, 1_000] {
        let Step::Send(part) = outgoing.step(now_ms, &world.log) else { panic!("it goes on") };
        if now_ms == 0 {
            incoming.take(0, *part).expect("it fits");
            assert_eq!(outgoing.take(&incoming.progress(2)), Answered::GoesOn);
        }
    }
    let anew = world.begin(&first);
    assert_eq!(outgoing.take(&anew.progress(2)), Answered::Refused);
}

#[test]
fn what_is_no_part_of_the_snapshot_is_refused() {
    let world = World::new();
    let whole = parts(&world.log, &world.store);
    type Damage = fn(&mut Vec<SnapshotPart>);
    let sign = |parts: &mut Vec<SnapshotPart>| {
        let mut before = 0;
        for part in parts {
            part.checksum = super::super::checksum::of(part, before);
            before = part.checksum;
        }
    };
    // A flipped bit, and then parts that are signed as they are and still none of a snapshot.
    let unsigned: [Damage; 2] = [
        |parts| parts[2].rows[0].value = Bytes::from_static(b"other"),
        |parts| {
            let rows = parts[2].rows.clone();
            parts[3].rows = rows;
        },
    ];
    let signed: [(&str, Damage); 7] = [
        ("rows that are not in order", |parts| parts[2].rows.swap(0, 1)),
        ("a row of another shard", |parts| {
            let key = keys::feed_position(ShardId(3), SHARD).to_vec().into();
            parts.last_mut().unwrap().rows.push(SnapshotRow { key, value: Bytes::new() });
        }),
        ("entries that do not follow", |parts| drop(parts[0].entries.remove(1))),
        ("rows before the last entry", |parts| drop(parts[0].entries.pop())),
        ("in the first part alone", |parts| parts[1].message = Some(message(SHARD))),
        ("of another snapshot", |parts| parts[0].message.as_mut().unwrap().term = TERM + 1),
        ("how far it is applied", |parts| {
            let applied = keys::applied(SHARD);
            parts.iter_mut().for_each(|part| part.rows.retain(|row| row.key != applied.as_slice()));
        }),
    ];
    let refusal = |parts: Vec<SnapshotPart>| {
        let mut incoming = world.begin(&parts[0]);
        parts.into_iter().find_map(|part| incoming.take(0, part).err()).expect("it is found").to_string()
    };
    for damage in unsigned {
        let mut parts = whole.clone();
        damage(&mut parts);
        assert!(refusal(parts).contains("checksum"));
    }
    for (what, damage) in signed {
        let mut parts = whole.clone();
        damage(&mut parts);
        sign(&mut parts);
        let refusal = refusal(parts);
        assert!(refusal.contains(what) && refusal.contains("node 1"), "{what}: {refusal}");
    }
}

#[test]
fn a_disk_that_takes_nothing_names_the_file() {
    let world = World::new();
    let part = parts(&world.log, &world.store).remove(0);
    let nowhere = world.folder.path().join("missing/snapshot");
    let refusal = Incoming::begin(&Disk::Real, &nowhere, SHARDS, &part, 0).expect_err("refused");
    assert!(matches!(&refusal, Refusal::Disk { file, .. } if *file == nowhere), "{refusal}");
}

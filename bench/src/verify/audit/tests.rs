//! Faults planted one at a time: each is found, and nothing else is.

use super::*;
use wire_protocol::v1::EntryKind;

/// Newest entry before the check; what stands there must not confuse it.
const HEAD: u64 = 100;
/// Ada's devices, then Bob's. Ada's ordinal is 0, Bob's is 1.
const DEVICES: [DeviceIndex; 4] = [DeviceIndex(0), DeviceIndex(1), DeviceIndex(2), DeviceIndex(3)];
const USERS: [UserIndex; 2] = [UserIndex(0), UserIndex(1)];

/// What every place is given, to be spoiled.
struct Cluster {
    audit: Audit,
    room: RoomIndex,
    stored: Vec<Entry>,
    devices: [Vec<Entry>; 4],
    histories: [Vec<Entry>; 2],
}

fn ordinal(device: DeviceIndex) -> u32 {
    device.0 / 2
}

impl Cluster {
    /// Each device sends three messages; somebody else's stands after each fourth.
    fn new() -> Self {
        let mut audit = Audit::new(7);
        let members = DEVICES.iter().map(|device| (*device, ordinal(*device))).collect();
        let room = audit.open(Opened { name: "direct".into(), head_seq: HEAD, members });
        let mut cluster = Self {
            audit,
            room,
            stored: Vec::new(),
            devices: Default::default(),
            histories: Default::default(),
        };
        for number in 1..=3 {
            for device in DEVICES {
                let message = MessageKey { sender: device, number };
                cluster.audit.sent(room, message).expect("room");
                let entry = cluster.store(ordinal(device), cluster.audit.body(message));
                cluster.audit.accepted(room, message, Answer { seq: entry.seq, time_ms: entry.time_ms });
            }
            cluster.store(2, bytes::Bytes::from(format!("somebody else's {number}")));
        }
        cluster.devices = std::array::from_fn(|_| cluster.stored.clone());
        cluster.histories = std::array::from_fn(|_| cluster.stored.clone());
        cluster
    }

    fn store(&mut self, sender: u32, body: bytes::Bytes) -> Entry {
        let seq = HEAD + 1 + self.stored.len() as u64;
        let kind = EntryKind::Text as i32;
        let entry = Entry { seq, sender, time_ms: 1_000 + seq, kind, body };
        self.stored.push(entry.clone());
        entry
    }

    fn key(&self, place: usize) -> MessageKey {
        MessageKey::from(text::read(&self.stored[place].body, 7).expect("one of ours"))
    }

    fn balance(mut self) -> RoomBalance {
        let old = Entry { seq: HEAD, ..Entry::default() };
        for (device, entries) in DEVICES.into_iter().zip(&self.devices) {
            for entry in [&old].into_iter().chain(entries) {
                self.audit.received(self.room, device, entry).expect("room");
            }
        }
        self.audit.close(self.room, HEAD + self.stored.len() as u64);
        for (user, entries) in USERS.into_iter().zip(&self.histories) {
            self.audit.begins_to_read(self.room, user);
            for entry in entries {
                self.audit.read(self.room, user, entry).expect("room");
            }
        }
        self.audit.balance().remove(0)
    }

    /// The same fault in the store: every place sees it.
    fn everywhere(&mut self, spoil: impl Fn(&mut Vec<Entry>)) {
        self.devices.iter_mut().chain(&mut self.histories).for_each(spoil);
    }
}

/// Counts of a cluster in which `spoil` had its way: lost, doubled, reordered, altered, gaps, differing.
fn faults(spoil: impl FnOnce(&mut Cluster)) -> ([u64; 6], String) {
    let mut cluster = Cluster::new();
    spoil(&mut cluster);
    let found = cluster.balance();
    let counts = [found.lost, found.doubled, found.reordered, found.altered, found.gaps, found.differing];
    assert_eq!(found.is_balanced(), counts == [0; 6], "{found:?}");
    assert_eq!(found.is_balanced(), found.examples.is_empty(), "{found:?}");
    (counts, found.examples.join("\n"))
}

#[test]
fn a_true_account_balances_with_other_peoples_messages_in_between() {
    let found = Cluster::new().balance();
    assert!(found.is_balanced(), "{found:?}");
    assert_eq!((found.acknowledged, found.unacknowledged, found.others), (12, 0, 3));
    assert_eq!((found.from_seq, found.to_seq), (HEAD + 1, HEAD + 15));
    // 12 messages on 3 devices that did not send them, and in one history.
    assert_eq!(found.checked, 12 * 3 + 12);
    assert!(faults(|_| {}).1.is_empty());
}

#[test]
fn a_dropped_message_is_found_on_a_device_and_in_history() {
    let (on_device, words) = faults(|cluster| drop(cluster.devices[2].remove(0)));
    assert_eq!(on_device, [1, 0, 0, 0, 1, 0], "{words}");
    assert!(words.contains("device 2") && words.contains("nothing at 101"), "{words}");
    // The last one: no later number shows the gap.
    assert_eq!(faults(|cluster| drop(cluster.devices[2].remove(13))).0, [1, 0, 0, 0, 1, 0]);
    let (own, words) = faults(|cluster| drop(cluster.devices[0].remove(0)));
    assert_eq!(own, [0, 0, 0, 0, 1, 0], "also what a device sent itself: {words}");
    for user in USERS {
        let lost = u64::from(user.0 == 0);
        let (in_history, words) = faults(|cluster| drop(cluster.histories[user.0 as usize].remove(5)));
        assert_eq!(in_history, [lost, 0, 0, 0, 1, 0], "{words}");
        assert!(words.contains(&format!("account {}", user.0)), "{words}");
    }
    let empty = faults(|cluster| cluster.histories[1].clear());
    assert_eq!(empty.0, [0, 0, 0, 0, 15, 0], "{}", empty.1);
    let empty = faults(|cluster| cluster.histories[0].clear());
    assert_eq!(empty.0, [12, 0, 0, 0, 15, 0], "{}", empty.1);
}

#[test]
fn somebody_elses_dropped_message_is_a_gap() {
    assert_eq!(faults(|cluster| drop(cluster.devices[3].remove(4))).0, [0, 0, 0, 0, 1, 0]);
}

#[test]
fn a_message_that_was_stored_twice_is_found() {
    let (found, words) = faults(|cluster| {
        let doubled = cluster.stored[1].clone();
        let again = cluster.store(doubled.sender, doubled.body);
        cluster.everywhere(|entries| entries.push(again.clone()));
    });
    // On each device but its own... and there, too: the sender must not see it twice either; and in history.
    assert_eq!(found[1], 5, "{words}");
    assert!(words.contains("is there 2 times"), "{words}");
}

#[test]
fn a_repeated_push_is_no_fault() {
    assert_eq!(faults(|cluster| cluster.devices[1].push(cluster.stored[6].clone())).0, [0; 6]);
}

#[test]
fn swapped_messages_are_found() {
    let swap = |entries: &mut Vec<Entry>| {
        let (first, second) = (entries[0].body.clone(), entries[1].body.clone());
        (entries[0].body, entries[1].body) = (second, first);
    };
    let (on_one, words) = faults(|cluster| swap(&mut cluster.devices[3]));
    assert_eq!((on_one[3], on_one[5]), (2, 2), "{words}");
    // Everywhere alike: only the acknowledgements tell.
    let (everywhere, words) = faults(|cluster| cluster.everywhere(swap));
    assert!(everywhere[3] > 0 && everywhere[5] == 0, "{everywhere:?} {words}");
    // Arriving in another order is none: numbers tell it.
    assert_eq!(faults(|cluster| cluster.devices[2].swap(2, 9)).0, [0; 6]);
}

#[test]
fn an_altered_body_is_found() {
    let flip = |entry: &mut Entry| {
        let mut body = entry.body.to_vec();
        let end = body.len() - 10;
        body[end] = if body[end] == b'A' { b'B' } else { b'A' };
        entry.body = body.into();
    };
    let (filling, words) = faults(|cluster| flip(&mut cluster.devices[3][0]));
    assert_eq!((filling[3], filling[5]), (1, 1), "{words}");
    assert!(words.contains("another body"), "{words}");
    let (everywhere, words) = faults(|cluster| cluster.everywhere(|entries| flip(&mut entries[0])));
    assert_eq!((everywhere[3], everywhere[5]), (6, 0), "{words}");
    // Beyond recognition it is somebody else's, and ours is missing.
    let (lost, words) = faults(|cluster| cluster.devices[3][0].body = bytes::Bytes::from_static(b"rubbish"));
    assert_eq!((lost[0], lost[5]), (1, 1), "{words}");
    let (foreign, words) =
        faults(|cluster| cluster.devices[3][4].body = bytes::Bytes::from_static(b"rubbish"));
    assert_eq!(foreign, [0, 0, 0, 0, 0, 1], "{words}");
}

#[test]
fn a_wrong_sender_and_a_wrong_time_are_found() {
    let (sender, words) = faults(|cluster| cluster.everywhere(|entries| entries[0].sender = 1));
    assert_eq!((sender[3], sender[5]), (6, 0), "{words}");
    let (time, words) = faults(|cluster| cluster.everywhere(|entries| entries[0].time_ms += 1));
    assert_eq!((time[3], time[5]), (2, 0), "once for each reader: {words}");
}

#[test]
fn a_repeat_must_get_its_first_answer() {
    let first = Answer { seq: HEAD + 1, time_ms: 1_000 + HEAD + 1 };
    let again = |answer: Answer| {
        faults(move |cluster| {
            let message = cluster.key(0);
            cluster.audit.accepted(cluster.room, message, answer);
        })
    };
    assert_eq!(again(first).0, [0; 6]);
    assert!(again(Answer { seq: HEAD + 2, ..first }).0[3] > 0);
    assert_eq!(again(Answer { time_ms: 1, ..first }).0[3], 1);
}

#[test]
fn a_later_message_in_an_earlier_place_is_found() {
    let (found, words) = faults(|cluster| {
        let late = MessageKey { sender: DEVICES[0], number: 4 };
        cluster.audit.sent(cluster.room, late).expect("room");
        cluster.audit.accepted(cluster.room, late, Answer { seq: HEAD + 1, time_ms: 1_101 });
    });
    assert_eq!(found[2], 1, "{words}");
}

#[test]
fn what_was_not_acknowledged_may_be_there_once_or_not_at_all() {
    let unknown = MessageKey { sender: DEVICES[0], number: 4 };
    let with = |times: usize| {
        faults(move |cluster| {
            cluster.audit.sent(cluster.room, unknown).expect("room");
            for _ in 0..times {
                let entry = cluster.store(0, cluster.audit.body(unknown));
                cluster.everywhere(|entries| entries.push(entry.clone()));
            }
        })
    };
    assert_eq!((with(0).0, with(1).0), ([0; 6], [0; 6]));
    assert_eq!(with(2).0[1], 5);
}

#[test]
fn a_head_behind_what_was_acknowledged_is_found() {
    let mut cluster = Cluster::new();
    cluster.audit.close(cluster.room, HEAD + 3);
    let found = cluster.balance();
    assert_eq!(found.lost, 1, "{found:?}");
}

#[test]
fn a_message_that_nobody_sent_is_found() {
    let (found, words) = faults(|cluster| {
        let invented = MessageKey { sender: DEVICES[0], number: 9 };
        let entry = cluster.store(0, cluster.audit.body(invented));
        cluster.everywhere(|entries| entries.push(entry.clone()));
    });
    assert_eq!(found[3], 5, "{words}");
    assert!(words.contains("was never sent"), "{words}");
}

#[test]
fn devices_tell_how_far_they_are_whole() {
    let mut cluster = Cluster::new();
    let (room, first, third) = (cluster.room, cluster.stored[0].clone(), cluster.stored[2].clone());
    cluster.audit.received(room, DEVICES[1], &third).expect("room");
    assert_eq!(cluster.audit.complete_to(room, DEVICES[1]), HEAD);
    cluster.audit.received(room, DEVICES[1], &first).expect("room");
    assert_eq!(cluster.audit.complete_to(room, DEVICES[1]), HEAD + 1);
    assert_eq!(cluster.audit.window(room), (HEAD, HEAD + 14), "what was acknowledged last");
    assert_eq!(cluster.audit.sent_count(), 12);
}

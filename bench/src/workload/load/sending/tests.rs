//! The order of a device's messages: step by step, and against a server that refuses, loses and takes over at random.

use super::super::machine::RETRY_US;
use super::super::operations::Operation;
use super::super::{Action, DeviceEvent, Targets, Workload};
use super::*;
use crate::agent::protocol::{ProtocolEvent, Request};
use crate::workload::ledger::MessageKey;
use crate::workload::plan::{ActionName, Plan};
use crate::workload::population::Share;
use crate::workload::random::Random;
use std::collections::{HashMap, VecDeque};
use std::path::Path;

const DEVICE: DeviceIndex = DeviceIndex(0);
/// Rooms of the device's user.
const ROOM: RoomIndex = RoomIndex(0);
const OTHER_ROOM: RoomIndex = RoomIndex(3);
/// Longer than any device stays away, in microseconds.
const AWAY_US: u64 = 5_000_000;

const PLAN: &str = r#"
name = "order"
about = "four users in a ring"
population = { users = 4, cell_users = 4, directs = 2 }
phase = [{ name = "none", seconds = 1 }]
"#;
const KEPT: &str = "ledger = { keep = true }";
const NO_LEDGER: &str = "";

/// A message as the server is asked for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Asked {
    token: Token,
    room: RoomIndex,
    number: u64,
    predecessor: Option<u64>,
}

/// Numbers and the numbers that they name.
fn named(asked: &[Asked]) -> Vec<(u64, Option<u64>)> {
    asked.iter().map(|asked| (asked.number, asked.predecessor)).collect()
}

/// A load of which one device is there.
struct Rig {
    load: AgentLoad,
    now_us: u64,
}

impl Rig {
    fn new(ledger: &str) -> Self {
        let plan = Plan::parse(&format!("{ledger}\n{PLAN}"), Path::new("order")).expect("a plan");
        let load = AgentLoad::new(plan, Share { agent: 0, agents: 1 }, 7, Targets::spread(1));
        let mut rig = Self { load, now_us: 1_000 };
        rig.load.connect(DEVICE);
        assert!(rig.asked().is_empty());
        rig
    }

    fn send(&mut self, room: RoomIndex) {
        let operation =
            Operation::own(DEVICE, Work::Send(room, MessageKey { sender: DEVICE, number: 0 }), self.now_us);
        self.load.carry_out(self.now_us, ActionName::SendDirect, operation);
    }

    /// Messages that are asked for now. Connections come about, and there is nothing to catch up with.
    fn asked(&mut self) -> Vec<Asked> {
        let mut asked = Vec::new();
        while let Some(action) = self.load.poll(self.now_us) {
            match action {
                Action::Connect { .. } => self.tell(ProtocolEvent::Ready),
                Action::Request { token, request: Request::CatchUp { .. }, .. } => {
                    self.tell(ProtocolEvent::CaughtUp(token));
                }
                Action::Request {
                    token, request: Request::Send { room, message, predecessor, .. }, ..
                } => {
                    asked.push(Asked { token, room, number: message, predecessor });
                }
                other => panic!("{other:?}"),
            }
        }
        asked
    }

    fn handle(&mut self, event: DeviceEvent) {
        self.load.handle(self.now_us, DEVICE, event);
    }

    fn tell(&mut self, event: ProtocolEvent) {
        self.handle(DeviceEvent::Protocol(event));
    }

    fn accept(&mut self, asked: Asked, seq: u64) {
        self.tell(ProtocolEvent::Accepted { token: asked.token, seq: Some(seq) });
    }

    /// Its shard has no leader just now.
    fn refuse(&mut self, asked: Asked) {
        let (token, code) = (Some(asked.token), "unavailable".to_owned());
        self.tell(ProtocolEvent::Refused { token, code, retryable: true, retry_after_ms: 50 });
    }

    fn lack(&mut self, asked: Asked) {
        self.tell(ProtocolEvent::PredecessorMissing(asked.token));
    }

    fn lose(&mut self) {
        self.handle(DeviceEvent::Lost { reason: "reset".into() });
    }
}

#[test]
fn a_message_names_the_one_before_it_in_its_room_until_that_has_its_answer() {
    let mut rig = Rig::new(KEPT);
    for room in [ROOM, ROOM, OTHER_ROOM, ROOM] {
        rig.send(room);
    }
    let asked = rig.asked();
    assert_eq!(named(&asked), [(1, None), (2, Some(1)), (3, None), (4, Some(2))]);
    rig.accept(asked[0], 2);
    rig.send(ROOM);
    let fifth = rig.asked();
    assert_eq!(named(&fifth), [(5, Some(4))]);
    for (asked, seq) in [(asked[1], 3), (asked[2], 2), (asked[3], 4), (fifth[0], 5)] {
        rig.accept(asked, seq);
    }
    rig.send(ROOM);
    assert_eq!(named(&rig.asked()), [(6, None)], "what has its answer need not be named");
}

#[test]
fn after_a_failover_messages_go_again_in_order() {
    let mut rig = Rig::new(KEPT);
    (0..3).for_each(|_| rig.send(ROOM));
    let asked = rig.asked();
    rig.refuse(asked[0]);
    rig.lack(asked[1]);
    rig.lack(asked[2]);
    rig.send(ROOM);
    assert!(rig.asked().is_empty(), "nothing overtakes the first one, whose time has not come");
    rig.now_us += RETRY_US;
    let first = rig.asked();
    assert_eq!(named(&first), [(1, None)], "alone until the server takes messages again");
    rig.accept(first[0], 2);
    assert_eq!(named(&rig.asked()), [(2, None), (3, Some(2)), (4, Some(3))]);
}

#[test]
fn a_message_whose_predecessor_is_unknown_waits_for_that_ones_answer() {
    let mut rig = Rig::new(KEPT);
    (0..2).for_each(|_| rig.send(ROOM));
    let asked = rig.asked();
    rig.lack(asked[1]);
    rig.now_us += RETRY_US;
    assert!(rig.asked().is_empty(), "the one before it is on its way");
    rig.refuse(asked[0]);
    rig.now_us += RETRY_US;
    let first = rig.asked();
    assert_eq!(named(&first), [(1, None)]);
    rig.accept(first[0], 2);
    let second = rig.asked();
    assert_eq!(named(&second), [(2, None)]);
    // The answer of the one before it was quicker: there is nothing to wait for.
    rig.lack(second[0]);
    assert_eq!(named(&rig.asked()), [(2, None)]);
}

#[test]
fn times_of_refused_messages_do_not_change_their_order() {
    let mut rig = Rig::new(KEPT);
    (0..2).for_each(|_| rig.send(ROOM));
    let asked = rig.asked();
    rig.refuse(asked[1]);
    rig.now_us += 1_000;
    rig.refuse(asked[0]);
    rig.send(ROOM);
    rig.send(OTHER_ROOM);
    assert_eq!(named(&rig.asked()), [(4, None)], "rooms do not wait for each other");
    rig.now_us += RETRY_US - 1_000;
    assert!(rig.asked().is_empty(), "the second one's time has come, and not the first one's");
    rig.now_us += 1_000;
    assert_eq!(named(&rig.asked()), [(1, None), (2, Some(1)), (3, Some(2))]);
}

#[test]
fn a_new_connection_begins_with_the_oldest_message() {
    let mut rig = Rig::new(KEPT);
    (0..3).for_each(|_| rig.send(ROOM));
    rig.send(OTHER_ROOM);
    let asked = rig.asked();
    rig.refuse(asked[0]);
    rig.lack(asked[1]);
    rig.lose();
    rig.now_us += AWAY_US;
    assert_eq!(named(&rig.asked()), [(1, None), (2, Some(1)), (3, Some(2)), (4, None)]);
    rig.now_us += RETRY_US;
    assert!(rig.asked().is_empty(), "nothing goes twice");
}

#[test]
fn without_a_ledger_a_message_that_was_given_up_holds_nobody_up() {
    let mut rig = Rig::new(NO_LEDGER);
    (0..3).for_each(|_| rig.send(ROOM));
    let asked = rig.asked();
    rig.refuse(asked[0]);
    rig.lack(asked[1]);
    rig.lack(asked[2]);
    let second = rig.asked();
    assert_eq!(named(&second), [(2, None)]);
    rig.accept(second[0], 2);
    assert_eq!(named(&rig.asked()), [(3, None)]);
}

#[test]
fn messages_without_a_place_on_the_connection_keep_their_order() {
    let mut rig = Rig::new(KEPT);
    (0..2).for_each(|_| rig.send(ROOM));
    let asked = rig.asked();
    asked.iter().for_each(|asked| rig.handle(DeviceEvent::Busy(asked.token)));
    rig.send(ROOM);
    assert!(rig.asked().is_empty());
    // Nothing is under way that could end and make room.
    rig.now_us += RETRY_US;
    assert_eq!(named(&rig.asked()), [(1, None), (2, Some(1)), (3, Some(2))]);
}

#[test]
fn a_message_that_waits_for_a_place_goes_when_the_one_behind_it_lacks_it_or_waits_itself() {
    let ends: [fn(&mut Rig, Asked); 2] = [Rig::lack, Rig::refuse];
    for end in ends {
        let mut rig = Rig::new(KEPT);
        (0..2).for_each(|_| rig.send(ROOM));
        let asked = rig.asked();
        // The second one is under way: its end makes room.
        rig.handle(DeviceEvent::Busy(asked[0].token));
        assert!(rig.asked().is_empty());
        end(&mut rig, asked[1]);
        assert_eq!(named(&rig.asked())[0], (1, None));
    }
}

/// Takes what arrives, in the order of arrival, unless it names what is missing.
#[derive(Default)]
struct Server {
    wire: VecDeque<Asked>,
    answers: HashMap<(RoomIndex, u64), u64>,
    heads: HashMap<RoomIndex, u64>,
    /// Messages whose predecessor was missing.
    lacked: u64,
}

impl Server {
    fn apply(&mut self, asked: Asked) -> Option<u64> {
        if let Some(seq) = self.answers.get(&(asked.room, asked.number)) {
            return Some(*seq);
        }
        if asked.predecessor.is_some_and(|before| !self.answers.contains_key(&(asked.room, before))) {
            self.lacked += 1;
            return None;
        }
        let head = self.heads.entry(asked.room).or_insert(1);
        *head += 1;
        self.answers.insert((asked.room, asked.number), *head);
        Some(*head)
    }

    /// The oldest message arrives, and is answered.
    fn serve(&mut self, rig: &mut Rig) {
        let Some(asked) = self.wire.pop_front() else { return };
        match self.apply(asked) {
            Some(seq) => rig.accept(asked, seq),
            None => rig.lack(asked),
        }
    }
}

#[test]
fn a_devices_messages_keep_their_order_whatever_happens() {
    let mut lacked = 0;
    for seed in 0..200 {
        let (mut rig, mut server, mut random) = (Rig::new(KEPT), Server::default(), Random::new(seed));
        let mut sent = 0;
        for _ in 0..400 {
            match random.below(12) {
                0..=3 => {
                    // Nobody writes on a device that is away.
                    if rig.load.devices.can_act(DEVICE) {
                        rig.send(if random.below(3) == 0 { OTHER_ROOM } else { ROOM });
                        sent += 1;
                    }
                }
                4 if random.below(4) == 0 => {
                    for asked in std::mem::take(&mut server.wire) {
                        if random.below(2) == 0 {
                            server.apply(asked);
                        }
                    }
                    rig.lose();
                }
                5 | 6 => {
                    if let Some(asked) = server.wire.pop_front() {
                        rig.refuse(asked);
                    }
                }
                7 => {
                    if let Some(asked) = server.wire.pop_back() {
                        rig.handle(DeviceEvent::Busy(asked.token));
                    }
                }
                _ => server.serve(&mut rig),
            }
            rig.now_us += random.below(RETRY_US);
            server.wire.extend(rig.asked());
        }
        let mut rounds = 0;
        while rig.load.operations.count() > 0 {
            rounds += 1;
            assert!(rounds < 10_000, "seed {seed}: {} messages never go", rig.load.operations.count());
            server.serve(&mut rig);
            rig.now_us += RETRY_US;
            server.wire.extend(rig.asked());
        }
        let found = rig.load.ledger.as_ref().expect("it is kept").balance(|_| Vec::new());
        assert!(found.is_balanced() && found.acknowledged == sent, "seed {seed}: {sent} sent, {found:?}");
        lacked += server.lacked;
    }
    assert!(lacked > 100, "hardly ever was a predecessor missing: {lacked}");
}

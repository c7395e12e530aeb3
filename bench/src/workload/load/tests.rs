//! The load against a server made of a few maps, with a clock of its own: one seed, one run.

use super::{Action, AgentLoad, DeviceEvent, Targets, Workload};
use crate::agent::protocol::{Message, ProtocolEvent, Request, TargetIndex, Token};
use crate::coordinator::control::messages::PhaseShare;
use crate::measure::histogram::Latencies;
use crate::report::results::{LedgerResult, ReturnCounts};
use crate::workload::plan::Plan;
use crate::workload::population::{DeviceIndex, Population, RoomIndex, Share};
use crate::workload::random::Random;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

/// One way between a device and the server, in microseconds.
const WAY_US: u64 = 500;
/// Bound on every test: an hour of its own clock.
const END_US: u64 = 3_600_000_000;

/// What the server does wrong on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Spoilt {
    Not,
    /// Forgets the message it accepted as this one.
    Drops(u64),
    /// Stores it twice.
    Doubles(u64),
    /// Accepts it, and stores it in the place of the next one.
    Swaps(u64),
}

struct World {
    load: AgentLoad,
    people: Population,
    now_us: u64,
    events: BTreeMap<(u64, u64), (DeviceIndex, u32, DeviceEvent)>,
    event_last: u64,
    /// Which life of a device's connection is open: events of an earlier one are not delivered.
    lives: HashMap<DeviceIndex, u32>,
    online: BTreeSet<DeviceIndex>,
    /// Cut off, and not told yet: what they ask goes nowhere.
    severed: BTreeSet<DeviceIndex>,
    /// When which device connected, and where.
    connects: Vec<(u64, DeviceIndex, TargetIndex)>,
    rooms: BTreeMap<RoomIndex, Vec<Bytes>>,
    answers: HashMap<(RoomIndex, DeviceIndex, u64), u64>,
    stored: u64,
    spoilt: Spoilt,
    /// One of so many requests ends its connection, before or after the server has carried it out. 0: none does.
    losses_in: u64,
    /// Requests to catch up that came, by device.
    catch_ups: HashMap<DeviceIndex, u32>,
    /// How many of those that come next are refused.
    refusals: u32,
    random: Random,
}

impl World {
    fn new(plan: &str, seed: u64) -> Self {
        let plan = Plan::parse(plan, Path::new("test")).expect("a plan");
        Self {
            people: Population::new(&plan.population),
            load: AgentLoad::new(plan, Share { agent: 0, agents: 1 }, 77, Targets::spread(2)),
            now_us: 0,
            events: BTreeMap::new(),
            event_last: 0,
            lives: HashMap::new(),
            online: BTreeSet::new(),
            severed: BTreeSet::new(),
            connects: Vec::new(),
            rooms: BTreeMap::new(),
            answers: HashMap::new(),
            stored: 0,
            spoilt: Spoilt::Not,
            losses_in: 0,
            catch_ups: HashMap::new(),
            refusals: 0,
            random: Random::new(seed),
        }
    }

    fn tell(&mut self, after_us: u64, device: DeviceIndex, event: DeviceEvent) {
        self.event_last += 1;
        let life = self.lives.get(&device).copied().unwrap_or(0);
        self.events.insert((self.now_us + after_us, self.event_last), (device, life, event));
    }

    fn protocol(&mut self, device: DeviceIndex, event: ProtocolEvent) {
        self.tell(WAY_US, device, DeviceEvent::Protocol(event));
    }

    /// The server says its last words to a device, and closes.
    fn close(&mut self, device: DeviceIndex, retry_after_ms: u32, go_to: &[TargetIndex]) {
        let (code, go_to) = ("DRAINING".to_owned(), go_to.to_vec());
        self.protocol(device, ProtocolEvent::Closing { code, retry_after_ms, go_to });
        self.tell(WAY_US, device, DeviceEvent::Lost { reason: "end".into() });
        self.online.remove(&device);
        self.severed.insert(device);
    }

    /// Runs a phase to its end.
    fn phase(&mut self, index: u32) -> PhaseShare {
        self.load.begin(index, self.now_us + 1_000);
        loop {
            if let Some(share) = self.load.take_done(self.now_us) {
                return share;
            }
            self.step();
        }
    }

    fn settle(&mut self) -> LedgerResult {
        self.losses_in = 0;
        self.load.settle();
        loop {
            if let Some(result) = self.load.take_settled(self.now_us) {
                return result;
            }
            self.step();
        }
    }

    /// Everything of now, then on to the next moment.
    fn step(&mut self) {
        while let Some(action) = self.load.poll(self.now_us) {
            self.act(action);
        }
        let event_us = self.events.first_key_value().map(|((at_us, _), _)| *at_us);
        let due_us = self.load.next_due_us();
        // Whoever waits for a grace to pass looks again after a while.
        let next_us = [event_us, due_us, Some(self.now_us + 1_000_000)].into_iter().flatten().min();
        self.now_us = next_us.expect("one at least").max(self.now_us);
        assert!(self.now_us < END_US, "the load does not come to an end");
        while let Some(entry) = self.events.first_entry()
            && entry.key().0 <= self.now_us
        {
            let (device, life, event) = entry.remove();
            if self.lives.get(&device).copied().unwrap_or(0) == life {
                if matches!(event, DeviceEvent::Lost { .. }) {
                    self.severed.remove(&device);
                }
                self.load.handle(self.now_us, device, event);
            }
        }
    }

    fn act(&mut self, action: Action) {
        if let Action::Request { device, token, .. } = &action {
            self.load.handed_over(self.now_us, *device, *token);
        }
        match action {
            Action::Connect { device, target, .. } => {
                self.connects.push((self.now_us, device, target));
                *self.lives.entry(device).or_default() += 1;
                self.online.insert(device);
                self.tell(WAY_US, device, DeviceEvent::Connected { resumed: false });
                self.tell(2 * WAY_US, device, DeviceEvent::Protocol(ProtocolEvent::Ready));
            }
            Action::Disconnect { device } => {
                *self.lives.entry(device).or_default() += 1;
                self.severed.remove(&device);
                self.online.remove(&device);
            }
            Action::Pause { device } => drop(self.online.remove(&device)),
            Action::Resume { device } => drop(self.online.insert(device)),
            Action::Request { device, token, request } => self.request(device, token, request),
        }
    }

    fn request(&mut self, device: DeviceIndex, token: Token, request: Request) {
        if self.severed.contains(&device) {
            return;
        }
        assert!(self.online.contains(&device), "{device:?} asks while it is away");
        let lost = self.losses_in > 0 && self.random.below(self.losses_in) == 0;
        // Half of the lost ones are carried out, and only their answer is lost.
        if !lost || self.random.below(2) == 0 {
            self.carry_out(device, token, request);
        }
        if lost {
            *self.lives.entry(device).or_default() += 1;
            self.online.remove(&device);
            self.severed.insert(device);
            self.tell(WAY_US, device, DeviceEvent::Lost { reason: "reset".into() });
        }
    }

    fn carry_out(&mut self, device: DeviceIndex, token: Token, request: Request) {
        match request {
            Request::Open(_) | Request::Delivered { .. } | Request::Read { .. } => {
                self.protocol(device, ProtocolEvent::Done(token));
            }
            Request::Send { room, predecessor: Some(before), .. }
                if !self.answers.contains_key(&(room, device, before)) =>
            {
                self.protocol(device, ProtocolEvent::PredecessorMissing(token));
            }
            Request::Send { room, message, body, .. } => {
                let seq = self.store(room, device, message, body);
                self.protocol(device, ProtocolEvent::Accepted { token, seq: Some(seq) });
            }
            Request::CatchUp { .. } if self.refuses(device) => {
                let (code, retryable) = ("unavailable".to_owned(), true);
                let refused =
                    ProtocolEvent::Refused { token: Some(token), code, retryable, retry_after_ms: 100 };
                self.protocol(device, refused);
            }
            Request::CatchUp { from, .. } => {
                for (room, after) in from {
                    for message in self.entries(room).into_iter().filter(|m| m.seq > Some(after)) {
                        self.protocol(device, ProtocolEvent::Message(message));
                    }
                }
                self.protocol(device, ProtocolEvent::CaughtUp(token));
            }
            Request::History { room, before, limit } => {
                let mut messages = self.entries(room);
                messages.retain(|message| before.is_none_or(|before| message.seq < Some(before)));
                let skipped = messages.len().saturating_sub(limit as usize);
                let messages = messages.split_off(skipped);
                self.protocol(device, ProtocolEvent::Page { token, messages });
            }
        }
    }

    /// Counts a request to catch up; whether it is to be refused.
    fn refuses(&mut self, device: DeviceIndex) -> bool {
        *self.catch_ups.entry(device).or_default() += 1;
        let left = self.refusals.checked_sub(1);
        self.refusals = left.unwrap_or(0);
        left.is_some()
    }

    fn store(&mut self, room: RoomIndex, sender: DeviceIndex, message: u64, body: Bytes) -> u64 {
        if let Some(seq) = self.answers.get(&(room, sender, message)) {
            return *seq;
        }
        self.stored += 1;
        let log = self.rooms.entry(room).or_default();
        let seq = log.len() as u64 + 1;
        match self.spoilt {
            Spoilt::Drops(which) if which == self.stored => {
                self.answers.insert((room, sender, message), seq);
                return seq;
            }
            Spoilt::Doubles(which) if which == self.stored => log.push(body.clone()),
            Spoilt::Swaps(which) if which == self.stored && !log.is_empty() => {
                let place = log.len() - 1;
                log.insert(place, body);
                self.answers.insert((room, sender, message), seq);
                return seq;
            }
            _ => {}
        }
        self.rooms.entry(room).or_default().push(body.clone());
        self.answers.insert((room, sender, message), seq);
        for member in self.people.room(room).members() {
            for device in self.people.devices_of_user(member).filter(|device| *device != sender) {
                if self.online.contains(&device) {
                    let message = Message { room, seq: Some(seq), body: body.clone() };
                    self.protocol(device, ProtocolEvent::Message(message));
                }
            }
        }
        seq
    }

    fn entries(&self, room: RoomIndex) -> Vec<Message> {
        let log = self.rooms.get(&room).map(Vec::as_slice).unwrap_or_default();
        let entries = log.iter().zip(1..);
        entries.map(|(body, seq)| Message { room, seq: Some(seq), body: body.clone() }).collect()
    }
}

const PLAN: &str = r#"
name = "test"
about = "pairs and groups"
ledger = { keep = true }
[population]
users = 24
devices = 2
cell_users = 6
directs = 4
groups = 1
group_members = 6
[[phase]]
name = "connect"
seconds = 60
until_done = true
stream = [{ action = "connect", schedule = { kind = "constant", rate = 1000 } }]
[[phase]]
name = "rooms"
seconds = 60
until_done = true
stream = [{ action = "open_room", schedule = { kind = "closed", in_flight = 8 } }]
[[phase]]
name = "messages"
seconds = 10
warm_up_s = 2
[[phase.stream]]
action = "send_direct"
schedule = { kind = "constant", rate = 100 }
[[phase.stream]]
action = "send_group"
schedule = { kind = "poisson", rate = 20 }
[[phase]]
name = "away"
seconds = 1
stream = [{ action = "disconnect", schedule = { kind = "constant", rate = 20 } }]
[[phase]]
name = "back"
seconds = 20
until_done = true
stream = [{ action = "catch_up", schedule = { kind = "constant", rate = 10 } }]
"#;

fn histogram(share: &PhaseShare, stream: usize, name: &str) -> Latencies {
    Latencies::from_text(share.streams[stream].histograms.get(name).map_or("", String::as_str)).expect("ours")
}

#[test]
fn a_quiet_server_gets_what_the_schedule_says_and_the_ledger_balances() {
    let mut world = World::new(PLAN, 1);
    let connected = world.phase(0);
    assert_eq!((connected.streams[0].succeeded, connected.connections.at_end), (48, 48));
    let opened = world.phase(1);
    assert_eq!(opened.streams[0].succeeded, u64::from(world.people.room_count()));
    let messages = world.phase(2);
    let direct = &messages.streams[0];
    // Ten seconds less two of warm-up.
    assert_eq!((direct.due, direct.begun, direct.succeeded), (800, 800, 800));
    // The other user's two devices and one's own second one.
    assert_eq!(direct.deliveries, 800 * 3);
    assert_eq!(messages.streams[1].deliveries, messages.streams[1].succeeded * 11);
    let answers = histogram(&messages, 0, "answer");
    assert_eq!((answers.count(), answers.max()), (800, WAY_US));
    assert_eq!(histogram(&messages, 0, "delivery").max(), WAY_US);
    assert!((messages.measured_s - 8.0).abs() < 0.01, "{}", messages.measured_s);
    let away = world.phase(3);
    assert_eq!((away.streams[0].succeeded, away.connections.at_end), (20, 28));
    let back = world.phase(4);
    assert_eq!((back.streams[0].succeeded, back.connections.at_end), (20, 48));
    for (phase, began) in [(&connected, 48), (&back, 20)] {
        let lag = Latencies::from_text(&phase.generators[0].lag).expect("ours");
        assert_eq!(lag.count(), began, "connecting is late until it is begun");
        assert!(lag.max() < WAY_US, "what the server takes for it is not the agent's: {}", lag.max());
    }
    let settled = world.settle();
    assert!(settled.is_balanced(), "{settled:?}");
    assert!(settled.acknowledged > 1_100, "{settled:?}");
}

#[test]
fn a_device_that_is_told_to_catch_up_does_so_until_it_has() {
    let mut world = World::new(PLAN, 1);
    world.phase(0);
    world.phase(1);
    let (refused, twice) = (DeviceIndex(3), DeviceIndex(5));
    world.refusals = 4;
    world.protocol(refused, ProtocolEvent::SyncNeeded);
    world.phase(2);
    assert_eq!(world.catch_ups[&refused], 5, "four times the shard had no leader");
    for _ in 0..3 {
        world.protocol(twice, ProtocolEvent::SyncNeeded);
    }
    world.phase(3);
    assert_eq!(world.catch_ups[&twice], 2, "once more for what came while it did");
    world.phase(4);
    assert!(world.settle().is_balanced());
}

#[test]
fn lost_connections_and_lost_answers_change_nothing_in_the_ledger() {
    for seed in 0..20 {
        let mut world = World::new(PLAN, seed);
        world.phase(0);
        world.phase(1);
        world.losses_in = 40;
        let messages = world.phase(2);
        assert!(messages.losses["reset"] > 10, "{messages:?}");
        let recovery = Latencies::from_text(&messages.recovery).expect("ours");
        assert!(recovery.count() > 0);
        let settled = world.settle();
        assert!(settled.is_balanced() && settled.unacknowledged == 0, "seed {seed}: {settled:?}");
    }
}

#[test]
fn a_device_that_is_told_when_and_where_to_come_again_does_just_that() {
    let mut world = World::new(PLAN, 1);
    world.phase(0);
    world.phase(1);
    // The first is at the first target and the second at the second one, by their users.
    let (sent_on, put_off) = (DeviceIndex(4), DeviceIndex(3));
    world.connects.clear();
    let heard_us = world.now_us + WAY_US;
    world.close(sent_on, 3_000, &[TargetIndex(1)]);
    world.close(put_off, 2_000, &[]);
    let messages = world.phase(2);
    let of = |wanted: DeviceIndex| {
        let connects = world.connects.iter().filter(move |(_, device, _)| *device == wanted);
        connects.map(|(at_us, _, target)| (*at_us - heard_us, target.0)).collect::<Vec<_>>()
    };
    assert_eq!(of(sent_on), [(3_000_000, 1)], "in its slot, at the other target");
    let [(after_us, 1)] = &of(put_off)[..] else { panic!("{:?}", of(put_off)) };
    assert!((2_000_000..2_200_000).contains(after_us), "not before its time, and soon after it: {after_us}");
    assert_eq!((messages.losses.get("DRAINING"), messages.losses.get("end")), (Some(&2), None), "told once");
    assert!(world.settle().is_balanced());
}

#[test]
fn messages_of_devices_that_began_elsewhere_are_told_apart() {
    let plan = PLAN.replace("warm_up_s = 2", "warm_up_s = 2\nfault = [{ at_s = 1, kill = 'gateway-2' }]");
    let spared = |plan: &str, closed: Option<u32>| {
        let mut world = World::new(plan, 1);
        world.phase(0);
        world.phase(1);
        if let Some(device) = closed {
            world.close(DeviceIndex(device), 0, &[TargetIndex(0)]);
        }
        let messages = world.phase(2);
        (histogram(&messages, 0, "spared").count(), messages.returns)
    };
    let (all, nobody) = spared(&plan, None);
    assert!((350..450).contains(&all), "half of the users are at the gateway that stays: {all}");
    assert_eq!(nobody, ReturnCounts::default());
    let sent_on = ReturnCounts { told: 1, sent_on: 1, ..ReturnCounts::default() };
    assert_eq!(
        spared(&plan, Some(2)),
        (all, sent_on),
        "one that comes from the other gateway is not counted"
    );
    assert_eq!(spared(&plan, Some(0)), (all, sent_on), "one that the gateway that stays has shed still is");
    assert_eq!(spared(PLAN, None).0, 0, "a plan without faults spares nobody");
}

#[test]
fn seconds_tell_who_was_sent_on_and_who_came_in() {
    let mut world = World::new(PLAN, 1);
    world.phase(0);
    world.phase(1);
    for device in 0..3 {
        world.close(DeviceIndex(device), 4_000, &[TargetIndex(1)]);
    }
    world.load.begin(2, world.now_us);
    let mut seconds = Vec::new();
    while world.load.take_done(world.now_us).is_none() {
        world.step();
        seconds.extend(std::iter::from_fn(|| world.load.take_progress(world.now_us)));
    }
    let figures: Vec<_> = seconds.iter().map(|second| (second.sent_on, second.log_ins)).collect();
    assert_eq!(figures[..6], [(3, 0), (0, 0), (0, 0), (0, 0), (0, 3), (0, 0)]);
}

#[test]
fn what_comes_before_a_phase_begins_is_in_none_of_its_seconds() {
    let mut world = World::new(PLAN, 1);
    world.phase(0);
    world.phase(1);
    for device in 0..3 {
        world.close(DeviceIndex(device), 100, &[TargetIndex(1)]);
    }
    world.load.begin(2, world.now_us + 1_000_000);
    let mut seconds = Vec::new();
    let share = loop {
        if let Some(share) = world.load.take_done(world.now_us) {
            break share;
        }
        world.step();
        seconds.extend(std::iter::from_fn(|| world.load.take_progress(world.now_us)));
    };
    assert!(!seconds.is_empty() && seconds.iter().all(|second| second.sent_on + second.log_ins == 0));
    assert_eq!((share.returns.told, share.returns.sent_on), (3, 3), "in the phase they are");
}

#[test]
fn a_server_that_drops_doubles_or_swaps_is_found_out() {
    for spoilt in [Spoilt::Drops(300), Spoilt::Doubles(300), Spoilt::Swaps(300)] {
        let mut world = World::new(PLAN, 3);
        world.spoilt = spoilt;
        (0..3).for_each(|phase| drop(world.phase(phase)));
        let settled = world.settle();
        let found = match spoilt {
            Spoilt::Drops(_) => settled.lost > 0,
            Spoilt::Doubles(_) => settled.doubled > 0,
            _ => settled.altered > 0,
        };
        assert!(found, "{spoilt:?}: {settled:?}");
        assert!(!settled.examples.is_empty());
    }
}

#[test]
fn latency_counts_from_the_due_time_even_when_the_agent_was_late() {
    let mut world = World::new(PLAN, 1);
    world.phase(0);
    world.phase(1);
    world.load.begin(2, world.now_us);
    // The agent is held up for three seconds, in which 300 actions fall due.
    let held_up_us = world.now_us + 8_000_000;
    while world.now_us < held_up_us {
        world.step();
    }
    // Until after the phase's end.
    world.now_us += 3_000_000;
    let share = loop {
        if let Some(share) = world.load.take_done(world.now_us) {
            break share;
        }
        world.step();
    };
    let answers = histogram(&share, 0, "answer");
    assert_eq!(answers.count(), 800, "nothing that was due is left out");
    assert!(answers.max() > 2_900_000 && answers.at(0.5) < 10_000, "{}", answers.max());
    let lag = Latencies::from_text(&share.generators[0].lag).expect("ours");
    assert!(lag.max() > 2_900_000, "the agent's own delay is told");
}

#[test]
fn slow_readers_neither_send_nor_read_until_the_phase_ends() {
    let plan = PLAN.replace("name = \"messages\"", "name = \"messages\"\nslow_readers = 0.5");
    let mut world = World::new(&plan, 1);
    world.phase(0);
    world.phase(1);
    let messages = world.phase(2);
    assert_eq!(messages.streams[0].succeeded, 800, "those that read still send");
    assert!(messages.streams[0].deliveries < 800 * 2, "{}", messages.streams[0].deliveries);
    let delivery = Latencies::from_text(&messages.streams[0].histograms["delivery"]).expect("ours");
    assert!(delivery.count() > 0 && delivery.max() < 1_000_000, "only those that read: {}", delivery.max());
    assert!(world.settle().is_balanced());
}

#[test]
fn without_anybody_online_what_is_due_is_an_error_and_no_silence() {
    let mut world = World::new(PLAN, 1);
    let messages = world.phase(2);
    assert_eq!(messages.streams[0].errors["nobody_online"], messages.streams[0].due);
    assert_eq!(messages.streams[0].due, 800);
}

#[test]
fn seconds_tell_of_everything_that_was_due() {
    let mut world = World::new(PLAN, 1);
    world.phase(0);
    world.phase(1);
    world.load.begin(2, world.now_us);
    let mut seconds = Vec::new();
    while world.load.take_done(world.now_us).is_none() {
        world.step();
        seconds.extend(std::iter::from_fn(|| world.load.take_progress(world.now_us)));
    }
    assert_eq!(seconds.iter().map(|second| second.second).collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
    let due: u64 = seconds.iter().map(|second| second.due).sum();
    assert!((1_100..1_300).contains(&due), "100 and 20 a second for 10 seconds: {due}");
    assert!(seconds.iter().all(|second| second.connections == 48));
}

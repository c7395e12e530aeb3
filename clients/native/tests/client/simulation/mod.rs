//! Engines and stores of several devices against the fake server, in one thread, with fake time and faults from
//! one seed. After the faults stop everything must settle, and every promise is checked.

mod device;
mod network;
mod checks;

use crate::fake_server::{Caller, FakeServer};
use crate::random::Random;
use device::Device;
use network::{Faults, Network};
use ringline_client::ConversationId;
use ringline_client::DeviceId;
use wire_protocol::v1::{self, client_frame};

/// Steps with faults; the world then has as long as it needs to settle.
const FAULTY_STEPS: usize = 600;
const SETTLING_STEPS: usize = 60_000;

pub struct World {
    random: Random,
    now_ms: u64,
    server: FakeServer,
    network: Network,
    devices: Vec<Device>,
    rooms: Vec<ConversationId>,
}

impl World {
    /// Three users, the first with two devices; a direct conversation and a group.
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let mut server = FakeServer::new(1 + random.below(8));
        let users = [(1, "ada"), (2, "bob"), (3, "eve")].map(|(number, name)| server.add_user(number, name));
        let callers = [(0, 1), (0, 2), (1, 3), (2, 4)];
        let callers =
            callers.map(|(user, device)| Caller { user: users[user], device: DeviceId([device; 16]) });
        let direct = v1::CreateConversation {
            kind: v1::ConversationKind::Direct as i32,
            member_ids: vec![users[1].to_bytes()],
            ..Default::default()
        };
        let group = v1::CreateConversation {
            kind: v1::ConversationKind::Group as i32,
            member_ids: vec![users[1].to_bytes(), users[2].to_bytes()],
            title: "all".into(),
            creation_id: 7,
        };
        for create in [direct, group] {
            server.handle(callers[0], client_frame::Body::Create(create));
        }
        let rooms = server.rooms.keys().copied().collect();
        let now_ms = 1_700_000_000_000;
        let devices = callers.map(|caller| Device::new(caller, random.next(), now_ms)).into_iter().collect();
        Self { random, now_ms, server, network: Network::default(), devices, rooms }
    }

    /// One step: somebody does something, or time passes.
    fn step(&mut self, faults: &Faults) {
        let index = self.random.below(self.devices.len());
        match self.random.below(10) {
            0 if faults.app_acts => self.act(index),
            1..=4 => self.network.server_turn(index, self.now_ms, &mut self.server, faults, &mut self.random),
            5..=8 => self.device_turn(index, faults),
            _ => self.now_ms += 1 + self.random.next() % 400,
        }
        if self.random.percent(faults.drop_connection_percent) {
            self.network.drop_connection(index, &mut self.random);
        }
        if self.random.percent(faults.crash_percent) {
            self.devices[index].crash(self.now_ms, self.random.next());
            self.network.drop_connection(index, &mut self.random);
        }
    }

    /// The app of a device sends, reads, or opens a conversation with somebody.
    fn act(&mut self, index: usize) {
        let device = &mut self.devices[index];
        let room = self.rooms[self.random.below(self.rooms.len())];
        match self.random.below(8) {
            0..=4 => {
                for _ in 0..=self.random.below(5) {
                    device.send(self.now_ms, room, self.random.next() | 1);
                }
            }
            5..=6 => device.read(self.now_ms, room, &mut self.random),
            _ => device.create(self.now_ms, self.random.below(3)),
        }
        device.settle_writes(&mut self.random, false);
    }

    fn device_turn(&mut self, index: usize, faults: &Faults) {
        let device = &mut self.devices[index];
        self.network.device_turn(index, self.now_ms, device, faults, &mut self.random);
    }

    fn is_settled(&self) -> bool {
        let quiet = |device: &Device| device.is_quiet(self.now_ms);
        self.network.is_quiet() && self.devices.iter().all(quiet)
    }
}

/// Runs one seed to its end.
fn run(seed: u64) {
    let mut world = World::new(seed);
    let faults = Faults::from_seed(&mut world.random);
    for _ in 0..FAULTY_STEPS {
        world.step(&faults);
    }
    let none = Faults::none();
    if !faults.hints {
        (0..world.devices.len()).for_each(|index| world.network.drop_connection(index, &mut world.random));
    }
    let mut steps = 0;
    while !world.is_settled() {
        world.step(&none);
        steps += 1;
        assert!(steps < SETTLING_STEPS, "seed {seed}: does not settle: {:?}", world.devices);
    }
    checks::check(&mut world, seed);
}

#[test]
fn every_promise_holds_under_every_fault() {
    let seeds: Vec<u64> = match std::env::var("RINGLINE_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => vec![seed],
        None => (0..60).collect(),
    };
    for seed in seeds {
        // A panic names the seed: run it alone with RINGLINE_SEED.
        let outcome = std::panic::catch_unwind(|| run(seed));
        if let Err(panic) = outcome {
            eprintln!("failed with RINGLINE_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

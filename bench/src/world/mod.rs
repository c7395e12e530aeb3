//! A whole cluster in one thread: the real storage nodes, the real gateways and the real client half of sessions, with
//! time, network, disks and chance from one seed. The same seed is the same run.
//!
//! ```text
//!            seed -> Random
//!                      |
//!  faults.rs  what goes wrong, when      agenda.rs  what happens next
//!  aimed.rs   and to which leader        operator.rs  which nodes join and leave, in half of all runs
//!  zones.rs   and where servers stand    lost.rs      and which one loses its disk and is replaced
//!  quiet.rs   when nobody asks           doors.rs     whom gateways let in, and when they leave
//!  pauses.rs  which process stands still releases.rs  which server is of the release before
//!  failing.rs and whose syncs fail       founding.rs  how the fleet begins
//!        \             |                 returns.rs   which replica has to come back
//!         |            |                 plan.rs      all of it, from the seed
//!         \            |                   /
//!         World: time goes from one thing that is due to the next
//!        /             |                   \
//!  device.rs x5    gateway.rs x2       node.rs x3, and one that joins
//!  ClientSession   worker::Core        StorageCore, Raft, log, store, reads, maintenance
//!       \             /      \            /        on SimDisk, which loses what was not synced
//!        network.rs: connections as TCP has them: delayed, cut, reset, lost
//!                      |
//!  history.rs: what devices did and saw  ->  promises/: one checker each
//! ```
//!
//! A run: everything starts; devices make rooms, write, repeat, read, move cursors, leave and come back, while faults begin
//! and end; then all is mended, and the cluster has to answer everything, and to end all moves, with copies as far apart as
//! zones let them be; every device reads every room from its beginning; at last nobody asks for anything, and all groups have
//! to hibernate. Then the checkers look at the history. A failure names its seed, and `ringline-bench world --seed N` runs it
//! again. What a run really tried is counted in `tried.rs`.
//!
//! Real: domain, sessions, router, storage client and loop of the gateway; all of a storage node above the system
//! calls of its log, and above RocksDB's interface; the link protocol and its frames. Made up: clocks, sockets, disk,
//! RocksDB (rows in memory with the store's contract of syncs). Absent: TLS, WebSocket, HTTP, and so the pace of accepting,
//! the shares of addresses and the rates of log ins; probes of gateways; several cores of a gateway, threads that run at the
//! same time.

mod agenda;
mod aimed;
mod arrivals;
mod cast;
mod clock;
mod device;
mod doors;
mod failing;
mod faults;
mod founding;
mod gateway;
mod history;
mod hosts;
mod lost;
mod moves;
mod network;
mod node;
mod operator;
mod outside;
mod pauses;
mod plan;
pub mod promises;
mod quiet;
mod releases;
mod returns;
mod runs;
mod story;
mod tried;
mod zones;
#[cfg(test)]
mod tests;

pub use faults::{Aim, Back, Fault, Loss, Planned};
pub use history::{Cursors, Event, History, NOBODYS, Seen, Voters};
pub use operator::{Wish, Wished};
pub use returns::{Away, Comeback};
pub use runs::{Failure, Outcome, run, run_many, run_many_with, run_with};
pub use storage_node::plant::Plant;
pub use tried::Tried;

use self::gateway::{GatewayHost, GatewaySetup};
use agenda::{Agenda, Due};
use aimed::Watch;
use arrivals::Arrivals;
use device::{Device, Mood};
use doors::Doors;
use hosts::Hosts;
use moves::FleetWatch;
use network::{Going, Network, Parcel, Side};
use node::NodeHost;
use operator::Operator;
use outside::{End, Outside};
use pauses::Pause;
use plan::Plan;
use quiet::REST_MS_MAX;
use returns::Returns;
use std::collections::BTreeSet;
use storage_node::sim::Crash;
use story::Story;
use zones::Zones;

use crate::workload::random::Random;
use ::gateway::worker::sim::SimKeys;

/// Who there is.
const HOSTS: Hosts = Hosts { nodes: 3, gateways: 2, devices: cast::DEVICE_USERS.len() };
/// The time at which every run begins: any, in milliseconds since 1970.
const START_MS: u64 = 1_800_000_000_000;
/// Servers start within this time, in milliseconds.
const STARTS_MS: u64 = 300;
/// Devices stay busy for this long after the last fault, in milliseconds.
const AFTERWARDS_MS: u64 = 1_500;
/// How long it may take until everything is answered and told, and until everything is read; in milliseconds.
const SETTLE_MS_MAX: u64 = 60_000;
/// How long it may take until no shard is to move any more, in milliseconds: a snapshot whose receiver went is given up after
/// half a minute, and each of six shards and moves may meet that once.
const MOVES_MS_MAX: u64 = 240_000;
/// How often it is looked whether it is, in milliseconds.
const LOOK_EVERY_MS: u64 = 100;

/// Where a run is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// Devices act and faults come, until then.
    Busy {
        until_ms: u64,
    },
    /// Everything is to be answered and told, by then.
    Settling {
        by_ms: u64,
    },
    /// Everything is read, by then, and no shard is to move any more, some time later.
    LookingBack {
        by_ms: u64,
        moved_by_ms: u64,
    },
    /// Nobody asks for anything, and everything is to hibernate, by then.
    Resting {
        by_ms: u64,
    },
    Over,
}

/// Everything.
struct World {
    /// See [`plan::is_free`]: in other runs whatever a fault had cut is whole when that ends, although another one has cut it, too.
    is_free: bool,
    outside: Outside,
    nodes: Vec<NodeHost>,
    gateways: Vec<GatewayHost>,
    devices: Vec<Device>,
    faults: Vec<Planned>,
    /// What each of them has cut.
    cut_by: Vec<Vec<(usize, usize)>>,
    watch: Option<Watch>,
    /// By fault: the host whose disk it has filled.
    filled: Vec<Option<usize>>,
    /// What becomes of a disk that stops its node, and how long the node stays away.
    torn: [(Crash, u64); HOSTS.count()],
    /// How long a server that was asked to stop stays away.
    away_ms: [u64; HOSTS.count()],
    /// By host: its process does nothing.
    paused: [Option<Pause>; HOSTS.count()],
    zones: Zones,
    operator: Operator,
    doors: Doors,
    fleet: FleetWatch,
    returns: Returns,
    story: Story,
    stage: Stage,
    /// When all was mended.
    mended_ms: Option<u64>,
    /// By place of a storage node: whether all its replicas hibernated when it was looked at last.
    at_rest: [bool; HOSTS.nodes + 1],
    /// What was seen that must not be, whatever becomes of it.
    amiss: BTreeSet<String>,
    tried: Tried,
    arrivals: Arrivals,
    look_at_ms: u64,
    /// By shard: how far every copy has to come.
    applied: Vec<u64>,
}

impl World {
    fn new(seed: u64, keys: &SimKeys) -> Self {
        let mut random = Random::new(seed);
        let shard_count = 1 + random.below(3) as u32;
        let Plan { faults, over_ms, operator, doors, releases, founding } = Plan::of(seed, &mut random);
        let shard_count = shard_count.max(operator.shards_min);
        let network = Network::new(HOSTS.count());
        let mut outside = Outside { now_ms: START_MS, network, agenda: Agenda::default(), random };
        for host in 0..HOSTS.nodes + HOSTS.gateways {
            let after_ms = founding.starts_ms(host).unwrap_or_else(|| outside.up_to(STARTS_MS));
            outside.agenda.plan(START_MS + after_ms, Due::Start(host));
        }
        for (number, planned) in faults.iter().enumerate() {
            outside.agenda.plan(START_MS + planned.at_ms, Due::Fault(number));
            outside.agenda.plan(START_MS + planned.at_ms + planned.lasts_ms, Due::Heal(number));
        }
        operator.wishes.iter().enumerate().for_each(|(number, wished)| {
            outside.agenda.plan(START_MS + wished.at_ms, Due::Wish(number));
        });
        let joiner = operator.joins_from_ms.map(|from_ms| {
            outside.agenda.plan(START_MS + from_ms, Due::Start(HOSTS.joiner()));
            HOSTS.joiner()
        });
        let nodes = (0..HOSTS.nodes).chain(joiner).map(|host| NodeHost::new(host, shard_count, seed));
        let gateway = |host| {
            let (hellos, installed) = (doors.hellos, releases.of(host));
            GatewayHost::new(host, GatewaySetup { shard_count, hellos, installed }, keys.clone())
        };
        let device = |number: usize| {
            let user = cast::user(cast::DEVICE_USERS[number]);
            let token = keys.access_token(user, cast::device(number), START_MS);
            let host = HOSTS.nodes + HOSTS.gateways + number;
            Device::new(number, host, HOSTS.gateway_hosts(), token, seed)
        };
        let mut devices: Vec<Device> = (0..HOSTS.devices).map(device).collect();
        devices.iter_mut().for_each(|device| device.plan(&mut outside));
        Self {
            is_free: plan::is_free(seed),
            nodes: nodes.collect(),
            gateways: HOSTS.gateway_hosts().map(gateway).collect(),
            devices,
            cut_by: vec![Vec::new(); faults.len()],
            watch: None,
            filled: vec![None; faults.len()],
            faults,
            torn: [(Crash::Process, 0); HOSTS.count()],
            away_ms: [0; HOSTS.count()],
            paused: [const { None }; HOSTS.count()],
            zones: Zones::plan(seed),
            operator,
            doors,
            fleet: FleetWatch::default(),
            returns: Returns::default(),
            story: Story::new(seed, shard_count),
            stage: Stage::Busy { until_ms: START_MS + over_ms + AFTERWARDS_MS },
            mended_ms: None,
            at_rest: [false; HOSTS.nodes + 1],
            amiss: BTreeSet::new(),
            tried: Tried::default(),
            arrivals: Arrivals::default(),
            look_at_ms: START_MS,
            applied: vec![0; shard_count as usize],
            outside,
        }
    }

    /// The storage node of this host.
    fn node_mut(&mut self, host: usize) -> &mut NodeHost {
        &mut self.nodes[HOSTS.node_place(host).expect("a host of a storage node")]
    }

    /// To the end.
    fn run(&mut self) {
        while self.stage != Stage::Over {
            let (at_ms, due) = self.outside.agenda.next().expect("devices always plan another turn");
            self.outside.now_ms = at_ms;
            self.happen(due);
            if self.look_at_ms <= at_ms {
                self.look_at_ms = at_ms + LOOK_EVERY_MS;
                self.look();
            }
        }
    }

    fn happen(&mut self, due: Due) {
        if let Some(until_ms) = self.paused_until(due) {
            // Its next turn is planned when it goes on.
            if !matches!(due, Due::Turn { .. }) {
                self.outside.agenda.plan(until_ms, due);
            }
            return;
        }
        match due {
            Due::Turn { host, life } => self.turn(host, life),
            Due::Work { host, life, thread } => {
                let node = &mut self.nodes[HOSTS.node_place(host).expect("only storage nodes have threads")];
                if node.life == life {
                    node.work(thread, &mut self.outside);
                    self.see_to(host);
                }
            }
            Due::Connect(id) => {
                let Outside { now_ms, network, agenda, random } = &mut self.outside;
                if let Some((host, side, parcel)) = network.try_connect(*now_ms, id, random, agenda) {
                    self.arrived(host, (id, side), parcel);
                }
            }
            Due::Arrive(id, side) => {
                let Outside { now_ms, network, agenda, random } = &mut self.outside;
                if let Some((host, parcel)) = network.arrive(*now_ms, (id, side), random, agenda) {
                    self.arrived(host, (id, side), parcel);
                }
            }
            Due::Start(host) => self.start(host),
            Due::Resume(host) => self.resume(host),
            Due::Fault(number) => self.begin(number),
            Due::Heal(number) => self.end(number),
            Due::Wish(number) => self.ask_for(number),
            Due::Forget { fault, shard, leader, gateway, deaf } => match deaf {
                None => self.deafen(fault, shard, leader, gateway),
                Some(deaf) => self.let_forget(fault, leader, gateway, deaf),
            },
            Due::Strike { fault, voted_for } => self.strike(fault, voted_for),
        }
    }

    fn turn(&mut self, host: usize, life: u64) {
        if let Some(place) = HOSTS.node_place(host) {
            let node = &mut self.nodes[place];
            if node.life == life {
                node.turn(&mut self.outside);
                self.see_to(host);
                self.see_off(host);
            }
        } else if let Some(gateway) = self.gateways.get_mut(host - HOSTS.nodes) {
            if gateway.life == life {
                gateway.turn(&mut self.outside);
                self.see_off_gateway(host);
            }
        } else {
            let number = host - HOSTS.nodes - HOSTS.gateways;
            self.devices[number].turn(&mut self.story, &mut self.outside);
        }
    }

    fn arrived(&mut self, host: usize, end: End, parcel: Parcel) {
        if let Some(place) = HOSTS.node_place(host) {
            self.nodes[place].arrived(end, parcel, &mut self.outside);
            self.see_to(host);
        } else if let Some(gateway) = self.gateways.get_mut(host - HOSTS.nodes) {
            if let (Side::Accepter, Parcel::Bytes(bytes)) = (end.1, &parcel) {
                self.tried.doubled += self.arrivals.doubled(end.0, bytes, &self.story);
            }
            gateway.arrived(end, parcel, &mut self.outside);
        } else {
            let number = host - HOSTS.nodes - HOSTS.gateways;
            self.devices[number].arrived(end.0, parcel, &mut self.story, &mut self.outside);
        }
    }

    fn start(&mut self, host: usize) {
        if let Some(place) = HOSTS.node_place(host) {
            let node = &mut self.nodes[place];
            if !node.is_up() {
                node.start(&mut self.outside);
                if matches!(self.stage, Stage::Busy { .. }) {
                    node.may_lose_power(&mut self.outside);
                }
                self.see_to(host);
            }
        } else if let Some(gateway) = self.gateways.get_mut(host - HOSTS.nodes)
            && !gateway.is_up()
        {
            gateway.start(&mut self.outside);
        }
    }

    /// A node did something. If its disk stopped it, it is gone, and comes back.
    fn see_to(&mut self, host: usize) {
        self.watch_voters(host);
        if self.node_mut(host).is_stopped() {
            let (crash, away_ms) = self.torn[host];
            let loses_power = self.node_mut(host).loses_power();
            self.tried.power_lost += u64::from(loses_power);
            self.crash(host, if loses_power { Crash::PowerKeepsNothing } else { crash }, away_ms);
        } else if self.node_mut(host).is_refused() {
            self.end_refused(host);
        } else {
            self.watch_elections(host);
            self.watch_lost(host);
            self.watch_syncs(host);
        }
    }

    /// A node that was asked to stop, and has done what that takes, ends.
    fn see_off(&mut self, host: usize) {
        let now_ms = self.outside.now_ms;
        if self.node_mut(host).has_left(now_ms) {
            self.crash(host, Crash::Process, self.away_ms[host]);
        }
    }

    fn crash(&mut self, host: usize, crash: Crash, away_ms: u64) {
        self.node_mut(host).crash(crash);
        let going = if crash == Crash::Process { Going::Process } else { Going::Power };
        self.went(host, going, away_ms);
    }

    fn went(&mut self, host: usize, going: Going, away_ms: u64) {
        self.paused[host] = None;
        let Outside { now_ms, network, agenda, random } = &mut self.outside;
        network.host_went(*now_ms, host, going, random, agenda);
        agenda.plan(*now_ms + away_ms, Due::Start(host));
    }

    fn begin(&mut self, number: usize) {
        let Planned { fault, lasts_ms, .. } = self.faults[number].clone();
        match fault {
            Fault::Crash { host, crash } if self.node_mut(host).is_up() => self.crash(host, crash, lasts_ms),
            Fault::Blackout(crash) => {
                let up = self.nodes.iter().filter(|node| node.is_up()).map(|node| node.host);
                for host in up.collect::<Vec<_>>() {
                    self.crash(host, crash, lasts_ms);
                }
            }
            Fault::SyncsFail { host, kind, steps, crash, away_ms } => {
                self.torn[host] = (crash, away_ms);
                self.node_mut(host).fail_syncs(Some((kind, steps)));
            }
            Fault::Leave(host) => {
                self.away_ms[host] = lasts_ms;
                let place = HOSTS.node_place(host).expect("a host of a storage node");
                self.nodes[place].leave(&mut self.outside);
            }
            Fault::Torn { host, steps, crash } => {
                self.torn[host] = (crash, lasts_ms);
                self.node_mut(host).stop_within(Some(steps));
            }
            Fault::Gateway(host) if self.gateways[host - HOSTS.nodes].is_up() => {
                self.gateways[host - HOSTS.nodes].stop();
                self.went(host, Going::Process, lasts_ms);
            }
            Fault::Crash { .. } | Fault::Gateway(_) => {}
            Fault::Reset(host) => {
                let Outside { now_ms, network, agenda, random } = &mut self.outside;
                for id in network.connections_of(host) {
                    network.reset(*now_ms, id, random, agenda);
                }
            }
            Fault::SlowNetwork(host, by_ms) => self.outside.network.slow(host, by_ms),
            Fault::SlowMachine(host, by_ms) => self.slow_machine(host, by_ms),
            Fault::Clock(host, by_ms) => match HOSTS.node_place(host) {
                Some(place) => self.nodes[place].jump(by_ms, &mut self.outside),
                None => self.gateways[host - HOSTS.nodes].clock.jump(by_ms),
            },
            Fault::Isolate(_) | Fault::OneWay(..) | Fault::Split(_) => self.cut(number, cuts(&fault)),
            Fault::ZoneLost { server, loss } => self.lose_zone(number, server, loss),
            Fault::DiskLost { host, back } => self.lose_disk(number, host, back),
            Fault::Drain { host, window_ms } => self.drain(host, window_ms, lasts_ms),
            Fault::Upgrade(host) => self.upgrade(host, lasts_ms),
            Fault::Pause(host) => self.pause(host, lasts_ms),
            Fault::Quiet => self.turn_devices_to(Mood::Silent),
            Fault::Full(host, room_bytes) => self.fill(number, host, room_bytes),
            Fault::ComesBack(comeback) => self.make_return(number, comeback),
            Fault::Aimed { shard, aim } => self.aim(number, shard, &aim),
        }
    }

    fn end(&mut self, number: usize) {
        let fault = self.faults[number].fault.clone();
        match fault {
            Fault::SlowNetwork(host, _) => self.outside.network.slow(host, 0),
            Fault::SlowMachine(host, _) => self.slow_machine(host, 0),
            Fault::Torn { host, .. } => self.node_mut(host).stop_within(None),
            Fault::Full(..) => self.empty(number),
            Fault::SyncsFail { host, .. } => self.node_mut(host).fail_syncs(None),
            Fault::Aimed { .. } => self.end_aim(number),
            Fault::ComesBack(comeback) => self.end_return(number, comeback),
            Fault::Quiet => self.end_quiet(),
            _ => {}
        }
        self.mend(number);
    }

    /// What the numbered fault has cut is whole again, but for what another one has cut as well.
    fn mend(&mut self, number: usize) {
        for pair in std::mem::take(&mut self.cut_by[number]) {
            let is_held = self.cut_by.iter().any(|pairs| pairs.contains(&pair));
            if !(self.is_free && is_held) {
                self.outside.network.mend(pair.0, pair.1);
            }
        }
    }

    fn cut(&mut self, number: usize, pairs: Vec<(usize, usize)>) {
        pairs.iter().for_each(|(from, to)| self.outside.network.cut(*from, *to));
        self.cut_by[number].extend(pairs);
    }

    fn slow_machine(&mut self, host: usize, by_ms: u64) {
        match HOSTS.node_place(host) {
            Some(place) => self.nodes[place].slow_ms = by_ms,
            None => self.gateways[host - HOSTS.nodes].slow_ms = by_ms,
        }
    }

    fn turn_devices_to(&mut self, mood: Mood) {
        self.devices.iter_mut().for_each(|device| device.turn_to(mood, &mut self.outside));
    }

    /// Shards that are led from elsewhere than they should be.
    fn leaders_astray(&mut self) -> Vec<String> {
        let mut astray = Vec::new();
        for node in &mut self.nodes {
            let host = node.host;
            astray.extend(node.astray().into_iter().map(|shard| format!("host {host} leads shard {shard}")));
        }
        astray
    }

    /// What is left of everything, for a person.
    fn ends(&mut self) -> Vec<String> {
        let mut ends: Vec<String> =
            self.devices.iter().map(|device| device.end(self.outside.now_ms)).collect();
        ends.extend(self.statuses());
        ends
    }

    /// What is counted, and what must not be.
    fn watch(&mut self) {
        self.watch_fleet();
        self.watch_rest();
        self.watch_doors();
        self.watch_releases();
        self.look_at_lost();
    }

    /// Whether the run comes to its next stage.
    fn look(&mut self) {
        let now_ms = self.outside.now_ms;
        self.watch();
        match self.stage {
            Stage::Busy { until_ms } if now_ms >= until_ms => {
                self.outside.network.mend_all();
                // Power that was to fail, and has not yet, does not.
                self.nodes.iter_mut().for_each(|node| node.stop_within(None));
                self.turn_devices_to(Mood::Quiet);
                self.mended_ms = Some(now_ms);
                self.stage = Stage::Settling { by_ms: now_ms + SETTLE_MS_MAX };
            }
            Stage::Settling { by_ms } => {
                let is_settled = self.story.unanswered().next().is_none()
                    && self.devices.iter().all(|device| device.unsettled(&self.story).is_none());
                if is_settled || now_ms >= by_ms {
                    for device in &mut self.devices {
                        device.look_back(&self.story, &mut self.outside);
                    }
                    for (shard, applied) in self.applied.iter_mut().enumerate() {
                        let copies = self.nodes.iter().map(|node| node.applied(shard as u32));
                        *applied = copies.max().unwrap_or(0);
                    }
                    let moves_ms = if self.operator.wishes.is_empty() { SETTLE_MS_MAX } else { MOVES_MS_MAX };
                    let (by_ms, moved_by_ms) = (now_ms + SETTLE_MS_MAX, now_ms + moves_ms);
                    self.stage = Stage::LookingBack { by_ms, moved_by_ms };
                }
            }
            Stage::LookingBack { by_ms, moved_by_ms } => self.look_back(by_ms, moved_by_ms),
            Stage::Resting { by_ms } => {
                let awake = self.awake();
                if awake.is_empty() || now_ms >= by_ms {
                    self.close(awake);
                }
            }
            Stage::Busy { .. } | Stage::Over => {}
        }
    }

    /// Whether everything is read and where it should be, or time is up.
    fn look_back(&mut self, by_ms: u64, moved_by_ms: u64) {
        let now_ms = self.outside.now_ms;
        let mut open: Vec<String> = self.devices.iter().filter_map(Device::unread).collect();
        let is_time_up = now_ms >= moved_by_ms || (now_ms >= by_ms && !open.is_empty());
        open.extend(self.moves_open());
        if open.is_empty() {
            open.extend(self.copies_behind());
            open.extend(self.leaders_astray());
            let old = self.hosts_with_old_links();
            open.extend(old.iter().map(|host| format!("host {host} has links of the release before")));
        }
        if open.is_empty() && !self.compare_copies() {
            open.push("no copies have applied the same entries".to_owned());
        }
        if open.is_empty() {
            self.turn_devices_to(Mood::Silent);
            self.stage = Stage::Resting { by_ms: now_ms + REST_MS_MAX };
        } else if is_time_up {
            self.close(open);
        }
    }

    /// The end: with what is still open, and with all that was ever seen which must not be.
    fn close(&mut self, mut open: Vec<String>) {
        if let Some(first) = open.first_mut() {
            *first = format!("{first} ({})", self.statuses().join(" | "));
        }
        let failures = self.nodes.iter().filter_map(|node| node.failure.clone());
        let seen = failures.chain(std::mem::take(&mut self.amiss));
        self.story.history.unsettled = seen.chain(open).collect();
        self.stage = Stage::Over;
    }

    /// All that was tried.
    fn tried(&self) -> Tried {
        let mut tried = self.tried;
        self.devices.iter().for_each(|device| tried += device.tried);
        tried.starts_refused = self.nodes.iter().map(|node| node.starts_refused).sum();
        tried.syncs_failed = self.nodes.iter().map(|node| node.syncs_failed).sum();
        self.nodes.iter().for_each(|node| node.count_begins(&mut tried));
        let has_begun = self.nodes[..HOSTS.nodes].iter().all(NodeHost::has_founded);
        tried.fleets_begun = u64::from(has_begun);
        tried.snapshots = self.nodes.iter().map(NodeHost::snapshots).sum();
        tried.overtaken = self.outside.network.overtaken;
        tried
    }
}

/// Both ways between hosts that are to be apart.
fn both_ways(apart: &dyn Fn(usize, usize) -> bool) -> Vec<(usize, usize)> {
    let all = 0..HOSTS.count();
    let pairs = all.clone().flat_map(|from| all.clone().map(move |to| (from, to)));
    pairs.filter(|(from, to)| from != to && apart(*from, *to)).collect()
}

/// Both ways between some hosts and all others.
fn around(part: &[usize]) -> Vec<(usize, usize)> {
    both_ways(&|from, to| part.contains(&from) != part.contains(&to))
}

/// What is cut by a fault, whoever leads.
fn cuts(fault: &Fault) -> Vec<(usize, usize)> {
    match fault {
        Fault::Isolate(host) => around(&[*host]),
        Fault::OneWay(from, to) => vec![(*from, *to)],
        Fault::Split(part) => around(part),
        _ => Vec::new(),
    }
}

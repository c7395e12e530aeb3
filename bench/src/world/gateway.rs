//! A gateway: the real loop of one core, whose links and clients get their bytes from the simulated network.

use super::HOSTS;
use super::clock::Clock;
use super::network::{ConnectionId, Line, Parcel, Side};
use super::outside::Outside;
use gateway::admission::rate::Rate;
use gateway::fleet::FleetView;
use gateway::front::ConnectionToken;
use gateway::worker::sim::{GatewayPeer, SimGateway, SimGatewayParts, SimKeys, SimWire};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use wire_protocol::link::Versions;

/// As `docs/operations.md` says: a gateway that leaves ends this long after its window at the latest, in milliseconds.
const ENDS_MS_MAX: u64 = 6_000;
/// Turns may begin later by this, where a machine is slow, in milliseconds: four turns that each wait.
const SLOW_TURNS_MS: u64 = 1_000;

/// What a gateway is configured with.
pub struct GatewaySetup {
    /// Shards of the fleet.
    pub shard_count: u32,
    /// How many sessions it lets in; `None`: whoever comes.
    pub hellos: Option<Rate>,
    /// What the program on the machine speaks: that of the next start.
    pub installed: Versions,
}

/// A machine with a gateway.
pub struct GatewayHost {
    /// Its number.
    pub host: usize,
    nodes: Vec<u32>,
    setup: GatewaySetup,
    keys: SimKeys,
    running: Option<Running>,
    /// Counts starts and ends.
    pub life: u64,
    /// The machine's clock, as the process sees it: it never falls.
    pub clock: Clock,
    /// A turn begins up to so much later, in milliseconds.
    pub slow_ms: u64,
}

struct Running {
    gateway: SimGateway,
    turn_at_ms: Option<u64>,
    /// It was asked to stop, and has ended by then.
    leaves_by_ms: Option<u64>,
    clients: BTreeMap<ConnectionId, ConnectionToken>,
    wires: BTreeMap<ConnectionId, SimWire>,
}

impl GatewayHost {
    /// A machine whose gateway is not started. Its configuration names the nodes of the first fleet, and stays so.
    pub fn new(host: usize, setup: GatewaySetup, keys: SimKeys) -> Self {
        let nodes = (1..=HOSTS.nodes as u32).collect();
        Self { host, nodes, setup, keys, running: None, life: 0, clock: Clock::default(), slow_ms: 0 }
    }

    /// The program on the machine is another one: its next start is one of that.
    pub fn install(&mut self, versions: Versions) {
        self.setup.installed = versions;
    }

    /// Whether its process runs.
    pub fn is_up(&self) -> bool {
        self.running.is_some()
    }

    /// Whether its process runs, and was not asked to stop.
    pub fn is_serving(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.leaves_by_ms.is_none())
    }

    /// Starts the process.
    pub fn start(&mut self, outside: &mut Outside) {
        self.life += 1;
        let peer = GatewayPeer { gateway_id: self.host as u32, incarnation: outside.random.draw(), core: 0 };
        let gateway = SimGateway::start(SimGatewayParts {
            peer,
            shard_count: self.setup.shard_count,
            nodes: &self.nodes,
            keys: &self.keys,
            hellos: self.setup.hellos,
            versions: self.setup.installed,
            now_ms: self.clock.at(outside.now_ms),
        });
        let (clients, wires) = Default::default();
        self.running = Some(Running { gateway, turn_at_ms: None, leaves_by_ms: None, clients, wires });
        outside.network.host_came(self.host);
        self.plan(outside, true);
    }

    /// The process is gone.
    pub fn stop(&mut self) {
        self.life += 1;
        self.running = None;
    }

    /// The process pauses for so long: if it was asked to stop, it ends later by that.
    pub fn pause(&mut self, for_ms: u64) {
        let running = self.running.iter_mut();
        running.filter_map(|running| running.leaves_by_ms.as_mut()).for_each(|by_ms| *by_ms += for_ms);
    }

    /// The process goes on.
    pub fn resume(&mut self, outside: &mut Outside) {
        if let Some(running) = &mut self.running {
            running.turn_at_ms = None;
            self.plan(outside, true);
        }
    }

    /// The process is asked to stop: `fleet` is what it knows of the gateways. One that was asked before goes on as it was.
    pub fn leave(&mut self, fleet: FleetView, window_ms: u64, outside: &mut Outside) {
        let Some(running) = self.running.as_mut().filter(|running| running.leaves_by_ms.is_none()) else {
            return;
        };
        running.leaves_by_ms = Some(outside.now_ms + window_ms + ENDS_MS_MAX + SLOW_TURNS_MS);
        running.gateway.leave(fleet, window_ms);
        self.plan(outside, true);
    }

    /// Whether it was asked to stop and has done all that this takes.
    pub fn has_left(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.gateway.has_left())
    }

    /// Whether it was asked to stop and should have ended by now.
    pub fn overstays(&self, now_ms: u64) -> bool {
        let by_ms = self.running.as_ref().and_then(|running| running.leaves_by_ms);
        by_ms.is_some_and(|by_ms| now_ms > by_ms)
    }

    /// The loop's turn, if this is the one that was planned.
    pub fn turn(&mut self, outside: &mut Outside) {
        let Some(running) = &mut self.running else { return };
        if running.turn_at_ms != Some(outside.now_ms) {
            return;
        }
        running.turn_at_ms = None;
        running.gateway.turn(self.clock.at(outside.now_ms));
        running.flush(self.host, outside);
        self.plan(outside, false);
    }

    /// Something arrived.
    pub fn arrived(&mut self, (id, side): (ConnectionId, Side), parcel: Parcel, outside: &mut Outside) {
        let Some(running) = &mut self.running else { return };
        match (parcel, side) {
            (Parcel::Accepted, _) if !running.gateway.accepts() => outside.close((id, side)),
            (Parcel::Accepted, _) => {
                let peer = SocketAddr::from(([10, 0, 0, 1], 1));
                let token = running.gateway.connect(peer);
                running.clients.insert(id, token);
            }
            (Parcel::Connected, _) => {
                if let Some(wire) = running.wires.get(&id) {
                    wire.connected();
                }
            }
            (Parcel::Bytes(bytes), Side::Caller) => {
                if let Some(wire) = running.wires.get(&id) {
                    wire.receive(&bytes);
                }
            }
            (Parcel::Bytes(bytes), Side::Accepter) => {
                if let Some(token) = running.clients.get(&id) {
                    running.gateway.receive(*token, &bytes);
                }
            }
            (Parcel::Closed, Side::Caller) => {
                if let Some(wire) = running.wires.remove(&id) {
                    wire.close("closed by the node");
                }
            }
            (Parcel::Closed, Side::Accepter) => {
                if let Some(token) = running.clients.remove(&id) {
                    running.gateway.hang_up(token);
                }
            }
        }
        self.plan(outside, true);
    }

    fn plan(&mut self, outside: &mut Outside, is_woken: bool) {
        let Some(running) = &mut self.running else { return };
        let due_ms = if is_woken {
            outside.now_ms + outside.up_to(1 + self.slow_ms)
        } else {
            self.clock.when(running.gateway.next_deadline_ms()).max(outside.now_ms + 1)
        };
        if running.turn_at_ms.is_none_or(|planned_ms| due_ms < planned_ms) {
            running.turn_at_ms = Some(due_ms);
            outside.plan_turn(due_ms, self.host, self.life);
        }
    }
}

impl Running {
    fn flush(&mut self, host: usize, outside: &mut Outside) {
        while let Some((node, wire)) = self.gateway.take_connecting() {
            let id = outside.connect(Line { from: host, to: HOSTS.host_of_node(node), number: 0 });
            self.wires.insert(id, wire);
        }
        self.wires.retain(|id, wire| {
            let (end, is_closed) = ((*id, Side::Caller), wire.is_closed());
            if is_closed || outside.has_room(end) {
                outside.send(end, wire.take_sent());
            }
            if is_closed {
                outside.close(end);
            }
            !is_closed
        });
        self.clients.retain(|id, token| {
            while let Some(sent) = self.gateway.take_sent(*token) {
                if sent.is_empty() {
                    return true;
                }
                outside.send((*id, Side::Accepter), sent);
            }
            outside.close((*id, Side::Accepter));
            false
        });
    }
}

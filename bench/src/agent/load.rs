//! The load of a run as the agent's service drives it: an engine, and the workload that it carries out.

use super::engine::{Clients, Engine, Target, tls::KeepTickets, tls::TlsTarget};
use super::identity::Minter;
use super::protocol::names::{Names, RoomShape, Rooms};
use super::protocol::ringline::{Framing, RinglineClients, Shared};
use super::protocol::targets::TargetNames;
use super::ranking;
use super::service::{Load, LoadSetup, Report};
use crate::clock;
use crate::coordinator::control::clocks::ProcessClock;
use crate::coordinator::control::messages::{Prepare, Subject, TargetAddress};
use crate::measure::process;
use crate::workload::load::{AgentLoad, Targets};
use crate::workload::plan::{GatewayChoice, Plan, RouteName};
use crate::workload::population::{Population, Room, RoomIndex, Share, UserIndex};
use std::collections::VecDeque;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use wire_protocol::limits::{ALPN_HTTP, ALPN_NATIVE};

impl Rooms for Population {
    fn shape(&self, room: RoomIndex) -> Option<RoomShape> {
        if room.0 >= self.room_count() {
            return None;
        }
        Some(match self.room(room) {
            Room::Direct(a, b) => RoomShape::Direct { a, b },
            group => RoomShape::Group { members: group.members().collect() },
        })
    }

    fn rooms_of(&self, user: UserIndex) -> Vec<RoomIndex> {
        self.rooms_of_user(user)
    }
}

/// Lost connections that an agent tells of, one by one, in a run.
const FAULTS_TOLD_MAX: u64 = 16;

/// The load of one agent.
pub struct RunLoad {
    setup: LoadSetup,
    clock: ProcessClock,
    active: Option<Active>,
    reports: VecDeque<Report>,
}

struct Active {
    engine: Engine,
    load: AgentLoad,
    plan: Plan,
    phase: Option<PhaseUsage>,
    settling: bool,
    /// Connections lost so far, told or not.
    faults: u64,
}

/// The agent's own CPU within the running phase.
struct PhaseUsage {
    measure_from_us: u64,
    /// At the start of the measured time: moment and CPU, in microseconds.
    measured_from: Option<(u64, u64)>,
    /// At the last second's end.
    second_from: (u64, u64),
}

impl RunLoad {
    /// Nothing is prepared. `clock` is what phases are begun by.
    pub fn new(setup: &LoadSetup, clock: ProcessClock) -> Self {
        Self { setup: setup.clone(), clock, active: None, reports: VecDeque::new() }
    }

    fn failed(&mut self, detail: String) {
        self.active = None;
        self.reports.push_back(Report::Failed(detail));
    }
}

impl Load for RunLoad {
    fn prepare(&mut self, prepare: &Prepare) -> Result<(), String> {
        let plan = prepare.plan.clone();
        let people = Population::new(&plan.population);
        let share = Share { agent: prepare.agent_first, agents: prepare.agents };
        let made = make_clients(prepare, &people, share)?;
        let keep = if plan.transport.resume { KeepTickets::Newest } else { KeepTickets::None };
        let targets = prepare.targets.iter().map(|target| resolve(target, made.alpn, keep));
        let targets = targets.collect::<Result<Vec<_>, _>>()?;
        let engine =
            Engine::new(targets, self.setup.sources.clone(), made.clients).map_err(|e| e.to_string())?;
        let load = AgentLoad::new(plan.clone(), share, made.run_id, made.targets);
        self.active = Some(Active { engine, load, plan, phase: None, settling: false, faults: 0 });
        Ok(())
    }

    fn begin(&mut self, phase: u32, at_us: u64) {
        let ahead_us = at_us.saturating_sub(self.clock.now_us());
        let Some(active) = &mut self.active else { return };
        // The engine's clock has another zero.
        let begin_us = clock::now_us() + ahead_us;
        let warm_up_s = active.plan.phases.get(phase as usize).map_or(0.0, |phase| phase.warm_up_s);
        let second_from = (begin_us, clock::thread_cpu_us());
        let measure_from_us = begin_us + (warm_up_s * 1e6) as u64;
        active.phase = Some(PhaseUsage { measure_from_us, measured_from: None, second_from });
        active.load.begin(phase, begin_us);
    }

    fn end_phase(&mut self) {
        if let Some(active) = &mut self.active {
            active.load.end_phase(clock::now_us());
        }
    }

    fn settle(&mut self) {
        let Some(active) = &mut self.active else { return };
        if active.plan.ledger.keep {
            active.load.settle();
            active.settling = true;
        } else {
            self.reports.push_back(Report::Settled(None));
        }
    }

    fn turn(&mut self, wait_us_max: u64) {
        let Some(active) = &mut self.active else {
            std::thread::park_timeout(std::time::Duration::from_micros(wait_us_max));
            return;
        };
        let turned = active.engine.turn(&mut active.load, wait_us_max);
        for fault in active.engine.take_faults() {
            active.faults += 1;
            if active.faults <= FAULTS_TOLD_MAX {
                eprintln!("fault: {fault}");
            } else if active.faults == FAULTS_TOLD_MAX + 1 {
                eprintln!("fault: there are more; the result counts all by reason");
            }
        }
        match turned {
            Err(error) => self.failed(format!("the engine's poll: {error}")),
            Ok(_) => {
                let (phase, settled) = active.look(clock::now_us());
                self.reports.extend(phase);
                self.reports.extend(settled);
            }
        }
    }

    fn take_report(&mut self) -> Option<Report> {
        self.reports.pop_front()
    }
}

impl Active {
    /// What there is to tell of the running phase, and of the settling.
    fn look(&mut self, now_us: u64) -> (Vec<Report>, Option<Report>) {
        let mut reports = Vec::new();
        if let Some(usage) = &mut self.phase {
            if usage.measured_from.is_none() && now_us >= usage.measure_from_us {
                usage.measured_from = Some((now_us, clock::thread_cpu_us()));
            }
            while let Some(mut progress) = self.load.take_progress(now_us) {
                let now = (now_us, clock::thread_cpu_us());
                progress.cpu_milli = cpu_milli(usage.second_from, now);
                usage.second_from = now;
                reports.push(Report::Progress(progress));
            }
            if let Some(mut share) = self.load.take_done(now_us) {
                let from = usage.measured_from.unwrap_or(usage.second_from);
                let cpu_milli = cpu_milli(from, (now_us, clock::thread_cpu_us()));
                for generator in &mut share.generators {
                    generator.cpu_milli = cpu_milli;
                    generator.private_bytes = process::private_bytes(std::process::id()).unwrap_or(0);
                }
                self.phase = None;
                reports.push(Report::PhaseDone(share));
            }
        }
        let settled = if self.settling { self.load.take_settled(now_us) } else { None };
        self.settling &= settled.is_none();
        (reports, settled.map(|result| Report::Settled(Some(result))))
    }
}

/// Thousandths of a core between two moments, each with the CPU used until then, in microseconds.
fn cpu_milli(from: (u64, u64), to: (u64, u64)) -> u64 {
    let (passed, used) = (to.0.saturating_sub(from.0), to.1.saturating_sub(from.1));
    (used * 1_000).checked_div(passed).unwrap_or(0)
}

/// Who the devices are to the servers, and what they know of them.
struct MadeClients {
    clients: Box<dyn Clients>,
    /// The protocol's name within TLS.
    alpn: &'static [u8],
    run_id: u64,
    targets: Targets,
}

fn make_clients(prepare: &Prepare, people: &Population, share: Share) -> Result<MadeClients, String> {
    let count = u16::try_from(prepare.targets.len()).map_err(|_| "too many targets".to_owned())?;
    let Subject::Ringline { bench_key_pem, run_id } = &prepare.subject else {
        let (clients, alpn, run_id) = crate::peers::clients(prepare, people)?;
        return Ok(MadeClients { clients, alpn, run_id, targets: Targets::spread(count) });
    };
    let plan = &prepare.plan;
    let names = Names::new(*run_id, plan.population.devices, Box::new(people.clone()));
    let minter = Minter::from_pem(bench_key_pem).map_err(|error| error.to_string())?;
    let host = prepare.targets.first().map(|target| target.address.clone()).unwrap_or_default();
    let (framing, alpn) = match plan.transport.route {
        RouteName::Native => (Framing::Native, ALPN_NATIVE),
        RouteName::WebSocket => (Framing::WebSocket { host }, ALPN_HTTP),
    };
    let zero_wall_ms = clock::wall_ms().saturating_sub(clock::now_us() / 1_000);
    let heartbeat_s = plan.transport.heartbeat_s;
    let targets = TargetNames::new(prepare.targets.iter().map(|target| target.address.as_str()));
    let names = Arc::new(names);
    let shared = Arc::new(Shared { names, minter, framing, heartbeat_s, zero_wall_ms, targets });
    let targets = match plan.transport.gateway {
        GatewayChoice::Spread => Targets::spread(count),
        GatewayChoice::Ranked => {
            Targets::ranked(count, ranking::ask(&prepare.targets, people, share, &shared)?)
        }
    };
    Ok(MadeClients { clients: Box::new(RinglineClients { shared }), alpn, run_id: *run_id, targets })
}

/// Where a target is, as this machine looks it up.
pub(super) fn address_of(target: &TargetAddress) -> Result<SocketAddr, String> {
    let wrong = |detail: String| format!("target {}: {detail}", target.address);
    let mut addresses = target.address.to_socket_addrs().map_err(|error| wrong(error.to_string()))?;
    addresses.next().ok_or_else(|| wrong("no address".into()))
}

fn resolve(target: &TargetAddress, alpn: &[u8], keep: KeepTickets) -> Result<Target, String> {
    let address = address_of(target)?;
    let tls = if target.tls_name.is_empty() {
        None
    } else {
        let tls = TlsTarget::new(&target.tls_name, &target.ca_pem, alpn, keep);
        Some(tls.map_err(|error| format!("target {}: {error}", target.address))?)
    };
    Ok(Target { address, tls })
}

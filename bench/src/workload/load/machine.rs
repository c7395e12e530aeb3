//! The load itself: phases, streams and devices of one agent.
//!
//! ```text
//! device:  Offline --Connect--> Connecting --Ready--> Ready --Lost--> Offline, and back as `returning` says if wanted
//! send:    due -> begun -> accepted                   (ledger kept: again after each loss, until accepted)
//! ```

use super::devices::{Devices, Stage};
use super::figures::PhaseFigures;
use super::operations::Operations;
use super::returning::{Targets, hit_by};
use super::streams::StreamState;
use super::{Action, DeviceEvent, Workload};
use crate::agent::protocol::{TargetIndex, Token};
use crate::coordinator::control::messages::{PhaseShare, Progress};
use crate::workload::ledger::Ledger;
use crate::workload::plan::{Phase, Plan};
use crate::workload::population::{DeviceIndex, Population, RoomIndex, Share};
use crate::workload::random::Random;
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, VecDeque};

/// How long answers are awaited after a phase's end, in microseconds: the protocol's own time-out of a request.
const GRACE_US: u64 = 10_000_000;
/// With a ledger: servers may have been killed a moment ago. Less than what the agent's service allows a phase.
const GRACE_LEDGER_US: u64 = 45_000_000;
/// How much longer than its phase an agent may take to begin what was due, in microseconds.
const LATE_US_MAX: u64 = 5_000_000;
const _: () = assert!(
    GRACE_LEDGER_US + LATE_US_MAX < crate::agent::service::PHASE_GRACE_S * 1_000_000,
    "the load ends a phase before its service gives it up"
);
/// Operations of an agent under way: 100 bytes each. Beyond it actions fail, and the run is void.
pub(super) const OPERATIONS_MAX: usize = 1_000_000;
/// After a refusal without a pause of its own, in microseconds.
pub(super) const RETRY_US: u64 = 100_000;

/// The running phase.
pub(super) struct Running {
    pub(super) index: u32,
    pub(super) start_us: u64,
    pub(super) measure_from_us: u64,
    pub(super) end_us: u64,
    /// When it really ended; `None`: it runs.
    pub(super) ended_us: Option<u64>,
    pub(super) until_done: bool,
    pub(super) streams: Vec<StreamState>,
    pub(super) figures: PhaseFigures,
    pub(super) seconds_taken: u32,
}

/// The load of one agent.
pub struct AgentLoad {
    pub(super) plan: Plan,
    pub(super) people: Population,
    pub(super) share: Share,
    pub(super) run: u64,
    pub(super) targets: Targets,
    /// Those that the plan's faults end.
    pub(super) hit: Vec<TargetIndex>,
    pub(super) devices: Devices,
    pub(super) operations: Operations,
    pub(super) actions: VecDeque<Action>,
    pub(super) phase: Option<Running>,
    pub(super) ledger: Option<Ledger>,
    /// Highest number below which a device has everything, by device and room; only where something came.
    pub(super) tops: HashMap<(DeviceIndex, RoomIndex), Top>,
    /// Cursors to be told, by time.
    pub(super) delivered: VecDeque<(u64, DeviceIndex, RoomIndex)>,
    pub(super) comebacks: BinaryHeap<Reverse<(u64, DeviceIndex)>>,
    /// Refused sends that wait for their time.
    pub(super) retries: BinaryHeap<Reverse<(u64, Token)>>,
    pub(super) random: Random,
    pub(super) audit: super::settle::Audit,
}

/// What a device has of a room.
#[derive(Clone, Debug, Default)]
pub(super) struct Top {
    /// Everything up to here.
    pub(super) contiguous: u64,
    /// Numbers above it that came early.
    early: BTreeSet<u64>,
    /// A cursor is to be told.
    pub(super) cursor_due: bool,
}

impl Top {
    /// Whether this number is new here.
    pub(super) fn take(&mut self, seq: u64) -> bool {
        if seq <= self.contiguous || !self.early.insert(seq) {
            return false;
        }
        while self.early.remove(&(self.contiguous + 1)) {
            self.contiguous += 1;
        }
        true
    }
}

impl AgentLoad {
    /// The load of one agent's share of a checked plan. `run` tells this run's messages from others'; `targets` is what
    /// its devices connect to.
    pub fn new(plan: Plan, share: Share, run: u64, targets: Targets) -> Self {
        let people = Population::new(&plan.population);
        let ledger = plan.ledger.keep.then(|| Ledger::new(plan.ledger.messages_max));
        Self {
            devices: Devices::new(people.devices_of(share)),
            random: Random::new(plan.seed ^ run ^ u64::from(share.agent)),
            hit: hit_by(&plan),
            plan,
            people,
            share,
            run,
            targets,
            operations: Operations::default(),
            actions: VecDeque::new(),
            phase: None,
            ledger,
            tops: HashMap::new(),
            delivered: VecDeque::new(),
            comebacks: BinaryHeap::new(),
            retries: BinaryHeap::new(),
            audit: super::settle::Audit::default(),
        }
    }

    /// Begins a phase at a moment that may lie ahead.
    pub fn begin(&mut self, index: u32, at_us: u64) {
        let phase: &Phase = &self.plan.phases[index as usize];
        let us = |seconds: f64| (seconds * 1e6) as u64;
        let seed = |stream: usize| self.plan.seed ^ (u64::from(index) << 40) ^ ((stream as u64) << 32);
        let streams = phase.streams.iter().enumerate();
        let streams: Vec<StreamState> = streams
            .map(|(number, stream)| StreamState::new(stream, phase.seconds, self.share, seed(number)))
            .collect();
        let mut figures = PhaseFigures::new(streams.len());
        figures.connections.at_end = self.devices.ready;
        figures.connections.peak = self.devices.ready;
        self.phase = Some(Running {
            index,
            start_us: at_us,
            measure_from_us: at_us + us(phase.warm_up_s),
            end_us: at_us + us(phase.seconds),
            ended_us: None,
            until_done: phase.until_done,
            streams,
            figures,
            seconds_taken: 0,
        });
        self.slow_down(phase_slow_share(&self.plan, index));
    }

    /// Stops this share of the ready devices from reading, evenly spread.
    fn slow_down(&mut self, share: f64) {
        let mut due = 0.0;
        for place in 0..self.devices.count() {
            let device = self.devices.at(place);
            self.devices.of(device).slowed = false;
            if self.devices.look(device).stage == Stage::Ready {
                due += share;
                if due >= 1.0 {
                    due -= 1.0;
                    let one = self.devices.of(device);
                    (one.paused, one.slowed) = (true, true);
                    self.actions.push_back(Action::Pause { device });
                }
            }
        }
    }

    fn speed_up(&mut self) {
        for place in 0..self.devices.count() {
            let device = self.devices.at(place);
            if std::mem::take(&mut self.devices.of(device).paused) {
                self.actions.push_back(Action::Resume { device });
            }
        }
    }

    /// Ends the running phase now: nothing more falls due.
    pub fn end_phase(&mut self, now_us: u64) {
        if let Some(phase) = &mut self.phase
            && phase.ended_us.is_none()
        {
            phase.end_us = phase.end_us.min(now_us);
            phase.ended_us = Some(now_us);
            self.speed_up();
        }
    }

    /// The figures of the seconds that have passed since the last call, one call each.
    pub fn take_progress(&mut self, now_us: u64) -> Option<Progress> {
        let phase = self.phase.as_mut()?;
        let second = phase.seconds_taken;
        let over_us = phase.start_us + (u64::from(second) + 1) * 1_000_000;
        if now_us < over_us || over_us > phase.end_us.max(phase.start_us + 1_000_000) {
            return None;
        }
        phase.seconds_taken += 1;
        phase.figures.connections.at_end = self.devices.ready;
        Some(phase.figures.take_second(phase.index, second))
    }

    /// The phase's figures, once it is over and its answers have come or their time has passed.
    pub fn take_done(&mut self, now_us: u64) -> Option<PhaseShare> {
        self.look_for_end(now_us);
        let phase = self.phase.as_ref()?;
        let ended_us = phase.ended_us?;
        let grace_us = if self.ledger.is_some() { GRACE_LEDGER_US } else { GRACE_US };
        let is_open = self.operations.iter().any(|(_, operation)| operation.stream.is_some());
        if is_open && now_us < ended_us + grace_us {
            return None;
        }
        let tokens: Vec<Token> = self
            .operations
            .iter()
            .filter(|(_, operation)| operation.stream.is_some())
            .map(|(token, _)| token)
            .collect();
        for token in tokens {
            self.give_up_counting(token);
        }
        let mut phase = self.phase.take()?;
        phase.figures.connections.at_end = self.devices.ready;
        let measured_us = ended_us.min(phase.end_us).saturating_sub(phase.measure_from_us);
        let mut share = phase.figures.share(phase.index, measured_us as f64 / 1e6);
        share.generators = vec![crate::report::results::GeneratorResult {
            agent: self.share.agent + 1,
            lag: phase.figures.lag.to_text(),
            samples_lost: phase.figures.samples_lost(),
            ..Default::default()
        }];
        Some(share)
    }

    /// A phase's operation without an answer: counted, and no longer the phase's. It may still be answered.
    fn give_up_counting(&mut self, token: Token) {
        let Some(operation) = self.operations.find(token) else { return };
        let stream = operation.stream.take();
        if let (Some(stream), true, Some(phase)) = (stream, operation.measured, &mut self.phase) {
            phase.figures.streams[stream].unanswered += 1;
        }
    }

    pub(super) fn look_for_end(&mut self, now_us: u64) {
        let Some(phase) = &self.phase else { return };
        if phase.ended_us.is_some() || now_us < phase.start_us {
            return;
        }
        let everything = phase.until_done
            && phase.streams.iter().all(StreamState::is_over)
            && !self.operations.iter().any(|(_, operation)| operation.stream.is_some());
        // An agent that is late still begins what was due: leaving it out would flatter the server.
        let all_begun = phase.streams.iter().all(|stream| !stream.is_open() || stream.is_over());
        let too_late = now_us >= phase.end_us + LATE_US_MAX;
        let is_over = (now_us >= phase.end_us && all_begun) || too_late || everything;
        if too_late {
            self.count_never_begun();
        }
        if is_over {
            self.end_phase(now_us);
        }
    }

    /// What was due and will not be begun any more: it counts as due.
    fn count_never_begun(&mut self) {
        let Some(phase) = &mut self.phase else { return };
        for (stream, figures) in phase.streams.iter_mut().zip(&mut phase.figures.streams) {
            while stream.is_open()
                && !stream.exhausted
                && let Some(at_us) = stream.take()
            {
                figures.due += u64::from(phase.start_us + at_us >= phase.measure_from_us);
            }
        }
    }

    /// Whether anything is under way, the devices' own doings included.
    pub(super) fn is_quiet(&self) -> bool {
        self.operations.count() == 0 && self.comebacks.is_empty()
    }
}

fn phase_slow_share(plan: &Plan, index: u32) -> f64 {
    plan.phases.get(index as usize).map_or(0.0, |phase| phase.slow_readers)
}

impl Workload for AgentLoad {
    fn handle(&mut self, now_us: u64, device: DeviceIndex, event: DeviceEvent) {
        match event {
            DeviceEvent::Connected { resumed } => {
                if let Some(phase) = &mut self.phase {
                    let connections = &mut phase.figures.connections;
                    connections.full_handshakes += u64::from(!resumed);
                    connections.resumed_handshakes += u64::from(resumed);
                }
            }
            DeviceEvent::Protocol(event) => self.take_protocol_event(now_us, device, event),
            DeviceEvent::Busy(token) => {
                self.hold(token);
                if self.is_to_make_room(device, token) {
                    self.devices.of(device).waiting.push_back(token);
                } else {
                    self.retries.push(Reverse((now_us + RETRY_US, token)));
                }
            }
            DeviceEvent::Lost { reason } => self.was_lost(now_us, device, &reason),
        }
    }

    fn poll(&mut self, now_us: u64) -> Option<Action> {
        if self.actions.is_empty() {
            while let Some(Reverse((at_us, device))) = self.comebacks.peek().copied()
                && at_us <= now_us
            {
                self.comebacks.pop();
                let kept = self.devices.look(device);
                if kept.stage == Stage::Offline && kept.wanted {
                    self.connect(device);
                }
            }
            while let Some(Reverse((at_us, token))) = self.retries.peek().copied()
                && at_us <= now_us
            {
                self.retries.pop();
                let Some(operation) = self.operations.find(token).copied() else { continue };
                if self.devices.look(operation.device).stage == Stage::Ready {
                    if !self.ask_again(token) {
                        // Its turn may be that of one that waits for a place: nothing else may be there to end.
                        self.fill_place(operation.device);
                    }
                } else {
                    self.devices.of(operation.device).waiting.push_back(token);
                }
            }
            self.tell_cursors(now_us);
            self.begin_due(now_us);
            self.look_for_end(now_us);
        }
        self.actions.pop_front()
    }

    fn handed_over(&mut self, now_us: u64, _device: DeviceIndex, token: Token) {
        self.was_handed_over(now_us, token);
    }

    fn next_due_us(&self) -> Option<u64> {
        if !self.actions.is_empty() {
            return Some(0);
        }
        let streams = self.phase.as_ref().filter(|phase| phase.ended_us.is_none()).map(|phase| {
            let next = phase.streams.iter().filter_map(StreamState::next_us).min();
            next.map_or(phase.end_us, |at_us| (phase.start_us + at_us).min(phase.end_us))
        });
        let comeback = self.comebacks.peek().map(|Reverse((at_us, _))| *at_us);
        let retry = self.retries.peek().map(|Reverse((at_us, _))| *at_us);
        let cursor = self.delivered.front().map(|(due_us, ..)| *due_us);
        [streams, comeback, retry, cursor].into_iter().flatten().min()
    }
}

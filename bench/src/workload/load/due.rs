//! What falls due: streams' actions begin here, and become requests of devices.

use super::Action;
use super::devices::Stage;
use super::machine::{AgentLoad, OPERATIONS_MAX};
use super::operations::{Operation, Work};
use super::sending::{Flight, Turn};
use super::streams::{Choice, Field};
use crate::agent::protocol::{Request, Token};
use crate::workload::ledger::MessageKey;
use crate::workload::plan::ActionName;
use crate::workload::population::{DeviceIndex, RoomIndex};
use crate::workload::stamp::Stamp;

/// Actions begun in one poll, so that sockets have their turn.
const BEGUN_PER_POLL_MAX: usize = 64;
/// Messages of a page of history.
const HISTORY_LIMIT: u32 = 50;

impl AgentLoad {
    pub(super) fn begin_due(&mut self, now_us: u64) {
        let Some(phase) = &self.phase else { return };
        if phase.ended_us.is_some() {
            return;
        }
        let (start_us, end_us) = (phase.start_us, phase.end_us);
        if now_us < start_us {
            return;
        }
        for number in 0..phase.streams.len() {
            for _ in 0..BEGUN_PER_POLL_MAX {
                let Some(phase) = &mut self.phase else { return };
                let Some(at_us) = phase.streams[number].next_us() else { break };
                if start_us + at_us > now_us
                    || start_us + at_us >= end_us
                    || now_us >= end_us && !phase.streams[number].is_open()
                {
                    break;
                }
                if !self.begin_one(now_us, number) {
                    break;
                }
            }
        }
    }

    /// Begins a stream's next action. False: the stream has nothing to do now.
    pub(super) fn begin_one(&mut self, now_us: u64, number: usize) -> bool {
        let Some(phase) = &mut self.phase else { return false };
        let stream = &mut phase.streams[number];
        let field = Field { people: &self.people, share: self.share, devices: &self.devices };
        let choice = stream.choose(&field);
        let action = stream.action;
        match choice {
            Choice::Nothing => {
                stream.exhausted = true;
                return false;
            }
            // A closed loop simply waits until somebody is there.
            Choice::Nobody if !stream.is_open() => {
                stream.wait(now_us - phase.start_us);
                return false;
            }
            Choice::Nobody | Choice::Do(..) => {}
        }
        let due_us = stream.take().map_or(now_us, |at_us| phase.start_us + at_us);
        let measured = due_us >= phase.measure_from_us;
        let figures = &mut phase.figures;
        figures.second.due += 1;
        if measured {
            figures.streams[number].due += 1;
        }
        let (device, work) = match choice {
            Choice::Do(device, work) if self.operations.count() < OPERATIONS_MAX => (device, work),
            failed => {
                let code = if matches!(failed, Choice::Do(..)) { "agent_full" } else { "nobody_online" };
                figures.second.errors += 1;
                if measured {
                    *figures.streams[number].errors.entry(code.to_owned()).or_default() += 1;
                }
                return true;
            }
        };
        if measured {
            figures.streams[number].begun += 1;
        }
        let operation = Operation {
            device,
            work,
            stream: Some(number),
            due_us,
            measured,
            held_up: false,
            flight: Flight::InOrder,
        };
        self.carry_out(now_us, action, operation);
        true
    }

    pub(super) fn carry_out(&mut self, now_us: u64, action: ActionName, mut operation: Operation) {
        let device = operation.device;
        match action {
            ActionName::Disconnect => {
                self.leave(device, false);
                let token = self.operations.begin(operation);
                self.end(now_us, token, Ok(()));
            }
            ActionName::Connect | ActionName::CatchUp | ActionName::Reconnect => {
                if action == ActionName::Reconnect {
                    self.leave(device, true);
                }
                let token = self.operations.begin(operation);
                // What it asks leaves when the server's half of the handshakes is done: the agent's part ends here.
                if let (Some(_), Some(phase)) = (operation.stream, &mut self.phase) {
                    phase.figures.lag.record(now_us.saturating_sub(operation.due_us));
                }
                self.hold_up(token);
                self.devices.of(device).connecting = Some(token);
                self.connect(device);
            }
            ActionName::SendDirect | ActionName::SendGroup => {
                if let Work::Send(room, _) = operation.work {
                    let number = self.devices.look(device).messages + 1;
                    self.devices.of(device).messages = number;
                    let message = MessageKey { sender: device, number };
                    operation.work = Work::Send(room, message);
                    if let Some(ledger) = &mut self.ledger
                        && ledger.sent(room, message).is_err()
                        && let Some(phase) = &mut self.phase
                    {
                        phase.figures.ledger_full = true;
                    }
                }
                self.request(operation);
            }
            ActionName::Read => {
                if let Work::Read(room, _) = operation.work {
                    let seq = self.tops.get(&(device, room)).map_or(1, |top| top.contiguous.max(1));
                    operation.work = Work::Read(room, seq);
                }
                self.request(operation);
            }
            ActionName::OpenRoom | ActionName::History => {
                self.request(operation);
            }
        }
    }

    /// Begins an operation of a ready device.
    pub(super) fn request(&mut self, operation: Operation) -> Token {
        let token = self.operations.begin(operation);
        self.devices.of(operation.device).open.push_back(token);
        self.ask(token);
        token
    }

    /// Puts an operation's request to the engine. False: it has none, or it is a message that waits for one before it.
    pub(super) fn ask(&mut self, token: Token) -> bool {
        let Some(operation) = self.operations.find(token).copied() else { return false };
        let device = operation.device;
        let request = match operation.work {
            Work::Connect => return false,
            Work::ConnectAndCatchUp | Work::CatchUp => {
                let from = self.positions(device);
                Request::CatchUp { from, expected: self.devices.look(device).missed }
            }
            Work::Open(room) => Request::Open(room),
            Work::Send(room, message) => {
                let Turn::Now(predecessor) = self.take_turn(token, device, room) else { return false };
                let stamp = Stamp {
                    sender: message.sender,
                    number: message.number,
                    due_us: operation.due_us,
                    run: self.run,
                };
                let body = stamp.body(self.plan.message.body_bytes as usize);
                Request::Send { room, message: message.number, predecessor, body }
            }
            Work::History(room) => Request::History { room, before: None, limit: HISTORY_LIMIT },
            Work::Audit(room, before) => Request::History { room, before, limit: HISTORY_LIMIT },
            Work::Read(room, seq) => Request::Read { room, seq },
            Work::Delivered(room, seq) => Request::Delivered { room, seq },
        };
        self.actions.push_back(Action::Request { device, token, request });
        true
    }

    /// How far a device is in each of its rooms.
    pub(super) fn positions(&self, device: DeviceIndex) -> Vec<(RoomIndex, u64)> {
        let rooms = self.people.rooms_of_user(self.people.user_of(device)).into_iter();
        rooms.map(|room| (room, self.tops.get(&(device, room)).map_or(0, |top| top.contiguous))).collect()
    }

    /// Connects a device, unless it comes back by itself: then as it was told.
    pub(super) fn come_online(&mut self, device: DeviceIndex) {
        let kept = self.devices.look(device);
        if kept.stage == Stage::Offline && !kept.wanted {
            self.connect(device);
        }
    }

    pub(super) fn connect(&mut self, device: DeviceIndex) {
        let target = self.targets.next(self.people.user_of(device), &self.devices.look(device).way);
        let kept = self.devices.of(device);
        kept.home.get_or_insert(target);
        (kept.wanted, kept.stage) = (true, Stage::Connecting);
        kept.tries += 1;
        self.actions.push_back(Action::Connect { device, target, resume: self.plan.transport.resume });
    }

    /// Drops a device's connection. What it had under way is kept, to be asked again.
    pub(super) fn leave(&mut self, device: DeviceIndex, comes_back: bool) {
        let kept = self.devices.of(device);
        if kept.stage == Stage::Ready {
            self.devices.ready -= 1;
        }
        let kept = self.devices.of(device);
        (kept.stage, kept.wanted, kept.missed, kept.tries) = (Stage::Offline, comes_back, 0, 0);
        kept.told = None;
        self.actions.push_back(Action::Disconnect { device });
    }
}

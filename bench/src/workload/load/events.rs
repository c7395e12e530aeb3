//! What happened to devices, and what becomes of their operations.

use super::devices::Stage;
use super::machine::{AgentLoad, RETRY_US};
use super::operations::{Operation, Work};
use super::returning::{Told, comeback_us};
use super::sending::GoOn;
use crate::agent::protocol::{Message, ProtocolEvent, TargetIndex, Token};
use crate::workload::ledger::MessageKey;
use crate::workload::plan::ActionName;
use crate::workload::population::{DeviceIndex, RoomIndex};
use crate::workload::stamp::Stamp;
use std::cmp::Reverse;
use std::collections::VecDeque;

/// A device tells how far it has stored a room's messages this much later, in microseconds: one cursor covers what
/// came meanwhile, as in the clients.
const DELIVERED_AFTER_US: u64 = 1_000_000;

impl AgentLoad {
    pub(super) fn became_ready(&mut self, now_us: u64, device: DeviceIndex) {
        let user = self.people.user_of(device);
        let kept = self.devices.of(device);
        if kept.stage != Stage::Connecting {
            return;
        }
        kept.stage = Stage::Ready;
        kept.tries = 0;
        self.targets.became_ready(user, &mut kept.way);
        let lost_us = kept.lost_us.take();
        let connecting = kept.connecting.take();
        let mut waiting: VecDeque<Token> = std::mem::take(&mut kept.waiting);
        self.devices.ready += 1;
        let ready = self.devices.ready;
        if let Some(phase) = &mut self.phase {
            let connections = &mut phase.figures.connections;
            connections.peak = connections.peak.max(ready);
            if now_us >= phase.start_us {
                phase.figures.second.log_ins += 1;
            }
            if let Some(lost_us) = lost_us {
                phase.figures.recovery.record(now_us.saturating_sub(lost_us));
            }
        }
        match connecting
            .and_then(|token| self.operations.find(token).map(|operation| (token, operation.work)))
        {
            Some((token, Work::ConnectAndCatchUp)) => {
                self.devices.of(device).open.push_back(token);
                self.ask(token);
            }
            Some((token, _)) => self.end(now_us, token, Ok(())),
            None => {}
        }
        if lost_us.is_some() {
            self.heal(now_us, device);
        }
        while let Some(token) = waiting.pop_front() {
            self.ask_again(token);
        }
    }

    /// The device gets what it may have missed.
    pub(super) fn heal(&mut self, now_us: u64, device: DeviceIndex) {
        let kept = self.devices.of(device);
        if std::mem::replace(&mut kept.healing, true) {
            kept.heal_again = true;
            return;
        }
        self.request(Operation::own(device, Work::CatchUp, now_us));
    }

    /// The server has said its last frame to a device; the connection's end follows.
    fn was_told(&mut self, told: Told, device: DeviceIndex, code: &str, go_to: Vec<TargetIndex>) {
        if let Some(phase) = &mut self.phase {
            phase.figures.lose(code);
        }
        let kept = self.devices.of(device);
        // One that has left meanwhile goes where it likes.
        if kept.stage != Stage::Offline {
            kept.told = Some(told);
            if !go_to.is_empty() {
                kept.way.sent_on(go_to);
            }
        }
    }

    pub(super) fn was_lost(&mut self, now_us: u64, device: DeviceIndex, reason: &str) {
        let kept = self.devices.of(device);
        let stage = std::mem::replace(&mut kept.stage, Stage::Offline);
        if stage == Stage::Offline {
            return;
        }
        (kept.healing, kept.heal_again, kept.paused) = (false, false, false);
        let told = kept.told.take();
        if stage == Stage::Ready {
            kept.lost_us = Some(now_us);
        } else if matches!(told, None | Some(Told::Closed)) {
            kept.way.failed();
        }
        let open: Vec<Token> = kept.open.iter().copied().collect();
        kept.waiting.clear();
        if stage == Stage::Ready {
            self.devices.ready -= 1;
        }
        if let Some(phase) = &mut self.phase {
            let is_sent_on = phase.figures.ended(stage, told, reason);
            if now_us >= phase.start_us {
                phase.figures.second.sent_on += u64::from(is_sent_on);
            }
        }
        for token in open {
            self.interrupted(now_us, token);
        }
        let kept = self.devices.of(device);
        if kept.wanted {
            let at_us = comeback_us(now_us, told, kept.tries, &mut self.random);
            self.comebacks.push(Reverse((at_us, device)));
        }
    }

    /// The kernel has a request's bytes: until here the agent itself took the time.
    pub(super) fn was_handed_over(&mut self, now_us: u64, token: Token) {
        let Some(operation) = self.operations.find(token) else { return };
        if let (Some(_), false, Some(phase)) = (operation.stream, operation.held_up, &mut self.phase) {
            phase.figures.lag.record(now_us.saturating_sub(operation.due_us));
        }
    }

    /// That an operation leaves late from here on is not the agent's doing.
    pub(super) fn hold_up(&mut self, token: Token) {
        if let Some(operation) = self.operations.find(token) {
            operation.held_up = true;
        }
    }

    /// The connection of an operation is gone. What must not be lost is asked again when the device is back.
    pub(super) fn interrupted(&mut self, now_us: u64, token: Token) {
        self.hold_up(token);
        let Some(operation) = self.operations.find(token).copied() else { return };
        match operation.work {
            Work::Send(..) if self.ledger.is_some() => {
                self.hold(token);
                self.devices.of(operation.device).waiting.push_back(token);
            }
            Work::Audit(..) => self.devices.of(operation.device).waiting.push_back(token),
            // Its device is connecting again, and it ends when that has everything.
            Work::ConnectAndCatchUp => {
                let kept = self.devices.of(operation.device);
                kept.open.retain(|open| *open != token);
                kept.connecting = Some(token);
            }
            _ => self.end(now_us, token, Err("lost")),
        }
    }

    pub(super) fn was_refused(&mut self, now_us: u64, token: Token, code: &str, retry_after_us: Option<u64>) {
        let Some(operation) = self.operations.find(token).copied() else { return };
        self.hold_up(token);
        // What others are built on is asked again, as are messages that must not be lost, and what a device missed.
        let again = match operation.work {
            Work::Open(_) | Work::CatchUp => true,
            Work::Send(..) | Work::Audit(..) => self.ledger.is_some(),
            _ => false,
        };
        match retry_after_us {
            Some(after_us) if again => {
                if let Some(phase) = &mut self.phase {
                    phase.figures.second.errors += 1;
                }
                self.hold(token);
                self.retries.push(Reverse((now_us + after_us.max(RETRY_US), token)));
                self.fill_place(operation.device);
            }
            _ => self.end(now_us, token, Err(code)),
        }
    }

    /// An operation is over.
    pub(super) fn end(&mut self, now_us: u64, token: Token, outcome: Result<(), &str>) {
        let Some(operation) = self.operations.end(token) else { return };
        let kept = self.devices.of(operation.device);
        kept.open.retain(|open| *open != token);
        let heals_again = operation.work == Work::CatchUp && std::mem::take(&mut kept.heal_again);
        if operation.work == Work::CatchUp {
            kept.healing = false;
        }
        if matches!(operation.work, Work::CatchUp | Work::ConnectAndCatchUp) && outcome.is_ok() {
            kept.missed = 0;
        }
        if let Work::Audit(room, _) = operation.work {
            self.audit.page_ended(room, outcome);
        }
        self.fill_place(operation.device);
        if let Work::Send(room, _) = operation.work {
            let cause = if outcome.is_ok() { GoOn::Accepted } else { GoOn::Asked };
            self.go_on(operation.device, room, cause);
        }
        if heals_again {
            self.heal(now_us, operation.device);
        }
        let is_spared = matches!(operation.work, Work::Send(..)) && self.is_spared(operation.device);
        let (Some(number), Some(phase)) = (operation.stream, &mut self.phase) else { return };
        phase.streams[number].ended();
        let latency_us = now_us.saturating_sub(operation.due_us);
        let figures = &mut phase.figures;
        match outcome {
            Ok(()) => {
                figures.second.succeeded += 1;
                figures.second.latency.record(latency_us);
            }
            Err(_) => figures.second.errors += 1,
        }
        if operation.measured {
            let stream = &mut figures.streams[number];
            match outcome {
                Ok(()) => {
                    stream.succeeded += 1;
                    stream.answer.record(latency_us);
                    if is_spared {
                        stream.spared.record(latency_us);
                    }
                }
                Err(code) => *stream.errors.entry(code.to_owned()).or_default() += 1,
            }
        }
    }

    /// Whether a device began at a gateway that no fault of the plan ends, though there are some. What becomes of it later
    /// does not matter: who leaves out those whom a gateway that stays sheds flatters it, and who begins while the hit one
    /// is away is not spared for having come to another one.
    fn is_spared(&self, device: DeviceIndex) -> bool {
        let home = self.devices.look(device).home;
        !self.hit.is_empty() && home.is_some_and(|home| !self.hit.contains(&home))
    }

    pub(super) fn was_accepted(&mut self, now_us: u64, token: Token, seq: Option<u64>) {
        let Some(operation) = self.operations.find(token).copied() else { return };
        if let Work::Send(room, message) = operation.work {
            if let Some(ledger) = &mut self.ledger {
                ledger.accepted(room, message, seq);
            }
            if let Some(seq) = seq {
                self.tops.entry((operation.device, room)).or_default().take(seq);
            }
            self.count_missed(room, operation.device);
        }
        self.end(now_us, token, Ok(()));
    }

    /// Devices that are away will have to fetch this one.
    pub(super) fn count_missed(&mut self, room: RoomIndex, sender: DeviceIndex) {
        if self.devices.ready == u64::from(self.devices.count()) {
            return;
        }
        for member in self.people.room(room).members() {
            for device in self.people.devices_of_user(member) {
                let kept = self.devices.of(device);
                kept.missed += u64::from(kept.stage != Stage::Ready && device != sender);
            }
        }
    }

    pub(super) fn has_come(&mut self, now_us: u64, device: DeviceIndex, message: &Message) {
        let Some(stamp) = Stamp::read(&message.body).filter(|stamp| stamp.run == self.run) else {
            if let Some(seq) = message.seq {
                self.tops.entry((device, message.room)).or_default().take(seq);
            }
            return;
        };
        let room = message.room;
        let is_new = match message.seq {
            Some(seq) => {
                let top = self.tops.entry((device, room)).or_default();
                let is_new = top.take(seq);
                if is_new && !std::mem::replace(&mut top.cursor_due, true) {
                    self.delivered.push_back((now_us + DELIVERED_AFTER_US, device, room));
                }
                is_new
            }
            None => true,
        };
        if let Some(ledger) = &mut self.ledger
            && ledger.received(room, device, message.seq, stamp.into()).is_err()
            && let Some(phase) = &mut self.phase
        {
            phase.figures.ledger_full = true;
        }
        if is_new && stamp.sender != device {
            self.count_delivery(now_us, room, &stamp, device);
        }
    }

    pub(super) fn count_delivery(
        &mut self,
        now_us: u64,
        room: RoomIndex,
        stamp: &Stamp,
        device: DeviceIndex,
    ) {
        let Some(phase) = &mut self.phase else { return };
        let is_direct = self.people.room(room).is_direct();
        let action = if is_direct { ActionName::SendDirect } else { ActionName::SendGroup };
        let sent_now = stamp.due_us >= phase.measure_from_us && stamp.due_us < phase.end_us;
        if let Some(number) = phase.streams.iter().position(|stream| stream.action == action)
            && sent_now
        {
            let stream = &mut phase.figures.streams[number];
            stream.deliveries += 1;
            if !self.devices.look(device).slowed {
                stream.delivery.record(now_us.saturating_sub(stamp.due_us));
            }
            return;
        }
        // What a device fetches that was away counts for the stream that made it fetch.
        let catches_up = self.devices.look(device).open.iter().find_map(|token| {
            let operation = self.operations.find(*token)?;
            (operation.work == Work::ConnectAndCatchUp && operation.measured).then_some(operation.stream)?
        });
        if let Some(number) = catches_up {
            phase.figures.streams[number].deliveries += 1;
        }
    }

    pub(super) fn take_protocol_event(&mut self, now_us: u64, device: DeviceIndex, event: ProtocolEvent) {
        match event {
            ProtocolEvent::Ready => self.became_ready(now_us, device),
            ProtocolEvent::Done(token) | ProtocolEvent::CaughtUp(token) => self.end(now_us, token, Ok(())),
            ProtocolEvent::Accepted { token, seq } => self.was_accepted(now_us, token, seq),
            ProtocolEvent::PredecessorMissing(token) => self.lacked_predecessor(token),
            ProtocolEvent::Message(message) => self.has_come(now_us, device, &message),
            ProtocolEvent::Page { token, messages } => self.take_page(now_us, token, &messages),
            ProtocolEvent::SyncNeeded => self.heal(now_us, device),
            ProtocolEvent::Refused { token: Some(token), code, retryable, retry_after_ms } => {
                let after_us = retryable.then_some(u64::from(retry_after_ms) * 1_000);
                self.was_refused(now_us, token, &code, after_us);
            }
            ProtocolEvent::Closing { code, retry_after_ms, go_to } => {
                let told = Told::new(now_us, retry_after_ms, &go_to);
                self.was_told(told, device, &code, go_to);
            }
            ProtocolEvent::Refused { token: None, code, .. } => {
                if let Some(phase) = &mut self.phase {
                    phase.figures.lose(&code);
                }
            }
        }
    }

    pub(super) fn take_page(&mut self, now_us: u64, token: Token, messages: &[Message]) {
        let Some(operation) = self.operations.find(token).copied() else { return };
        if let Work::Audit(room, _) = operation.work {
            let run = self.run;
            let ours = messages.iter().filter_map(|message| {
                let stamp = Stamp::read(&message.body).filter(|stamp| stamp.run == run)?;
                Some((message.seq, MessageKey::from(stamp)))
            });
            if let Some(ledger) = &mut self.ledger {
                ledger.history(room, ours);
            }
            self.audit.page_came(room, messages.first().and_then(|message| message.seq));
        }
        self.end(now_us, token, Ok(()));
    }

    pub(super) fn tell_cursors(&mut self, now_us: u64) {
        while let Some((due_us, device, room)) = self.delivered.front().copied()
            && due_us <= now_us
        {
            self.delivered.pop_front();
            let Some(top) = self.tops.get_mut(&(device, room)) else { continue };
            top.cursor_due = false;
            let seq = top.contiguous;
            if seq > 0 && self.devices.can_act(device) {
                self.request(Operation::own(device, Work::Delivered(room, seq), due_us));
            }
        }
    }
}

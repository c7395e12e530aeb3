//! What a device sends into one room keeps its order, as in the native client's outbox.
//!
//! ```text
//! InOrder ── all before it are asked, or over ────────────────▶ Asked
//! Asked ──── accepted, or refused for good ───────────────────▶ over
//! Asked ──── refused for now, without a place or a way ───────▶ Held
//! Held ───── its time, its place or its connection has come ──▶ InOrder
//! Asked ──── refused: the one before it is missing ───────────▶ Alone
//! Alone ──── one before it was accepted, or none is left ─────▶ InOrder
//! ```
//!
//! A message goes when all before it in its room are asked or over, and names the one right before it while that one
//! has no answer: whatever is lost, refused or repeated on the way, the server cannot number it below that one. After
//! a refusal that says that the one before it is missing, those behind wait until one is accepted, so that a server
//! which is busy taking over is not asked in vain for each of them.
//!
//! Called by [`AgentLoad`] when a message begins, is refused, is over, or may go again. Refuses to know of time: who
//! waits for a moment or for a connection is kept in `retries` and in the devices' `waiting`.

use super::devices::Stage;
use super::machine::AgentLoad;
use super::operations::Work;
use crate::agent::protocol::Token;
use crate::workload::population::{DeviceIndex, RoomIndex};

/// How far a message on its way is. What is no message asks nobody and stays as it was begun.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Flight {
    /// It goes once all before it in its room are asked, or over.
    #[default]
    InOrder,
    /// The engine or the server has it: an answer will come, or a loss.
    Asked,
    /// It goes when its time has come, or when its connection is back or has a place.
    Held,
    /// Refused since the one before it is missing: it goes once one before it was accepted, or none is left.
    Alone,
}

/// Why messages that wait for others go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum GoOn {
    /// One before them was asked, or is over without having been accepted.
    Asked,
    /// One before them was accepted: the server takes messages again.
    Accepted,
}

/// Whether it is a message's turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Turn {
    /// It goes now, and names this one of the device's messages; `None`: all before it have their answers.
    Now(Option<u64>),
    /// One before it is not asked itself.
    Later,
}

impl AgentLoad {
    /// A message wants to be asked. It counts as asked from now on if it is its turn.
    pub(super) fn take_turn(&mut self, token: Token, device: DeviceIndex, room: RoomIndex) -> Turn {
        let mut turn = Turn::Now(None);
        for other in &self.devices.look(device).open {
            if *other == token {
                break;
            }
            let Some(before) = self.operations.find(*other) else { continue };
            match before.work {
                Work::Send(into, _) if into == room && before.flight != Flight::Asked => {
                    turn = Turn::Later;
                    break;
                }
                Work::Send(into, message) if into == room => turn = Turn::Now(Some(message.number)),
                _ => {}
            }
        }
        if let Some(operation) = self.operations.find(token) {
            operation.flight = if turn == Turn::Later { Flight::InOrder } else { Flight::Asked };
            // That it leaves late is those before it, and no doing of the agent's.
            operation.held_up |= turn == Turn::Later;
        }
        turn
    }

    /// An operation waits for its time, its connection, or a place in it.
    pub(super) fn hold(&mut self, token: Token) {
        if let Some(operation) = self.operations.find(token) {
            (operation.flight, operation.held_up) = (Flight::Held, true);
        }
    }

    /// Asks again for what was held. Of messages only one that is still held: others were asked meanwhile, or wait for
    /// one before them. False: nothing was asked.
    pub(super) fn ask_again(&mut self, token: Token) -> bool {
        let Some(operation) = self.operations.find(token).copied() else { return false };
        let Work::Send(room, _) = operation.work else { return self.ask(token) };
        if operation.flight != Flight::Held || !self.ask(token) {
            return false;
        }
        self.go_on(operation.device, room, GoOn::Asked);
        true
    }

    /// A connection has a place again: the first of those that wait and may go takes it.
    pub(super) fn fill_place(&mut self, device: DeviceIndex) {
        while self.devices.look(device).stage == Stage::Ready
            && let Some(waiting) = self.devices.of(device).waiting.pop_front()
        {
            if self.ask_again(waiting) {
                return;
            }
        }
    }

    /// Whether something else of a device is under way, which will end and make room.
    pub(super) fn is_to_make_room(&mut self, device: DeviceIndex, token: Token) -> bool {
        for other in &self.devices.look(device).open {
            let Some(operation) = self.operations.find(*other) else { continue };
            let waits = matches!(operation.work, Work::Send(..)) && operation.flight != Flight::Asked;
            if *other != token && !waits {
                return true;
            }
        }
        false
    }

    /// The server has not applied the message that this one named: both go again, in order. Also without a ledger,
    /// since it is not this one that the server would not take.
    pub(super) fn lacked_predecessor(&mut self, token: Token) {
        let Some(operation) = self.operations.find(token) else { return };
        let Work::Send(room, _) = operation.work else { return };
        (operation.flight, operation.held_up) = (Flight::Alone, true);
        let device = operation.device;
        if let Some(phase) = &mut self.phase {
            phase.figures.second.errors += 1;
        }
        // The one before it may be what waits for a place.
        self.fill_place(device);
        self.go_on(device, room, GoOn::Asked);
    }

    /// Asks for the messages of a device into a room that waited for others and do so no more.
    pub(super) fn go_on(&mut self, device: DeviceIndex, room: RoomIndex, cause: GoOn) {
        if self.devices.look(device).stage != Stage::Ready {
            return;
        }
        let mut going = Vec::new();
        let mut is_first = true;
        for token in &self.devices.look(device).open {
            let Some(operation) = self.operations.find(*token) else { continue };
            if !matches!(operation.work, Work::Send(into, _) if into == room) {
                continue;
            }
            match operation.flight {
                Flight::Asked => {}
                Flight::InOrder => going.push(*token),
                Flight::Alone if is_first || cause == GoOn::Accepted => going.push(*token),
                Flight::Alone | Flight::Held => break,
            }
            is_first = false;
        }
        for token in going {
            self.ask(token);
        }
    }
}

#[cfg(test)]
mod tests;

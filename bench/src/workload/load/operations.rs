//! What was begun and is not over: one record an operation, in a slab.

use super::sending::Flight;
use crate::agent::protocol::Token;
use crate::workload::ledger::MessageKey;
use crate::workload::population::{DeviceIndex, RoomIndex};

/// What is being done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Work {
    /// Until the device is ready.
    Connect,
    /// Until the device is ready and has everything.
    ConnectAndCatchUp,
    /// Of a device that is ready.
    CatchUp,
    Open(RoomIndex),
    Send(RoomIndex, MessageKey),
    History(RoomIndex),
    Read(RoomIndex, u64),
    Delivered(RoomIndex, u64),
    /// A page of the room's history for the ledger, below this number.
    Audit(RoomIndex, Option<u64>),
}

/// One operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Operation {
    pub(super) device: DeviceIndex,
    pub(super) work: Work,
    /// Place among the running phase's streams; `None`: nobody asked for it, it is the device's own.
    pub(super) stream: Option<usize>,
    /// When it should have begun.
    pub(super) due_us: u64,
    /// Whether it fell due within the measured time.
    pub(super) measured: bool,
    /// The server had no place for it at first, or its connection was lost: that it leaves late is not the agent's
    /// doing.
    pub(super) held_up: bool,
    /// How far a message is on its way.
    pub(super) flight: Flight,
}

impl Operation {
    /// What a device does of its own, or to prepare: no stream's, and not measured.
    pub(super) fn own(device: DeviceIndex, work: Work, due_us: u64) -> Self {
        let (stream, measured, held_up, flight) = (None, false, false, Flight::InOrder);
        Self { device, work, stream, due_us, measured, held_up, flight }
    }
}

/// A slab; tokens are told apart by a generation, so that late answers find nothing.
#[derive(Debug, Default)]
pub(super) struct Operations {
    places: Vec<(u32, Option<Operation>)>,
    free: Vec<u32>,
}

impl Operations {
    pub(super) fn begin(&mut self, operation: Operation) -> Token {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push((0, None));
            self.places.len() as u32 - 1
        });
        let (generation, kept) = &mut self.places[place as usize];
        *kept = Some(operation);
        Token(u64::from(*generation) << 32 | u64::from(place))
    }

    pub(super) fn find(&mut self, token: Token) -> Option<&mut Operation> {
        let (generation, kept) = self.places.get_mut(token.0 as u32 as usize)?;
        if u64::from(*generation) == token.0 >> 32 { kept.as_mut() } else { None }
    }

    /// It is over.
    pub(super) fn end(&mut self, token: Token) -> Option<Operation> {
        let operation = *self.find(token)?;
        let (generation, kept) = &mut self.places[token.0 as u32 as usize];
        (*generation, *kept) = (generation.wrapping_add(1), None);
        self.free.push(token.0 as u32);
        Some(operation)
    }

    pub(super) fn count(&self) -> usize {
        self.places.len() - self.free.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Token, &Operation)> {
        self.places.iter().enumerate().filter_map(|(place, (generation, kept))| {
            kept.as_ref().map(|kept| (Token(u64::from(*generation) << 32 | place as u64), kept))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_answer_finds_nothing() {
        let operation = Operation::own(DeviceIndex(1), Work::Connect, 0);
        let mut operations = Operations::default();
        let first = operations.begin(operation);
        assert_eq!(operations.end(first), Some(operation));
        let second = operations.begin(Operation { device: DeviceIndex(2), ..operation });
        assert_eq!((operations.end(first), operations.find(first)), (None, None));
        assert_eq!(operations.iter().map(|(token, _)| token).collect::<Vec<_>>(), [second]);
        assert_eq!(operations.count(), 1);
    }
}

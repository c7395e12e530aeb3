//! The table of direct descriptors as we know it: who holds each slot, and what is in flight for it.

use super::operation::{Operation, Tag};

/// A connection of one ring. The generation tells it from earlier holders of the slot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SlotToken {
    /// Index in the table of descriptors.
    pub slot: u32,
    /// Counts holders of the slot, wrapping.
    pub generation: u32,
}

impl SlotToken {
    pub(super) fn of(tag: Tag) -> Self {
        Self { slot: tag.slot, generation: tag.generation }
    }

    pub(super) fn tag(self, operation: Operation) -> Tag {
        Tag::new(operation, self.slot, self.generation)
    }
}

/// Where a slot is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// Nobody's.
    Free,
    /// Known to the layers above.
    Open,
    /// Closed; operations are still in flight.
    Draining,
}

/// State of the multishot receive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Receiving {
    /// Not in flight.
    No,
    /// In flight.
    Armed,
    /// In flight, and being cancelled.
    Cancelling,
    /// Not in flight for want of buffers.
    Starved,
    /// Over for good.
    Ended,
}

/// One slot. `receive_wanted` is meant for open connections; `sending` and `installing` say what is in flight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub generation: u32,
    pub state: State,
    pub receiving: Receiving,
    pub receive_wanted: bool,
    pub sending: bool,
    pub installing: bool,
}

/// All slots of a ring.
pub(super) struct Slots {
    /// Grows as the kernel takes slots, which it does from the lowest on; never beyond `slots_max`.
    slots: Vec<Slot>,
    slots_max: u32,
    open_count: u32,
}

impl Slots {
    pub(super) fn new(slots_max: u32) -> Self {
        // Reserved, not touched: memory is used as slots are.
        Self { slots: Vec::with_capacity(slots_max as usize), slots_max, open_count: 0 }
    }

    /// Slots that are not free.
    pub(super) fn open_count(&self) -> u32 {
        self.open_count
    }

    /// The kernel has put a new connection into the slot.
    pub(super) fn occupy(&mut self, index: u32) -> SlotToken {
        assert!(index < self.slots_max, "the kernel keeps to the table");
        let free = Slot {
            generation: 0,
            state: State::Free,
            receiving: Receiving::No,
            receive_wanted: true,
            sending: false,
            installing: false,
        };
        if index as usize >= self.slots.len() {
            self.slots.resize(index as usize + 1, free);
        }
        let slot = &mut self.slots[index as usize];
        assert!(slot.state == State::Free, "the kernel gives a slot to one connection at a time");
        let generation = slot.generation.wrapping_add(1);
        *slot = Slot { generation, state: State::Open, ..free };
        self.open_count += 1;
        SlotToken { slot: index, generation }
    }

    /// The slot, if the connection still holds it, closed or not.
    pub(super) fn occupied_mut(&mut self, token: SlotToken) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(token.slot as usize)?;
        (slot.generation == token.generation && slot.state != State::Free).then_some(slot)
    }

    /// The slot, if the connection is open.
    pub(super) fn open_mut(&mut self, token: SlotToken) -> Option<&mut Slot> {
        self.occupied_mut(token).filter(|slot| slot.state == State::Open)
    }

    /// Frees a closed slot for which nothing is in flight; its generation, if so.
    pub(super) fn release_if_quiet(&mut self, index: u32) -> Option<u32> {
        let slot = self.slots.get_mut(index as usize)?;
        let in_flight = slot.sending
            || slot.installing
            || matches!(slot.receiving, Receiving::Armed | Receiving::Cancelling);
        if slot.state != State::Draining || in_flight {
            return None;
        }
        slot.state = State::Free;
        self.open_count -= 1;
        Some(slot.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_of_an_earlier_holder_opens_nothing() {
        let mut slots = Slots::new(8);
        let first = slots.occupy(3);
        slots.open_mut(first).expect("open").state = State::Draining;
        assert_eq!(slots.release_if_quiet(3), Some(first.generation));
        assert!(slots.occupied_mut(first).is_none());
        let second = slots.occupy(3);
        assert_ne!(first, second);
        assert!(slots.occupied_mut(first).is_none());
        assert!(slots.occupied_mut(second).is_some());
        assert_eq!(slots.open_count(), 1);
    }

    #[test]
    fn a_slot_is_kept_while_anything_is_in_flight() {
        let mut slots = Slots::new(1);
        let token = slots.occupy(0);
        let slot = slots.occupied_mut(token).expect("held");
        (slot.state, slot.sending) = (State::Draining, true);
        slot.receiving = Receiving::Cancelling;
        assert_eq!(slots.release_if_quiet(0), None);
        slots.occupied_mut(token).expect("held").sending = false;
        assert_eq!(slots.release_if_quiet(0), None);
        slots.occupied_mut(token).expect("held").receiving = Receiving::No;
        assert_eq!(slots.release_if_quiet(0), Some(token.generation));
    }
}

//! A phase's streams: when each acts next, and on whom.

use super::devices::{Devices, Stage};
use super::operations::Work;
use crate::workload::plan::{ActionName, Schedule, Stream};
use crate::workload::population::{DeviceIndex, Population, RoomIndex, Share};
use crate::workload::schedule::DueTimes;
use std::ops::Range;

/// Devices or rooms looked at for one action before it is given up: a turn stays short.
const TRIES_MAX: u32 = 256;

/// Pause of a closed loop for which nobody is online, in microseconds.
const LOOK_AGAIN_US: u64 = 1_000;

/// One stream of the running phase.
#[derive(Debug)]
pub(super) struct StreamState {
    pub(super) action: ActionName,
    pace: Pace,
    stride: u64,
    /// Taken in turn: the next one to look at, counted on without end.
    next: u64,
    /// There is nothing left that it could do.
    pub(super) exhausted: bool,
}

#[derive(Debug)]
enum Pace {
    Open(DueTimes),
    Closed {
        in_flight: u64,
        in_flight_max: u64,
        left: u64,
        /// Nobody was online: not before this moment of the phase, in microseconds.
        not_before_us: u64,
    },
}

/// What a stream does now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Choice {
    /// This, by this device.
    Do(DeviceIndex, Work),
    /// Nobody who could is online.
    Nobody,
    /// Everything was done.
    Nothing,
}

/// What streams choose from.
pub(super) struct Field<'a> {
    pub(super) people: &'a Population,
    pub(super) share: Share,
    pub(super) devices: &'a Devices,
}

impl StreamState {
    pub(super) fn new(stream: &Stream, seconds: f64, share: Share, seed: u64) -> Self {
        let pace = match DueTimes::new(&stream.schedule, seconds, share, seed) {
            Some(due) => Pace::Open(due),
            None => {
                let (in_flight, count) = match &stream.schedule {
                    Schedule::Closed { in_flight, count } => (u64::from(*in_flight), *count),
                    _ => (1, 0),
                };
                let part = |whole: u64| {
                    let part = share.part(whole);
                    part.end - part.start
                };
                let left = if count == 0 { u64::MAX } else { part(count) };
                Pace::Closed { in_flight: 0, in_flight_max: part(in_flight), left, not_before_us: 0 }
            }
        };
        let stride = u64::from(stream.stride.max(1));
        Self { action: stream.action, pace, stride, next: 0, exhausted: false }
    }

    /// Whether latency counts from due times.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.pace, Pace::Open(_))
    }

    /// When it acts next, from the phase's start.
    pub(super) fn next_us(&self) -> Option<u64> {
        match &self.pace {
            _ if self.exhausted => None,
            Pace::Open(due) => due.peek_us(),
            Pace::Closed { in_flight, in_flight_max, left, not_before_us } => {
                (in_flight < in_flight_max && *left > 0).then_some(*not_before_us)
            }
        }
    }

    /// Nothing more falls due.
    pub(super) fn is_over(&self) -> bool {
        match &self.pace {
            _ if self.exhausted => true,
            Pace::Open(due) => due.peek_us().is_none(),
            Pace::Closed { left, .. } => *left == 0,
        }
    }

    /// Takes its next action. Gives the due moment of an open-loop one.
    pub(super) fn take(&mut self) -> Option<u64> {
        match &mut self.pace {
            Pace::Open(due) => due.take(),
            Pace::Closed { in_flight, left, .. } => {
                *in_flight += 1;
                *left -= 1;
                None
            }
        }
    }

    /// Nobody who could act is online: a closed loop looks again a little later.
    pub(super) fn wait(&mut self, now_us: u64) {
        if let Pace::Closed { not_before_us, .. } = &mut self.pace {
            *not_before_us = now_us + LOOK_AGAIN_US;
        }
    }

    /// One of its operations is over.
    pub(super) fn ended(&mut self) {
        if let Pace::Closed { in_flight, .. } = &mut self.pace {
            *in_flight -= 1;
        }
    }

    /// Whom and what.
    pub(super) fn choose(&mut self, field: &Field<'_>) -> Choice {
        match self.action {
            ActionName::Connect => self.choose_device(field, Work::Connect, |device| {
                device.stage == Stage::Offline && !device.wanted
            }),
            ActionName::CatchUp => self.choose_device(field, Work::ConnectAndCatchUp, |device| {
                device.stage == Stage::Offline && !device.wanted
            }),
            ActionName::Reconnect => {
                // Not in the middle of something: what it has under way would be lost for the figures of others.
                let idle = |device: &super::devices::Device| {
                    device.stage == Stage::Ready && device.open.is_empty() && !device.paused
                };
                self.choose_device(field, Work::Connect, idle)
            }
            ActionName::Disconnect => self.choose_device(field, Work::Connect, |device| {
                device.stage == Stage::Ready && device.open.is_empty()
            }),
            ActionName::OpenRoom => self.choose_unopened(field),
            ActionName::SendDirect => {
                self.choose_room(field, Kind::Direct, |room, _| Work::Send(room, NO_MESSAGE))
            }
            ActionName::SendGroup => {
                self.choose_room(field, Kind::Group, |room, _| Work::Send(room, NO_MESSAGE))
            }
            ActionName::History => self.choose_room(field, Kind::Any, |room, _| Work::History(room)),
            ActionName::Read => self.choose_room(field, Kind::Any, |room, _| Work::Read(room, 0)),
        }
    }

    /// The next device, in turn, of those that fit. A full round without one: there is none.
    fn choose_device(
        &mut self,
        field: &Field<'_>,
        work: Work,
        fits: impl Fn(&super::devices::Device) -> bool,
    ) -> Choice {
        let count = u64::from(field.devices.count());
        for _ in 0..count.div_ceil(self.stride) {
            let device = field.devices.at((self.next % count) as u32);
            self.next += self.stride;
            if fits(field.devices.look(device)) {
                return Choice::Do(device, work);
            }
        }
        Choice::Nothing
    }

    /// Each room once, by its first member's first device that is online.
    fn choose_unopened(&mut self, field: &Field<'_>) -> Choice {
        let rooms = field.people.rooms_of(field.share);
        let Some(room) = nth(&rooms, self.next) else { return Choice::Nothing };
        let creator = field.people.room(room).member(0);
        match field.people.devices_of_user(creator).find(|device| field.devices.can_act(*device)) {
            Some(device) => {
                self.next += 1;
                Choice::Do(device, Work::Open(room))
            }
            None => Choice::Nobody,
        }
    }

    /// The next room of the kind; in each round another member, and another of the member's devices.
    fn choose_room(
        &mut self,
        field: &Field<'_>,
        kind: Kind,
        work: impl Fn(RoomIndex, DeviceIndex) -> Work,
    ) -> Choice {
        let rooms = field.people.rooms_of(field.share);
        let count = u64::from(rooms.end - rooms.start);
        for _ in 0..TRIES_MAX {
            if count == 0 {
                break;
            }
            let (place, round) = (self.next % count, self.next / count);
            self.next += 1;
            let index = RoomIndex(rooms.start + place as u32);
            let room = field.people.room(index);
            let fits = match kind {
                Kind::Direct => room.is_direct(),
                Kind::Group => !room.is_direct(),
                Kind::Any => true,
            };
            if !fits {
                continue;
            }
            let members = u64::from(room.member_count());
            let member = room.member(((round + place) % members) as u32);
            let devices: Vec<DeviceIndex> = field.people.devices_of_user(member).collect();
            let start = (round / members) as usize;
            for turn in 0..devices.len() {
                let device = devices[(start + turn) % devices.len()];
                if field.devices.can_act(device) {
                    return Choice::Do(device, work(index, device));
                }
            }
        }
        Choice::Nobody
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Direct,
    Group,
    Any,
}

/// Filled in when the message is made.
const NO_MESSAGE: crate::workload::ledger::MessageKey =
    crate::workload::ledger::MessageKey { sender: DeviceIndex(0), number: 0 };

fn nth(rooms: &Range<u32>, place: u64) -> Option<RoomIndex> {
    let room = u64::from(rooms.start) + place;
    (room < u64::from(rooms.end)).then_some(RoomIndex(room as u32))
}

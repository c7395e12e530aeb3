//! What the load knows of each of its devices.

use super::returning::{Told, Way};
use crate::agent::protocol::{TargetIndex, Token};
use crate::workload::population::DeviceIndex;
use std::collections::VecDeque;

/// How far a device is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Stage {
    #[default]
    Offline,
    Connecting,
    Ready,
}

/// One device. Nothing is allocated for one that is idle.
#[derive(Debug, Default)]
pub(super) struct Device {
    pub(super) stage: Stage,
    /// Whether it is to come back when its connection is lost.
    pub(super) wanted: bool,
    pub(super) paused: bool,
    /// The plan made it stop reading in this phase: how late its messages come is the plan's doing.
    pub(super) slowed: bool,
    /// Tries since it was last ready.
    pub(super) tries: u32,
    /// Where it went first of all; `None`: nowhere yet.
    pub(super) home: Option<TargetIndex>,
    /// Where it goes next.
    pub(super) way: Way,
    /// The server's last words on its connection, whose end follows.
    pub(super) told: Option<Told>,
    /// When it was lost without having been asked to.
    pub(super) lost_us: Option<u64>,
    /// The operation that ends when it is ready.
    pub(super) connecting: Option<Token>,
    /// Messages it has sent: the next one's number less one.
    pub(super) messages: u64,
    /// Messages for it that were accepted while it was away.
    pub(super) missed: u64,
    /// It is catching up of its own accord.
    pub(super) healing: bool,
    /// It was told to catch up while it did: what it had been told by then may be too old.
    pub(super) heal_again: bool,
    /// Begun and not over, oldest first.
    pub(super) open: VecDeque<Token>,
    /// Of those, not written yet: the connection had no place for them, or was gone.
    pub(super) waiting: VecDeque<Token>,
}

/// All devices of an agent, by their place in the run.
#[derive(Debug)]
pub(super) struct Devices {
    first: u32,
    list: Vec<Device>,
    /// Ready ones.
    pub(super) ready: u64,
}

impl Devices {
    pub(super) fn new(range: std::ops::Range<u32>) -> Self {
        let list = range.clone().map(|_| Device::default()).collect();
        Self { first: range.start, list, ready: 0 }
    }

    pub(super) fn count(&self) -> u32 {
        self.list.len() as u32
    }

    pub(super) fn at(&self, place: u32) -> DeviceIndex {
        DeviceIndex(self.first + place)
    }

    pub(super) fn of(&mut self, device: DeviceIndex) -> &mut Device {
        &mut self.list[(device.0 - self.first) as usize]
    }

    pub(super) fn look(&self, device: DeviceIndex) -> &Device {
        &self.list[(device.0 - self.first) as usize]
    }

    /// Ready, and reading.
    pub(super) fn can_act(&self, device: DeviceIndex) -> bool {
        let device = self.look(device);
        device.stage == Stage::Ready && !device.paused
    }
}

//! The end of a run with a ledger: every device fetches what it lacks, every room's history is read through, and
//! then everything is compared.

use super::devices::Stage;
use super::machine::AgentLoad;
use super::operations::{Operation, Work};
use crate::report::results::LedgerResult;
use crate::workload::population::{DeviceIndex, RoomIndex};
use std::collections::{BTreeMap, VecDeque};

/// Devices that catch up, or rooms that are read, at the same time.
const AT_A_TIME_MAX: usize = 256;

/// How far the comparison is.
#[derive(Debug, Default)]
pub(super) struct Audit {
    stage: AuditStage,
    devices: VecDeque<DeviceIndex>,
    rooms: VecDeque<RoomIndex>,
    /// Rooms being read: where to go on, once the page that runs has ended.
    reading: BTreeMap<RoomIndex, Reading>,
    problems: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum AuditStage {
    #[default]
    NotBegun,
    /// Devices come online and fetch.
    Fetching,
    /// Histories are read.
    Reading,
    Done,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reading {
    Page,
    /// The next page ends below this number.
    Below(u64),
    End,
}

impl Audit {
    /// A page came: its lowest number, `None` for an empty one.
    pub(super) fn page_came(&mut self, room: RoomIndex, lowest: Option<u64>) {
        let next = match lowest {
            Some(seq) if seq > 1 => Reading::Below(seq),
            _ => Reading::End,
        };
        self.reading.insert(room, next);
    }

    /// The page is over, with or without success.
    pub(super) fn page_ended(&mut self, room: RoomIndex, outcome: Result<(), &str>) {
        if let Err(code) = outcome {
            self.reading.insert(room, Reading::End);
            // A protocol without history is held to what devices received.
            if code != "unsupported" {
                self.problems.push(format!("{room:?}: its history cannot be read: {code}"));
            }
        }
    }
}

impl AgentLoad {
    /// Begins the comparison. To be called between phases.
    pub fn settle(&mut self) {
        let Some(ledger) = &self.ledger else { return };
        let rooms: Vec<RoomIndex> = ledger.rooms().collect();
        let mut devices: Vec<DeviceIndex> = Vec::new();
        for room in &rooms {
            devices.extend(self.devices_of_room(*room));
        }
        devices.sort_unstable();
        devices.dedup();
        self.audit = Audit {
            stage: AuditStage::Fetching,
            devices: devices.into(),
            rooms: rooms.into(),
            ..Audit::default()
        };
    }

    fn devices_of_room(&self, room: RoomIndex) -> Vec<DeviceIndex> {
        let members = self.people.room(room).members();
        members.flat_map(|member| self.people.devices_of_user(member)).collect()
    }

    /// Goes on; the balance once everything is read. `None` and nothing left to do: there is no ledger.
    pub fn take_settled(&mut self, now_us: u64) -> Option<LedgerResult> {
        match self.audit.stage {
            AuditStage::NotBegun | AuditStage::Done => return None,
            AuditStage::Fetching => {
                while self.operations.count() < AT_A_TIME_MAX
                    && let Some(device) = self.audit.devices.pop_front()
                {
                    self.fetch(now_us, device);
                }
                if self.audit.devices.is_empty() && self.is_quiet() {
                    self.audit.stage = AuditStage::Reading;
                }
            }
            AuditStage::Reading => self.read_histories(now_us),
        }
        if self.audit.stage != AuditStage::Done {
            return None;
        }
        let ledger = self.ledger.as_ref()?;
        let mut result = ledger.balance(|room| self.devices_of_room(room));
        for problem in std::mem::take(&mut self.audit.problems) {
            result.lost += 1;
            result.examples.push(problem);
        }
        Some(result)
    }

    fn fetch(&mut self, now_us: u64, device: DeviceIndex) {
        if self.devices.look(device).stage == Stage::Ready {
            self.heal(now_us, device);
        } else if self.devices.look(device).connecting.is_none() {
            let token = self.operations.begin(Operation::own(device, Work::ConnectAndCatchUp, now_us));
            self.devices.of(device).connecting = Some(token);
            self.come_online(device);
        }
    }

    fn read_histories(&mut self, now_us: u64) {
        let ready: Vec<(RoomIndex, Reading)> =
            self.audit.reading.iter().map(|(room, reading)| (*room, *reading)).collect();
        for (room, reading) in ready {
            match reading {
                Reading::Page => {}
                Reading::Below(seq) => self.read_page(now_us, room, Some(seq)),
                Reading::End => drop(self.audit.reading.remove(&room)),
            }
        }
        while self.audit.reading.len() < AT_A_TIME_MAX
            && let Some(room) = self.audit.rooms.pop_front()
        {
            self.read_page(now_us, room, None);
        }
        if self.audit.reading.is_empty() && self.audit.rooms.is_empty() {
            self.audit.stage = AuditStage::Done;
        }
    }

    fn read_page(&mut self, now_us: u64, room: RoomIndex, before: Option<u64>) {
        let members = self.devices_of_room(room);
        let reader = members.into_iter().find(|device| self.devices.can_act(*device));
        // Nobody is online just now: again in the next round.
        let Some(device) = reader else {
            self.audit.reading.remove(&room);
            if before.is_none() {
                self.audit.rooms.push_back(room);
            } else if let Some(seq) = before {
                self.audit.reading.insert(room, Reading::Below(seq));
            }
            return;
        };
        self.audit.reading.insert(room, Reading::Page);
        self.request(Operation::own(device, Work::Audit(room, before), now_us));
    }
}

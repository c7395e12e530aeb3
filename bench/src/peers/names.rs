//! What users, devices and rooms of a run are called in a peer's own words.
//!
//! A direct room is a message to the other user's inbox, which each of that user's devices listens to; a group is
//! a place that every member listens to. The names carry the room and, in groups, the sender, so that a device
//! knows both without looking into bodies, and leaves its own messages alone where a server sends them back.
//!
//! ```text
//! MQTT   RUN/u/USER/ROOM   RUN/g/ROOM/DEVICE      (NATS: the same with dots)
//! XMPP   rRUNuUSER@localhost   rRUNgROOM@conference.localhost/dDEVICE
//! ```

use crate::workload::population::{DeviceIndex, Population, Room, RoomIndex, UserIndex};
use std::sync::Arc;

/// One device's view of the run. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Names {
    /// Makes the run's names its own: what earlier runs left on a server is not met again.
    pub run_id: u64,
    /// Who this is.
    pub device: DeviceIndex,
    /// Seconds between heartbeats; 0: the server's own.
    pub heartbeat_s: u32,
    /// Everybody.
    pub population: Arc<Population>,
}

/// Whom a message goes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Recipient {
    /// The other one of a direct room.
    User(UserIndex),
    /// Everybody of a group.
    Group,
}

/// Where an incoming message was sent to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// This device's user, or a group it is in.
    Room(RoomIndex),
    /// A group, by this device itself.
    Echo,
}

impl Names {
    /// Whose device this is.
    pub(super) fn user(&self) -> UserIndex {
        self.population.user_of(self.device)
    }

    /// Whom a message into this room goes to.
    pub(super) fn recipient(&self, room: RoomIndex) -> Recipient {
        match self.population.room(room) {
            Room::Direct(a, b) => Recipient::User(if a == self.user() { b } else { a }),
            Room::Group { .. } => Recipient::Group,
        }
    }

    /// Groups that this device's user is in.
    pub(super) fn groups(&self) -> Vec<RoomIndex> {
        let mut rooms = self.population.rooms_of_user(self.user());
        rooms.retain(|room| !self.population.room(*room).is_direct());
        rooms
    }

    /// Name of the run.
    pub(super) fn run(&self) -> String {
        format!("{:x}", self.run_id)
    }

    /// A room as a topic or subject; `separator` stands between its parts.
    pub(super) fn topic(&self, room: RoomIndex, separator: char) -> String {
        let (run, s, device) = (self.run_id, separator, self.device.0);
        match self.recipient(room) {
            Recipient::User(user) => format!("{run:x}{s}u{s}{}{s}{}", user.0, room.0),
            Recipient::Group => format!("{run:x}{s}g{s}{}{s}{device}", room.0),
        }
    }

    /// What this device listens to; `any` stands for whatever one part may be.
    pub(super) fn filters(&self, separator: char, any: char) -> Vec<String> {
        let (run, s) = (self.run_id, separator);
        let mut filters = vec![format!("{run:x}{s}u{s}{}{s}{any}", self.user().0)];
        filters.extend(self.groups().iter().map(|room| format!("{run:x}{s}g{s}{}{s}{any}", room.0)));
        filters
    }

    /// Reads [`Self::topic`]; `None`: not one that this device listens to.
    pub(super) fn place(&self, topic: &str, separator: char) -> Option<Place> {
        let mut parts = topic.split(separator);
        let (run, kind) = (parts.next()?, parts.next()?);
        let (first, second) = (parts.next()?.parse::<u32>().ok()?, parts.next()?.parse::<u32>().ok()?);
        if parts.next().is_some() || u64::from_str_radix(run, 16) != Ok(self.run_id) {
            return None;
        }
        match kind {
            "u" if first == self.user().0 => Some(Place::Room(RoomIndex(second))),
            "g" if second == self.device.0 => Some(Place::Echo),
            "g" => Some(Place::Room(RoomIndex(first))),
            _ => None,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::workload::plan;

    /// Eight users in one cell: pairs, and a group of all. Rooms 0 to 3 are direct, 4 is the group.
    pub fn names(device: u32) -> Names {
        let shape =
            plan::Population { users: 8, devices: 1, cell_users: 8, directs: 1, groups: 1, group_members: 8 };
        Names {
            run_id: 0x2a,
            device: DeviceIndex(device),
            heartbeat_s: 30,
            population: Arc::new(Population::new(&shape)),
        }
    }

    #[test]
    fn a_topic_is_read_by_those_it_is_for() {
        let (alice, bob) = (names(0), names(1));
        assert_eq!(alice.topic(RoomIndex(0), '/'), "2a/u/1/0");
        assert_eq!(alice.topic(RoomIndex(4), '.'), "2a.g.4.0");
        assert_eq!(bob.filters('/', '+'), ["2a/u/1/+", "2a/g/4/+"]);
        assert_eq!(bob.place("2a/u/1/0", '/'), Some(Place::Room(RoomIndex(0))));
        assert_eq!(bob.place("2a/g/4/0", '/'), Some(Place::Room(RoomIndex(4))));
        assert_eq!(alice.place("2a/g/4/0", '/'), Some(Place::Echo));
        for other in ["2a/u/0/0", "2b/u/1/0", "2a/u/1", "2a/u/1/0/0", "2a/x/1/0", "2a/u/1/y", ""] {
            assert_eq!(bob.place(other, '/'), None, "{other}");
        }
    }
}

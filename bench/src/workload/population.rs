//! Who exists in a run: users, their devices, and the rooms they share. Everything follows from the plan's numbers
//! and an index, so that no agent has to be told what another one has.
//!
//! Users live in *cells*: rooms join users of one cell only, and a cell belongs to one agent, which can therefore
//! account for every message by itself. Where the users of a cell are connected is another matter: targets are
//! given out by user, so that one room's users meet through different gateways.
//!
//! ```text
//! cell c: users c*S .. c*S+S      direct rooms: user i with i+1, i+2, … i+k/2 (around the cell)
//!                                 groups: the first G users of the cell, several times over
//! ```

use super::plan;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Range;

/// A user of the run, 0 to `users` - 1.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct UserIndex(pub u32);

/// A device of the run: user times devices of each user, plus the device's own number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct DeviceIndex(pub u32);

/// A room of the run: those of cell 0 first, in each cell the direct ones first.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct RoomIndex(pub u32);

impl fmt::Display for DeviceIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "device {}", self.0)
    }
}

impl fmt::Display for RoomIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "room {}", self.0)
    }
}

/// Everybody of a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Population {
    users: u32,
    devices: u32,
    cell_users: u32,
    directs: u32,
    groups: u32,
    group_members: u32,
}

/// Who shares a room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Room {
    /// Two users.
    Direct(UserIndex, UserIndex),
    /// Neighbours by index.
    Group {
        /// The first; also who creates it.
        first: UserIndex,
        /// How many.
        count: u32,
        /// Tells the cell's groups apart.
        number: u32,
    },
}

impl Room {
    /// How many users.
    pub fn member_count(&self) -> u32 {
        match self {
            Self::Direct(..) => 2,
            Self::Group { count, .. } => *count,
        }
    }

    /// The member at a place below [`Self::member_count`].
    pub fn member(&self, place: u32) -> UserIndex {
        match self {
            Self::Direct(a, b) => {
                if place == 0 {
                    *a
                } else {
                    *b
                }
            }
            Self::Group { first, .. } => UserIndex(first.0 + place),
        }
    }

    /// All of them; the first one makes the room.
    pub fn members(&self) -> impl Iterator<Item = UserIndex> + use<> {
        let room = *self;
        (0..room.member_count()).map(move |place| room.member(place))
    }

    /// Whether this is one of two.
    pub fn is_direct(&self) -> bool {
        matches!(self, Self::Direct(..))
    }
}

/// Which part of all cells is one agent's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Share {
    /// The agent's place, from 0.
    pub agent: u32,
    /// Agents of the run.
    pub agents: u32,
}

impl Share {
    /// This agent's part of `count` things: consecutive, all agents' parts together are everything.
    pub fn part(&self, count: u64) -> Range<u64> {
        let bound = |agent: u32| count * u64::from(agent) / u64::from(self.agents);
        bound(self.agent)..bound(self.agent + 1)
    }
}

impl Population {
    /// From a checked plan.
    pub fn new(plan: &plan::Population) -> Self {
        let plan::Population { users, devices, cell_users, directs, groups, group_members } = *plan;
        Self { users, devices, cell_users, directs, groups, group_members }
    }

    /// Users of the run.
    pub fn user_count(&self) -> u32 {
        self.users
    }

    /// Cells of the run.
    pub fn cell_count(&self) -> u32 {
        self.users / self.cell_users
    }

    /// Devices of the run.
    pub fn device_count(&self) -> u32 {
        self.users * self.devices
    }

    /// Rooms of the run.
    pub fn room_count(&self) -> u32 {
        self.cell_count() * self.rooms_of_cell()
    }

    fn directs_of_cell(&self) -> u32 {
        if self.directs == 1 { self.cell_users / 2 } else { self.cell_users * (self.directs / 2) }
    }

    fn rooms_of_cell(&self) -> u32 {
        self.directs_of_cell() + self.groups
    }

    /// Cells of an agent.
    pub fn cells_of(&self, share: Share) -> Range<u32> {
        let part = share.part(u64::from(self.cell_count()));
        part.start as u32..part.end as u32
    }

    /// Users of an agent.
    pub fn users_of(&self, share: Share) -> Range<u32> {
        let cells = self.cells_of(share);
        cells.start * self.cell_users..cells.end * self.cell_users
    }

    /// Devices of an agent.
    pub fn devices_of(&self, share: Share) -> Range<u32> {
        let users = self.users_of(share);
        users.start * self.devices..users.end * self.devices
    }

    /// Rooms of an agent.
    pub fn rooms_of(&self, share: Share) -> Range<u32> {
        let cells = self.cells_of(share);
        cells.start * self.rooms_of_cell()..cells.end * self.rooms_of_cell()
    }

    /// Who shares a room of the run.
    pub fn room(&self, room: RoomIndex) -> Room {
        let cell = room.0 / self.rooms_of_cell();
        let place = room.0 % self.rooms_of_cell();
        let user = |number: u32| UserIndex(cell * self.cell_users + number % self.cell_users);
        if let Some(number) = place.checked_sub(self.directs_of_cell()) {
            return Room::Group { first: user(0), count: self.group_members, number };
        }
        if self.directs == 1 {
            return Room::Direct(user(2 * place), user(2 * place + 1));
        }
        let half = self.directs / 2;
        Room::Direct(user(place / half), user(place / half + 1 + place % half))
    }

    /// Rooms of a user.
    pub fn rooms_of_user(&self, user: UserIndex) -> Vec<RoomIndex> {
        let (cell, number) = (user.0 / self.cell_users, user.0 % self.cell_users);
        let first = cell * self.rooms_of_cell();
        let mut rooms = Vec::new();
        if self.directs == 1 {
            rooms.push(RoomIndex(first + number / 2));
        } else {
            let half = self.directs / 2;
            for step in 1..=half {
                rooms.push(RoomIndex(first + number * half + step - 1));
                let other = (number + self.cell_users - step) % self.cell_users;
                rooms.push(RoomIndex(first + other * half + step - 1));
            }
        }
        if number < self.group_members {
            let groups = first + self.directs_of_cell()..first + self.rooms_of_cell();
            rooms.extend(groups.map(RoomIndex));
        }
        rooms
    }

    /// Whose device it is.
    pub fn user_of(&self, device: DeviceIndex) -> UserIndex {
        UserIndex(device.0 / self.devices)
    }

    /// A user's devices.
    pub fn devices_of_user(&self, user: UserIndex) -> impl Iterator<Item = DeviceIndex> + use<> {
        let first = user.0 * self.devices;
        (first..first + self.devices).map(DeviceIndex)
    }

    /// The device's number among its user's, from 0.
    pub fn device_number(&self, device: DeviceIndex) -> u32 {
        device.0 % self.devices
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn population(numbers: [u32; 6]) -> Population {
        let [users, devices, cell_users, directs, groups, group_members] = numbers;
        Population { users, devices, cell_users, directs, groups, group_members }
    }

    #[test]
    fn every_user_has_the_promised_rooms_and_no_room_is_there_twice() {
        for numbers in
            [[12, 1, 2, 1, 0, 0], [42, 2, 21, 20, 2, 8], [44, 1, 22, 4, 1, 22], [40, 3, 20, 0, 1, 5]]
        {
            let people = population(numbers);
            let mut pairs = BTreeSet::new();
            let mut rooms: BTreeMap<UserIndex, BTreeSet<RoomIndex>> = BTreeMap::new();
            for index in (0..people.room_count()).map(RoomIndex) {
                let room = people.room(index);
                if let Room::Direct(a, b) = room {
                    assert_ne!(a, b);
                    assert!(pairs.insert((a.min(b), a.max(b))), "{numbers:?}: {room:?} is there twice");
                }
                for member in room.members() {
                    assert!(rooms.entry(member).or_default().insert(index), "{numbers:?}: {member:?} twice");
                }
            }
            for user in (0..people.user_count()).map(UserIndex) {
                let listed: BTreeSet<_> = people.rooms_of_user(user).into_iter().collect();
                assert_eq!(listed, rooms.remove(&user).unwrap_or_default(), "{numbers:?}: {user:?}");
                let directs = listed.iter().filter(|room| people.room(**room).is_direct()).count();
                assert_eq!(directs as u32, people.directs);
            }
        }
    }

    #[test]
    fn shares_are_disjoint_whole_and_hold_whole_rooms() {
        let people = population([70, 2, 10, 4, 1, 10]);
        let (mut users, mut rooms) = (0, 0);
        for agent in 0..3 {
            let share = Share { agent, agents: 3 };
            let own = people.users_of(share);
            assert_eq!((own.start, people.rooms_of(share).start), (users, rooms));
            for room in people.rooms_of(share).map(RoomIndex) {
                assert!(people.room(room).members().all(|user| own.contains(&user.0)));
            }
            (users, rooms) = (own.end, people.rooms_of(share).end);
        }
        assert_eq!((users, rooms), (people.user_count(), people.room_count()));
    }
}

//! Which ids the run's users, devices and rooms have on the wire, and back. Everything follows from the run's id and
//! an index, so that no two agents have to tell each other anything.
//!
//! What rooms there are is the population's business (`workload/population.rs`), asked through [`Rooms`].

use crate::workload::population::{DeviceIndex, RoomIndex, UserIndex};
use aws_lc_rs::digest::{Context, SHA256};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use wire_protocol::ids::{ConversationId, DeviceId, UserId};

/// First bytes of every benchmark user's and device's id: the benchmark key speaks for these alone.
pub const BENCH_PREFIX: [u8; 8] = *b"rl-bench";

/// Who meets in a room.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RoomShape {
    /// Two users.
    Direct {
        /// One of them.
        a: UserIndex,
        /// The other.
        b: UserIndex,
    },
    /// Any number of users.
    Group {
        /// Each once; the first one creates the room.
        members: Vec<UserIndex>,
    },
}

/// The rooms of a run.
pub trait Rooms: Send + Sync {
    /// Who meets there; `None`: there is no such room.
    fn shape(&self, room: RoomIndex) -> Option<RoomShape>;

    /// Every room of a user.
    fn rooms_of(&self, user: UserIndex) -> Vec<RoomIndex>;
}

/// The ids of one run. Rooms are worked out when they are first spoken of: an idle device costs nothing here.
pub struct Names {
    run_id: u64,
    devices_a_user: u32,
    rooms: Box<dyn Rooms>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    ids: HashMap<RoomIndex, ConversationId>,
    rooms: HashMap<ConversationId, RoomIndex>,
}

impl Names {
    /// The names of the run with this id. `devices_a_user` is 1 or more.
    pub fn new(run_id: u64, devices_a_user: u32, rooms: Box<dyn Rooms>) -> Self {
        assert!(devices_a_user > 0, "a user without devices cannot connect");
        Self { run_id, devices_a_user, rooms, known: Mutex::default() }
    }

    /// Whose device it is.
    pub fn owner(&self, device: DeviceIndex) -> UserIndex {
        UserIndex(device.0 / self.devices_a_user)
    }

    /// A user's id.
    pub fn user(&self, user: UserIndex) -> UserId {
        UserId(self.id(b"user", &[user.0]))
    }

    /// A device's id.
    pub fn device(&self, device: DeviceIndex) -> DeviceId {
        DeviceId(self.id(b"device", &[self.owner(device).0, device.0 % self.devices_a_user]))
    }

    /// Who meets in a room.
    pub fn shape(&self, room: RoomIndex) -> Option<RoomShape> {
        self.rooms.shape(room)
    }

    /// Chosen by a group's creator: one for each room.
    pub fn creation_id(room: RoomIndex) -> u64 {
        u64::from(room.0) + 1
    }

    /// A room's id; `None`: there is no such room.
    pub fn conversation(&self, room: RoomIndex) -> Option<ConversationId> {
        let known = self.known().ids.get(&room).copied();
        known.or_else(|| self.work_out(room))
    }

    /// The room of an id that one of `user`'s devices was told; `None`: none of the user's rooms.
    pub fn room(&self, conversation: ConversationId, user: UserIndex) -> Option<RoomIndex> {
        if let Some(room) = self.known().rooms.get(&conversation) {
            return Some(*room);
        }
        for room in self.rooms.rooms_of(user) {
            self.conversation(room);
        }
        self.known().rooms.get(&conversation).copied()
    }

    fn work_out(&self, room: RoomIndex) -> Option<ConversationId> {
        let id = match self.rooms.shape(room)? {
            RoomShape::Direct { a, b } => ConversationId::direct(self.user(a), self.user(b)),
            RoomShape::Group { members } => {
                ConversationId::group(self.user(*members.first()?), Self::creation_id(room))
            }
        };
        let mut known = self.known();
        known.ids.insert(room, id);
        known.rooms.insert(id, room);
        Some(id)
    }

    /// What a panicking thread left is whole: both maps only ever gain rows that follow from the plan.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn id(&self, kind: &[u8], numbers: &[u32]) -> [u8; 16] {
        let mut hash = Context::new(&SHA256);
        hash.update(b"ringline bench ");
        hash.update(kind);
        hash.update(&self.run_id.to_be_bytes());
        numbers.iter().for_each(|number| hash.update(&number.to_be_bytes()));
        let mut id = [0; 16];
        let (prefix, rest) = id.split_at_mut(BENCH_PREFIX.len());
        prefix.copy_from_slice(&BENCH_PREFIX);
        rest.iter_mut().zip(hash.finish().as_ref()).for_each(|(to, from)| *to = *from);
        id
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::collections::HashSet;

    /// Rooms by index; users are found by looking.
    pub(crate) struct Listed(pub(crate) Vec<RoomShape>);

    impl Rooms for Listed {
        fn shape(&self, room: RoomIndex) -> Option<RoomShape> {
            self.0.get(room.0 as usize).cloned()
        }

        fn rooms_of(&self, user: UserIndex) -> Vec<RoomIndex> {
            let has = |shape: &RoomShape| match shape {
                RoomShape::Direct { a, b } => [*a, *b].contains(&user),
                RoomShape::Group { members } => members.contains(&user),
            };
            let rooms = self.0.iter().enumerate().filter(|(_, shape)| has(shape));
            rooms.map(|(room, _)| RoomIndex(room as u32)).collect()
        }
    }

    fn names(run_id: u64) -> Names {
        let rooms = vec![
            RoomShape::Direct { a: UserIndex(0), b: UserIndex(1) },
            RoomShape::Group { members: vec![UserIndex(1), UserIndex(0), UserIndex(2)] },
        ];
        Names::new(run_id, 2, Box::new(Listed(rooms)))
    }

    #[test]
    fn ids_are_benchmark_ids_and_differ_by_run_user_and_device() {
        let (one, other) = (names(1), names(2));
        let mut seen = HashSet::new();
        for run in [&one, &other] {
            for index in 0..100 {
                assert!(seen.insert(run.user(UserIndex(index)).0));
                assert!(seen.insert(run.device(DeviceIndex(index)).0));
            }
        }
        assert!(seen.iter().all(|id| id.starts_with(b"rl-bench")));
        assert_eq!(one.user(UserIndex(5)), names(1).user(UserIndex(5)), "the same for every agent");
        assert_eq!(one.owner(DeviceIndex(5)), UserIndex(2));
    }

    #[test]
    fn rooms_are_found_by_id_even_if_never_asked_for() {
        let (asking, told) = (names(1), names(1));
        for room in [RoomIndex(0), RoomIndex(1)] {
            let id = asking.conversation(room).expect("it exists");
            assert_eq!(told.room(id, UserIndex(0)), Some(room));
            assert_eq!(names(1).room(id, UserIndex(3)), None, "in no room of this user");
        }
        let (a, b) = (told.user(UserIndex(0)), told.user(UserIndex(1)));
        assert_eq!(told.conversation(RoomIndex(0)), Some(ConversationId::direct(a, b)));
        assert_eq!(told.conversation(RoomIndex(1)), Some(ConversationId::group(b, 2)));
        assert_eq!(told.conversation(RoomIndex(2)), None);
    }
}

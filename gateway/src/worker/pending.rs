//! What waits for storage: a bounded table of small state machines, found again by the ids of their calls.
//!
//! A call's id is made of its request's place, of how often that place was given out, and of the request's own
//! number for the call. So an answer finds its request without a map, and one that comes too late finds nothing.

use crate::admission::Weight;
use crate::domain::Work;
use crate::domain::auth::Identity;
use crate::front::ConnectionToken;
use crate::observe::Latency;
use crate::session::timers::TimerWheel;
use crate::worker::mailbox::StorageResult;
use std::time::Instant;
use tokio::sync::oneshot;
use wire_protocol::ids::{ConversationId, DeviceId, UserId};
use wire_protocol::limits::REQUEST_TIMEOUT_MS;

/// Requests of one core that wait for storage: as many as all its links take together in a second of trouble,
/// some hundred bytes each.
pub const PENDING_MAX: usize = 32 * 1_024;
/// Bits of a call's id: the request's number for the call, its place, and the count of the place.
const PART_BITS: u32 = 16;
const PLACE_BITS: u32 = 20;
const GENERATION_BITS: u32 = 64 - PART_BITS - PLACE_BITS;
/// The place that no request has: for calls whose answer nobody waits for.
const NOBODY: u32 = (1 << PLACE_BITS) - 1;

/// One request in the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PendingId {
    place: u32,
    generation: u32,
}

impl PendingId {
    /// The id of one of its calls.
    pub fn call(self, part: u16) -> u64 {
        u64::from(self.generation) << (PART_BITS + PLACE_BITS)
            | u64::from(self.place) << PART_BITS
            | u64::from(part)
    }

    /// The request and the part that a call's id names.
    pub fn of_call(id: u64) -> (PendingId, u16) {
        let place = (id >> PART_BITS) as u32 & NOBODY;
        (PendingId { place, generation: (id >> (PART_BITS + PLACE_BITS)) as u32 }, id as u16)
    }
}

/// Who waits, and for what.
pub enum Waiting {
    /// A client's request.
    Request(Box<Request>),
    /// A session whose proof was accepted, for its home shard.
    Hello {
        /// The session.
        token: ConnectionToken,
        /// What the proof proved.
        identity: Identity,
        /// When hello came.
        started: Instant,
        /// The term of the home shard's leader that was asked; 0: none is known.
        home_term: u64,
    },
    /// A benchmark user's session, whose user and device are being made.
    Provision {
        /// The session.
        token: ConnectionToken,
        /// What the proof proved.
        identity: Identity,
        /// When hello came.
        started: Instant,
        /// Commands without an answer.
        left: u8,
    },
    /// A session that is announced again to a node that has forgotten it.
    Attach {
        /// The session.
        token: ConnectionToken,
    },
    /// The HTTP side.
    Http {
        /// Told once.
        reply: oneshot::Sender<StorageResult>,
    },
}

/// A client's request.
pub struct Request {
    /// The session.
    pub token: ConnectionToken,
    /// The client's id for it; 0: it wants no answer.
    pub request_id: u32,
    /// Whose.
    pub user: UserId,
    /// From which device.
    pub device: DeviceId,
    /// Base of the session's times.
    pub server_time_ms: u64,
    /// What it has come to.
    pub work: Work,
    /// What it was admitted as.
    pub weight: Weight,
    /// The conversation that a message is for.
    pub conversation: Option<ConversationId>,
    /// Where its latency is counted.
    pub latency: Latency,
    /// When its frame came.
    pub started: Instant,
}

/// The table of one core.
pub struct PendingTable {
    places: Vec<Place>,
    free: Vec<u32>,
    deadlines: TimerWheel,
    count: usize,
    /// Calls that nobody waits for, counted to give each an id of its own.
    nobody: u64,
}

struct Place {
    generation: u32,
    waiting: Option<Waiting>,
}

impl PendingTable {
    /// Nothing waits.
    pub fn new(now_ms: u64) -> Self {
        let deadlines = TimerWheel::new(now_ms);
        Self { places: Vec::new(), free: Vec::new(), deadlines, count: 0, nobody: 0 }
    }

    /// Takes a place; a full table gives the request back.
    pub fn insert(&mut self, now_ms: u64, waiting: Waiting) -> Result<PendingId, Waiting> {
        let place = match self.free.pop() {
            Some(place) => place,
            None if self.places.len() < PENDING_MAX => {
                self.places.push(Place { generation: 0, waiting: None });
                self.places.len() as u32 - 1
            }
            None => return Err(waiting),
        };
        let taken = &mut self.places[place as usize];
        taken.waiting = Some(waiting);
        self.count += 1;
        self.deadlines.set(place, now_ms + REQUEST_TIMEOUT_MS);
        Ok(PendingId { place, generation: taken.generation })
    }

    /// The request, if it still waits.
    pub fn find(&mut self, id: PendingId) -> Option<&mut Waiting> {
        let place = self.places.get_mut(id.place as usize)?;
        if place.generation == id.generation { place.waiting.as_mut() } else { None }
    }

    /// Takes the request out.
    pub fn remove(&mut self, id: PendingId) -> Option<Waiting> {
        self.find(id)?;
        let place = &mut self.places[id.place as usize];
        let waiting = place.waiting.take()?;
        place.generation = (place.generation + 1) & ((1 << GENERATION_BITS) - 1);
        self.deadlines.clear(id.place);
        self.free.push(id.place);
        self.count -= 1;
        Some(waiting)
    }

    /// The next request whose time is over; it stays in the table until it is removed, and is not named again.
    pub fn poll_timeout(&mut self, now_ms: u64) -> Option<PendingId> {
        let place = self.deadlines.poll(now_ms)?;
        Some(PendingId { place, generation: self.places[place as usize].generation })
    }

    /// When [`Self::poll_timeout`] may have something.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        self.deadlines.next_deadline_ms()
    }

    /// An id for a call whose answer nobody waits for.
    pub fn nobodys_call(&mut self) -> u64 {
        self.nobody += 1;
        let generation = (self.nobody >> PART_BITS) as u32 & ((1 << GENERATION_BITS) - 1);
        PendingId { place: NOBODY, generation }.call(self.nobody as u16)
    }

    /// Whether the id was given by [`Self::nobodys_call`].
    pub fn is_nobodys(id: u64) -> bool {
        PendingId::of_call(id).0.place == NOBODY
    }

    /// Requests that wait.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

const _: () = assert!(PENDING_MAX < NOBODY as usize);

#[cfg(test)]
mod tests {
    use super::*;

    fn attach() -> Waiting {
        Waiting::Attach { token: ConnectionToken { slot: 1, generation: 1 } }
    }

    #[test]
    fn calls_lead_back_to_their_request() {
        let mut table = PendingTable::new(0);
        let first = table.insert(0, attach()).ok().expect("room");
        let second = table.insert(0, attach()).ok().expect("room");
        for (id, part) in [(first, 0), (second, 65_535), (first, 7)] {
            let call = id.call(part);
            assert_eq!(PendingId::of_call(call), (id, part));
            assert!(!PendingTable::is_nobodys(call));
        }
        assert!(table.remove(first).is_some());
        assert!(table.find(first).is_none() && table.remove(first).is_none());
        let third = table.insert(0, attach()).ok().expect("room");
        assert_ne!(third.call(0), first.call(0), "a place is given again under another id");
        assert!(table.find(first).is_none() && table.find(third).is_some());
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn generations_wrap_within_an_id() {
        let mut table = PendingTable::new(0);
        let id = table.insert(0, attach()).ok().expect("room");
        table.places[0].generation = (1 << GENERATION_BITS) - 1;
        let last = PendingId { generation: (1 << GENERATION_BITS) - 1, ..id };
        assert_eq!(PendingId::of_call(last.call(3)), (last, 3));
        assert!(table.remove(last).is_some());
        assert_eq!(table.insert(0, attach()).ok().expect("room").generation, 0);
    }

    #[test]
    fn a_full_table_gives_the_request_back() {
        let mut table = PendingTable::new(0);
        let first = table.insert(0, attach()).ok().expect("room");
        for _ in 1..PENDING_MAX {
            assert!(table.insert(0, attach()).is_ok());
        }
        assert!(table.insert(0, attach()).is_err());
        table.remove(first);
        assert!(table.insert(0, attach()).is_ok());
    }

    #[test]
    fn time_runs_out_for_each_request_once() {
        let mut table = PendingTable::new(0);
        let early = table.insert(0, attach()).ok().expect("room");
        let done = table.insert(0, attach()).ok().expect("room");
        let late = table.insert(5_000, attach()).ok().expect("room");
        table.remove(done);
        let due_ms = REQUEST_TIMEOUT_MS + 1_000;
        assert_eq!(table.poll_timeout(REQUEST_TIMEOUT_MS - 1), None);
        assert_eq!(table.poll_timeout(due_ms), Some(early));
        table.remove(early);
        assert_eq!(table.poll_timeout(due_ms), None);
        assert_eq!(table.poll_timeout(due_ms + 5_000), Some(late));
    }

    #[test]
    fn nobodys_calls_have_ids_of_their_own() {
        let mut table = PendingTable::new(0);
        let (first, second) = (table.nobodys_call(), table.nobodys_call());
        assert_ne!(first, second);
        assert!(PendingTable::is_nobodys(first) && table.find(PendingId::of_call(first).0).is_none());
    }
}

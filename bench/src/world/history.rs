//! What clients did and saw, in the order in which it happened, and what nodes were: all that the checkers know.

use std::collections::{BTreeMap, BTreeSet};
use wire_protocol::v1::Durability;

/// In place of a message: an entry that is one, with a body that nobody wrote.
pub const NOBODYS: usize = usize::MAX;

/// Something that a client did or saw. Devices, rooms and messages are numbers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A device sends a message for the first time.
    Sent {
        /// Which message.
        message: usize,
        /// Who.
        device: usize,
        /// Where.
        room: usize,
    },
    /// The server says that it has the message; a repeat is answered again.
    Acked {
        /// Events that had happened when this answer was asked for.
        begun: usize,
        /// Which message.
        message: usize,
        /// Where.
        room: usize,
        /// Its number.
        seq: u64,
        /// Its time.
        time_ms: u64,
        /// What it says of copies.
        durability: Durability,
    },
    /// The server refused what it must not refuse.
    Refused {
        /// Whom.
        device: usize,
        /// What it asked, and what it was told.
        what: String,
    },
    /// A page of history.
    Read {
        /// Events that had happened when it was asked for.
        begun: usize,
        /// By whom.
        device: usize,
        /// Which room.
        room: usize,
        /// Entries behind this one were asked for; 0: the newest.
        after: u64,
        /// The newest number, as the server says.
        head: u64,
        /// Consecutive entries.
        entries: Vec<Seen>,
    },
    /// A live message.
    Live {
        /// To whom.
        device: usize,
        /// In which room.
        room: usize,
        /// The entry.
        entry: Seen,
    },
    /// What a page of changes says of one room.
    Synced {
        /// To whom.
        device: usize,
        /// Which room.
        room: usize,
        /// The newest number, as the server says.
        head: u64,
        /// Consecutive entries.
        entries: Vec<Seen>,
    },
    /// A device says for the first time that its user's cursors are this far; 0: it says nothing of that one.
    Advanced {
        /// Whose.
        user: usize,
        /// Where.
        room: usize,
        /// How far.
        to: Cursors,
    },
    /// The server says that it has them there, or further on.
    Kept {
        /// Whose.
        user: usize,
        /// Where.
        room: usize,
        /// How far, as the device said.
        to: Cursors,
    },
    /// What a page says of the cursors in one room.
    Members {
        /// Events that had happened when it was asked for.
        begun: usize,
        /// To whom.
        device: usize,
        /// Which room.
        room: usize,
        /// Users and their cursors; one may be there twice.
        members: Vec<(usize, Cursors)>,
    },
    /// What a live event says of one member's cursors.
    Receipt {
        /// To whom.
        device: usize,
        /// In which room.
        room: usize,
        /// Whose.
        user: usize,
        /// How far.
        cursors: Cursors,
    },
    /// Everything in a room, read when all was over.
    Whole {
        /// By whom.
        device: usize,
        /// Which room.
        room: usize,
        /// From the first to the last.
        entries: Vec<Seen>,
    },
}

/// How far a room has reached one of a user's devices, and how far the user has read it; 0: nothing.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Cursors {
    /// Delivered up to this entry.
    pub delivered: u64,
    /// Read up to this one.
    pub read: u64,
}

/// An entry that somebody saw.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen {
    /// Its number.
    pub seq: u64,
    /// Its time.
    pub time_ms: u64,
    /// Which message it is, or [`NOBODYS`]; `None`: the server's own.
    pub message: Option<usize>,
}

/// Whom a storage node knows to vote in a shard, from some moment on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Voters {
    /// Events that had happened by then.
    pub at: usize,
    /// Whose knowledge it is.
    pub host: usize,
    /// Of which shard.
    pub shard: u32,
    /// Where each voter stands; empty: in no zone that has a name.
    pub zones: Vec<&'static str>,
    /// Whether a replica has gone or come since the shard began.
    pub has_changed: bool,
}

/// A whole run.
#[derive(Default, Debug)]
pub struct History {
    /// What happened.
    pub events: Vec<Event>,
    /// Devices in each room.
    pub rooms: Vec<Vec<usize>>,
    /// The shard of each room.
    pub shards: Vec<u32>,
    /// Who votes, in the order in which nodes came to know it.
    pub voters: Vec<Voters>,
    /// By shard and term: the hosts that led.
    pub leaders: BTreeMap<(u32, u64), BTreeSet<usize>>,
    /// How copies differ that have applied the same entries.
    pub differing: Vec<String>,
    /// What had not come to rest when time was up; empty: all had.
    pub unsettled: Vec<String>,
}

impl History {
    /// Every entry that an event shows, with its room.
    pub fn seen(event: &Event) -> (usize, &[Seen]) {
        match event {
            Event::Read { room, entries, .. }
            | Event::Synced { room, entries, .. }
            | Event::Whole { room, entries, .. } => (*room, entries),
            Event::Live { room, entry, .. } => (*room, std::slice::from_ref(entry)),
            Event::Sent { room, .. }
            | Event::Acked { room, .. }
            | Event::Advanced { room, .. }
            | Event::Kept { room, .. }
            | Event::Members { room, .. }
            | Event::Receipt { room, .. } => (*room, &[]),
            Event::Refused { .. } => (0, &[]),
        }
    }

    /// A number that two equal histories have in common, and hardly any others.
    pub fn fingerprint(&self) -> u64 {
        // FNV-1a over the text of each event.
        let mut hash = 0xcbf2_9ce4_8422_2325u64;
        for byte in format!("{:?}", self.events).bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
        hash
    }
}

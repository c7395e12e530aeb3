//! The promises of a chat server, one checker each. A checker looks at a [`History`] and nothing else.
//!
//! | file | promise |
//! | --- | --- |
//! | `durable` | what was acknowledged is there when all is over, for every member, as durable as was said, and nothing that nobody wrote |
//! | `order` | a room's entries are 1, 2, 3, … without gaps, the same for everybody, never change, and are in each sender's order |
//! | `repeat` | a repeated message gets its first answer, and is there once |
//! | `fresh` | a read begun after an acknowledgement, or after anybody saw an entry, shows it |
//! | `elections` | a term of a shard has one leader |
//! | `copies` | copies that have applied the same entries have the same rows |
//! | `feed` | every device learns of everything by syncing, and of nothing in rooms of others |
//! | `cursors` | delivered and read never fall, and where they were acknowledged to be they stay |
//! | `heals` | once the faults are over everything is answered, every copy catches up, nothing was refused, and at last all rests |

mod copies;
mod cursors;
mod durable;
mod elections;
mod feed;
mod fresh;
mod heals;
mod known;
mod order;
mod repeat;

use super::history::History;

/// A promise that was not kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Broken {
    /// Which: the checker's name.
    pub promise: &'static str,
    /// How.
    pub how: String,
}

type Checker = fn(&History) -> Result<(), String>;

/// All of them, in the order in which they are asked.
const CHECKERS: [(&str, Checker); 9] = [
    ("elections", elections::check),
    ("order", order::check),
    ("repeat", repeat::check),
    ("fresh", fresh::check),
    ("heals", heals::check),
    ("durable", durable::check),
    ("feed", feed::check),
    ("copies", copies::check),
    ("cursors", cursors::check),
];

/// Whether every promise was kept; the first that was not.
pub fn check(history: &History) -> Result<(), Broken> {
    CHECKERS.iter().try_for_each(|(promise, check)| check(history).map_err(|how| Broken { promise, how }))
}

#[cfg(test)]
mod tests;

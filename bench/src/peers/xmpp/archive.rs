//! Where a device stands in the archives that keep its messages (XEP-0313): its user's, and one of each group.
//!
//! The archive's ids are opaque; only their order of arrival counts. From the session's beginning everything comes
//! live, so a catch-up need not go further than the first live message.

use super::MessageOf;
use crate::workload::population::RoomIndex;
use serde::{Deserialize, Serialize};

/// Live messages that are held back while an archive is read, so that they do not overtake older ones.
const HELD_MAX: usize = 8192;

/// Whose archive.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Owner {
    /// The user's: direct messages.
    User,
    /// A group's.
    Group(RoomIndex),
}

/// An archive as a device knows it.
#[derive(Debug)]
pub struct Archive {
    /// Whose.
    pub owner: Owner,
    /// Everything up to this is here; `None`: nothing was ever known.
    stored: Option<String>,
    /// First and last of what came live in this session.
    live_first: Option<String>,
    live_last: Option<String>,
    stage: Stage,
    held: Vec<MessageOf>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// Something may be missing before what came live.
    Behind,
    /// Pages come.
    Reading,
    /// Pages came as far as the first live message: the rest of this page is known.
    Met,
    /// Nothing is missing.
    Level,
}

/// More live messages than are held back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Overrun;

impl Archive {
    /// As it was left.
    pub fn new(owner: Owner, stored: Option<String>) -> Self {
        let stage = Stage::Behind;
        Self { owner, stored, live_first: None, live_last: None, stage, held: Vec::new() }
    }

    /// A message came live. It is given back unless older ones are still on their way.
    pub fn live(&mut self, id: Option<&str>, message: MessageOf) -> Result<Option<MessageOf>, Overrun> {
        if let Some(id) = id {
            self.live_first.get_or_insert_with(|| id.to_owned());
            self.live_last = Some(id.to_owned());
        }
        if !matches!(self.stage, Stage::Reading | Stage::Met) {
            return Ok(Some(message));
        }
        if self.held.len() >= HELD_MAX {
            return Err(Overrun);
        }
        self.held.push(message);
        Ok(None)
    }

    /// Reading begins, or goes on with the next page: after which id; `None`: from the very first.
    pub fn read_from(&mut self) -> Option<&str> {
        self.stage = Stage::Reading;
        self.stored.as_deref()
    }

    /// A message came from the archive. It is given back unless it came live already.
    pub fn archived(&mut self, id: &str, message: Option<MessageOf>) -> Option<MessageOf> {
        if self.stage == Stage::Met || self.live_first.as_deref() == Some(id) {
            self.stage = Stage::Met;
            return None;
        }
        self.stored = Some(id.to_owned());
        message
    }

    /// A page has ended. Whether the archive is read, and then what was held back.
    pub fn page_ended(&mut self, complete: bool) -> Option<Vec<MessageOf>> {
        if !complete && self.stage != Stage::Met {
            return None;
        }
        self.stage = Stage::Level;
        Some(std::mem::take(&mut self.held))
    }

    /// Up to where everything is here now. A first session that never caught up had nothing before it.
    pub fn into_stored(self) -> Option<String> {
        let level = self.stage == Stage::Level || (self.stage == Stage::Behind && self.stored.is_none());
        if level { self.live_last.or(self.stored) } else { self.stored }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(number: u8) -> MessageOf {
        MessageOf { room: RoomIndex(0), body: vec![number].into() }
    }

    #[test]
    fn reading_ends_at_what_came_live_and_holds_back_what_is_newer() {
        let mut archive = Archive::new(Owner::User, Some("1".into()));
        assert_eq!(
            archive.live(Some("4"), message(4)),
            Ok(Some(message(4))),
            "before reading nothing is held"
        );
        assert_eq!(archive.read_from(), Some("1"));
        assert_eq!(archive.archived("2", Some(message(2))), Some(message(2)));
        assert_eq!(archive.live(Some("5"), message(5)), Ok(None));
        assert_eq!(archive.archived("3", Some(message(3))), Some(message(3)));
        assert_eq!(archive.archived("4", Some(message(4))), None);
        assert_eq!(archive.archived("5", Some(message(5))), None);
        assert_eq!(archive.page_ended(false), Some(vec![message(5)]));
        assert_eq!(archive.live(Some("6"), message(6)), Ok(Some(message(6))));
        assert_eq!(archive.into_stored(), Some("6".into()));
    }

    #[test]
    fn what_is_stored_never_passes_a_gap() {
        let mut behind = Archive::new(Owner::User, Some("1".into()));
        assert!(behind.live(Some("9"), message(9)).is_ok());
        assert_eq!(behind.into_stored(), Some("1".into()), "2 to 8 are missing");
        let mut reading = Archive::new(Owner::User, None);
        assert_eq!(reading.read_from(), None);
        assert!(reading.archived("1", Some(message(1))).is_some());
        assert_eq!(reading.page_ended(false), None);
        assert_eq!(reading.read_from(), Some("1"));
        assert_eq!(reading.live(Some("9"), message(9)), Ok(None));
        assert_eq!(reading.into_stored(), Some("1".into()));
        let mut first = Archive::new(Owner::User, None);
        assert!(first.live(Some("1"), message(1)).is_ok());
        assert_eq!(first.into_stored(), Some("1".into()));
    }

    #[test]
    fn what_is_held_is_bounded() {
        let mut archive = Archive::new(Owner::User, None);
        archive.read_from();
        for _ in 0..HELD_MAX {
            assert_eq!(archive.live(None, message(1)), Ok(None));
        }
        assert_eq!(archive.live(None, message(1)), Err(Overrun));
    }
}

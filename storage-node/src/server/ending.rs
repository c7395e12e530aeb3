//! How far a node is on its way to its end, for all of its threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// Where it is. It never goes back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Stage {
    /// It serves.
    Serving,
    /// It serves, and hands over what it leads.
    Leaving,
    /// It answers what it was asked, and is asked nothing more.
    Stopping,
    /// It stops at once.
    Ending,
}

impl Stage {
    const ALL: [Self; 4] = [Self::Serving, Self::Leaving, Self::Stopping, Self::Ending];
}

/// The stage, shared.
#[derive(Clone, Debug, Default)]
pub(super) struct Ends(Arc<AtomicU8>);

impl Ends {
    pub fn stage(&self) -> Stage {
        let stage = usize::from(self.0.load(Ordering::Acquire));
        Stage::ALL.get(stage).copied().unwrap_or(Stage::Ending)
    }

    /// Goes on to a stage; one that was passed stays passed.
    pub fn go_on_to(&self, stage: Stage) {
        self.0.fetch_max(stage as u8, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_only_comes_nearer() {
        let ends = Ends::default();
        assert_eq!(ends.stage(), Stage::Serving);
        for (to, is) in [
            (Stage::Leaving, Stage::Leaving),
            (Stage::Ending, Stage::Ending),
            (Stage::Stopping, Stage::Ending),
        ] {
            ends.go_on_to(to);
            assert_eq!(ends.clone().stage(), is);
        }
    }
}

//! Copies are copies: whoever has applied the same entries has the same rows.

use crate::world::history::History;

pub(super) fn check(history: &History) -> Result<(), String> {
    history.differing.first().map_or(Ok(()), |first| Err(first.clone()))
}

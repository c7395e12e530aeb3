//! A term of a shard has one leader: two would both commit.

use crate::world::history::History;

pub(super) fn check(history: &History) -> Result<(), String> {
    match history.leaders.iter().find(|(_, hosts)| hosts.len() > 1) {
        Some(((shard, term), hosts)) => {
            Err(format!("shard {shard} was led by hosts {hosts:?} in term {term}"))
        }
        None => Ok(()),
    }
}

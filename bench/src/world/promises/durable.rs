//! Acknowledged is durable: whoever is in the room finds the message at the end, under the number that was told. And nothing
//! is there, or is ever seen, that nobody wrote, or that was written to another room.
//!
//! An acknowledgement says no more of the copies than is true. Three of each shard vote, whatever moves, so that a message
//! is never on one alone. That no zone holds a quorum of them may be said if some node knew such voters at any time
//! between the question and the answer: whoever answers has known them, be it that others knew better by then. While no
//! replica of a shard has ever gone or come, its leader cannot know less than the fleet does: there that must be said.

use crate::world::history::{Event, History, NOBODYS, Voters};
use std::collections::BTreeMap;
use wire_protocol::v1::Durability;

pub(super) fn check(history: &History) -> Result<(), String> {
    check_messages(history)?;
    check_levels(history)
}

fn check_messages(history: &History) -> Result<(), String> {
    let (mut wholes, mut written) = (BTreeMap::new(), BTreeMap::new());
    for event in &history.events {
        if let Event::Whole { device, room, entries } = event {
            wholes.insert((*room, *device), entries);
        }
        if let Event::Sent { message, room, .. } = event {
            written.insert(*message, *room);
        }
        let (room, entries) = History::seen(event);
        for entry in entries {
            let Some(message) = entry.message else { continue };
            if message == NOBODYS {
                return Err(format!("entry {} of room {room} has a body that nobody wrote", entry.seq));
            }
            if let Some(other) = written.get(&message).filter(|other| **other != room) {
                let seq = entry.seq;
                return Err(format!(
                    "entry {seq} of room {room} is message {message}, which was written to room {other}"
                ));
            }
        }
    }
    for event in &history.events {
        let Event::Acked { message, room, seq, .. } = event else { continue };
        for device in &history.rooms[*room] {
            // Who could not read at all is for another checker.
            let Some(entries) = wholes.get(&(*room, *device)) else { continue };
            let found = entries.iter().find(|entry| entry.seq == *seq);
            if found.and_then(|entry| entry.message) != Some(*message) {
                return Err(format!(
                    "message {message} was acknowledged as {seq} of room {room}, where device {device} finds {found:?}"
                ));
            }
        }
    }
    Ok(())
}

fn check_levels(history: &History) -> Result<(), String> {
    for (at, event) in history.events.iter().enumerate() {
        let Event::Acked { begun, room, durability, .. } = event else { continue };
        let shard = history.shards.get(*room);
        let is_known = |voters: &&Voters| shard == Some(&voters.shard) && voters.at <= at;
        let known: Vec<&Voters> = history.voters.iter().filter(is_known).collect();
        // Whether its node knew others before this was asked for.
        let is_past = |place: usize| {
            let mut later = known[place + 1..].iter();
            later.any(|later| later.host == known[place].host && later.at < *begun)
        };
        let spans = (0..known.len()).any(|place| span_zones(&known[place].zones) && !is_past(place));
        let is_as_it_began = known.iter().all(|voters| !voters.has_changed);
        let wrong = match durability {
            Durability::Synced => "on one disk alone, and three vote",
            Durability::QuorumOfZones if !spans => "spread over zones, and nobody knew such voters",
            Durability::Quorum if spans && is_as_it_began => "not spread over zones, and it always was",
            Durability::Quorum | Durability::QuorumOfZones => continue,
        };
        return Err(format!("said to be {wrong}: {event:?}, {known:?}"));
    }
    Ok(())
}

/// Whether, of any majority in these zones, one is left when a whole zone is lost.
fn span_zones(zones: &[&str]) -> bool {
    let majority = zones.len() / 2 + 1;
    let holds = |zone: &str| zones.iter().filter(|other| **other == zone).count();
    zones.len() > 1 && zones.iter().all(|zone| !zone.is_empty() && holds(zone) < majority)
}

//! Acknowledged is durable: whoever is in the room finds the message at the end, under the number that was told. And nothing
//! is there, or is ever seen, that nobody wrote, or that was written to another room.

use crate::world::history::{Event, History, NOBODYS};
use std::collections::BTreeMap;

pub(super) fn check(history: &History) -> Result<(), String> {
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

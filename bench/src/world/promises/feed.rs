//! The feed is complete: by syncing and by live messages alone every device of a room learns how far the room goes, and
//! has every entry from the first that it was given. And nobody is shown anything of a room that its user is not in.

use crate::world::history::{Event, History};
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn check(history: &History) -> Result<(), String> {
    let mut heads: BTreeMap<usize, u64> = BTreeMap::new();
    let mut told: BTreeMap<(usize, usize), (u64, BTreeSet<u64>)> = BTreeMap::new();
    for event in &history.events {
        let shown = shown_to(event);
        if let Some((device, room)) = shown.filter(|(device, room)| !history.rooms[*room].contains(device)) {
            return Err(format!("device {device} is not in room {room}, and was shown this: {event:?}"));
        }
        match event {
            Event::Synced { device, room, head, entries } => {
                let (told_head, stored) = told.entry((*room, *device)).or_default();
                *told_head = (*told_head).max(*head);
                stored.extend(entries.iter().map(|entry| entry.seq));
            }
            Event::Live { device, room, entry } => {
                told.entry((*room, *device)).or_default().1.insert(entry.seq);
            }
            Event::Whole { room, entries, .. } => {
                let head = heads.entry(*room).or_default();
                *head = (*head).max(entries.last().map_or(0, |last| last.seq));
            }
            Event::Acked { room, seq, .. } => {
                let head = heads.entry(*room).or_default();
                *head = (*head).max(*seq);
            }
            Event::Sent { .. } | Event::Refused { .. } | Event::Read { .. } => {}
            Event::Advanced { .. } | Event::Kept { .. } | Event::Members { .. } | Event::Receipt { .. } => {}
        }
    }
    for (room, head) in heads {
        for device in &history.rooms[room] {
            let Some((told_head, stored)) = told.get(&(room, *device)) else {
                return Err(format!("device {device} never heard of room {room}"));
            };
            if *told_head < head {
                return Err(format!("device {device} was told of room {room} up to {told_head} of {head}"));
            }
            let first = stored.first().copied().unwrap_or(1);
            if let Some(missing) = (first..=head).find(|seq| !stored.contains(seq)) {
                return Err(format!("device {device} was not given entry {missing} of room {room}"));
            }
        }
    }
    Ok(())
}

/// Whom an event shows something, and of which room.
fn shown_to(event: &Event) -> Option<(usize, usize)> {
    match event {
        Event::Read { device, room, .. }
        | Event::Live { device, room, .. }
        | Event::Synced { device, room, .. }
        | Event::Members { device, room, .. }
        | Event::Receipt { device, room, .. }
        | Event::Whole { device, room, .. } => Some((*device, *room)),
        Event::Sent { .. }
        | Event::Acked { .. }
        | Event::Refused { .. }
        | Event::Advanced { .. }
        | Event::Kept { .. } => None,
    }
}

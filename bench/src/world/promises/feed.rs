//! The feed is complete: by syncing and by live messages alone every device of a room learns how far the room goes, and
//! has every entry from the first that it was given.

use crate::world::history::{Event, History};
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn check(history: &History) -> Result<(), String> {
    let mut heads: BTreeMap<usize, u64> = BTreeMap::new();
    let mut told: BTreeMap<(usize, usize), (u64, BTreeSet<u64>)> = BTreeMap::new();
    for event in &history.events {
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

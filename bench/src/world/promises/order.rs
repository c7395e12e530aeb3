//! One order: a number in a room names one entry for ever, whoever sees it and however; pages and whole rooms have no
//! gaps; time does not fall. What one device wrote in a room stands there in the order in which it wrote it, also when it
//! did not wait for answers.

use crate::world::history::{Event, History, Seen};
use std::collections::BTreeMap;

pub(super) fn check(history: &History) -> Result<(), String> {
    check_entries(history)?;
    check_senders(history)
}

fn check_entries(history: &History) -> Result<(), String> {
    let mut rooms: BTreeMap<(usize, u64), Seen> = BTreeMap::new();
    for event in &history.events {
        let (room, entries) = History::seen(event);
        for pair in entries.windows(2) {
            if pair[1].seq != pair[0].seq + 1 {
                return Err(format!("room {room}: {:?} is followed by {:?}", pair[0], pair[1]));
            }
        }
        if let Event::Whole { entries, device, .. } = event
            && entries.first().is_none_or(|first| first.seq != 1)
        {
            return Err(format!("room {room} begins with {:?} for device {device}", entries.first()));
        }
        for entry in entries {
            let known = *rooms.entry((room, entry.seq)).or_insert(*entry);
            if known != *entry {
                return Err(format!("room {room}: {known:?} was seen, and {entry:?}"));
            }
        }
        if let Event::Acked { message, room, seq, time_ms, .. } = event {
            let acked = Seen { seq: *seq, time_ms: *time_ms, message: Some(*message) };
            let known = *rooms.entry((*room, *seq)).or_insert(acked);
            if known != acked {
                return Err(format!("room {room}: {acked:?} was acknowledged, {known:?} was seen"));
            }
        }
    }
    let mut before: Option<(usize, Seen)> = None;
    for ((room, _), entry) in rooms {
        if let Some((of, last)) = before
            && of == room
            && last.time_ms > entry.time_ms
        {
            return Err(format!("room {room}: time falls from {last:?} to {entry:?}"));
        }
        before = Some((room, entry));
    }
    Ok(())
}

fn check_senders(history: &History) -> Result<(), String> {
    let mut seqs: BTreeMap<usize, u64> = BTreeMap::new();
    for event in &history.events {
        if let Event::Acked { message, seq, .. } = event {
            seqs.insert(*message, *seq);
        }
        let (_, entries) = History::seen(event);
        seqs.extend(entries.iter().filter_map(|entry| Some((entry.message?, entry.seq))));
    }
    let mut last: BTreeMap<(usize, usize), (usize, u64)> = BTreeMap::new();
    for event in &history.events {
        let Event::Sent { message, device, room } = event else { continue };
        let Some(seq) = seqs.get(message) else { continue };
        if let Some((before, at)) = last.insert((*device, *room), (*message, *seq))
            && at > *seq
        {
            return Err(format!(
                "room {room}: device {device} wrote message {before} before {message}, and they are at {at} and {seq}"
            ));
        }
    }
    Ok(())
}

//! Reads and writes come after what was known when they began: what was acknowledged, or seen by anybody, before a read
//! was begun is in the room that it shows, and a message has a higher number than all that was known before it was
//! written. A page has what it says that there is.

use super::known::Known;
use crate::world::history::{Event, History, Seen};
use std::collections::BTreeMap;

pub(super) fn check(history: &History) -> Result<(), String> {
    let mut known: Known<usize> = Known::default();
    let mut written: BTreeMap<usize, usize> = BTreeMap::new();
    for (at, event) in history.events.iter().enumerate() {
        let newest = match event {
            Event::Sent { message, .. } => {
                written.insert(*message, at);
                0
            }
            Event::Acked { message, room, seq, .. } => {
                let before = written.get(message).and_then(|begun| known.before(*begun, room));
                if let Some((step, newest)) = before.filter(|(_, newest)| newest >= seq) {
                    let since = &history.events[step];
                    return Err(format!("{event:?} was written after entry {newest} was known ({since:?})"));
                }
                *seq
            }
            Event::Read { begun, device, room, after, head, entries } => {
                check_page(*after, *head, entries)
                    .map_err(|how| format!("device {device}, room {room}: {how}"))?;
                if let Some((step, newest)) = known.before(*begun, room).filter(|(_, newest)| newest > head) {
                    let since = &history.events[step];
                    return Err(format!(
                        "device {device} read room {room} up to {head}, after entry {newest} was known ({since:?})"
                    ));
                }
                *head
            }
            Event::Synced { head, .. } => *head,
            _ => 0,
        };
        let (room, entries) = History::seen(event);
        known.learn(at, room, entries.iter().map(|entry| entry.seq).max().unwrap_or(0).max(newest));
    }
    Ok(())
}

/// Whether a page has the end that was asked for.
fn check_page(after: u64, head: u64, entries: &[Seen]) -> Result<(), String> {
    let (first, last) = (entries.first().map(|entry| entry.seq), entries.last().map(|entry| entry.seq));
    let is_whole = match after {
        0 => head == 0 || last == Some(head),
        _ => head <= after || first == Some(after + 1),
    };
    if is_whole { Ok(()) } else { Err(format!("a page behind {after} of {head} has {first:?} to {last:?}")) }
}

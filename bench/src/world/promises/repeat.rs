//! A repeat changes nothing: every answer to one message is the first one, and the message is in its room once.

use crate::world::history::{Event, History};
use std::collections::BTreeMap;

pub(super) fn check(history: &History) -> Result<(), String> {
    let mut answers = BTreeMap::new();
    let mut places: BTreeMap<usize, (usize, u64)> = BTreeMap::new();
    for event in &history.events {
        if let Event::Acked { message, seq, time_ms, .. } = event {
            let first = *answers.entry(*message).or_insert((*seq, *time_ms));
            if first != (*seq, *time_ms) {
                return Err(format!("message {message} was answered {first:?}, then {:?}", (*seq, *time_ms)));
            }
        }
        let (room, entries) = History::seen(event);
        for entry in entries {
            let Some(message) = entry.message else { continue };
            let place = *places.entry(message).or_insert((room, entry.seq));
            if place != (room, entry.seq) {
                return Err(format!("message {message} is at {place:?}, and at {:?}", (room, entry.seq)));
            }
        }
    }
    Ok(())
}

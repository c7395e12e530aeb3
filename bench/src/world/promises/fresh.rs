//! Reads are not stale: what was acknowledged, or seen by anybody, before a read was begun is in the room that it
//! shows.

use crate::world::history::{Event, History};
use std::collections::BTreeMap;

pub(super) fn check(history: &History) -> Result<(), String> {
    // By room: after which event the newest known number is which.
    let mut known: BTreeMap<usize, Vec<(usize, u64)>> = BTreeMap::new();
    for (at, event) in history.events.iter().enumerate() {
        if let Event::Read { begun, device, room, head, .. } = event {
            let steps = known.get(room).map_or(&[][..], Vec::as_slice);
            let before = steps.partition_point(|(step, _)| step < begun);
            if let Some((step, newest)) = before.checked_sub(1).and_then(|place| steps.get(place))
                && newest > head
            {
                return Err(format!(
                    "device {device} read room {room} up to {head}, after entry {newest} was known ({:?})",
                    history.events[*step]
                ));
            }
        }
        let newest = match event {
            Event::Acked { seq, .. } => *seq,
            Event::Read { head, .. } | Event::Synced { head, .. } => *head,
            _ => 0,
        };
        let (room, entries) = History::seen(event);
        let newest = entries.iter().map(|entry| entry.seq).max().unwrap_or(0).max(newest);
        let steps = known.entry(room).or_default();
        if newest > steps.last().map_or(0, |(_, newest)| *newest) {
            steps.push((at, newest));
        }
    }
    Ok(())
}

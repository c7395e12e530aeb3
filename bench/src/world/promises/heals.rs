//! Once the faults are over the server serves: everything is answered, and nothing was refused for good. When nobody asks any
//! more it rests.

use crate::world::history::{Event, History};

pub(super) fn check(history: &History) -> Result<(), String> {
    for event in &history.events {
        if let Event::Refused { device, what } = event {
            return Err(format!("device {device}: {what}"));
        }
    }
    match history.unsettled.first() {
        Some(first) => Err(format!("{first}, and {} more", history.unsettled.len() - 1)),
        None => Ok(()),
    }
}

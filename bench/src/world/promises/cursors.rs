//! Cursors never fall: what is asked for after a cursor was acknowledged, or seen by anybody, shows it there or further on,
//! for every member and whoever asks. Read implies delivered, and no cursor is where no device of its user has said that it
//! is.

use super::known::Known;
use crate::world::history::{Cursors, Event, History};
use std::collections::BTreeMap;

/// One of the two.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Which {
    Delivered,
    Read,
}

impl Cursors {
    fn each(self) -> [(Which, u64); 2] {
        [(Which::Delivered, self.delivered), (Which::Read, self.read)]
    }
}

/// Cursors by room and user.
type ByMember = BTreeMap<(usize, usize), Cursors>;

pub(super) fn check(history: &History) -> Result<(), String> {
    let mut known: Known<(usize, usize, Which)> = Known::default();
    let mut asked = ByMember::new();
    for (at, event) in history.events.iter().enumerate() {
        let (begun, room, members) = match event {
            Event::Advanced { user, room, to } => {
                let most = asked.entry((*room, *user)).or_default();
                most.delivered = most.delivered.max(to.delivered);
                most.read = most.read.max(to.read);
                continue;
            }
            Event::Kept { user, room, to } => (None, *room, vec![(*user, *to)]),
            Event::Receipt { room, user, cursors, .. } => (None, *room, vec![(*user, *cursors)]),
            Event::Members { begun, room, members, .. } => (Some(*begun), *room, members.clone()),
            _ => continue,
        };
        for (user, shown) in &members {
            check_reach(&asked, (room, *user), *shown).map_err(|how| format!("{how}: {event:?}"))?;
            for (which, seq) in shown.each() {
                let before = begun.and_then(|begun| known.before(begun, &(room, *user, which)));
                if let Some((step, newest)) = before.filter(|(_, newest)| *newest > seq) {
                    let since = &history.events[step];
                    return Err(format!(
                        "{which:?} of user {user} in room {room} is at {seq}, after it was at {newest} ({since:?}): {event:?}"
                    ));
                }
            }
        }
        for (user, shown) in members {
            shown.each().into_iter().for_each(|(which, seq)| known.learn(at, (room, user, which), seq));
        }
    }
    Ok(())
}

/// Whether cursors are as far as one of the user's devices has said, and no further.
fn check_reach(asked: &ByMember, (room, user): (usize, usize), shown: Cursors) -> Result<(), String> {
    let most = asked.get(&(room, user)).copied().unwrap_or_default();
    if shown.read > shown.delivered {
        return Err(format!("user {user} in room {room} has read what was not delivered"));
    }
    if shown.delivered > most.delivered || shown.read > most.read {
        return Err(format!("no device of user {user} was further in room {room} than {most:?}"));
    }
    Ok(())
}

//! Whether the ledger of one conversation balances: what was acknowledged, held against what history says.
//!
//! Pure: who fills it owns the connections, and says with which log it is to balance.

use super::device::Log;
use std::collections::BTreeMap;
use wire_protocol::v1::EntryKind;

/// A message that its sender was told is stored, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tick {
    /// Its place, as the first answer said.
    pub seq: u64,
    /// What was sent.
    pub text: String,
}

/// What history and ledger do not agree on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Imbalance {
    /// The order has a gap.
    #[error("nothing stands at {0}, but something behind it")]
    Gap(u64),
    /// A conversation begins with the note that it was created.
    #[error("the first entry is not the creation")]
    Beginning,
    /// A message with a tick is not there.
    #[error("lost: the message that was acknowledged as {0}")]
    Lost(u64),
    /// Something else is in the place of a message with a tick.
    #[error("another message stands at {0} than was acknowledged there")]
    Other(u64),
    /// An entry that no tick speaks of: a message that was stored twice, or that nobody sent.
    #[error("nobody's: the entry at {0}; a message was stored twice")]
    Unasked(u64),
    /// Two messages were given one place.
    #[error("two messages were acknowledged as {0}")]
    Shared(u64),
}

/// Whether `log` holds each acknowledged message once, where its tick said, and nothing else.
pub fn check<'a>(log: &Log, ticks: impl IntoIterator<Item = &'a Tick>) -> Result<(), Imbalance> {
    if let Some((place, _)) = (1..).zip(log.keys()).find(|(place, seq)| place != *seq) {
        return Err(Imbalance::Gap(place));
    }
    if log.get(&1).is_none_or(|entry| entry.kind() != EntryKind::Created) {
        return Err(Imbalance::Beginning);
    }
    let mut acknowledged = BTreeMap::new();
    for tick in ticks {
        if acknowledged.insert(tick.seq, &tick.text).is_some() {
            return Err(Imbalance::Shared(tick.seq));
        }
    }
    for (seq, text) in &acknowledged {
        match log.get(seq) {
            None => return Err(Imbalance::Lost(*seq)),
            Some(entry) if entry.body.as_ref() != text.as_bytes() => return Err(Imbalance::Other(*seq)),
            Some(_) => {}
        }
    }
    match log.keys().find(|seq| **seq > 1 && !acknowledged.contains_key(*seq)) {
        Some(seq) => Err(Imbalance::Unasked(*seq)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire_protocol::v1::Entry;

    /// A history with the creation and these texts behind it.
    fn log(texts: &[&str]) -> Log {
        let created = Entry { seq: 1, kind: EntryKind::Created as i32, ..Entry::default() };
        let message = |(place, text): (u64, &&str)| Entry {
            seq: place,
            kind: EntryKind::Text as i32,
            body: text.as_bytes().to_vec().into(),
            ..Entry::default()
        };
        let messages = (2..).zip(texts).map(message);
        std::iter::once(created).chain(messages).map(|entry| (entry.seq, entry)).collect()
    }

    /// Ticks as a sender gets them that sends these texts one after the other.
    fn ticks(texts: &[&str]) -> Vec<Tick> {
        (2..).zip(texts).map(|(seq, text)| Tick { seq, text: (*text).to_owned() }).collect()
    }

    const SENT: [&str; 4] = ["a", "b", "c", "d"];

    #[test]
    fn what_was_acknowledged_and_is_there_balances() {
        assert_eq!(check(&log(&SENT), &ticks(&SENT)), Ok(()));
        assert_eq!(check(&log(&[]), &[]), Ok(()));
        let mut answered_backwards = ticks(&SENT);
        answered_backwards.reverse();
        assert_eq!(check(&log(&SENT), &answered_backwards), Ok(()), "the order of the answers is free");
    }

    #[test]
    fn a_lost_message_is_found_wherever_it_stood() {
        for (history, found) in [
            (&["a", "b", "c"][..], Imbalance::Lost(5)),
            (&["a", "c", "d"], Imbalance::Other(3)),
            (&["b", "c", "d"], Imbalance::Other(2)),
            (&[], Imbalance::Lost(2)),
            // Another one is there twice, so that the number is right.
            (&["a", "b", "b", "d"], Imbalance::Other(4)),
            (&["a", "b", "c", "a"], Imbalance::Other(5)),
        ] {
            assert_eq!(check(&log(history), &ticks(&SENT)), Err(found), "{history:?}");
        }
    }

    #[test]
    fn a_doubled_message_is_found_wherever_it_stands() {
        for (history, found) in [
            (&["a", "b", "c", "d", "d"][..], Imbalance::Unasked(6)),
            (&["a", "b", "c", "d", "a"], Imbalance::Unasked(6)),
            (&["a", "a", "b", "c", "d"], Imbalance::Other(3)),
            (&["a", "b", "c", "d", "nobody's"], Imbalance::Unasked(6)),
        ] {
            assert_eq!(check(&log(history), &ticks(&SENT)), Err(found), "{history:?}");
        }
        // One whose tick never came and that is nevertheless there beside its repeat.
        let mut repeated = ticks(&["a", "b", "c", "d"]);
        repeated.remove(1);
        assert_eq!(check(&log(&SENT), &repeated), Err(Imbalance::Unasked(3)));
    }

    #[test]
    fn swapped_messages_are_found() {
        for history in [&["b", "a", "c", "d"][..], &["a", "b", "d", "c"], &["d", "b", "c", "a"]] {
            let found = check(&log(history), &ticks(&SENT)).expect_err("two are swapped");
            assert!(matches!(found, Imbalance::Other(_)), "{history:?}: {found}");
        }
    }

    #[test]
    fn a_gap_is_found_even_if_every_tick_is_right() {
        for missing in 1..=4 {
            let mut log = log(&SENT);
            log.remove(&missing);
            let mut ticks = ticks(&SENT);
            ticks.retain(|tick| tick.seq != missing);
            assert_eq!(check(&log, &ticks), Err(Imbalance::Gap(missing)));
        }
    }

    #[test]
    fn two_messages_in_one_place_are_found() {
        let mut ticks = ticks(&["a", "b"]);
        ticks.push(Tick { seq: 3, text: "b".into() });
        assert_eq!(check(&log(&["a", "b"]), &ticks), Err(Imbalance::Shared(3)));
    }

    #[test]
    fn a_conversation_without_its_beginning_is_found() {
        assert_eq!(check(&Log::new(), &[]), Err(Imbalance::Beginning));
        let mut log = log(&["a"]);
        log.entry(1).and_modify(|entry| entry.kind = EntryKind::Text as i32);
        assert_eq!(check(&log, &ticks(&["a"])), Err(Imbalance::Beginning));
    }
}

//! What one core has for another core of its node, and what became of pushes that found no room.

use super::link::{LinkId, SessionKey};
use super::shared::{Inbox, MAILBOX_ITEMS_MAX, Mail};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use wire_protocol::internal::{Delivery, delivery};

/// Items for one other core, in order. What does not fit its mailbox waits here.
///
/// Answers, feed and closed links are always taken: they are bounded by what is in flight. Requests and pushes are
/// refused when [`MAILBOX_ITEMS_MAX`] items wait.
#[derive(Default)]
pub(super) struct Outbox {
    items: VecDeque<Mail>,
}

impl Outbox {
    pub fn has_room(&self) -> bool {
        self.items.len() < MAILBOX_ITEMS_MAX
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub fn push(&mut self, mail: Mail) {
        self.items.push_back(mail);
    }

    /// Hands over what fits. `from`: this core.
    pub fn flush(&mut self, from: usize, target: &Inbox) {
        if self.items.is_empty() {
            return;
        }
        let mailbox = &target.mail[from];
        while let Some(mail) = self.items.pop_front() {
            if let Err(mail) = mailbox.push(mail) {
                self.items.push_front(mail);
                break;
            }
        }
        target.signal();
    }
}

/// Sessions that missed a push: each is told once to sync, when there is room again.
#[derive(Default)]
pub(super) struct Missed {
    links: BTreeMap<LinkId, BTreeSet<SessionKey>>,
}

impl Missed {
    pub fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    pub fn add(&mut self, link: LinkId, delivery: &Delivery) {
        let sessions = delivery.sessions.iter().map(|address| SessionKey::new(link, *address));
        self.links.entry(link).or_default().extend(sessions);
    }

    pub fn link_closed(&mut self, link: LinkId) {
        self.links.remove(&link);
    }

    /// The sessions of one link, as the push that tells them.
    pub fn pop(&mut self) -> Option<(LinkId, Delivery)> {
        let (link, sessions) = self.links.pop_first()?;
        let sessions = sessions.into_iter().map(SessionKey::address).collect();
        let event = Some(delivery::Event::SyncNeeded(true));
        Some((link, Delivery { sessions, event, ..Delivery::default() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire_protocol::internal::SessionAddress;

    fn closed(number: u64) -> Mail {
        Mail::LinkClosed(LinkId::of_test(0, number))
    }

    #[test]
    fn items_keep_their_order_when_the_mailbox_is_full() {
        let target = Inbox::new(1, 2);
        let mut outbox = Outbox::default();
        (0..MAILBOX_ITEMS_MAX as u64 + 3).for_each(|number| outbox.push(closed(number)));
        assert!(!outbox.has_room());
        outbox.flush(1, &target);
        assert!(outbox.has_room() && !outbox.is_empty());
        for number in 0..MAILBOX_ITEMS_MAX as u64 + 3 {
            let Some(Mail::LinkClosed(link)) = target.mail[1].pop() else { panic!("{number} is missing") };
            assert_eq!(link, LinkId::of_test(0, number));
            outbox.flush(1, &target);
        }
        assert!(outbox.is_empty() && target.mail[1].is_empty());
    }

    #[test]
    fn a_session_that_missed_many_pushes_is_told_once() {
        let link = LinkId::of_test(0, 1);
        let sessions =
            vec![SessionAddress { slot: 1, generation: 2 }, SessionAddress { slot: 3, generation: 4 }];
        let mut missed = Missed::default();
        missed.add(link, &Delivery { sessions: sessions.clone(), ..Delivery::default() });
        missed.add(link, &Delivery { sessions: sessions[..1].to_vec(), ..Delivery::default() });
        let (to, delivery) = missed.pop().expect("one link missed something");
        assert_eq!((to, delivery.sessions), (link, sessions));
        assert!(missed.is_empty() && missed.pop().is_none());
    }
}

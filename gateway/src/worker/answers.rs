//! What storage reports: answers to those who wait, deliveries to sessions, links that come and go.

use super::Core;
use super::attach::Home;
use super::pending::{PendingId, PendingTable, Waiting};
use crate::delivery::{self, Aftermath};
use crate::failpoint::{self, Failpoint};
use crate::observe::Metric;
use crate::router::LinkIndex;
use crate::storage_client::{Leads, StorageEvent};
use crate::worker::mailbox::StorageResult;
use wire_protocol::internal;
use wire_protocol::v1::session_closing::Reason;

impl Core {
    pub(super) fn take_storage_events(&mut self) {
        let mut events = std::mem::take(&mut self.storage_events);
        self.storage.turn(self.now_ms, &mut events);
        self.observer.set(Metric::LinksUp, self.storage.links_up() as u64);
        let mut has_deliveries = false;
        for event in events.drain(..) {
            match event {
                StorageEvent::Answered { id, result } => self.take_answer(id, result),
                StorageEvent::Delivered { link, delivery } => {
                    if !std::mem::replace(&mut has_deliveries, true) {
                        failpoint::pass(Failpoint::Received);
                    }
                    self.take_delivery(link, delivery);
                }
                StorageEvent::LinkUp(link) => {
                    self.announcements.begin(Home::Link(link));
                    self.count_shards_reached();
                }
                StorageEvent::LinkDown(link) => {
                    self.router.doubt(link);
                    self.count_shards_reached();
                    self.observer.add(Metric::LinksLost, 1);
                    self.announcements.stop(Home::Link(link));
                }
                StorageEvent::Leader { link, shard, term } => {
                    if self.router.follow(shard, term, link) {
                        self.observer.add(Metric::LeadersChanged, 1);
                        // The sessions that this shard is home to are known to its leader alone.
                        self.announcements.begin(Home::Shard(shard));
                        self.count_shards_reached();
                        self.follow(Leads { link, shard, term });
                    }
                }
            }
        }
        self.storage_events = events;
        if has_deliveries {
            failpoint::pass(Failpoint::Queued);
            self.delivered = true;
        }
    }

    /// What waits for the shard goes to the node that leads it.
    fn follow(&mut self, leads: Leads) {
        let mut events = Vec::new();
        self.storage.follow(self.now_ms, leads, &mut events);
        for event in events {
            if let StorageEvent::Answered { id, result } = event {
                self.take_answer(id, result);
            }
        }
    }

    fn count_shards_reached(&self) {
        let reached = self.router.known_links().filter(|link| self.storage.is_up(*link)).count();
        self.observer.set(Metric::ShardsReached, reached as u64);
    }

    fn take_answer(&mut self, call: u64, result: StorageResult) {
        if PendingTable::is_nobodys(call) {
            return;
        }
        let (id, part) = PendingId::of_call(call);
        match self.pending.find(id) {
            None => self.observer.add(Metric::LateAnswers, 1),
            Some(Waiting::Request(_)) => {
                if self.step_request(id, part, result) {
                    self.carry_calls(id);
                }
            }
            Some(Waiting::Provision { .. }) => self.provisioned(id, result),
            Some(Waiting::Http { .. } | Waiting::Hello { .. } | Waiting::Attach { .. }) => {
                match (self.pending.remove(id), result) {
                    (Some(Waiting::Http { reply }), result) => {
                        // Who does not wait any more needs no answer.
                        let _ = reply.send(result);
                    }
                    (Some(Waiting::Hello { token, identity, started, home_term }), Ok(result)) => {
                        self.hello_attached(token, identity, started, result);
                        self.look_for_another_leader(token, home_term);
                    }
                    (Some(Waiting::Hello { token, .. }), Err(error)) => self.refuse_hello(token, &error),
                    (Some(Waiting::Attach { token }), result) => {
                        self.announcements.settled();
                        match result {
                            Ok(result) => self.attached_again(token, result),
                            Err(_) => self.announce_again(token),
                        }
                    }
                    (Some(Waiting::Request(_) | Waiting::Provision { .. }) | None, _) => {
                        unreachable!("looked at above")
                    }
                }
            }
        }
    }

    fn take_delivery(&mut self, link: LinkIndex, delivery: internal::Delivery) {
        if delivery.sessions.is_empty()
            && matches!(delivery.event, Some(internal::delivery::Event::SyncNeeded(_)))
        {
            // Deliveries to any session of the link may have been lost: announcing them tells them to sync.
            return self.announcements.begin(Home::Link(link));
        }
        let mut aftermath = Vec::new();
        let delivered = delivery::deliver(
            delivery,
            self.now_ms,
            &mut self.sessions,
            &mut self.clients,
            &mut self.space,
            &mut aftermath,
        );
        self.observer.add(Metric::EventsSent, delivered.queued);
        self.observer.add(Metric::EventsDropped, delivered.dropped);
        for after in aftermath {
            match after {
                Aftermath::BecameSlow(token) => self.look_again(token),
                Aftermath::TooSlow(token) => {
                    self.close_session(token, Reason::TooSlow, "the outbox is full", 0);
                }
                Aftermath::DeviceRemoved(token) => {
                    // The session that asked for it hears of it by its answer.
                    let session = self.sessions.find(token);
                    if session.is_some_and(|session| !session.is_logging_out) {
                        self.close_session(token, Reason::Unauthenticated, "the device was logged out", 0);
                    }
                }
            }
        }
    }
}

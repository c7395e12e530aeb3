//! What applied entries led to: answers for whoever waits, events for whomever they concern.

use super::effects::AppliedJob;
use super::{Effects, Shard, respond};
use crate::domain::Event;
use crate::failpoint::{self, Failpoint};
use wire_protocol::ids::{DeviceId, UserId};
use wire_protocol::internal::shard_response::Result as Reply;
use wire_protocol::internal::{Delivery, FeedItem, Outcome, delivery, outcome};

impl Shard {
    /// The rows of these entries are readable: answers commands, records and carries out events.
    pub fn applied(&mut self, now_ms: u64, job: AppliedJob, effects: &mut Effects) {
        failpoint::pass(Failpoint::Answering);
        self.pipeline.job_done();
        for entry in job.entries {
            let proposed = self.pipeline.applied(entry.index, entry.time_ms);
            if let Some(proposed) = &proposed {
                assert_eq!(proposed.origins.len(), entry.results.len(), "each command has one outcome");
                self.metrics.entry_us.record(proposed.proposed_at.elapsed());
            }
            let mut origins = proposed.into_iter().flat_map(|proposed| proposed.origins);
            let mut items = Vec::new();
            for applied in entry.results {
                if let Some(origin) = origins.next().flatten() {
                    respond(origin, Reply::Outcome(self.with_copies(applied.outcome)), effects);
                }
                for event in applied.events {
                    self.carry_out_event(event, &mut items, effects);
                }
            }
            match &mut self.source {
                Some(source) => source.record(entry.index, items),
                None => self.marks.told(entry.cuts),
            }
        }
        self.pipeline.advance();
        self.pass_barrier(effects);
        self.look_at_role(effects);
        failpoint::pass(Failpoint::FeedSending);
        self.send_feed(now_ms, effects);
    }

    /// With what the state does not know: it is committed, so most of the copies have it on disk.
    fn with_copies(&self, mut outcome: Outcome) -> Outcome {
        if let Some(outcome::Kind::MessageApplied(applied)) = &mut outcome.kind {
            let set = self.pipeline.replicas();
            applied.copies = set.voters.len() as u32 / 2 + 1;
            applied.spans_zones = self.has_copies() && self.moving.spans_zones(set);
        }
        outcome
    }

    fn carry_out_event(&mut self, event: Event, items: &mut Vec<FeedItem>, effects: &mut Effects) {
        match event {
            Event::Feed(item) => items.push(item),
            Event::DeviceRemoved { user, device } => self.device_removed(user, device, effects),
            Event::Checkpointed(checkpoint) => self.checkpointed(&checkpoint, effects),
            Event::FleetChanged(fleet) => effects.fleet = Some(fleet),
        }
    }

    fn device_removed(&mut self, user: UserId, device: DeviceId, effects: &mut Effects) {
        self.attaching
            .values_mut()
            .filter(|attaching| attaching.user == user && attaching.device == device)
            .for_each(|attaching| attaching.device_removed = true);
        for (link, sessions) in self.registry.device_removed(user, device) {
            let event = Some(delivery::Event::DeviceRemoved(true));
            effects.deliveries.push((link, Delivery { sessions, event, ..Delivery::default() }));
        }
    }
}

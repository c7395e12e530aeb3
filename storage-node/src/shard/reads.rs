//! Queries and sessions. Reads run on threads of their own: whatever was answered before a query arrived is
//! readable by then, because commands are answered after their rows are.

use super::{Effects, ReadJob, ReadWork, Shard, Stage, respond};
use crate::worker::{Origin, SessionKey};
use wire_protocol::ids::{DeviceId, UserId};
use wire_protocol::internal::shard_request::Operation;
use wire_protocol::internal::shard_response::Result as Reply;
use wire_protocol::internal::{
    Accepted, AttachSession, DetachSession, Outcome, Query, SessionAttached, outcome, query, shard_error,
};

/// Requests that one shard keeps until it serves, and sessions whose devices are being looked up.
pub const REQUESTS_WAITING_MAX: usize = 4_096;

/// A request that came before the shard serves.
pub(super) struct Deferred {
    pub origin: Origin,
    pub operation: Operation,
}

/// A session whose device is being looked up.
pub(super) struct Attaching {
    pub origin: Origin,
    pub user: UserId,
    pub device: DeviceId,
    pub key: SessionKey,
    /// The device was removed after the look-up had begun.
    pub device_removed: bool,
    /// The session was detached after the look-up had begun.
    pub detached: bool,
}

impl Attaching {
    /// What was asked.
    pub fn operation(&self) -> Operation {
        let (user_id, device_id) = (self.user.to_bytes(), self.device.to_bytes());
        Operation::Attach(AttachSession { user_id, device_id, session: Some(self.key.address()) })
    }
}

impl Shard {
    pub(super) fn defer(&mut self, origin: Origin, operation: Operation, effects: &mut Effects) {
        if self.deferred.len() < REQUESTS_WAITING_MAX {
            self.deferred.push_back(Deferred { origin, operation });
        } else {
            self.refuse(origin, shard_error::Kind::Unavailable, "the shard is starting", effects);
        }
    }

    pub(super) fn resume_deferred(&mut self, effects: &mut Effects) {
        for Deferred { origin, operation } in std::mem::take(&mut self.deferred) {
            self.carry_out(origin, operation, effects);
        }
    }

    pub(super) fn query(&mut self, origin: Origin, query: Query, effects: &mut Effects) {
        let feed_of = match &query.kind {
            Some(query::Kind::ReadFeed(read)) => UserId::from_slice(&read.user_id),
            Some(query::Kind::ReadConversationList(read)) => UserId::from_slice(&read.user_id),
            _ => None,
        };
        // Taken before the stored rows are read: a checkpoint in between moves rows from here to there, and a
        // row seen twice is merged, while one that was missed would be lost.
        let view = match (&self.stage, feed_of) {
            (Stage::Serving(home), Some(user)) => Some(home.view(user)),
            _ => None,
        };
        effects.reads.push(ReadJob { shard: self.id, work: ReadWork::Query { origin, query, view } });
    }

    pub(super) fn attach(&mut self, origin: Origin, attach: &AttachSession, effects: &mut Effects) {
        let ids = (UserId::from_slice(&attach.user_id), DeviceId::from_slice(&attach.device_id));
        let ((Some(user), Some(device)), Some(address)) = (ids, attach.session) else {
            return self.refuse(origin, shard_error::Kind::Malformed, "attach: ids or session", effects);
        };
        if self.attaching.len() >= REQUESTS_WAITING_MAX {
            return self.refuse(origin, shard_error::Kind::Overloaded, "sessions being attached", effects);
        }
        self.ticket_last += 1;
        let ticket = self.ticket_last;
        let key = SessionKey::new(origin.link, address);
        let attaching = Attaching { origin, user, device, key, device_removed: false, detached: false };
        self.attaching.insert(ticket, attaching);
        effects.reads.push(ReadJob { shard: self.id, work: ReadWork::Attach { ticket, user, device } });
    }

    pub(super) fn attached(
        &mut self,
        ticket: u64,
        device_known: bool,
        stored_version: u64,
        effects: &mut Effects,
    ) {
        // Gone with its link.
        let Some(attaching) = self.attaching.remove(&ticket) else { return };
        let Stage::Serving(home) = &self.stage else { return };
        let device_known = device_known && !attaching.device_removed;
        // Clients look for restores in it, and must not see one where there was none.
        let newest = home.newest_version(attaching.user).unwrap_or(0).max(stored_version);
        let feed_version = newest.max(home.version_floor());
        if device_known
            && !attaching.detached
            && self.registry.attach(attaching.user, attaching.device, attaching.key).is_err()
        {
            return self.refuse(
                attaching.origin,
                shard_error::Kind::Overloaded,
                "attached sessions",
                effects,
            );
        }
        respond(attaching.origin, Reply::Attached(SessionAttached { device_known, feed_version }), effects);
    }

    /// A read for an attaching session failed or found no room.
    pub fn attach_refused(
        &mut self,
        ticket: u64,
        kind: shard_error::Kind,
        detail: &str,
        effects: &mut Effects,
    ) {
        if let Some(attaching) = self.attaching.remove(&ticket) {
            self.refuse(attaching.origin, kind, detail, effects);
        }
    }

    pub(super) fn detach(&mut self, origin: Origin, detach: &DetachSession, effects: &mut Effects) {
        let (Some(user), Some(address)) = (UserId::from_slice(&detach.user_id), detach.session) else {
            return self.refuse(origin, shard_error::Kind::Malformed, "detach: id or session", effects);
        };
        let key = SessionKey::new(origin.link, address);
        self.registry.detach(user, key);
        self.attaching.values_mut().filter(|attaching| attaching.key == key).for_each(|attaching| {
            attaching.detached = true;
        });
        let outcome = Outcome { kind: Some(outcome::Kind::Accepted(Accepted {})) };
        respond(origin, Reply::Outcome(outcome), effects);
    }
}

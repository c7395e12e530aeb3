//! Sessions and their home shards: hello, announcing again after a link was lost, and log out.

use super::Core;
use super::leaving::Stage;
use super::pending::{PendingId, Waiting};
use crate::clock::moment;
use crate::domain::auth::Identity;
use crate::domain::calls;
use crate::front::ConnectionToken;
use crate::observe::{Latency, Metric};
use crate::router::LinkIndex;
use crate::session::Outbox;
use crate::session::table::address_of;
use crate::worker::mailbox::{ShardKey, StorageResult};
use bytes::Bytes;
use std::time::Instant;
use wire_protocol::error::RequestError;
use wire_protocol::ids::{DeviceId, ShardId, UserId};
use wire_protocol::internal::{
    AddDevice, AttachSession, Command, CreateUser, Device, ShardRequest, command, shard_request,
    shard_response,
};
use wire_protocol::limits::FRAME_BYTES_MAX;
use wire_protocol::session::{Proof, ReadyInfo};
use wire_protocol::v1::session_closing::Reason;
use wire_protocol::v1::{self, ErrorCode, server_frame};

/// Places of the session table looked at in one turn, so that a turn stays short.
const ANNOUNCE_PLACES: u32 = 256;
/// Pause before failed announcements are repeated, in milliseconds: a shard that is starting needs about that.
const ANNOUNCE_AGAIN_MS: u64 = 200;
/// Announcements without an answer: an eighth of a link's credits, the rest is for requests.
const ANNOUNCED_MAX: usize = 1_024;

/// Whose sessions are announced again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Home {
    /// All whose home shard is behind this link: its node has forgotten them.
    Link(LinkIndex),
    /// All of this home shard: another node leads it.
    Shard(ShardId),
}

/// Which sessions are still to be announced again, by home.
#[derive(Default)]
pub(super) struct Announcements {
    /// The home, and the next place of the session table to look at.
    homes: Vec<(Home, u32)>,
    /// Sessions whose announcement failed. At most as many as were without an answer.
    again: Vec<ConnectionToken>,
    /// When those are repeated.
    again_at_ms: u64,
    /// Announcements without an answer.
    unanswered: usize,
}

impl Announcements {
    /// All sessions of this home, from the first.
    pub(super) fn begin(&mut self, home: Home) {
        self.stop(home);
        self.homes.push((home, 0));
    }

    /// The link is gone: its sessions are announced when it is back, or when another node leads.
    pub(super) fn stop(&mut self, home: Home) {
        self.homes.retain(|(other, _)| *other != home);
    }

    /// An announcement was answered, or given up.
    pub(super) fn settled(&mut self) {
        self.unanswered -= 1;
    }

    /// When there is something to announce, and room for it; 0: now.
    pub(super) fn next_deadline_ms(&self) -> Option<u64> {
        if !self.has_room() {
            return None;
        }
        match (self.homes.is_empty(), self.again.is_empty()) {
            (false, _) => Some(0),
            (true, false) => Some(self.again_at_ms),
            (true, true) => None,
        }
    }

    fn has_room(&self) -> bool {
        self.unanswered + ANNOUNCE_PLACES as usize <= ANNOUNCED_MAX
    }
}

impl Core {
    /// A hello's proof is checked here and now; then the home shard is asked whether the device still exists.
    pub(super) fn authenticate(&mut self, token: ConnectionToken, proof: Proof) {
        let started = moment();
        if self.stage == Stage::Serving
            && let Err(wait_ms) = self.doorway.enter(self.now_ms)
        {
            // Before the proof is looked at: that costs most of what a refusal may cost.
            self.observer.add(Metric::SessionsPutOff, 1);
            let error = RequestError::new(ErrorCode::ErrorOverloaded, "too many sessions at once");
            return self.refuse_hello(token, &error.after_ms(wait_ms));
        }
        let identity = match &proof {
            Proof::AccessToken(access) => self.verifier.verify_access(access, self.now_ms),
            Proof::ResumeToken(resume) => self.verifier.verify_resume(resume, self.now_ms),
        };
        match identity {
            Err(error) => self.refuse_hello(token, &error),
            Ok(identity) if self.stage != Stage::Serving => self.send_on(token, identity.user),
            Ok(identity) => {
                self.attach_hello(token, identity, started);
            }
        }
    }

    fn attach_hello(&mut self, token: ConnectionToken, identity: Identity, started: Instant) {
        let home_term = self.router.term(self.router.shard(&ShardKey::User(identity.user)));
        let waiting = Waiting::Hello { token, identity, started, home_term };
        self.attach(token, identity.user, identity.device, waiting);
    }

    /// A hello was answered. If another node has come to lead the home shard meanwhile, that one does not know the session:
    /// when the others were announced this one was not ready.
    pub(super) fn look_for_another_leader(&mut self, token: ConnectionToken, home_term: u64) {
        let Some((user, _)) = self.sessions.find(token).and_then(|session| session.identity) else { return };
        if self.router.term(self.router.shard(&ShardKey::User(user))) != home_term {
            self.announce(token, None);
        }
    }

    fn attach(&mut self, token: ConnectionToken, user: UserId, device: DeviceId, waiting: Waiting) {
        let is_hello = matches!(waiting, Waiting::Hello { .. });
        let id = match self.pending.insert(self.now_ms, waiting) {
            Ok(id) => id,
            Err(_) if is_hello => {
                let error =
                    RequestError::new(ErrorCode::ErrorOverloaded, "the gateway's requests: all places taken");
                return self.refuse_hello(token, &error);
            }
            Err(_) => return self.announce_again(token),
        };
        self.announcements.unanswered += usize::from(!is_hello);
        if let Some(session) = self.sessions.find(token) {
            // From here on the home shard may know the session, whatever becomes of the answer.
            session.is_attached = true;
            session.identity = Some((user, device));
        }
        let operation = shard_request::Operation::Attach(AttachSession {
            user_id: user.to_bytes(),
            device_id: device.to_bytes(),
            session: Some(address_of(token)),
        });
        let shard = self.router.shard(&ShardKey::User(user));
        let request = ShardRequest { id: id.call(0), shard: shard.0, operation: Some(operation) };
        match self.storage.submit(self.router.link(shard), request) {
            Ok(()) => self.submitted = true,
            Err(error) => self.give_up(id, error),
        }
    }

    pub(super) fn hello_attached(
        &mut self,
        token: ConnectionToken,
        identity: Identity,
        started: Instant,
        result: shard_response::Result,
    ) {
        let shard_response::Result::Attached(attached) = result else {
            let error = RequestError::new(
                ErrorCode::ErrorInternal,
                "storage did not answer with an attached session",
            );
            return self.refuse_hello(token, &error);
        };
        if !attached.device_known && identity.user.is_benchmark() {
            return self.provision(token, identity, started);
        }
        if !attached.device_known {
            let error = RequestError::new(ErrorCode::ErrorUnauthenticated, "the device was logged out");
            return self.refuse_hello(token, &error);
        }
        let Some(session) = self.sessions.find(token) else { return };
        let info = ReadyInfo {
            user: identity.user,
            device: identity.device,
            server_time_ms: self.now_ms,
            resume_token: self.verifier.issue_resume(identity, self.now_ms),
            feed_version: attached.feed_version,
        };
        session.protocol.ready(self.now_ms, info, &mut self.space);
        self.clients.set_frame_bytes_max(token, FRAME_BYTES_MAX);
        self.observer.add(Metric::SessionsReady, 1);
        self.observer.latency(Latency::Hello, started.elapsed());
        let fate = self.send_space(token);
        self.settle(token, fate);
    }

    /// Makes a benchmark user and its device, as registering does for people: durable, and found by later sessions.
    /// Only the benchmark's key leads here. Nobody can log in as such a user: no password and no secret fits the
    /// hashes.
    fn provision(&mut self, token: ConnectionToken, identity: Identity, started: Instant) {
        let (user, device) = (identity.user, identity.device);
        let made = Device {
            device_id: device.to_bytes(),
            name: "benchmark".into(),
            refresh_hash: Bytes::from_static(&[0; 32]),
            ..Device::default()
        };
        let create = CreateUser {
            user_id: user.to_bytes(),
            username: format!("bench-{user}"),
            display_name: format!("bench {user}"),
            password_hash: String::new(),
            device: Some(made.clone()),
        };
        let add = AddDevice { user_id: user.to_bytes(), device: Some(made) };
        let commands = [command::Kind::CreateUser(create), command::Kind::AddDevice(add)];
        let waiting = Waiting::Provision { token, identity, started, left: commands.len() as u8 };
        let Ok(id) = self.pending.insert(self.now_ms, waiting) else {
            let error =
                RequestError::new(ErrorCode::ErrorOverloaded, "the gateway's requests: all places taken");
            return self.refuse_hello(token, &error);
        };
        let shard = self.router.shard(&ShardKey::User(user));
        for (part, kind) in commands.into_iter().enumerate() {
            let operation = shard_request::Operation::Command(Command { kind: Some(kind) });
            let request =
                ShardRequest { id: id.call(part as u16), shard: shard.0, operation: Some(operation) };
            match self.storage.submit(self.router.link(shard), request) {
                Ok(()) => self.submitted = true,
                Err(error) => return self.give_up(id, error),
            }
        }
    }

    /// One of the commands was answered. After the last one the session is attached as any other.
    pub(super) fn provisioned(&mut self, id: PendingId, result: StorageResult) {
        let outcome = calls::outcome(result);
        let Some(Waiting::Provision { token, identity, started, left }) = self.pending.find(id) else {
            return;
        };
        let (token, identity, started) = (*token, *identity, *started);
        *left -= 1;
        let is_last = *left == 0;
        if let Err(error) = outcome {
            self.give_up(id, error);
        } else if is_last {
            self.pending.remove(id);
            self.attach_hello(token, identity, started);
        }
    }

    /// The proof was not accepted, or could not be checked.
    pub(super) fn refuse_hello(&mut self, token: ConnectionToken, error: &RequestError) {
        self.observer.error(error.code);
        self.observer.add(Metric::SessionsRefused, 1);
        let Some(session) = self.sessions.find(token) else { return };
        session.protocol.refuse(error, &mut self.space);
        self.end_session(token);
    }

    /// Tells nodes that have forgotten our sessions of them, some in each turn.
    pub(super) fn announce_sessions(&mut self) {
        if self.announcements.next_deadline_ms().is_none_or(|at_ms| at_ms > self.now_ms) {
            return;
        }
        if self.announcements.again_at_ms <= self.now_ms {
            for token in std::mem::take(&mut self.announcements.again) {
                self.announce(token, None);
            }
        }
        let mut homes = std::mem::take(&mut self.announcements.homes);
        for (home, place) in &mut homes {
            if !self.announcements.has_room() {
                break;
            }
            let end = place.saturating_add(ANNOUNCE_PLACES).min(self.sessions.place_count());
            for slot in *place..end {
                if let Some(token) = self.sessions.token_at(slot) {
                    self.announce(token, Some(*home));
                }
            }
            *place = end;
        }
        let place_count = self.sessions.place_count();
        homes.retain(|(_, place)| *place < place_count);
        self.announcements.homes = homes;
    }

    /// Announces a session that is ready, if this is its home.
    fn announce(&mut self, token: ConnectionToken, home: Option<Home>) {
        let Some(session) = self.sessions.find(token) else { return };
        let Some((user, device)) = session.identity.filter(|_| session.protocol.is_ready()) else { return };
        let shard = self.router.shard(&ShardKey::User(user));
        let is_home = match home {
            None => true,
            Some(Home::Link(link)) => link == self.router.link(shard),
            Some(Home::Shard(home)) => home == shard,
        };
        if is_home {
            self.attach(token, user, device, Waiting::Attach { token });
        }
    }

    /// An announcement that had no answer is repeated, unless its link is gone: then all are, when it is back.
    pub(super) fn announce_again(&mut self, token: ConnectionToken) {
        let Some((user, _)) = self.sessions.find(token).and_then(|session| session.identity) else { return };
        let home = self.router.link(self.router.shard(&ShardKey::User(user)));
        if !self.storage.is_up(home) {
            return;
        }
        if self.announcements.again.is_empty() {
            self.announcements.again_at_ms = self.now_ms + ANNOUNCE_AGAIN_MS;
        }
        self.announcements.again.push(token);
    }

    /// The home shard knows the session again. What happened meanwhile was not pushed.
    pub(super) fn attached_again(&mut self, token: ConnectionToken, result: shard_response::Result) {
        let shard_response::Result::Attached(attached) = result else { return self.announce_again(token) };
        if !attached.device_known {
            return self.close_session(token, Reason::Unauthenticated, "the device was logged out", 0);
        }
        let Some(session) = self.sessions.find(token) else { return };
        let (sockets, space) = (&mut self.clients, &mut self.space);
        let body = server_frame::Body::SyncNeeded(v1::SyncNeeded {});
        let fate = Outbox { sockets, token, space }.event(session, self.now_ms, body);
        self.observer.add(Metric::SyncsAsked, 1);
        self.look_again(token);
        self.settle(token, fate);
    }

    /// The device is gone, and its own session was told so by its answer.
    pub(super) fn close_logged_out(&mut self, token: ConnectionToken) {
        self.close_session(token, Reason::LoggedOut, "logged out", 0);
    }
}

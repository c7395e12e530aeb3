//! How a core ends: it sends its clients away one after the other, finishes requests, and sends what it owes.
//!
//! ```text
//! Serving ──order──> Leaving ──all are gone, or the window ends──> Finishing ──> Flushing ──> Done
//!    └─────────────order without a window─────────────────────────────^
//! ```
//!
//! While it is leaving, the core accepts on and answers every hello with where to go: a balancer in front of it may need
//! some seconds to see that it leaves.

use super::Core;
use super::mailbox::LeaveOrder;
use crate::front::ConnectionToken;
use crate::observe::Metric;
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use wire_protocol::ids::UserId;

/// How long a core that leaves waits for requests under way, in milliseconds: a log in may wait a second for its hash.
pub(super) const DRAIN_REQUESTS_MS: u64 = 1_500;
/// How long it waits for clients to read what it still has for them, in milliseconds.
pub(super) const DRAIN_FLUSH_MS: u64 = 3_000;
/// Clients looked at in one turn, at most, so that a turn stays short: 20 µs each.
const LEAVERS_TURN_MAX: usize = 64;
/// Pause before those with requests under way are looked at again, in milliseconds.
const BUSY_MS: u64 = 5;

/// How a core ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    Serving,
    /// Clients go, each in its turn.
    Leaving,
    /// Requests under way are finished, until then; there was one of HTTP, which is looked at again.
    Finishing {
        until_ms: u64,
        look_ms: u64,
    },
    /// Sessions were told to leave; what they are still owed is sent, until then.
    Flushing {
        until_ms: u64,
    },
    /// Only storage goes on, for the other cores.
    Done,
}

/// Who goes when.
#[derive(Debug)]
pub(super) struct Leaving {
    order: LeaveOrder,
    began_ms: u64,
    /// In the order of their turns; those whose requests are under way step back.
    waiting: VecDeque<ConnectionToken>,
    /// How many have gone.
    gone: usize,
    look_ms: u64,
}

impl Core {
    /// The order to leave.
    pub(super) fn begin_to_leave(&mut self, order: LeaveOrder) {
        if self.stage != Stage::Serving {
            return;
        }
        let places = 0..self.sessions.place_count();
        let waiting: VecDeque<_> = places.filter_map(|slot| self.sessions.token_at(slot)).collect();
        tracing::info!(sessions = waiting.len(), others = order.fleet.others.len(), "a core leaves");
        let has_window = order.plan.window_ms() > 0;
        let (began_ms, look_ms) = (self.now_ms, self.now_ms);
        self.leaving = Some(Leaving { order, began_ms, waiting, gone: 0, look_ms });
        match has_window {
            true => self.stage = Stage::Leaving,
            false => self.finish(),
        }
    }

    /// When the next step is due.
    pub(super) fn leaving_deadline_ms(&self) -> Option<u64> {
        match self.stage {
            Stage::Leaving => {
                let leaving = self.leaving.as_ref()?;
                Some(leaving.look_ms.min(leaving.began_ms + leaving.order.plan.window_ms()))
            }
            Stage::Finishing { until_ms, look_ms } if look_ms > self.now_ms => Some(look_ms.min(until_ms)),
            Stage::Finishing { until_ms, .. } => Some(until_ms),
            Stage::Flushing { until_ms } => Some(until_ms),
            Stage::Serving | Stage::Done => None,
        }
    }

    /// One step nearer to the end, if the core is to end.
    pub(super) fn drain(&mut self) {
        match self.stage {
            Stage::Serving | Stage::Done => {}
            Stage::Leaving => self.send_some_away(),
            Stage::Finishing { until_ms, look_ms } => {
                // Once the HTTP runtime has answered, the bytes may still be on their way here.
                let look_ms = if self.http.is_busy() { self.now_ms + BUSY_MS } else { look_ms };
                self.stage = Stage::Finishing { until_ms, look_ms };
                let is_finished = self.pending.is_empty() && self.now_ms >= look_ms;
                if is_finished || self.now_ms >= until_ms {
                    self.send_everyone_away();
                    self.stage = Stage::Flushing { until_ms: self.now_ms + DRAIN_FLUSH_MS };
                }
            }
            Stage::Flushing { until_ms } => {
                if self.clients.connection_count() == 0 || self.now_ms >= until_ms {
                    self.stage = Stage::Done;
                    self.serving.fetch_sub(1, Ordering::AcqRel);
                }
            }
        }
    }

    /// A hello at a core that leaves: where to go instead, now. The user is the one whose token was shown.
    pub(super) fn send_on(&mut self, token: ConnectionToken, user: UserId) {
        self.say_where(token, Some(user), 0);
    }

    fn finish(&mut self) {
        self.clients.stop_accepting();
        self.stage = Stage::Finishing { until_ms: self.now_ms + DRAIN_REQUESTS_MS, look_ms: 0 };
    }

    /// Those whose turn it is.
    fn send_some_away(&mut self) {
        let Some(mut leaving) = self.leaving.take() else { return };
        let elapsed_ms = self.now_ms - leaving.began_ms;
        for _ in 0..LEAVERS_TURN_MAX.min(leaving.waiting.len()) {
            if leaving.order.plan.slot_ms(leaving.gone) > elapsed_ms {
                break;
            }
            let Some(token) = leaving.waiting.pop_front() else { break };
            let Some(session) = self.sessions.find(token) else { continue };
            let (user, is_busy) = (session.identity.map(|(user, _)| user), session.requests > 0);
            if is_busy {
                // Its answers first; the next one goes in its place.
                leaving.waiting.push_back(token);
                continue;
            }
            leaving.gone += 1;
            self.say_where_by(&leaving.order, token, user, 0);
        }
        let next_ms = leaving.began_ms + leaving.order.plan.slot_ms(leaving.gone);
        leaving.look_ms = next_ms.max(self.now_ms + BUSY_MS);
        let is_over = leaving.waiting.is_empty() || elapsed_ms >= leaving.order.plan.window_ms();
        self.leaving = Some(leaving);
        if is_over {
            self.finish();
        }
    }

    /// Those whose turn has not come are told how long to wait for it.
    fn send_everyone_away(&mut self) {
        if let Some(mut leaving) = self.leaving.take() {
            let elapsed_ms = self.now_ms - leaving.began_ms;
            for token in std::mem::take(&mut leaving.waiting) {
                let Some(session) = self.sessions.find(token) else { continue };
                let user = session.identity.map(|(user, _)| user);
                let wait_ms = leaving.order.plan.wait_ms(leaving.gone, elapsed_ms);
                leaving.gone += 1;
                self.say_where_by(&leaving.order, token, user, wait_ms);
            }
            self.leaving = Some(leaving);
        }
        // Who came meanwhile and has not said hello.
        for slot in 0..self.sessions.place_count() {
            if let Some(token) = self.sessions.token_at(slot) {
                self.say_where(token, None, 0);
            }
        }
        self.http.close_all(&mut self.clients);
    }

    fn say_where(&mut self, token: ConnectionToken, user: Option<UserId>, wait_ms: u32) {
        if let Some(leaving) = self.leaving.take() {
            self.say_where_by(&leaving.order, token, user, wait_ms);
            self.leaving = Some(leaving);
        }
    }

    fn say_where_by(
        &mut self,
        order: &LeaveOrder,
        token: ConnectionToken,
        user: Option<UserId>,
        wait_ms: u32,
    ) {
        let Some(session) = self.sessions.find(token) else { return };
        self.observer.add(Metric::SessionsSentOn, 1);
        // Strangers are told nothing of the fleet.
        let ranked = user.map_or_else(Vec::new, |user| order.fleet.ranked_others(user));
        let gateways = ranked.iter().map(|address| address.to_string()).collect();
        session.protocol.leaving(wait_ms, gateways, &mut self.space);
        self.end_session(token);
    }
}

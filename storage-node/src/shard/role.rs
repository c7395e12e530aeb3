//! A shard whose copies are on several nodes: who leads, and what a change of leader means for requests, sessions and
//! feed.
//!
//! ```text
//! following --wins an election--> recovering --applied all that was acknowledged--> loading --> serving
//!     ^                                |                                               |           |
//!     +------------------- another replica leads, or no quorum is heard --------------+-----------+
//! ```
//!
//! A leader that leads on in another term recovers anew, and takes along what waits. From when it has won on it refuses
//! nothing for want of leadership: what comes right behind would be taken, and overtake.
//!
//! A follower applies what is committed and nothing else: it has no sessions, sends no feed, and refuses requests by
//! naming the leader it knows. Reads of a leader wait until a quorum has said that it still leads (Ongaro 2014, 6.4):
//! those of one turn share a question, and its answer is a lease (`lease.rs`) for the reads to come, but for those that
//! decide who is let in.

use super::lease::Lease;
use super::propose::Abandoned;
use super::reads::{Attaching, REQUESTS_WAITING_MAX};
use super::{Effects, RETRY_NOT_LEADER_MS, ReadJob, ReadWork, Shard, Stage, respond};
use crate::replication::{Role, TICK_MS};
use crate::worker::Origin;
use std::collections::VecDeque;
use wire_protocol::internal::shard_request::Operation;
use wire_protocol::internal::shard_response::Result as Reply;
use wire_protocol::internal::{
    Query, RaftMessage, ShardError, ShardLeader, query, raft_message, shard_error,
};

/// Ticks that are made up for at once after a pause: an election's time, so that a leader that slept knows.
const TICKS_AT_ONCE_MAX: u64 = 10;

/// Time after which it is told that a leader does not serve yet, in milliseconds.
const STARTING_MS_TOLD: u64 = 1_000;

/// A read that waits until it is known that this replica still leads.
struct Barred {
    /// `None`: the question goes out with the next turn.
    ticket: Option<u64>,
    origin: Origin,
    operation: Operation,
}

impl Barred {
    /// Whether it may rest on a lease: pages of conversations and lists. What is read of accounts, names and devices
    /// decides who is let in, and must not rest on clocks.
    fn may_rest_on_lease(&self) -> bool {
        use query::Kind::{
            ReadConversation, ReadConversationList, ReadFeed, ReadName, ReadProfiles, ReadUser,
        };
        match &self.operation {
            Operation::Query(Query { kind: Some(kind) }) => match kind {
                ReadConversation(_) | ReadConversationList(_) | ReadFeed(_) | ReadProfiles(_) => true,
                ReadUser(_) | ReadName(_) => false,
            },
            _ => false,
        }
    }
}

/// A leader that does not serve yet.
struct Starting {
    since_ms: u64,
    is_told: bool,
}

/// Time of elections, and reads that wait for their leader's quorum.
pub(super) struct Lead {
    ticked_ms: Option<u64>,
    barred: VecDeque<Barred>,
    ticket_last: u64,
    lease: Lease,
    /// What was told of the leader last.
    told: Option<ShardLeader>,
    starting: Option<Starting>,
}

impl Lead {
    pub fn new() -> Self {
        Self {
            ticked_ms: None,
            barred: VecDeque::new(),
            ticket_last: 0,
            lease: Lease::default(),
            told: None,
            starting: None,
        }
    }

    pub fn waiting_count(&self) -> usize {
        self.barred.len()
    }

    pub fn link_closed(&mut self, link: crate::worker::LinkId) {
        self.barred.retain(|barred| barred.origin.link != link);
    }

    /// When the next tick is due.
    pub fn next_tick_ms(&self) -> u64 {
        self.ticked_ms.map_or(0, |ticked_ms| ticked_ms + TICK_MS)
    }
}

impl Shard {
    /// Whether its replica here takes part in nothing any more.
    fn is_out(&self) -> bool {
        matches!(self.stage, Stage::Failed | Stage::Leaving)
    }

    /// Takes a message of another replica.
    pub fn take_raft(&mut self, message: RaftMessage) {
        // While a snapshot is installed this replica takes no part.
        if self.is_out() || self.pipeline.is_restoring() {
            return;
        }
        // The rows of a snapshot come first, and bring the leader's message with them.
        if message.kind() == raft_message::Kind::Snapshot {
            tracing::warn!(shard = %self.id, node = message.from, "a snapshot without its rows");
            return;
        }
        if self.handing_over.refuses(&message) {
            tracing::info!(shard = %self.id, node = message.from, "takes over nothing: this node leaves");
            return;
        }
        if let Err(error) = self.pipeline.group().step(message) {
            tracing::warn!("{error}");
        }
    }

    /// The nodes that are to be told that this replica goes on to lead: of a group that hibernates, those of the others.
    pub fn hibernates_with(&self) -> impl Iterator<Item = u32> + '_ {
        let is_out = self.is_out();
        self.pipeline.hibernates_with().filter(move |_| !is_out)
    }

    /// The node of this shard's leader goes on for it. `true`: this replica hibernates with it.
    pub fn hear_leaders_node(&mut self, node: u32) -> bool {
        !self.is_out() && self.pipeline.group().hear_leaders_node(node)
    }

    /// The replica on this node hibernates, and follows this one.
    pub fn hear_followers_node(&mut self, node: u32) {
        self.pipeline.group().hear_followers_node(node);
    }

    /// Time passes for the group, its role is looked at, and reads ask for their quorum.
    pub(super) fn turn_replica(&mut self, now_ms: u64, effects: &mut Effects) {
        self.tick(now_ms);
        effects.late_nodes.extend(self.pipeline.group().take_late());
        self.look_at_role(effects);
        self.look_at_start(now_ms);
        self.turn_hand_over(now_ms);
        self.read_by_lease(now_ms, effects);
        self.ask_for_quorum(now_ms);
    }

    /// Requests wait while a leader is about to serve: where that takes long, somebody will want to know.
    fn look_at_start(&mut self, now_ms: u64) {
        let what = match self.stage {
            Stage::Recovering => "its rows are not as far as its log was",
            Stage::Loading => "its feed is not read yet",
            _ => return self.lead.starting = None,
        };
        let Starting { since_ms, is_told } =
            self.lead.starting.get_or_insert(Starting { since_ms: now_ms, is_told: false });
        let waited_ms = now_ms.saturating_sub(*since_ms);
        if waited_ms >= STARTING_MS_TOLD && !std::mem::replace(is_told, true) {
            tracing::warn!(shard = %self.id, waited_ms, "leads, and does not serve yet: {what}");
        }
    }

    fn tick(&mut self, now_ms: u64) {
        let ticked_ms = self.lead.ticked_ms.get_or_insert(now_ms);
        let ticks = now_ms.saturating_sub(*ticked_ms) / TICK_MS;
        if ticks > 0 && self.pipeline.is_restoring() {
            *ticked_ms = now_ms;
        } else if ticks > 0 {
            *ticked_ms = if ticks > TICKS_AT_ONCE_MAX { now_ms } else { *ticked_ms + ticks * TICK_MS };
            self.pipeline.group().pass(ticks.min(TICKS_AT_ONCE_MAX));
        }
    }

    /// To be called after everything that may change who leads.
    pub(super) fn look_at_role(&mut self, effects: &mut Effects) {
        let (own, term) = (self.replicas.own, self.pipeline.term());
        let leader = match self.pipeline.role() {
            Role::Leader { .. } => Some(own),
            Role::Follower { leader } => leader,
        };
        if let Some(node_id) = leader.filter(|_| self.has_copies()) {
            let leader = ShardLeader { shard: self.id.0, node_id, term };
            if self.lead.told != Some(leader) {
                self.lead.told = Some(leader);
                effects.leaders.push(leader);
            }
        }
        let leads_in = match self.pipeline.role() {
            Role::Leader { term, .. } => Some(term),
            Role::Follower { .. } => None,
        };
        if self.leads_in != leads_in && !self.is_out() {
            match (self.leads_in, leads_in) {
                (Some(_), Some(_)) => self.lead_on(effects),
                (Some(_), None) => self.step_down(effects),
                (None, _) => {}
            }
            self.leads_in = leads_in;
            self.lead.lease = Lease::default();
            if leads_in.is_some() {
                tracing::info!(shard = %self.id, term, "leads");
                self.stage = Stage::Recovering;
            }
        }
        if matches!(self.stage, Stage::Recovering) && self.pipeline.is_recovered() {
            self.stage = Stage::Loading;
            let source_as_of = self.source.is_none().then(|| self.pipeline.applied_index());
            effects.reads.push(ReadJob { shard: self.id, work: ReadWork::Load { source_as_of } });
        }
    }

    /// Another replica leads, or will: nobody who waits gets an answer here, and sessions have to attach there.
    pub(super) fn step_down(&mut self, effects: &mut Effects) {
        tracing::info!(shard = %self.id, "leads no more");
        self.end_term(effects);
        let Abandoned { untouched, unknown } = self.everyone_who_waits();
        for origin in untouched {
            self.refuse_for_leader(origin, effects);
        }
        for origin in unknown {
            let detail = "another copy leads; whether this was done is unknown";
            self.refuse(origin, shard_error::Kind::Unavailable, detail, effects);
        }
    }

    /// This replica leads on in another term: sessions have to attach anew, and what was not begun is carried out in its order
    /// once it serves again. Requests that are behind it may be on their way.
    fn lead_on(&mut self, effects: &mut Effects) {
        self.end_term(effects);
        let mut unknown = self.pipeline.lead_on();
        let mut attaching: Vec<(u64, Attaching)> = self.attaching.drain().collect();
        attaching.sort_unstable_by_key(|(ticket, _)| *ticket);
        for (_, attaching) in attaching {
            match attaching.detached {
                true => unknown.push(attaching.origin),
                false => self.defer(attaching.origin, attaching.operation(), effects),
            }
        }
        for Barred { origin, operation, .. } in std::mem::take(&mut self.lead.barred) {
            self.defer(origin, operation, effects);
        }
        for origin in unknown {
            let detail = "another term has begun; whether this was done is unknown";
            self.refuse(origin, shard_error::Kind::Unavailable, detail, effects);
        }
    }

    /// What it had as leader of a term goes with that.
    fn end_term(&mut self, effects: &mut Effects) {
        self.stage = Stage::Following;
        self.source = None;
        self.feed_due_ms = None;
        self.deferred_batches.clear();
        self.registry.clear();
        self.stop_sending(effects);
    }

    /// Takes out everybody who waits for an answer, in an order that the seed of a simulation gives.
    pub(super) fn everyone_who_waits(&mut self) -> Abandoned {
        let mut abandoned = self.pipeline.abandon();
        let Abandoned { untouched, unknown } = &mut abandoned;
        untouched.extend(self.deferred.drain(..).map(|deferred| deferred.origin));
        let mut attaching: Vec<(u64, Attaching)> = self.attaching.drain().collect();
        attaching.sort_unstable_by_key(|(ticket, _)| *ticket);
        for (_, attaching) in attaching {
            match attaching.detached {
                // The detach was answered: nobody repeats it where the attach would be sent again.
                true => unknown.push(attaching.origin),
                false => untouched.push(attaching.origin),
            }
        }
        untouched.extend(self.lead.barred.drain(..).map(|barred| barred.origin));
        abandoned
    }

    /// Names the leader, if one is known. Nothing of the request was done: its gateway sends it there.
    pub(super) fn refuse_for_leader(&self, origin: Origin, effects: &mut Effects) {
        let leader = match self.pipeline.role() {
            Role::Follower { leader } => leader,
            // Its replica is gone, and the others elect one of theirs.
            Role::Leader { .. } => None,
        };
        let detail = match leader {
            Some(leader) => format!("shard {}: node {leader} leads", self.id),
            None => format!("shard {}: an election goes on", self.id),
        };
        self.metrics.unavailable.increment();
        let error = ShardError {
            kind: shard_error::Kind::NotLeader as i32,
            detail,
            retry_after_ms: RETRY_NOT_LEADER_MS,
            leader_node_id: leader.unwrap_or(0),
            term: self.pipeline.term(),
        };
        respond(origin, Reply::Error(error), effects);
    }

    /// A read of a shard with several copies waits for its leader's quorum.
    pub(super) fn bar(&mut self, origin: Origin, operation: Operation, effects: &mut Effects) {
        if self.lead.barred.len() >= REQUESTS_WAITING_MAX {
            return self.refuse(origin, shard_error::Kind::Overloaded, "reads waiting", effects);
        }
        self.lead.barred.push_back(Barred { ticket: None, origin, operation });
    }

    /// While the lease holds, what may rest on it is carried out at once: the time was read after it came.
    fn read_by_lease(&mut self, now_ms: u64, effects: &mut Effects) {
        if !self.is_serving() || !self.lead.lease.holds(now_ms) {
            return;
        }
        let (reads, others): (VecDeque<Barred>, _) = std::mem::take(&mut self.lead.barred)
            .into_iter()
            .partition(|barred| barred.ticket.is_none() && barred.may_rest_on_lease());
        self.lead.barred = others;
        if !reads.is_empty() && self.lead.lease.is_to_be_renewed(now_ms) {
            self.put_question(now_ms);
        }
        self.metrics.reads_by_lease.add(reads.len() as u64);
        for Barred { origin, operation, .. } in reads {
            self.carry_out_read(origin, operation, effects);
        }
    }

    fn ask_for_quorum(&mut self, now_ms: u64) {
        if !self.is_serving() || !self.lead.barred.iter().any(|barred| barred.ticket.is_none()) {
            return;
        }
        let ticket = self.put_question(now_ms);
        self.lead.barred.iter_mut().rev().take_while(|barred| barred.ticket.is_none()).for_each(|barred| {
            barred.ticket = Some(ticket);
        });
    }

    /// Asks the other replicas whether this one still leads.
    fn put_question(&mut self, now_ms: u64) -> u64 {
        self.lead.ticket_last += 1;
        let ticket = self.lead.ticket_last;
        self.lead.lease.asked(ticket, now_ms);
        self.metrics.quorum_questions.increment();
        self.pipeline.group().read_barrier(ticket);
        ticket
    }

    /// Carries out the reads whose quorum has answered.
    pub(super) fn pass_barrier(&mut self, effects: &mut Effects) {
        let Some(passed) = self.pipeline.readable_ticket() else { return };
        self.lead.lease.answered(passed);
        while self.lead.barred.front().and_then(|barred| barred.ticket).is_some_and(|ticket| ticket <= passed)
        {
            let Some(barred) = self.lead.barred.pop_front() else { break };
            self.carry_out_read(barred.origin, barred.operation, effects);
        }
    }

    /// Another replica is asked to stand for election.
    pub(super) fn offer_leadership(&mut self, to: u32) {
        self.lead.lease.give_up();
        self.pipeline.group().transfer_to(to);
    }
}

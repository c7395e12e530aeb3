//! What a replica takes of others, and what it refuses before the consensus library sees it: that would take a
//! contradiction for a fault of its own, and panic.

use super::hibernation::Heartbeat;
use super::{Group, is_of_leader};
use crate::replication::message::{MessageError, from_wire, replicas_of};
use crate::replication::{is_holder, is_voter};
use raft::StateRole;
use raft::eraftpb::{Message, MessageType};
use wire_protocol::internal::RaftMessage;

impl Group {
    /// Takes another replica's message. What does not fit the present term is left, as Raft says.
    pub fn step(&mut self, message: RaftMessage) -> Result<(), MessageError> {
        let (shard, own) = (self.shard, self.node.raft.id);
        let (hibernates, beat) = (message.hibernates, message.beat);
        let message = from_wire(message)?;
        if message.to != own {
            return Err(MessageError { shard, what: "another node" });
        }
        if message.from == own {
            return Err(MessageError { shard, what: "its own" });
        }
        // A leader or a candidate may be newer than the set that is known here; answers come from those asked.
        let is_answer = matches!(
            message.msg_type,
            MessageType::MsgAppendResponse
                | MessageType::MsgHeartbeatResponse
                | MessageType::MsgRequestVoteResponse
                | MessageType::MsgRequestPreVoteResponse
                | MessageType::MsgTransferLeader
        );
        if is_answer && self.node.raft.prs().get(message.from).is_none() {
            return Err(MessageError { shard, what: "a node that holds no replica" });
        }
        let raft = &self.node.raft;
        let is_second = ![0, message.from].contains(&raft.leader_id) && message.term == raft.term;
        if is_second && is_of_leader(&message) {
            return Err(MessageError { shard, what: "a second leader of one term" });
        }
        if let Some(what) = self.contradiction(&message).or_else(|| self.out_of_place(&message)) {
            return Err(MessageError { shard, what });
        }
        // What comes behind a snapshot must not be written to the log that it takes the place of. It is sent again.
        let is_busy = self.restoring.is_some() || self.node.raft.raft_log.unstable.snapshot.is_some();
        if is_busy || self.asks_to_break_promise(&message) {
            return Ok(());
        }
        let (is_of_leader, from, term) = (is_of_leader(&message), message.from, message.term);
        let heartbeat = Heartbeat { kind: message.msg_type, from, term, commit: message.commit, hibernates };
        self.heard.insert(from, self.ticks);
        self.wake_for(&message, hibernates);
        if let Err(error) = self.node.step(message) {
            tracing::debug!(%shard, "a Raft message was left: {error}");
        }
        self.promise_if_led(is_of_leader, from, term);
        self.look_at_role();
        self.take_beat(heartbeat.kind, from, term, beat);
        self.hibernate_for(heartbeat);
        Ok(())
    }

    /// What in a message cannot be, as this log stands. The library takes such for a fault of its own and panics: a
    /// node that lost its disk, or a message that was made up, would end this process.
    fn contradiction(&self, message: &Message) -> Option<&'static str> {
        let raft = &self.node.raft;
        let last = raft.raft_log.last_index();
        let is_heard = raft.state == StateRole::Leader && message.term == raft.term;
        let is_candidate = matches!(raft.state, StateRole::Candidate | StateRole::PreCandidate);
        match message.msg_type {
            // This replica once said that it had all of this.
            MessageType::MsgHeartbeat if message.commit > last => Some("a commit beyond this log's end"),
            MessageType::MsgAppendResponse if is_heard && message.index.max(message.reject_hint) > last => {
                Some("an index beyond this log's end")
            }
            // A candidate asks once all of its log is on disk.
            MessageType::MsgRequestVoteResponse | MessageType::MsgRequestPreVoteResponse
                if is_candidate && raft.raft_log.persisted < last =>
            {
                Some("an answer to what was not asked yet")
            }
            // The library would obey it, or pass it on; a leader hands over by its own decision alone.
            MessageType::MsgTransferLeader => Some("a hand-over that another node asks for"),
            _ => None,
        }
    }

    /// What one that holds no replica must not take. It has nothing, or has forgotten it: it becomes a replica by a
    /// snapshot as a learner alone. As a voter it would be one whose disk was lost, and whose vote and whose entries others
    /// may count on.
    fn out_of_place(&self, message: &Message) -> Option<&'static str> {
        if message.msg_type == MessageType::MsgSnapshot {
            let set = replicas_of(message.get_snapshot());
            let own = self.own();
            return match (is_voter(&set, own), self.is_holder()) {
                (true, false) => {
                    Some("a snapshot for a voter, which this node is not: has it lost its disk?")
                }
                _ if !is_holder(&set, own) => Some("a snapshot for replicas on other nodes"),
                _ => None,
            };
        }
        if self.is_holder() {
            return None;
        }
        match message.msg_type {
            MessageType::MsgHeartbeat => None,
            // It is answered by how little there is here. Nothing else would say who the replicas are.
            MessageType::MsgAppend if message.index > 0 => None,
            MessageType::MsgAppend => Some("a log's beginning without a snapshot"),
            _ => Some("a question to a node that holds no replica"),
        }
    }
}

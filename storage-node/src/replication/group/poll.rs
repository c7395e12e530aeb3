//! What a replica wants done, to be written, sent and applied, and what follows once that is reported.

use super::{Group, GroupOutput};
use crate::plant::{self, Plant};
use crate::replication::LogEntry;
use crate::replication::log::{LogWrite, Vote};
use crate::replication::message::to_wire;
use crate::replication::replicas::{decode_change, from_conf_state};
use bytes::Bytes;
use raft::eraftpb::{Entry, EntryType, MessageType};
use raft::{INVALID_ID, StateRole};
use wire_protocol::internal::{RaftMessage, ReplicaSet};

impl Group {
    /// The snapshot of [`GroupOutput::restore`] is installed and durable: the log begins with it, the state is its state.
    pub fn restored(&mut self) {
        let Some(number) = self.restoring.take() else { return };
        assert!(self.writing.is_empty(), "writes before it are waited for");
        let index = self.node.mut_store().restored();
        self.persisted(number);
        self.node.advance_apply_to(index);
        self.look_at_role();
    }

    /// What is to be written, sent, and what is committed. Call until `None`.
    pub fn poll(&mut self) -> Option<GroupOutput> {
        let snapshot_wanted = self.node.store().wanted.take().and_then(|node| u32::try_from(node).ok());
        let is_idle = !self.node.has_ready() && self.outgoing.is_empty() && snapshot_wanted.is_none();
        if is_idle || self.restoring.is_some() {
            return None;
        }
        let mut output = GroupOutput { snapshot_wanted, ..GroupOutput::default() };
        if self.node.has_ready() {
            self.take_ready(&mut output);
        }
        let (shard, marks, doubtful) = (self.shard, self.marks(), self.doubtful_learners());
        for mut message in self.outgoing.drain(..) {
            if message.msg_type == MessageType::MsgHeartbeat && doubtful.contains(&message.to) {
                message.commit = 0;
            }
            let is_copy = message.msg_type == MessageType::MsgSnapshot;
            let (hibernates, beat) = (marks.has(&message), self.pulse.beat_of(&message, self.ticks));
            match to_wire(shard, message).map(|message| RaftMessage { hibernates, beat, ..message }) {
                Some(message) if is_copy => output.snapshot_message = Some(message),
                message => output.messages.extend(message),
            }
        }
        Some(output)
    }

    /// Learners that have not acknowledged the newest change of the replicas: one that came back may have removed by now what
    /// it acknowledged when it came, since all that it knew then said that it was gone. It would have to refuse a heartbeat
    /// by which the leader counts on that, and without an answer nothing more would be sent to it, a snapshot least of all.
    fn doubtful_learners(&self) -> Vec<u64> {
        let ReplicaSet { learners, changed_at, .. } = self.replicas();
        let prs = self.node.raft.prs();
        let is_doubtful = |id: &u64| prs.get(*id).is_some_and(|progress| progress.matched < *changed_at);
        learners.iter().copied().map(u64::from).filter(is_doubtful).collect()
    }

    fn take_ready(&mut self, output: &mut GroupOutput) {
        let mut ready = self.node.ready();
        let number = ready.number();
        if !ready.snapshot().is_empty() {
            assert!(ready.entries().is_empty(), "nothing is taken behind a snapshot");
            output.restore = Some(ready.snapshot().get_metadata().index);
            self.node.mut_store().restore(ready.snapshot());
            self.restoring = Some(number);
        }
        let entries = ready.take_entries();
        let vote = ready.hs().map(Vote::of).filter(|vote| *vote != self.vote);
        let committed = ready.take_committed_entries();
        output.readable = ready
            .take_read_states()
            .into_iter()
            .filter_map(|state| {
                let ticket = state.request_ctx.as_slice().try_into().ok()?;
                Some((u64::from_be_bytes(ticket), state.index))
            })
            .collect();
        self.outgoing.extend(ready.take_messages());
        let held = ready.take_persisted_messages();
        // A hard state of which only the commit index changed needs no write. With entries it is written: who has the end
        // of a joint change must know after a restart, too, that its beginning was committed, or it would stand for
        // election among the voters of before.
        if !entries.is_empty() || vote.is_some() {
            // Before `advance_append_async` the entries must be readable through `Storage`.
            self.node.mut_store().append(&entries);
            self.vote = vote.unwrap_or(self.vote);
            self.writing.push_back(number);
            let known_committed = self.node.raft.raft_log.committed;
            let vote = if plant::active(Plant::LostVote) {
                vote.map(|vote| Vote { voted_for: INVALID_ID, ..vote })
            } else {
                vote
            };
            output.write = Some(LogWrite { shard: self.shard, number, entries, known_committed, vote });
        }
        self.node.advance_append_async(ready);
        output.committed = committed.into_iter().map(|entry| self.committed(entry)).collect();
        if self.writing.is_empty() && self.restoring.is_none() {
            self.outgoing.extend(held);
            self.node.on_persist_ready(number);
        } else if !held.is_empty() {
            self.held.push_back((number, held));
        }
        self.look_at_role();
    }

    /// A committed entry as it goes out; a change of the replicas counts from here on.
    fn committed(&mut self, entry: Entry) -> LogEntry {
        let index = entry.index;
        if entry.entry_type == EntryType::EntryNormal {
            return LogEntry { index, record: entry.data, replicas: None };
        }
        let before: Vec<u64> = self.node.raft.prs().iter().map(|(id, _)| *id).collect();
        let changed = decode_change(self.shard, &entry.data)
            .map_err(|error| error.to_string())
            .and_then(|change| self.node.apply_conf_change(&change).map_err(|error| error.to_string()));
        match changed {
            Ok(state) => {
                let storage = self.node.mut_store();
                storage.replicas = from_conf_state(&state, index);
                let (ticks, heard) = (self.ticks, &mut self.heard);
                let prs = self.node.raft.prs();
                for (id, _) in prs.iter() {
                    heard.entry(*id).or_insert(ticks);
                }
                self.removed.extend(before.into_iter().filter(|id| prs.get(*id).is_none()));
            }
            // The same on all replicas: they have the same set and the same entry.
            Err(error) => tracing::warn!(shard = %self.shard, index, "a change of replicas is none: {error}"),
        }
        self.give_way_if_gone();
        LogEntry { index, record: Bytes::new(), replicas: Some(self.replicas().clone()) }
    }

    /// A leader that a change of an earlier leader took out leads no more: the library does not expect it to go on. The
    /// others have the change, and elect one of their own.
    fn give_way_if_gone(&mut self) {
        let raft = &mut self.node.raft;
        if raft.state == StateRole::Leader && raft.prs().get(raft.id).is_none() {
            tracing::info!(shard = %self.shard, "is no replica any more, and led until now");
            raft.become_follower(raft.term, 0);
        }
    }

    /// The write of this number, and all before it, are on disk.
    pub fn persisted(&mut self, number: u64) {
        while self.writing.front().is_some_and(|first| *first <= number) {
            self.writing.pop_front();
        }
        if self.restoring.is_some() {
            return;
        }
        // What was said without a write of its own rests on the writes before it alone.
        let next = self.writing.front().copied().unwrap_or(u64::MAX);
        while self.held.front().is_some_and(|(after, _)| *after < next) {
            let Some((_, messages)) = self.held.pop_front() else { break };
            self.outgoing.extend(messages);
        }
        self.node.on_persist_ready(number);
        if plant::active(Plant::AckBeforeQuorum) && self.node.raft.state == StateRole::Leader {
            let log = &mut self.node.raft.raft_log;
            log.commit_to(log.persisted);
        }
        self.look_at_role();
    }

    /// Committed entries up to `index` are applied and readable.
    pub fn applied(&mut self, index: u64) {
        self.node.advance_apply_to(index);
        self.node.mut_store().forget_up_to(index);
    }
}

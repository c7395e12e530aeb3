//! Messages on their way out, in order for each conversation.
//!
//! ```text
//!   queued ──sent──▶ in flight ──accepted──▶ gone (an entry of the conversation now)
//!     ▲                 │  │
//!     └──retryable──────┘  └──refused──▶ gone (the user decides; the store keeps it)
//! ```
//! A message is sent only when all before it in its conversation are in flight or gone, and names the one right
//! before it while that one has no answer: so the server can never apply it out of order. It keeps its client
//! message id through every repeat. After an answer that says the order was broken, the conversation sends one
//! at a time until one is accepted. Knows nothing of frames; the engine asks [`Outbox::poll_send`].

use super::jitter::{Jitter, Range};
use crate::limits::{RETRY_MS_BASE, RETRY_MS_MAX};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use wire_protocol::ids::{ClientMessageId, ConversationId};

const RETRY: Range = Range { base_ms: RETRY_MS_BASE, max_ms: RETRY_MS_MAX };

/// A message of the outbox.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outgoing {
    /// Where to.
    pub conversation: ConversationId,
    /// Chosen once, kept for ever.
    pub id: ClientMessageId,
    /// `EntryKind` as it stands on the wire.
    pub kind: i32,
    /// Content.
    pub body: Bytes,
    /// When the app handed it over, milliseconds since 1970.
    pub queued_ms: u64,
    /// When it was first sent; from then on the server may know it.
    pub first_attempt_ms: Option<u64>,
}

/// A message to be sent now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Send {
    /// The message.
    pub message: Outgoing,
    /// The one before it, if that has no answer yet.
    pub predecessor: Option<ClientMessageId>,
    /// It was never sent before.
    pub first_attempt: bool,
}

#[derive(Clone, Debug)]
struct Item {
    message: Outgoing,
    in_flight: bool,
}

/// The queue of one conversation. Items in flight are not always a prefix: one in the middle may have come back.
#[derive(Clone, Debug, Default)]
struct Lane {
    items: VecDeque<Item>,
    failures: u32,
    not_before_ms: u64,
    /// The part of that wait that the server asked for: nothing shortens it but a new connection.
    asked_until_ms: u64,
    one_at_a_time: bool,
}

/// All lanes.
#[derive(Clone, Debug, Default)]
pub struct Outbox {
    lanes: BTreeMap<ConversationId, Lane>,
    message_count: usize,
    in_flight_count: usize,
    /// The lane that was served last: the next one comes first, so that none starves.
    served_last: Option<ConversationId>,
}

/// Where to look for the next send.
#[derive(Clone, Copy)]
struct Ready {
    conversation: ConversationId,
    index: usize,
}

impl Outbox {
    /// Appends a message.
    pub fn push(&mut self, message: Outgoing) {
        let lane = self.lanes.entry(message.conversation).or_default();
        assert!(
            lane.items.iter().all(|item| item.message.id != message.id),
            "ids are unique in a conversation"
        );
        lane.items.push_back(Item { message, in_flight: false });
        self.message_count += 1;
    }

    /// Messages without an answer, refused ones not counted.
    pub fn message_count(&self) -> usize {
        self.message_count
    }

    /// Sends without an answer.
    pub fn in_flight_count(&self) -> usize {
        self.in_flight_count
    }

    /// Whether this message waits here, and what it is.
    pub fn message(&self, conversation: ConversationId, id: ClientMessageId) -> Option<&Outgoing> {
        let lane = self.lanes.get(&conversation)?;
        lane.items.iter().map(|item| &item.message).find(|message| message.id == id)
    }

    /// Takes the next message that may be sent; it counts as in flight from now on. `may_send` says whether a
    /// conversation takes more at all.
    pub fn poll_send(&mut self, now_ms: u64, may_send: impl Fn(ConversationId) -> bool) -> Option<Send> {
        let ready = self.next_ready(now_ms, may_send)?;
        self.served_last = Some(ready.conversation);
        let lane = self.lanes.get_mut(&ready.conversation)?;
        let predecessor = ready.index.checked_sub(1).and_then(|index| lane.items.get(index));
        let predecessor = predecessor.map(|item| item.message.id);
        let item = lane.items.get_mut(ready.index)?;
        let first_attempt = item.message.first_attempt_ms.is_none();
        item.message.first_attempt_ms.get_or_insert(now_ms);
        item.in_flight = true;
        let message = item.message.clone();
        self.in_flight_count += 1;
        self.check_invariants();
        Some(Send { message, predecessor, first_attempt })
    }

    fn next_ready(&self, now_ms: u64, may_send: impl Fn(ConversationId) -> bool) -> Option<Ready> {
        let ready = |(conversation, lane): (&ConversationId, &Lane)| {
            let index = lane.next_index(now_ms)?;
            may_send(*conversation).then_some(Ready { conversation: *conversation, index })
        };
        use std::ops::Bound::{Excluded, Unbounded};
        let after = self.served_last.map_or(Unbounded, Excluded);
        let later = self.lanes.range((after, Unbounded)).find_map(ready);
        later.or_else(|| self.lanes.iter().find_map(ready))
    }

    /// When [`Self::poll_send`] may have something that it has not now.
    pub fn poll_timeout(&self, now_ms: u64) -> Option<u64> {
        let waiting = self.lanes.values().filter(|lane| lane.items.iter().any(|item| !item.in_flight));
        waiting.map(|lane| lane.not_before_ms).filter(|at_ms| *at_ms > now_ms).min()
    }

    /// The server has made it durable: gone. `None` if it was not waiting.
    pub fn handle_accepted(&mut self, conversation: ConversationId, id: ClientMessageId) -> Option<Outgoing> {
        let message = self.remove(conversation, id)?;
        if let Some(lane) = self.lanes.get_mut(&conversation) {
            lane.failures = 0;
            // Those in flight before the refused one are answered after it: they are no news about its wait.
            lane.not_before_ms = lane.not_before_ms.min(lane.asked_until_ms);
            lane.one_at_a_time = false;
        }
        Some(message)
    }

    /// It will never be sent, or the user took it back: gone. Those behind it go on.
    pub fn remove(&mut self, conversation: ConversationId, id: ClientMessageId) -> Option<Outgoing> {
        let lane = self.lanes.get_mut(&conversation)?;
        let index = lane.items.iter().position(|item| item.message.id == id)?;
        let item = lane.items.remove(index)?;
        if lane.items.is_empty() {
            self.lanes.remove(&conversation);
        }
        self.message_count -= 1;
        self.in_flight_count -= usize::from(item.in_flight);
        self.check_invariants();
        Some(item.message)
    }

    /// It was refused for now: it is sent again after a wait, and before those behind it.
    pub fn handle_retryable(&mut self, refused: Refused, now_ms: u64, jitter: &mut Jitter) {
        let Some(lane) = self.lanes.get_mut(&refused.conversation) else { return };
        let Some(item) = lane.items.iter_mut().find(|item| item.message.id == refused.id) else { return };
        self.in_flight_count -= usize::from(item.in_flight);
        item.in_flight = false;
        match refused.cause {
            Cause::PredecessorMissing => lane.one_at_a_time = true,
            Cause::Other { retry_after_ms } => {
                lane.failures = lane.failures.saturating_add(1);
                let wait_ms = jitter.backoff(lane.failures, RETRY, retry_after_ms);
                lane.not_before_ms = lane.not_before_ms.max(now_ms + wait_ms);
                lane.asked_until_ms = lane.asked_until_ms.max(now_ms + u64::from(retry_after_ms));
            }
        }
        self.check_invariants();
    }

    /// The connection is gone: nothing is in flight, and the next one starts without waits.
    pub fn handle_disconnected(&mut self) {
        for lane in self.lanes.values_mut() {
            lane.items.iter_mut().for_each(|item| item.in_flight = false);
            (lane.failures, lane.not_before_ms, lane.asked_until_ms) = (0, 0, 0);
            lane.one_at_a_time = false;
        }
        self.in_flight_count = 0;
    }

    /// Takes out messages that were attempted before `before_ms`: the server may not recognise a repeat. None
    /// of them may be in flight: call it before sending starts.
    pub fn remove_unconfirmed(&mut self, before_ms: u64) -> Vec<Outgoing> {
        let old = |item: &Item| {
            !item.in_flight && item.message.first_attempt_ms.is_some_and(|at_ms| at_ms < before_ms)
        };
        let items = self.lanes.values().flat_map(|lane| &lane.items).filter(|item| old(item));
        let keys: Vec<_> = items.map(|item| (item.message.conversation, item.message.id)).collect();
        keys.into_iter().filter_map(|(conversation, id)| self.remove(conversation, id)).collect()
    }

    fn check_invariants(&self) {
        debug_assert_eq!(self.message_count, self.lanes.values().map(|lane| lane.items.len()).sum::<usize>());
        debug_assert!(self.lanes.values().all(|lane| !lane.items.is_empty()));
        assert!(self.in_flight_count <= self.message_count);
    }
}

/// An answer that sends a message back to the queue.
#[derive(Clone, Copy, Debug)]
pub struct Refused {
    /// Where the message belongs.
    pub conversation: ConversationId,
    /// Which.
    pub id: ClientMessageId,
    /// Why.
    pub cause: Cause,
}

/// Why a message goes back to the queue.
#[derive(Clone, Copy, Debug)]
pub enum Cause {
    /// The one before it was not applied.
    PredecessorMissing,
    /// The server or its storage is busy or away.
    Other {
        /// Wait at least this long.
        retry_after_ms: u32,
    },
}

impl Lane {
    /// The first item that is not in flight, if it may go now.
    fn next_index(&self, now_ms: u64) -> Option<usize> {
        if now_ms < self.not_before_ms {
            return None;
        }
        let index = self.items.iter().position(|item| !item.in_flight)?;
        let alone = !self.items.iter().any(|item| item.in_flight);
        (alone || !self.one_at_a_time).then_some(index)
    }
}

#[cfg(test)]
mod tests;

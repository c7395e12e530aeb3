//! What other threads ask of a core: storage calls and bytes of the HTTP runtime, and the order to leave.
//!
//! A bounded queue and a wake-up. It knows nothing of what the messages mean; the loop takes them each turn.

use crate::fleet::FleetView;
use crate::fleet::slots::LeavePlan;
use crate::front::ConnectionToken;
use crate::worker::wake::WakeHandle;
use bytes::Bytes;
use crossbeam_queue::ArrayQueue;
use std::sync::Arc;
use tokio::sync::oneshot;
use wire_protocol::error::RequestError;
use wire_protocol::ids::{ConversationId, UserId};
use wire_protocol::internal;

/// Messages one core's mailbox holds: a few turns' worth, so that a full one means the core is late.
pub const MAILBOX_MESSAGES_MAX: usize = 4_096;

/// What decides the shard of a storage call.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum ShardKey {
    /// The user's home shard.
    User(UserId),
    /// The conversation's shard.
    Conversation(ConversationId),
    /// The shard of a unique name's directory entry; the name in its normal form.
    Name(String),
}

/// The answer to a storage call, or why it was not carried out.
pub type StorageResult = Result<internal::shard_response::Result, RequestError>;

/// A message to a core.
pub enum CoreMessage {
    /// Carry an operation to its shard. A dropped `reply` receiver is fine.
    StorageCall {
        /// Decides the shard.
        shard_key: ShardKey,
        /// What to do there.
        operation: internal::shard_request::Operation,
        /// Told once.
        reply: oneshot::Sender<StorageResult>,
    },
    /// Bytes for an HTTP connection of this core. The core tells `HttpIngress` how many it has handed to the
    /// socket, and the HTTP runtime keeps at most its window unwritten, so nothing grows here.
    HttpOut {
        /// Whose.
        token: ConnectionToken,
        /// Plaintext.
        bytes: Bytes,
    },
    /// Close an HTTP connection after what was sent before.
    HttpClose {
        /// Whose.
        token: ConnectionToken,
    },
    /// Send every session away, each in its turn, flush, and end the loop.
    Drain(LeaveOrder),
}

/// How a core is to leave.
#[derive(Clone, Debug)]
pub struct LeaveOrder {
    /// Where clients may go.
    pub fleet: Arc<FleetView>,
    /// When each of them goes.
    pub plan: LeavePlan,
}

impl LeaveOrder {
    /// There is nowhere else to go.
    #[cfg(test)]
    pub(crate) fn alone() -> Self {
        let fleet = Arc::new(FleetView::default());
        Self { plan: LeavePlan::new(&fleet, None, 0, 1), fleet }
    }
}

/// Where any thread leaves messages for one core.
#[derive(Clone)]
pub struct CoreMailbox {
    queue: Arc<ArrayQueue<CoreMessage>>,
    wake: WakeHandle,
}

/// The core's side of its mailbox.
pub struct CoreInbox {
    queue: Arc<ArrayQueue<CoreMessage>>,
}

impl CoreMailbox {
    /// A mailbox whose messages wake the loop behind `wake`.
    pub fn new(wake: WakeHandle) -> (CoreMailbox, CoreInbox) {
        let queue = Arc::new(ArrayQueue::new(MAILBOX_MESSAGES_MAX));
        (CoreMailbox { queue: queue.clone(), wake }, CoreInbox { queue })
    }

    /// Leaves a message; a full mailbox gives it back, and the caller waits or refuses.
    #[expect(clippy::result_large_err, reason = "the message itself goes back to whoever sends it")]
    pub fn send(&self, message: CoreMessage) -> Result<(), CoreMessage> {
        self.queue.push(message)?;
        self.wake.wake();
        Ok(())
    }
}

impl CoreInbox {
    /// The oldest message.
    pub fn take(&self) -> Option<CoreMessage> {
        self.queue.pop()
    }

    /// Messages waiting.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// No message waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_mailbox_gives_the_message_back() {
        let (mailbox, inbox) = CoreMailbox::new(WakeHandle::new());
        for _ in 0..MAILBOX_MESSAGES_MAX {
            assert!(mailbox.send(CoreMessage::Drain(LeaveOrder::alone())).is_ok());
        }
        assert!(matches!(mailbox.send(CoreMessage::Drain(LeaveOrder::alone())), Err(CoreMessage::Drain(_))));
        assert_eq!(inbox.len(), MAILBOX_MESSAGES_MAX);
        assert!(inbox.take().is_some());
        assert!(mailbox.send(CoreMessage::Drain(LeaveOrder::alone())).is_ok());
    }
}

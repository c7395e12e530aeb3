//! What the app asks of the server and waits for: create, older history, refresh, log out. Each survives
//! refusals and reconnects until its deadline; repeating any of them is safe.

use super::cursors::Moment;
use super::jitter::{Jitter, Range};
use crate::limits::{OPERATIONS_MAX, RETRY_MS_BASE, RETRY_MS_MAX};
use std::collections::BTreeMap;
use wire_protocol::ids::{ConversationId, UserId};
use wire_protocol::v1::ErrorCode;

const RETRY: Range = Range { base_ms: RETRY_MS_BASE, max_ms: RETRY_MS_MAX };

/// Chosen by the caller, unique among its operations.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct OperationId(pub u64);

/// What the app asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Operation {
    /// The direct conversation with a user.
    CreateDirect {
        /// Their unique name.
        username: String,
    },
    /// A new group.
    CreateGroup {
        /// Shown title.
        title: String,
        /// Unique names of the other members.
        usernames: Vec<String>,
        /// Drawn at random once; makes repeats harmless.
        creation_id: u64,
    },
    /// The page below the window.
    FetchOlder {
        /// Where.
        conversation: ConversationId,
        /// Messages wished for.
        limit: u32,
    },
    /// Facts, members and cursors of a conversation, anew.
    Refresh {
        /// Which.
        conversation: ConversationId,
    },
    /// The server forgets this device.
    LogOut,
}

/// How an operation ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Created, or it was there already.
    Conversation(ConversationId),
    /// This many older messages were stored; 0: there are none.
    Fetched(usize),
    /// Carried out.
    Done,
    /// Refused for good.
    Failed(Failure),
}

/// Why an operation was not carried out.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Failure {
    /// The server refused it.
    #[error("refused: {code:?}: {detail}")]
    Refused {
        /// Its code.
        code: ErrorCode,
        /// Names the culprit.
        detail: String,
    },
    /// Nobody has this name.
    #[error("there is no user {0:?}")]
    NoSuchUser(String),
    /// The conversation is not on this device.
    #[error("unknown conversation")]
    UnknownConversation,
    /// No answer before the deadline.
    #[error("no answer in time")]
    TimedOut,
    /// Too many operations wait already.
    #[error("too many requests at once")]
    TooMany,
    /// The device was logged out meanwhile.
    #[error("logged out")]
    LoggedOut,
}

/// What is asked next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Step {
    LookUp { usernames: Vec<String> },
    Create { members: Vec<UserId> },
    FetchOlder,
    Refresh,
    LogOut,
}

#[derive(Clone, Debug)]
pub(super) struct Running {
    pub(super) operation: Operation,
    pub(super) step: Step,
    in_flight: bool,
    deadline_ms: u64,
    not_before_ms: u64,
    failures: u32,
}

/// All operations that wait.
#[derive(Clone, Debug, Default)]
pub(super) struct Operations {
    running: BTreeMap<OperationId, Running>,
}

impl Operations {
    /// False: there are too many.
    pub(super) fn start(&mut self, id: OperationId, operation: Operation, deadline_ms: u64) -> bool {
        if self.running.len() >= OPERATIONS_MAX {
            return false;
        }
        let step = match &operation {
            Operation::CreateDirect { username } => Step::LookUp { usernames: vec![username.clone()] },
            Operation::CreateGroup { usernames, .. } => Step::LookUp { usernames: usernames.clone() },
            Operation::FetchOlder { .. } => Step::FetchOlder,
            Operation::Refresh { .. } => Step::Refresh,
            Operation::LogOut => Step::LogOut,
        };
        let running =
            Running { operation, step, in_flight: false, deadline_ms, not_before_ms: 0, failures: 0 };
        self.running.insert(id, running).is_none()
    }

    /// The next one to send a request for, in flight from now on.
    pub(super) fn poll(&mut self, now_ms: u64) -> Option<(OperationId, Running)> {
        let ready = |running: &Running| !running.in_flight && now_ms >= running.not_before_ms;
        let (id, running) = self.running.iter_mut().find(|(_, running)| ready(running))?;
        running.in_flight = true;
        Some((*id, running.clone()))
    }

    /// When there is something to do next.
    pub(super) fn poll_timeout(&self, now_ms: u64) -> Option<u64> {
        let retries = self.running.values().filter(|running| !running.in_flight);
        let retries = retries.map(|running| running.not_before_ms).filter(|at_ms| *at_ms > now_ms);
        retries.chain(self.running.values().map(|running| running.deadline_ms)).min()
    }

    /// Those whose deadline has passed leave.
    pub(super) fn poll_expired(&mut self, now_ms: u64) -> Option<OperationId> {
        let expired =
            |(id, running): (&OperationId, &Running)| (now_ms >= running.deadline_ms).then_some(*id);
        let id = self.running.iter().find_map(expired)?;
        self.running.remove(&id);
        Some(id)
    }

    pub(super) fn peek(&self, id: OperationId) -> Option<&Running> {
        self.running.get(&id)
    }

    /// The request was answered and another one follows.
    pub(super) fn proceed(&mut self, id: OperationId, step: Step) {
        if let Some(running) = self.running.get_mut(&id) {
            (running.step, running.in_flight, running.failures) = (step, false, 0);
        }
    }

    /// Answered for good. `None` if it had left before.
    pub(super) fn finish(&mut self, id: OperationId) -> Option<Running> {
        self.running.remove(&id)
    }

    pub(super) fn handle_retryable(&mut self, id: OperationId, at: Moment, jitter: &mut Jitter) {
        if let Some(running) = self.running.get_mut(&id) {
            running.in_flight = false;
            running.failures = running.failures.saturating_add(1);
            running.not_before_ms = at.now_ms + jitter.backoff(running.failures, RETRY, at.retry_after_ms);
        }
    }

    pub(super) fn handle_disconnected(&mut self) {
        for running in self.running.values_mut() {
            (running.in_flight, running.not_before_ms, running.failures) = (false, 0, 0);
        }
    }

    /// All of them leave.
    pub(super) fn take_all(&mut self) -> Vec<(OperationId, Operation)> {
        std::mem::take(&mut self.running).into_iter().map(|(id, running)| (id, running.operation)).collect()
    }
}

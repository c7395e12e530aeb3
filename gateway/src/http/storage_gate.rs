//! The way from an HTTP handler to storage: through a core's mailbox, and back by a channel of one.

use crate::worker::mailbox::{CoreMailbox, CoreMessage, ShardKey};
use std::time::Duration;
use tokio::sync::oneshot;
use wire_protocol::error::{Actor, RequestError, meaning};
use wire_protocol::internal::shard_error::Kind as ShardErrorKind;
use wire_protocol::internal::shard_request::Operation;
use wire_protocol::internal::shard_response::Result as ShardResult;
use wire_protocol::internal::{Answer, Command, Outcome, Query, Refused, ShardError};
use wire_protocol::internal::{answer, command, outcome, query};
use wire_protocol::v1::ErrorCode;

/// Times an operation is tried while storage is away or busy. All of ours may be repeated safely.
const ATTEMPTS_MAX: u32 = 3;
/// Wait before the second attempt when storage names no time, in milliseconds; longer before later ones.
const RETRY_MS: u32 = 100;
/// Longest wait between two attempts, in milliseconds, whatever storage says: the client can wait better.
const RETRY_MS_MAX: u32 = 1_000;

/// Commands and queries of the handlers served for one core.
#[derive(Clone)]
pub(super) struct StorageGate {
    mailbox: CoreMailbox,
}

impl StorageGate {
    pub(super) fn new(mailbox: CoreMailbox) -> Self {
        Self { mailbox }
    }

    /// Carries out a command: its outcome, or why storage refused it.
    pub(super) async fn command(
        &self,
        key: &ShardKey,
        command: command::Kind,
    ) -> Result<outcome::Kind, RequestError> {
        let operation = Operation::Command(Command { kind: Some(command) });
        match self.call(key, operation).await? {
            ShardResult::Outcome(Outcome { kind: Some(outcome::Kind::Refused(refused)) }) => {
                Err(refusal(refused))
            }
            ShardResult::Outcome(Outcome { kind: Some(outcome) }) => Ok(outcome),
            _ => Err(unexpected()),
        }
    }

    /// Answers a query, or says why storage refused it.
    pub(super) async fn query(
        &self,
        key: &ShardKey,
        query: query::Kind,
    ) -> Result<answer::Kind, RequestError> {
        let operation = Operation::Query(Query { kind: Some(query) });
        match self.call(key, operation).await? {
            ShardResult::Answer(Answer { kind: Some(answer::Kind::Refused(refused)) }) => {
                Err(refusal(refused))
            }
            ShardResult::Answer(Answer { kind: Some(answer) }) => Ok(answer),
            _ => Err(unexpected()),
        }
    }

    /// Tries until storage has answered, or waiting does not help.
    async fn call(&self, key: &ShardKey, operation: Operation) -> Result<ShardResult, RequestError> {
        let mut attempt = 1;
        loop {
            let error = match self.try_call(key.clone(), operation.clone()).await {
                Ok(result) => return Ok(result),
                Err(error) => error,
            };
            let waiting_helps = matches!(meaning(error.code).actor, Actor::Storage | Actor::Load);
            if attempt == ATTEMPTS_MAX || !waiting_helps {
                return Err(error);
            }
            let wait_ms = error.retry_after_ms.max(RETRY_MS * attempt).min(RETRY_MS_MAX);
            tokio::time::sleep(Duration::from_millis(wait_ms.into())).await;
            attempt += 1;
        }
    }

    async fn try_call(&self, shard_key: ShardKey, operation: Operation) -> Result<ShardResult, RequestError> {
        let (reply, answered) = oneshot::channel();
        let sent = self.mailbox.send(CoreMessage::StorageCall { shard_key, operation, reply });
        sent.map_err(|_| RequestError::new(ErrorCode::ErrorOverloaded, "the core's mailbox is full"))?;
        let stopped = |_| RequestError::new(ErrorCode::ErrorUnavailable, "the core stops");
        match answered.await.map_err(stopped)?? {
            ShardResult::Error(error) => Err(shard_error(error)),
            result => Ok(result),
        }
    }
}

fn refusal(refused: Refused) -> RequestError {
    let code = i32::try_from(refused.code).ok().and_then(|code| ErrorCode::try_from(code).ok());
    RequestError::new(code.unwrap_or(ErrorCode::ErrorInternal), refused.detail)
}

fn shard_error(error: ShardError) -> RequestError {
    let code = match error.kind() {
        ShardErrorKind::NotHere | ShardErrorKind::Unavailable | ShardErrorKind::NotLeader => {
            ErrorCode::ErrorUnavailable
        }
        ShardErrorKind::Overloaded => ErrorCode::ErrorOverloaded,
        ShardErrorKind::Malformed | ShardErrorKind::Internal | ShardErrorKind::Unspecified => {
            ErrorCode::ErrorInternal
        }
    };
    RequestError::new(code, error.detail).after_ms(error.retry_after_ms)
}

fn unexpected() -> RequestError {
    RequestError::new(ErrorCode::ErrorInternal, "storage answered something else than was asked")
}

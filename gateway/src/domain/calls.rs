//! What requests ask of storage, and how they read what it says.

use crate::domain::Asker;
use crate::worker::mailbox::{ShardKey, StorageResult};
use wire_protocol::error::RequestError;
use wire_protocol::ids::ConversationId;
use wire_protocol::internal::{
    self, Command, Query, ReadConversation, answer, command, outcome, query, read_conversation,
    shard_request, shard_response,
};
use wire_protocol::v1::ErrorCode;

/// One storage call of one request.
#[derive(Debug)]
pub struct Call {
    /// The request's own number for it; comes back with the result.
    pub part: u16,
    /// Decides the shard.
    pub shard_key: ShardKey,
    /// What to do there.
    pub operation: shard_request::Operation,
}

/// Where a request leaves its calls. One a core, used again and again.
#[derive(Debug, Default)]
pub struct Calls {
    list: Vec<Call>,
}

impl Calls {
    /// A command.
    pub fn command(&mut self, part: u16, shard_key: ShardKey, kind: command::Kind) {
        let operation = shard_request::Operation::Command(Command { kind: Some(kind) });
        self.list.push(Call { part, shard_key, operation });
    }

    /// A query.
    pub fn query(&mut self, part: u16, shard_key: ShardKey, kind: query::Kind) {
        let operation = shard_request::Operation::Query(Query { kind: Some(kind) });
        self.list.push(Call { part, shard_key, operation });
    }

    /// The query that serves sync, history, list and get.
    pub fn read_conversation(&mut self, part: u16, asker: &Asker<'_>, read: ConversationRead) {
        let kind = query::Kind::ReadConversation(ReadConversation {
            conversation_id: read.conversation.to_bytes(),
            user_id: asker.user.to_bytes(),
            device_id: asker.device.to_bytes(),
            with_members: read.with_members,
            range: Some(read.range),
            entries_max: read.entries_max as u32,
            bytes_max: read.bytes_max as u32,
        });
        self.query(part, ShardKey::Conversation(read.conversation), kind);
    }

    /// Takes all calls out, oldest first.
    pub fn drain(&mut self) -> std::vec::Drain<'_, Call> {
        self.list.drain(..)
    }

    /// Calls waiting to be taken.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// None waits.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

/// What to read of one conversation.
pub struct ConversationRead {
    /// Which.
    pub conversation: ConversationId,
    /// Its members, too.
    pub with_members: bool,
    /// Which entries.
    pub range: read_conversation::Range,
    /// No more entries than this.
    pub entries_max: usize,
    /// No more bytes of entries than this.
    pub bytes_max: usize,
}

impl ConversationRead {
    /// Head, cursors and preview, without entries.
    pub fn without_entries(conversation: ConversationId) -> Self {
        let range = read_conversation::Range::None(true);
        Self { conversation, with_members: false, range, entries_max: 0, bytes_max: 0 }
    }

    /// With members.
    pub fn with_members(mut self) -> Self {
        self.with_members = true;
        self
    }
}

/// The outcome of a command; a refusal is an error.
pub(crate) fn outcome(result: StorageResult) -> Result<outcome::Kind, RequestError> {
    match result? {
        shard_response::Result::Outcome(internal::Outcome {
            kind: Some(outcome::Kind::Refused(refused)),
        }) => Err(refusal(refused)),
        shard_response::Result::Outcome(internal::Outcome { kind: Some(kind) }) => Ok(kind),
        _ => Err(unexpected("an outcome")),
    }
}

/// The answer to a query; a refusal is an error.
pub(crate) fn answer(result: StorageResult) -> Result<answer::Kind, RequestError> {
    match result? {
        shard_response::Result::Answer(internal::Answer { kind: Some(answer::Kind::Refused(refused)) }) => {
            Err(refusal(refused))
        }
        shard_response::Result::Answer(internal::Answer { kind: Some(kind) }) => Ok(kind),
        _ => Err(unexpected("an answer")),
    }
}

/// The answer to `read_conversation`.
pub(crate) fn conversation_view(result: StorageResult) -> Result<internal::ConversationView, RequestError> {
    match answer(result)? {
        answer::Kind::Conversation(view) if view.conversation.is_some() => Ok(view),
        _ => Err(unexpected("a conversation")),
    }
}

/// The same, where a conversation that is gone or closed to the asker is simply left out.
pub(crate) fn conversation_if_open(
    result: StorageResult,
) -> Result<Option<internal::ConversationView>, RequestError> {
    match conversation_view(result) {
        Ok(view) => Ok(Some(view)),
        Err(error) if is_closed_to_asker(error.code) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_closed_to_asker(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::ErrorNotFound | ErrorCode::ErrorNotAMember)
}

fn refusal(refused: internal::Refused) -> RequestError {
    let code = i32::try_from(refused.code).ok().and_then(|code| ErrorCode::try_from(code).ok());
    RequestError::new(code.unwrap_or(ErrorCode::ErrorInternal), refused.detail)
}

/// Storage said something else than it was asked for: a bug on one of the two sides.
pub(crate) fn unexpected(wanted: &str) -> RequestError {
    RequestError::new(ErrorCode::ErrorInternal, format!("storage did not answer with {wanted}"))
}

/// A conversation's id out of a request. The session has checked its length.
pub(crate) fn conversation_id(bytes: &[u8]) -> Result<ConversationId, RequestError> {
    ConversationId::from_slice(bytes).ok_or_else(|| super::invalid("conversation_id is not 16 bytes"))
}

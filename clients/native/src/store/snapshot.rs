//! The stored state as the engine goes on with it.

use super::facts::{self, FEED_VERSION, RESTORES, RESUME_TOKEN, read_count, read_fact};
use super::rows::{read_conversation, read_id_bits, read_number, read_small, read_user};
use super::{Store, StoreError};
use crate::engine::Snapshot;
use crate::engine::outbox::Outgoing;
use crate::engine::timeline::Arrived;
use crate::engine::writes::StoredConversation;
use bytes::Bytes;
use rusqlite::Row;
use wire_protocol::ids::{ConversationId, UserId};
use wire_protocol::v1::Entry;

impl Store {
    /// Everything the engine starts with.
    pub fn snapshot(&self) -> Result<Snapshot, StoreError> {
        Ok(Snapshot {
            feed_version: read_count(&self.connection, FEED_VERSION)?,
            restores: facts::read_number(&self.connection, RESTORES)?,
            resume_token: read_fact(&self.connection, RESUME_TOKEN)?.map(Bytes::from),
            conversations: self.stored_conversations()?,
            outbox: self.stored_outbox()?,
            users: self.stored_users()?,
        })
    }

    fn stored_conversations(&self) -> Result<Vec<StoredConversation>, StoreError> {
        let mut statement = self.connection.prepare("SELECT * FROM conversations")?;
        let mut rows = statement.query([])?;
        let mut conversations = Vec::new();
        while let Some(row) = rows.next()? {
            conversations.push(self.stored_conversation(row)?);
        }
        Ok(conversations)
    }

    fn stored_conversation(&self, row: &Row<'_>) -> Result<StoredConversation, StoreError> {
        let id = read_conversation(row, "id")?;
        let (low, high, head) =
            (read_number(row, "low")?, read_number(row, "high")?, read_number(row, "head")?);
        if low > high + 1 || high > head || (low == 0 && high != 0) {
            return Err(StoreError::Damaged("a window that cannot be"));
        }
        Ok(StoredConversation {
            id,
            own_ordinal: read_small(row, "own_ordinal")?,
            members: self.member_ordinals(id)?,
            low,
            high,
            head,
            ahead: self.entries_above(id, high)?,
            read_up_to: read_number(row, "read_up_to")?,
            delivered_confirmed: read_number(row, "delivered_confirmed")?,
            read_confirmed: read_number(row, "read_confirmed")?,
        })
    }

    fn member_ordinals(&self, conversation: ConversationId) -> Result<Vec<(u32, UserId)>, StoreError> {
        let mut statement =
            self.connection.prepare_cached("SELECT * FROM members WHERE conversation = ?1")?;
        let mut rows = statement.query([conversation.0])?;
        let mut members = Vec::new();
        while let Some(row) = rows.next()? {
            members.push((read_small(row, "ordinal")?, read_user(row, "user")?));
        }
        Ok(members)
    }

    fn entries_above(&self, conversation: ConversationId, high: u64) -> Result<Vec<Arrived>, StoreError> {
        let mut statement =
            self.connection.prepare_cached("SELECT * FROM entries WHERE conversation = ?1 AND seq > ?2")?;
        let mut rows = statement.query((conversation.0, super::rows::number(high)))?;
        let mut entries = Vec::new();
        while let Some(row) = rows.next()? {
            entries.push(Arrived { entry: read_entry(row)?, link: read_id_bits(row, "client_message_id")? });
        }
        Ok(entries)
    }

    fn stored_outbox(&self) -> Result<Vec<Outgoing>, StoreError> {
        let mut statement =
            self.connection.prepare("SELECT * FROM outbox WHERE refusal IS NULL ORDER BY position")?;
        let mut rows = statement.query([])?;
        let mut messages = Vec::new();
        while let Some(row) = rows.next()? {
            messages.push(read_outgoing(row)?);
        }
        Ok(messages)
    }

    fn stored_users(&self) -> Result<Vec<UserId>, StoreError> {
        let mut statement = self.connection.prepare("SELECT id FROM users")?;
        let mut rows = statement.query([])?;
        let mut users = Vec::new();
        while let Some(row) = rows.next()? {
            users.push(read_user(row, "id")?);
        }
        Ok(users)
    }
}

/// A row of `entries`.
pub(super) fn read_entry(row: &Row<'_>) -> Result<Entry, StoreError> {
    let body: Vec<u8> = row.get("body")?;
    Ok(Entry {
        seq: read_number(row, "seq")?,
        sender: read_small(row, "sender")?,
        time_ms: read_number(row, "time_ms")?,
        kind: row.get("kind")?,
        body: body.into(),
    })
}

/// A row of `outbox`.
pub(super) fn read_outgoing(row: &Row<'_>) -> Result<Outgoing, StoreError> {
    let body: Vec<u8> = row.get("body")?;
    let first_attempt_ms: Option<i64> = row.get("first_attempt_ms")?;
    Ok(Outgoing {
        conversation: read_conversation(row, "conversation")?,
        id: read_id_bits(row, "client_message_id")?.ok_or(StoreError::Damaged("a message without an id"))?,
        kind: row.get("kind")?,
        body: body.into(),
        queued_ms: read_number(row, "queued_ms")?,
        first_attempt_ms: first_attempt_ms.map(|at_ms| at_ms.unsigned_abs()),
    })
}

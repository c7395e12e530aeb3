//! What the app reads: conversations, history, messages on their way.

use super::rows::{number, read_conversation, read_id_bits, read_number, read_small, read_user};
use super::snapshot::{read_entry, read_outgoing};
use super::{Store, StoreError};
use crate::model::{Conversation, Member, Message, PendingMessage, PendingState, Refusal};
use rusqlite::{OptionalExtension, Row};
use wire_protocol::ids::{ClientMessageId, ConversationId, Seq, UserId};
use wire_protocol::v1::{ConversationKind, EntryKind, ErrorCode};

/// Kinds from here on are written by the server and never counted as unread.
const FIRST_SERVER_KIND: i32 = EntryKind::Created as i32;

impl Store {
    /// Newest activity first.
    pub fn conversations(&self, limit: usize) -> Result<Vec<Conversation>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT *, coalesce(
                 (SELECT time_ms FROM entries WHERE conversation = id AND seq = high), created_ms
             ) AS activity_ms FROM conversations ORDER BY activity_ms DESC, id LIMIT ?1",
        )?;
        let mut rows = statement.query([number(limit as u64)])?;
        let mut conversations = Vec::new();
        while let Some(row) = rows.next()? {
            conversations.push(self.read_conversation(row)?);
        }
        Ok(conversations)
    }

    /// One conversation.
    pub fn conversation(&self, id: ConversationId) -> Result<Option<Conversation>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT *, coalesce(
                 (SELECT time_ms FROM entries WHERE conversation = id AND seq = high), created_ms
             ) AS activity_ms FROM conversations WHERE id = ?1",
        )?;
        let mut rows = statement.query([id.0])?;
        rows.next()?.map(|row| self.read_conversation(row)).transpose()
    }

    fn read_conversation(&self, row: &Row<'_>) -> Result<Conversation, StoreError> {
        let id = read_conversation(row, "id")?;
        let own_ordinal = read_small(row, "own_ordinal")?;
        let members = self.members(id)?;
        let kind = ConversationKind::try_from(row.get::<_, i32>("kind")?).unwrap_or_default();
        let mut title: String = row.get("title")?;
        if title.is_empty() {
            title = members_title(&members, own_ordinal);
        }
        let high = read_number(row, "high")?;
        let last = self.history(id, Some(Seq(high + 1)), 1)?.pop();
        Ok(Conversation {
            id,
            kind,
            title,
            members,
            own_ordinal,
            last,
            unread: self.unread(id, row)?,
            read_up_to: Seq(read_number(row, "read_up_to")?),
            high: Seq(high),
            activity_ms: read_number(row, "activity_ms")?,
        })
    }

    /// Exact while the window reaches down to the read cursor; below it by the server's count.
    fn unread(&self, id: ConversationId, row: &Row<'_>) -> Result<u64, StoreError> {
        let (low, high) = (read_number(row, "low")?, read_number(row, "high")?);
        let (read_up_to, unread_at) = (read_number(row, "read_up_to")?, read_number(row, "unread_at")?);
        let whole = low != 0 && read_up_to + 1 >= low;
        let (counted, from) = match whole {
            true => (0, read_up_to),
            false => (read_number(row, "unread")?, unread_at.max(read_up_to)),
        };
        let mut statement = self.connection.prepare_cached(
            "SELECT count(*) FROM entries
             WHERE conversation = ?1 AND seq > ?2 AND seq <= ?3 AND sender <> ?4 AND kind < ?5",
        )?;
        let bounds = (id.0, number(from), number(high), read_small(row, "own_ordinal")?, FIRST_SERVER_KIND);
        let newer: i64 = statement.query_row(bounds, |row| row.get(0))?;
        Ok(counted + newer.unsigned_abs())
    }

    fn members(&self, conversation: ConversationId) -> Result<Vec<Member>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT members.*, coalesce(username, '') AS username, coalesce(display_name, '') AS display_name
             FROM members LEFT JOIN users ON users.id = members.user WHERE conversation = ?1 ORDER BY ordinal",
        )?;
        let mut rows = statement.query([conversation.0])?;
        let mut members = Vec::new();
        while let Some(row) = rows.next()? {
            members.push(Member {
                ordinal: read_small(row, "ordinal")?,
                user: read_user(row, "user")?,
                username: row.get("username")?,
                display_name: row.get("display_name")?,
                delivered_up_to: Seq(read_number(row, "delivered")?),
                read_up_to: Seq(read_number(row, "read")?),
            });
        }
        Ok(members)
    }

    /// The newest `limit` messages below `before` (without it: of all) that are here without a gap, ascending.
    pub fn history(
        &self,
        conversation: ConversationId,
        before: Option<Seq>,
        limit: usize,
    ) -> Result<Vec<Message>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT entries.*, own_ordinal,
                 (SELECT user FROM members WHERE members.conversation = entries.conversation
                  AND ordinal = sender) AS user
             FROM entries JOIN conversations ON conversations.id = entries.conversation
             WHERE entries.conversation = ?1 AND seq < ?2 AND seq >= low AND seq <= high
             ORDER BY seq DESC LIMIT ?3",
        )?;
        let before = before.map_or(i64::MAX, |seq| number(seq.0));
        let mut rows = statement.query((conversation.0, before, number(limit as u64)))?;
        let mut messages = Vec::new();
        while let Some(row) = rows.next()? {
            messages.push(read_message(conversation, row)?);
        }
        messages.reverse();
        Ok(messages)
    }

    /// First sequence number that is here; 0: nothing is.
    pub fn window_low(&self, conversation: ConversationId) -> Result<u64, StoreError> {
        let mut statement = self.connection.prepare_cached("SELECT low FROM conversations WHERE id = ?1")?;
        let low: Option<i64> = statement.query_row([conversation.0], |row| row.get(0)).optional()?;
        Ok(low.unwrap_or(0).unsigned_abs())
    }

    /// Own messages that are not yet part of the history: accepted ones that wait for others before them, then
    /// those of the outbox, in the order they were handed over.
    pub fn pending(&self, conversation: ConversationId) -> Result<Vec<PendingMessage>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT entries.* FROM entries JOIN conversations ON conversations.id = entries.conversation
             WHERE entries.conversation = ?1 AND seq > high AND client_message_id IS NOT NULL ORDER BY seq",
        )?;
        let mut rows = statement.query([conversation.0])?;
        let mut pending = Vec::new();
        while let Some(row) = rows.next()? {
            pending.push(read_accepted(conversation, row)?);
        }
        let mut statement = self
            .connection
            .prepare_cached("SELECT * FROM outbox WHERE conversation = ?1 ORDER BY position")?;
        let mut rows = statement.query([conversation.0])?;
        while let Some(row) = rows.next()? {
            pending.push(read_pending(row)?);
        }
        Ok(pending)
    }

    /// One message of the outbox.
    pub fn pending_message(
        &self,
        conversation: ConversationId,
        id: ClientMessageId,
    ) -> Result<Option<PendingMessage>, StoreError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT * FROM outbox WHERE conversation = ?1 AND client_message_id = ?2")?;
        let mut rows = statement.query((conversation.0, super::rows::id_bits(id)))?;
        rows.next()?.map(read_pending).transpose()
    }

    /// Every own message that became an entry, by its id: for tools that check nothing was lost.
    pub fn own_entry(
        &self,
        conversation: ConversationId,
        id: ClientMessageId,
    ) -> Result<Option<Seq>, StoreError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT seq FROM entries WHERE conversation = ?1 AND client_message_id = ?2")?;
        let seq: Option<i64> =
            statement.query_row((conversation.0, super::rows::id_bits(id)), |row| row.get(0)).optional()?;
        Ok(seq.map(|seq| Seq(seq.unsigned_abs())))
    }
}

/// A direct conversation is called by the other's name, a group without a title by its members.
fn members_title(members: &[Member], own_ordinal: u32) -> String {
    let others = members.iter().filter(|member| member.ordinal != own_ordinal);
    let names: Vec<&str> = others
        .map(|member| match member.display_name.as_str() {
            "" => member.username.as_str(),
            name => name,
        })
        .filter(|name| !name.is_empty())
        .collect();
    names.join(", ")
}

fn read_message(conversation: ConversationId, row: &Row<'_>) -> Result<Message, StoreError> {
    let entry = read_entry(row)?;
    let user: Option<[u8; 16]> = row.get("user")?;
    Ok(Message {
        conversation,
        seq: Seq(entry.seq),
        sender_ordinal: entry.sender,
        sender: user.map(UserId),
        own: entry.sender == read_small(row, "own_ordinal")?,
        time_ms: entry.time_ms,
        kind: entry.kind(),
        body: entry.body,
        client_message_id: read_id_bits(row, "client_message_id")?,
    })
}

fn read_accepted(conversation: ConversationId, row: &Row<'_>) -> Result<PendingMessage, StoreError> {
    let entry = read_entry(row)?;
    let id = read_id_bits(row, "client_message_id")?;
    Ok(PendingMessage {
        conversation,
        client_message_id: id.ok_or(StoreError::Damaged("a message without an id"))?,
        kind: entry.kind(),
        body: entry.body,
        queued_ms: entry.time_ms,
        state: PendingState::Accepted(Seq(entry.seq)),
    })
}

fn read_pending(row: &Row<'_>) -> Result<PendingMessage, StoreError> {
    let message = read_outgoing(row)?;
    let state = match row.get::<_, Option<i32>>("refusal")? {
        None => PendingState::OnItsWay,
        Some(0) => PendingState::Refused(Refusal::Unconfirmed),
        Some(code) => PendingState::Refused(Refusal::Server {
            code: ErrorCode::try_from(code).unwrap_or_default(),
            detail: row.get("refusal_detail")?,
        }),
    };
    Ok(PendingMessage {
        conversation: message.conversation,
        client_message_id: message.id,
        kind: EntryKind::try_from(message.kind).unwrap_or_default(),
        body: message.body,
        queued_ms: message.queued_ms,
        state,
    })
}

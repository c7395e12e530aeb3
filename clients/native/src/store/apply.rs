//! The engine's writes as rows.

use super::StoreError;
use super::facts::{FEED_VERSION, RESTORES, RESUME_TOKEN, remove_fact, write_fact};
use super::rows::{id_bits, number};
use super::schema::FORGET;
use crate::engine::Write;
use crate::engine::outbox::Outgoing;
use crate::engine::timeline::Arrived;
use crate::engine::writes::ConversationFacts;
use crate::model::Refusal;
use rusqlite::{Params, Transaction, params};
use wire_protocol::ids::ConversationId;
use wire_protocol::v1;

/// Carries out one write.
pub(super) fn apply(transaction: &Transaction<'_>, write: &Write) -> Result<(), StoreError> {
    match write {
        Write::Restores(restores) => write_fact(transaction, RESTORES, &restores.to_be_bytes()),
        Write::FeedVersion(version) => write_fact(transaction, FEED_VERSION, &version.to_be_bytes()),
        Write::ResumeToken(Some(token)) => write_fact(transaction, RESUME_TOKEN, token),
        Write::ResumeToken(None) => remove_fact(transaction, RESUME_TOKEN),
        Write::Conversation(facts) => conversation(transaction, facts),
        Write::Members { conversation, members } => {
            members.iter().try_for_each(|member| self::member(transaction, *conversation, member))
        }
        Write::Window { conversation, low, high, head } => execute(
            transaction,
            "UPDATE conversations SET low = ?2, high = ?3, head = ?4 WHERE id = ?1",
            params![conversation.0, number(*low), number(*high), number(*head)],
        ),
        Write::Entry { conversation, arrived } => entry(transaction, *conversation, arrived),
        Write::Receipt { conversation, member, delivered, read } => execute(
            transaction,
            "UPDATE members SET delivered = max(delivered, ?3), read = max(read, ?4)
             WHERE conversation = ?1 AND ordinal = ?2",
            params![conversation.0, member, number(*delivered), number(*read)],
        ),
        Write::ReadUpTo { conversation, seq } => execute(
            transaction,
            "UPDATE conversations SET read_up_to = max(read_up_to, ?2) WHERE id = ?1",
            params![conversation.0, number(*seq)],
        ),
        Write::Confirmed { conversation, delivered, read } => execute(
            transaction,
            "UPDATE conversations SET delivered_confirmed = max(delivered_confirmed, ?2),
             read_confirmed = max(read_confirmed, ?3) WHERE id = ?1",
            params![conversation.0, number(*delivered), number(*read)],
        ),
        Write::Queued(message) => queued(transaction, message),
        Write::Attempted { conversation, id, at_ms } => execute(
            transaction,
            "UPDATE outbox SET first_attempt_ms = ?3
             WHERE conversation = ?1 AND client_message_id = ?2 AND first_attempt_ms IS NULL",
            params![conversation.0, id_bits(*id), number(*at_ms)],
        ),
        Write::Unqueued { conversation, id } => execute(
            transaction,
            "DELETE FROM outbox WHERE conversation = ?1 AND client_message_id = ?2",
            params![conversation.0, id_bits(*id)],
        ),
        Write::Refused { conversation, id, refusal } => {
            let (code, detail) = match refusal {
                Refusal::Unconfirmed => (0, ""),
                Refusal::Server { code, detail } => (*code as i32, detail.as_str()),
            };
            execute(
                transaction,
                "UPDATE outbox SET refusal = ?3, refusal_detail = ?4
                 WHERE conversation = ?1 AND client_message_id = ?2",
                params![conversation.0, id_bits(*id), code, detail],
            )
        }
        Write::Users(users) => users.iter().try_for_each(|user| self::user(transaction, user)),
        Write::Forgotten => {
            transaction.execute_batch(FORGET)?;
            remove_fact(transaction, FEED_VERSION)
        }
    }
}

fn execute(transaction: &Transaction<'_>, statement: &str, params: impl Params) -> Result<(), StoreError> {
    transaction.prepare_cached(statement)?.execute(params)?;
    Ok(())
}

fn conversation(transaction: &Transaction<'_>, facts: &ConversationFacts) -> Result<(), StoreError> {
    execute(
        transaction,
        "INSERT INTO conversations (id, kind, title, own_ordinal, created_ms, unread, unread_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT (id) DO UPDATE SET kind = ?2, title = ?3, own_ordinal = ?4, created_ms = ?5,
         unread = ?6, unread_at = ?7",
        params![
            facts.id.0,
            facts.kind,
            facts.title,
            facts.own_ordinal,
            number(facts.created_ms),
            number(facts.unread),
            number(facts.unread_at)
        ],
    )
}

fn member(
    transaction: &Transaction<'_>,
    conversation: ConversationId,
    member: &v1::Member,
) -> Result<(), StoreError> {
    execute(
        transaction,
        "INSERT INTO members (conversation, ordinal, user, delivered, read) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (conversation, ordinal) DO UPDATE SET user = ?3, delivered = max(delivered, ?4),
         read = max(read, ?5)",
        params![
            conversation.0,
            member.ordinal,
            user_key(&member.user_id)?,
            number(member.delivered_up_to),
            number(member.read_up_to)
        ],
    )
}

fn user_key(bytes: &[u8]) -> Result<[u8; 16], StoreError> {
    bytes.try_into().map_err(|_| StoreError::Damaged("a user id that is not 16 bytes"))
}

/// Entries never change: one that is there stays, and may learn which own message it is.
fn entry(
    transaction: &Transaction<'_>,
    conversation: ConversationId,
    arrived: &Arrived,
) -> Result<(), StoreError> {
    let entry = &arrived.entry;
    execute(
        transaction,
        "INSERT INTO entries (conversation, seq, sender, time_ms, kind, body, client_message_id)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT (conversation, seq) DO UPDATE SET client_message_id = coalesce(client_message_id, ?7)",
        params![
            conversation.0,
            number(entry.seq),
            entry.sender,
            number(entry.time_ms),
            entry.kind,
            &entry.body[..],
            arrived.link.map(id_bits)
        ],
    )
}

fn queued(transaction: &Transaction<'_>, message: &Outgoing) -> Result<(), StoreError> {
    execute(
        transaction,
        "INSERT INTO outbox (conversation, client_message_id, kind, body, queued_ms, first_attempt_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![
            message.conversation.0,
            id_bits(message.id),
            message.kind,
            &message.body[..],
            number(message.queued_ms),
            message.first_attempt_ms.map(number)
        ],
    )
}

fn user(transaction: &Transaction<'_>, user: &v1::User) -> Result<(), StoreError> {
    execute(
        transaction,
        "INSERT OR REPLACE INTO users (id, username, display_name) VALUES (?1, ?2, ?3)",
        params![user_key(&user.user_id)?, user.username, user.display_name],
    )
}

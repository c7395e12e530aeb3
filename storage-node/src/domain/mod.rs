//! What a shard is: commands, and the rows, outcomes and events they lead to.
//!
//! Everything here is a function of the rows and the command alone: no clock (time is in the batch), no randomness,
//! no hash order, no I/O but the [`Reader`] it is given. So every replica, and every replay after a crash, arrives
//! at the same rows. It refuses to know of logs, links, sockets and threads. `shard/` calls [`apply`] with committed
//! batches and [`query`] from read threads; events go to `feed/` and to the registry.
//!
//! A module for each noun, with its commands, its queries and its rows: [`conversations`], [`messages`],
//! [`receipts`], [`users`], [`names`], [`devices`], [`feed`], [`fleet`]. Commands and queries that break a rule, be it only an
//! id of the wrong length, are refused by outcome; only the store failing is an error.
#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

pub mod conversations;
pub mod messages;
pub mod receipts;
pub mod users;
pub mod names;
pub mod devices;
pub mod feed;
pub mod fleet;
mod replay;
mod restored;
mod row;
mod turn;
#[cfg(test)]
mod tests;

pub use crate::engine::Overlay;
pub(crate) use feed::Hidden;
pub use feed::feed_positions;
pub use replay::replay_events;
pub(crate) use restored::Restored;
pub(crate) use turn::Stop;

use crate::engine::{Reader, StoreError, keys};
use bytes::Bytes;
use row::{RowReader, RowWriter};
use turn::{Turn, refused};
use wire_protocol::ids::{DeviceId, ShardId, UserId};
use wire_protocol::internal::{
    Answer, Command, CommandBatch, FeedCheckpoint, FeedItem, Fleet, Outcome, Query,
};
use wire_protocol::internal::{answer, command, outcome, query as query_kind};
use wire_protocol::v1::ErrorCode;

/// What one command led to.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// The answer to whoever sent the command.
    pub outcome: Outcome,
    /// What others must hear of, in order.
    pub events: Vec<Event>,
}

/// Something others must hear of.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// For the home shards of `user_ids`, which are all members of the conversation. Without an `event` inside
    /// (only a replay makes such) the members' rows change, and nothing is pushed.
    Feed(FeedItem),
    /// The device's sessions end.
    DeviceRemoved {
        /// Whose device.
        user: UserId,
        /// Which.
        device: DeviceId,
    },
    /// The home shard's rows are stored: hand it to `HomeFeed::checkpointed`.
    Checkpointed(FeedCheckpoint),
    /// Nodes, or where replicas are, changed.
    FleetChanged(Fleet),
}

/// Carries out a committed batch. Answers with one [`Applied`] for each command, in order.
///
/// The rows are in `overlay`, to be written with the applied index ([`set_applied_index`]) in the same batch. On an
/// error the overlay is void: nothing of it may be written.
pub fn apply(
    overlay: &mut Overlay<'_>,
    shard: ShardId,
    batch: &CommandBatch,
) -> Result<Vec<Applied>, StoreError> {
    let mut turn = Turn::new(overlay, shard, batch.time_ms);
    let mut applied = Vec::with_capacity(batch.commands.len());
    for command in &batch.commands {
        let kind = match carry_out(&mut turn, command) {
            Ok(kind) => kind,
            Err(Stop::Refused(code, detail)) => {
                assert!(
                    turn.events.is_empty(),
                    "a refused command changed nothing that others could hear of"
                );
                outcome::Kind::Refused(refused(code, detail))
            }
            Err(Stop::Store(error)) => return Err(error),
        };
        let events = std::mem::take(&mut turn.events);
        applied.push(Applied { outcome: Outcome { kind: Some(kind) }, events });
    }
    turn.finish();
    Ok(applied)
}

fn carry_out(turn: &mut Turn<'_, '_>, command: &Command) -> turn::Answered {
    match &command.kind {
        Some(command::Kind::SendMessage(command)) => messages::send(turn, command),
        Some(command::Kind::AdvanceCursor(command)) => receipts::advance(turn, command),
        Some(command::Kind::CreateConversation(command)) => conversations::create(turn, command),
        Some(command::Kind::ClaimName(command)) => names::claim(turn, command),
        Some(command::Kind::ConfirmName(command)) => names::confirm(turn, command),
        Some(command::Kind::CreateUser(command)) => users::create(turn, command),
        Some(command::Kind::AddDevice(command)) => devices::add(turn, command),
        Some(command::Kind::RotateRefresh(command)) => devices::rotate_refresh(turn, command),
        Some(command::Kind::RemoveDevice(command)) => devices::remove(turn, command),
        Some(command::Kind::FeedCheckpoint(command)) => feed::checkpoint(turn, command),
        Some(command::Kind::ChangeFleet(command)) => fleet::change(turn, command),
        None => Err(turn::invalid("command: unknown kind")),
    }
}

/// Answers a query from the applied rows. May run beside writers: each row it reads is whole, and answers never
/// claim more than the head they were read under.
pub fn query(reader: &dyn Reader, query: &Query) -> Result<Answer, StoreError> {
    let kind = match &query.kind {
        Some(query_kind::Kind::ReadConversation(query)) => conversations::read(reader, query),
        Some(query_kind::Kind::ReadUser(query)) => users::read(reader, query),
        Some(query_kind::Kind::ReadProfiles(query)) => users::read_profiles(reader, query),
        Some(query_kind::Kind::ReadName(query)) => names::read(reader, query),
        Some(query_kind::Kind::ReadFeed(query)) => {
            feed::read(reader, query, &Hidden::nothing()).map(answer::Kind::Feed)
        }
        Some(query_kind::Kind::ReadConversationList(query)) => {
            feed::read_list(reader, query, &Hidden::nothing()).map(answer::Kind::ConversationList)
        }
        None => Err(turn::invalid("query: unknown kind")),
    };
    answered(kind)
}

/// What whoever asked gets: a refusal is an answer, too.
pub(crate) fn answered(kind: Result<answer::Kind, Stop>) -> Result<Answer, StoreError> {
    let kind = match kind {
        Ok(kind) => kind,
        Err(Stop::Refused(code, detail)) => answer::Kind::Refused(refused(code, detail)),
        Err(Stop::Store(error)) => return Err(error),
    };
    Ok(Answer { kind: Some(kind) })
}

/// Log index and logged time of the last batch whose rows are there; zeros for a new shard.
pub fn applied_index(reader: &dyn Reader, shard: ShardId) -> Result<(u64, u64), StoreError> {
    reader.value(&keys::applied(shard))?.map_or(Ok((0, 0)), applied_of)
}

/// The same, of that row.
pub fn applied_of(row: Bytes) -> Result<(u64, u64), StoreError> {
    let mut row = RowReader::new("applied", row)?;
    Ok((row.varint()?, row.varint()?))
}

/// Notes that everything up to this log entry is applied. It goes into the overlay that holds the entry's rows, so
/// that both survive a crash together, or neither does.
pub fn set_applied_index(overlay: &mut Overlay<'_>, shard: ShardId, index: u64, time_ms: u64) {
    overlay.set_logged_ms(time_ms);
    overlay.put(keys::applied(shard), RowWriter::new(20).varint(index).varint(time_ms).finish());
}

/// Whether a user-visible text is within a limit of characters.
fn fits_chars(text: &str, chars_max: usize) -> bool {
    // Most texts are short: bytes bound characters from above.
    text.len() <= chars_max || text.chars().take(chars_max + 1).count() <= chars_max
}

/// A refusal because the asker is no member.
fn not_a_member() -> Stop {
    Stop::Refused(ErrorCode::ErrorNotAMember, "user_id")
}

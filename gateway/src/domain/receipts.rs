//! Delivered and read cursors: one command each.

use super::calls::{conversation_id, outcome, unexpected};
use super::{Asker, Calls, Step, answered};
use crate::worker::mailbox::{ShardKey, StorageResult};
use wire_protocol::error::RequestError;
use wire_protocol::internal::{self, command, outcome as storage};
use wire_protocol::v1::{self, server_frame};

/// A cursor on its way to its shard.
#[derive(Debug)]
pub struct Cursor;

pub(super) fn delivered(
    asker: &Asker<'_>,
    cursor: &v1::DeliveredUpTo,
    calls: &mut Calls,
) -> Result<Cursor, RequestError> {
    advance(asker, &cursor.conversation_id, Positions { delivered_up_to: cursor.seq, read_up_to: 0 }, calls)
}

pub(super) fn read(
    asker: &Asker<'_>,
    cursor: &v1::ReadUpTo,
    calls: &mut Calls,
) -> Result<Cursor, RequestError> {
    // What was read was delivered.
    let positions = Positions { delivered_up_to: cursor.seq, read_up_to: cursor.seq };
    advance(asker, &cursor.conversation_id, positions, calls)
}

/// Where the cursors go; 0 leaves one where it is.
struct Positions {
    delivered_up_to: u64,
    read_up_to: u64,
}

fn advance(
    asker: &Asker<'_>,
    conversation: &bytes::Bytes,
    positions: Positions,
    calls: &mut Calls,
) -> Result<Cursor, RequestError> {
    let shard_key = ShardKey::Conversation(conversation_id(conversation)?);
    let command = command::Kind::AdvanceCursor(internal::AdvanceCursor {
        conversation_id: conversation.clone(),
        user_id: asker.user.to_bytes(),
        device_id: asker.device.to_bytes(),
        delivered_up_to: positions.delivered_up_to,
        read_up_to: positions.read_up_to,
    });
    calls.command(0, shard_key, command);
    Ok(Cursor)
}

impl Cursor {
    pub(super) fn handle_result(&mut self, result: StorageResult) -> Step {
        match outcome(result)? {
            storage::Kind::Accepted(_) => answered(server_frame::Body::Done(v1::Done {})),
            _ => Err(unexpected("an accepted cursor")),
        }
    }
}

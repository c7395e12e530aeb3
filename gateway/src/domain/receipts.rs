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

#[cfg(test)]
mod tests {
    use super::super::fake_storage::user;
    use super::*;
    use crate::router::Router;
    use wire_protocol::ids::{ConversationId, DeviceId};
    use wire_protocol::internal::{Command, Outcome, Refused, shard_request, shard_response};
    use wire_protocol::v1::ErrorCode;

    const CONVERSATION: ConversationId = ConversationId([3; 16]);

    type Start<T> = fn(&Asker<'_>, &T, &mut Calls) -> Result<Cursor, RequestError>;

    /// The command that a cursor becomes.
    fn command<T>(start: Start<T>, cursor: &T) -> internal::AdvanceCursor {
        let router = Router::embedded(4);
        let asker = Asker { user: user(1), device: DeviceId([9; 16]), server_time_ms: 0, router: &router };
        let mut calls = Calls::default();
        start(&asker, cursor, &mut calls).expect("a good cursor");
        let call = calls.drain().next().expect("one call");
        assert_eq!(call.shard_key, ShardKey::Conversation(CONVERSATION));
        match call.operation {
            shard_request::Operation::Command(Command {
                kind: Some(command::Kind::AdvanceCursor(advance)),
            }) => advance,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_stored_is_not_told_as_read_and_what_is_read_is_stored() {
        let conversation_id = CONVERSATION.to_bytes();
        let wanted = |delivered_up_to, read_up_to| internal::AdvanceCursor {
            conversation_id: conversation_id.clone(),
            user_id: user(1).to_bytes(),
            device_id: DeviceId([9; 16]).to_bytes(),
            delivered_up_to,
            read_up_to,
        };
        let cursor = v1::DeliveredUpTo { conversation_id: conversation_id.clone(), seq: 5, handle: 0 };
        assert_eq!(command(delivered, &cursor), wanted(5, 0));
        let cursor = v1::ReadUpTo { conversation_id: conversation_id.clone(), seq: 6, handle: 0 };
        assert_eq!(command(read, &cursor), wanted(6, 6));
    }

    #[test]
    fn a_cursor_is_done_only_when_storage_has_accepted_it() {
        let outcome = |kind| Ok(shard_response::Result::Outcome(Outcome { kind: Some(kind) }));
        let refused = Refused { code: ErrorCode::ErrorNotAMember as u32, detail: "no".into() };
        for (result, code) in [
            (outcome(storage::Kind::Refused(refused)), ErrorCode::ErrorNotAMember),
            (outcome(storage::Kind::ConversationCreated(Default::default())), ErrorCode::ErrorInternal),
            (Err(RequestError::new(ErrorCode::ErrorUnavailable, "away")), ErrorCode::ErrorUnavailable),
        ] {
            assert_eq!(Cursor.handle_result(result).expect_err("not accepted").code, code);
        }
        assert!(Cursor.handle_result(outcome(storage::Kind::Accepted(internal::Accepted {}))).is_ok());
    }
}

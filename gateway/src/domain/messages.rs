//! Sending: one request, one command, one answer once the message is durable.

use super::calls::{conversation_id, outcome, unexpected};
use super::{Asker, Calls, Step, answered, invalid};
use crate::worker::mailbox::{ShardKey, StorageResult};
use wire_protocol::error::RequestError;
use wire_protocol::internal::{self, command, outcome as storage};
use wire_protocol::v1::{self, server_frame};

/// A message on its way to its shard. Everything is in the command; nothing is kept here.
#[derive(Debug)]
pub struct Send;

impl Send {
    pub(super) fn start(
        asker: &Asker<'_>,
        send: v1::SendMessage,
        calls: &mut Calls,
    ) -> Result<Self, RequestError> {
        if send.kind == v1::EntryKind::Created as i32 {
            return Err(invalid("kind: only the server writes CREATED"));
        }
        let conversation = conversation_id(&send.conversation_id)?;
        let kind = u32::try_from(send.kind).map_err(|_| invalid("kind"))?;
        let command = command::Kind::SendMessage(internal::SendMessage {
            conversation_id: send.conversation_id,
            user_id: asker.user.to_bytes(),
            device_id: asker.device.to_bytes(),
            client_message_id: send.client_message_id,
            predecessor: send.predecessor,
            kind,
            body: send.body,
        });
        calls.command(0, ShardKey::Conversation(conversation), command);
        Ok(Self)
    }

    pub(super) fn handle_result(&mut self, asker: &Asker<'_>, result: StorageResult) -> Step {
        let storage::Kind::MessageApplied(applied) = outcome(result)? else {
            return Err(unexpected("an applied message"));
        };
        // A repeated send may be answered with a time before this session began.
        let time_delta_ms = applied.time_ms.wrapping_sub(asker.server_time_ms) as i64;
        answered(server_frame::Body::Accepted(v1::MessageAccepted {
            seq: applied.seq,
            time_delta_ms,
            durability: v1::Durability::Synced as i32,
        }))
    }
}

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
            durability: durability(&applied) as i32,
        }))
    }
}

/// What the message's shard said of its copies. One that says nothing has it on its own disk.
fn durability(applied: &internal::MessageApplied) -> v1::Durability {
    match applied {
        internal::MessageApplied { copies: 0 | 1, .. } => v1::Durability::Synced,
        internal::MessageApplied { spans_zones: false, .. } => v1::Durability::Quorum,
        internal::MessageApplied { spans_zones: true, .. } => v1::Durability::QuorumOfZones,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Progress;
    use super::super::calls::Call;
    use super::super::fake_storage::user;
    use super::*;
    use crate::router::Router;
    use wire_protocol::ids::{ConversationId, DeviceId};
    use wire_protocol::internal::{
        Command, MessageApplied, Outcome, Refused, command, shard_request, shard_response,
    };
    use wire_protocol::v1::{EntryKind, ErrorCode};

    const CONVERSATION: ConversationId = ConversationId([3; 16]);

    fn asker(router: &Router) -> Asker<'_> {
        Asker { user: user(1), device: DeviceId([9; 16]), server_time_ms: 5_000, router }
    }

    fn message(kind: i32) -> v1::SendMessage {
        v1::SendMessage {
            handle: 0,
            conversation_id: CONVERSATION.to_bytes(),
            client_message_id: 77,
            kind,
            body: vec![1, 2, 3].into(),
            predecessor: 76,
        }
    }

    fn outcome(kind: storage::Kind) -> StorageResult {
        Ok(shard_response::Result::Outcome(Outcome { kind: Some(kind) }))
    }

    #[test]
    fn everything_that_was_sent_reaches_its_shard_under_the_askers_name() {
        let router = Router::embedded(4);
        let mut calls = Calls::default();
        Send::start(&asker(&router), message(EntryKind::VoiceNote as i32), &mut calls)
            .expect("a good message");
        let call = calls.drain().next().expect("one call");
        let Call { shard_key, operation: shard_request::Operation::Command(Command { kind }), .. } = call
        else {
            panic!("{call:?}")
        };
        assert_eq!(shard_key, ShardKey::Conversation(CONVERSATION));
        let sent = internal::SendMessage {
            conversation_id: CONVERSATION.to_bytes(),
            user_id: user(1).to_bytes(),
            device_id: DeviceId([9; 16]).to_bytes(),
            client_message_id: 77,
            predecessor: 76,
            kind: EntryKind::VoiceNote as u32,
            body: vec![1, 2, 3].into(),
        };
        assert_eq!(kind, Some(command::Kind::SendMessage(sent)));
    }

    #[test]
    fn what_only_the_server_writes_is_refused() {
        let router = Router::embedded(4);
        for kind in [EntryKind::Created as i32, -1] {
            let mut calls = Calls::default();
            let error = Send::start(&asker(&router), message(kind), &mut calls).expect_err("refused");
            assert_eq!(error.code, ErrorCode::ErrorInvalidArgument);
            assert!(calls.is_empty());
        }
    }

    #[test]
    fn a_tick_says_where_when_and_how_durable_the_message_is() {
        let router = Router::embedded(4);
        for (time_ms, time_delta_ms, copies, spans_zones, durability) in [
            (5_007, 7, 1, false, v1::Durability::Synced),
            (4_000, -1_000, 2, false, v1::Durability::Quorum),
            (5_000, 0, 2, true, v1::Durability::QuorumOfZones),
            // A node of link version 1 says nothing of copies.
            (5_000, 0, 0, false, v1::Durability::Synced),
        ] {
            let applied = MessageApplied { seq: 12, time_ms, repeated_send: false, copies, spans_zones };
            let applied = storage::Kind::MessageApplied(applied);
            let step = Send.handle_result(&asker(&router), outcome(applied)).expect("it was applied");
            let Progress::Answered(server_frame::Body::Accepted(accepted)) = step else { panic!("{step:?}") };
            let durability = durability as i32;
            assert_eq!(accepted, v1::MessageAccepted { seq: 12, time_delta_ms, durability });
        }
    }

    #[test]
    fn without_an_applied_message_there_is_no_tick() {
        let router = Router::embedded(4);
        let refused = Refused { code: ErrorCode::ErrorNotAMember as u32, detail: "no".into() };
        for (result, code) in [
            (outcome(storage::Kind::Refused(refused)), ErrorCode::ErrorNotAMember),
            (outcome(storage::Kind::Accepted(internal::Accepted {})), ErrorCode::ErrorInternal),
            (Err(RequestError::new(ErrorCode::ErrorUnavailable, "away")), ErrorCode::ErrorUnavailable),
        ] {
            let error = Send.handle_result(&asker(&router), result).expect_err("not applied");
            assert_eq!(error.code, code);
        }
    }
}

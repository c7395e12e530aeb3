//! Which slot an operation belongs to: what arrives at the wrong shard is refused before it can be misplaced.

use wire_protocol::ids::{ConversationId, Slot, UserId, name_slot};
use wire_protocol::internal::{AttachSession, Command, Query, command, query};

fn of_user(id: &[u8]) -> Option<Slot> {
    UserId::from_slice(id).map(UserId::slot)
}

fn of_conversation(id: &[u8]) -> Option<Slot> {
    ConversationId::from_slice(id).map(ConversationId::slot)
}

/// The slot of a command that a peer may send; `None`: its ids are malformed, or it is a shard's own command.
pub(super) fn command_slot(command: &Command) -> Option<Slot> {
    use command::Kind;
    match command.kind.as_ref()? {
        Kind::CreateConversation(create) => of_conversation(&create.conversation_id),
        Kind::SendMessage(send) => of_conversation(&send.conversation_id),
        Kind::AdvanceCursor(advance) => of_conversation(&advance.conversation_id),
        Kind::ClaimName(claim) => Some(name_slot(&claim.name)),
        Kind::ConfirmName(confirm) => Some(name_slot(&confirm.name)),
        Kind::CreateUser(create) => of_user(&create.user_id),
        Kind::AddDevice(add) => of_user(&add.user_id),
        Kind::RotateRefresh(rotate) => of_user(&rotate.user_id),
        Kind::RemoveDevice(remove) => of_user(&remove.user_id),
        Kind::FeedCheckpoint(_) | Kind::ChangeFleet(_) => None,
    }
}

/// The slots of a query; `None`: its ids are malformed.
pub(super) fn query_slots(query: &Query) -> Option<Vec<Slot>> {
    use query::Kind;
    let slot = match query.kind.as_ref()? {
        Kind::ReadConversation(read) => of_conversation(&read.conversation_id),
        Kind::ReadUser(read) => of_user(&read.user_id),
        Kind::ReadProfiles(read) => return read.user_ids.iter().map(|id| of_user(id)).collect(),
        Kind::ReadName(read) => Some(name_slot(&read.name)),
        Kind::ReadFeed(read) => of_user(&read.user_id),
        Kind::ReadConversationList(read) => of_user(&read.user_id),
    };
    slot.map(|slot| vec![slot])
}

/// The slot of a session's user.
pub(super) fn attach_slot(attach: &AttachSession) -> Option<Slot> {
    of_user(&attach.user_id)
}

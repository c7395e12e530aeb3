//! What can be checked of a request without any state: each field against its limits. A refusal names the field.

use crate::error::RequestError;
use crate::ids::normal_username;
use crate::limits::{
    BODY_BYTES_MAX, GROUP_MEMBERS_MAX, HISTORY_ENTRIES_MAX, LIST_CONVERSATIONS_MAX, LOOK_UP_USERS_MAX,
    PAGE_TOKEN_BYTES_MAX, SYNC_CURSORS_MAX, TITLE_CHARS_MAX,
};
use crate::v1::{
    ConversationKind, CreateConversation, EntryKind, ErrorCode, History, ListConversations, LookUpUsers,
    SendMessage, Sync, client_frame,
};
use bytes::Bytes;
use std::collections::BTreeSet;

/// Checks all fields but the conversations named, which the session resolves.
pub(super) fn check(body: &client_frame::Body) -> Result<(), RequestError> {
    use client_frame::Body;
    match body {
        Body::Send(send) => check_send(send),
        Body::Delivered(cursor) => at_least_one("seq", cursor.seq),
        Body::Read(cursor) => at_least_one("seq", cursor.seq),
        Body::Sync(sync) => check_sync(sync),
        Body::History(history) => check_history(history),
        Body::List(list) => check_list(list),
        Body::Create(create) => check_create(create),
        Body::LookUp(look_up) => check_look_up(look_up),
        Body::Hello(_) | Body::Ping(_) | Body::LogOut(_) | Body::Get(_) => Ok(()),
    }
}

fn check_send(send: &SendMessage) -> Result<(), RequestError> {
    at_least_one("client_message_id", send.client_message_id)?;
    if send.predecessor == send.client_message_id {
        return Err(invalid("predecessor: the message itself"));
    }
    match EntryKind::try_from(send.kind) {
        Ok(
            EntryKind::Text | EntryKind::Image | EntryKind::Video | EntryKind::File | EntryKind::VoiceNote,
        ) => {}
        Ok(EntryKind::Created) => return Err(invalid("kind: CREATED is written by the server alone")),
        Err(_) => return Err(invalid(format!("kind: {} is unknown", send.kind))),
    }
    if send.body.is_empty() {
        return Err(invalid("body: empty"));
    }
    if send.body.len() > BODY_BYTES_MAX {
        let detail = format!("body: {} bytes, {BODY_BYTES_MAX} allowed", send.body.len());
        return Err(RequestError::new(ErrorCode::ErrorBodyTooLarge, detail));
    }
    Ok(())
}

fn check_sync(sync: &Sync) -> Result<(), RequestError> {
    at_most("cursors", sync.cursors.len(), SYNC_CURSORS_MAX)
}

fn check_history(history: &History) -> Result<(), RequestError> {
    if history.before_seq != 0 && history.after_seq != 0 {
        return Err(invalid("before_seq, after_seq: one of the two at most"));
    }
    at_most("limit", history.limit as usize, HISTORY_ENTRIES_MAX)
}

fn check_list(list: &ListConversations) -> Result<(), RequestError> {
    at_most("limit", list.limit as usize, LIST_CONVERSATIONS_MAX)?;
    at_most("page_token", list.page_token.len(), PAGE_TOKEN_BYTES_MAX)
}

fn check_create(create: &CreateConversation) -> Result<(), RequestError> {
    let others_max = GROUP_MEMBERS_MAX - 1;
    match ConversationKind::try_from(create.kind) {
        Ok(ConversationKind::Direct) => {
            if create.member_ids.len() != 1 {
                return Err(invalid(format!("member_ids: one other, {} named", create.member_ids.len())));
            }
            if !create.title.is_empty() {
                return Err(invalid("title: only a group has one"));
            }
            if create.creation_id != 0 {
                return Err(invalid("creation_id: only a group has one"));
            }
        }
        Ok(ConversationKind::Group) => {
            if create.member_ids.len() > others_max {
                let detail =
                    format!("member_ids: {} named, {others_max} others allowed", create.member_ids.len());
                return Err(RequestError::new(ErrorCode::ErrorTooManyMembers, detail));
            }
            check_title(&create.title)?;
            at_least_one("creation_id", create.creation_id)?;
        }
        Ok(ConversationKind::Unspecified) | Err(_) => {
            return Err(invalid(format!("kind: {} is neither DIRECT nor GROUP", create.kind)));
        }
    }
    check_user_ids("member_ids", &create.member_ids)?;
    let different: BTreeSet<&Bytes> = create.member_ids.iter().collect();
    if different.len() != create.member_ids.len() {
        return Err(invalid("member_ids: a user is named twice"));
    }
    Ok(())
}

fn check_title(title: &str) -> Result<(), RequestError> {
    at_most("title", title.chars().count(), TITLE_CHARS_MAX)?;
    if title.chars().any(char::is_control) {
        return Err(invalid("title: a control character"));
    }
    Ok(())
}

fn check_look_up(look_up: &LookUpUsers) -> Result<(), RequestError> {
    let count = look_up.user_ids.len() + look_up.usernames.len();
    if count == 0 {
        return Err(invalid("user_ids, usernames: none named"));
    }
    at_most("user_ids, usernames", count, LOOK_UP_USERS_MAX)?;
    check_user_ids("user_ids", &look_up.user_ids)?;
    match look_up.usernames.iter().position(|name| normal_username(name).is_none()) {
        Some(row) => Err(invalid(format!("usernames[{row}]: not a username"))),
        None => Ok(()),
    }
}

fn check_user_ids(field: &str, ids: &[Bytes]) -> Result<(), RequestError> {
    match ids.iter().enumerate().find(|(_, id)| id.len() != 16) {
        Some((row, id)) => Err(invalid(format!("{field}[{row}]: {} bytes, 16 expected", id.len()))),
        None => Ok(()),
    }
}

fn at_least_one(field: &str, value: u64) -> Result<(), RequestError> {
    if value == 0 { Err(invalid(format!("{field}: 0"))) } else { Ok(()) }
}

fn at_most(field: &str, value: usize, value_max: usize) -> Result<(), RequestError> {
    if value > value_max {
        return Err(invalid(format!("{field}: {value}, {value_max} allowed")));
    }
    Ok(())
}

/// The peer asked the impossible; `detail` starts with the field's name.
pub(super) fn invalid(detail: impl Into<String>) -> RequestError {
    RequestError::new(ErrorCode::ErrorInvalidArgument, detail)
}

#[cfg(test)]
mod tests;

//! Where a frame mentions conversations: the one list of places where a handle may stand for an id.

use crate::v1::{client_frame, server_frame};
use bytes::Bytes;

/// One place. In a frame either field may be set, in code above the session only `conversation_id`.
pub(super) struct Mention<'a> {
    pub(super) handle: &'a mut u32,
    pub(super) conversation_id: &'a mut Bytes,
    /// The row, where the frame has a list of them.
    pub(super) row: Option<usize>,
}

macro_rules! mention {
    ($holder:expr, $row:expr) => {{
        let holder = $holder;
        Mention { handle: &mut holder.handle, conversation_id: &mut holder.conversation_id, row: $row }
    }};
}

/// Every conversation that a request names.
pub(super) fn of_request<E>(
    body: &mut client_frame::Body,
    mut visit: impl FnMut(Mention<'_>) -> Result<(), E>,
) -> Result<(), E> {
    use client_frame::Body;
    match body {
        Body::Send(send) => visit(mention!(send, None)),
        Body::Delivered(cursor) => visit(mention!(cursor, None)),
        Body::Read(cursor) => visit(mention!(cursor, None)),
        Body::History(history) => visit(mention!(history, None)),
        Body::Get(get) => visit(mention!(get, None)),
        Body::Sync(sync) => {
            let cursors = sync.cursors.iter_mut().enumerate();
            cursors.map(|(row, cursor)| mention!(cursor, Some(row))).try_for_each(visit)
        }
        Body::Hello(_)
        | Body::Ping(_)
        | Body::List(_)
        | Body::Create(_)
        | Body::LogOut(_)
        | Body::LookUp(_) => Ok(()),
    }
}

/// Every conversation that an answer or event names.
pub(super) fn of_answer<E>(
    body: &mut server_frame::Body,
    mut visit: impl FnMut(Mention<'_>) -> Result<(), E>,
) -> Result<(), E> {
    use server_frame::Body;
    match body {
        Body::Message(event) => visit(mention!(event, None)),
        Body::Receipt(event) => visit(mention!(event, None)),
        Body::HistoryPage(page) => visit(mention!(page, None)),
        Body::Conversation(conversation) => visit(mention!(conversation, None)),
        Body::ConversationPage(page) => {
            let rows = page.conversations.iter_mut().enumerate();
            rows.map(|(row, conversation)| mention!(conversation, Some(row))).try_for_each(visit)
        }
        Body::SyncPage(page) => {
            let rows = page.conversations.iter_mut().enumerate();
            rows.filter_map(|(row, delta)| Some(mention!(delta.conversation.as_mut()?, Some(row))))
                .try_for_each(visit)
        }
        Body::Ready(_)
        | Body::Accepted(_)
        | Body::Pong(_)
        | Body::Done(_)
        | Body::Users(_)
        | Body::Error(_)
        | Body::Closing(_)
        | Body::SyncNeeded(_) => Ok(()),
    }
}

//! A room for each kind of request: what it needs from storage, and the answer it gives.
//!
//! A request is a small state machine ([`Work`]). It takes the client's request and later the results of its
//! storage calls; it gives more calls, and at last one answer. It owns no socket and reads no clock. The worker
//! keeps it in a bounded table while it waits, carries its calls, and gives it up when its time is over.
//!
//! ```text
//! request ── start ──> calls ──> results ── handle_result ──> more calls … ──> one answer
//! ```

pub mod auth;
pub mod calls;
pub mod messages;
pub mod receipts;
pub mod conversations;
pub mod list;
pub mod history;
pub mod sync;
pub mod users;
pub mod devices;
#[cfg(test)]
pub(crate) mod fake_storage;

pub use calls::{Call, Calls};

use crate::router::Router;
use crate::worker::mailbox::StorageResult;
use wire_protocol::error::RequestError;
use wire_protocol::ids::{DeviceId, UserId};
use wire_protocol::v1::{ErrorCode, client_frame, server_frame};

/// Who asks.
#[derive(Clone, Copy)]
pub struct Asker<'a> {
    /// The session's user.
    pub user: UserId,
    /// The session's device.
    pub device: DeviceId,
    /// Base of `MessageAccepted.time_delta_ms` in this session.
    pub server_time_ms: u64,
    /// Which ids live in one shard.
    pub router: &'a Router,
}

/// How far a request is.
#[derive(Debug)]
pub enum Progress {
    /// Calls are out.
    Waiting,
    /// Carried out.
    Answered(server_frame::Body),
    /// Not carried out, or unknown whether it was.
    Failed(RequestError),
}

/// One request that waits for storage.
#[derive(Debug)]
pub enum Work {
    /// A message.
    Send(messages::Send),
    /// A delivered or read cursor.
    Cursor(receipts::Cursor),
    /// A page of history.
    History(history::History),
    /// One conversation.
    Get(conversations::Get),
    /// A new conversation.
    Create(Box<conversations::Create>),
    /// A page of the conversation list.
    List(Box<list::List>),
    /// A page of what changed.
    Sync(Box<sync::Sync>),
    /// Who is who.
    LookUp(Box<users::LookUp>),
    /// The end of a device.
    LogOut(devices::LogOut),
}

impl Work {
    /// Starts a request. The first calls are left in `calls`; without any, the progress is final.
    pub fn start(
        asker: &Asker<'_>,
        body: client_frame::Body,
        calls: &mut Calls,
    ) -> Result<(Work, Progress), RequestError> {
        use client_frame::Body;
        let work = match body {
            Body::Send(send) => Work::Send(messages::Send::start(asker, send, calls)?),
            Body::Delivered(cursor) => Work::Cursor(receipts::delivered(asker, &cursor, calls)?),
            Body::Read(cursor) => Work::Cursor(receipts::read(asker, &cursor, calls)?),
            Body::History(history) => Work::History(history::History::start(asker, &history, calls)?),
            Body::Get(get) => Work::Get(conversations::Get::start(asker, &get, calls)?),
            Body::Create(create) => {
                Work::Create(Box::new(conversations::Create::start(asker, create, calls)?))
            }
            Body::List(list) => Work::List(Box::new(list::List::start(asker, &list, calls)?)),
            Body::Sync(sync) => Work::Sync(Box::new(sync::Sync::start(asker, sync, calls)?)),
            Body::LookUp(look_up) => {
                let (look_up, progress) = users::LookUp::start(asker, &look_up, calls)?;
                return Ok((Work::LookUp(Box::new(look_up)), progress));
            }
            Body::LogOut(_) => Work::LogOut(devices::LogOut::start(asker, calls)),
            Body::Hello(_) | Body::Ping(_) => {
                // The session answers these itself and never hands them on.
                return Err(RequestError::new(ErrorCode::ErrorInternal, "not a request to storage"));
            }
        };
        Ok((work, Progress::Waiting))
    }

    /// Takes the result of the call that was given this `part`. Each call has exactly one result.
    pub fn handle_result(
        &mut self,
        asker: &Asker<'_>,
        part: u16,
        result: StorageResult,
        calls: &mut Calls,
    ) -> Progress {
        let step = match self {
            Work::Send(work) => work.handle_result(asker, result),
            Work::Cursor(work) => work.handle_result(result),
            Work::History(work) => work.handle_result(result),
            Work::Get(work) => work.handle_result(result),
            Work::Create(work) => work.handle_result(asker, result, calls),
            Work::List(work) => work.handle_result(asker, part, result, calls),
            Work::Sync(work) => work.handle_result(asker, part, result, calls),
            Work::LookUp(work) => work.handle_result(asker, part, result, calls),
            Work::LogOut(work) => work.handle_result(result),
        };
        step.unwrap_or_else(Progress::Failed)
    }

    /// Reads many rows for one answer: a session may have few of these at a time.
    pub fn is_heavy(body: &client_frame::Body) -> bool {
        use client_frame::Body;
        matches!(body, Body::Sync(_) | Body::List(_) | Body::Create(_) | Body::LookUp(_))
    }
}

/// What a step of a request comes to.
pub(crate) type Step = Result<Progress, RequestError>;

pub(crate) fn answered(body: server_frame::Body) -> Step {
    Ok(Progress::Answered(body))
}

pub(crate) fn invalid(detail: impl Into<String>) -> RequestError {
    RequestError::new(ErrorCode::ErrorInvalidArgument, detail)
}

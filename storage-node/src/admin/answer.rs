//! How each request is done, on the thread of its connection: it may take long, and must not hold up the node.

use super::fleet;
use super::request::{AdminDone, AdminRequest};
use super::status::NodeStatus;
use crate::backup::{self, BackupOrder, Progress};
use crate::worker::NodeShared;

/// `progress` fails when nobody listens any more, or the node ends: what is at work gives up. An error is for a person.
pub(super) fn answer(
    shared: &NodeShared,
    request: AdminRequest,
    progress: Progress<'_>,
) -> Result<AdminDone, String> {
    match request {
        AdminRequest::Status {} => Ok(AdminDone::Status(NodeStatus::of(shared))),
        AdminRequest::Backup { to, keep } => {
            let order = BackupOrder { to, keep };
            backup::make(shared, &order, progress).map(AdminDone::Backup)
        }
        AdminRequest::Fleet {} => fleet::status(shared).map(AdminDone::Fleet),
        AdminRequest::ChangeFleet { wish, is_dry_run } => {
            fleet::change(shared, &wish, is_dry_run, progress).map(AdminDone::Fleet)
        }
        AdminRequest::WaitForMoves {} => fleet::wait(shared, progress).map(AdminDone::Fleet),
    }
}

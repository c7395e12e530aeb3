//! Logging out: the device is removed at its user's home shard, which closes its other sessions.

use super::calls::{outcome, unexpected};
use super::{Asker, Calls, Step, answered};
use crate::worker::mailbox::{ShardKey, StorageResult};
use wire_protocol::internal::{self, command, outcome as storage};
use wire_protocol::v1::{self, server_frame};

/// A device on its way out.
#[derive(Debug)]
pub struct LogOut;

impl LogOut {
    pub(super) fn start(asker: &Asker<'_>, calls: &mut Calls) -> Self {
        let command = command::Kind::RemoveDevice(internal::RemoveDevice {
            user_id: asker.user.to_bytes(),
            device_id: asker.device.to_bytes(),
        });
        calls.command(0, ShardKey::User(asker.user), command);
        Self
    }

    pub(super) fn handle_result(&mut self, result: StorageResult) -> Step {
        match outcome(result)? {
            storage::Kind::Accepted(_) => answered(server_frame::Body::Done(v1::Done {})),
            _ => Err(unexpected("a removed device")),
        }
    }
}

//! The way of whoever runs a node to the running node: a Unix socket in its data folder. Who may open the file may ask;
//! nothing of it is on the network.
//!
//! ```text
//! ringline-storage admin COMMAND          the node
//! client ── {"command":"status"} ───────> server: a thread, and one for each connection
//!        <─ {"progress":{...}} ... ──────
//!        <─ {"ok":{...}} or {"error":{...}}
//! ```
//!
//! One request a connection, a JSON object a line. [`request`] is what can be asked and answered, [`answer`] knows how
//! each is done; server and client know neither. A new command is a variant of [`AdminRequest`], one of [`AdminDone`] with
//! its text for a person, an arm in [`answer`], and its words in `command/admin.rs`.

mod request;
mod status;
mod catch_up;
mod fleet;
mod answer;
mod server;
mod client;

pub use catch_up::{CatchUp, CatchUpProgress};
pub use client::{AdminCallError, call};
#[cfg(any(test, feature = "sim"))]
pub(crate) use fleet::ask_once;
pub use fleet::{FleetStatus, FleetWish, Move, NodeShare};
pub use request::{AdminDone, AdminReply, AdminRequest};
pub(crate) use server::AdminServer;
pub use status::{NodeStatus, ShardStatus};

use std::path::{Path, PathBuf};
use std::time::Duration;

/// Connections at once: one that takes long, and some that look at how it is going. Further ones are told so.
pub const ADMIN_CONNECTIONS_MAX: usize = 8;
/// Bytes of a request: names of files, and the addresses of a node that joins.
pub const ADMIN_REQUEST_BYTES_MAX: usize = 64 * 1024;
/// Bytes of one line of an answer: the status of as many shards as there may be takes a tenth.
pub const ADMIN_REPLY_BYTES_MAX: usize = 1024 * 1024;
/// A connection that has not sent its request within this time is closed.
pub const ADMIN_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Somebody who does not take an answer for this long gets none, and what was asked for is given up.
pub const ADMIN_REPLY_TIMEOUT: Duration = Duration::from_secs(10);
/// A node that says nothing for this long, no progress either, is given up by its client.
pub const ADMIN_SILENCE_TIMEOUT: Duration = Duration::from_secs(120);

/// Where the node of this data folder is asked.
pub fn socket_path(data_dir: &Path) -> PathBuf {
    data_dir.join("admin.sock")
}

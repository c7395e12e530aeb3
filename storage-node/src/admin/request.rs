//! What can be asked of a running node, and what it says.

use super::fleet::{FleetStatus, FleetWish};
use super::status::NodeStatus;
use crate::backup::BackupReport;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::PathBuf;

/// One line to the node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum AdminRequest {
    /// What the node is, and how far each of its shards is.
    Status {},
    /// Make a backup of the node.
    Backup {
        /// Where backups of all nodes are: an absolute path, as the node sees it.
        to: PathBuf,
        /// So many backups of this node stay.
        keep: u32,
    },
    /// Nodes, where replicas are, and what moves.
    Fleet {},
    /// A node joins or leaves.
    ChangeFleet {
        /// What is wanted.
        wish: FleetWish,
        /// Only tell what it would be.
        is_dry_run: bool,
    },
    /// As the fleet, once nothing moves any more.
    WaitForMoves {},
}

impl AdminRequest {
    /// Reads a line that somebody sent. An error is for whoever did.
    pub fn from_line(line: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(line).map_err(|error| format!("this node knows no such request: {error}"))
    }

    /// As it is sent, with its line's end. An error is of a path that is no text.
    pub fn to_line(&self) -> io::Result<Vec<u8>> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        Ok(line)
    }
}

/// One line from the node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AdminReply {
    /// It is at it; more lines follow.
    Progress {
        /// How far it is, for a person.
        detail: String,
    },
    /// Done; the last line.
    Ok(AdminDone),
    /// Not done; the last line.
    Error {
        /// Why, and what a person can do about it.
        detail: String,
    },
}

/// What came of a request.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "did", rename_all = "kebab-case")]
pub enum AdminDone {
    /// Of [`AdminRequest::Status`].
    Status(NodeStatus),
    /// Of [`AdminRequest::Backup`].
    Backup(BackupReport),
    /// Of all about the fleet.
    Fleet(FleetStatus),
}

impl AdminDone {
    /// For a person.
    pub fn to_text(&self) -> String {
        match self {
            Self::Status(status) => status.to_table(),
            Self::Backup(report) => report.to_text(),
            Self::Fleet(fleet) => fleet.to_text(),
        }
    }
}

//! The data folder: whose it is, in which format, and where its parts are.
//!
//! ```text
//! node.toml   format, node id, shard count, shards: checked at every start
//! rows/       the store; its LOCK file keeps a second process out of the whole folder
//! log/        the log
//! snapshots/  of shards, from their leaders, that are being received and installed
//! ```

use super::node::StartError;
use crate::config::StorageConfig;
use crate::disk::Disk;
use crate::placement::ShardMap;
use serde::Deserialize;
use std::io;
use std::path::{Path, PathBuf};

/// Format of the folder as a whole: which parts there are and how they relate.
const FOLDER_FORMAT: u32 = 1;

/// Why an empty folder is refused.
const LOST: &str = "is missing, and other nodes have copies of this node's shards. If the fleet never ran: start each \
                    of its nodes with --new-fleet, once. A node that lost its folder must not come back empty";

/// Whose folder it is.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    format: u32,
    node_id: u32,
    shard_count: u32,
    shards: Vec<u32>,
    /// Nodes that hold copies of each of them, in the order of `shards`; empty: this one alone.
    #[serde(default)]
    copies: Vec<Vec<u32>>,
}

impl Identity {
    fn to_text(&self) -> String {
        let Self { format, node_id, shard_count, shards, copies } = self;
        let mut text = format!(
            "format = {format}\nnode_id = {node_id}\nshard_count = {shard_count}\nshards = {shards:?}\n"
        );
        if !copies.is_empty() {
            text.push_str(&format!("copies = {copies:?}\n"));
        }
        text
    }
}

/// Who uses a data folder.
#[derive(Clone, Debug)]
pub(crate) struct Owner {
    /// The node.
    pub node_id: u32,
    /// Shards of the fleet.
    pub shard_count: u32,
    /// Those of this node.
    pub shards: Vec<u32>,
    /// Nodes that hold copies of each of them; empty: this one alone.
    pub copies: Vec<Vec<u32>>,
}

impl Owner {
    /// As the configuration says.
    pub fn of(config: &StorageConfig, map: &ShardMap) -> Self {
        let copies = match map.is_replicated() {
            true => map.own_shards().into_iter().map(|shard| map.replicas(shard).voters).collect(),
            false => Vec::new(),
        };
        let shards = map.own_shards().into_iter().map(|shard| shard.0).collect();
        Self { node_id: config.node_id, shard_count: config.shard_count, shards, copies }
    }
}

/// A checked data folder.
#[derive(Debug)]
pub(crate) struct DataFolder {
    disk: Disk,
    folder: PathBuf,
    identity: Identity,
    is_new: bool,
}

impl DataFolder {
    /// Makes the folder if there is none; refuses one that belongs to another node, or to other shards. Copies of
    /// shards begin with nothing in a new fleet alone: a node that lost its folder has forgotten whom it voted for and
    /// what it acknowledged, and with its vote a leader could be elected that has forgotten it, too.
    pub fn open(disk: Disk, folder: &Path, owner: Owner, is_new_fleet: bool) -> Result<Self, StartError> {
        disk.create_folder(folder).map_err(|error| failed("make the data folder", folder, error))?;
        let Owner { node_id, shard_count, shards, copies } = owner;
        let identity = Identity { format: FOLDER_FORMAT, node_id, shard_count, shards, copies };
        let mut opened = Self { disk, folder: folder.to_owned(), identity, is_new: false };
        let file = opened.identity_file();
        match opened.disk.read_text(&file) {
            Ok(text) => opened.check(&text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if opened.disk.exists(&opened.log()) {
                    let detail = "is missing beside a log: this is no whole data folder".to_owned();
                    return Err(StartError::DataFolder { file, detail });
                }
                if !opened.identity.copies.is_empty() && !is_new_fleet {
                    return Err(StartError::DataFolder { file, detail: LOST.to_owned() });
                }
                opened.is_new = true;
            }
            Err(error) => return Err(failed("read", &file, error)),
        }
        Ok(opened)
    }

    fn check(&self, text: &str) -> Result<(), StartError> {
        let file = self.identity_file();
        let wrong = |detail: String| Err(StartError::DataFolder { file: file.clone(), detail });
        let found: Identity = match toml::from_str(text) {
            Ok(found) => found,
            Err(error) => return wrong(format!("does not say whose folder this is: {error}")),
        };
        let expected = &self.identity;
        if found.format != expected.format {
            return wrong(format!("format {}, this program reads {}", found.format, expected.format));
        }
        if found.node_id != expected.node_id {
            return wrong(format!("node_id {}, the configuration says {}", found.node_id, expected.node_id));
        }
        if found.shard_count != expected.shard_count {
            let (found, expected) = (found.shard_count, expected.shard_count);
            return wrong(format!("shard_count {found}, the configuration says {expected}"));
        }
        if found.shards != expected.shards {
            let (found, expected) = (&found.shards, &expected.shards);
            return wrong(format!(
                "shards {found:?}, the configuration says {expected:?}; shards cannot be moved yet"
            ));
        }
        if found.copies != expected.copies {
            let (found, expected) = (&found.copies, &expected.copies);
            return wrong(format!(
                "copies on nodes {found:?}, the configuration says {expected:?}; copies cannot be moved yet"
            ));
        }
        Ok(())
    }

    /// Writes down whose folder it is, if it is new. To be called when the folder is locked, before anything is
    /// put into the log.
    pub fn claim(&self) -> Result<(), StartError> {
        if !self.is_new {
            return Ok(());
        }
        let file = self.identity_file();
        let unfinished = self.folder.join("node.toml.new");
        let text = self.identity.to_text();
        let write = || {
            // Everything above the file first: once it is there, no later start looks after that again.
            if let Some(above) = self.folder.parent().filter(|above| !above.as_os_str().is_empty()) {
                self.disk.sync_folder(above)?;
            }
            self.disk.write_synced(&unfinished, &text)?;
            self.disk.rename(&unfinished, &file)?;
            self.disk.sync_folder(&self.folder)
        };
        write().map_err(|error| failed("write", &file, error))
    }

    fn identity_file(&self) -> PathBuf {
        self.folder.join("node.toml")
    }

    pub fn rows(&self) -> PathBuf {
        self.folder.join("rows")
    }

    pub fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    pub fn snapshots(&self) -> PathBuf {
        self.folder.join("snapshots")
    }
}

fn failed(what: &str, file: &Path, error: io::Error) -> StartError {
    StartError::Io { what: format!("{what} {}", file.display()), error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_reads_back() {
        let copies = vec![vec![1, 2, 3], vec![2, 3, 4]];
        let identity = Identity { format: 1, node_id: 2, shard_count: 4, shards: vec![0, 3], copies };
        assert_eq!(toml::from_str::<Identity>(&identity.to_text()), Ok(identity.clone()));
        let alone = Identity { copies: Vec::new(), ..identity };
        assert!(!alone.to_text().contains("copies"), "as before there were any");
        assert_eq!(toml::from_str::<Identity>(&alone.to_text()), Ok(alone));
    }
}

//! The data folder: whose it is, in which format, and where its parts are.
//!
//! ```text
//! node.toml   format, node id, shard count, the first shards: checked at every start
//! founders.toml   of a fleet's first nodes: their folders (`founders.rs`); both end with a checksum (`sealed.rs`)
//! LOCK        keeps a second process out of the folder, before anything in it is read (`folder_lock.rs`)
//! rows/       the store
//! log/        the log
//! snapshots/  of shards, from their leaders, that are being received and installed
//! ```

use super::folder_lock::FolderLock;
use super::node::StartError;
use super::sealed::{Seal, check_as_written, damaged, sealed, unreadable, unsealed};
use crate::config::{Beginning, StorageConfig};
use crate::disk::Disk;
use crate::placement::ShardMap;
use serde::Deserialize;
use std::io;
use std::path::{Path, PathBuf};
use wire_protocol::ids::ShardId;

/// Format of the folder as a whole: which parts there are and how they relate.
const FOLDER_FORMAT: u32 = 1;

/// Why an empty folder is refused.
pub(super) const LOST: &str = "is missing, and other nodes may count on what this one knew. If the fleet never ran: start each of \
                    its nodes with --new-fleet, once. If this is a node that the fleet is to get: --join, once. A node \
                    that lost its folder must not come back: let the fleet remove it, and get a node with a new id";

/// Whose folder it is.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    format: u32,
    node_id: u32,
    shard_count: u32,
    /// Those that it held when it began; where shards have several copies they move since then.
    shards: Vec<u32>,
    /// Nodes that held copies of each of them, in the order of `shards`; empty: this one alone.
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
    /// Whether copies come and go.
    pub is_replicated: bool,
}

impl Owner {
    /// As the configuration says.
    pub fn of(config: &StorageConfig, map: &ShardMap) -> Self {
        let is_replicated = map.is_replicated();
        let (node_id, shard_count) = (config.node_id, config.shard_count);
        let first = |shard: &ShardId| map.first_replicas(*shard).set.voters;
        let shards = map.own_shards().into_iter();
        let shards: Vec<ShardId> = shards.filter(|shard| first(shard).contains(&node_id)).collect();
        let copies = if is_replicated { shards.iter().map(first).collect() } else { Vec::new() };
        let shards = shards.into_iter().map(|shard| shard.0).collect();
        Self { node_id, shard_count, shards, copies, is_replicated }
    }
}

/// A checked data folder.
#[derive(Debug)]
pub(crate) struct DataFolder {
    disk: Disk,
    folder: PathBuf,
    identity: Identity,
    is_replicated: bool,
    is_new: bool,
    /// Whether its `node.toml` has a checksum.
    seal: Seal,
    lock: FolderLock,
}

impl DataFolder {
    /// Makes the folder if there is none, and locks it; refuses one that another process uses, or that belongs to another
    /// node, or to other shards. Copies of shards begin with nothing in a new fleet alone: a node that lost its folder has
    /// forgotten whom it voted for and what it acknowledged, and with its vote a leader could be elected that has forgotten
    /// it, too.
    pub fn open(disk: Disk, folder: &Path, owner: Owner, beginning: Beginning) -> Result<Self, StartError> {
        disk.create_folder(folder).map_err(|error| failed("make the data folder", folder, error))?;
        let mut opened = Self::of(disk, folder, owner);
        opened.lock = FolderLock::take(&opened.disk, folder)?;
        let (file, is_replicated) = (opened.identity_file(), opened.is_replicated);
        match read_whole(&opened.disk, &file)? {
            Some(text) => (opened.identity, opened.seal) = opened.check(&text)?,
            None => {
                if opened.disk.exists(&opened.log()) {
                    let detail = "is missing beside a log: this is no whole data folder".to_owned();
                    return Err(StartError::DataFolder { file, detail });
                }
                match beginning {
                    Beginning::Known if is_replicated => {
                        return Err(StartError::DataFolder { file, detail: LOST.to_owned() });
                    }
                    Beginning::Join => (opened.identity.shards, opened.identity.copies) = Default::default(),
                    Beginning::Known | Beginning::NewFleet => {}
                }
                opened.is_new = true;
            }
        }
        Ok(opened)
    }

    fn of(disk: Disk, folder: &Path, owner: Owner) -> Self {
        let Owner { node_id, shard_count, shards, copies, is_replicated } = owner;
        let identity = Identity { format: FOLDER_FORMAT, node_id, shard_count, shards, copies };
        let (folder, lock) = (folder.to_owned(), FolderLock::default());
        Self { disk, folder, identity, is_replicated, is_new: false, seal: Seal::Whole, lock }
    }

    /// Nobody else gets the folder while this is kept. It goes with this value otherwise.
    pub fn take_lock(&mut self) -> FolderLock {
        std::mem::take(&mut self.lock)
    }

    fn check(&self, text: &str) -> Result<(Identity, Seal), StartError> {
        let file = self.identity_file();
        let wrong = |detail: String| Err(StartError::DataFolder { file: file.clone(), detail });
        let (content, seal) = match unsealed(text) {
            Ok(found) => found,
            Err(damage) => return wrong(damage),
        };
        let found: Identity = match toml::from_str(content) {
            Ok(found) => found,
            Err(error) => return wrong(unreadable(seal, "whose folder this is", &error)),
        };
        let expected = &self.identity;
        if found.format != expected.format {
            return wrong(format!("format {}, this program reads {}", found.format, expected.format));
        }
        if let Err(damage) = check_as_written(content, &found.to_text()) {
            return wrong(damage);
        }
        if found.node_id != expected.node_id {
            return wrong(format!("node_id {}, the configuration says {}", found.node_id, expected.node_id));
        }
        if found.shard_count != expected.shard_count {
            let (found, expected) = (found.shard_count, expected.shard_count);
            return wrong(format!("shard_count {found}, the configuration says {expected}"));
        }
        if self.is_replicated {
            return Ok((found, seal));
        }
        if found.shards != expected.shards {
            let (found, expected) = (&found.shards, &expected.shards);
            return wrong(format!(
                "shards {found:?}, the configuration says {expected:?}; shards that have no copies cannot be moved"
            ));
        }
        if !found.copies.is_empty() {
            let found = &found.copies;
            return wrong(format!("copies on nodes {found:?}, the configuration says that there are none"));
        }
        Ok((found, seal))
    }

    /// Whether nobody has claimed it before.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Whether the fleet was there before this node.
    pub fn has_joined(&self) -> bool {
        self.is_replicated && self.identity.shards.is_empty()
    }

    /// Nodes that held copies of a shard when this folder began, as far as this node was one of them.
    pub fn first_copies(&self, shard: u32) -> Vec<u32> {
        let Identity { node_id, shards, copies, .. } = &self.identity;
        match shards.iter().position(|held| *held == shard) {
            Some(place) => copies.get(place).cloned().unwrap_or_else(|| vec![*node_id]),
            None => Vec::new(),
        }
    }

    /// Writes down whose folder it is, if it is new, and once more with a checksum, if an older release has written it.
    /// To be called when the store is open, before anything is put into the log.
    pub fn claim(&self) -> Result<(), StartError> {
        if !self.is_new && self.seal == Seal::Whole {
            return Ok(());
        }
        write_whole(&self.disk, &self.identity_file(), &self.identity.to_text())
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

/// The text that [`write_whole`] wrote, if there is one.
pub(super) fn read_whole(disk: &Disk, file: &Path) -> Result<Option<String>, StartError> {
    match disk.read_text(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound => Ok(None),
            // Its bytes are no text.
            io::ErrorKind::InvalidData => {
                Err(StartError::DataFolder { file: file.to_owned(), detail: damaged(&error.to_string()) })
            }
            _ => Err(failed("read", file, error)),
        },
    }
}

/// Writes a file (`….toml`) of a data folder, with its checksum, so that it is there as a whole or not at all, in a folder
/// that stays.
pub(super) fn write_whole(disk: &Disk, file: &Path, content: &str) -> Result<(), StartError> {
    let folder = file.parent().expect("a file in a folder");
    let unfinished = file.with_extension("toml.new");
    let write = || {
        // Everything above the file first: once it is there, no later start looks after that again.
        if let Some(above) = folder.parent().filter(|above| !above.as_os_str().is_empty()) {
            disk.sync_folder(above)?;
        }
        disk.write_synced(&unfinished, &sealed(content))?;
        disk.rename(&unfinished, file)?;
        disk.sync_folder(folder)
    };
    write().map_err(|error| failed("write", file, error))
}

/// What a node with this configuration makes of a text in place of its `node.toml`: what it would write itself, or the
/// refusal. For whoever throws texts at it.
#[cfg(any(test, feature = "sim"))]
pub fn read_node_file(config: &StorageConfig, text: &str) -> Result<String, String> {
    let map = ShardMap::new(config, 1).map_err(|error| error.to_string())?;
    let folder = DataFolder::of(Disk::Real, &config.data_dir, Owner::of(config, &map));
    folder.check(text).map(|(found, _)| sealed(&found.to_text())).map_err(|error| error.to_string())
}

pub(super) fn failed(what: &str, file: &Path, error: io::Error) -> StartError {
    StartError::Io { what: format!("{what} {}", file.display()), error }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::{SimDisk, real_folder};
    use std::sync::Arc;
    use tempfile::TempDir;

    #[test]
    fn an_identity_reads_back() {
        let copies = vec![vec![1, 2, 3], vec![2, 3, 4]];
        let identity = Identity { format: 1, node_id: 2, shard_count: 4, shards: vec![0, 3], copies };
        assert_eq!(toml::from_str::<Identity>(&identity.to_text()), Ok(identity.clone()));
        let alone = Identity { copies: Vec::new(), ..identity };
        assert!(!alone.to_text().contains("copies"), "as before there were any");
        assert_eq!(toml::from_str::<Identity>(&alone.to_text()), Ok(alone));
    }

    fn owner(is_replicated: bool) -> Owner {
        let copies = if is_replicated { vec![vec![1, 2, 3], vec![2, 3, 4]] } else { Vec::new() };
        Owner { node_id: 2, shard_count: 4, shards: vec![0, 3], copies, is_replicated }
    }

    /// A disk, and a folder on it that is not there yet.
    fn no_folder() -> (TempDir, Arc<SimDisk>, Disk, PathBuf) {
        let root = real_folder();
        let disk = SimDisk::new(root.path());
        let (on, folder) = (Disk::Simulated(Arc::clone(&disk)), root.path().join("data"));
        (root, disk, on, folder)
    }

    fn opened(disk: &Arc<SimDisk>, folder: &Path, is_replicated: bool) -> Result<DataFolder, StartError> {
        let disk = Disk::Simulated(Arc::clone(disk));
        DataFolder::open(disk, folder, owner(is_replicated), Beginning::Known)
    }

    /// Every bit of a text.
    fn bits(bytes: usize) -> impl Iterator<Item = (usize, u8)> {
        (0..bytes).flat_map(|at| (0..8).map(move |bit| (at, bit)))
    }

    #[test]
    fn a_bit_that_rots_in_the_identity_is_refused_by_its_name() {
        for is_replicated in [false, true] {
            let (_root, disk, on, folder) = no_folder();
            let new = DataFolder::open(on, &folder, owner(is_replicated), Beginning::NewFleet);
            let new = new.expect("it is new");
            new.claim().expect("it writes");
            let file = new.identity_file();
            for (at, bit) in bits(disk.bytes_of(&file).len()) {
                assert!(disk.flip(&file, at, bit));
                let told = opened(&disk, &folder, is_replicated).expect_err("it rotted").to_string();
                let is_named = told.starts_with(&format!("{}: is damaged: ", file.display()));
                assert!(is_named, "byte {at}, bit {bit}: {told}");
                assert!(disk.flip(&file, at, bit), "it is mended");
            }
            let known = opened(&disk, &folder, is_replicated).expect("as it was written");
            assert_eq!((known.identity, known.is_new), (new.identity, false));
        }
    }

    #[test]
    fn an_identity_of_an_older_release_is_taken_and_gets_a_checksum() {
        for is_replicated in [false, true] {
            let (_root, disk, on, folder) = no_folder();
            let older = DataFolder::of(on.clone(), &folder, owner(is_replicated)).identity.to_text();
            let file = folder.join("node.toml");
            on.create_folder(&folder).expect("it is made");
            on.write_synced(&file, &older).expect("it writes");
            for (at, bit) in bits(older.len()) {
                assert!(disk.flip(&file, at, bit));
                match opened(&disk, &folder, is_replicated) {
                    Err(error) => assert!(error.to_string().contains("node.toml: "), "{error}"),
                    // What no checksum stands for.
                    Ok(_) => {
                        let both = [older.as_bytes()[at], disk.bytes_of(&file)[at]];
                        assert!(is_replicated && both.iter().all(u8::is_ascii_digit), "byte {at}, bit {bit}");
                    }
                }
                assert!(disk.flip(&file, at, bit), "it is mended");
            }
            opened(&disk, &folder, is_replicated).expect("it is known").claim().expect("it writes");
            assert_eq!(on.read_text(&file).expect("it reads"), sealed(&older));
            let steps = disk.steps();
            opened(&disk, &folder, is_replicated).expect("it is known").claim().expect("it is written");
            assert_eq!(disk.steps(), steps, "it has a checksum");
        }
    }
}

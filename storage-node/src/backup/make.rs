//! Making a backup, on the thread of whoever asked for it: the loops, the log thread and the store threads go on, but for
//! the flush that the store makes anyway every few seconds.

use super::files::{Pace, Sum, make_folder, named, stamp, sync_folder};
use super::folder::{NodeFolder, backup_name, names};
use super::manifest::{BackupFile, Manifest, ShardPoint};
use super::{BACKUP_BYTES_PER_S, BACKUPS_KEPT_MAX, Progress};
use crate::clock;
use crate::disk::Disk;
use crate::domain;
use crate::engine::FileView;
use crate::replication::is_voter;
use crate::worker::NodeShared;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::TryLockError;

/// What of a checkpoint makes a store of its tables.
const HEADS: [&str; 2] = ["CURRENT", "MANIFEST-"];
/// A table.
const TABLE: &str = ".sst";
/// A table that is not whole.
const UNFINISHED_TABLE: &str = "table.unfinished";

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct BackupOrder {
    /// Where backups of all nodes are.
    pub to: PathBuf,
    /// So many of this node stay, the new one included.
    pub keep: u32,
}

/// What was done.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BackupReport {
    /// The backup's number.
    pub number: u64,
    /// Where it is.
    pub folder: PathBuf,
    /// Shards in it.
    pub shards: u32,
    /// Files that it consists of,
    pub files: u64,
    /// and their bytes.
    pub bytes: u64,
    /// Files that no earlier backup had,
    pub files_copied: u64,
    /// and their bytes.
    pub bytes_copied: u64,
    /// Older backups that went.
    pub removed: Vec<u64>,
}

impl BackupReport {
    /// For a person.
    pub fn to_text(&self) -> String {
        let mut text = format!(
            "backup {} of {} shards is in {}: {} files, {} bytes; {} files, {} bytes of them new",
            self.number,
            self.shards,
            self.folder.display(),
            self.files,
            self.bytes,
            self.files_copied,
            self.bytes_copied
        );
        if !self.removed.is_empty() {
            text.push_str(&format!("; older ones removed: {:?}", self.removed));
        }
        text
    }
}

/// Makes a backup of the node. What an error leaves behind the next backup removes.
pub(crate) fn make(
    shared: &NodeShared,
    order: &BackupOrder,
    progress: Progress<'_>,
) -> Result<BackupReport, String> {
    let made_ms = clock::now_ms();
    let made = make_at(shared, order, &Disk::Real, made_ms, progress);
    let metrics = &shared.metrics;
    match &made {
        Ok(_) => {
            metrics.backups_made.increment();
            metrics.backup_made_ms.set(made_ms);
        }
        Err(_) => metrics.backups_failed.increment(),
    }
    metrics.backup_failed.set(u64::from(made.is_err()));
    made
}

/// Makes it at this time, on this disk. The files of the store are read where RocksDB has them: on the machine's.
pub(super) fn make_at(
    shared: &NodeShared,
    order: &BackupOrder,
    disk: &Disk,
    made_ms: u64,
    progress: Progress<'_>,
) -> Result<BackupReport, String> {
    if order.keep == 0 || order.keep > BACKUPS_KEPT_MAX {
        return Err(format!("1 to {BACKUPS_KEPT_MAX} backups can be kept, not {}", order.keep));
    }
    let _alone = match shared.backing_up.try_lock() {
        Ok(alone) => alone,
        Err(TryLockError::Poisoned(after_panic)) => after_panic.into_inner(),
        Err(TryLockError::WouldBlock) => return Err("another backup of this node is being made".to_owned()),
    };
    let folder = NodeFolder::new(disk, &order.to, shared.node_id);
    progress("the store writes its newest rows into tables".to_owned())?;
    let view = view_of_whole_shards(shared)?;
    let shards = points(shared, &*view)?;
    let mut making = Making::begin(&folder, Pace::new(Some(BACKUP_BYTES_PER_S), progress))?;
    let files = making.copy(view.folder())?;
    // It holds space on the store's disk.
    drop(view);
    let manifest = Manifest {
        format: Manifest::format(),
        number: making.number,
        node_id: shared.node_id,
        shard_count: shared.map.shard_count(),
        made_ms,
        nodes: shared.nodes_now(),
        shards,
        files,
    };
    making.finish(&manifest)?;
    let removed = remove_old(&folder, order.keep)?;
    Ok(BackupReport {
        number: manifest.number,
        folder: folder.backup(manifest.number),
        shards: manifest.shards.len() as u32,
        files: manifest.files.len() as u64,
        bytes: manifest.files.iter().map(|file| file.bytes).sum(),
        files_copied: making.files_copied,
        bytes_copied: making.pace.bytes(),
        removed,
    })
}

/// While a snapshot takes the place of a shard's rows they are half of two states.
fn view_of_whole_shards(shared: &NodeShared) -> Result<Box<dyn FileView>, String> {
    let installed = || shared.metrics.snapshots_installed.value();
    let being_installed = || {
        let files = &shared.snapshot_files;
        let is_half = |file: PathBuf| files.disk().exists(&file);
        let mut shards = shared.map.own_shards().into_iter();
        shards.find(|shard| is_half(files.installing(*shard)) || is_half(files.removing(*shard)))
    };
    let (before, installed_before) = (being_installed(), installed());
    let view = shared.store.files().map_err(|error| error.to_string())?;
    match before.or_else(being_installed) {
        Some(shard) => Err(format!("shard {shard} just comes or goes with a whole copy: try again later")),
        None if installed() != installed_before => {
            Err("a shard was just replaced by a snapshot: try again".to_owned())
        }
        None => Ok(view),
    }
}

fn points(shared: &NodeShared, view: &dyn FileView) -> Result<Vec<ShardPoint>, String> {
    let mut points = Vec::new();
    for shard in shared.map.own_shards() {
        let set = domain::fleet::replicas(view, shard).map_err(|error| error.to_string())?;
        let set = set.unwrap_or_else(|| shared.first_replicas(shard).set);
        // One that is only on its way here is whole elsewhere.
        if !is_voter(&set, shared.node_id) {
            continue;
        }
        let (applied, time_ms) = domain::applied_index(view, shard).map_err(|error| error.to_string())?;
        // Read after the rows: it is of no earlier election than they are.
        let term = shared.log.newest_term(shard).map_err(|error| error.to_string())?;
        points.push(ShardPoint { shard: shard.0, applied, time_ms, term, copies: set.voters });
    }
    Ok(points)
}

/// A backup under way.
struct Making<'a> {
    folder: &'a NodeFolder,
    number: u64,
    pace: Pace<'a>,
    /// Tables that are there, by stamp.
    tables: BTreeMap<String, BackupFile>,
    files_copied: u64,
}

impl<'a> Making<'a> {
    fn begin(folder: &'a NodeFolder, pace: Pace<'a>) -> Result<Self, String> {
        let disk = folder.disk();
        make_folder(disk, folder.path())?;
        // No sync of the node's folder before the one of the backup's name, in the same folder: that one covers all that
        // changes in it from here on, none of which is of use without the name, and changes of one folder keep their order.
        let create = |made: &Path| disk.create_folder(made).map_err(|error| named(made, &error));
        create(&folder.tables())?;
        for left in folder.all_unfinished()? {
            disk.remove_tree(&left).map_err(|error| named(&left, &error))?;
        }
        let number = folder.numbers()?.last().map_or(1, |last| last + 1);
        create(&folder.unfinished(number))?;
        let tables = tables_in(folder)?;
        Ok(Self { folder, number, pace, tables, files_copied: 0 })
    }

    /// Everything of a checkpoint that is not there yet.
    fn copy(&mut self, checkpoint: &Path) -> Result<Vec<BackupFile>, String> {
        let mut files = Vec::new();
        let mut found = names(&Disk::Real, checkpoint)?;
        // One order of all steps, whatever the folder is listed in.
        found.sort_unstable();
        for name in found {
            let from = checkpoint.join(&name);
            if name.ends_with(TABLE) {
                files.push(BackupFile { name, ..self.copy_table(&from)? });
            } else if HEADS.iter().any(|head| name.starts_with(head)) {
                let to = self.folder.unfinished(self.number).join(&name);
                let sum = self.pace.copy(&from, self.folder.disk(), &to)?;
                self.files_copied += 1;
                let path = format!("{}/{name}", backup_name(self.number));
                files.push(BackupFile { path, name, bytes: sum.bytes, sha256: sum.sha256 });
            }
        }
        // Also if none was copied: the one before may have been broken off behind its last table.
        sync_folder(self.folder.disk(), &self.folder.tables())?;
        Ok(files)
    }

    fn copy_table(&mut self, from: &Path) -> Result<BackupFile, String> {
        let stamp = stamp(from)?;
        if let Some(there) = self.tables.get(&stamp) {
            return Ok(there.clone());
        }
        let disk = self.folder.disk();
        let unfinished = self.folder.tables().join(UNFINISHED_TABLE);
        let Sum { bytes, sha256 } = self.pace.copy(from, disk, &unfinished)?;
        let path = format!("tables/{stamp}-{sha256}{TABLE}");
        let to = self.folder.path().join(&path);
        disk.rename(&unfinished, &to).map_err(|error| named(&to, &error))?;
        self.files_copied += 1;
        let file = BackupFile { name: String::new(), path, bytes, sha256 };
        self.tables.insert(stamp, file.clone());
        Ok(file)
    }

    /// From here on it is a backup.
    fn finish(&self, manifest: &Manifest) -> Result<(), String> {
        let (disk, unfinished) = (self.folder.disk(), self.folder.unfinished(self.number));
        let file = unfinished.join("backup.json");
        disk.write_synced(&file, &manifest.to_text()).map_err(|error| named(&file, &error))?;
        sync_folder(disk, &unfinished)?;
        let whole = self.folder.backup(self.number);
        disk.rename(&unfinished, &whole).map_err(|error| named(&whole, &error))?;
        sync_folder(disk, self.folder.path())
    }
}

/// Tables of earlier backups, by stamp.
fn tables_in(folder: &NodeFolder) -> Result<BTreeMap<String, BackupFile>, String> {
    let mut tables = BTreeMap::new();
    for name in names(folder.disk(), &folder.tables())? {
        let Some((stamp, sha256)) = name.strip_suffix(TABLE).and_then(|name| name.split_once('-')) else {
            continue;
        };
        let path = format!("tables/{name}");
        let file = folder.path().join(&path);
        let bytes = folder.disk().size(&file).map_err(|error| named(&file, &error))?;
        let there = BackupFile { name: String::new(), path, bytes, sha256: sha256.to_owned() };
        tables.insert(stamp.to_owned(), there);
    }
    Ok(tables)
}

/// All but the newest backups go, and the tables that no other has.
fn remove_old(folder: &NodeFolder, keep: u32) -> Result<Vec<u64>, String> {
    let (disk, numbers) = (folder.disk(), folder.numbers()?);
    let (old, kept) = numbers.split_at(numbers.len().saturating_sub(keep as usize));
    for number in old {
        // First it loses its name: half a backup must not look like one.
        let (whole, unfinished) = (folder.backup(*number), folder.unfinished(*number));
        disk.rename(&whole, &unfinished).map_err(|error| named(&whole, &error))?;
        sync_folder(disk, folder.path())?;
        disk.remove_tree(&unfinished).map_err(|error| named(&unfinished, &error))?;
    }
    let mut used = BTreeSet::new();
    for number in kept {
        // One that cannot be read may need any of the tables.
        let manifest = Manifest::read_on(disk, &folder.manifest(*number)).map_err(|detail| {
            format!("the backup was made, but old tables stay, since another is damaged: {detail}")
        })?;
        used.extend(manifest.files.into_iter().map(|file| file.path));
    }
    for name in names(disk, &folder.tables())? {
        if !used.contains(&format!("tables/{name}")) {
            let file = folder.tables().join(name);
            match disk.delete(&file) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(named(&file, &error)),
                _ => {}
            }
        }
    }
    Ok(old.to_vec())
}

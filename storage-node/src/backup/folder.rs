//! Names in a folder of backups.

use super::files::named;
use super::manifest::Manifest;
use crate::disk::Disk;
use std::path::{Path, PathBuf};

/// Behind the name of a backup that is not whole.
const UNFINISHED: &str = ".unfinished";

/// The backups of one node.
#[derive(Clone, Debug)]
pub(super) struct NodeFolder {
    disk: Disk,
    path: PathBuf,
}

/// A backup of a node, and where it is.
#[derive(Clone, Debug)]
pub(super) struct Backup {
    pub folder: NodeFolder,
    pub manifest: Manifest,
}

impl NodeFolder {
    pub fn new(disk: &Disk, to: &Path, node_id: u32) -> Self {
        Self { disk: disk.clone(), path: to.join(format!("node-{node_id}")) }
    }

    /// Of all nodes, ascending by id. An error names the folder.
    pub fn all(disk: &Disk, from: &Path) -> Result<Vec<(u32, Self)>, String> {
        let mut nodes: Vec<(u32, Self)> = names(disk, from)?
            .iter()
            .filter_map(|name| name.strip_prefix("node-")?.parse().ok())
            .map(|node_id| (node_id, Self::new(disk, from, node_id)))
            .collect();
        nodes.sort_unstable_by_key(|(node_id, _)| *node_id);
        if nodes.is_empty() {
            return Err(format!("{}: holds no folder node-1, node-2, …", from.display()));
        }
        Ok(nodes)
    }

    /// What it is on.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn tables(&self) -> PathBuf {
        self.path.join("tables")
    }

    /// What a backup has beside its tables.
    pub fn backup(&self, number: u64) -> PathBuf {
        self.path.join(backup_name(number))
    }

    /// The same before it is whole.
    pub fn unfinished(&self, number: u64) -> PathBuf {
        self.path.join(format!("{}{UNFINISHED}", backup_name(number)))
    }

    pub fn manifest(&self, number: u64) -> PathBuf {
        self.backup(number).join("backup.json")
    }

    /// Numbers of backups that are whole, ascending.
    pub fn numbers(&self) -> Result<Vec<u64>, String> {
        let number = |name: &String| name.strip_prefix("backup-")?.parse().ok();
        let mut numbers: Vec<u64> = names(&self.disk, &self.path)?.iter().filter_map(number).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Folders of backups that were not finished.
    pub fn all_unfinished(&self) -> Result<Vec<PathBuf>, String> {
        let names = names(&self.disk, &self.path)?.into_iter().filter(|name| name.ends_with(UNFINISHED));
        Ok(names.map(|name| self.path.join(name)).collect())
    }

    /// The backup of this number. An error names the file.
    pub fn read(&self, node_id: u32, number: u64) -> Result<Backup, String> {
        let file = self.manifest(number);
        let manifest = Manifest::read_on(&self.disk, &file)?;
        if (manifest.node_id, manifest.number) != (node_id, number) {
            let (node, number) = (manifest.node_id, manifest.number);
            return Err(format!("{}: is of backup {number} of node {node}", file.display()));
        }
        Ok(Backup { folder: self.clone(), manifest })
    }

    /// The newest backup. An error names the file.
    pub fn newest(&self, node_id: u32) -> Result<Backup, String> {
        let number = self.numbers()?.last().copied();
        let number = number.ok_or_else(|| format!("{}: holds no backup", self.path.display()))?;
        self.read(node_id, number)
    }
}

/// As a file of this backup names it.
pub(super) fn backup_name(number: u64) -> String {
    format!("backup-{number}")
}

/// What is in a folder; what has a name that is no text is nothing of ours. An error names the folder.
pub(super) fn names(disk: &Disk, folder: &Path) -> Result<Vec<String>, String> {
    disk.names(folder).map_err(|error| named(folder, &error))
}

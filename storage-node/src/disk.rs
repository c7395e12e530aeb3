//! The disk that a node's own small files, its log files and its backups are on: the machine's, or in tests a simulated
//! one that loses what was not synced.
//!
//! It knows names, bytes and syncs, and refuses to know what the files mean: `worker/data_folder.rs`,
//! `replication/files.rs` and `backup/` decide that. RocksDB has its own way to the disk; its contract is in `engine/`.
//!
//! # What is durable when
//! As POSIX says and no more: a file's bytes and size after a sync of the file, its name after a sync of the folder
//! that holds it. ext4 and xfs keep a new file's name with its first sync, but promise it nowhere.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

#[cfg(any(test, feature = "sim"))]
use crate::sim::{SimDisk, SimFile};

/// What an error means that [`is_no_room`].
pub(crate) const NO_ROOM: &str = "no room: the disk is full, or a limit is reached";

/// Whether an error says that there is no room: on the disk, for this user, or in a file.
pub(crate) fn is_no_room(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

/// Where files are kept.
#[derive(Clone, Debug, Default)]
pub(crate) enum Disk {
    /// The machine's.
    #[default]
    Real,
    /// Made up, for tests.
    #[cfg(any(test, feature = "sim"))]
    Simulated(std::sync::Arc<SimDisk>),
}

impl Disk {
    /// Makes the folder and those above it. Their names are durable once [`Self::sync_folder`] was called for the
    /// folder above each.
    pub fn create_folder(&self, folder: &Path) -> io::Result<()> {
        match self {
            Self::Real => fs::create_dir_all(folder),
            #[cfg(any(test, feature = "sim"))]
            Self::Simulated(disk) => disk.create_folder(folder),
        }
    }

    /// Whether there is a file or folder of this name.
    pub fn exists(&self, path: &Path) -> bool {
        match self {
            Self::Real => path.exists(),
            #[cfg(any(test, feature = "sim"))]
            Self::Simulated(disk) => disk.exists(path),
        }
    }

    /// The names in a folder, in no order. One that is no text is nothing of ours.
    pub fn names(&self, folder: &Path) -> io::Result<Vec<String>> {
        match self {
            Self::Real => {
                let names = fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
                Ok(names.collect::<io::Result<Vec<_>>>()?.into_iter().flatten().collect())
            }
            #[cfg(any(test, feature = "sim"))]
            Self::Simulated(disk) => disk.names(folder),
        }
    }

    /// Bytes of a file.
    pub fn size(&self, file: &Path) -> io::Result<u64> {
        match self {
            Self::Real => Ok(fs::metadata(file)?.len()),
            #[cfg(any(test, feature = "sim"))]
            Self::Simulated(disk) => disk.size(file).map(|bytes| bytes as u64),
        }
    }

    /// A small file's text.
    pub fn read_text(&self, file: &Path) -> io::Result<String> {
        match self {
            Self::Real => fs::read_to_string(file),
            #[cfg(any(test, feature = "sim"))]
            Self::Simulated(disk) => disk.read_text(file),
        }
    }

    /// Writes a small file anew and syncs it. Its name is not durable yet.
    pub fn write_synced(&self, file: &Path, text: &str) -> io::Result<()> {
        match self {
            Self::Real => {
                let mut new = File::create(file)?;
                new.write_all(text.as_bytes())?;
                new.sync_all()
            }
            #[cfg(any(test, feature = "sim"))]
            Self::Simulated(disk) => disk.write_synced(file, text),
        }
    }

    /// Gives a file or a folder another name, at once and wholly. Durable after [`Self::sync_folder`].
    pub fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        match self {
            Self::Real => fs::rename(from, to),
            #[cfg(any(test, feature = "sim"))]
            Self::Simulated(disk) => disk.rename(from, to),
        }
    }

    /// Makes a file to be written from its beginning to its end.
    pub fn create(&self, file: &Path) -> io::Result<NewFile> {
        match self {
            Self::Real => File::create(file).map(NewFile::Real),
            #[cfg(any(test, feature = "sim"))]
            Self::Simulated(disk) => {
                let new = disk.create(file)?;
                new.truncate(0)?;
                Ok(NewFile::Simulated(new, 0))
            }
        }
    }

    /// A file, to be read from its beginning.
    pub fn open(&self, file: &Path) -> io::Result<Box<dyn Read>> {
        match self {
            Self::Real => Ok(Box::new(io::BufReader::new(File::open(file)?))),
            #[cfg(any(test, feature = "sim"))]
            Self::Simulated(disk) => Ok(Box::new(disk.open(file)?.cursor())),
        }
    }

    /// Removes a file. Durable after [`Self::sync_folder`].
    pub fn delete(&self, file: &Path) -> io::Result<()> {
        match self {
            Self::Real => fs::remove_file(file),
            #[cfg(any(test, feature = "sim"))]
            Self::Simulated(disk) => disk.delete(file),
        }
    }

    /// Removes a folder with all that is in it, one name after another. Durable after [`Self::sync_folder`] of the folder
    /// above; before, a power failure may leave it there with any part of what it held.
    pub fn remove_tree(&self, folder: &Path) -> io::Result<()> {
        match self {
            Self::Real => fs::remove_dir_all(folder),
            #[cfg(any(test, feature = "sim"))]
            Self::Simulated(disk) => disk.remove_tree(folder),
        }
    }

    /// The names in this folder are durable on return.
    pub fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        match self {
            Self::Real => File::open(folder)?.sync_all(),
            #[cfg(any(test, feature = "sim"))]
            Self::Simulated(disk) => disk.sync_folder(folder),
        }
    }
}

/// A file that is being written, from its beginning to its end.
#[derive(Debug)]
pub(crate) enum NewFile {
    /// On the machine's disk.
    Real(File),
    /// Made up, and its size.
    #[cfg(any(test, feature = "sim"))]
    Simulated(SimFile, usize),
}

impl NewFile {
    /// At the end.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Real(file) => file.write_all(bytes),
            #[cfg(any(test, feature = "sim"))]
            Self::Simulated(file, size) => {
                file.write(*size, bytes)?;
                *size += bytes.len();
                Ok(())
            }
        }
    }

    /// All that was written is durable on return.
    pub fn sync(&self) -> io::Result<()> {
        match self {
            Self::Real(file) => file.sync_all(),
            #[cfg(any(test, feature = "sim"))]
            Self::Simulated(file, _) => file.sync(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It takes every byte and has nothing to sync: asked to, the kernel says that this makes no sense.
    const NEVER_SYNCED: &str = "/dev/null";
    /// A folder of which the kernel says so.
    const FOLDER_NEVER_SYNCED: &str = "/proc";

    /// Tests on the simulated disk miss each call of these, and cannot see what a call does on the machine's.
    #[test]
    fn the_machine_is_asked_for_every_sync() {
        let (file, folder) = (Path::new(NEVER_SYNCED), Path::new(FOLDER_NEVER_SYNCED));
        let mut new = Disk::Real.create(file).expect("it opens");
        new.write(b"bytes").expect("it takes them");
        let syncs = [
            ("a small file", Disk::Real.write_synced(file, "text")),
            ("the names in a folder", Disk::Real.sync_folder(folder)),
            ("a large file", new.sync()),
        ];
        for (what, synced) in syncs {
            let told = synced.map_err(|error| error.kind());
            assert_eq!(told, Err(io::ErrorKind::InvalidInput), "{what}: nobody asked for its sync");
        }
    }
}

//! Keeps a second process out of a data folder, from before anything in it is read. The store has a lock of its own, but a
//! new fleet's first node reads and writes its founders long before it opens the store (`founders.rs`).
//!
//! The kernel takes the lock back when the process ends, however it ends; the file stays, and says nothing.

use super::data_folder::failed;
use super::node::StartError;
use crate::disk::Disk;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::path::Path;

/// The file's name.
pub(crate) const LOCK: &str = "LOCK";

/// The lock of a data folder, until it is dropped. Nobody else can have it meanwhile, in this process or another one.
#[derive(Debug, Default)]
pub(crate) struct FolderLock {
    /// Nothing: a folder of tests, that this process alone knows of.
    file: Option<File>,
}

impl FolderLock {
    /// Takes it, in a folder that is there. An error if somebody has it.
    pub fn take(disk: &Disk, folder: &Path) -> Result<Self, StartError> {
        match disk {
            Disk::Real => Self::take_real(folder),
            #[cfg(any(test, feature = "sim"))]
            Disk::Simulated(_) => Ok(Self::default()),
        }
    }

    fn take_real(folder: &Path) -> Result<Self, StartError> {
        let path = folder.join(LOCK);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(|error| failed("open", &path, error))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { file: Some(file) }),
            Err(error) if error == Errno::WOULDBLOCK => {
                let detail = "another process uses this folder".to_owned();
                Err(StartError::DataFolder { file: path, detail })
            }
            Err(error) => Err(failed("lock", &path, error.into())),
        }
    }
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        if let Some(file) = &self.file {
            // Closing the file is not enough where a process that is just being started has it open, too.
            let _ = flock(file, FlockOperation::Unlock);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_has_a_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = FolderLock::take(&Disk::Real, folder.path()).expect("it is free");
        let told = FolderLock::take(&Disk::Real, folder.path()).expect_err("it is taken").to_string();
        assert_eq!(told, format!("{}: another process uses this folder", folder.path().join(LOCK).display()));
        drop(first);
        FolderLock::take(&Disk::Real, folder.path()).expect("it is free again");
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let missing = folder.path().join("missing");
        let told = FolderLock::take(&Disk::Real, &missing).expect_err("it is not there").to_string();
        assert!(told.contains(&*missing.join(LOCK).to_string_lossy()), "{told}");
    }
}

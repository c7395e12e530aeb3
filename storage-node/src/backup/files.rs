//! Copying and checking files, no faster than a disk that serves others can bear.

use super::manifest::hex;
use crate::clock;
use crate::disk::Disk;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// Bytes that are read at once.
const CHUNK_BYTES: usize = 256 * 1024;
/// Bytes at a table's end that tell it from all others: there stand the session of the database that wrote it, its number
/// in there, and sizes of everything before.
const TAIL_BYTES: u64 = 16 * 1024;
/// How often it is told how far it is.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// What a file is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Sum {
    pub bytes: u64,
    pub sha256: String,
}

/// Work on many bytes: it keeps to a rate, and tells how far it is.
pub(super) struct Pace<'a> {
    started: Instant,
    told: Instant,
    bytes: u64,
    bytes_per_s: Option<u64>,
    progress: super::Progress<'a>,
}

impl<'a> Pace<'a> {
    /// `bytes_per_s`: `None` for work that nobody else on the machine suffers from.
    pub fn new(bytes_per_s: Option<u64>, progress: super::Progress<'a>) -> Self {
        let now = clock::now();
        Self { started: now, told: now, bytes: 0, bytes_per_s, progress }
    }

    /// What was worked on.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// So many more bytes. Waits until they are due; an error: give up.
    fn went(&mut self, bytes: u64, at: &Path) -> Result<(), String> {
        self.bytes += bytes;
        if self.told.elapsed() >= PROGRESS_EVERY {
            self.told = clock::now();
            (self.progress)(format!("{} MiB, at {}", self.bytes >> 20, at.display()))?;
        }
        if let Some(bytes_per_s) = self.bytes_per_s {
            let due = Duration::from_secs_f64(self.bytes as f64 / bytes_per_s as f64);
            thread::sleep(due.saturating_sub(self.started.elapsed()));
        }
        Ok(())
    }

    /// Reads a file to its end. An error names it.
    pub fn sum(&mut self, disk: &Disk, file: &Path) -> Result<Sum, String> {
        self.read_all(disk, file, |_| Ok(()))
    }

    /// Copies a file of the store, which is on the machine's disk, to another disk; there it is synced on return, its
    /// name is not. An error names one of the two.
    pub fn copy(&mut self, from: &Path, disk: &Disk, to: &Path) -> Result<Sum, String> {
        let failed = |error: io::Error| named(to, &error);
        let mut new = disk.create(to).map_err(failed)?;
        let sum = self.read_all(&Disk::Real, from, |bytes| new.write(bytes).map_err(failed))?;
        new.sync().map_err(failed)?;
        Ok(sum)
    }

    fn read_all(
        &mut self,
        disk: &Disk,
        file: &Path,
        mut take: impl FnMut(&[u8]) -> Result<(), String>,
    ) -> Result<Sum, String> {
        let failed = |error: io::Error| named(file, &error);
        let mut from = disk.open(file).map_err(failed)?;
        let (mut sha256, mut bytes) = (Sha256::new(), 0);
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let count = from.read(&mut chunk).map_err(failed)?;
            if count == 0 {
                return Ok(Sum { bytes, sha256: hex(&sha256.finalize()) });
            }
            let read = &chunk[..count];
            sha256.update(read);
            take(read)?;
            bytes += count as u64;
            self.went(count as u64, file)?;
        }
    }
}

/// Tells a table of the store from all others, without reading all of it: its size and its end.
pub(super) fn stamp(table: &Path) -> Result<String, String> {
    let read = || -> io::Result<String> {
        let mut file = File::open(table)?;
        let bytes = file.metadata()?.len();
        file.seek(SeekFrom::Start(bytes.saturating_sub(TAIL_BYTES)))?;
        let mut tail = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut tail)?;
        let mut digest = Sha256::new();
        digest.update(bytes.to_be_bytes());
        digest.update(&tail);
        // 128 bits: no two tables are taken for the same by chance.
        Ok(hex(&digest.finalize()[..16]))
    };
    read().map_err(|error| named(table, &error))
}

/// Makes a folder, if there is none, and those above it. All their names are durable on return, and each is before
/// anything is made below it: so of those that are there only the lowest may be so new, since a process died or a person
/// made it, that its name is not. An error names the folder that could not be made or synced.
pub(super) fn make_folder(disk: &Disk, folder: &Path) -> Result<(), String> {
    let above = match folder.parent() {
        None => return Ok(()),
        Some(above) if above.as_os_str().is_empty() => Path::new("."),
        Some(above) => above,
    };
    if !disk.exists(folder) {
        make_folder(disk, above)?;
        disk.create_folder(folder).map_err(|error| named(folder, &error))?;
    }
    sync_folder(disk, above)
}

/// The names in this folder are durable on return.
pub(super) fn sync_folder(disk: &Disk, folder: &Path) -> Result<(), String> {
    disk.sync_folder(folder).map_err(|error| named(folder, &error))
}

/// An error with its file.
pub(super) fn named(file: &Path, error: &io::Error) -> String {
    format!("{}: {error}", file.display())
}

//! The record of what was changed: on disk before the first change, so that `revert` always knows the old values.
//!
//! A record is one JSON file. It is open while something of it may be in force, and an open record is never replaced
//! by one that forgets an old value. The kernel forgets all settings at a reboot, and the record with them.

use crate::host::Host;
use crate::plan::same_value;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

/// Where the record lies unless `--record` says otherwise.
pub const RECORD_PATH: &str = "/var/lib/ringline/tune/record.json";
/// Folders whose files a record may name: revert writes as root what it reads there.
const ROOTS: [&str; 3] = ["/proc/sys/", "/proc/irq/", "/sys/"];

/// How far the work on a record has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Progress {
    /// Some changes may not have been made.
    Applying,
    /// Every change was made.
    Applied,
    /// Some changes may have been taken back.
    Reverting,
    /// Nothing of it is in force.
    Reverted,
}

/// One file that was changed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Changed {
    /// The file.
    pub path: String,
    /// Names of the settings it was written for.
    pub settings: Vec<String>,
    /// Its text before the first change, byte for byte.
    pub old: String,
    /// What was written.
    pub set: String,
    /// What the kernel showed afterwards, if it kept something else than was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<String>,
    /// What an earlier apply had set, while this one's change may not have been made yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// Whether the old text is back.
    pub restored: bool,
}

/// A record, version 1.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Always [`Record::SCHEMA`].
    pub schema: String,
    /// Always [`Record::VERSION`].
    pub version: u32,
    /// Profiles that were applied since the machine was last as in `old`, the latest last.
    pub profiles: Vec<String>,
    /// How far.
    pub progress: Progress,
    /// The boot it was made in, as the kernel names it: with the next one everything it lists is gone.
    pub boot: Option<String>,
    /// Changes, in the order they were made; each file once.
    pub changes: Vec<Changed>,
}

/// Why a record cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file or its folder.
    #[error("{path}: {error}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Not a record, or one of another version.
    #[error("{path}: not a record that this program understands: {why}")]
    Malformed {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

impl Record {
    /// Names what this is.
    pub const SCHEMA: &'static str = "ringline-tune-record";
    /// Grows with every change of the format.
    pub const VERSION: u32 = 1;

    /// An empty one of this boot.
    pub fn new(host: &dyn Host) -> Self {
        Self {
            schema: Self::SCHEMA.to_owned(),
            version: Self::VERSION,
            profiles: Vec::new(),
            progress: Progress::Applying,
            boot: boot(host),
            changes: Vec::new(),
        }
    }

    /// Whether something of it may be in force.
    pub fn is_open(&self, host: &dyn Host) -> bool {
        self.progress != Progress::Reverted && self.boot == boot(host)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let record: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if record.schema != Self::SCHEMA || record.version != Self::VERSION {
            return Err(format!("{} {}", record.schema, record.version));
        }
        let strays = |path: &str| path.contains("..") || !ROOTS.iter().any(|root| path.starts_with(root));
        match record.changes.iter().find(|changed| strays(&changed.path)) {
            Some(changed) => Err(format!("it names {:?}, which is no setting of the kernel", changed.path)),
            None => Ok(record),
        }
    }
}

impl Changed {
    /// Whether a text of the file is one that `apply` set, or that the kernel made of it.
    pub fn is_ours(&self, text: &str) -> bool {
        let earlier = [self.kept.as_deref(), self.before.as_deref()];
        same_value(&self.path, text, &self.set) || earlier.contains(&Some(text))
    }
}

/// The kernel's name for this boot.
fn boot(host: &dyn Host) -> Option<String> {
    host.read("/proc/sys/kernel/random/boot_id").ok().map(|text| text.trim().to_owned())
}

/// Files that survive the loss of power: the real disk, or one made up for a test.
///
/// `write` and `rename` may be lost until `sync` of the file, and `sync_folder` of its folder, have returned.
pub trait Disk {
    /// A file's text; none if there is no such file.
    fn read(&self, path: &Path) -> io::Result<Option<String>>;
    /// Makes a file, or replaces its content.
    fn write(&self, path: &Path, text: &str) -> io::Result<()>;
    /// A file's content is on disk when this returns.
    fn sync(&self, path: &Path) -> io::Result<()>;
    /// Gives a file another name, whose old file goes.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// The names in a folder are on disk when this returns.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
    /// Makes a folder and those above it.
    fn create_folders(&self, folder: &Path) -> io::Result<()>;
}

/// This machine's disk.
pub struct RealDisk;

impl Disk for RealDisk {
    fn read(&self, path: &Path) -> io::Result<Option<String>> {
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn write(&self, path: &Path, text: &str) -> io::Result<()> {
        std::fs::write(path, text)
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        std::fs::File::open(path)?.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        std::fs::File::open(folder)?.sync_all()
    }

    fn create_folders(&self, folder: &Path) -> io::Result<()> {
        std::fs::create_dir_all(folder)
    }
}

/// The place of a record.
pub struct RecordFile<'a> {
    disk: &'a dyn Disk,
    path: &'a Path,
}

impl<'a> RecordFile<'a> {
    /// At a path; nothing is read yet.
    pub fn new(disk: &'a dyn Disk, path: &'a Path) -> Self {
        Self { disk, path }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.path
    }

    /// The record that is there, if there is one.
    pub fn load(&self) -> Result<Option<Record>, RecordError> {
        let path = || self.path.to_owned();
        let text = self.disk.read(self.path).map_err(|error| RecordError::File { path: path(), error })?;
        let parse =
            |text: String| Record::parse(&text).map_err(|why| RecordError::Malformed { path: path(), why });
        text.map(parse).transpose()
    }

    /// Replaces the record at once; on disk when this returns.
    pub fn save(&self, record: &Record) -> Result<(), RecordError> {
        self.replace(record).map_err(|error| RecordError::File { path: self.path.to_owned(), error })
    }

    fn replace(&self, record: &Record) -> io::Result<()> {
        let mut text = serde_json::to_string_pretty(record).map_err(io::Error::other)?;
        text.push('\n');
        let folder = match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let mut new = self.path.as_os_str().to_owned();
        new.push(".new");
        let new = PathBuf::from(new);
        self.disk.create_folders(folder)?;
        self.disk.write(&new, &text)?;
        self.disk.sync(&new)?;
        self.disk.rename(&new, self.path)?;
        self.disk.sync_folder(folder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The disk of `made_up.rs` misses each call of these, and cannot see what a call does on the machine's. Neither the
    /// device nor the folder has anything to sync: asked to, the kernel says that this makes no sense.
    #[test]
    fn the_machine_is_asked_for_every_sync() {
        let syncs = [
            ("a record", RealDisk.sync(Path::new("/dev/null"))),
            ("the names in a folder", RealDisk.sync_folder(Path::new("/proc"))),
        ];
        for (what, synced) in syncs {
            let told = synced.map_err(|error| error.kind());
            assert_eq!(told, Err(io::ErrorKind::InvalidInput), "{what}: nobody asked for its sync");
        }
    }
}

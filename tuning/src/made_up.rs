//! A machine made up for tests: files of a kernel, and a disk, with everything that can go wrong.
//!
//! It holds the rule that matters most itself: no kernel file is written unless a record on disk, synced, names it
//! with the text that it had at first.

use crate::host::Host;
use crate::record::{Disk, Record};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

/// Where tests keep their record.
pub(crate) const RECORD: &str = "/records/tune/record.json";

pub(crate) struct MadeUp {
    /// The kernel's files as they are, and as they were at first.
    files: RefCell<BTreeMap<String, String>>,
    first: BTreeMap<String, String>,
    /// Files that refuse to be written.
    pub(crate) stubborn: RefCell<BTreeSet<String>>,
    /// Files that keep a text of their own, whatever is written.
    pub(crate) clamped: RefCell<BTreeMap<String, String>>,
    /// Kernel files written, in order.
    pub(crate) writes: RefCell<Vec<String>>,
    disk: RefCell<BTreeMap<PathBuf, Stored>>,
    /// Operations left until the process is killed; none: it lives on.
    life: Cell<Option<usize>>,
}

/// A file on the made-up disk.
struct Stored {
    text: String,
    is_synced: bool,
    /// Whether its name would be found after a loss of power.
    is_named: bool,
}

impl MadeUp {
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let files: BTreeMap<String, String> =
            files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
        Self {
            first: files.clone(),
            files: RefCell::new(files),
            stubborn: RefCell::default(),
            clamped: RefCell::default(),
            writes: RefCell::default(),
            disk: RefCell::default(),
            life: Cell::new(None),
        }
    }

    /// Someone else's change: past every rule.
    pub(crate) fn put(&self, path: &str, text: &str) {
        self.files.borrow_mut().insert(path.to_owned(), text.to_owned());
    }

    pub(crate) fn remove(&self, path: &str) {
        self.files.borrow_mut().remove(path);
    }

    pub(crate) fn text(&self, path: &str) -> String {
        self.files.borrow()[path].clone()
    }

    /// Whether every file reads as at first.
    pub(crate) fn is_as_at_first(&self) -> bool {
        *self.files.borrow() == self.first
    }

    /// The process is killed after so many more operations.
    pub(crate) fn dies_after(&self, operations: usize) {
        self.life.set(Some(operations));
    }

    /// Another process begins. True if the last one was killed.
    pub(crate) fn revive(&self) -> bool {
        self.life.take() == Some(0)
    }

    pub(crate) fn record(&self) -> Record {
        let disk = self.disk.borrow();
        serde_json::from_str(&disk[Path::new(RECORD)].text).expect("a record")
    }

    pub(crate) fn put_record(&self, text: &str) {
        let stored = Stored { text: text.to_owned(), is_synced: true, is_named: true };
        self.disk.borrow_mut().insert(PathBuf::from(RECORD), stored);
    }

    fn live(&self) -> io::Result<()> {
        match self.life.get() {
            Some(0) => Err(io::Error::other("killed")),
            left => {
                self.life.set(left.map(|left| left - 1));
                Ok(())
            }
        }
    }

    fn missing() -> io::Error {
        io::ErrorKind::NotFound.into()
    }

    /// What a write makes of a file: numbers get tabs, and a choice moves its brackets.
    fn printed(old: &str, new: &str) -> io::Result<String> {
        let new: Vec<&str> = new.split_whitespace().collect();
        if !old.contains('[') {
            return Ok(format!("{}\n", new.join("\t")));
        }
        let words = old.split_whitespace().map(|word| word.trim_matches(['[', ']']));
        let words: Vec<&str> = words.collect();
        match new.as_slice() {
            [chosen] if words.contains(chosen) => {
                let mark =
                    |word: &&str| if word == chosen { format!("[{word}]") } else { (*word).to_owned() };
                Ok(format!("{}\n", words.iter().map(mark).collect::<Vec<_>>().join(" ")))
            }
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    fn assert_recorded(&self, path: &str) {
        let disk = self.disk.borrow();
        let stored = disk.get(Path::new(RECORD)).expect("a record before the first change");
        assert!(stored.is_synced, "{path} is written before the record's content is on disk");
        assert!(stored.is_named, "{path} is written before the record's name is on disk");
        let record: Record = serde_json::from_str(&stored.text).expect("a record");
        let changed = record.changes.iter().find(|changed| changed.path == path);
        let changed = changed.unwrap_or_else(|| panic!("{path} is written but not recorded"));
        assert_eq!(changed.old, self.first[path], "the record of {path} forgot its first text");
    }
}

impl Host for MadeUp {
    fn read(&self, path: &str) -> io::Result<String> {
        self.live()?;
        self.files.borrow().get(path).cloned().ok_or_else(Self::missing)
    }

    fn write(&self, path: &str, text: &str) -> io::Result<()> {
        self.live()?;
        let mut files = self.files.borrow_mut();
        let old = files.get(path).ok_or_else(Self::missing)?;
        self.assert_recorded(path);
        if self.stubborn.borrow().contains(path) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let new = match self.clamped.borrow().get(path) {
            Some(own) => own.clone(),
            None => Self::printed(old, text)?,
        };
        self.writes.borrow_mut().push(path.to_owned());
        files.insert(path.to_owned(), new);
        Ok(())
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        self.live()?;
        let folder = format!("{folder}/");
        let files = self.files.borrow();
        let below = files.keys().filter_map(|path| path.strip_prefix(&folder)?.split('/').next());
        let names: BTreeSet<String> = below.map(str::to_owned).collect();
        if names.is_empty() { Err(Self::missing()) } else { Ok(names.into_iter().collect()) }
    }
}

impl Disk for MadeUp {
    fn read(&self, path: &Path) -> io::Result<Option<String>> {
        self.live()?;
        Ok(self.disk.borrow().get(path).map(|stored| stored.text.clone()))
    }

    fn write(&self, path: &Path, text: &str) -> io::Result<()> {
        self.live()?;
        assert_ne!(path, Path::new(RECORD), "a record is replaced at once, not written over");
        let stored = Stored { text: text.to_owned(), is_synced: false, is_named: false };
        self.disk.borrow_mut().insert(path.to_owned(), stored);
        Ok(())
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        self.live()?;
        self.disk.borrow_mut().get_mut(path).ok_or_else(Self::missing)?.is_synced = true;
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.live()?;
        let stored = self.disk.borrow_mut().remove(from).ok_or_else(Self::missing)?;
        self.disk.borrow_mut().insert(to.to_owned(), Stored { is_named: false, ..stored });
        Ok(())
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.live()?;
        let mut disk = self.disk.borrow_mut();
        let inside = disk.iter_mut().filter(|(path, _)| path.parent() == Some(folder));
        inside.for_each(|(_, stored)| stored.is_named = true);
        Ok(())
    }

    fn create_folders(&self, _: &Path) -> io::Result<()> {
        self.live()
    }
}

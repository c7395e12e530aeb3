//! A disk that keeps what was synced, and of the rest whatever the seed says.
//!
//! - **Bytes**: each file has its durable bytes and a list of unsynced changes (writes, cuts, growth). A sync of the
//!   file makes all of them durable. A power failure keeps any subset of them, and of each kept write any subset of
//!   its sectors of 512 bytes, or a part that ends at any byte.
//! - **Names**: a folder has its durable names and a list of unsynced changes (made, renamed, deleted). A sync of the
//!   folder makes them durable. A power failure keeps a prefix of each folder's list: journals of ext4 and xfs
//!   write changes of one folder in their order, and a rename wholly or not at all. Folders are renamed and removed
//!   as files are (`names.rs`); a folder goes with all that is in it name by name, each of which is a step.
//! - **Steps**: each change and each sync is a step. A test stops the node at any of them: that step is left
//!   half done, and every later one fails. A sync that the test leaves out is none: all is as if the code did not
//!   ask for it.
//!
//! The log engine lists its folder by itself, so every name also exists as an empty file in a real folder.

use super::names::{NameChange, Names, Node};
use super::{Doing, Random, SyncKind};
use crate::replication::{LOG_HEAD_BYTES, is_log_head};
use std::fmt;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a disk writes wholly or not at all.
const SECTOR_BYTES: usize = 512;

/// What a failing sync says.
pub const SYNC_ERROR: &str = "Input/output error of the simulated disk";

/// What a write says that finds no room. The log engine looks for it in the text of errors.
pub const FULL_ERROR: &str = "nospace";

/// What becomes of unsynced changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Crash {
    /// The process dies: the machine still has everything.
    Process,
    /// Power fails; nothing that was not synced is there.
    PowerKeepsNothing,
    /// Power fails; everything had just been written.
    PowerKeepsAll,
    /// Power fails; some of it is there, partly torn.
    PowerKeepsSome,
}

impl Crash {
    pub const ALL: [Self; 4] =
        [Self::PowerKeepsNothing, Self::PowerKeepsSome, Self::Process, Self::PowerKeepsAll];
}

#[derive(Clone, Debug)]
enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Size(usize),
    Grow(usize),
}

impl Change {
    fn apply(&self, image: &mut Vec<u8>) {
        match self {
            Self::Write { at, bytes } => {
                let end = at + bytes.len();
                if image.len() < end {
                    image.resize(end, 0);
                }
                image[*at..end].copy_from_slice(bytes);
            }
            Self::Size(size) => image.resize(*size, 0),
            Self::Grow(size) => image.resize(image.len().max(*size), 0),
        }
    }
}

#[derive(Clone, Debug, Default)]
struct File {
    now: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
    /// A sync of the last change was left out.
    is_left_out: bool,
}

impl File {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.now);
        self.unsynced.push(change);
        self.is_left_out = false;
    }

    fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            change.apply(&mut self.durable);
        }
    }

    /// The sync failed. As on Linux, the bytes can still be read, are not on the disk, and no later sync writes them.
    fn sync_failed(&mut self) {
        self.unsynced.clear();
    }

    /// Whether the head of a log file was written last.
    fn ends_with_head(&self) -> bool {
        matches!(self.unsynced.last(), Some(Change::Write { at: 0, bytes }) if is_log_head(bytes))
    }

    /// Which sync of a file this is that the log engine rewrites: behind each write comes one of ours, and then those
    /// that the engine asks for.
    fn kind_of_rewrite(&self) -> SyncKind {
        match self.unsynced.last() {
            _ if self.is_left_out => SyncKind::Rewrite,
            Some(Change::Write { at: 0, bytes }) if bytes.len() > LOG_HEAD_BYTES => SyncKind::RewriteFound,
            Some(Change::Write { .. }) => SyncKind::RewriteWrite,
            _ => SyncKind::Rewrite,
        }
    }

    fn lose(&mut self, crash: Crash, random: &mut Random) {
        for change in std::mem::take(&mut self.unsynced) {
            match crash {
                Crash::PowerKeepsNothing => {}
                Crash::PowerKeepsAll | Crash::Process => change.apply(&mut self.durable),
                Crash::PowerKeepsSome if random.one_in(2) => {
                    for kept in torn(change, random) {
                        kept.apply(&mut self.durable);
                    }
                }
                Crash::PowerKeepsSome => {}
            }
        }
        self.now.clone_from(&self.durable);
    }
}

/// What is kept of a change that was being written.
fn torn(change: Change, random: &mut Random) -> Vec<Change> {
    let Change::Write { at, bytes } = change else { return vec![change] };
    match random.below(3) {
        0 => vec![Change::Write { at, bytes }],
        1 => {
            let end = random.below(bytes.len() + 1);
            vec![Change::Write { at, bytes: bytes[..end].to_vec() }]
        }
        _ => {
            let mut kept = Vec::new();
            let mut from = 0;
            while from < bytes.len() {
                let to = ((at + from) / SECTOR_BYTES * SECTOR_BYTES + SECTOR_BYTES - at).min(bytes.len());
                if random.one_in(2) {
                    kept.push(Change::Write { at: at + from, bytes: bytes[from..to].to_vec() });
                }
                from = to;
            }
            kept
        }
    }
}

#[derive(Default)]
struct State {
    files: Vec<File>,
    names: Names,
    doing: Option<Doing>,
    steps: u64,
    stop_at: Option<u64>,
    stopped: bool,
    skipped: Vec<SyncKind>,
    left_out: usize,
    /// Syncs of this kind fail from this step on.
    failing: Option<(SyncKind, u64)>,
    /// The last sync did.
    has_failed: bool,
    /// Syncs that did so far.
    failed: u64,
    bytes_max: Option<usize>,
    trace: Vec<String>,
}

/// The disk.
pub struct SimDisk {
    root: PathBuf,
    state: Mutex<State>,
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SimDisk").field("root", &self.root).finish_non_exhaustive()
    }
}

fn stopped_error() -> io::Error {
    io::Error::other("the node was stopped")
}

impl State {
    /// Counts a step. `Err`: the node is gone. The step at which it goes is half done: `Ok(false)`.
    fn step(&mut self, what: impl FnOnce() -> String) -> io::Result<bool> {
        if self.stopped {
            return Err(stopped_error());
        }
        self.steps += 1;
        let doing = self.doing;
        self.trace.push(format!("{:>4} {doing:?} {}", self.steps, what()));
        self.stopped = self.stop_at == Some(self.steps);
        Ok(!self.stopped)
    }

    /// Counts a sync. True: it is to be carried out. One that is left out is no step.
    fn sync_step(&mut self, kind: SyncKind) -> io::Result<bool> {
        self.has_failed = false;
        if self.skipped.contains(&kind) && !self.stopped {
            self.left_out += 1;
            self.trace.push(format!("     {:?} left out: sync {kind:?}", self.doing));
            return Ok(false);
        }
        let goes_on = self.step(|| format!("sync {kind:?}"))?;
        self.has_failed = self.failing.is_some_and(|(failing, from)| failing == kind && from <= self.steps);
        self.failed += u64::from(self.has_failed);
        match (goes_on, self.has_failed) {
            (false, _) => Err(stopped_error()),
            (true, true) => Err(io::Error::other(SYNC_ERROR)),
            (true, false) => Ok(true),
        }
    }

    fn check_room(&self, more: usize) -> io::Result<()> {
        match self.bytes_max {
            Some(bytes_max) if self.used() + more > bytes_max => {
                Err(io::Error::new(io::ErrorKind::StorageFull, FULL_ERROR))
            }
            _ => Ok(()),
        }
    }

    /// Bytes of all files that have a name.
    fn used(&self) -> usize {
        let size = |(_, node): &(PathBuf, Node)| match node {
            Node::Folder(_) => 0,
            Node::File(file) => self.files[*file].now.len(),
        };
        self.names.all().iter().map(size).sum()
    }
}

impl SimDisk {
    /// Nothing is on it. `root`: a real, empty folder that mirrors the names; it and what is above it are there.
    pub fn new(root: &Path) -> Arc<Self> {
        let state = State { names: Names::new(root), ..State::default() };
        Arc::new(Self { root: root.to_owned(), state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on; names the syncs that follow.
    pub fn set_doing(&self, doing: Doing) {
        self.state().doing = Some(doing);
    }

    /// The node goes in the middle of this step, counted from now; `None`: never.
    pub fn stop_after(&self, steps: Option<u64>) {
        let mut state = self.state();
        state.stop_at = steps.map(|steps| state.steps + steps);
    }

    /// The node goes now: whatever it still asks for fails.
    pub fn stop(&self) {
        self.state().stopped = true;
    }

    /// Whether the node is gone.
    pub fn is_stopped(&self) -> bool {
        self.state().stopped
    }

    /// Steps so far.
    pub fn steps(&self) -> u64 {
        self.state().steps
    }

    /// Syncs of these kinds do nothing and say that all is well.
    pub fn skip(&self, kinds: &[SyncKind]) {
        self.state().skipped = kinds.to_vec();
    }

    /// Syncs that were left out so far.
    pub fn left_out(&self) -> usize {
        self.state().left_out
    }

    /// Syncs of this kind fail from this step on, counted from now; `None`: none does. The node may go at one that
    /// fails.
    pub fn fail(&self, failing: Option<(SyncKind, u64)>) {
        let mut state = self.state();
        state.failing = failing.map(|(kind, steps)| (kind, state.steps + steps));
    }

    /// Syncs that failed so far.
    pub fn failed_syncs(&self) -> u64 {
        self.state().failed
    }

    /// All files together have no more bytes than this.
    pub fn set_bytes_max(&self, bytes_max: Option<usize>) {
        self.state().bytes_max = bytes_max;
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> usize {
        self.state().used()
    }

    /// The last steps, for a failing test to show.
    pub fn last_steps(&self, count: usize) -> String {
        let state = self.state();
        state.trace[state.trace.len().saturating_sub(count)..].join("\n")
    }

    /// A step of the rows. True: the node is still there.
    pub fn rows_step(&self) -> io::Result<bool> {
        self.state().step(|| "write rows".to_owned())
    }

    /// A sync of the rows. True: it is to be carried out.
    pub fn rows_sync(&self) -> io::Result<bool> {
        let mut state = self.state();
        let kind = SyncKind::of_rows(state.doing);
        state.sync_step(kind)
    }

    /// What is left is what the next start finds.
    pub fn crash(&self, crash: Crash, random: &mut Random) {
        let mut state = self.state();
        let state = &mut *state;
        (state.stopped, state.stop_at) = (false, None);
        state.trace.push(format!("     crash: {crash:?}"));
        if crash == Crash::Process {
            return;
        }
        state.names.crash(|changes| match crash {
            Crash::PowerKeepsNothing => 0,
            Crash::PowerKeepsAll | Crash::Process => changes,
            Crash::PowerKeepsSome => random.below(changes + 1),
        });
        state.files.iter_mut().for_each(|file| file.lose(crash, random));
        self.mirror(&state.names);
    }

    /// Makes the real folder hold the same names.
    fn mirror(&self, names: &Names) {
        for entry in
            std::fs::read_dir(&self.root).expect("the test's folder").map(|entry| entry.expect("it lists"))
        {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                std::fs::remove_dir_all(entry.path()).expect("it removes");
            }
        }
        for (path, node) in names.all() {
            match node {
                Node::Folder(_) => std::fs::create_dir(path).expect("it makes"),
                Node::File(_) => drop(std::fs::File::create(path).expect("it makes")),
            }
        }
    }

    pub fn create_folder(&self, folder: &Path) -> io::Result<()> {
        let mut state = self.state();
        if matches!(state.names.node(folder), Some(Node::Folder(_))) {
            return Ok(());
        }
        let done = state.step(|| format!("make {}", folder.display()))?;
        state.names.make_folder(folder)?;
        std::fs::create_dir(folder)?;
        if done { Ok(()) } else { Err(stopped_error()) }
    }

    pub fn exists(&self, path: &Path) -> bool {
        self.state().names.node(path).is_some()
    }

    /// The names in a folder.
    pub fn names(&self, folder: &Path) -> io::Result<Vec<String>> {
        self.state().names.names_in(folder)
    }

    /// Bytes of a file.
    pub fn size(&self, file: &Path) -> io::Result<usize> {
        let state = self.state();
        let file = state.names.file(file)?;
        Ok(state.files[file].now.len())
    }

    pub fn read_text(&self, file: &Path) -> io::Result<String> {
        let state = self.state();
        let file = state.names.file(file)?;
        let text = String::from_utf8(state.files[file].now.clone());
        text.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    pub fn write_synced(self: &Arc<Self>, path: &Path, text: &str) -> io::Result<()> {
        let file = self.create(path)?;
        file.truncate(0)?;
        file.write(0, text.as_bytes())?;
        let doing = self.state().doing;
        file.sync_as(match doing {
            Some(Doing::BackingUp) => SyncKind::BackupManifest,
            _ if file.has_extension("receiving") => SyncKind::Removal,
            _ => SyncKind::Identity,
        })
    }

    pub fn create(self: &Arc<Self>, path: &Path) -> io::Result<SimFile> {
        let mut state = self.state();
        if let Ok(number) = state.names.file(path) {
            return Ok(self.opened(path, number));
        }
        let done = state.step(|| format!("make {}", path.display()))?;
        state.files.push(File::default());
        let number = state.files.len() - 1;
        state.names.make_file(path, number)?;
        std::fs::File::create(path)?;
        if done { Ok(self.opened(path, number)) } else { Err(stopped_error()) }
    }

    pub fn open(self: &Arc<Self>, path: &Path) -> io::Result<SimFile> {
        let number = self.state().names.file(path)?;
        Ok(self.opened(path, number))
    }

    fn opened(self: &Arc<Self>, path: &Path, number: usize) -> SimFile {
        SimFile { disk: Arc::clone(self), number, path: path.into() }
    }

    pub fn delete(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.names.file(path)?;
        let done = state.step(|| format!("delete {}", path.display()))?;
        state.names.remove(path)?;
        std::fs::remove_file(path)?;
        if done { Ok(()) } else { Err(stopped_error()) }
    }

    /// A folder with all that is in it.
    pub fn remove_tree(&self, folder: &Path) -> io::Result<()> {
        for name in self.names(folder)? {
            let path = folder.join(name);
            let node = self.state().names.node(&path);
            match node {
                Some(Node::Folder(_)) => self.remove_tree(&path)?,
                _ => self.delete(&path)?,
            }
        }
        let mut state = self.state();
        let done = state.step(|| format!("delete {}", folder.display()))?;
        state.names.remove(folder)?;
        std::fs::remove_dir(folder)?;
        if done { Ok(()) } else { Err(stopped_error()) }
    }

    /// Of a file or a folder. Within one folder.
    pub fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.names.node(from).ok_or(io::ErrorKind::NotFound)?;
        let done = state.step(|| format!("rename {} {}", from.display(), to.display()))?;
        state.names.rename(from, to)?;
        std::fs::rename(from, to)?;
        if done { Ok(()) } else { Err(stopped_error()) }
    }

    pub fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        // What is above the root is there for good.
        if !folder.starts_with(&self.root) {
            return Ok(());
        }
        let mut state = self.state();
        let kind = self.kind_of_names(folder, &state);
        if state.sync_step(kind)? {
            state.names.sync(folder)?;
        }
        Ok(())
    }

    /// Which sync of a folder this is, by what happened to its names last.
    fn kind_of_names(&self, folder: &Path, state: &State) -> SyncKind {
        let last = state.names.last_change(folder);
        if state.doing == Some(Doing::BackingUp) {
            return SyncKind::of_backup_names(folder, last);
        }
        if folder == self.root {
            return SyncKind::DataFolderName;
        }
        let is_data_folder = folder.parent() == Some(&self.root);
        let is_of_snapshots = folder.ends_with("snapshots");
        match last {
            Some(NameChange::Renamed(..)) if is_data_folder => SyncKind::IdentityName,
            Some(NameChange::Made(made, _)) if is_data_folder && made == "snapshots" => {
                SyncKind::SnapshotsName
            }
            _ if is_data_folder => SyncKind::LogName,
            Some(NameChange::Gone(_)) if is_of_snapshots => SyncKind::Done,
            _ if is_of_snapshots => SyncKind::Decided,
            _ => SyncKind::LogFolder,
        }
    }

    /// Turns one bit of a file round, on the disk itself. False: the file is not that long.
    pub fn flip(&self, path: &Path, at: usize, bit: u8) -> bool {
        let mut state = self.state();
        let Ok(number) = state.names.file(path) else { return false };
        let file = &mut state.files[number];
        for image in [&mut file.now, &mut file.durable] {
            if let Some(byte) = image.get_mut(at) {
                *byte ^= 1 << (bit % 8);
            } else {
                return false;
            }
        }
        true
    }

    /// A file's bytes.
    pub fn bytes_of(&self, path: &Path) -> Vec<u8> {
        let state = self.state();
        state.names.file(path).map_or_else(|_| Vec::new(), |number| state.files[number].now.clone())
    }

    /// Takes a file away, as a person might.
    pub fn lose_file(&self, path: &Path) {
        let mut state = self.state();
        state.names.lose(path);
        let _ = std::fs::remove_file(path);
    }

    /// Every file and its length up to the last byte that is not 0.
    pub fn files(&self) -> Vec<(PathBuf, usize)> {
        let state = self.state();
        let used = |number: usize| {
            state.files[number].now.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1)
        };
        let file = |(path, node): (PathBuf, Node)| match node {
            Node::Folder(_) => None,
            Node::File(number) => Some((path, used(number))),
        };
        state.names.all().into_iter().filter_map(file).collect()
    }
}

/// An open file.
#[derive(Clone, Debug)]
pub struct SimFile {
    disk: Arc<SimDisk>,
    number: usize,
    path: Arc<Path>,
}

impl SimFile {
    fn change(&self, what: &str, change: Change) -> io::Result<()> {
        let mut state = self.disk.state();
        if let Change::Write { at, bytes } = &change {
            let grows = (at + bytes.len()).saturating_sub(state.files[self.number].now.len());
            state.check_room(grows)?;
        }
        let done = state.step(|| format!("{what} {}", self.path.display()))?;
        // What was being done when the node went may be on the disk or not: that is for the crash to say.
        state.files[self.number].change(change);
        if done { Ok(()) } else { Err(stopped_error()) }
    }

    pub fn write(&self, at: usize, bytes: &[u8]) -> io::Result<()> {
        self.change("write", Change::Write { at, bytes: bytes.to_vec() })
    }

    pub fn truncate(&self, size: usize) -> io::Result<()> {
        self.change("cut", Change::Size(size))
    }

    pub fn size(&self) -> usize {
        self.disk.state().files[self.number].now.len()
    }

    pub fn sync(&self) -> io::Result<()> {
        let kind = self.kind_of_sync();
        self.sync_as(kind)
    }

    fn kind_of_sync(&self) -> SyncKind {
        let state = self.disk.state();
        let file = &state.files[self.number];
        match state.doing {
            Some(Doing::BackingUp) => SyncKind::of_backup_file(&self.path),
            _ if self.has_extension("rewrite") => file.kind_of_rewrite(),
            _ if self.has_extension("receiving") => SyncKind::Snapshot,
            None | Some(Doing::Starting | Doing::Restoring) if file.ends_with_head() => SyncKind::LogHead,
            doing => SyncKind::of_log(doing),
        }
    }

    fn has_extension(&self, wanted: &str) -> bool {
        self.path.extension().is_some_and(|extension| extension == wanted)
    }

    fn sync_as(&self, kind: SyncKind) -> io::Result<()> {
        let mut state = self.disk.state();
        let synced = state.sync_step(kind);
        let has_failed = state.has_failed;
        let file = &mut state.files[self.number];
        match synced {
            Ok(true) => file.sync(),
            Ok(false) => file.is_left_out = true,
            Err(error) => {
                if has_failed {
                    file.sync_failed();
                }
                return Err(error);
            }
        }
        Ok(())
    }

    pub fn cursor(&self) -> SimCursor {
        SimCursor { file: self.clone(), at: 0 }
    }
}

/// A place in an open file.
pub struct SimCursor {
    file: SimFile,
    at: usize,
}

impl SimCursor {
    pub fn truncate(&mut self, offset: usize) -> io::Result<()> {
        self.file.truncate(offset)?;
        self.at = offset;
        Ok(())
    }

    pub fn allocate(&mut self, offset: usize, size: usize) -> io::Result<()> {
        self.file.disk.state().check_room(size)?;
        self.file.change("grow", Change::Grow(offset + size))
    }
}

impl Read for SimCursor {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let state = self.file.disk.state();
        let rest = state.files[self.file.number].now.get(self.at..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        drop(state);
        self.at += count;
        Ok(count)
    }
}

impl Write for SimCursor {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(self.at, bytes)?;
        self.at += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for SimCursor {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let of =
            |base: usize, by: i64| base.checked_add_signed(by as isize).ok_or(io::ErrorKind::InvalidInput);
        self.at = match to {
            SeekFrom::Start(at) => at as usize,
            SeekFrom::Current(by) => of(self.at, by)?,
            SeekFrom::End(by) => of(self.file.size(), by)?,
        };
        Ok(self.at as u64)
    }
}

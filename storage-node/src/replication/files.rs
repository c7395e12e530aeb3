//! The log engine's way to the disk. It writes and reads as the engine asks, and adds what the engine leaves out:
//!
//! - A failed sync is remembered, reported by [`LogFiles::failure`], and nothing is written afterwards: the engine
//!   itself would panic, and leave other writers waiting.
//! - With a new file's first sync its name becomes durable, too.
//! - The head of a file that is made while the log is opened is synced before anything follows: torn, with a whole batch
//!   behind, it would look damaged. Of later files the engine itself does so.
//! - What the engine rewrites (files `*.rewrite`) is synced write by write, so that only the last can be torn.
//! - At the opening, the end of a file may be cut off only if a power failure can have torn it ([`super::damage`]), and
//!   it is only before the first write: a start that is refused changes nothing.
//! - Errors name the file.

use super::damage;
use crate::disk::{Disk, NO_ROOM, is_no_room};
use crate::failpoint::{self, Failpoint};
use crate::plant::{self, Plant};
use raft_engine::env::{DefaultFileSystem, FileSystem, Handle, Permission, WriteExt};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[cfg(any(test, feature = "sim"))]
use crate::sim::SimFile;

type RealFile = <DefaultFileSystem as FileSystem>::Handle;

/// Files of one log.
#[derive(Clone)]
pub(super) struct LogFiles {
    disk: Disk,
    state: Arc<State>,
}

struct State {
    /// Until the log is open, cutting off a file's end means that the engine could not read it.
    is_opening: AtomicBool,
    has_failed: AtomicBool,
    failure: Mutex<Option<String>>,
    /// Files that were there and will be written on; until [`LogFiles::settle`].
    found: Mutex<Vec<LogFile>>,
    /// The engine's complaints name no file.
    last_read: Mutex<LastRead>,
}

/// Files that were looked into last.
#[derive(Default)]
struct LastRead {
    any: Option<Arc<Path>>,
    /// While the log is opened, log files and rewritten ones are read one after another, and the error of the former
    /// is told when the latter are read, too. The newest file of either kind is no cause for a complaint.
    suspects: [Option<Arc<Path>>; 2],
}

impl LogFiles {
    pub fn new(disk: Disk) -> Self {
        let state = State {
            is_opening: AtomicBool::new(true),
            has_failed: AtomicBool::new(false),
            failure: Mutex::default(),
            found: Mutex::default(),
            last_read: Mutex::default(),
        };
        Self { disk, state: Arc::new(state) }
    }

    /// The engine has read everything, and has changed nothing but files without any entry.
    pub fn opened(&self) {
        self.state.is_opening.store(false, Ordering::Release);
    }

    /// To be called before the log is first changed: a start that is refused leaves the files as they were. Torn ends
    /// are cut off. What will be written on is written once more: after a failed sync of the process before, the
    /// kernel shows bytes that are not on the disk, and no later sync writes them. This one does, and so does the
    /// next sync of the newest log file, before which nothing of it counts as committed where there is one copy.
    pub fn settle(&self) -> io::Result<()> {
        self.settle_found().map(drop)
    }

    /// The same, and all that was found is durable on return: one of several copies says that it has an entry without
    /// writing it again.
    pub fn make_durable(&self) -> io::Result<()> {
        for file in self.settle_found()? {
            file.sync()?;
        }
        self.refuse_after_failure()
    }

    fn settle_found(&self) -> io::Result<Vec<LogFile>> {
        let found = std::mem::take(&mut *self.state.found());
        for file in &found {
            file.settle_end()?;
            let bytes = file.read_from(0)?;
            file.cursor()?.write_all(&bytes).map_err(|error| file.named("write", error))?;
            if file.is_rewrite() {
                file.sync()?;
            }
        }
        self.refuse_after_failure().map(|()| found)
    }

    /// What went wrong first with a sync, or with the end of a file; nothing is written any more.
    pub fn failure(&self) -> Option<String> {
        let failed = self.state.has_failed.load(Ordering::Acquire);
        failed.then(|| self.state.failure().clone().unwrap_or_default())
    }

    /// Files whose ends the engine could not read, and where these begin, until [`LogFiles::settle`].
    pub fn unread_ends(&self) -> Vec<String> {
        self.state.found().iter().filter_map(LogFile::unread_end).collect()
    }

    /// The file that a complaint of the engine is about: the one that was looked into last.
    pub fn culprit(&self) -> Option<PathBuf> {
        let last_read = self.state.last_read();
        let suspects = last_read.suspects.iter().find_map(Option::as_ref);
        let is_opening = self.state.is_opening.load(Ordering::Acquire);
        suspects.filter(|_| is_opening).or(last_read.any.as_ref()).map(|path| path.to_path_buf())
    }

    fn refuse_after_failure(&self) -> io::Result<()> {
        self.failure().map_or(Ok(()), |failure| Err(io::Error::other(failure)))
    }

    fn file(&self, path: &Path, inner: Inner, permission: Permission, is_new: bool) -> LogFile {
        let (is_new, end) = (Arc::new(AtomicBool::new(is_new)), Arc::new(AtomicUsize::new(UNCUT)));
        LogFile { path: path.into(), inner, permission, is_new, end, files: self.clone() }
    }

    fn open_inner(&self, path: &Path, permission: Permission) -> io::Result<Inner> {
        Ok(match &self.disk {
            Disk::Real => Inner::Real(Arc::new(DefaultFileSystem.open(path, permission)?)),
            #[cfg(any(test, feature = "sim"))]
            Disk::Simulated(disk) => Inner::Simulated(disk.open(path)?),
        })
    }
}

impl State {
    fn fail(&self, detail: String) {
        self.failure().get_or_insert(detail);
        self.has_failed.store(true, Ordering::Release);
    }

    fn failure(&self) -> MutexGuard<'_, Option<String>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn found(&self) -> MutexGuard<'_, Vec<LogFile>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn last_read(&self) -> MutexGuard<'_, LastRead> {
        self.last_read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// No end was found that is to be cut off.
const UNCUT: usize = usize::MAX;

/// A log file. Clones are the same file.
#[derive(Clone)]
pub(super) struct LogFile {
    path: Arc<Path>,
    inner: Inner,
    permission: Permission,
    /// Its name is not durable yet.
    is_new: Arc<AtomicBool>,
    /// Where the file ends for the engine, while the torn rest is still there; [`UNCUT`]: where it ends.
    end: Arc<AtomicUsize>,
    files: LogFiles,
}

#[derive(Clone)]
enum Inner {
    Real(Arc<RealFile>),
    #[cfg(any(test, feature = "sim"))]
    Simulated(SimFile),
}

impl LogFile {
    fn named(&self, what: &str, error: io::Error) -> io::Error {
        named(what, &self.path, error)
    }

    fn is_rewrite(&self) -> bool {
        self.path.extension().is_some_and(|extension| extension == "rewrite")
    }

    /// Cuts the torn rest off that the engine takes for gone.
    fn settle_end(&self) -> io::Result<()> {
        match self.end.swap(UNCUT, Ordering::AcqRel) {
            UNCUT => Ok(()),
            end => self.cut_to(end),
        }
    }

    fn unread_end(&self) -> Option<String> {
        match self.end.load(Ordering::Acquire) {
            UNCUT => None,
            end => Some(format!("{} has nothing that can be read from byte {end} on", self.path.display())),
        }
    }

    fn cut_to(&self, size: usize) -> io::Result<()> {
        match &self.inner {
            Inner::Real(file) => Handle::truncate(&**file, size),
            #[cfg(any(test, feature = "sim"))]
            Inner::Simulated(file) => file.truncate(size),
        }
        .map_err(|error| self.named("cut", error))
    }

    fn try_sync(&self) -> io::Result<()> {
        failpoint::try_pass(Failpoint::LogSyncing)?;
        match &self.inner {
            Inner::Real(file) => file.sync()?,
            #[cfg(any(test, feature = "sim"))]
            Inner::Simulated(file) => file.sync()?,
        }
        if self.is_new.swap(false, Ordering::AcqRel)
            && let Some(folder) = self.path.parent()
        {
            self.files.disk.sync_folder(folder)?;
        }
        Ok(())
    }

    /// The engine cannot read on from here. Lets it cut the rest off if a power failure can have torn it.
    fn check_end(&self, offset: usize) -> io::Result<()> {
        let damaged = |detail: String| Err(io::Error::other(format!("{}: {detail}", self.path.display())));
        if self.permission == Permission::ReadOnly {
            return damaged(format!("damaged at byte {offset}: it is not the newest file"));
        }
        let Some(number) = file_number(&self.path) else { return Ok(()) };
        let bytes = self.read_from(offset)?;
        let Some(at) = damage::whole_batch_behind(&bytes, number) else { return Ok(()) };
        match damage::other_format(&bytes).filter(|_| offset == 0) {
            Some(version) => {
                damaged(format!("format {version}, this program reads up to {}", damage::FORMAT_MAX))
            }
            None => {
                let next = offset + at;
                damaged(format!("damaged at byte {offset}: what was written later, at byte {next}, is whole"))
            }
        }
    }

    /// What in the file's head the engine must not see.
    fn check_head(&self) -> io::Result<()> {
        let mut head = vec![0; damage::HEAD_BYTES.min(Handle::file_size(self)?)];
        self.cursor()?.read_exact(&mut head).map_err(|error| self.named("read", error))?;
        let refused = |detail: String| Err(io::Error::other(format!("{}: {detail}", self.path.display())));
        // A format of 0 may be what power failure left of a head: that is decided at its end. Files that are kept to be
        // used again hold nothing, whatever their heads say.
        let is_used = self.path.extension().is_none_or(|extension| extension != "reserved");
        if let Some(version) = damage::other_format(&head).filter(|version| is_used && *version > 0) {
            return refused(format!("format {version}, this program reads up to {}", damage::FORMAT_MAX));
        }
        match damage::alignment(&head) {
            0 => Ok(()),
            alignment => refused(format!(
                "damaged in its head: batches aligned to {alignment} bytes, and they never are"
            )),
        }
    }

    fn read_from(&self, offset: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; Handle::file_size(self)?.saturating_sub(offset)];
        let mut reader = self.cursor()?;
        reader.seek(SeekFrom::Start(offset as u64))?;
        reader.read_exact(&mut bytes).map_err(|error| self.named("read", error))?;
        Ok(bytes)
    }

    fn cursor(&self) -> io::Result<Cursor> {
        Ok(match &self.inner {
            Inner::Real(file) => Cursor::Real(DefaultFileSystem.new_reader(Arc::clone(file))?),
            #[cfg(any(test, feature = "sim"))]
            Inner::Simulated(file) => Cursor::Simulated(file.cursor()),
        })
    }
}

impl Handle for LogFile {
    fn truncate(&self, offset: usize) -> io::Result<()> {
        if self.files.state.is_opening.load(Ordering::Acquire) {
            self.check_end(offset)?;
            self.end.store(offset, Ordering::Release);
            return Ok(());
        }
        self.cut_to(offset)
    }

    fn file_size(&self) -> io::Result<usize> {
        let size = match &self.inner {
            Inner::Real(file) => file.file_size()?,
            #[cfg(any(test, feature = "sim"))]
            Inner::Simulated(file) => file.size(),
        };
        Ok(size.min(self.end.load(Ordering::Acquire)))
    }

    /// Never an error: the engine would panic. See [`LogFiles::failure`].
    fn sync(&self) -> io::Result<()> {
        // After a failed sync the kernel may report the next one as done, without the bytes being there.
        if self.files.failure().is_none()
            && let Err(error) = self.try_sync()
            && !plant::active(Plant::ForgottenSync)
        {
            self.files.state.fail(self.named("sync", error).to_string());
        }
        Ok(())
    }
}

impl FileSystem for LogFiles {
    type Handle = LogFile;
    type Reader = LogReader;
    type Writer = LogWriter;

    fn create<P: AsRef<Path>>(&self, path: P) -> io::Result<LogFile> {
        self.refuse_after_failure()?;
        let path = path.as_ref();
        let inner = match &self.disk {
            Disk::Real => DefaultFileSystem.create(path).map(|file| Inner::Real(Arc::new(file))),
            #[cfg(any(test, feature = "sim"))]
            Disk::Simulated(disk) => disk.create(path).map(Inner::Simulated),
        };
        let inner = inner.map_err(|error| named("make", path, error))?;
        Ok(self.file(path, inner, Permission::ReadWrite, true))
    }

    fn open<P: AsRef<Path>>(&self, path: P, permission: Permission) -> io::Result<LogFile> {
        let path = path.as_ref();
        let inner = self.open_inner(path, permission).map_err(|error| named("open", path, error))?;
        // A recycled file has got its name just before.
        let file = self.file(path, inner, permission, true);
        if self.state.is_opening.load(Ordering::Acquire) {
            file.check_head()?;
        }
        if permission == Permission::ReadWrite && self.state.is_opening.load(Ordering::Acquire) {
            self.state.found().push(file.clone());
        }
        Ok(file)
    }

    fn delete<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        self.refuse_after_failure()?;
        match &self.disk {
            Disk::Real => DefaultFileSystem.delete(path.as_ref()),
            #[cfg(any(test, feature = "sim"))]
            Disk::Simulated(disk) => disk.delete(path.as_ref()),
        }
        .map_err(|error| named("delete", path.as_ref(), error))
    }

    fn rename<P: AsRef<Path>>(&self, from: P, to: P) -> io::Result<()> {
        self.refuse_after_failure()?;
        self.disk.rename(from.as_ref(), to.as_ref()).map_err(|error| named("rename", from.as_ref(), error))
    }

    fn new_reader(&self, file: Arc<LogFile>) -> io::Result<LogReader> {
        let mut last_read = self.state.last_read();
        last_read.any = Some(Arc::clone(&file.path));
        let is_older = file.permission == Permission::ReadOnly;
        last_read.suspects[usize::from(file.is_rewrite())] = is_older.then(|| Arc::clone(&file.path));
        drop(last_read);
        let inner = file.cursor()?;
        Ok(LogReader { file, inner })
    }

    fn new_writer(&self, file: Arc<LogFile>) -> io::Result<LogWriter> {
        let inner = file.cursor()?;
        Ok(LogWriter { file, inner })
    }
}

/// A place in a log file, to read or write from.
pub(super) enum Cursor {
    Real(<DefaultFileSystem as FileSystem>::Reader),
    #[cfg(any(test, feature = "sim"))]
    Simulated(crate::sim::SimCursor),
}

impl Read for Cursor {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Real(file) => file.read(buffer),
            #[cfg(any(test, feature = "sim"))]
            Self::Simulated(file) => file.read(buffer),
        }
    }
}

impl Write for Cursor {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Real(file) => file.write(bytes),
            #[cfg(any(test, feature = "sim"))]
            Self::Simulated(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Cursor {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match self {
            Self::Real(file) => file.seek(to),
            #[cfg(any(test, feature = "sim"))]
            Self::Simulated(file) => file.seek(to),
        }
    }
}

/// Reads a log file from a place in it.
pub(super) struct LogReader {
    file: Arc<LogFile>,
    inner: Cursor,
}

impl Read for LogReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer).map_err(|error| self.file.named("read", error))
    }
}

impl Seek for LogReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}

/// Writes a log file from a place in it.
pub(super) struct LogWriter {
    file: Arc<LogFile>,
    inner: Cursor,
}

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.files.refuse_after_failure()?;
        // The engine writes a new head to a file without any entry while it opens it.
        self.file.settle_end()?;
        let count = self.inner.write(bytes).map_err(|error| self.file.named("write", error))?;
        let is_opening = self.file.files.state.is_opening.load(Ordering::Acquire);
        if self.file.is_rewrite() || (is_opening && damage::is_head(bytes)) {
            self.file.sync()?;
            self.file.files.refuse_after_failure()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for LogWriter {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}

impl WriteExt for LogWriter {
    fn truncate(&mut self, offset: usize) -> io::Result<()> {
        match &mut self.inner {
            Cursor::Real(file) => file.truncate(offset),
            #[cfg(any(test, feature = "sim"))]
            Cursor::Simulated(file) => file.truncate(offset),
        }
        .map_err(|error| self.file.named("cut", error))
    }

    fn allocate(&mut self, offset: usize, size: usize) -> io::Result<()> {
        match &mut self.inner {
            Cursor::Real(file) => file.allocate(offset, size),
            #[cfg(any(test, feature = "sim"))]
            Cursor::Simulated(file) => file.allocate(offset, size),
        }
        .map_err(|error| self.file.named("allocate", error))
    }
}

/// Keeps the kind and, word by word, the text: the engine looks for "nospace" in it.
fn named(what: &str, path: &Path, error: io::Error) -> io::Error {
    let means = if is_no_room(error.kind()) { format!(" ({NO_ROOM})") } else { String::new() };
    io::Error::new(error.kind(), format!("{what} {}: {error}{means}", path.display()))
}

/// The number in a log file's name, which signs its batches.
fn file_number(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tests on the simulated disk cannot see what a sync does on the machine's. The device has nothing to sync: asked
    /// to, the kernel says that this makes no sense. The folder, which is synced next, has.
    #[test]
    fn the_machine_is_asked_to_sync_a_log_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("0000000000000001.raftlog");
        std::os::unix::fs::symlink("/dev/null", &path).expect("it is made");
        let files = LogFiles::new(Disk::Real);
        let file = files.create(&path).expect("it opens");
        Handle::sync(&file).expect("the engine is never told");
        let failure = files.failure().expect("the machine is asked, and refuses");
        assert!(failure.starts_with(&format!("sync {}: ", path.display())), "{failure}");
    }
}

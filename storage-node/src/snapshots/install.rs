//! Putting a snapshot in the place of a shard's log and rows.
//!
//! The file under its last name is the record of what is to be done: whoever finds it there does all of it, from the
//! beginning, as often as it takes. Doing it twice changes nothing, and what stood there before plays no part.

use super::contents::behind;
use super::incoming::MAGIC;
use super::{Installed, checksum, remove};
use crate::disk::Disk;
use crate::domain;
use crate::engine::keys::Key;
use crate::engine::{Store, WriteBatch, keys};
use crate::failpoint::{self, Failpoint};
use crate::replication::Log;
use bytes::Bytes;
use prost::Message;
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use wire_protocol::ids::ShardId;
use wire_protocol::internal::{SnapshotPart, SnapshotRow};
use wire_protocol::limits::LINK_ITEM_BYTES_MAX;

/// Rows that are written at once.
const BATCH_ROWS: usize = 4_096;

/// Where snapshots are kept, and under which names.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotFiles {
    disk: Disk,
    folder: PathBuf,
}

impl SnapshotFiles {
    pub fn new(disk: Disk, folder: PathBuf) -> Self {
        Self { disk, folder }
    }

    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Not whole yet.
    pub fn receiving(&self, shard: ShardId) -> PathBuf {
        self.folder.join(format!("shard-{shard}.receiving"))
    }

    /// Whole; Raft has not decided.
    pub fn received(&self, shard: ShardId) -> PathBuf {
        self.folder.join(format!("shard-{shard}.received"))
    }

    /// To be installed, whatever happens.
    pub fn installing(&self, shard: ShardId) -> PathBuf {
        self.folder.join(format!("shard-{shard}.installing"))
    }

    /// What the shard left is to be removed, whatever happens.
    pub fn removing(&self, shard: ShardId) -> PathBuf {
        self.folder.join(format!("shard-{shard}.removing"))
    }

    /// Makes names that were given or taken durable.
    pub fn sync_folder(&self) -> io::Result<()> {
        self.disk.sync_folder(&self.folder)
    }

    /// From here on the snapshot is what the shard is.
    pub fn decide(&self, shard: ShardId) -> Result<(), String> {
        let (from, to) = (self.received(shard), self.installing(shard));
        let renamed = self.disk.rename(&from, &to).and_then(|()| self.disk.sync_folder(&self.folder));
        renamed.map_err(|error| format!("{}: {error}", to.display()))
    }

    /// Removes a file that decides nothing.
    pub fn discard(&self, file: &Path) {
        if let Err(error) = self.disk.delete(file)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!("{}: {error}", file.display());
        }
    }
}

/// What a start finds of snapshots: those that were decided are installed, the others are gone. Removals that were
/// decided are carried out.
pub(crate) fn finish_installs(
    files: &SnapshotFiles,
    store: &dyn Store,
    log: &Log,
    shards: &[ShardId],
    shard_count: u32,
) -> Result<(), String> {
    let failed = |error: io::Error| format!("{}: {error}", files.folder.display());
    files.disk.create_folder(&files.folder).map_err(failed)?;
    if let Some(above) = files.folder.parent() {
        files.disk.sync_folder(above).map_err(failed)?;
    }
    for &shard in shards {
        if files.disk.exists(&files.removing(shard)) {
            tracing::info!(%shard, "goes on removing a replica");
            remove::finish(files, store, log, shard, shard_count)?;
        }
        for file in [files.receiving(shard), files.received(shard)] {
            if files.disk.exists(&file) {
                files.discard(&file);
            }
        }
        if files.disk.exists(&files.installing(shard)) {
            tracing::info!(%shard, "goes on installing a snapshot");
            install(files, store, log, shard, shard_count)?;
        }
    }
    Ok(())
}

/// Installs a decided snapshot: log and rows are its own, and durable, on return. An error names the file.
pub(super) fn install(
    files: &SnapshotFiles,
    store: &dyn Store,
    log: &Log,
    shard: ShardId,
    shard_count: u32,
) -> Result<Installed, String> {
    let path = files.installing(shard);
    let named = |detail: String| format!("{}: {detail}", path.display());
    let file = files.disk.open(&path).map_err(|error| named(error.to_string()))?;
    let mut parts = Parts::begin(file).map_err(|error| named(error.to_string()))?;
    let ranges = keys::ranges_of_shard(shard, shard_count);
    let mut rows = NewRows { store, ranges, range: 0, from: Vec::new(), batch: WriteBatch::new() };
    rows.from = rows.ranges[0].0.clone();
    let mut feed_cut = None;
    while let Some(part) = parts.next().map_err(|error| named(error.to_string()))? {
        if let Some(first) = part.entries.first().map(|entry| entry.index) {
            let written = match feed_cut {
                None => log.begin_anew(shard, part.entries),
                Some(_) => log.extend(shard, part.entries),
            };
            feed_cut.get_or_insert(first);
            written.map_err(|error| error.to_string())?;
        }
        rows.put(part.rows).map_err(|error| named(error.to_string()))?;
    }
    rows.finish().map_err(|error| named(error.to_string()))?;
    store.sync().map_err(|error| error.to_string())?;
    let (index, time_ms) = domain::applied_index(store, shard).map_err(|error| error.to_string())?;
    let last = log.span(shard).map(|(_, last)| last);
    if last != Some(index) {
        return Err(named(format!("its rows are applied up to {index}, its entries end at {last:?}")));
    }
    failpoint::pass(Failpoint::SnapshotInstalled);
    let removed = files.disk.delete(&path).and_then(|()| files.disk.sync_folder(&files.folder));
    removed.map_err(|error| named(error.to_string()))?;
    // Of a log that was never cut there is an entry before the first one: none.
    let feed_cut = feed_cut.filter(|first| *first > 1).unwrap_or(0);
    Ok(Installed { index, time_ms, feed_cut })
}

/// The parts of a file, each checked.
struct Parts {
    file: Box<dyn Read>,
    checksum: u32,
    is_over: bool,
}

impl Parts {
    fn begin(mut file: Box<dyn Read>) -> io::Result<Self> {
        let mut magic = [0; MAGIC.len()];
        file.read_exact(&mut magic)?;
        if magic != *MAGIC {
            return Err(io::Error::other("no snapshot of a format that this program reads"));
        }
        Ok(Self { file, checksum: 0, is_over: false })
    }

    fn next(&mut self) -> io::Result<Option<SnapshotPart>> {
        if self.is_over {
            return Ok(None);
        }
        let mut length = [0; 4];
        self.file.read_exact(&mut length)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > LINK_ITEM_BYTES_MAX {
            return Err(io::Error::other("damaged: a part longer than any"));
        }
        let mut bytes = vec![0; length];
        self.file.read_exact(&mut bytes)?;
        let part = SnapshotPart::decode(Bytes::from(bytes))
            .map_err(|error| io::Error::other(format!("damaged: {error}")))?;
        if part.checksum != checksum::of(&part, self.checksum) {
            return Err(io::Error::other(format!("damaged: part {}", part.number)));
        }
        self.checksum = part.checksum;
        self.is_over = part.is_last;
        Ok(Some(part))
    }
}

/// The rows that a shard is to have, in place of those that it has. What is the same is not written.
struct NewRows<'a> {
    store: &'a dyn Store,
    ranges: [(Vec<u8>, Vec<u8>); 3],
    /// Up to this key everything is as it should be.
    range: usize,
    from: Vec<u8>,
    batch: WriteBatch,
}

impl NewRows<'_> {
    fn put(&mut self, rows: Vec<SnapshotRow>) -> Result<(), crate::engine::StoreError> {
        let Some(last) = rows.last().map(|row| behind(&row.key)) else { return Ok(()) };
        let mut new: BTreeMap<Bytes, Bytes> = rows.into_iter().map(|row| (row.key, row.value)).collect();
        // Old rows between the new ones go.
        while self.ranges[self.range].1 <= last && self.range + 1 < self.ranges.len() {
            let to = self.ranges[self.range].1.clone();
            self.replace(&to, &mut new)?;
            self.range += 1;
            self.from = self.ranges[self.range].0.clone();
        }
        self.replace(&last, &mut new)?;
        self.from = last.max(std::mem::take(&mut self.from));
        for (key, value) in new {
            if let Some(key) = Key::copy_of(&key) {
                self.batch.put(key, value);
            }
        }
        self.write_if(BATCH_ROWS)
    }

    /// Takes out of `new` what is there already, and deletes what is there and not new, up to `to`.
    fn replace(
        &mut self,
        to: &[u8],
        new: &mut BTreeMap<Bytes, Bytes>,
    ) -> Result<(), crate::engine::StoreError> {
        let mut from = self.from.clone();
        loop {
            let (mut seen, mut last) = (0, Vec::new());
            let batch = &mut self.batch;
            self.store.walk(&from, to, &mut |key, value| {
                match new.get(key) {
                    Some(wanted) if wanted == value => drop(new.remove(key)),
                    Some(_) => {}
                    None => batch.delete(Key::copy_of(key).expect("stored keys are ours")),
                }
                seen += 1;
                last = key.to_vec();
                seen < BATCH_ROWS
            })?;
            self.write_if(BATCH_ROWS)?;
            if seen < BATCH_ROWS {
                return Ok(());
            }
            from = behind(&last);
        }
    }

    fn finish(mut self) -> Result<(), crate::engine::StoreError> {
        let mut none = BTreeMap::new();
        loop {
            let to = self.ranges[self.range].1.clone();
            self.replace(&to, &mut none)?;
            self.range += 1;
            match self.ranges.get(self.range) {
                Some((from, _)) => self.from = from.clone(),
                None => return self.write_if(1),
            }
        }
    }

    fn write_if(&mut self, rows: usize) -> Result<(), crate::engine::StoreError> {
        if self.batch.rows().len() < rows {
            return Ok(());
        }
        self.store.write(std::mem::take(&mut self.batch))
    }
}

//! Both engines and the overlay against each other, and RocksDB's folder: format, crashes, expiry.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::keys::{self, Key};
use super::rocks_manifest::{damaged_at, manifest_of};
use super::{
    Direction, MemoryStore, Overlay, Reader, RocksOptions, RocksStore, Store, StoreError, WriteBatch, expiry,
};
use bytes::Bytes;
use proptest::prelude::*;
use std::path::{Path, PathBuf};
use wire_protocol::ids::{ClientMessageId, ConversationId, DeviceId, Seq};

/// A folder that goes when the test does.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap().keep())
    }

    /// What the disk holds now, as after the power has failed: nothing that is only in memory.
    fn copied(&self) -> Self {
        loop {
            // A disk stops at one moment, a copy takes many: one during which RocksDB's own threads changed anything
            // is no moment's, and is thrown away.
            let before = self.files();
            let copy = Self::new();
            let is_whole =
                before.iter().all(|(name, _)| std::fs::copy(self.0.join(name), copy.0.join(name)).is_ok());
            if is_whole && self.files() == before {
                return copy;
            }
        }
    }

    /// Names and lengths.
    fn files(&self) -> std::collections::BTreeMap<std::ffi::OsString, u64> {
        let entries = std::fs::read_dir(&self.0).unwrap().map(Result::unwrap);
        // One that goes meanwhile has no length any more.
        entries.map(|entry| (entry.file_name(), entry.metadata().map_or(0, |meta| meta.len()))).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn open(folder: &Path) -> Result<RocksStore, StoreError> {
    let options = RocksOptions { memtable_bytes: 1024 * 1024, ..RocksOptions::new(8) };
    RocksStore::open(folder, &options)
}

#[derive(Clone, Debug)]
enum Step {
    Write(Vec<(Place, Option<u8>)>),
    Value(Place),
    Scan {
        conversation: u8,
        from: u64,
        to: u64,
        descending: bool,
        rows_max: usize,
    },
    Sync,
    /// Closed and opened again: an engine may keep more than was synced then.
    Reopen,
    Crash,
}

/// A row of one of three conversations.
#[derive(Clone, Debug)]
enum Place {
    Head(u8),
    Message(u8, u64),
    Cursors(u8, u16),
}

impl Place {
    fn key(&self) -> Key {
        match *self {
            Place::Head(conversation) => keys::head(ConversationId([conversation; 16])),
            Place::Message(conversation, seq) => keys::message(ConversationId([conversation; 16]), Seq(seq)),
            Place::Cursors(conversation, member) => keys::cursors(ConversationId([conversation; 16]), member),
        }
    }
}

fn place() -> impl Strategy<Value = Place> {
    prop_oneof![
        (0..3u8).prop_map(Place::Head),
        (0..3u8, 0..12u64).prop_map(|(conversation, seq)| Place::Message(conversation, seq)),
        (0..3u8, 0..4u16).prop_map(|(conversation, member)| Place::Cursors(conversation, member)),
    ]
}

fn write() -> impl Strategy<Value = Vec<(Place, Option<u8>)>> {
    prop::collection::vec((place(), prop::option::weighted(0.7, any::<u8>())), 0..8)
}

fn scan() -> impl Strategy<Value = Step> {
    (0..3u8, 0..13u64, 0..13u64, any::<bool>(), 1..14usize).prop_map(
        |(conversation, from, to, descending, rows_max)| Step::Scan {
            conversation,
            from,
            to,
            descending,
            rows_max,
        },
    )
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        10 => write().prop_map(Step::Write),
        5 => place().prop_map(Step::Value),
        8 => scan(),
        3 => Just(Step::Sync),
        1 => Just(Step::Reopen),
        1 => Just(Step::Crash),
    ];
    prop::collection::vec(step, 1..60)
}

fn batch(rows: &[(Place, Option<u8>)]) -> WriteBatch {
    let mut batch = WriteBatch::new();
    for (place, value) in rows {
        match value {
            Some(value) => batch.put(place.key(), vec![*value; usize::from(*value % 40)]),
            None => batch.delete(place.key()),
        }
    }
    batch
}

type Row = (Vec<u8>, Vec<u8>);

fn scanned(reader: &dyn Reader, step: &Step) -> Vec<Row> {
    let &Step::Scan { conversation, from, to, descending, rows_max } = step else { return vec![] };
    let id = ConversationId([conversation; 16]);
    let direction = if descending { Direction::Descending } else { Direction::Ascending };
    let mut rows = vec![];
    let visit = &mut |key: &[u8], value: &[u8]| {
        rows.push((key.to_vec(), value.to_vec()));
        rows.len() < rows_max
    };
    reader.scan(&keys::message(id, Seq(from)), &keys::message(id, Seq(to)), direction, visit).unwrap();
    rows
}

fn cursors(reader: &dyn Reader) -> Vec<Row> {
    let mut rows = vec![];
    for conversation in 0..3 {
        let all = keys::cursors_of_all(ConversationId([conversation; 16]));
        let visit = &mut |key: &[u8], value: &[u8]| {
            rows.push((key.to_vec(), value.to_vec()));
            true
        };
        reader.scan(&all, &all.end(), Direction::Ascending, visit).unwrap();
    }
    rows
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn memory_and_rocks_agree(steps in steps()) {
        let memory = MemoryStore::new();
        let mut folder = Folder::new();
        let mut rocks = open(&folder.0).unwrap();
        for step in &steps {
            match step {
                Step::Write(rows) => {
                    memory.write(batch(rows)).unwrap();
                    rocks.write(batch(rows)).unwrap();
                }
                Step::Value(place) => {
                    let key = place.key();
                    prop_assert_eq!(rocks.value(&key).unwrap(), memory.value(&key).unwrap());
                }
                Step::Scan { .. } => prop_assert_eq!(scanned(&rocks, step), scanned(&memory, step)),
                Step::Sync => {
                    memory.sync().unwrap();
                    rocks.sync().unwrap();
                }
                Step::Reopen => {
                    // A clean close writes the memtables out.
                    memory.sync().unwrap();
                    drop(rocks);
                    rocks = open(&folder.0).unwrap();
                }
                Step::Crash => {
                    memory.crash();
                    let after = folder.copied();
                    drop(rocks);
                    folder = after;
                    rocks = open(&folder.0).unwrap();
                }
            }
            prop_assert_eq!(cursors(&rocks), cursors(&memory));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_overlay_reads_as_if_it_were_written(base in write(), pending in write(), scans in prop::collection::vec(scan(), 1..6)) {
        let (under, written) = (MemoryStore::new(), MemoryStore::new());
        under.write(batch(&base)).unwrap();
        written.write(batch(&base)).unwrap();
        written.write(batch(&pending)).unwrap();
        let mut overlay = Overlay::new(&under);
        for (key, value) in batch(&pending).rows() {
            match value {
                Some(value) => overlay.put(*key, value.clone()),
                None => overlay.delete(*key),
            }
        }
        for scan in &scans {
            prop_assert_eq!(scanned(&overlay, scan), scanned(&written, scan));
        }
        prop_assert_eq!(cursors(&overlay), cursors(&written));
        for (place, _) in base.iter().chain(&pending) {
            prop_assert_eq!(overlay.value(&place.key()).unwrap(), written.value(&place.key()).unwrap());
        }
        under.write(overlay.into_batch()).unwrap();
        prop_assert_eq!(under.rows(), written.rows());
    }
}

#[test]
fn what_was_not_synced_is_lost_and_what_was_is_not() {
    let folder = Folder::new();
    let store = open(&folder.0).unwrap();
    store.write(batch(&[(Place::Head(0), Some(3))])).unwrap();
    store.sync().unwrap();
    store.write(batch(&[(Place::Head(1), Some(4))])).unwrap();
    let after = folder.copied();
    let store = open(&after.0).unwrap();
    assert_eq!(store.value(&Place::Head(0).key()).unwrap(), Some(Bytes::from(vec![3; 3])));
    assert_eq!(store.value(&Place::Head(1).key()).unwrap(), None);
}

#[test]
fn another_format_is_refused_by_name() {
    let folder = Folder::new();
    let store = open(&folder.0).unwrap();
    let mut newer = WriteBatch::new();
    newer.put(keys::format(), vec![0, 0, 0, 9, 0, 0, 0, 8]);
    store.write(newer).unwrap();
    drop(store);
    let error = open(&folder.0).err().unwrap().to_string();
    let expected = format!(
        "cannot use the store in {}: it has format version 9, this program reads and writes 1",
        folder.0.display()
    );
    assert_eq!(error, expected);
}

#[test]
fn another_shard_count_and_foreign_data_are_refused() {
    let folder = Folder::new();
    drop(open(&folder.0).unwrap());
    let error = RocksStore::open(&folder.0, &RocksOptions::new(16)).err().unwrap();
    assert!(error.to_string().contains("8 shards"), "{error}");

    let foreign = Folder::new();
    let database = rocksdb::DB::open_default(&foreign.0).unwrap();
    database.put(b"somebody else's row, long enough", b"").unwrap();
    drop(database);
    let error = open(&foreign.0).err().unwrap();
    assert!(error.to_string().contains("no format row"), "{error}");
}

#[test]
fn a_bit_that_rots_in_a_table_is_an_error_and_never_a_value() {
    let folder = Folder::new();
    let rows: Vec<Key> = (1..=600).map(|seq| keys::message(ConversationId([7; 16]), Seq(seq))).collect();
    let value = |place: usize| Bytes::from(format!("{place:0100}").repeat(1 + place % 3));
    let store = open(&folder.0).unwrap();
    let mut batch = WriteBatch::new();
    rows.iter().enumerate().for_each(|(place, key)| batch.put(*key, value(place)));
    store.write(batch).unwrap();
    store.sync().unwrap();
    drop(store);
    let (mut unreadable, mut refused) = (0, 0);
    for table in tables_in(&folder.0) {
        let whole = std::fs::read(&table).unwrap();
        for at in (0..whole.len()).step_by(whole.len() / 60 + 1) {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << (at % 8);
            std::fs::write(&table, &flipped).unwrap();
            match open(&folder.0) {
                Err(error) => {
                    refused += 1;
                    let told = error.to_string();
                    assert!(told.contains(&*table.to_string_lossy()), "byte {at}: {told}");
                }
                Ok(store) => {
                    for (place, key) in rows.iter().enumerate() {
                        match store.value(key) {
                            Ok(found) => assert_eq!(found, Some(value(place)), "byte {at}"),
                            Err(error) => {
                                unreadable += 1;
                                assert!(error.to_string().contains(".sst"), "byte {at}: {error}");
                            }
                        }
                    }
                }
            }
        }
        std::fs::write(&table, &whole).unwrap();
    }
    assert!(unreadable > 100, "{unreadable} reads failed, {refused} openings were refused");
    let store = open(&folder.0).unwrap();
    assert!(rows.iter().enumerate().all(|(place, key)| store.value(key).unwrap() == Some(value(place))));
}

fn tables_in(folder: &Path) -> Vec<PathBuf> {
    let is_table = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "sst");
    std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).filter(is_table).collect()
}

/// Of its properties RocksDB itself does not always say whose they are: it reads them before it looks at their checksum.
#[test]
fn a_table_is_named_wherever_what_it_says_of_itself_rots() {
    let folder = Folder::new();
    let store = open(&folder.0).unwrap();
    store.write(batch(&[(Place::Message(0, 1), Some(9))])).unwrap();
    store.sync().unwrap();
    drop(store);
    let mut refused = 0;
    for table in tables_in(&folder.0) {
        let whole = std::fs::read(&table).unwrap();
        // Properties, the list of blocks and the footer; the properties alone have more than a thousand.
        for at in (whole.len().saturating_sub(1_400)..whole.len()).step_by(7) {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << (at % 8);
            std::fs::write(&table, &flipped).unwrap();
            if let Err(error) = open(&folder.0) {
                refused += 1;
                let told = error.to_string();
                assert!(told.contains(&*table.to_string_lossy()), "byte {at}: {told}");
            }
        }
        std::fs::write(&table, &whole).unwrap();
    }
    assert!(refused > 200, "{refused} openings were refused");
    drop(open(&folder.0).unwrap());
}

/// Where the records of a manifest of one block begin: each has seven bytes before its content, the fifth and sixth of
/// which are its length.
fn records(manifest: &[u8]) -> Vec<usize> {
    let (mut at, mut found) = (0, vec![]);
    while at < manifest.len() {
        found.push(at);
        at += 7 + usize::from(u16::from_le_bytes([manifest[at + 4], manifest[at + 5]]));
    }
    assert_eq!(at, manifest.len());
    found
}

/// A bit that rots in the checksum or the content of the last record looks as if power failure had torn it. That RocksDB
/// itself refuses; all else it might not notice.
#[test]
fn a_bit_that_rots_in_a_manifest_is_an_error_that_names_it() {
    let folder = Folder::new();
    let store = open(&folder.0).unwrap();
    for seq in 1..=3 {
        store.write(batch(&[(Place::Message(0, seq), Some(9))])).unwrap();
        store.sync().unwrap();
    }
    drop(store);
    let manifest = manifest_of(&folder.0).unwrap();
    let whole = std::fs::read(&manifest).unwrap();
    assert_eq!(damaged_at(&whole), None);
    let records = records(&whole);
    let last = *records.last().unwrap();
    let is_left = |at: usize| at >= last && !(last + 4..last + 7).contains(&at);
    let flipped = |at: usize, bit: u8| {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << bit;
        flipped
    };
    for at in 0..whole.len() {
        for bit in 0..8 {
            assert_eq!(damaged_at(&flipped(at, bit)).is_none(), is_left(at), "byte {at}, bit {bit}");
        }
    }
    // Of each record a length that reaches beyond the end, and a kind that RocksDB would look at for ever. Of the last one
    // what is left to RocksDB.
    let noticed = records.iter().flat_map(|record| [(record + 5, 7), (record + 6, 2)]);
    for (at, bit) in noticed.chain([(last, 0), (last + 3, 7), (last + 7, 0), (whole.len() - 1, 0)]) {
        std::fs::write(&manifest, flipped(at, bit)).unwrap();
        let told = open(&folder.0).err().unwrap().to_string();
        assert!(told.contains(&*manifest.to_string_lossy()), "byte {at}, bit {bit}: {told}");
    }
    std::fs::write(&manifest, &whole).unwrap();
    let store = open(&folder.0).unwrap();
    for seq in 1..=3 {
        assert_eq!(store.value(&Place::Message(0, seq).key()).unwrap(), Some(Bytes::from(vec![9; 9])));
    }
}

#[test]
fn a_folder_is_opened_once_at_a_time() {
    let folder = Folder::new();
    let first = open(&folder.0).unwrap();
    assert!(matches!(open(&folder.0), Err(StoreError::Unusable { .. })));
    drop(first);
    open(&folder.0).unwrap();
}

#[test]
fn an_overlay_hands_the_newest_logged_time_on() {
    let store = MemoryStore::new();
    let mut overlay = Overlay::new(&store);
    for logged_ms in [1_000, 3_000, 2_000] {
        overlay.set_logged_ms(logged_ms);
    }
    assert_eq!(overlay.into_batch().logged_ms(), 3_000, "engines drop expired rows by it");
}

#[test]
fn compaction_drops_expired_rows_by_logged_time() {
    let folder = Folder::new();
    let store = open(&folder.0).unwrap();
    let id = ConversationId([1; 16]);
    let row = |client_id| keys::idempotency(id, 0, DeviceId([2; 16]), ClientMessageId(client_id));
    let value = |time_ms: u64| [&[1], &time_ms.to_be_bytes()[..], &[2]].concat();
    let mut rows = WriteBatch::new();
    rows.put(row(1), value(1_000));
    rows.put(row(2), value(2_000));
    rows.put(keys::message(id, Seq(1)), value(1_000));
    rows.set_logged_ms(2_000);
    store.write(rows).unwrap();
    store.sync().unwrap();
    store.compact();
    assert!(store.value(&row(1)).unwrap().is_some(), "not yet");

    let mut later = WriteBatch::new();
    later.put(keys::head(id), value(0));
    later.set_logged_ms(1_500 + expiry::IDEMPOTENCY_DROP_MS);
    store.write(later).unwrap();
    store.sync().unwrap();
    store.compact();
    assert_eq!(store.value(&row(1)).unwrap(), None);
    assert!(store.value(&row(2)).unwrap().is_some(), "younger than the limit");
    assert!(store.value(&keys::message(id, Seq(1))).unwrap().is_some(), "messages never expire");
}

#[test]
fn what_a_store_takes_follows_what_is_written() {
    let folder = Folder::new();
    let store = open(&folder.0).unwrap();
    let before = store.usage();
    let mut batch = WriteBatch::new();
    for seq in 0..200 {
        batch.put(Place::Message(1, seq).key(), vec![7; 1_000]);
    }
    store.write(batch).unwrap();
    let written = store.usage();
    assert!(written.memtable_bytes > before.memtable_bytes + 200_000, "{before:?}, then {written:?}");
    store.sync().unwrap();
    let synced = store.usage();
    assert!(synced.table_bytes > before.table_bytes, "{written:?}, then {synced:?}");
    assert!(synced.memtable_bytes < written.memtable_bytes, "{written:?}, then {synced:?}");
}

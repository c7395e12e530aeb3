//! Damaged, missing and foreign files of a real data folder: a node serves exactly what was acknowledged, or names the
//! file that is at fault; and serves again when the file is mended.

use crate::certificates;
use crate::embedded::{Embedded, SHARDS, config};
use crate::process::{Link, Process, Setup};
use crate::requests::{self, Person, applied, body, person, read_after, send, view};
use bytes::Bytes;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use storage_node::LinkTls;
use storage_node::engine::{RocksOptions, RocksStore, Store, WriteBatch, keys};
use storage_node::replication::Log;
use wire_protocol::ids::{ConversationId, ShardId};
use wire_protocol::internal::shard_error::Kind;
use wire_protocol::internal::shard_response::Result as Reply;
use wire_protocol::internal::{RaftEntry, answer};

/// Conversations, each of two people, one of whom writes.
const PAIRS: u64 = 6;
/// Messages of each, over two lives of a node.
const MESSAGES: u64 = 100;
/// Bits turned round in each file.
const FLIPS: u64 = 10;
/// Bits turned round in each table: its blocks are read at different times, and its own description is small.
const FLIPS_OF_TABLE: u64 = 24;
/// Every kind of file that a data folder has, but for those that nobody reads: by what its name begins or ends with.
const KINDS: [&str; 8] =
    ["node.toml", "CURRENT", "IDENTITY", "MANIFEST-", "OPTIONS-", ".sst", ".log", ".raftlog"];
/// Bytes of a record of RocksDB's manifest before its content.
const MANIFEST_HEAD_BYTES: usize = 7;
/// What is found in a file that had nothing: RocksDB's own log, which no row goes through.
const FOREIGN: &[u8] = b"what nobody wrote into this file";
/// Where a log file says its format, behind 53 bytes of magic: the last of eight bytes, the others are 0.
const LOG_FORMAT_BYTE: usize = 60;

struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

fn people(pair: u64) -> (Person, Person, ConversationId) {
    let (a, b) = (person(2 * pair + 1), person(2 * pair + 2));
    (a, b, ConversationId::direct(a.user, b.user))
}

/// How the last process left the folder.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// Everything is in the rows.
    Clean,
    /// The newest messages are in the log alone.
    Dropped,
}

/// A folder with messages in rows and log.
fn filled(folder: &Path, end: End) {
    for life in 0..2 {
        let mut node = Embedded::start(folder, 1 + life as usize);
        for pair in 0..PAIRS {
            let (a, b, conversation) = people(pair);
            node.pair(a, b);
            let half = MESSAGES / 2;
            let ids: Vec<u64> = (1 + life * half..=(1 + life) * half)
                .map(|number| node.begin(0, send(SHARDS, a, conversation, number)))
                .collect();
            ids.into_iter().for_each(|id| assert!(!applied(&node.finish(id)).repeated_send));
        }
        match end {
            End::Dropped if life == 1 => drop(node),
            _ => node.shutdown(),
        }
    }
}

/// What a node over a folder shows.
#[derive(PartialEq, Eq, Debug)]
enum Shows {
    /// Everything that was acknowledged.
    Everything,
    /// It did not start, and said why.
    Refusal(String),
    /// It said that rows of a shard cannot be read, and gave no others instead.
    Unreadable,
}

fn shows(folder: &Path) -> Shows {
    let mut node = match Embedded::try_start(config(folder), 2) {
        Ok(node) => node,
        Err(error) => return Shows::Refusal(error.to_string()),
    };
    let mut unreadable = false;
    for pair in 0..PAIRS {
        let (a, b, conversation) = people(pair);
        let mut bodies: Vec<Bytes> = Vec::new();
        while (bodies.len() as u64) < MESSAGES + 1 {
            let read = read_after(SHARDS, b, conversation, bodies.len() as u64);
            let shard = read.shard;
            let id = node.begin(0, read);
            let Some(response) = node.finish_unless_failed(id) else {
                return Shows::Refusal(node.cores[0].failure().expect("it failed"));
            };
            match response.result {
                Some(Reply::Answer(answer)) => match answer.kind {
                    Some(answer::Kind::Conversation(view)) if !view.entries.is_empty() => {
                        bodies.extend(view.entries.into_iter().map(|entry| entry.body));
                    }
                    other => panic!("{other:?} after {} entries", bodies.len()),
                },
                Some(Reply::Error(error)) if error.kind() == Kind::Internal => {
                    // Clients may see this: which file it is does not concern them.
                    assert_eq!(error.detail, format!("shard {shard}: the rows cannot be read"));
                    unreadable = true;
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
        if !unreadable {
            let expected: Vec<Bytes> = (1..=MESSAGES).map(|number| body(a, number)).collect();
            assert_eq!(bodies[1..], expected, "pair {pair}");
        }
    }
    if unreadable { Shows::Unreadable } else { Shows::Everything }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("it makes");
    for entry in fs::read_dir(from).expect("it lists").map(|entry| entry.expect("it lists")) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("it copies");
        }
    }
}

/// A copy of a folder in which one file is another.
fn copy_with(whole: &Path, to: &Path, name: &Path, bytes: &[u8]) {
    copy_anew(whole, to);
    fs::write(to.join(name), bytes).expect("it writes");
}

/// A copy of a folder in place of the one before.
fn copy_anew(whole: &Path, to: &Path) {
    if to.exists() {
        fs::remove_dir_all(to).expect("it removes");
    }
    copy(whole, to);
}

/// Whether an error names this file or folder of a data folder, by its whole path.
fn names(told: &str, folder: &Path, name: &Path) -> bool {
    told.contains(&*folder.join(name).to_string_lossy())
}

/// What a process complains of that has the folder, until somebody has asked for everything or it has ended.
fn complaint_over(setup: &Setup<'_>) -> String {
    if let Ok(process) = Process::try_start(setup) {
        match ask_for_everything(process.address, setup.tls) {
            Ok(()) => process.kill(),
            // It ends by itself, with an error.
            Err(_) => assert!(!process.wait().success()),
        }
    }
    setup.complaint()
}

fn ask_for_everything(address: SocketAddr, tls: &LinkTls) -> io::Result<()> {
    let mut link = Link::open(address, tls)?;
    for pair in 0..PAIRS {
        let (_, b, conversation) = people(pair);
        let mut seen = 0;
        while seen < MESSAGES + 1 {
            let response = link.call(read_after(SHARDS, b, conversation, seen))?;
            if matches!(response.result, Some(Reply::Error(_))) {
                break;
            }
            let entries = view(response).entries.len() as u64;
            assert!(entries > 0, "pair {pair} ends after {seen} entries");
            seen += entries;
        }
    }
    Ok(())
}

/// Files that hold anything, but for those that nobody reads.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("it lists").map(|entry| entry.expect("it lists")) {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if !["LOCK", "LOG"].iter().any(|name| entry.file_name().to_string_lossy().starts_with(name)) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn is_of_kind(file: &Path, kind: &str) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with(kind) || name.ends_with(kind)
}

/// Fails if the folder lacks a kind of file: then nothing is tried of it.
fn assert_all_kinds(files: &[PathBuf]) {
    for kind in KINDS {
        assert!(files.iter().any(|file| is_of_kind(file, kind)), "no {kind} among {files:?}");
    }
}

/// Where a file's bytes end, zeros that were written ahead left out.
fn used(bytes: &[u8]) -> u64 {
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at as u64 + 1)
}

/// A whole folder, damaged in one file after another, and what came of it.
struct Damages<'a> {
    whole: &'a Path,
    setup: &'a Setup<'a>,
    refused: u32,
    unreadable: u32,
    no_matter: u32,
}

impl<'a> Damages<'a> {
    fn new(whole: &'a Path, setup: &'a Setup<'a>) -> Self {
        Self { whole, setup, refused: 0, unreadable: 0, no_matter: 0 }
    }

    /// With these bytes in a file it serves everything, or says which file it is.
    fn try_with(&mut self, name: &Path, bytes: &[u8], what: &str) {
        let what = format!("{}, {what}", name.display());
        let damaged = self.setup.data();
        copy_with(self.whole, &damaged, name, bytes);
        match shows(&damaged) {
            Shows::Everything => self.no_matter += 1,
            Shows::Unreadable => {
                self.unreadable += 1;
                // Whoever runs the node is told which file it is.
                copy_with(self.whole, &damaged, name, bytes);
                let told = complaint_over(self.setup);
                assert!(names(&told, &damaged, name), "{what}: {told}");
            }
            Shows::Refusal(told) => {
                self.refused += 1;
                assert!(names(&told, &damaged, name), "{what}: {told}");
                // A refusal leaves the folder as it was: mended, it serves.
                fs::copy(self.whole.join(name), damaged.join(name)).expect("it copies");
                assert_eq!(shows(&damaged), Shows::Everything, "{what}, mended");
            }
        }
    }

    /// The same with one bit of what the file has.
    fn flip(&mut self, name: &Path, bytes: &[u8], (at, bit): (usize, u64)) {
        let mut flipped = bytes.to_vec();
        flipped[at] ^= 1 << bit;
        self.try_with(name, &flipped, &format!("byte {at}, bit {bit}"));
    }
}

#[test]
fn a_bit_that_rots_in_any_file_is_noticed_or_does_not_matter() {
    let folder = tempfile::tempdir().expect("a folder");
    let tls = certificates::make(folder.path());
    let setup = Setup::alone(folder.path(), &tls, SHARDS);
    let whole = folder.path().join("whole");
    filled(&whole, End::Clean);
    let files = files(&whole);
    assert_all_kinds(&files);
    let mut damages = Damages::new(&whole, &setup);
    let mut random = Random(7);
    for file in files {
        let name = file.strip_prefix(&whole).expect("it is in there");
        let bytes = fs::read(&file).expect("it reads");
        let flips = if is_of_kind(&file, ".sst") { FLIPS_OF_TABLE } else { FLIPS };
        for _ in 0..flips.min(used(&bytes)) {
            damages.flip(name, &bytes, (random.below(used(&bytes)) as usize, random.below(8)));
        }
        if bytes.is_empty() {
            damages.try_with(name, FOREIGN, "foreign bytes");
        }
    }
    let Damages { refused, unreadable, no_matter, .. } = damages;
    println!("{refused} refused, {unreadable} unreadable, {no_matter} did not matter");
    assert!(refused + unreadable > 20);
}

/// The manifest names the tables. RocksDB would begin without those that it has not read of, and remove them.
#[test]
fn a_length_or_a_kind_that_rots_in_the_manifest_is_refused_before_any_table_goes() {
    let folder = tempfile::tempdir().expect("a folder");
    let tls = certificates::make(folder.path());
    let setup = Setup::alone(folder.path(), &tls, SHARDS);
    let whole = folder.path().join("whole");
    filled(&whole, End::Clean);
    let manifest = files(&whole).into_iter().find(|file| is_of_kind(file, "MANIFEST-")).expect("a manifest");
    let name = manifest.strip_prefix(&whole).expect("it is in there");
    let bytes = fs::read(&manifest).expect("it reads");
    let mut damages = Damages::new(&whole, &setup);
    // A record: four bytes of checksum, two of length, one of kind, and so many of content. No length has its highest bit
    // set, and no kind the third.
    let (mut at, mut tried) = (0, 0);
    while at < bytes.len() {
        damages.flip(name, &bytes, (at + 5, 7));
        damages.flip(name, &bytes, (at + 6, 2));
        at += MANIFEST_HEAD_BYTES + usize::from(u16::from_le_bytes([bytes[at + 4], bytes[at + 5]]));
        tried += 2;
    }
    assert!(tried >= 4, "{tried}");
    assert_eq!(damages.refused, tried);
}

#[test]
fn a_missing_file_is_named_or_does_not_matter() {
    let folder = tempfile::tempdir().expect("a folder");
    let damaged = folder.path().join("damaged");
    let mut refused = 0;
    for end in [End::Clean, End::Dropped] {
        let whole = folder.path().join(format!("{end:?}"));
        filled(&whole, end);
        let files = files(&whole);
        assert_all_kinds(&files);
        for file in files {
            let name = file.strip_prefix(&whole).expect("it is in there").to_owned();
            copy_anew(&whole, &damaged);
            fs::remove_file(damaged.join(&name)).expect("it removes");
            match shows(&damaged) {
                // The log could still make all rows anew; that it must is not to be found out by removing the tables.
                Shows::Everything => assert!(!name.ends_with("CURRENT"), "{end:?}: rows began anew"),
                Shows::Unreadable => panic!("{end:?}: without {}: started and cannot read", name.display()),
                Shows::Refusal(told) => {
                    refused += 1;
                    // Nobody knows how the newest file of a log was called that is not there.
                    let is_newest_of_log = name.starts_with("log")
                        && names(&told, &damaged, Path::new("log"))
                        && told.contains("its newest files are missing");
                    let is_named = names(&told, &damaged, &name) || is_newest_of_log;
                    assert!(is_named, "{end:?}: without {}: {told}", name.display());
                    // Whoever starts it again and again, as a supervisor does, gets no further.
                    let again = shows(&damaged);
                    assert!(
                        matches!(again, Shows::Refusal(_)),
                        "{end:?}: {}, again: {again:?}",
                        name.display()
                    );
                    // A refusal leaves the other files as they were: complete, it serves.
                    fs::copy(&file, damaged.join(&name)).expect("it copies");
                    assert_eq!(shows(&damaged), Shows::Everything, "{} is back", name.display());
                }
            }
        }
    }
    // After each end: whose folder it is, the log, and of the rows what names the manifest, the manifest, and a table.
    assert!(refused >= 10, "{refused}");
}

/// A start over the folder is refused, names this file or folder, and says this.
fn assert_refused(folder: &Path, name: &Path, says: &str) {
    let shown = shows(folder);
    let Shows::Refusal(told) = &shown else { panic!("{}: {shown:?}, not: {says}", name.display()) };
    assert!(names(told, folder, name) && told.contains(says), "{}, not: {says}: {told}", name.display());
}

/// What the rows say of their format.
fn format_row(format: u32) -> Vec<u8> {
    [format.to_be_bytes(), SHARDS.to_be_bytes()].concat()
}

/// Lets the rows say something else of their format, or nothing.
fn set_format_row(folder: &Path, row: Option<Vec<u8>>) {
    let store = RocksStore::open(&folder.join("rows"), &RocksOptions::new(SHARDS)).expect("it opens");
    let mut batch = WriteBatch::new();
    match row {
        Some(row) => batch.put(keys::format(), row),
        None => batch.delete(keys::format()),
    }
    store.write(batch).expect("it writes");
    store.sync().expect("it syncs");
}

/// Appends an entry to a shard's log that a program of another format would have written.
fn append_record(folder: &Path, format: u8) {
    let log = Log::open(&folder.join("log"), &config(folder).log).expect("it opens");
    let mut shards = (0..SHARDS).map(ShardId);
    let (shard, last) =
        shards.find_map(|shard| Some((shard, log.span(shard)?.1))).expect("a shard that has entries");
    let term = log.term(shard, last).expect("it reads").expect("it is there");
    let entry = RaftEntry { kind: 0, term, index: last + 1, record: Bytes::copy_from_slice(&[format, 0]) };
    log.extend(shard, vec![entry]).expect("it writes");
}

#[test]
fn older_and_newer_formats_are_refused_by_the_name_of_their_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let (whole, other) = (folder.path().join("whole"), folder.path().join("other"));
    filled(&whole, End::Clean);
    let identity = fs::read_to_string(whole.join("node.toml")).expect("it reads");
    let (content, _) = identity.split_once("# checksum ").expect("it has a checksum");
    for format in [0, 2] {
        let content = content.replace("format = 1", &format!("format = {format}"));
        let checksum = format!("# checksum {:08x}\n", crc32fast::hash(content.as_bytes()));
        // With a checksum, and as older releases write it.
        for text in [format!("{content}{checksum}"), content] {
            copy_with(&whole, &other, Path::new("node.toml"), text.as_bytes());
            assert_refused(&other, Path::new("node.toml"), &format!("format {format}, this program reads 1"));
        }
    }
    let is_log = |file: &PathBuf| file.extension().is_some_and(|extension| extension == "raftlog");
    let log = files(&whole.join("log")).into_iter().rfind(is_log).expect("a log file");
    let log = log.strip_prefix(&whole).expect("it is in there");
    for format in [0, 9] {
        let mut bytes = fs::read(whole.join(log)).expect("it reads");
        bytes[LOG_FORMAT_BYTE] = format;
        copy_with(&whole, &other, log, &bytes);
        assert_refused(&other, log, &format!("format {format}, this program reads up to 2"));
    }
    for format in [0, 9] {
        copy_anew(&whole, &other);
        append_record(&other, format);
        assert_refused(&other, log, &format!("is of format {format}, this program reads 1"));
    }
    for format in [0, 9] {
        copy_anew(&whole, &other);
        set_format_row(&other, Some(format_row(format)));
        let says = format!("it has format version {format}, this program reads and writes 1");
        assert_refused(&other, Path::new("rows"), &says);
    }
    assert_eq!(shows(&whole), Shows::Everything);
}

#[test]
fn a_damaged_or_missing_format_row_is_refused_by_the_folder_of_the_rows() {
    let folder = tempfile::tempdir().expect("a folder");
    let (whole, other) = (folder.path().join("whole"), folder.path().join("other"));
    filled(&whole, End::Clean);
    let cut = |bytes: usize| format_row(1)[..bytes].to_vec();
    let with_bit = |at: usize| {
        let mut row = format_row(1);
        row[at] ^= 0x40;
        row
    };
    for (row, says) in [
        (None, "it holds rows but no format row"),
        (Some(Vec::new()), "its format row is damaged (0 bytes)"),
        (Some(cut(3)), "its format row is damaged (3 bytes)"),
        (Some(cut(7)), "its format row is damaged (7 bytes)"),
        (Some([format_row(1), vec![0]].concat()), "its format row is damaged (9 bytes)"),
        (Some(with_bit(0)), "it has format version 1073741825"),
        (Some(with_bit(7)), "it was made for 72 shards"),
    ] {
        copy_anew(&whole, &other);
        set_format_row(&other, row);
        assert_refused(&other, Path::new("rows"), says);
    }
    assert_eq!(shows(&whole), Shows::Everything);
}

#[test]
fn a_first_answer_that_is_on_disk_alone_is_found_by_any_number_of_cores() {
    let folder = tempfile::tempdir().expect("a folder");
    filled(folder.path(), End::Clean);
    for cores in [3, 1, 2] {
        let mut node = Embedded::start(folder.path(), cores);
        for pair in 0..PAIRS {
            let (a, _, conversation) = people(pair);
            for number in 1..=MESSAGES {
                let again = applied(&node.call(send(SHARDS, a, conversation, number)));
                assert_eq!((again.seq, again.repeated_send), (number + 1, true), "{cores} cores");
            }
            let page = requests::feed_page(node.call(requests::read_feed(SHARDS, a, 0)));
            assert_eq!(page.rows.iter().map(|row| row.top_seq).max(), Some(MESSAGES + 1));
        }
        node.shutdown();
    }
}

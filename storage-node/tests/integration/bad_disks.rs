//! Damaged, missing and foreign files of a real data folder: a node serves exactly what was acknowledged, or says which
//! file is at fault; and serves again when the file is mended.

use crate::embedded::{Embedded, SHARDS, config};
use crate::requests::{self, Person, applied, body, person, read_after, send};
use bytes::Bytes;
use std::fs;
use std::path::{Path, PathBuf};
use wire_protocol::ids::ConversationId;
use wire_protocol::internal::answer;
use wire_protocol::internal::shard_error::Kind;
use wire_protocol::internal::shard_response::Result as Reply;

/// Conversations, each of two people, one of whom writes.
const PAIRS: u64 = 6;
/// Messages of each, over two lives of a node.
const MESSAGES: u64 = 100;
/// Bits turned round in each file.
const FLIPS: u64 = 10;

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
    /// It said that rows cannot be read, and gave no others instead.
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
            let id = node.begin(0, read_after(SHARDS, b, conversation, bodies.len() as u64));
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

/// Files that hold anything, but for those that nobody reads.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("it lists").map(|entry| entry.expect("it lists")) {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if !["LOCK", "LOG", "IDENTITY"]
            .iter()
            .any(|name| entry.file_name().to_string_lossy().starts_with(name))
        {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Where a file's bytes end, zeros that were written ahead left out.
fn used(bytes: &[u8]) -> u64 {
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at as u64 + 1)
}

#[test]
fn a_bit_that_rots_in_any_file_is_noticed_or_does_not_matter() {
    let folder = tempfile::tempdir().expect("a folder");
    let whole = folder.path().join("whole");
    filled(&whole, End::Clean);
    let mut random = Random(7);
    let (mut refused, mut unreadable, mut no_matter) = (0, 0, 0);
    for file in files(&whole) {
        let name = file.strip_prefix(&whole).expect("it is in there").to_owned();
        let bytes = fs::read(&file).expect("it reads");
        for _ in 0..FLIPS.min(used(&bytes)) {
            let (at, bit) = (random.below(used(&bytes)) as usize, random.below(8));
            let damaged = folder.path().join("damaged");
            copy(&whole, &damaged);
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            fs::write(damaged.join(&name), &flipped).expect("it writes");
            match shows(&damaged) {
                Shows::Everything => no_matter += 1,
                Shows::Unreadable => unreadable += 1,
                Shows::Refusal(detail) => {
                    refused += 1;
                    let part = name.components().next().expect("a name").as_os_str().to_string_lossy();
                    assert!(detail.contains(&*part), "{} byte {at}, bit {bit}: {detail}", name.display());
                    // A refusal leaves the folder as it was: mended, it serves.
                    fs::write(damaged.join(&name), &bytes).expect("it writes");
                    let mended = shows(&damaged);
                    assert_eq!(mended, Shows::Everything, "{} byte {at}, bit {bit}, mended", name.display());
                }
            }
            fs::remove_dir_all(&damaged).expect("it removes");
        }
    }
    println!("{refused} refused, {unreadable} unreadable, {no_matter} did not matter");
    assert!(refused + unreadable > 20);
}

#[test]
fn a_missing_file_is_named_or_does_not_matter() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut refused = 0;
    for end in [End::Clean, End::Dropped] {
        let whole = folder.path().join(format!("{end:?}"));
        filled(&whole, end);
        for file in files(&whole) {
            let name = file.strip_prefix(&whole).expect("it is in there").to_owned();
            let damaged = folder.path().join("damaged");
            copy(&whole, &damaged);
            fs::remove_file(damaged.join(&name)).expect("it removes");
            match shows(&damaged) {
                Shows::Everything => {}
                Shows::Unreadable => panic!("{end:?}: without {}: started and cannot read", name.display()),
                Shows::Refusal(detail) => {
                    refused += 1;
                    let part = name.components().next().expect("a name").as_os_str().to_string_lossy();
                    assert!(detail.contains(&*part), "without {}: {detail}", name.display());
                    fs::copy(&file, damaged.join(&name)).expect("it copies");
                    assert_eq!(shows(&damaged), Shows::Everything, "{} is back", name.display());
                }
            }
            fs::remove_dir_all(&damaged).expect("it removes");
        }
    }
    assert!(refused >= 6, "{refused}");
}

#[test]
fn folders_of_other_formats_are_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    filled(folder.path(), End::Clean);
    let identity = folder.path().join("node.toml");
    let text = fs::read_to_string(&identity).expect("it reads");
    for format in [0, 2] {
        fs::write(&identity, text.replace("format = 1", &format!("format = {format}"))).expect("it writes");
        let Shows::Refusal(detail) = shows(folder.path()) else { panic!("format {format} is taken") };
        assert!(detail.contains("node.toml") && detail.contains(&format!("format {format}")), "{detail}");
    }
    fs::write(&identity, &text).expect("it writes");
    let is_log = |file: &PathBuf| file.extension().is_some_and(|extension| extension == "raftlog");
    let log = files(&folder.path().join("log")).into_iter().rfind(is_log).expect("a log file");
    let bytes = fs::read(&log).expect("it reads");
    // The version stands behind the 53 bytes of magic.
    let mut newer = bytes.clone();
    newer[60] = 9;
    fs::write(&log, &newer).expect("it writes");
    let Shows::Refusal(detail) = shows(folder.path()) else { panic!("a newer log is taken") };
    assert!(detail.contains(&*log.to_string_lossy()) && detail.contains("format 9"), "{detail}");
    fs::write(&log, &bytes).expect("it writes");
    assert_eq!(shows(folder.path()), Shows::Everything);
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

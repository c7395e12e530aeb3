//! `docs/limits.md` is made from the code: every constant that bounds something, with what its comment says, and the
//! defaults of the gateway's `[limits]`. This test compares the two.
//!
//! A number is a limit unless `exempt.rs` says why it bounds nothing. So nobody can forget one: a new constant is in
//! neither, and the test names it. A default of a configuration that is no constant fails in `defaults.rs`.

use std::collections::HashSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

mod sources;
mod rust;
mod web;
mod configured;
mod defaults;
mod exempt;

/// Makes the file instead of comparing it.
const WRITE: &str = "RINGLINE_WRITE_LIMITS";
/// Where the product's code is, in the order of the table.
const ROOMS: [(&str, &str); 7] = [
    ("wire protocol", "wire-protocol/src"),
    ("gateway", "gateway/src"),
    ("storage node", "storage-node/src"),
    ("native client", "clients/native/src"),
    ("terminal", "clients/terminal/src"),
    ("web client", "clients/web/src"),
    ("tuning", "tuning/src"),
];
const HEAD: &str = "\
# Limits

Everything that is bounded: queues, tables, frames, batches, waits, rates, and the pauses and steps by which they are
kept. Made from the code by `RINGLINE_WRITE_LIMITS=1 cargo test -p tuning --test limits`; a test compares it on every
run. Change the constant or its comment, not this file. Numbers that bound nothing (versions, tags, lengths that a
format fixes) are not here; `tuning/tests/limits/exempt.rs` lists them, each group with its reason, and a number that is
in neither list fails the test.

What happens when something is full is one of six things, and the comment says which where it is not plain:

- *too large, too many in one request*: refused with the error that [protocol.md](protocol.md) gives for it; the
  connection ends if its framing was broken.
- *too soon*: the request is refused whole with `ERROR_THROTTLED` and the time to wait; it took nothing.
- *too many connections*: newcomers wait in the kernel's backlog; those of an address that has its share are closed
  before a byte is read.
- *a queue or table of requests is full*: the request is refused retryably, with a time to wait; nothing was begun.
- *a queue to a client is full*: its own requests are no longer read, live events are dropped and counted, and it is
  told to sync; after a time it is closed.
- *a time is over*: the request is answered `ERROR_TIMED_OUT`, the connection closed.

What is done in batches and turns has nothing to refuse: the rest waits for the next one.

Rows named `limits.…` are the defaults of the gateway's `[limits]`; [operations.md](operations.md) says how they are
set and what they mean together. *For a core* means each core of a process, *for a process* all of its cores together.
Rows whose names end in `_DEFAULT` hold where a configuration or a client names no other number.
Where no unit is given, the text names what is counted. Rows are by room and file; a file's constants come as they
stand in it.

| room | limit | value | unit | what, and why | file |
| --- | --- | --- | --- | --- | --- |
";

/// Something that is bounded.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Limit {
    /// From the root of the checkout.
    file: String,
    name: String,
    value: String,
    unit: String,
    comment: String,
}

fn root() -> PathBuf {
    let tuning = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo says where this checkout is");
    Path::new(&tuning).parent().expect("a crate lies in the workspace").to_owned()
}

/// Every number of a room's code, those that bound nothing included.
fn numbers_of(folder: &str) -> Vec<Limit> {
    let sources = sources::below(&root(), folder);
    let mut found = Vec::new();
    for (file, text) in &sources {
        let numbers = if file.ends_with(".rs") { rust::numbers } else { web::numbers };
        found.extend(numbers(file, text));
        if file == configured::FILE {
            found.extend(configured::defaults(text, &sources));
        }
    }
    found
}

/// The unit, which stands in the name.
fn unit(name: &str) -> String {
    let words: Vec<&str> = name.split('_').collect();
    let (counted, per) = match words.iter().position(|word| *word == "PER") {
        Some(at) if words.get(at + 1) == Some(&"S") => (&words[..at], " per s"),
        Some(at) if words.get(at + 1) == Some(&"MS") => (&words[..at], " per ms"),
        _ => (&words[..], ""),
    };
    let units = [
        ("BYTES", "bytes"),
        ("KIB", "KiB"),
        ("MS", "ms"),
        ("US", "µs"),
        ("S", "s"),
        ("CHARS", "characters"),
        ("TICKS", "ticks"),
        ("BITS", "bits"),
    ];
    let counted = units.iter().find(|(word, _)| counted.contains(word)).map_or("", |(_, unit)| unit);
    format!("{counted}{per}").trim().to_owned()
}

/// As a cell of a table: links of rustdoc become their names.
fn cell(text: &str) -> String {
    let mut cell = text.replace("[`", "`").replace("`]", "`").replace('|', "\\|");
    // What a link points to is of no use outside rustdoc.
    while let Some(start) = cell.find("`(") {
        let Some(end) = cell[start..].find(')') else { break };
        cell.replace_range(start + 1..=start + end, "");
    }
    cell
}

fn document(rooms: &[(&str, Vec<Limit>)]) -> String {
    let mut out = HEAD.to_owned();
    for (room, limits) in rooms {
        for Limit { file, name, value, unit, comment } in limits {
            let (value, comment) = (cell(value), cell(comment));
            writeln!(out, "| {room} | `{name}` | `{value}` | {unit} | {comment} | `{file}` |")
                .expect("a string grows");
        }
    }
    out
}

/// Lines that one text has and the other has not.
fn lines_beyond<'a>(text: &'a str, other: &str) -> Vec<&'a str> {
    let other: HashSet<&str> = other.lines().collect();
    text.lines().filter(|line| !other.contains(line)).collect()
}

#[test]
fn the_list_of_limits_is_that_of_the_code() {
    let numbers = ROOMS.map(|(room, folder)| (room, numbers_of(folder)));
    let all: Vec<Limit> = numbers.iter().flat_map(|(_, numbers)| numbers.clone()).collect();
    let rooms = numbers.map(|(room, numbers)| (room, exempt::limits(numbers)));
    let made = document(&rooms);
    let path = root().join("docs/limits.md");
    if std::env::var_os(WRITE).is_some() {
        fs::write(&path, &made).expect("written");
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    let (absent, stale) = (lines_beyond(&made, &written), lines_beyond(&written, &made));
    assert!(
        made == written,
        "docs/limits.md is not the code's.\nOnly the code has:\n{}\nOnly the document has:\n{}\n\
         If a new number bounds something: {WRITE}=1 cargo test -p tuning --test limits\n\
         If it bounds nothing: tuning/tests/limits/exempt.rs, with the reason",
        absent.join("\n"),
        stale.join("\n"),
    );
    assert_eq!(exempt::names_nothing(&all), [] as [String; 0], "exempt.rs names what there is not");
    let limits: Vec<&Limit> = rooms.iter().flat_map(|(_, limits)| limits).collect();
    let bare = limits.iter().filter(|limit| limit.comment.is_empty());
    let bare: Vec<String> = bare.map(|limit| format!("{} of {}", limit.name, limit.file)).collect();
    assert_eq!(bare, [] as [String; 0], "these limits do not say what they are");
    assert!(limits.len() > 300, "the walk lost the tree: {} limits", limits.len());
    let empty: Vec<&str> =
        rooms.iter().filter(|(_, limits)| limits.is_empty()).map(|(room, _)| *room).collect();
    assert_eq!(empty, [] as [&str; 0], "these rooms have no limits");
}

#[test]
fn a_new_constant_is_missed_by_its_name() {
    let (file, before) = ("gateway/src/a.rs", "/// Most of it.\nconst OLD: u32 = 1;\n");
    let after = format!("{before}/// Another.\npub(super) const NEW_THING: u16 = 7;\n");
    let written = document(&[("gateway", exempt::limits(rust::numbers(file, before)))]);
    let made = document(&[("gateway", exempt::limits(rust::numbers(file, &after)))]);
    assert_eq!(
        lines_beyond(&made, &written),
        ["| gateway | `NEW_THING` | `7` |  | Another. | `gateway/src/a.rs` |"]
    );
}

#[test]
fn units_stand_in_names() {
    let names = ["A_BYTES_MAX", "A_TIMEOUT_MS", "A_BYTES_PER_S", "ADMITS_PER_S_DEFAULT", "KEPT_PER_USER"];
    assert_eq!(names.map(unit), ["bytes", "ms", "bytes per s", "per s", ""]);
    assert_eq!(unit("A_MEMORY_KIB_DEFAULT"), "KiB");
    assert_eq!(cell("Not [`A`](super::A) | [`B`] here."), "Not `A` \\| `B` here.");
}

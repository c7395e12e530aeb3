//! `docs/limits.md` is made from the code: every constant that bounds something, with what its comment says. This
//! test compares the two.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// Makes the file instead of comparing it.
const WRITE: &str = "RINGLINE_WRITE_LIMITS";
/// What bounds something has one of these words in its name.
const WORDS: [&str; 4] = ["MAX", "TIMEOUT", "CREDITS", "WINDOW"];
/// Where servers and client libraries are.
const ROOMS: [(&str, &str); 4] = [
    ("The protocol", "wire-protocol/src"),
    ("The gateway", "gateway/src"),
    ("The storage node", "storage-node/src"),
    ("The native client", "clients/native/src"),
];
const HEAD: &str = "\
# Limits

Everything that is bounded: queues, tables, frames, batches, waits. Made from the code by
`RINGLINE_WRITE_LIMITS=1 cargo test -p tuning --test limits`; a test compares it on every run. Change the constant or
its comment, not this file.

What happens when something is full is one of four things, and the comment says which where it is not plain:

- *too large, too many in one request*: refused with the error that [protocol.md](protocol.md) gives for it; the
  connection ends if its framing was broken.
- *a queue or table of requests is full*: the request is refused retryably, with a time to wait; nothing was begun.
- *a queue to a client is full*: its own requests are no longer read, live events are dropped and counted, and it is
  told to sync; after a time it is closed.
- *a time is over*: the request is answered `ERROR_TIMED_OUT`, the connection closed.

Rates that a configuration sets (`[limits]`) are in [operations.md](operations.md).
";

/// One constant.
struct Limit {
    file: PathBuf,
    name: String,
    value: String,
    comment: String,
}

fn root() -> PathBuf {
    let tuning = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo says where this checkout is");
    Path::new(&tuning).parent().expect("a crate lies in the workspace").to_owned()
}

/// Rust files below a folder, sorted; those of tests and simulations left out.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
        let of_tests = name.ends_with("tests.rs") || name.starts_with("fake");
        if of_tests || ["tests", "sim"].contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() {
            found.extend(files(&path));
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The limits that a file's code defines, tests at its end left out.
fn limits_of(file: &Path, text: &str) -> Vec<Limit> {
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or(text);
    let lines: Vec<&str> = code.lines().collect();
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let Some((name, rest)) = definition(line) else { continue };
        let bounds = name.split('_').any(|word| WORDS.contains(&word));
        let mut value = rest.to_owned();
        for more in &lines[index + 1..] {
            if value.contains(';') {
                break;
            }
            value = format!("{value} {}", more.trim());
        }
        if bounds {
            let value = value.split(';').next().unwrap_or_default().trim().to_owned();
            let comment = comment_above(&lines[..index]);
            found.push(Limit { file: file.to_owned(), name: name.to_owned(), value, comment });
        }
    }
    found
}

/// Name and the beginning of the value of a constant at the left margin.
fn definition(line: &str) -> Option<(&str, &str)> {
    let visible = ["pub const ", "pub(crate) const ", "pub(super) const ", "const "];
    let rest = visible.iter().find_map(|start| line.strip_prefix(start))?;
    let (name, rest) = rest.split_once(": ")?;
    let (_, value) = rest.split_once('=')?;
    (name != "_").then_some((name, value.trim()))
}

fn comment_above(lines: &[&str]) -> String {
    let comment = lines.iter().rev().take_while(|line| line.starts_with("///") || line.starts_with("#["));
    let mut words: Vec<&str> = comment.filter_map(|line| line.strip_prefix("///")).map(str::trim).collect();
    words.reverse();
    words.join(" ")
}

/// The unit, which stands in the name.
fn unit(name: &str) -> &'static str {
    let words: Vec<&str> = name.split('_').collect();
    let units =
        [("BYTES", "bytes"), ("MS", "ms"), ("US", "µs"), ("S", "s"), ("CHARS", "characters"), ("MIB", "MiB")];
    units.iter().find(|(word, _)| words.contains(word)).map_or("", |(_, unit)| unit)
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

fn document() -> (String, Vec<Limit>) {
    let mut out = HEAD.to_owned();
    let mut all = Vec::new();
    for (title, folder) in ROOMS {
        let folder = root().join(folder);
        writeln!(out, "\n## {title}\n\n| limit | value | unit | what, and why | where |\n| --- | --- | --- | --- | --- |")
            .expect("a string grows");
        for file in files(&folder) {
            for limit in limits_of(&file, &fs::read_to_string(&file).expect("UTF-8")) {
                let place = limit.file.strip_prefix(&folder).expect("below it").display().to_string();
                let Limit { name, value, comment, .. } = &limit;
                let (value, comment, unit) = (cell(value), cell(comment), unit(name));
                writeln!(out, "| `{name}` | `{value}` | {unit} | {comment} | `{place}` |")
                    .expect("a string grows");
                all.push(limit);
            }
        }
    }
    (out, all)
}

#[test]
fn the_list_of_limits_is_that_of_the_code() {
    let (made, limits) = document();
    let bare: Vec<&str> =
        limits.iter().filter(|limit| limit.comment.is_empty()).map(|limit| limit.name.as_str()).collect();
    assert_eq!(bare, [] as [&str; 0], "these limits do not say what they are");
    assert!(limits.len() > 80, "the walk lost the tree: {} limits", limits.len());
    let path = root().join("docs/limits.md");
    if std::env::var_os(WRITE).is_some() {
        fs::write(&path, &made).expect("written");
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    let differs =
        made.lines().zip(written.lines().chain(std::iter::repeat(""))).find(|(made, is)| made != is);
    let hint = format!("run: {WRITE}=1 cargo test -p tuning --test limits");
    assert!(made == written, "docs/limits.md is not the code's; {hint}\nthe first that differs: {differs:?}");
}

#[test]
fn limits_are_found_with_value_unit_and_comment() {
    let text = "/// Most, in bytes: because\n/// of this.\npub const A_BYTES_MAX: usize = 4 *\n    1_024;\nconst B: u8 = 1;\n\
                /// Not [`A`](super::A) here.\n#[rustfmt::skip]\npub(super) const C_TIMEOUT_MS: u64 = 5; // five\n\
                #[cfg(test)]\nmod tests {\nconst D_MAX: u8 = 1;\n}\n";
    let found = limits_of(Path::new("a.rs"), text);
    let seen: Vec<_> =
        found.iter().map(|limit| (&limit.name[..], &limit.value[..], unit(&limit.name))).collect();
    assert_eq!(seen, [("A_BYTES_MAX", "4 * 1_024", "bytes"), ("C_TIMEOUT_MS", "5", "ms")]);
    assert_eq!(found[0].comment, "Most, in bytes: because of this.");
    assert_eq!(cell(&found[1].comment), "Not `A` here.");
}

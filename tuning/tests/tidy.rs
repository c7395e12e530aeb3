//! The rules of the tree that no other tool checks: sizes of files and functions, front pages, banned names.

use std::fs;
use std::path::{Path, PathBuf};

/// A file beyond this has a seam that nobody looked for.
const FILE_LINES_MAX: usize = 800;
/// A function beyond this does not fit a screen.
const FUNCTION_LINES_MAX: usize = 70;
/// What a test says of itself that has tried nothing. It is to call `refused` instead, which fails where the machine
/// gives what the test needs (`tuning/tests/rights/right.rs`).
const SAID_OF_NOTHING: [&str; 7] =
    ["NOT RUN", "NOT TRIED", "not permitted", "did not run", "was not tried", "nobody may", "skipp"];
/// What some machines refuse: a file of tests that has one of these names a right, too.
const REFUSABLE: [&str; 5] =
    ["\"unshare\"", "/sys/fs/cgroup", "NOT_PERMITTED", "Counting::start(", "CountCalls::IfPossible"];
/// After these a test may end early: a variable that wakes one half of a test, and what calls `refused` itself.
const MAY_END_AFTER: [&str; 4] =
    ["std::env::var", "SmallDisk::start(", "MemoryGroup::new(", "Namespace::new("];
/// How tests in other languages are passed over.
const PASSED_OVER: [&str; 6] = ["it.skip", "test.skip", "describe.skip", ".skipIf(", ".runIf(", "SkipTest"];
/// Names that say nothing about what is inside.
const BANNED_NAMES: [&str; 4] = ["utils", "common", "helpers", "misc"];
/// The top level, fixed; dotfiles come beside it.
const TOP_LEVEL: [&str; 12] = [
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "Makefile",
    "README.md",
    "bench",
    "clients",
    "docs",
    "gateway",
    "storage-node",
    "tuning",
    "wire-protocol",
];

fn root() -> PathBuf {
    let tuning = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo says where this checkout is");
    Path::new(&tuning).parent().expect("a crate lies in the workspace").to_owned()
}

/// Rust files of the workspace, with their text.
fn sources() -> Vec<(PathBuf, String)> {
    let found = files(&["rs"]);
    assert!(found.len() > 50, "the walk lost the tree");
    found
}

/// Files of the workspace with such endings, with their text.
fn files(endings: &[&str]) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let skipped =
                ["target", "node_modules", "dist"].contains(&name.as_str()) || name.starts_with('.');
            if entry.is_dir() && !skipped {
                folders.push(entry);
            } else if endings.iter().any(|ending| entry.extension().is_some_and(|is| is == *ending)) {
                let text = fs::read_to_string(&entry).expect("UTF-8");
                found.push((entry, text));
            }
        }
    }
    found
}

fn report(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn files_stay_readable() {
    let long = |(path, text): &(PathBuf, String)| {
        let lines = text.lines().count();
        (lines > FILE_LINES_MAX).then(|| format!("{}: {lines} lines", path.display()))
    };
    report(&sources().iter().filter_map(long).collect::<Vec<_>>());
}

#[test]
fn functions_fit_a_screen() {
    let mut problems = Vec::new();
    for (path, text) in sources() {
        for (line, name, length) in functions(&text) {
            if length > FUNCTION_LINES_MAX {
                problems.push(format!("{}:{line}: {name} has {length} lines", path.display()));
            }
        }
    }
    report(&problems);
}

/// First line, signature and length of each function: from `fn` to the brace that closes at its indentation.
fn functions(text: &str) -> Vec<(usize, String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let words =
            ["fn ", "pub fn ", "pub(crate) fn ", "pub(super) fn ", "async fn ", "pub async fn ", "const fn "];
        if !words.iter().any(|word| code.starts_with(word)) {
            continue;
        }
        let indent = &line[..line.len() - code.len()];
        let end = lines[index..].iter().position(|later| {
            *later == format!("{indent}}}")
                || (later.starts_with(indent)
                    && later.trim_end().ends_with(';')
                    && !later.contains('{')
                    && later.len() - later.trim_start().len() == indent.len())
        });
        let one_line = code.ends_with('}');
        let length = if one_line { 1 } else { end.unwrap_or(0) + 1 };
        found.push((index + 1, code.split('(').next().unwrap_or(code).to_owned(), length));
    }
    found
}

#[test]
fn the_length_of_a_function_is_counted() {
    let text = "fn a() {\n    1\n}\n\nfn b(\n    x: u8,\n) -> u8 {\n    x\n}\nfn c();\n";
    let lengths: Vec<usize> = functions(text).into_iter().map(|(_, _, length)| length).collect();
    assert_eq!(lengths, [3, 5, 1]);
}

#[test]
fn every_front_page_says_what_its_room_is() {
    let bare = |(path, text): &(PathBuf, String)| {
        let front = path.file_name().is_some_and(|name| {
            ["mod.rs", "lib.rs", "main.rs", "build.rs"].iter().any(|front| name == *front)
        });
        (front && !text.starts_with("//!")).then(|| format!("{}: no //! header", path.display()))
    };
    report(&sources().iter().filter_map(bare).collect::<Vec<_>>());
}

#[test]
fn names_say_something() {
    let banned = |(path, _): &(PathBuf, String)| {
        let named = path
            .iter()
            .filter_map(|part| part.to_str())
            .any(|part| BANNED_NAMES.contains(&part.trim_end_matches(".rs")));
        named.then(|| path.display().to_string())
    };
    report(&sources().iter().filter_map(banned).collect::<Vec<_>>());
}

#[test]
fn nothing_is_left_for_later() {
    let words = [["todo", "!("].concat(), ["unimplemented", "!("].concat(), ["#[", "ignore"].concat()];
    let mut problems = Vec::new();
    for (path, text) in sources() {
        for (index, line) in text.lines().enumerate() {
            if words.iter().any(|word| line.contains(word.as_str())) {
                problems.push(format!("{}:{}: {}", path.display(), index + 1, line.trim()));
            }
        }
    }
    report(&problems);
}

/// What is compiled for tests alone: all of a file of tests, the last part of another one, or nothing.
fn test_code<'a>(path: &Path, text: &'a str) -> &'a str {
    let is_of_tests = path.iter().any(|part| part == "tests")
        || path.file_name().is_some_and(|name| name.to_string_lossy().ends_with("tests.rs"));
    if is_of_tests {
        return text;
    }
    text.find("#[cfg(test)]\nmod ").map_or("", |start| &text[start..])
}

/// Lines of a test, the first one being 0, at which it ends early. The way out of a `loop` is none of them: a test that
/// waits for something ends there when it has come.
fn early_ends(body: &[&str]) -> Vec<usize> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let (mut found, mut looping) = (Vec::new(), None::<usize>);
    for (index, pair) in body.windows(2).enumerate() {
        let line = pair[1];
        match looping {
            None if line.trim() == "loop {" => looping = Some(indent(line)),
            Some(outer) if line.trim_start().starts_with('}') && indent(line) <= outer => looping = None,
            _ => {}
        }
        let has = |part: &&str| pair.iter().any(|line| line.contains(*part));
        let ends = ["return;", "return }", "return Ok(())"].iter().any(|end| line.contains(*end));
        if ends && looping.is_none() && !MAY_END_AFTER.iter().any(has) {
            found.push(index + 1);
        }
    }
    found
}

/// Where tests give up in silence: the line, and what is wrong with it.
fn silent_ends(text: &str) -> Vec<(usize, String)> {
    let lines: Vec<&str> = text.lines().collect();
    let line_of = |start: usize| text[..start].matches('\n').count() + 1;
    let mut found = Vec::new();
    for (first, name, length) in functions(text) {
        let mut attributes = lines[..first - 1].iter().rev().take_while(|line| line.contains("#["));
        if !attributes.any(|line| line.contains("#[test]") || line.contains("#[tokio::test")) {
            continue;
        }
        for line in early_ends(&lines[first - 1..first - 1 + length]) {
            found.push((first + line, format!("{name} ends early, and not by `return refused(…)`")));
        }
    }
    for (start, _) in text.match_indices("ln!(") {
        let said = &text[start..];
        let end = [");", "),"].iter().filter_map(|end| said.find(*end)).min().unwrap_or(said.len());
        if SAID_OF_NOTHING.iter().any(|words| said[..end].contains(*words)) {
            found.push((line_of(start), "a test says that it tried nothing, and not by `refused`".into()));
        }
    }
    for call in REFUSABLE.iter().filter(|_| !text.contains("Right::")) {
        if let Some(start) = text.find(*call) {
            found.push((line_of(start), format!("{call} may be refused, and there is no right for it")));
        }
    }
    found
}

#[test]
fn no_test_gives_up_in_silence() {
    let mut problems = Vec::new();
    for (path, text) in sources() {
        let inside = path.strip_prefix(root()).expect("below the root");
        let code = test_code(inside, &text);
        let lines_before = text[..text.len() - code.len()].matches('\n').count();
        // The one place that may say so.
        if inside != Path::new("tuning/tests/rights/right.rs") {
            for (line, what) in silent_ends(code) {
                problems.push(format!("{}:{}: {what}", path.display(), lines_before + line));
            }
        }
    }
    for (path, text) in files(&["ts", "tsx", "mjs", "py"]) {
        let words = PASSED_OVER.iter().filter(|words| text.contains(**words));
        problems.extend(words.map(|words| format!("{}: {words}", path.display())));
    }
    report(&problems);
}

/// Files of tests, and how many of their tests give up in silence. `SAID` stands for words that must not be printed.
const ENDS: [(&str, usize); 10] = [
    ("#[test]\nfn a() {\n    if b {\n        return;\n    }\n}\n", 1),
    ("#[tokio::test]\nasync fn a() {\n    let Some(b) = c() else { return };\n}\n", 1),
    ("#[test]\nfn a() {\n    let Some(b) = Namespace::new() else { return };\n}\n", 0),
    ("#[test]\nfn a() {\n    if b {\n        return refused(Right::Perf, c);\n    }\n}\n", 0),
    ("#[test]\nfn a() {\n    loop {\n        if b {\n            return;\n        }\n    }\n}\n", 0),
    ("#[test]\nfn a() {\n    loop {\n        break;\n    }\n    if b {\n        return;\n    }\n}\n", 1),
    ("fn a() {\n    if b {\n        return;\n    }\n}\n", 0),
    ("fn a() {\n    match b {\n        None => println!(\"SAID\"),\n    }\n}\n", 1),
    ("fn a() {\n    Command::new(\"unshare\");\n}\n", 1),
    ("fn a() {\n    Command::new(\"unshare\");\n    refused(Right::Mounts, b);\n}\n", 0),
];

#[test]
fn a_test_that_gives_up_in_silence_is_seen() {
    for (text, silent) in ENDS {
        for words in SAID_OF_NOTHING {
            let found = silent_ends(&text.replace("SAID", words));
            assert_eq!(found.len(), silent, "{text}: {found:?}");
        }
    }
    let [file, rest] = ["fn a() {}\n", "#[cfg(test)]\nmod tests {}\n"];
    let text = [file, rest].concat();
    let of = |path: &str| test_code(Path::new(path), &text);
    assert_eq!(of("a/src/b.rs"), rest);
    assert_eq!((of("a/tests/b.rs"), of("a/src/b_tests.rs")), (text.as_str(), text.as_str()));
}

#[test]
fn the_top_level_is_as_agreed() {
    let mut problems = Vec::new();
    for entry in fs::read_dir(root()).expect("the root") {
        let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') && !TOP_LEVEL.contains(&name.as_str()) && name != "target" {
            problems.push(format!("{name} at the top level needs a decision record"));
        }
    }
    report(&problems);
}

#[test]
fn crates_use_each_other_only_downwards() {
    let below: [(&str, &[&str]); 5] = [
        ("wire-protocol", &[]),
        ("tuning", &[]),
        ("storage-node", &["wire-protocol", "tuning"]),
        ("gateway", &["wire-protocol", "tuning", "storage-node"]),
        ("clients/native", &["wire-protocol"]),
    ];
    let ours = ["wire-protocol", "tuning", "storage-node", "gateway", "bench", "ringline-client"];
    let mut problems = Vec::new();
    for (name, allowed) in below {
        let manifest = fs::read_to_string(root().join(name).join("Cargo.toml")).expect("a manifest");
        for line in manifest.lines() {
            let used = line.split(['.', ' ', '=']).next().unwrap_or_default();
            if ours.contains(&used) && !allowed.contains(&used) {
                problems.push(format!("{name} must not use {used}"));
            }
        }
    }
    for (path, text) in sources() {
        let embedded = path.ends_with("gateway/src/storage_client/embedded.rs");
        if path.starts_with(root().join("gateway/src")) && !embedded && text.contains("storage_node::") {
            problems.push(format!("{}: only storage_client/embedded.rs uses storage-node", path.display()));
        }
    }
    report(&problems);
}

/// A server that is built by itself has none (`storage-node/src/plant.rs`), and one that is built with all else plants none.
#[test]
fn bugs_are_planted_by_the_simulation_alone() {
    let mut problems = Vec::new();
    let others = ["wire-protocol", "tuning", "storage-node", "gateway", "bench/fuzz", "clients/native"];
    for name in others.into_iter().chain(["clients/terminal"]) {
        let manifest = fs::read_to_string(root().join(name).join("Cargo.toml")).expect("a manifest");
        let asking = manifest.lines().filter(|line| line.contains("\"plants\""));
        problems.extend(asking.map(|line| format!("{name} must not ask for it: {line}")));
    }
    let calls = [["storage_node::", "plant"].concat(), ["plant::", "during("].concat()];
    for (path, text) in sources() {
        let simulates = path.starts_with(root().join("bench/src/world"));
        let called = calls.iter().filter(|call| !simulates && text.contains(call.as_str()));
        problems.extend(called.map(|call| format!("{}: {call}", path.display())));
    }
    report(&problems);
}

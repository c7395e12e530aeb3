//! The rules of the tree that no other tool checks: sizes of files and functions, front pages, banned names.

use std::fs;
use std::path::{Path, PathBuf};

/// A file beyond this has a seam that nobody looked for.
const FILE_LINES_MAX: usize = 800;
/// A function beyond this does not fit a screen.
const FUNCTION_LINES_MAX: usize = 70;
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
    let mut found = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let skipped =
                ["target", "node_modules", "dist"].contains(&name.as_str()) || name.starts_with('.');
            if entry.is_dir() && !skipped {
                folders.push(entry);
            } else if entry.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&entry).expect("UTF-8");
                found.push((entry, text));
            }
        }
    }
    assert!(found.len() > 50, "the walk lost the tree");
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

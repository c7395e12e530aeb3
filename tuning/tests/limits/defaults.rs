//! The defaults of configurations. A number among them has a name, so that the table lists it; those of the gateway's
//! `[limits]` are listed by their keys (`configured.rs`). A storage node in a gateway's process has the defaults, and the
//! least values, of one of its own.

use super::rust::{self, without_visibility};
use super::{Limit, ROOMS, configured, root, sources};
use std::fs;
use std::ops::Range;

/// Files and folders that hold a configuration.
const CONFIGURATIONS: [&str; 2] = ["config.rs", "config"];
/// Where the storage node in a gateway's process has its defaults.
const EMBEDDED: &str = "gateway/src/config/storage.rs";
/// Where a storage node of its own has them.
const STORAGE: &str = "storage-node/src/config.rs";
/// Some files that have defaults.
const WITH_DEFAULTS: [&str; 4] = [EMBEDDED, STORAGE, configured::FILE, "gateway/src/config/mod.rs"];
/// Numbers that need no name: none or one of something, or the first.
const PLAIN: [&str; 2] = ["0", "1"];

/// Whether a file holds a configuration, by its name or its folder's.
fn is_configuration(file: &str) -> bool {
    file.ends_with(".rs") && file.split('/').any(|part| CONFIGURATIONS.contains(&part))
}

/// Numbers without a name among a file's defaults, and defaults that cannot be looked at: file, line, and what is wrong.
fn nameless(file: &str, text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let told = told_to_serde(line).filter(|name| !lines.iter().any(|line| is_function(line, name)));
        found.extend(told.map(|name| format!("{file}:{}: {name} is no function of this file", index + 1)));
    }
    for block in defaults(&lines) {
        if file == configured::FILE && lines[block.start] == configured::BEGINNING {
            continue;
        }
        for index in block {
            let numbers = literals(lines[index]);
            found.extend(numbers.iter().map(|number| format!("{file}:{}: {number} has no name", index + 1)));
        }
    }
    found
}

/// The lines of each implementation of `Default`, and of each function that serde calls for a key that is not there.
fn defaults(lines: &[&str]) -> Vec<Range<usize>> {
    let told: Vec<&str> = lines.iter().filter_map(|line| told_to_serde(line)).collect();
    let is_first = |line: &str| {
        let is_implementation = line.trim_start().starts_with("impl") && line.contains("Default for ");
        is_implementation || told.iter().any(|name| is_function(line, name))
    };
    let firsts = (0..lines.len()).filter(|index| is_first(lines[*index]));
    firsts.map(|index| index..index + length(&lines[index..])).collect()
}

/// The function that an attribute names, as in `#[serde(default = "name")]`.
fn told_to_serde(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("default = \"")?;
    rest.split_once('"').map(|(name, _)| name)
}

/// Whether a function of this name begins with the line.
fn is_function(line: &str, name: &str) -> bool {
    let code = without_visibility(line);
    let code = code.strip_prefix("const ").unwrap_or(code);
    let rest = code.strip_prefix("fn ").and_then(|rest| rest.strip_prefix(name));
    rest.is_some_and(|rest| rest.starts_with('('))
}

/// How many lines an item has that begins with the first of these: up to the brace that closes at its indentation.
fn length(lines: &[&str]) -> usize {
    let first = lines.first().copied().unwrap_or_default();
    let end = format!("{}}}", &first[..first.len() - first.trim_start().len()]);
    let is_end = |(index, line): (usize, &&str)| *line == end || (index == 0 && line.ends_with('}'));
    lines.iter().enumerate().position(is_end).map_or(lines.len(), |index| index + 1)
}

/// The numbers that stand in a line, but for plain ones, and for those in a text or a comment.
fn literals(line: &str) -> Vec<String> {
    let (mut code, mut is_text, mut is_escaped) = (String::new(), false, false);
    for character in line.chars() {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' if is_text => is_escaped = true,
            '"' => is_text = !is_text,
            _ if is_text => {}
            _ => code.push(character),
        }
    }
    // Behind `..` a number begins, behind a single point it goes on, or is a field of a tuple.
    let code = code.split("//").next().unwrap_or_default().replace("..", " ");
    let ends_word = |character: char| !(character.is_alphanumeric() || "_.".contains(character));
    let words = code.split(ends_word).filter(|word| word.starts_with(|first: char| first.is_ascii_digit()));
    words.filter(|word| !PLAIN.contains(word)).map(str::to_owned).collect()
}

/// Defaults and least values of the storage node in a gateway's process that one of its own does not have.
fn apart(embedded: &[Limit], own: &[Limit]) -> Vec<String> {
    let is_compared = |number: &&Limit| ["_DEFAULT", "_MIN"].iter().any(|end| number.name.ends_with(*end));
    let is_apart = |number: &&Limit| {
        !own.iter().any(|other| (&other.name, &other.value) == (&number.name, &number.value))
    };
    let apart = embedded.iter().filter(is_compared).filter(is_apart);
    apart.map(|Limit { file, name, value, .. }| format!("{file}: {name} = {value}")).collect()
}

#[test]
fn numbers_among_defaults_have_names() {
    let files: Vec<(String, String)> =
        ROOMS.iter().flat_map(|(_, folder)| sources::below(&root(), folder)).collect();
    let configurations = || files.iter().filter(|(file, _)| is_configuration(file));
    for name in WITH_DEFAULTS {
        let has_defaults = |(file, text): &(String, String)| {
            file == name && !defaults(&text.lines().collect::<Vec<_>>()).is_empty()
        };
        assert!(configurations().any(has_defaults), "{name} has no defaults: the walk lost them");
    }
    let found: Vec<String> = configurations().flat_map(|(file, text)| nameless(file, text)).collect();
    assert!(
        found.is_empty(),
        "{}\nA default that is a number is a constant, with its unit and its reason: so docs/limits.md lists it",
        found.join("\n"),
    );
}

#[test]
fn a_storage_node_has_the_same_defaults_and_least_values_in_a_gateway_and_alone() {
    let numbers = |file: &str| {
        let text = fs::read_to_string(root().join(file)).expect("UTF-8");
        rust::numbers(file, &text)
    };
    let embedded = numbers(EMBEDDED);
    assert!(!embedded.is_empty(), "{EMBEDDED} has no defaults: the walk lost them");
    assert_eq!(apart(&embedded, &numbers(STORAGE)), [] as [String; 0], "{STORAGE} has others");
}

#[test]
fn a_number_without_a_name_is_refused_with_its_line() {
    let text = "#[serde(default = \"keep\")]\nfn keep() -> u32 {\n    7\n}\nfn other() -> u32 {\n    8\n}\n\
                impl Default for A {\n    fn default() -> Self {\n        // 9\n        \
                Self { a: 32 << 20, b: 1, c: NAMED, d: \"10 per s\".into() }\n    }\n}\nconst B: u8 = 11;\n\
                #[serde(default = \"elsewhere\")]\n";
    let expected = [
        "config.rs:15: elsewhere is no function of this file",
        "config.rs:3: 7 has no name",
        "config.rs:11: 32 has no name",
        "config.rs:11: 20 has no name",
    ];
    assert_eq!(nameless("config.rs", text), expected);
    let section = format!("{}\n    a: 12,\n}}\n", configured::BEGINNING);
    assert_eq!(nameless(configured::FILE, &section), [] as [String; 0]);
    assert_eq!(nameless(STORAGE, &section).len(), 1);
    let files = ["a/src/config.rs", "a/src/config/b.rs", "a/src/config/b.ts", "a/src/configured.rs"];
    assert_eq!(files.map(is_configuration), [true, true, false, false]);
}

#[test]
fn numbers_are_told_from_names_texts_and_comments() {
    let lines: [(&str, &[&str]); 5] = [
        ("a: 1_024, b: 0x10, c: 1.5, d: 7u32,", &["1_024", "0x10", "1.5", "7u32"]),
        ("([127, 0, 0, 1], A1 << b2)", &["127"]),
        ("Duration::from_secs(30), // or 60", &["30"]),
        ("0..9, 1..=5, self.3, (a).4, ..Self::default()", &["9", "5"]),
        ("\"127.0.0.1:80 \\\" 81\".into(), 0, 1, true, None,", &[]),
    ];
    for (line, numbers) in lines {
        assert_eq!(literals(line), numbers, "{line}");
    }
}

#[test]
fn a_default_that_differs_is_told() {
    let numbers = |text: &str| rust::numbers("a.rs", text);
    let own = numbers("const A_DEFAULT: u8 = 1;\nconst B_DEFAULT: u8 = 2;\n");
    let embedded = numbers(
        "const A_DEFAULT: u8 = 1;\nconst B_DEFAULT: u8 = 3;\nconst C_MAX: u8 = 4;\nconst D_MIN: u8 = 5;\n",
    );
    assert_eq!(apart(&embedded, &own), ["a.rs: B_DEFAULT = 3", "a.rs: D_MIN = 5"]);
    assert_eq!(apart(&own, &own), [] as [String; 0]);
}

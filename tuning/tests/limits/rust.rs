//! The numbers among the constants of a Rust file: integers, floats, durations, and lists of them. Bytes in a row
//! are a text; a constant of another type is made of numbers that have names of their own, or is no amount.

use super::sources::module_of_tests;
use super::{Limit, unit};

const NUMBERS: [&str; 14] = [
    "u8", "u16", "u32", "u64", "u128", "usize", "i8", "i16", "i32", "i64", "isize", "f32", "f64", "Duration",
];

/// Every number that a file's code names, wherever it stands in it; those of tests left out.
pub(crate) fn numbers(file: &str, text: &str) -> Vec<Limit> {
    let lines = without_tests(text);
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let Some((name, kind, rest)) = definition(line) else { continue };
        if !is_number(kind) {
            continue;
        }
        let (value, unit) = amount(name, &value(rest, &lines[index + 1..]));
        let comment = comment_above(&lines[..index]);
        found.push(Limit { file: file.to_owned(), name: name.to_owned(), value, unit, comment });
    }
    found
}

/// The lines of a file but for those of the modules of tests in it.
fn without_tests(text: &str) -> Vec<&str> {
    let lines: Vec<&str> = text.lines().collect();
    let mut kept = Vec::new();
    let mut at = 0;
    while let Some(line) = lines.get(at) {
        let module = module_of_tests(&lines[at..]).filter(|(_, module)| module.ends_with('{'));
        let Some((index, _)) = module else {
            kept.push(*line);
            at += 1;
            continue;
        };
        let opening = lines[at + index];
        let end = format!("{}}}", &opening[..opening.len() - opening.trim_start().len()]);
        let length = lines[at + index..].iter().position(|line| *line == end).expect("a module ends");
        at += index + length + 1;
    }
    kept
}

/// What stands behind `pub` and the like, in a line.
pub(crate) fn without_visibility(line: &str) -> &str {
    let code = line.trim_start();
    let Some(rest) = code.strip_prefix("pub") else { return code };
    let rest = rest.strip_prefix('(').and_then(|rest| rest.split_once(')')).map_or(rest, |(_, rest)| rest);
    rest.trim_start()
}

/// Name, type and the beginning of the value of a constant.
fn definition(line: &str) -> Option<(&str, &str, &str)> {
    let (name, rest) = without_visibility(line).strip_prefix("const ")?.split_once(": ")?;
    let (kind, value) = rest.split_once('=')?;
    (name != "_").then_some((name, kind.trim(), value.trim()))
}

fn is_number(kind: &str) -> bool {
    let of_many = kind.trim_start_matches('&').strip_prefix('[');
    let one = of_many.unwrap_or(kind).split([';', ']']).next().unwrap_or(kind);
    let one = one.rsplit("::").next().unwrap_or(one);
    (NUMBERS.contains(&one) || one.starts_with("NonZero")) && !(of_many.is_some() && one == "u8")
}

/// The value from its beginning up to the semicolon, which may stand on a later line.
fn value(beginning: &str, later: &[&str]) -> String {
    let mut value = beginning.to_owned();
    let mut later = later.iter();
    loop {
        // `[0; 4]` has one that ends nothing.
        let end = if value.starts_with('[') { value.find("];").map(|end| end + 1) } else { value.find(';') };
        match (end, later.next()) {
            (Some(end), _) => return value[..end].trim().to_owned(),
            (None, Some(line)) => value = format!("{value} {}", line.trim()).trim().to_owned(),
            (None, None) => return value,
        }
    }
}

/// Value and unit: a duration's stands in its value, others' in their names.
fn amount(name: &str, value: &str) -> (String, String) {
    for (start, unit) in [("Duration::from_secs(", "s"), ("Duration::from_millis(", "ms")] {
        if let Some(number) = value.strip_prefix(start).and_then(|rest| rest.strip_suffix(')')) {
            return (number.to_owned(), unit.to_owned());
        }
    }
    (value.to_owned(), unit(name))
}

/// What the documentation of an item says that stands behind these lines.
pub(crate) fn comment_above(lines: &[&str]) -> String {
    let above = lines.iter().rev().map(|line| line.trim_start());
    let comment = above.take_while(|line| line.starts_with("///") || line.starts_with("#["));
    let mut words: Vec<&str> = comment.filter_map(|line| line.strip_prefix("///")).map(str::trim).collect();
    words.reverse();
    words.join(" ")
}

#[test]
fn numbers_are_found_with_value_unit_and_comment() {
    let text = "#[cfg(test)]\nmod tests;\n/// Most, in bytes: because\n/// of this.\n\
                pub const A_BYTES_MAX: usize = 4 *\n    1_024;\n\
                const TEXT: &str = \"B\";\nconst MAGIC: [u8; 2] = *b\"ab\";\nconst OURS: Id = Id(0);\n\
                const ALLOWED: [u32; 3] = [1, 3, 5];\n\
                /// Given.\n#[rustfmt::skip]\npub(super) const C_MS: u64 = 5; // five\n\
                fn a() {\n    /// Inside.\n    const D: Duration =\n        Duration::from_secs(7);\n}\n\
                #[cfg(test)]\npub(super) mod rig {\n    const E_MAX: u8 = 1;\n}\nconst F: f64 = 0.1;\n";
    let found = numbers("a.rs", text);
    let seen: Vec<_> = found
        .iter()
        .map(|Limit { name, value, unit, comment, .. }| (&name[..], &value[..], &unit[..], &comment[..]))
        .collect();
    let expected = [
        ("A_BYTES_MAX", "4 * 1_024", "bytes", "Most, in bytes: because of this."),
        ("ALLOWED", "[1, 3, 5]", "", ""),
        ("C_MS", "5", "ms", "Given."),
        ("D", "7", "s", "Inside."),
        ("F", "0.1", "", ""),
    ];
    assert_eq!(seen, expected);
}

//! The numbers among the constants of a TypeScript file. Types are not written there: a number is what is computed
//! from numbers and from other constants.

use super::{Limit, unit};

/// Every number that a file names in capitals.
pub(crate) fn numbers(file: &str, text: &str) -> Vec<Limit> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    let mut comment = String::new();
    for (index, line) in lines.iter().enumerate() {
        let Some((name, value)) = definition(line) else { continue };
        // A comment is for the constants below it, up to the next line of another kind.
        let follows = index > 0 && definition(lines[index - 1]).is_some();
        if !follows {
            comment = comment_above(&lines[..index]);
        }
        if is_number(value) {
            let (name, value, comment) = (name.to_owned(), value.to_owned(), comment.clone());
            found.push(Limit { file: file.to_owned(), unit: unit(&name), name, value, comment });
        }
    }
    found
}

/// Name and value of a constant on one line.
fn definition(line: &str) -> Option<(&str, &str)> {
    let code = line.trim_start();
    let code = code.strip_prefix("export ").unwrap_or(code).strip_prefix("const ")?;
    let (name, value) = code.split_once(" = ")?;
    let (name, kind) = name.split_once(": ").unwrap_or((name, "number"));
    let value = value.split(';').next().unwrap_or(value).trim();
    (in_capitals(name) && kind == "number").then_some((name, value))
}

fn is_number(value: &str) -> bool {
    let mut words = value.split([' ', '(', ')', '*', '/', '+', '-']).filter(|word| !word.is_empty());
    let is_number = |word: &str| {
        let digits = word.strip_suffix('n').unwrap_or(word);
        digits.chars().all(|character| character.is_ascii_digit() || "._".contains(character))
    };
    !value.is_empty() && words.all(|word| is_number(word) || in_capitals(word))
}

fn in_capitals(name: &str) -> bool {
    name.chars().all(|character| character.is_ascii_uppercase() || "_0123456789".contains(character))
}

/// What the comment says that ends on the last of these lines.
fn comment_above(lines: &[&str]) -> String {
    if !lines.last().is_some_and(|line| line.trim_end().ends_with("*/")) {
        return String::new();
    }
    let start = lines.iter().rposition(|line| line.trim_start().starts_with("/**")).unwrap_or(lines.len());
    let words = lines[start..].iter().map(|line| {
        let line = line.trim().trim_start_matches("/**").trim_end_matches("*/");
        line.trim().trim_start_matches("* ").trim()
    });
    words.filter(|words| !words.is_empty()).collect::<Vec<_>>().join(" ")
}

#[test]
fn numbers_are_found_with_what_their_comment_says() {
    let text = "/** Longest, in bytes. */\nexport const A_BYTES_MAX = 64 * 1024;\n\
                export const B_MS = A_BYTES_MAX - 3_600_000;\n\
                export const PATH = '/v1';\nconst MANY = [1];\n\n\
                /**\n * Two\n * lines.\n */\nexport const BIT = 57n;\n\n\
                const BARE = 1;\nconst HEX = Array.from(1);\nconst other = 5;\n";
    let found = numbers("a.ts", text);
    let seen: Vec<_> = found
        .iter()
        .map(|Limit { name, value, unit, comment, .. }| (&name[..], &value[..], &unit[..], &comment[..]))
        .collect();
    let expected = [
        ("A_BYTES_MAX", "64 * 1024", "bytes", "Longest, in bytes."),
        ("B_MS", "A_BYTES_MAX - 3_600_000", "ms", "Longest, in bytes."),
        ("BIT", "57n", "", "Two lines."),
        ("BARE", "1", "", ""),
    ];
    assert_eq!(seen, expected);
}

//! The gateway's `[limits]`: their defaults as they are configured, whom each concerns, and what that one is told.

use super::Limit;
use super::rust::comment_above;

/// Where the defaults are.
pub(crate) const FILE: &str = "gateway/src/config/limits.rs";
/// The line that they begin with.
pub(crate) const BEGINNING: &str = "impl Default for LimitsSection {";

const THROTTLED: &str = "Beyond it the request is answered `ERROR_THROTTLED` with the time to wait.";
const CLOSED: &str = "Beyond it the connection is closed before a byte is read, and nothing is told.";
const BACKLOG: &str = "Beyond it newcomers wait in the kernel's backlog, and nothing is told.";
const PUT_OFF: &str = "Beyond it the client is told `SessionClosing` `OVERLOADED` with the time to wait, \
                       which is a slot of its own.";
const TOO_MANY: &str = "Beyond it the request is answered 429, `ERROR_THROTTLED`, with `Retry-After`.";

/// For each key what it holds for, and what somebody beyond it is told.
const TOLD: [(&str, &str, &str); 12] = [
    ("sends_per_user", "core", THROTTLED),
    ("requests_per_user", "core", THROTTLED),
    ("sends_per_conversation", "core", THROTTLED),
    ("requests_per_address", "core", THROTTLED),
    ("accepts_per_core", "core", BACKLOG),
    ("hellos_per_core", "core", PUT_OFF),
    ("connects_per_address", "core", CLOSED),
    ("connections_per_address", "process", CLOSED),
    ("registrations_per_address", "process", TOO_MANY),
    ("log_ins_per_address", "process", TOO_MANY),
    ("failed_log_ins_per_account", "process", TOO_MANY),
    ("refreshes_per_address", "process", TOO_MANY),
];

/// A row for each key of the section. What a key is stands at the field of its name in the gateway's sources, why it
/// has its value beside the default.
pub(crate) fn defaults(text: &str, sources: &[(String, String)]) -> Vec<Limit> {
    let (_, section) = text.split_once(BEGINNING).expect("the section has defaults");
    let mut found = Vec::new();
    let mut why: Vec<&str> = Vec::new();
    for line in section.lines().take_while(|line| *line != "}").map(str::trim) {
        if let Some(words) = line.strip_prefix("//") {
            why.push(words.trim());
        } else if let Some((key, value)) = line.strip_suffix(',').and_then(|line| line.split_once(": ")) {
            let value = value.trim_end_matches(".into()").trim_matches('"').to_owned();
            found.push(row(key, value, &why.join(" "), sources));
            why.clear();
        }
    }
    assert_eq!(found.len(), TOLD.len(), "{FILE}: each key has a default, and {} says what is told", file!());
    found
}

fn row(key: &str, value: String, why: &str, sources: &[(String, String)]) -> Limit {
    let (_, whole, told) = TOLD
        .iter()
        .find(|(is, ..)| *is == key)
        .unwrap_or_else(|| panic!("limits.{key}: {} says nothing of who is told what", file!()));
    let comment = format!("{} {told} {why}", said_of(key, sources)).trim().to_owned();
    let (name, unit) = (format!("limits.{key}"), format!("for a {whole}"));
    Limit { file: FILE.to_owned(), name, value, unit, comment }
}

/// What the documentation says of the field with a key's name.
fn said_of(key: &str, sources: &[(String, String)]) -> String {
    let field = format!("pub {key}: ");
    let said = sources.iter().find_map(|(_, text)| {
        let lines: Vec<&str> = text.lines().collect();
        let at = lines.iter().position(|line| line.trim_start().starts_with(&field))?;
        Some(comment_above(&lines[..at]))
    });
    said.filter(|said| !said.is_empty()).unwrap_or_else(|| panic!("limits.{key}: no field says what it is"))
}

#[test]
fn a_default_has_its_reason_and_who_is_told_what() {
    let text = "struct A {\n    /// New ones.\n    pub accepts_per_core: Option<Rate>,\n}\n";
    let sources = [("a.rs".to_owned(), text.to_owned())];
    let made = row("accepts_per_core", "2 per second, burst 4".to_owned(), "It costs.", &sources);
    assert_eq!((&made.name[..], &made.unit[..]), ("limits.accepts_per_core", "for a core"));
    assert_eq!(made.comment, format!("New ones. {BACKLOG} It costs."));
}

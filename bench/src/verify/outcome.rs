//! What a check found: the figures, a table for people, a file for programs, and how the process ends.

use super::VerifyError;
use crate::report::numbers::grouped;
use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// Version of the JSON file: grows when a reader of the old one would go wrong.
pub const VERIFY_SCHEMA_VERSION: u32 = 1;
/// Faults that the table tells in words; the file has all that were kept.
const EXAMPLES_SHOWN: usize = 20;

/// A room that was written to.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoomBalance {
    /// As examples name it.
    pub room: u32,
    /// What it is.
    pub name: String,
    /// First entry that was looked at.
    pub from_seq: u64,
    /// Last entry that was looked at.
    pub to_seq: u64,
    /// Messages with an acknowledgement.
    pub acknowledged: u64,
    /// Messages whose fate is unknown: wrong only if found twice or out of place.
    pub unacknowledged: u64,
    /// Acknowledged messages that were sent again on purpose.
    pub repeats: u64,
    /// Entries that somebody else wrote meanwhile.
    pub others: u64,
    /// (device or history, message) pairs that were looked at.
    pub checked: u64,
    /// Acknowledged and missing.
    pub lost: u64,
    /// There more than once.
    pub doubled: u64,
    /// In another order than they were sent.
    pub reordered: u64,
    /// With another body, place, sender or time.
    pub altered: u64,
    /// Numbers under which a device or a history has nothing.
    pub gaps: u64,
    /// Entries that are not the same everywhere.
    pub differing: u64,
    /// Faults in words.
    pub examples: Vec<String>,
}

impl RoomBalance {
    /// Nothing is wrong.
    pub fn is_balanced(&self) -> bool {
        self.lost + self.doubled + self.reordered + self.altered + self.gaps + self.differing == 0
    }
}

/// A conversation whose history was read.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistoryBalance {
    /// Its id.
    pub conversation: String,
    /// Who read it.
    pub accounts: Vec<String>,
    /// Highest number.
    pub entries: u64,
    /// Numbers under which somebody finds nothing.
    pub gaps: u64,
    /// Entries that are not the same for everybody, or not as sync or list show them.
    pub differing: u64,
    /// Entries out of order, or with a time before the one before.
    pub reordered: u64,
    /// Two entries under one number, or a wrong beginning.
    pub altered: u64,
    /// Heads that do not agree, and conversations that a list or a sync lacks.
    pub heads: u64,
    /// Faults in words.
    pub examples: Vec<String>,
}

impl HistoryBalance {
    /// Nothing is wrong.
    pub fn is_balanced(&self) -> bool {
        self.gaps + self.differing + self.reordered + self.altered + self.heads == 0
    }
}

/// A device that took part.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceFacts {
    /// As examples name it.
    pub device: u32,
    /// Whose.
    pub account: String,
    /// As examples name the account.
    pub account_number: u32,
    /// Its id.
    pub id: String,
    /// "native" or "web_socket".
    pub route: String,
    /// Where it was connected.
    pub target: String,
    /// Connections dropped on purpose.
    pub drops: u32,
    /// Connections that broke, or were given up for a while.
    pub losses: u32,
}

/// What the accounts keep of the check.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeftBehind {
    /// Messages, which nobody can take back.
    pub messages: u64,
    /// Conversations that they are in.
    pub conversations: Vec<String>,
    /// Devices that could not be logged out, and why.
    pub devices: Vec<String>,
}

/// How it ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The cluster kept its word.
    Balanced,
    /// It did not.
    Imbalance,
    /// Nothing can be said.
    NotChecked,
}

/// Everything.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// [`VERIFY_SCHEMA_VERSION`].
    pub schema_version: u32,
    /// "messages" or "history".
    pub mode: String,
    /// How it ended.
    pub verdict: Verdict,
    /// Why nothing can be said; empty otherwise.
    pub error: String,
    /// Whether the same command may get further later.
    pub retry_helps: bool,
    /// Gateways.
    pub targets: Vec<String>,
    /// When it began, in milliseconds since 1970.
    pub started_ms: u64,
    /// How long it took.
    pub took_ms: u64,
    /// Who took part.
    pub devices: Vec<DeviceFacts>,
    /// Rooms that were written to.
    pub rooms: Vec<RoomBalance>,
    /// Conversations whose history was read.
    pub conversations: Vec<HistoryBalance>,
    /// What stays.
    pub left_behind: LeftBehind,
}

/// What was found, if anything could be.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Found {
    /// Rooms that were written to.
    pub rooms: Vec<RoomBalance>,
    /// Conversations whose history was read.
    pub conversations: Vec<HistoryBalance>,
}

impl Outcome {
    /// Adds what was found, or why nothing was.
    pub fn conclude(&mut self, found: Result<Found, VerifyError>) {
        match found {
            Ok(Found { rooms, conversations }) => {
                let balanced = rooms.iter().all(RoomBalance::is_balanced)
                    && conversations.iter().all(HistoryBalance::is_balanced);
                self.verdict = if balanced { Verdict::Balanced } else { Verdict::Imbalance };
                (self.rooms, self.conversations) = (rooms, conversations);
            }
            Err(error) => {
                self.verdict = Verdict::NotChecked;
                (self.retry_helps, self.error) = (error.retry_helps(), error.to_string());
            }
        }
    }

    /// 0: balanced, 1: it is not, 2: nothing can be said.
    pub fn exit_code(&self) -> u8 {
        match self.verdict {
            Verdict::Balanced => 0,
            Verdict::Imbalance => 1,
            Verdict::NotChecked => 2,
        }
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut text = String::new();
        self.write(&mut text).expect("a string grows");
        text
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        self.write_devices(out)?;
        self.write_rooms(out)?;
        self.write_histories(out)?;
        let of_rooms = self.rooms.iter().flat_map(|room| &room.examples);
        let of_histories = self.conversations.iter().flat_map(|history| &history.examples);
        let examples: Vec<&String> = of_rooms.chain(of_histories).collect();
        for example in examples.iter().take(EXAMPLES_SHOWN) {
            writeln!(out, "  ! {example}")?;
        }
        if examples.len() > EXAMPLES_SHOWN {
            writeln!(out, "  … and {} more in the file of --out", examples.len() - EXAMPLES_SHOWN)?;
        }
        self.write_left(out)?;
        writeln!(out, "{}", self.sentence())
    }

    fn write_devices(&self, out: &mut String) -> std::fmt::Result {
        for DeviceFacts { device, account, account_number, id, route, target, drops, losses } in &self.devices
        {
            writeln!(
                out,
                "device {device:<3} account {account_number} ({account}), {route} at {target}, id {id}; \
                 dropped {drops}, lost {losses}"
            )?;
        }
        Ok(())
    }

    fn write_rooms(&self, out: &mut String) -> std::fmt::Result {
        if self.rooms.is_empty() {
            return Ok(());
        }
        let head = [
            "acked",
            "unacked",
            "repeats",
            "others",
            "lost",
            "doubled",
            "reordered",
            "altered",
            "gaps",
            "differing",
        ];
        let cells: String = head.iter().map(|name| format!("{name:>10}")).collect();
        writeln!(out, "{:<9}{cells}", "room")?;
        for room in &self.rooms {
            let counts = [
                room.acknowledged,
                room.unacknowledged,
                room.repeats,
                room.others,
                room.lost,
                room.doubled,
                room.reordered,
                room.altered,
                room.gaps,
                room.differing,
            ];
            let cells: String = counts.iter().map(|count| format!("{:>10}", grouped(*count))).collect();
            writeln!(out, "room {:<4}{cells}", room.room)?;
            writeln!(out, "  {}, entries {} to {}", room.name, room.from_seq, room.to_seq)?;
        }
        Ok(())
    }

    fn write_histories(&self, out: &mut String) -> std::fmt::Result {
        if self.mode != "history" {
            return Ok(());
        }
        let entries = self.conversations.iter().map(|history| history.entries).sum();
        let shared = self.conversations.iter().filter(|history| history.accounts.len() > 1).count();
        writeln!(
            out,
            "{} conversations with {} entries were read, {shared} of them by more than one account",
            self.conversations.len(),
            grouped(entries),
        )?;
        for wrong in self.conversations.iter().filter(|history| !history.is_balanced()).take(EXAMPLES_SHOWN) {
            writeln!(
                out,
                "{}: gaps {}, differing {}, reordered {}, altered {}, heads {}",
                wrong.conversation, wrong.gaps, wrong.differing, wrong.reordered, wrong.altered, wrong.heads
            )?;
        }
        Ok(())
    }

    fn write_left(&self, out: &mut String) -> std::fmt::Result {
        let LeftBehind { messages, conversations, devices } = &self.left_behind;
        if *messages > 0 {
            let rooms = conversations.join(", ");
            writeln!(out, "left behind: {} messages in {rooms}", grouped(*messages))?;
        }
        for device in devices {
            writeln!(out, "left behind: {device}")?;
        }
        if *messages == 0 && devices.is_empty() {
            writeln!(out, "left behind: nothing")?;
        }
        Ok(())
    }

    fn sentence(&self) -> String {
        match self.verdict {
            Verdict::Balanced if self.mode == "history" => {
                "BALANCED: every history is whole and the same for all of its readers".into()
            }
            Verdict::Balanced => {
                let acknowledged = self.rooms.iter().map(|room| room.acknowledged).sum();
                let acknowledged = grouped(acknowledged);
                format!(
                    "BALANCED: {acknowledged} acknowledged messages are on every device, in order, once, and in \
                     history"
                )
            }
            Verdict::Imbalance => "IMBALANCE: the cluster did not keep what it acknowledged".into(),
            Verdict::NotChecked => {
                let retry =
                    if self.retry_helps { "trying again may help" } else { "trying again does not help" };
                format!("NOT CHECKED: {} ({retry})", self.error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(found: Result<Found, VerifyError>) -> Outcome {
        let mut outcome = Outcome {
            schema_version: VERIFY_SCHEMA_VERSION,
            mode: "messages".into(),
            verdict: Verdict::NotChecked,
            error: String::new(),
            retry_helps: false,
            targets: vec!["chat.example:443".into()],
            started_ms: 1,
            took_ms: 2,
            devices: vec![DeviceFacts {
                device: 0,
                account: "ada".into(),
                account_number: 0,
                id: "00".into(),
                route: "native".into(),
                target: "chat.example:443".into(),
                drops: 1,
                losses: 0,
            }],
            rooms: Vec::new(),
            conversations: Vec::new(),
            left_behind: LeftBehind {
                messages: 3,
                conversations: vec!["direct".into()],
                devices: vec!["ada's".into()],
            },
        };
        outcome.conclude(found);
        outcome
    }

    #[test]
    fn every_kind_of_fault_is_an_imbalance() {
        let balanced = Found { rooms: vec![RoomBalance::default()], ..Found::default() };
        assert_eq!(outcome(Ok(balanced)).exit_code(), 0);
        let spoils: [fn(&mut RoomBalance); 6] = [
            |room| room.lost = 1,
            |room| room.doubled = 1,
            |room| room.reordered = 1,
            |room| room.altered = 1,
            |room| room.gaps = 1,
            |room| room.differing = 1,
        ];
        for spoil in spoils {
            let mut room = RoomBalance { examples: vec!["words".into()], ..RoomBalance::default() };
            spoil(&mut room);
            let outcome =
                outcome(Ok(Found { rooms: vec![RoomBalance::default(), room], ..Found::default() }));
            assert_eq!((outcome.exit_code(), outcome.verdict), (1, Verdict::Imbalance));
            assert!(outcome.table().contains("IMBALANCE") && outcome.table().contains("! words"));
        }
        let history = HistoryBalance { heads: 1, ..HistoryBalance::default() };
        let found = Found { conversations: vec![HistoryBalance::default(), history], ..Found::default() };
        assert_eq!(outcome(Ok(found)).exit_code(), 1);
    }

    #[test]
    fn who_could_not_check_says_why_and_whether_a_retry_helps() {
        for (error, says) in [
            (VerifyError::Time(9), "not done within 9 s (trying again may help)"),
            (VerifyError::Asked("--rate: 0".into()), "--rate: 0 (trying again does not help)"),
        ] {
            let outcome = outcome(Err(error));
            assert_eq!(outcome.exit_code(), 2);
            let table = outcome.table();
            assert!(table.contains(says) && table.contains("left behind: 3 messages in direct"), "{table}");
            assert!(table.contains("left behind: ada's"), "{table}");
        }
    }

    #[test]
    fn every_field_of_the_file_is_documented() {
        let rooms = vec![RoomBalance::default()];
        let found = Found { rooms, conversations: vec![HistoryBalance::default()] };
        let value = serde_json::to_value(outcome(Ok(found))).expect("it serializes");
        let document = include_str!("../../../docs/benchmarking.md");
        let (_, section) = document.split_once("### Its file").expect("the section of this file");
        let (section, _) = section.split_once("\n## ").expect("another section");
        let mut names = Vec::new();
        fn collect(value: &serde_json::Value, names: &mut Vec<String>) {
            match value {
                serde_json::Value::Object(fields) => {
                    names.extend(fields.keys().cloned());
                    fields.values().for_each(|value| collect(value, names));
                }
                serde_json::Value::Array(items) => items.iter().for_each(|item| collect(item, names)),
                _ => {}
            }
        }
        collect(&value, &mut names);
        assert!(names.len() > 40, "{names:?}");
        names.retain(|name| !section.contains(&format!("`{name}`")));
        assert!(names.is_empty(), "docs/benchmarking.md does not explain {names:?}");
    }
}

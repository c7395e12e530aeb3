//! Settings of a machine: what each is, where it is read, and how it is changed. A file for each noun.
//!
//! Knows the kernel's files and nothing of roles: what a setting should be is a profile's matter.

mod value;
mod limits;
mod network;
mod memory;
mod processor;
mod interrupts;

pub use value::{Amount, Bound, Present, Value, Wish};
pub(crate) use value::{Change, Edit, Kind};

use crate::host::Host;
use serde::{Deserialize, Serialize};
use std::{fmt, io};
use value::{Source, Spec};

/// Something a machine can be set to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "each one's line of explanation is its `what`, which the program shows")]
pub enum Setting {
    OpenFiles,
    OpenFilesHard,
    LockedMemory,
    ProcessFilesCeiling,
    MachineFiles,
    ListenBacklog,
    SynBacklog,
    SynCookies,
    LocalPorts,
    ReceiveBacklog,
    TcpMemoryLow,
    TcpMemoryPressure,
    TcpMemoryHigh,
    TcpReceiveMin,
    TcpReceiveDefault,
    TcpReceiveMax,
    TcpSendMin,
    TcpSendDefault,
    TcpSendMax,
    TcpUnsentMax,
    SlowStartAfterIdle,
    TimeWaitReuse,
    ConnectionTable,
    ConntrackMax,
    ConntrackBuckets,
    HugePages,
    HugePagesDefrag,
    Swappiness,
    MemoryMappings,
    NumaBalancing,
    ClockSource,
    Governor,
    IoUringDisabled,
    SchedulerAutogroup,
    ReceiveCores,
    InterruptsCrowded,
    TransmitQueuesUnmapped,
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.spec().name)
    }
}

impl Setting {
    fn spec(self) -> Spec {
        use Setting::*;
        match self {
            OpenFiles | OpenFilesHard | LockedMemory | ProcessFilesCeiling | MachineFiles => {
                limits::spec(self)
            }
            HugePages | HugePagesDefrag | Swappiness | MemoryMappings | NumaBalancing => memory::spec(self),
            ClockSource | Governor | IoUringDisabled | SchedulerAutogroup => processor::spec(self),
            ReceiveCores | InterruptsCrowded | TransmitQueuesUnmapped => interrupts::spec(self),
            _ => network::spec(self),
        }
    }

    /// What it is, in a line.
    pub fn what(self) -> &'static str {
        self.spec().what
    }

    pub(crate) fn kind(self) -> Kind {
        match self.spec().source {
            Source::Sysctl { .. } => Kind::Number,
            Source::Choice { .. } => Kind::Word,
            Source::Computed { kind, .. } => kind,
        }
    }

    /// What the machine answers.
    pub fn present(self, host: &dyn Host) -> Present {
        match self.spec().source {
            Source::Sysctl { path, field, absent } => sysctl(host, path, field, absent),
            Source::Choice { path, absent } => match read(host, path, Some(absent)) {
                Err(present) => present,
                Ok(text) => match bracketed(&text) {
                    Some(word) => Present::here(Value::Word(word.to_owned())),
                    None => Present::garbled(path, &text),
                },
            },
            Source::Computed { room, .. } => room.present(self, host),
        }
    }

    /// How a value that does not serve comes to serve.
    pub(crate) fn change(self, bound: &Bound, host: &dyn Host) -> Change {
        match (self.spec().source, bound) {
            (Source::Sysctl { path, field, .. }, bound) => {
                let value = bound.number().map(|number| number.to_string()).unwrap_or_default();
                match is_boot_only(self) {
                    Some(how) => Change::ByHand(how.replace("{}", &value)),
                    None => Change::Edits(vec![Edit { path: path.to_owned(), field: Some(field), value }]),
                }
            }
            (Source::Choice { path, .. }, Bound::OneOf(words)) => {
                let offered = host.read(path).unwrap_or_default();
                let offered: Vec<&str> = offered.split_whitespace().map(unbracketed).collect();
                first_offered(path, words, &offered)
            }
            (Source::Choice { path, .. }, _) => Change::ByHand(format!("{path} takes words only")),
            (Source::Computed { room, .. }, bound) => room.change(self, bound, host),
        }
    }
}

/// How a number is set that the running kernel only shows.
fn is_boot_only(setting: Setting) -> Option<&'static str> {
    match setting {
        Setting::ConnectionTable => {
            Some("boot parameter thash_entries={} (/etc/default/grub, then update-grub and reboot)")
        }
        _ => None,
    }
}

/// Writes the first wanted word that the machine offers.
fn first_offered(path: &str, words: &[String], offered: &[&str]) -> Change {
    match words.iter().find(|word| offered.contains(&word.as_str())) {
        Some(word) => Change::Edits(vec![Edit { path: path.to_owned(), field: None, value: word.clone() }]),
        None => Change::ByHand(format!(
            "this machine offers none of these in {path}; it offers: {}",
            if offered.is_empty() { "nothing".to_owned() } else { offered.join(", ") }
        )),
    }
}

/// A file's text. One that is not there, and need not be, makes the setting inapplicable.
fn read(host: &dyn Host, path: &str, absent: Option<&str>) -> Result<String, Present> {
    host.read(path).map_err(|error| match (error.kind(), absent) {
        (io::ErrorKind::NotFound, Some(meaning)) => Present::NotApplicable(format!("{meaning} (no {path})")),
        _ => Present::Unreadable(format!("{path}: {error}")),
    })
}

fn sysctl(host: &dyn Host, path: &str, field: usize, absent: Option<&str>) -> Present {
    let text = match read(host, path, absent) {
        Ok(text) => text,
        Err(present) => return present,
    };
    match text.split_whitespace().nth(field).map(str::parse::<i64>) {
        // The kernel shows a table that a namespace shares with its machine as a negative size.
        Some(Ok(number)) => Present::here(Value::Number(number.unsigned_abs())),
        // Beyond i64 is "no limit" in files such as fs.file-max.
        _ => match text.split_whitespace().nth(field).map(str::parse::<u64>) {
            Some(Ok(number)) => Present::here(Value::Number(number)),
            _ => Present::garbled(path, &text),
        },
    }
}

/// The word in brackets: the one in force of those listed.
pub(crate) fn bracketed(text: &str) -> Option<&str> {
    text.split_whitespace().find_map(|word| word.strip_prefix('[')?.strip_suffix(']'))
}

fn unbracketed(word: &str) -> &str {
    word.trim_start_matches('[').trim_end_matches(']')
}

/// Numbers of a list such as `0-3,8`. None if it is not such a list.
fn cpu_list(text: &str) -> Option<Vec<u32>> {
    /// More cores than any machine has: a damaged list must not fill memory.
    const CPUS_MAX: u32 = 65_536;
    let mut cpus = Vec::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        let (low, high) = (low.parse::<u32>().ok()?, high.parse::<u32>().ok()?);
        if high >= CPUS_MAX {
            return None;
        }
        cpus.extend(low..=high);
    }
    Some(cpus)
}

const ONLINE: &str = "/sys/devices/system/cpu/online";

/// Cores that are online. An error names the file.
pub(crate) fn cores_online(host: &dyn Host) -> Result<Vec<u32>, String> {
    let text = host.read(ONLINE).map_err(|error| format!("{ONLINE}: {error}"))?;
    match cpu_list(&text) {
        Some(cpus) if !cpus.is_empty() => Ok(cpus),
        _ => Err(format!("{ONLINE}: no list of cores: {:?}", text.trim())),
    }
}

#[cfg(test)]
mod tests;

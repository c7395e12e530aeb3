//! Limits on files and locked memory: of a process, which only who starts it can set, and of the machine.

use super::value::{Bound, Change, Kind, Present, Room, Source, Spec, Value};
use super::{Setting, read};
use crate::host::Host;

const LIMITS: &str = "/proc/self/limits";

pub(super) fn spec(setting: Setting) -> Spec {
    let process = Source::Computed { kind: Kind::Number, room: &ProcessLimits };
    let machine = |path| Source::Sysctl { path, field: 0, absent: None };
    let (name, what, source) = match setting {
        Setting::OpenFilesHard => {
            ("open files, hard limit (ulimit -Hn)", "how far a process may raise its own soft limit", process)
        }
        Setting::LockedMemory => (
            "locked memory, bytes (ulimit -l)",
            "memory that io_uring rings and registered buffers of a user may take; CAP_IPC_LOCK lifts it",
            process,
        ),
        Setting::ProcessFilesCeiling => (
            "fs.nr_open",
            "the highest limit of open files that any process can be given",
            machine("/proc/sys/fs/nr_open"),
        ),
        Setting::MachineFiles => (
            "fs.file-max",
            "files open on the whole machine; a connection is one, in a ring's table too",
            machine("/proc/sys/fs/file-max"),
        ),
        _ => (
            "open files, soft limit (ulimit -n)",
            "files a process may have open; it also bounds each ring's table of direct descriptors",
            process,
        ),
    };
    Spec { name, what, source }
}

/// Read for the process that asks, or for the one named by `--pid`.
struct ProcessLimits;

impl ProcessLimits {
    /// Row of the kernel's table, and column after its name.
    fn place(setting: Setting) -> (&'static str, usize) {
        match setting {
            Setting::OpenFilesHard => ("Max open files", 1),
            Setting::LockedMemory => ("Max locked memory", 0),
            _ => ("Max open files", 0),
        }
    }
}

impl Room for ProcessLimits {
    fn present(&self, setting: Setting, host: &dyn Host) -> Present {
        let text = match read(host, LIMITS, None) {
            Ok(text) => text,
            Err(present) => return present,
        };
        let (row, column) = Self::place(setting);
        let line = text.lines().find_map(|line| line.strip_prefix(row));
        match line.and_then(|line| line.split_whitespace().nth(column)) {
            Some("unlimited") => Present::here(Value::Unlimited),
            Some(number) => match number.parse() {
                Ok(number) => Present::here(Value::Number(number)),
                Err(_) => Present::garbled(LIMITS, number),
            },
            None => Present::Unreadable(format!("{LIMITS}: no {row:?}")),
        }
    }

    fn change(&self, setting: Setting, bound: &Bound, _: &dyn Host) -> Change {
        /// limits.conf counts locked memory in KiB.
        const KIB: u64 = 1_024;
        let number = bound.number().unwrap_or_default();
        let (unit, item, amount) = match setting {
            Setting::LockedMemory => ("LimitMEMLOCK", "- memlock", number.div_ceil(KIB)),
            _ => ("LimitNOFILE", "- nofile", number),
        };
        Change::ByHand(format!(
            "belongs to who starts the server: `{unit}={number}` in its systemd unit, or \
             `ringline {item} {amount}` in /etc/security/limits.conf; then start it again"
        ))
    }
}

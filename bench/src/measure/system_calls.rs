//! System calls of a process, counted by `perf stat` where it is installed and allowed; otherwise not counted.
//!
//! The kernel then takes its traced entry for every call of the machine: about 0.1 µs each. perf needs some tens of
//! milliseconds to begin, which the count lacks.

use std::io::Read;
use std::process::{Child, ChildStdin, Command, Stdio};

/// Any call; and the two that wait for the disk.
const EVENTS: [&str; 3] =
    ["raw_syscalls:sys_enter", "syscalls:sys_enter_fsync", "syscalls:sys_enter_fdatasync"];

/// Calls that were counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SystemCalls {
    /// All that were entered.
    pub entered: u64,
    /// `fsync` and `fdatasync` among them; io_uring's are not.
    pub syncs: u64,
}

/// A running count. Ends when dropped.
#[derive(Debug)]
pub struct Counting {
    /// perf itself.
    perf: Child,
    /// perf counts until its own child `cat` reads the end of this pipe: so no signal is needed to stop it.
    until: Option<ChildStdin>,
}

impl Counting {
    /// Counts for these processes and what they start from now on; `None`: perf is not here.
    pub fn start(pids: &[u32]) -> Option<Self> {
        if pids.is_empty() {
            return None;
        }
        let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
        let mut perf = Command::new("perf")
            .args(["stat", "-x,", "-e", &EVENTS.join(","), "-p", &pids.join(","), "--", "cat"])
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .ok()?;
        let until = perf.stdin.take();
        Some(Self { perf, until })
    }

    /// Ends the count; `None`: it could not be made, whatever the reason.
    pub fn finish(mut self) -> Option<SystemCalls> {
        drop(self.until.take());
        let mut text = String::new();
        // Bounded: a few lines, as perf writes nothing else.
        self.perf.stderr.take()?.take(64 * 1_024).read_to_string(&mut text).ok()?;
        self.perf.wait().ok()?;
        parse_counts(&text)
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        drop(self.until.take());
        let _ = self.perf.kill();
        let _ = self.perf.wait();
    }
}

/// Reads `perf stat -x,`: "count,unit,event,…". `None` if the calls were not counted.
pub fn parse_counts(text: &str) -> Option<SystemCalls> {
    let count = |event: &str| {
        let mut lines = text.lines().map(|line| line.split(',').collect::<Vec<_>>());
        let fields = lines.find(|fields| fields.get(2) == Some(&event))?;
        fields.first()?.parse::<u64>().ok()
    };
    let [entered, fsync, fdatasync] = EVENTS.map(count);
    Some(SystemCalls { entered: entered?, syncs: fsync.unwrap_or(0) + fdatasync.unwrap_or(0) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::right::{Right, refused};

    #[test]
    fn counts_are_read_by_event() {
        let text = "2695468,,raw_syscalls:sys_enter,611893011,100.00,,\n3,,syscalls:sys_enter_fsync,6,100.00,,\n\
                    4,,syscalls:sys_enter_fdatasync,6,100.00,,\n";
        assert_eq!(parse_counts(text), Some(SystemCalls { entered: 2_695_468, syncs: 7 }));
        let without_syncs = "5,,raw_syscalls:sys_enter,611893011,100.00,,\n";
        assert_eq!(parse_counts(without_syncs), Some(SystemCalls { entered: 5, syncs: 0 }));
    }

    #[test]
    fn what_was_not_counted_is_none_and_not_zero() {
        assert_eq!(parse_counts("<not counted>,,raw_syscalls:sys_enter,0,100.00,,\n"), None);
        assert_eq!(parse_counts("Error:\nAccess to performance monitoring is limited.\n"), None);
        assert_eq!(parse_counts("3,,syscalls:sys_enter_fsync,6,100.00,,\n"), None);
        assert_eq!(Counting::start(&[]).map(|_| ()), None);
    }

    #[test]
    fn a_count_of_a_process_that_is_not_there_fails_quietly() {
        let Some(counting) = Counting::start(&[u32::MAX]) else {
            return refused(Right::Perf, "perf is not installed");
        };
        assert_eq!(counting.finish(), None);
    }
}

//! The processor and who runs on it: clock, frequency, scheduler, io_uring.

use super::value::{Bound, Change, Edit, Kind, Present, Room, Source, Spec, Value};
use super::{Setting, cores_online, first_offered, read};
use crate::host::Host;

const CLOCK: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
const CLOCKS: &str = "/sys/devices/system/clocksource/clocksource0/available_clocksource";

pub(super) fn spec(setting: Setting) -> Spec {
    let (name, what, source) = match setting {
        Setting::ClockSource => (
            "clocksource",
            "what the kernel reads the time from; some sources are read without a system call",
            Source::Computed { kind: Kind::Word, room: &Clock },
        ),
        Setting::Governor => (
            "cpufreq governor",
            "how the frequency of each core follows its load",
            Source::Computed { kind: Kind::Word, room: &Governor },
        ),
        Setting::SchedulerAutogroup => (
            "kernel.sched_autogroup_enabled",
            "1: the scheduler shares the processor between sessions, and niceness counts within a session only",
            Source::Sysctl {
                path: "/proc/sys/kernel/sched_autogroup_enabled",
                field: 0,
                absent: Some("this kernel has no scheduler autogroups"),
            },
        ),
        _ => (
            "kernel.io_uring_disabled",
            "0: every process may make rings; 1: only privileged ones and kernel.io_uring_group; 2: none",
            Source::Sysctl {
                path: "/proc/sys/kernel/io_uring_disabled",
                field: 0,
                absent: Some("this kernel has no switch for io_uring, which came with Linux 6.6"),
            },
        ),
    };
    Spec { name, what, source }
}

struct Clock;

impl Room for Clock {
    fn present(&self, _: Setting, host: &dyn Host) -> Present {
        match read(host, CLOCK, None) {
            Ok(text) => Present::here(Value::Word(text.trim().to_owned())),
            Err(present) => present,
        }
    }

    fn change(&self, _: Setting, bound: &Bound, host: &dyn Host) -> Change {
        let Bound::OneOf(words) = bound else { return Change::ByHand(format!("{CLOCK} takes words only")) };
        // The kernel takes a source it found unstable off the list: one that is listed may be chosen.
        let offered = host.read(CLOCKS).unwrap_or_default();
        let offered: Vec<&str> = offered.split_whitespace().collect();
        match first_offered(CLOCK, words, &offered) {
            Change::ByHand(why) => Change::ByHand(format!(
                "{why}; `dmesg | grep -i clocksource` says what was found wrong with the others"
            )),
            edits => edits,
        }
    }
}

struct Governor;

impl Governor {
    /// The file of each core that has one.
    fn files(host: &dyn Host) -> Result<Vec<(String, String)>, Present> {
        let mut files = Vec::new();
        for cpu in cores_online(host).map_err(Present::Unreadable)? {
            let path = format!("/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor");
            let absent = "the frequency is not this system's to choose, as in most virtual machines";
            files.push((path.clone(), read(host, &path, Some(absent))?.trim().to_owned()));
        }
        Ok(files)
    }
}

impl Room for Governor {
    fn present(&self, _: Setting, host: &dyn Host) -> Present {
        let files = match Self::files(host) {
            Ok(files) => files,
            Err(present) => return present,
        };
        let first = files.first().map(|(_, word)| word.clone()).unwrap_or_default();
        match files.iter().filter(|(_, word)| *word != first).count() {
            0 => Present::here(Value::Word(first)),
            others => {
                let detail = format!("{others} of {} cores differ from the first ({first})", files.len());
                Present::Here(Value::Word("mixed".to_owned()), Some(detail))
            }
        }
    }

    fn change(&self, _: Setting, bound: &Bound, host: &dyn Host) -> Change {
        let Bound::OneOf(words) = bound else {
            return Change::ByHand("a governor is a word".to_owned());
        };
        let value = words.first().cloned().unwrap_or_default();
        let files = Self::files(host).unwrap_or_default();
        let differ = files.into_iter().filter(|(_, word)| *word != value);
        let edit = |(path, _)| Edit { path, field: None, value: value.clone() };
        Change::Edits(differ.map(edit).collect())
    }
}

//! Settings of a machine, and the comparison with what a profile wants.

use crate::profile::{Profile, Wanted};
use serde::Deserialize;
use std::fmt;
use std::io;

/// Something that can be read as a number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Setting {
    /// Soft limit of open files of this process and its children.
    OpenFiles,
    /// Most completed connections a listener may hold before they are accepted.
    ListenBacklog,
    /// Ports that outgoing connections may take.
    LocalPorts,
    /// 0: every process may use io_uring.
    IoUringDisabled,
    /// 1: the scheduler groups processes by session, so that a build slows a server that it did not start.
    SchedulerAutogroup,
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Setting::OpenFiles => "open files (ulimit -n)",
            Setting::ListenBacklog => "net.core.somaxconn",
            Setting::LocalPorts => "net.ipv4.ip_local_port_range, ports",
            Setting::IoUringDisabled => "kernel.io_uring_disabled",
            Setting::SchedulerAutogroup => "kernel.sched_autogroup_enabled",
        })
    }
}

/// Where files of a machine are read: the real one, or one made up for a test.
pub trait Host {
    /// The text of a file below `/proc`.
    fn read(&self, path: &str) -> io::Result<String>;
}

/// This machine.
pub struct RealHost;

impl Host for RealHost {
    fn read(&self, path: &str) -> io::Result<String> {
        std::fs::read_to_string(path)
    }
}

impl Setting {
    /// The present value. An error names the file that does not say it.
    pub fn present(self, host: &impl Host) -> io::Result<u64> {
        let path = match self {
            Setting::OpenFiles => "/proc/self/limits",
            Setting::ListenBacklog => "/proc/sys/net/core/somaxconn",
            Setting::LocalPorts => "/proc/sys/net/ipv4/ip_local_port_range",
            Setting::IoUringDisabled => "/proc/sys/kernel/io_uring_disabled",
            Setting::SchedulerAutogroup => "/proc/sys/kernel/sched_autogroup_enabled",
        };
        let text =
            host.read(path).map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))?;
        self.parse(&text).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{path}: no number where expected"))
        })
    }

    fn parse(self, text: &str) -> Option<u64> {
        match self {
            Setting::OpenFiles => {
                let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
                let soft = line.split_whitespace().next()?;
                if soft == "unlimited" { Some(u64::MAX) } else { soft.parse().ok() }
            }
            Setting::LocalPorts => {
                let mut bounds = text.split_whitespace().map(str::parse::<u64>);
                let (low, high) = (bounds.next()?.ok()?, bounds.next()?.ok()?);
                Some((high + 1).checked_sub(low)?)
            }
            _ => text.trim().parse().ok(),
        }
    }
}

/// One setting beside what it should be.
#[derive(Debug)]
pub struct Finding {
    /// What the profile wants.
    pub wanted: Wanted,
    /// What the machine has, or why that cannot be told.
    pub present: io::Result<u64>,
}

impl Finding {
    /// Whether the machine serves.
    pub fn serves(&self) -> bool {
        let Ok(present) = self.present else { return false };
        self.wanted.at_least.is_none_or(|least| present >= least)
            && self.wanted.exactly.is_none_or(|exact| present == exact)
    }
}

/// Compares a machine with a profile, setting by setting.
pub fn check(profile: &Profile, host: &impl Host) -> Vec<Finding> {
    let finding = |wanted: &Wanted| Finding { wanted: wanted.clone(), present: wanted.setting.present(host) };
    profile.settings.iter().map(finding).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Machine(&'static [(&'static str, &'static str)]);

    impl Host for Machine {
        fn read(&self, path: &str) -> io::Result<String> {
            let file = self.0.iter().find(|(known, _)| *known == path);
            file.map(|(_, text)| (*text).to_owned()).ok_or_else(|| io::ErrorKind::NotFound.into())
        }
    }

    const LIMITS: &str =
        "Limit  Soft Limit Hard Limit Units\nMax open files            20000   20000   files\n";

    #[test]
    fn values_are_read_where_the_kernel_says_them() {
        let machine = Machine(&[
            ("/proc/self/limits", LIMITS),
            ("/proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n"),
            ("/proc/sys/net/core/somaxconn", "four\n"),
        ]);
        assert_eq!(Setting::OpenFiles.present(&machine).expect("there"), 20_000);
        assert_eq!(Setting::LocalPorts.present(&machine).expect("there"), 28_232);
        let unreadable = Setting::ListenBacklog.present(&machine).expect_err("no number");
        assert!(unreadable.to_string().contains("somaxconn"), "{unreadable}");
        assert!(Setting::IoUringDisabled.present(&machine).is_err());
    }

    #[test]
    fn a_setting_serves_only_within_what_is_wanted() {
        let profile =
            "role = 'r'\n[[settings]]\nsetting = 'open_files'\nat_least = LEAST\nreason = 'x'\ncost = 'y'";
        for (least, serves) in [("20000", true), ("20001", false)] {
            let profile = Profile::parse("p", &profile.replace("LEAST", least)).expect("fits");
            let findings = check(&profile, &Machine(&[("/proc/self/limits", LIMITS)]));
            assert_eq!(findings[0].serves(), serves, "{least}");
        }
        let unknown = check(&Profile::named("single").expect("comes with us"), &Machine(&[]));
        assert!(unknown.iter().all(|finding| !finding.serves()), "what cannot be read does not serve");
    }

    #[test]
    fn a_profile_wants_exactly_one_thing() {
        let both = "role = 'r'\n[[settings]]\nsetting = 'open_files'\nat_least = 1\nexactly = 1\nreason = ''\ncost = ''";
        assert!(Profile::parse("p", both).is_err());
        assert!(Profile::parse("p", "role = 'r'\nsettings = []\ncolour = 1").is_err());
        assert!(Profile::named("other").is_err());
    }
}

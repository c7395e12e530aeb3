//! A control group that bounds a process' memory, the kernel's share for its sockets included.

use crate::right::{Right, refused};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// How one version of control groups is spoken to.
struct Interface {
    root: &'static str,
    limit: &'static str,
    peak: &'static str,
}

const INTERFACES: [Interface; 2] = [
    Interface { root: "/sys/fs/cgroup", limit: "memory.max", peak: "memory.peak" },
    Interface {
        root: "/sys/fs/cgroup/memory",
        limit: "memory.limit_in_bytes",
        peak: "memory.max_usage_in_bytes",
    },
];

/// The kernel ends a process in it that asks for more. Goes when it is dropped; its processes have to be gone by then.
pub struct MemoryGroup {
    interface: &'static Interface,
    folder: PathBuf,
}

impl MemoryGroup {
    /// `None`: this machine has no such groups, or does not permit them to whoever runs the tests, and is not known to.
    pub fn new(limit_bytes: u64) -> Option<Self> {
        let group = INTERFACES.iter().find_map(|interface| {
            let folder = Path::new(interface.root).join(format!("ringline-test-{}", std::process::id()));
            // One that a killed process of the same number has left: where nobody is in it, it goes.
            let _ = fs::remove_dir(&folder);
            fs::create_dir(&folder).ok()?;
            let group = Self { interface, folder };
            // Never made: a folder in which the kernel has not put it is no group.
            let mut limit = OpenOptions::new().write(true).open(group.folder.join(interface.limit)).ok()?;
            write!(limit, "{limit_bytes}").ok()?;
            fs::read_to_string(group.folder.join(interface.peak)).ok()?;
            Some(group)
        });
        if group.is_none() {
            refused(Right::Cgroups, "no control group bounds the memory of a server");
        }
        group
    }

    /// Whoever writes its number into this file is in the group.
    pub fn members(&self) -> PathBuf {
        self.folder.join("cgroup.procs")
    }

    /// The most that it ever held, in bytes: pages of files included, which the kernel takes back when it must.
    pub fn peak_bytes(&self) -> u64 {
        let peak = fs::read_to_string(self.folder.join(self.interface.peak)).expect("the kernel tells");
        peak.trim().parse().expect("a number")
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // One that stays behind harms nobody.
        let _ = fs::remove_dir(&self.folder);
    }
}

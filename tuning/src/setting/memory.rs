//! Memory of the machine: huge pages, swapping, mappings, NUMA.

use super::value::{Bound, Change, Edit, Kind, Present, Room, Source, Spec};
use super::{Setting, read, sysctl};
use crate::host::Host;

const SWAPPINESS: &str = "/proc/sys/vm/swappiness";
const SWAPS: &str = "/proc/swaps";

pub(super) fn spec(setting: Setting) -> Spec {
    let none = "this kernel has no transparent huge pages";
    let (name, what, source) = match setting {
        Setting::HugePagesDefrag => (
            "transparent_hugepage/defrag",
            "whether a page fault waits while memory is moved about to make a huge page",
            Source::Choice { path: "/sys/kernel/mm/transparent_hugepage/defrag", absent: none },
        ),
        Setting::Swappiness => (
            "vm.swappiness",
            "how readily the kernel swaps a process's memory out to keep more of the page cache",
            Source::Computed { kind: Kind::Number, room: &Swap },
        ),
        Setting::MemoryMappings => (
            "vm.max_map_count",
            "separate mappings a process may have: rings, stacks, large allocations",
            Source::Sysctl { path: "/proc/sys/vm/max_map_count", field: 0, absent: None },
        ),
        Setting::NumaBalancing => (
            "kernel.numa_balancing",
            "1: the kernel unmaps memory now and then to see which node uses it, and moves it there",
            Source::Sysctl {
                path: "/proc/sys/kernel/numa_balancing",
                field: 0,
                absent: Some("this kernel does not balance memory over nodes"),
            },
        ),
        _ => (
            "transparent_hugepage/enabled",
            "whose memory is made of 2 MiB pages without being asked",
            Source::Choice { path: "/sys/kernel/mm/transparent_hugepage/enabled", absent: none },
        ),
    };
    Spec { name, what, source }
}

/// Without swap the number means nothing.
struct Swap;

impl Room for Swap {
    fn present(&self, _: Setting, host: &dyn Host) -> Present {
        match read(host, SWAPS, Some("this kernel cannot swap")) {
            Err(present) => present,
            // The first line is the heading.
            Ok(text) if text.lines().nth(1).is_none() => {
                Present::NotApplicable(format!("this machine has no swap ({SWAPS} is empty)"))
            }
            Ok(_) => sysctl(host, SWAPPINESS, 0, None),
        }
    }

    fn change(&self, _: Setting, bound: &Bound, _: &dyn Host) -> Change {
        let value = bound.number().unwrap_or_default().to_string();
        Change::Edits(vec![Edit { path: SWAPPINESS.to_owned(), field: None, value }])
    }
}

//! Facts of this machine, and the commit of the tree that runs.

use crate::report::results::HostFacts;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What stands where the kernel says nothing.
const UNKNOWN: &str = "unknown";
/// A file that only this project's tree has, to tell it from other checkouts.
const LANDMARK: &str = "bench/src/report/results.rs";

/// Facts of this machine under a role ("coordinator", "agent-1").
pub fn host_facts(role: &str) -> HostFacts {
    let line = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let governor = line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
    let clock_source = line("/sys/devices/system/clocksource/clocksource0/current_clocksource");
    HostFacts {
        role: role.to_owned(),
        kernel: line("/proc/sys/kernel/osrelease").unwrap_or_else(|| UNKNOWN.into()),
        cpu_model: parse_cpu_model(&text("/proc/cpuinfo")),
        cpus: std::thread::available_parallelism().map_or(0, |cpus| cpus.get() as u32),
        memory_bytes: parse_memory(&text("/proc/meminfo")),
        open_files_max: parse_open_files(&text("/proc/self/limits")),
        governor: governor.unwrap_or_else(|| "none".into()),
        clock_source: clock_source.unwrap_or_else(|| UNKNOWN.into()),
    }
}

fn parse_cpu_model(cpuinfo: &str) -> String {
    // ARM has no name of the model in it, but a part number.
    let named = |key: &str| {
        let line = cpuinfo.lines().find(|line| line.starts_with(key))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let part = || Some(format!("implementer {} part {}", named("CPU implementer")?, named("CPU part")?));
    named("model name").or_else(part).unwrap_or_else(|| UNKNOWN.into())
}

fn parse_memory(meminfo: &str) -> u64 {
    super::process::parse_named(meminfo, "MemTotal:").unwrap_or(0) * 1_024
}

fn parse_open_files(limits: &str) -> u64 {
    let soft = limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next());
    match soft {
        Some("unlimited") => u64::MAX,
        other => other.and_then(|soft| soft.parse().ok()).unwrap_or(0),
    }
}

/// Commit of the tree the harness runs from, with "+changes" if it was not clean; "unknown" outside of a checkout.
/// Looked for around the running program, then around the present folder.
pub fn commit() -> String {
    let program = std::env::current_exe().ok();
    let present = std::env::current_dir().ok();
    let mut folders = [program.as_deref().and_then(Path::parent), present.as_deref()].into_iter().flatten();
    folders.find_map(commit_of).unwrap_or_else(|| UNKNOWN.into())
}

/// Commit of the checkout of this project around `folder`.
fn commit_of(folder: &Path) -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(folder).args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    let top = PathBuf::from(git(&["rev-parse", "--show-toplevel"])?);
    if !top.join(LANDMARK).is_file() {
        return None;
    }
    let commit = git(&["rev-parse", "HEAD"])?;
    let changes = git(&["status", "--porcelain"])?;
    Some(if changes.is_empty() { commit } else { format!("{commit}+changes") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::right::{Right, refused};

    #[test]
    fn facts_are_read_from_the_kernels_texts() {
        let intel = "processor\t: 0\nmodel name\t: Some Processor @ 2.9GHz\nflags: a b\n";
        assert_eq!(parse_cpu_model(intel), "Some Processor @ 2.9GHz");
        let arm = "processor : 0\nCPU implementer : 0x41\nCPU part : 0xd0c\n";
        assert_eq!(parse_cpu_model(arm), "implementer 0x41 part 0xd0c");
        assert_eq!(parse_cpu_model(""), "unknown");
        assert_eq!(parse_memory("MemTotal:       24000 kB\nMemFree: 1 kB\n"), 24_000 * 1_024);
        let limits = "Limit   Soft Limit  Hard Limit  Units\nMax open files   20000   30000   files\n";
        assert_eq!(parse_open_files(limits), 20_000);
        assert_eq!(parse_open_files("Max open files   unlimited   unlimited   files\n"), u64::MAX);
    }

    #[test]
    fn this_machine_has_facts() {
        let facts = host_facts("coordinator");
        assert_eq!(facts.role, "coordinator");
        assert!(facts.cpus > 0 && facts.memory_bytes > 0 && facts.open_files_max > 0, "{facts:?}");
        assert!(facts.kernel != UNKNOWN && !facts.governor.is_empty());
    }

    #[test]
    fn only_a_checkout_of_this_project_has_a_commit() {
        assert_eq!(commit_of(Path::new("/proc")), None);
        assert_eq!(commit_of(Path::new("/no/such/folder")), None);
        let bench = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo says where this checkout is");
        let Some(commit) = commit_of(Path::new(&bench)) else {
            return refused(Right::Checkout, "this is an archive, or git does not trust its owner");
        };
        let hash = commit.strip_suffix("+changes").unwrap_or(&commit);
        assert!(hash.len() >= 40 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()), "{commit}");
    }
}

//! What the machine says of a server: memory, CPU, disk.

pub mod histogram;

use std::fs;
use std::io;

/// A server process at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Process {
    /// Private memory, in bytes: what the process alone keeps resident.
    pub private_bytes: u64,
    /// User and system CPU time, in milliseconds.
    pub cpu_ms: u64,
}

/// Clock ticks a second in `/proc/PID/stat`: fixed at 100 for user space on Linux.
const TICKS_A_SECOND: u64 = 100;

/// Reads a process of this machine.
pub fn process(pid: u32) -> io::Result<Process> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let private_kib: u64 = rollup
        .lines()
        .filter(|line| line.starts_with("Private_"))
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
        .sum();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name may hold spaces and brackets: fields are counted behind its last bracket.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    let cpu_ms = (ticks(11) + ticks(12)) * 1_000 / TICKS_A_SECOND;
    Ok(Process { private_bytes: private_kib * 1_024, cpu_ms })
}

/// Kernel memory of the machine that connections grow, in bytes: slab, socket buffers and page tables.
pub fn kernel_bytes() -> io::Result<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo")?;
    let kib = |name: &str| {
        let line = meminfo.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0)
    };
    let sockstat = fs::read_to_string("/proc/net/sockstat")?;
    let pages = sockstat.lines().find(|line| line.starts_with("TCP:")).and_then(|line| {
        line.split_whitespace().skip_while(|word| *word != "mem").nth(1)?.parse::<u64>().ok()
    });
    Ok((kib("Slab:") + kib("PageTables:")) * 1_024 + pages.unwrap_or(0) * 4_096)
}

//! What the machine says of servers: CPU, memory, switches, disk, system calls, and their own counters.
//!
//! Parsers are pure functions over the kernel's texts; readers beside them fetch those texts. [`sampler::Sampler`]
//! reads all of it for several servers, once a second and around the measured time. It refuses to know of plans
//! and agents: the coordinator says when measured time begins and ends.

pub mod histogram;
pub mod process;
pub mod system_calls;
pub mod metrics;
pub mod machine;
pub mod host;
pub mod sampler;

pub use machine::kernel_bytes;

use std::io;

/// A server process at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Process {
    /// Private memory, in bytes: what the process alone keeps resident.
    pub private_bytes: u64,
    /// User and system CPU time, in milliseconds.
    pub cpu_ms: u64,
}

/// Reads a process of this machine, memory exactly: for moments, not for every second.
pub fn process(pid: u32) -> io::Result<Process> {
    let cpu = process::cpu(pid)?;
    Ok(Process { private_bytes: process::private_bytes(pid)?, cpu_ms: cpu.user_ms + cpu.system_ms })
}

//! The whole machine: busy time of each CPU, what an interface carried, kernel memory that connections grow.

use crate::report::results::MachineResult;
use std::fs;
use std::io;

/// Pages of TCP's memory are counted in this size.
const TCP_PAGE_BYTES: u64 = 4_096;

/// Ticks of one CPU since the machine started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CpuTicks {
    /// Doing something, or taken by the hypervisor while something waited.
    pub busy: u64,
    /// Taken by the hypervisor while something waited: part of busy.
    pub stolen: u64,
    /// Everything.
    pub all: u64,
}

/// What an interface has carried since it exists.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Traffic {
    /// Both directions; on loopback, where both are the same, one.
    pub bytes: u64,
    /// Likewise.
    pub packets: u64,
}

/// The machine at one moment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Machine {
    /// In the order of the kernel's numbers.
    pub cpus: Vec<CpuTicks>,
    /// Of the interface that was asked for.
    pub traffic: Traffic,
    /// See [`kernel_bytes`].
    pub kernel_bytes: u64,
}

/// Reads `/proc/stat`: the CPUs, in order.
pub fn parse_cpus(text: &str) -> Vec<CpuTicks> {
    let numbered = |line: &&str| line.starts_with("cpu") && !line.starts_with("cpu ");
    let cpus = text.lines().filter(numbered).map(|line| {
        // user nice system idle iowait irq softirq steal; the guest's ticks behind are within user and nice.
        let ticks: Vec<u64> =
            line.split_whitespace().skip(1).take(8).filter_map(|n| n.parse().ok()).collect();
        let all = ticks.iter().sum();
        let idle: u64 = ticks.iter().skip(3).take(2).sum();
        CpuTicks { busy: all - idle, stolen: ticks.get(7).copied().unwrap_or(0), all }
    });
    cpus.collect()
}

/// Reads `/proc/net/dev`; `None`: there is no such interface.
pub fn parse_traffic(text: &str, interface: &str) -> Option<Traffic> {
    let fields = text.lines().find_map(|line| {
        let (name, fields) = line.split_once(':')?;
        (name.trim() == interface).then_some(fields)
    })?;
    let fields: Vec<u64> = fields.split_whitespace().filter_map(|field| field.parse().ok()).collect();
    let (received, sent) = (fields.get(0..2)?, fields.get(8..10)?);
    if interface == "lo" {
        return Some(Traffic { bytes: sent[0], packets: sent[1] });
    }
    Some(Traffic { bytes: received[0] + sent[0], packets: received[1] + sent[1] })
}

/// Reads `/proc/meminfo` and `/proc/net/sockstat`: slab, page tables and socket buffers, in bytes.
pub fn parse_kernel_bytes(meminfo: &str, sockstat: &str) -> u64 {
    let kib = |name: &str| {
        let line = meminfo.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0)
    };
    let pages = sockstat.lines().find(|line| line.starts_with("TCP:")).and_then(|line| {
        line.split_whitespace().skip_while(|word| *word != "mem").nth(1)?.parse::<u64>().ok()
    });
    (kib("Slab:") + kib("PageTables:")) * 1_024 + pages.unwrap_or(0) * TCP_PAGE_BYTES
}

/// Kernel memory of the machine that connections grow, in bytes: slab, socket buffers and page tables. Both ends
/// are in it if clients are on the same machine.
pub fn kernel_bytes() -> io::Result<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo")?;
    Ok(parse_kernel_bytes(&meminfo, &fs::read_to_string("/proc/net/sockstat")?))
}

/// Reads all of it.
pub fn read(interface: &str) -> io::Result<Machine> {
    let traffic = parse_traffic(&fs::read_to_string("/proc/net/dev")?, interface);
    let missing =
        || io::Error::new(io::ErrorKind::NotFound, format!("there is no interface {interface} here"));
    Ok(Machine {
        cpus: parse_cpus(&fs::read_to_string("/proc/stat")?),
        traffic: traffic.ok_or_else(missing)?,
        kernel_bytes: kernel_bytes()?,
    })
}

/// What happened between two moments.
pub fn difference(before: &Machine, after: &Machine) -> MachineResult {
    let share = |ticks: fn(&CpuTicks) -> u64| {
        let cpus = before.cpus.iter().zip(&after.cpus);
        cpus.map(|(before, after)| {
            let all = after.all.saturating_sub(before.all);
            (ticks(after).saturating_sub(ticks(before)) * 1_000).checked_div(all).unwrap_or(0)
        })
        .collect()
    };
    MachineResult {
        cpu_busy_milli: share(|ticks| ticks.busy),
        cpu_stolen_milli: share(|ticks| ticks.stolen),
        wire_bytes: after.traffic.bytes.saturating_sub(before.traffic.bytes),
        wire_packets: after.traffic.packets.saturating_sub(before.traffic.packets),
        kernel_bytes_start: before.kernel_bytes,
        kernel_bytes_end: after.kernel_bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_is_busy_when_neither_idle_nor_waiting_for_the_disk() {
        let text = "cpu  211069 34274 14965 25393 1166 0 186 8134 0 0\ncpu0 100 10 20 300 40 1 2 27 5 5\n\
                    cpu1 0 0 0 9 0 0 0 0 0 0\nintr 1108950 0\n";
        let expected =
            [CpuTicks { busy: 160, stolen: 27, all: 500 }, CpuTicks { busy: 0, stolen: 0, all: 9 }];
        assert_eq!(parse_cpus(text), expected);
        let later = [CpuTicks { busy: 210, stolen: 35, all: 600 }, CpuTicks { busy: 0, stolen: 0, all: 9 }];
        let [before, after] =
            [expected, later].map(|cpus| Machine { cpus: cpus.into(), ..Machine::default() });
        let passed = difference(&before, &after);
        assert_eq!(passed.cpu_busy_milli, [500, 0], "an unmoved clock divides by nothing");
        assert_eq!(passed.cpu_stolen_milli, [80, 0]);
    }

    #[test]
    fn loopback_counts_once_and_other_interfaces_both_ways() {
        let text = "Inter-|   Receive                                                |  Transmit\n \
            face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop\n    \
            lo:    3193      29    0    0    0     0          0         0     3193      29    0    0    0     0\n  \
            eth0: 421769695   10509    0    0    0     0          0         0   574274    6017    0    0    0     0\n";
        assert_eq!(parse_traffic(text, "lo"), Some(Traffic { bytes: 3_193, packets: 29 }));
        let both = Traffic { bytes: 421_769_695 + 574_274, packets: 10_509 + 6_017 };
        assert_eq!(parse_traffic(text, "eth0"), Some(both));
        assert_eq!(parse_traffic(text, "eth"), None);
    }

    #[test]
    fn kernel_memory_is_slab_page_tables_and_socket_buffers() {
        let meminfo = "MemTotal:       24 kB\nSlab:     100 kB\nKernelStack: 9 kB\nPageTables:   7 kB\nSecPageTables: 5 kB\n";
        let sockstat = "sockets: used 28\nTCP: inuse 2 orphan 0 tw 2 alloc 2 mem 148\nUDP: inuse 0 mem 3\n";
        assert_eq!(parse_kernel_bytes(meminfo, sockstat), 107 * 1_024 + 148 * 4_096);
        assert_eq!(parse_kernel_bytes("", ""), 0);
    }

    #[test]
    fn this_machine_can_be_read() {
        let machine = read("lo").expect("loopback");
        assert!(!machine.cpus.is_empty() && machine.kernel_bytes > 0);
        let refused = read("no-such-0").expect_err("not here").to_string();
        assert!(refused.contains("no-such-0"), "{refused}");
    }
}

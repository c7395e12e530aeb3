//! One process as `/proc/PID` describes it.
//!
//! Three readings of different cost: [`glance`] (CPU and memory, each second), [`read`] (threads, switches, disk;
//! two files for each thread) and [`private_bytes`] (exact memory: the kernel walks the whole address space and
//! holds the process' memory map meanwhile, so it is for the start, the end, and every few seconds).

use std::collections::BTreeMap;
use std::fs;
use std::io;

/// Clock ticks a second in `/proc/PID/stat`: fixed at 100 for user space on Linux.
const TICKS_A_SECOND: u64 = 100;
/// Threads looked at in one process: beyond it their names and switches are not told apart.
const THREADS_MAX: usize = 4_096;
/// Descendants looked at of one server: PostgreSQL has one process for each connection.
const PROCESSES_MAX: usize = 4_096;
/// Memory is counted in pages of this size if the kernel does not say otherwise.
const PAGE_BYTES: u64 = 4_096;

/// CPU time since the start, in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cpu {
    /// In the process itself.
    pub user_ms: u64,
    /// In the kernel.
    pub system_ms: u64,
}

/// What is cheap enough for every second.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Glance {
    /// Of all threads, ended ones included.
    pub cpu: Cpu,
    /// Resident memory without files and shared memory: grows with private memory, but is not equal to it.
    pub anonymous_bytes: u64,
}

/// One thread.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Thread {
    /// As the process named it; 15 bytes at most.
    pub name: String,
    /// User and system time, in milliseconds.
    pub cpu_ms: u64,
    /// Switches it asked for.
    pub voluntary: u64,
    /// Switches it suffered.
    pub involuntary: u64,
}

/// Everything but exact memory.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reading {
    /// The cheap part.
    pub glance: Glance,
    /// Living threads by id.
    pub threads: BTreeMap<u32, Thread>,
    /// `syscr` and `syscw`.
    pub read_write_calls: u64,
    /// Bytes sent on their way to the disk.
    pub disk_write_bytes: u64,
}

/// Name and CPU of a `stat` file, of a process or of a thread.
pub fn parse_stat(text: &str) -> Option<(&str, Cpu)> {
    // The name may hold spaces and brackets: it ends at the last bracket.
    let (head, fields) = text.rsplit_once(')')?;
    let (_, name) = head.split_once('(')?;
    let mut ticks = fields.split_whitespace().skip(11).map(str::parse::<u64>);
    let mut next_ms = || Some(ticks.next()?.ok()? * 1_000 / TICKS_A_SECOND);
    Some((name, Cpu { user_ms: next_ms()?, system_ms: next_ms()? }))
}

/// Anonymous bytes of a `statm` file: resident without what files and shared memory back.
pub fn parse_statm(text: &str, page_bytes: u64) -> Option<u64> {
    let mut pages = text.split_whitespace().skip(1).map(str::parse::<u64>);
    let (resident, shared) = (pages.next()?.ok()?, pages.next()?.ok()?);
    Some(resident.saturating_sub(shared) * page_bytes)
}

/// Private bytes of a `smaps_rollup` file.
pub fn parse_private(text: &str) -> Option<u64> {
    let mut kib = None;
    for line in text.lines().filter(|line| line.starts_with("Private_")) {
        let value: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
        *kib.get_or_insert(0) += value;
    }
    kib.map(|kib| kib * 1_024)
}

/// Number behind `name` ("syscw:", "voluntary_ctxt_switches:") at the start of a line.
pub fn parse_named(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Size of a page from the kernel's auxiliary vector (`/proc/self/auxv`).
fn parse_page_bytes(auxiliary: &[u8]) -> Option<u64> {
    /// Key of the page's size.
    const PAGE_SIZE_KEY: u64 = 6;
    let word = |bytes: &[u8]| Some(u64::from_ne_bytes(bytes.try_into().ok()?));
    let mut pairs = auxiliary.chunks_exact(16).filter_map(|pair| {
        let (key, value) = pair.split_at(8);
        Some((word(key)?, word(value)?))
    });
    pairs.find(|(key, _)| *key == PAGE_SIZE_KEY).map(|(_, bytes)| bytes)
}

/// Size of a page on this machine, in bytes.
pub fn page_bytes() -> u64 {
    fs::read("/proc/self/auxv").ok().and_then(|bytes| parse_page_bytes(&bytes)).unwrap_or(PAGE_BYTES)
}

fn unreadable(path: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{path} is not as expected"))
}

fn text_of(path: &str) -> io::Result<String> {
    // Names are the process' own and need not be text.
    let bytes = fs::read(path).map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// CPU time of a process, ended threads included.
pub fn cpu(pid: u32) -> io::Result<Cpu> {
    let path = format!("/proc/{pid}/stat");
    let text = text_of(&path)?;
    parse_stat(&text).map(|(_, cpu)| cpu).ok_or_else(|| unreadable(&path))
}

/// The cheap reading.
pub fn glance(pid: u32, page_bytes: u64) -> io::Result<Glance> {
    let path = format!("/proc/{pid}/statm");
    let anonymous_bytes = parse_statm(&text_of(&path)?, page_bytes).ok_or_else(|| unreadable(&path))?;
    Ok(Glance { cpu: cpu(pid)?, anonymous_bytes })
}

/// Everything but exact memory. A thread that ends meanwhile is left out.
pub fn read(pid: u32, page_bytes: u64) -> io::Result<Reading> {
    let mut threads = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))?.take(THREADS_MAX) {
        let Some(thread) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        threads.extend(read_thread(pid, thread).map(|read| (thread, read)));
    }
    // Another user's process hides its disk use; the rest still counts.
    let io = text_of(&format!("/proc/{pid}/io")).unwrap_or_default();
    let of_io = |name| parse_named(&io, name).unwrap_or(0);
    Ok(Reading {
        glance: glance(pid, page_bytes)?,
        threads,
        read_write_calls: of_io("syscr:") + of_io("syscw:"),
        disk_write_bytes: of_io("write_bytes:"),
    })
}

fn read_thread(pid: u32, thread: u32) -> Option<Thread> {
    let stat = text_of(&format!("/proc/{pid}/task/{thread}/stat")).ok()?;
    let status = text_of(&format!("/proc/{pid}/task/{thread}/status")).ok()?;
    let (name, cpu) = parse_stat(&stat)?;
    Some(Thread {
        name: name.to_owned(),
        cpu_ms: cpu.user_ms + cpu.system_ms,
        voluntary: parse_named(&status, "voluntary_ctxt_switches:")?,
        involuntary: parse_named(&status, "nonvoluntary_ctxt_switches:")?,
    })
}

/// Private memory, in bytes; costly (see above).
pub fn private_bytes(pid: u32) -> io::Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    parse_private(&text_of(&path)?).ok_or_else(|| unreadable(&path))
}

/// Open files. Sockets in an io_uring's own file table are not among them.
pub fn open_files(pid: u32) -> io::Result<u64> {
    let folder = format!("/proc/{pid}/fd");
    // Since Linux 6.2 the folder's length is the count; listing 100,000 files would grow the kernel's memory.
    match fs::metadata(&folder)?.len() {
        0 => Ok(fs::read_dir(&folder)?.count() as u64),
        count => Ok(count),
    }
}

/// A process and everything it started that lives, itself first. Empty if it is gone.
pub fn family(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        next += 1;
        let Ok(threads) = fs::read_dir(format!("/proc/{parent}/task")) else {
            found.retain(|known| *known != parent);
            next -= 1;
            continue;
        };
        for thread in threads.flatten() {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            let children = children.split_whitespace().filter_map(|child| child.parse::<u32>().ok());
            found.extend(children.take(PROCESSES_MAX.saturating_sub(found.len())));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_behind_the_names_last_bracket() {
        let text = "17593 (a) b (c)) S 17592 17593 17593 0 -1 4194560 3106 125 0 134 7 31 2963 714 20 0 5 0 13490 1 2";
        let cpu = Cpu { user_ms: 70, system_ms: 310 };
        assert_eq!(parse_stat(text), Some(("a) b (c)", cpu)));
        assert_eq!(parse_stat("17593 (bash) S 1 2"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn memory_is_read_in_its_unit() {
        assert_eq!(parse_statm("1251 992 394 235 0 123 0\n", 4_096), Some((992 - 394) * 4_096));
        assert_eq!(parse_statm("1251", 4_096), None);
        let rollup = "5580-7fff ---p 00000000 00:00 0    [rollup]\nRss:    3976 kB\nShared_Clean:  1500 kB\n\
                      Private_Clean:   120 kB\nPrivate_Dirty:   500 kB\nPrivate_Hugetlb: 2048 kB\nSwap: 9 kB\n";
        assert_eq!(parse_private(rollup), Some((120 + 500 + 2_048) * 1_024));
        assert_eq!(parse_private("Rss: 1 kB\n"), None);
    }

    #[test]
    fn names_are_matched_from_the_start_of_the_line() {
        let status = "Name:\tx\nvoluntary_ctxt_switches:\t72\nnonvoluntary_ctxt_switches:\t12\n";
        assert_eq!(parse_named(status, "voluntary_ctxt_switches:"), Some(72));
        assert_eq!(parse_named(status, "nonvoluntary_ctxt_switches:"), Some(12));
        let io = "rchar: 6976\nsyscr: 10\nsyscw: 3\nwrite_bytes: 4096\ncancelled_write_bytes: 7\n";
        assert_eq!(parse_named(io, "write_bytes:"), Some(4_096));
        assert_eq!(parse_named(io, "bytes:"), None);
    }

    #[test]
    fn a_page_has_the_size_the_kernel_says() {
        let mut auxiliary = Vec::new();
        for word in [33u64, 1, 6, 16_384, 0, 0] {
            auxiliary.extend_from_slice(&word.to_ne_bytes());
        }
        assert_eq!(parse_page_bytes(&auxiliary), Some(16_384));
        assert_eq!(parse_page_bytes(&auxiliary[..20]), None);
        assert!(page_bytes().is_power_of_two());
    }

    #[test]
    fn this_process_reads_itself() {
        let own = std::process::id();
        let reading = read(own, page_bytes()).expect("our own folder");
        assert!(reading.threads.contains_key(&own), "the first thread has the process' id");
        assert!(reading.glance.anonymous_bytes > 0);
        let exact = private_bytes(own).expect("our own memory");
        assert!(exact > reading.glance.anonymous_bytes / 2, "{exact} against {reading:?}");
        assert!(open_files(own).expect("our own files") >= 3);
        assert_eq!(family(own).first(), Some(&own));
        assert!(family(u32::MAX).is_empty() && read(u32::MAX, 4_096).is_err());
    }
}

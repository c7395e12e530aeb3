//! What one server did since measured time began: over all its processes, those that ended and those that came.

use super::{CountCalls, Scope, ServerProcess, note};
use crate::measure::metrics::{self, Counters};
use crate::measure::process::{self, Glance, Reading, Thread};
use crate::measure::system_calls::{Counting, SystemCalls};
use crate::report::results::ServerResult;
use std::collections::BTreeMap;
use std::io;

/// Threads named in a result, largest first.
const THREADS_SHOWN_MAX: usize = 32;
/// Threads remembered of one process, ended ones included: those of a day with one new thread a minute.
const THREADS_KEPT_MAX: usize = 2_048;

/// One process since measured time began.
#[derive(Clone, Debug, Default)]
struct Track {
    /// Zero for one that appeared later: all it did counts.
    before: Reading,
    last: Reading,
    private_start: u64,
    /// Exact memory, and anonymous memory at the same moment: the estimate moves by the latter's change.
    exact: (u64, u64),
    gone: bool,
}

impl Track {
    fn cpu_ms(&self) -> u64 {
        self.last.glance.cpu.user_ms + self.last.glance.cpu.system_ms
    }

    fn private_bytes(&self) -> u64 {
        let (exact, anonymous) = self.exact;
        if self.gone { 0 } else { (exact + self.last.glance.anonymous_bytes).saturating_sub(anonymous) }
    }

    /// Takes a new reading; threads that have ended keep their last one.
    fn update(&mut self, mut reading: Reading) {
        let mut threads = std::mem::take(&mut self.last.threads);
        for (id, thread) in std::mem::take(&mut reading.threads) {
            if threads.len() < THREADS_KEPT_MAX || threads.contains_key(&id) {
                threads.insert(id, thread);
            }
        }
        self.last = Reading { threads, ..reading };
    }

    fn glance(&mut self, glance: io::Result<Glance>) {
        match glance {
            Ok(glance) => self.last.glance = glance,
            Err(_) => self.gone = true,
        }
    }

    /// What each thread did: (now, before).
    fn threads(&self) -> impl Iterator<Item = (&Thread, Thread)> {
        self.last.threads.iter().map(|(id, thread)| {
            let before = self.before.threads.get(id).cloned().unwrap_or_default();
            (thread, before)
        })
    }
}

/// A server, looked at again and again.
pub struct Probe {
    server: ServerProcess,
    tracks: BTreeMap<u32, Track>,
    counters: CounterTrack,
    /// Of the last reading.
    levels: Counters,
    calls: Vec<Counting>,
    /// A count that could not be started makes the sum meaningless.
    calls_failed: bool,
}

impl Probe {
    pub fn new(server: ServerProcess) -> Self {
        Self {
            server,
            tracks: BTreeMap::new(),
            counters: CounterTrack::default(),
            levels: Counters::new(),
            calls: Vec::new(),
            calls_failed: true,
        }
    }

    pub fn name(&self) -> &str {
        &self.server.name
    }

    /// CPU of all its processes since each began, those that are gone included until measured time begins anew.
    pub fn cpu_ms(&self) -> u64 {
        self.tracks.values().map(Track::cpu_ms).sum()
    }

    pub fn begin_counting(&mut self, count_calls: CountCalls) {
        self.calls.clear();
        self.calls_failed = count_calls == CountCalls::No;
        self.start_counting();
    }

    fn start_counting(&mut self) {
        if self.calls_failed {
            return;
        }
        match Counting::start(&self.pids()) {
            Some(counting) => self.calls.push(counting),
            None => self.calls_failed = true,
        }
    }

    fn pids(&self) -> Vec<u32> {
        match self.server.scope {
            Scope::Process => vec![self.server.pid],
            Scope::Family => process::family(self.server.pid),
        }
    }

    pub fn glance(&mut self, page_bytes: u64) {
        for (pid, track) in self.tracks.iter_mut().filter(|(_, track)| !track.gone) {
            track.glance(process::glance(*pid, page_bytes));
        }
    }

    pub fn read(&mut self, page_bytes: u64, problems: &mut Vec<String>) {
        let pids = self.pids();
        for (pid, track) in &mut self.tracks {
            track.gone |= !pids.contains(pid);
        }
        for pid in pids {
            let (Ok(reading), exact) = (process::read(pid, page_bytes), process::private_bytes(pid)) else {
                self.tracks.entry(pid).and_modify(|track| track.gone = true);
                continue;
            };
            let track = self.tracks.entry(pid).or_default();
            match exact {
                Ok(exact) => track.exact = (exact, reading.glance.anonymous_bytes),
                Err(error) => note(problems, format!("{}: {error}", self.server.name)),
            }
            track.update(reading);
        }
        let is_there = self.tracks.values().any(|track| !track.gone);
        if let Some(page) = self.server.metrics.as_ref().filter(|_| is_there) {
            match page.fetch() {
                Ok(page) => {
                    self.counters.update(page.counters);
                    self.levels = page.gauges;
                }
                Err(error) => note(problems, format!("{}: {error}", self.server.name)),
            }
        }
    }

    pub fn private_bytes(&self) -> u64 {
        self.tracks.values().map(Track::private_bytes).sum()
    }

    pub fn begin(&mut self) {
        self.tracks.retain(|_, track| !track.gone);
        for track in self.tracks.values_mut() {
            track.private_start = track.private_bytes();
            track.before = track.last.clone();
        }
        self.counters.begin();
    }

    pub fn restarted(&mut self, pid: u32, page_bytes: u64) {
        self.tracks.values_mut().for_each(|track| track.gone = true);
        self.server.pid = pid;
        self.counters.restarted();
        // The kernel may give the id of a process that is gone once more: then its past is lost, not counted twice.
        self.tracks.insert(pid, Track::default());
        self.glance(page_bytes);
        if !self.calls.is_empty() {
            self.start_counting();
        }
    }

    pub fn end(&mut self) -> ServerResult {
        let calls = self.end_counting();
        let sum = |value: fn(&Reading) -> u64| -> u64 {
            self.tracks.values().map(|track| value(&track.last).saturating_sub(value(&track.before))).sum()
        };
        let counters = self.counters.changes();
        let counted_syncs = self.counters.last.as_ref().and_then(metrics::log_syncs);
        let log_syncs = counted_syncs.map(|_| metrics::log_syncs(&counters).unwrap_or(0.0) as u64);
        let (mut voluntary, mut involuntary) = (0, 0);
        for (now, before) in self.tracks.values().flat_map(Track::threads) {
            voluntary += now.voluntary.saturating_sub(before.voluntary);
            involuntary += now.involuntary.saturating_sub(before.involuntary);
        }
        let alive = self.tracks.iter().filter(|(_, track)| !track.gone);
        ServerResult {
            name: self.server.name.clone(),
            user_ms: sum(|reading| reading.glance.cpu.user_ms),
            system_ms: sum(|reading| reading.glance.cpu.system_ms),
            threads: self.thread_times(),
            private_bytes_start: self.tracks.values().map(|track| track.private_start).sum(),
            private_bytes_end: self.private_bytes(),
            switches_voluntary: voluntary,
            switches_involuntary: involuntary,
            read_write_calls: sum(|reading| reading.read_write_calls),
            system_calls: calls.map(|calls| calls.entered),
            disk_write_bytes: sum(|reading| reading.disk_write_bytes),
            // A peer without counters has at least its calls for syncs, if those could be counted.
            log_syncs: log_syncs.or(calls.map(|calls| calls.syncs)),
            open_files: alive.map(|(pid, _)| process::open_files(*pid).unwrap_or(0)).sum(),
            counters,
            levels: self.levels.clone(),
        }
    }

    fn end_counting(&mut self) -> Option<SystemCalls> {
        let counted: Option<Vec<SystemCalls>> = self.calls.drain(..).map(Counting::finish).collect();
        let counted = counted.filter(|all| !self.calls_failed && !all.is_empty())?;
        let sum = |value: fn(&SystemCalls) -> u64| counted.iter().map(value).sum();
        Some(SystemCalls { entered: sum(|calls| calls.entered), syncs: sum(|calls| calls.syncs) })
    }

    /// CPU by thread name, largest first; threads that did nothing are left out.
    fn thread_times(&self) -> Vec<(String, u64)> {
        let mut by_name: BTreeMap<&str, u64> = BTreeMap::new();
        for (now, before) in self.tracks.values().flat_map(Track::threads) {
            *by_name.entry(&now.name).or_default() += now.cpu_ms.saturating_sub(before.cpu_ms);
        }
        let mut times: Vec<(String, u64)> =
            by_name.into_iter().filter(|(_, ms)| *ms > 0).map(|(name, ms)| (name.to_owned(), ms)).collect();
        times.sort_by(|(name, ms), (other, other_ms)| other_ms.cmp(ms).then_with(|| name.cmp(other)));
        times.truncate(THREADS_SHOWN_MAX);
        times
    }
}

/// A server's own counters across its restarts.
#[derive(Default)]
struct CounterTrack {
    before: Counters,
    last: Option<Counters>,
    /// What its earlier lives counted since measured time began.
    earlier: Counters,
}

impl CounterTrack {
    fn update(&mut self, counters: Counters) {
        self.last = Some(counters);
    }

    fn begin(&mut self) {
        self.before = self.last.clone().unwrap_or_default();
        self.earlier.clear();
    }

    /// The next life counts from zero; what the last one did after its last reading is lost.
    fn restarted(&mut self) {
        if let Some(last) = self.last.replace(Counters::new()) {
            metrics::add(&mut self.earlier, &metrics::difference(&self.before, &last));
        }
        self.before.clear();
    }

    fn changes(&self) -> Counters {
        let mut changes = self.earlier.clone();
        metrics::add(
            &mut changes,
            &metrics::difference(&self.before, self.last.as_ref().unwrap_or(&Counters::new())),
        );
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_go_on_across_restarts() {
        let page = |n: f64| Counters::from([("a_total".to_owned(), n)]);
        let mut track = CounterTrack::default();
        track.update(page(100.0));
        track.begin();
        track.update(page(107.0));
        track.restarted();
        track.update(page(3.0));
        assert_eq!(track.changes(), page(10.0));
        track.begin();
        track.update(page(4.0));
        assert_eq!(track.changes(), page(1.0));
    }

    #[test]
    fn threads_that_end_keep_their_share() {
        let thread = |cpu_ms, voluntary| Thread { name: "worker".into(), cpu_ms, voluntary, involuntary: 0 };
        let reading = |threads: &[(u32, Thread)]| Reading {
            threads: threads.iter().cloned().collect(),
            ..Reading::default()
        };
        let mut track = Track::default();
        track.update(reading(&[(1, thread(10, 1)), (2, thread(20, 2))]));
        track.before = track.last.clone();
        track.update(reading(&[(1, thread(15, 4)), (2, thread(90, 7))]));
        track.update(reading(&[(1, thread(18, 5)), (3, thread(4, 1))]));
        let cpu: u64 = track.threads().map(|(now, before)| now.cpu_ms - before.cpu_ms).sum();
        assert_eq!(cpu, 8 + 70 + 4);
    }
}

//! The thread beside each core that applies committed entries: it reads what they need, runs the domain, and
//! writes rows and applied index in one batch. It may block on disk; the core never does.

use super::shared::{Completion, NodeShared};
use crate::clock;
use crate::domain::{self, Overlay};
use crate::engine::HotRows;
use crate::failpoint::{self, Failpoint};
use crate::replication::decode_record;
use crate::shard::{AppliedEntry, AppliedJob, ApplyJob, ApplyWork, Cuts};
use crossbeam_channel::Receiver;
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use wire_protocol::ids::ShardId;
use wire_protocol::internal::CommandBatch;

/// No further job joins a batch of the store that has this many bytes of commands. One write of the store costs
/// some 10 µs, a command 15 µs: at 100 commands the write is paid for, and the shards that are answered go on while
/// the next ones are applied.
const STORE_BATCH_BYTES: usize = 32 * 1024;

/// What a store thread is asked to do.
#[derive(Debug)]
pub(crate) enum StoreRequest {
    /// Apply and report to the core.
    Apply(ApplyJob),
    /// A snapshot took the place of the shard's rows: what is remembered of them is void.
    Restored { shard: ShardId, time_ms: u64 },
    /// End after everything queued before.
    Stop,
}

/// Runs until it is told to stop, or until the store or the state machine fails.
pub(crate) fn run_store_thread(
    shared: &NodeShared,
    core: usize,
    requests: &Receiver<StoreRequest>,
    times: HashMap<ShardId, u64>,
) -> Result<(), String> {
    let mut applier = Applier::new(shared, core, HotRows::new(&*shared.store), times);
    while let Ok(request) = requests.recv() {
        if !applier.carry_out(request, requests)? {
            break;
        }
    }
    Ok(())
}

/// What a store thread keeps between two batches.
pub(crate) struct Applier<'a> {
    shared: &'a NodeShared,
    core: usize,
    hot: HotRows<'a>,
    times: HashMap<ShardId, u64>,
    jobs: Vec<ApplyJob>,
}

impl<'a> Applier<'a> {
    /// `times`: of the stored states of the core's shards.
    pub fn new(shared: &'a NodeShared, core: usize, hot: HotRows<'a>, times: HashMap<ShardId, u64>) -> Self {
        Self { shared, core, hot, times, jobs: Vec::new() }
    }

    /// Times of the states that it has applied, for the next one to go on from.
    #[cfg(any(test, feature = "sim"))]
    pub fn into_times(self) -> HashMap<ShardId, u64> {
        self.times
    }

    /// Takes a request and those that wait behind it, as many as fit one batch, and applies them. False: it was told
    /// to stop.
    pub fn carry_out(
        &mut self,
        first: StoreRequest,
        requests: &Receiver<StoreRequest>,
    ) -> Result<bool, String> {
        let mut bytes = 0;
        let mut goes_on = true;
        let mut next = Some(first);
        while let Some(request) = next {
            match request {
                StoreRequest::Stop => {
                    goes_on = false;
                    break;
                }
                StoreRequest::Restored { shard, time_ms } => {
                    // Jobs taken before it are of other shards: this one's were waited for.
                    self.hot.forget_all();
                    self.times.insert(shard, time_ms);
                }
                StoreRequest::Apply(job) => {
                    bytes += job.bytes;
                    self.jobs.push(job);
                }
            }
            next = if bytes < STORE_BATCH_BYTES { requests.try_recv().ok() } else { None };
        }
        if !self.jobs.is_empty() {
            self.apply_jobs()?;
        }
        Ok(goes_on)
    }

    fn apply_jobs(&mut self) -> Result<(), String> {
        let started = clock::now();
        let shared = self.shared;
        failpoint::pass(Failpoint::Committed);
        let mut overlay = Overlay::new(&self.hot);
        let mut done = Vec::with_capacity(self.jobs.len());
        for job in self.jobs.drain(..) {
            let time_ms = self.times.entry(job.shard).or_default();
            done.push(apply_job(&mut overlay, job, time_ms)?);
        }
        let batch = overlay.into_batch();
        let hot_rows = HotRows::hot_rows(&batch);
        failpoint::pass(Failpoint::Applied);
        shared.store.write(batch).map_err(|error| error.to_string())?;
        failpoint::pass(Failpoint::RowsWritten);
        self.hot.written(hot_rows);
        let inbox = &shared.inboxes[self.core];
        for job in done {
            if let Some(last) = job.entries.last() {
                shared.marks_of(job.shard).applied.store(last.index, Ordering::Release);
            }
            inbox.complete(Completion::Applied(job));
        }
        inbox.signal();
        shared.metrics.store_writes.increment();
        shared.metrics.store_write_us.record(started.elapsed());
        Ok(())
    }
}

fn apply_job(overlay: &mut Overlay<'_>, job: ApplyJob, time_ms: &mut u64) -> Result<AppliedJob, String> {
    let shard = job.shard;
    let mut entries = Vec::with_capacity(job.entries.len());
    for entry in job.entries {
        let failed = |detail: String| format!("shard {shard}, log entry {}: {detail}", entry.index);
        let batch: Option<CommandBatch> = match entry.work {
            ApplyWork::Batch(batch) => Some(batch),
            ApplyWork::Record(record) => decode_record(&record).map_err(|error| failed(error.to_string()))?,
            ApplyWork::Replicas(set) => {
                domain::fleet::set_replicas(overlay, shard, &set);
                None
            }
        };
        let (mut results, mut cuts) = (Vec::new(), Cuts::default());
        if let Some(batch) = &batch {
            *time_ms = batch.time_ms;
            cuts = Cuts { feed: batch.feed_cut, log: batch.log_cut };
            results = domain::apply(overlay, shard, batch).map_err(|error| failed(error.to_string()))?;
        }
        domain::set_applied_index(overlay, shard, entry.index, *time_ms);
        entries.push(AppliedEntry { index: entry.index, time_ms: *time_ms, cuts, results });
    }
    Ok(AppliedJob { shard, entries })
}

//! The thread beside each core that applies committed entries: it reads what they need, runs the domain, and
//! writes rows and applied index in one batch. It may block on disk; the core never does.

use super::shared::{Completion, NodeShared};
use crate::clock;
use crate::domain::{self, Overlay};
use crate::engine::HotRows;
use crate::replication::decode_record;
use crate::shard::{AppliedEntry, AppliedJob, ApplyJob, ApplyWork};
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
    /// End after everything queued before.
    Stop,
}

/// Runs until it is told to stop, or until the store or the state machine fails.
pub(crate) fn run_store_thread(
    shared: &NodeShared,
    core: usize,
    requests: &Receiver<StoreRequest>,
    mut times: HashMap<ShardId, u64>,
) -> Result<(), String> {
    let hot = HotRows::new(&*shared.store);
    let mut jobs = Vec::new();
    let mut running = true;
    while running {
        let Ok(mut request) = requests.recv() else { break };
        let mut bytes = 0;
        loop {
            match request {
                StoreRequest::Stop => {
                    running = false;
                    break;
                }
                StoreRequest::Apply(job) => {
                    bytes += job.bytes;
                    jobs.push(job);
                }
            }
            if bytes >= STORE_BATCH_BYTES {
                break;
            }
            match requests.try_recv() {
                Ok(next) => request = next,
                Err(_) => break,
            }
        }
        if !jobs.is_empty() {
            apply_jobs(shared, core, &hot, jobs.drain(..), &mut times)?;
        }
    }
    Ok(())
}

fn apply_jobs(
    shared: &NodeShared,
    core: usize,
    hot: &HotRows<'_>,
    jobs: impl Iterator<Item = ApplyJob>,
    times: &mut HashMap<ShardId, u64>,
) -> Result<(), String> {
    let started = clock::now();
    let mut overlay = Overlay::new(hot);
    let mut done = Vec::with_capacity(jobs.size_hint().0);
    for job in jobs {
        let time_ms = times.entry(job.shard).or_default();
        done.push(apply_job(&mut overlay, job, time_ms)?);
    }
    let batch = overlay.into_batch();
    let hot_rows = HotRows::hot_rows(&batch);
    shared.store.write(batch).map_err(|error| error.to_string())?;
    hot.written(hot_rows);
    let inbox = &shared.inboxes[core];
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

fn apply_job(overlay: &mut Overlay<'_>, job: ApplyJob, time_ms: &mut u64) -> Result<AppliedJob, String> {
    let shard = job.shard;
    let mut entries = Vec::with_capacity(job.entries.len());
    for entry in job.entries {
        let failed = |detail: String| format!("shard {shard}, log entry {}: {detail}", entry.index);
        let batch: Option<CommandBatch> = match entry.work {
            ApplyWork::Batch(batch) => Some(batch),
            ApplyWork::Record(record) => decode_record(&record).map_err(|error| failed(error.to_string()))?,
        };
        let mut results = Vec::new();
        if let Some(batch) = &batch {
            *time_ms = batch.time_ms;
            results = domain::apply(overlay, shard, batch).map_err(|error| failed(error.to_string()))?;
        }
        domain::set_applied_index(overlay, shard, entry.index, *time_ms);
        entries.push(AppliedEntry { index: entry.index, time_ms: *time_ms, results });
    }
    Ok(AppliedJob { shard, entries })
}

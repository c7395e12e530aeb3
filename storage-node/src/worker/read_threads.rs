//! The read threads of a node: queries, look-ups for attaching sessions, and what shards must read again.

use super::reread::{feed_items, open_source};
use super::shared::{Completion, NodeShared};
use crate::domain;
use crate::engine::StoreError;
use crate::feed::{FeedView, query_with_view};
use crate::placement::Place;
use crate::replication::LogRange;
use crate::shard::{ReadDone, ReadJob, ReadWork, refusal};
use crate::{clock, worker::Origin};
use crossbeam_channel::Receiver;
use std::sync::atomic::Ordering;
use wire_protocol::ids::{DeviceId, ShardId, UserId};
use wire_protocol::internal::shard_response::Result as Reply;
use wire_protocol::internal::{Query, ReadFeed, ReadUser, ShardResponse, answer, query, shard_error};

/// Read threads of a node: reads of what is not in memory wait for the disk, so there are more than the cores
/// need for those that are.
pub const READ_THREADS: usize = 2;

/// What a read thread is asked to do.
#[derive(Debug)]
pub(crate) enum ReadRequest {
    /// Read and report.
    Read(ReadJob),
    /// End.
    Stop,
}

/// Runs until it is told to stop, or until something that a shard needs for itself cannot be read.
pub(crate) fn run_read_thread(shared: &NodeShared, requests: &Receiver<ReadRequest>) -> Result<(), String> {
    while let Ok(ReadRequest::Read(job)) = requests.recv() {
        read_and_report(shared, job)?;
    }
    Ok(())
}

/// One read, and its report to the core.
pub(crate) fn read_and_report(shared: &NodeShared, job: ReadJob) -> Result<(), String> {
    let (started, shard) = (clock::now(), job.shard);
    let (core, completion) = carry_out(shared, job)?;
    shared.marks_of(shard).reads.fetch_sub(1, Ordering::AcqRel);
    let inbox = &shared.inboxes[core];
    inbox.complete(completion);
    inbox.signal();
    shared.metrics.read_us.record(started.elapsed());
    Ok(())
}

/// What to report, and to which core.
fn carry_out(shared: &NodeShared, job: ReadJob) -> Result<(usize, Completion), String> {
    let shard = job.shard;
    let Some(Place::Core(core)) = shared.map.place(shard) else {
        return Err(format!("shard {shard} is not of this node"));
    };
    let failed = |error: StoreError| format!("shard {shard}: {error}");
    let done = match job.work {
        ReadWork::Query { origin, query, view } => {
            return Ok(answer_query(shared, shard, origin, &query, view));
        }
        ReadWork::Attach { ticket, user, device } => match look_up(shared, user, device) {
            Ok((device_known, stored_version)) => ReadDone::Attach { ticket, device_known, stored_version },
            Err(error) => {
                tracing::error!(%shard, "{error}");
                let (kind, detail) =
                    (shard_error::Kind::Internal, "the device cannot be looked up".to_owned());
                return Ok((core, Completion::AttachFailed { shard, ticket, kind, detail }));
            }
        },
        ReadWork::Load { source_as_of } => {
            let positions = domain::feed_positions(&*shared.store, shard).map_err(failed)?;
            let source = source_as_of.map(|applied| open_source(shared, shard, applied)).transpose()?;
            ReadDone::Loaded { positions, source: source.map(Box::new) }
        }
        ReadWork::Reread(mut asked) => {
            let range = LogRange { above: asked.from_index, up_to: asked.to_index };
            let (entries, to_index) = feed_items(shared, shard, range)?;
            asked.to_index = to_index;
            ReadDone::Reread { asked, entries }
        }
    };
    Ok((core, Completion::Read { shard, done }))
}

fn answer_query(
    shared: &NodeShared,
    shard: ShardId,
    origin: Origin,
    query: &Query,
    view: Option<FeedView>,
) -> (usize, Completion) {
    let response = match query_with_view(&*shared.store, query, view) {
        Ok(answer) => ShardResponse { id: origin.request_id, result: Some(Reply::Answer(answer)) },
        Err(error) => {
            tracing::error!(%shard, "query: {error}");
            let detail = format!("shard {shard}: the rows cannot be read");
            refusal(origin.request_id, shard_error::Kind::Internal, detail)
        }
    };
    (origin.link.core(), Completion::Answered(origin.link, response))
}

/// Whether the user has the device, and the newest stored version of the user's feed.
fn look_up(shared: &NodeShared, user: UserId, device: DeviceId) -> Result<(bool, u64), StoreError> {
    let ask = |kind: query::Kind| domain::query(&*shared.store, &Query { kind: Some(kind) });
    let device_known = match ask(query::Kind::ReadUser(ReadUser { user_id: user.to_bytes() }))?.kind {
        Some(answer::Kind::User(record)) => {
            record.devices.iter().any(|known| DeviceId::from_slice(&known.device_id) == Some(device))
        }
        _ => false,
    };
    let newest = ReadFeed { user_id: user.to_bytes(), since_version: u64::MAX, rows_max: 1 };
    let stored_version = match ask(query::Kind::ReadFeed(newest))?.kind {
        Some(answer::Kind::Feed(page)) => page.version,
        _ => 0,
    };
    Ok((device_known, stored_version))
}

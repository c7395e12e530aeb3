//! The thread that makes things durable: it takes whatever all shards of all cores have queued, writes it in one
//! piece, syncs once, and reports.

use super::{Log, LogWrite, ReplicationError};
use crate::clock;
use crossbeam_channel::Receiver;
use std::time::Duration;

/// Bytes that one synced write takes at most; the rest waits for the next one. Bounds the engine's buffer; at
/// 1 GB/s of a disk it is 8 ms.
const LOG_BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What the log thread is asked to do.
#[derive(Debug)]
pub enum LogRequest {
    /// Make this durable and report to this core.
    Write {
        /// The core of the write's shard.
        core: usize,
        /// What to write.
        write: LogWrite,
    },
    /// End after everything queued before.
    Stop,
}

/// What one synced write did.
#[derive(Debug)]
pub struct SyncedWrite<'a> {
    /// Now durable, with the cores to be told.
    pub writes: &'a [LogWrite],
    /// `cores[i]` owns `writes[i]`.
    pub cores: &'a [usize],
    /// Bytes in the log files.
    pub bytes: usize,
    /// How long write and sync took.
    pub duration: Duration,
}

/// Runs until it is told to stop. After an error nothing more is written: whether the last write is durable is
/// not known.
pub fn run_log_thread(
    log: &Log,
    requests: &Receiver<LogRequest>,
    mut report: impl FnMut(SyncedWrite<'_>),
) -> Result<(), ReplicationError> {
    let mut writes = Vec::new();
    let mut cores = Vec::new();
    let mut running = true;
    while running {
        let Ok(mut request) = requests.recv() else { break };
        let mut bytes_queued = 0;
        loop {
            match request {
                LogRequest::Stop => {
                    running = false;
                    break;
                }
                LogRequest::Write { core, write } => {
                    bytes_queued += write.bytes();
                    writes.push(write);
                    cores.push(core);
                }
            }
            if bytes_queued >= LOG_BATCH_BYTES_MAX {
                break;
            }
            match requests.try_recv() {
                Ok(next) => request = next,
                Err(_) => break,
            }
        }
        if writes.is_empty() {
            continue;
        }
        let started = clock::now();
        let bytes = log.write(&writes)?;
        report(SyncedWrite { writes: &writes, cores: &cores, bytes, duration: started.elapsed() });
        writes.clear();
        cores.clear();
    }
    Ok(())
}

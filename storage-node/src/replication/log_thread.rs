//! The thread that makes things durable: it takes whatever all shards of all cores have queued, writes it in one
//! piece, syncs once, and reports.

use super::{Log, LogWrite, ReplicationError};
use crate::clock;
use crate::failpoint::{self, Failpoint};
use crossbeam_channel::Receiver;
use std::collections::VecDeque;
use std::time::Duration;

/// Bytes that one synced write takes at most; the rest waits for the next one. Bounds the engine's buffer; at
/// 1 GB/s of a disk it is 8 ms.
pub(super) const LOG_BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What the log thread is asked to do.
#[derive(Debug)]
pub enum LogRequest {
    /// Make this durable and report to this core: all that its shards want of one turn, so that no part of it waits for
    /// the sync of another.
    Write {
        /// The core of the writes' shards.
        core: usize,
        /// What to write.
        writes: Vec<LogWrite>,
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
    let mut queued = QueuedWrites::default();
    while let Ok(request) = requests.recv() {
        if queued.take(request, requests) == Queue::Ends {
            return queued.write(log, &mut report);
        }
        queued.write(log, &mut report)?;
    }
    Ok(())
}

/// Whether more is to come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Queue {
    GoesOn,
    Ends,
}

/// What is to be written, and goes into one synced write if it fits.
#[derive(Default)]
pub(crate) struct QueuedWrites {
    /// With the cores to be told.
    waiting: VecDeque<(usize, LogWrite)>,
    writes: Vec<LogWrite>,
    cores: Vec<usize>,
}

impl QueuedWrites {
    /// Takes a request and those that wait behind it, until they fill one write.
    pub fn take(&mut self, first: LogRequest, requests: &Receiver<LogRequest>) -> Queue {
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(request) = next {
            match request {
                LogRequest::Stop => return Queue::Ends,
                LogRequest::Write { core, writes } => {
                    bytes += writes.iter().map(LogWrite::bytes).sum::<usize>();
                    self.waiting.extend(writes.into_iter().map(|write| (core, write)));
                }
            }
            next = if bytes < LOG_BATCH_BYTES_MAX { requests.try_recv().ok() } else { None };
        }
        Queue::GoesOn
    }

    /// Writes and syncs what was taken, and reports it: at once, or in pieces if the last request was larger than its room.
    pub fn write(
        &mut self,
        log: &Log,
        report: &mut impl FnMut(SyncedWrite<'_>),
    ) -> Result<(), ReplicationError> {
        while !self.waiting.is_empty() {
            self.write_piece(log, report)?;
        }
        Ok(())
    }

    fn write_piece(
        &mut self,
        log: &Log,
        report: &mut impl FnMut(SyncedWrite<'_>),
    ) -> Result<(), ReplicationError> {
        let mut bytes = 0;
        while bytes < LOG_BATCH_BYTES_MAX
            && let Some((core, write)) = self.waiting.pop_front()
        {
            bytes += write.bytes();
            self.writes.push(write);
            self.cores.push(core);
        }
        let started = clock::now();
        failpoint::pass(Failpoint::LogWriting);
        let bytes = log.write(&self.writes)?;
        failpoint::pass(Failpoint::LogSynced);
        let duration = started.elapsed();
        report(SyncedWrite { writes: &self.writes, cores: &self.cores, bytes, duration });
        self.writes.clear();
        self.cores.clear();
        Ok(())
    }
}

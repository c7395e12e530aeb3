//! Sending one snapshot: a part at a time, again when no answer comes, and no faster than it may.

use super::contents::{Contents, ContentsError, Piece};
use super::sending::Sent;
use super::{OFFER_MS_MAX, PART_AGAIN_MS, PART_MS_MAX, SNAPSHOT_BYTES_PER_S, checksum};
use crate::replication::Log;
use prost::Message;
use wire_protocol::ids::ShardId;
use wire_protocol::internal::{RaftMessage, SnapshotPart, SnapshotProgress};

/// One snapshot on its way.
pub(super) struct Outgoing {
    pub shard: ShardId,
    pub node: u32,
    contents: Contents,
    opened_ms: u64,
    /// Raft's message; before it comes nothing is sent.
    message: Option<RaftMessage>,
    /// The part that is not answered, when it was sent first, and when last.
    current: Option<(SnapshotPart, u64, u64)>,
    /// Of all parts so far.
    bytes: u64,
    next: u32,
    checksum: u32,
    /// The next part is not sent before, in microseconds of the clock that is told in milliseconds: what a part takes beyond
    /// whole milliseconds is not forgotten, or all parts together would go nearly a third faster than they may.
    not_before_us: u64,
}

/// What to do about a snapshot.
#[derive(Debug)]
pub(super) enum Step {
    /// Nothing, before this time or an answer.
    Wait(u64),
    Send(Box<SnapshotPart>),
    /// It is over, with the reason.
    GiveUp(String),
}

/// What an answer means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Answered {
    /// It goes on, or the answer is none to it.
    GoesOn,
    /// All of it has arrived.
    Arrived,
    /// The receiver does not take it.
    Refused,
}

impl Outgoing {
    pub fn new(shard: ShardId, node: u32, contents: Contents, now_ms: u64) -> Self {
        Self {
            shard,
            node,
            contents,
            opened_ms: now_ms,
            message: None,
            current: None,
            bytes: 0,
            next: 0,
            checksum: 0,
            not_before_us: 0,
        }
    }

    /// Takes Raft's message. False: it is of another snapshot.
    pub fn begin(&mut self, now_ms: u64, message: RaftMessage) -> bool {
        let index = message.snapshot.as_ref().map_or(0, |point| point.index);
        let fits = message.shard == self.shard.0 && message.to == self.node && index == self.contents.index;
        if fits && self.message.is_none() {
            self.message = Some(message);
            self.not_before_us = now_ms * 1_000;
        }
        fits
    }

    /// How far it is.
    pub fn sent(&self) -> Sent {
        let Self { shard, node, bytes, .. } = *self;
        Sent { shard, node, bytes, percent: self.contents.percent() }
    }

    /// For how long a part has not been answered, in milliseconds.
    pub fn silent_ms(&self, now_ms: u64) -> u64 {
        self.current.as_ref().map_or(0, |(_, first_ms, _)| now_ms.saturating_sub(*first_ms))
    }

    /// What is due now.
    pub fn step(&mut self, now_ms: u64, log: &Log) -> Step {
        let Some(message) = &self.message else {
            let until_ms = self.opened_ms + OFFER_MS_MAX;
            return match now_ms < until_ms {
                true => Step::Wait(until_ms),
                false => Step::GiveUp("nobody asked for it any more".to_owned()),
            };
        };
        if let Some((part, first_ms, last_ms)) = &mut self.current {
            if now_ms >= *first_ms + PART_MS_MAX {
                return Step::GiveUp(format!("no answer to part {}", part.number));
            }
            if now_ms < *last_ms + PART_AGAIN_MS {
                return Step::Wait(*last_ms + PART_AGAIN_MS);
            }
            *last_ms = now_ms;
            return Step::Send(Box::new(part.clone()));
        }
        let not_before_ms = self.not_before_us / 1_000;
        if now_ms < not_before_ms {
            return Step::Wait(not_before_ms);
        }
        let message = message.clone();
        match self.next_part(message, log) {
            Ok(part) => {
                let bytes = part.encoded_len() as u64;
                self.bytes += bytes;
                let takes_us = (bytes * 1_000_000).div_ceil(SNAPSHOT_BYTES_PER_S);
                self.not_before_us = self.not_before_us.max(now_ms * 1_000) + takes_us;
                self.current = Some((part.clone(), now_ms, now_ms));
                Step::Send(Box::new(part))
            }
            Err(error) => Step::GiveUp(error.to_string()),
        }
    }

    fn next_part(&mut self, message: RaftMessage, log: &Log) -> Result<SnapshotPart, ContentsError> {
        let Piece { entries, rows, is_last } = self.contents.next(log)?;
        let mut part = SnapshotPart {
            shard: self.shard.0,
            from: message.from,
            to: self.node,
            term: message.term,
            index: self.contents.index,
            number: self.next,
            is_last,
            message: (self.next == 0).then_some(message),
            entries,
            rows,
            checksum: 0,
        };
        part.checksum = checksum::of(&part, self.checksum);
        (self.checksum, self.next) = (part.checksum, self.next + 1);
        Ok(part)
    }

    /// Takes what the receiver says.
    pub fn take(&mut self, progress: &SnapshotProgress) -> Answered {
        let Some((part, ..)) = &self.current else { return Answered::GoesOn };
        let of_this = (progress.shard, progress.from, progress.to, progress.term, progress.index)
            == (part.shard, part.to, part.from, part.term, part.index);
        if !of_this {
            return Answered::GoesOn;
        }
        // One that waits for an earlier part has lost what it had.
        if progress.refused || progress.next < part.number {
            return Answered::Refused;
        }
        if progress.next == part.number + 1 {
            let is_last = part.is_last;
            self.current = None;
            return if is_last { Answered::Arrived } else { Answered::GoesOn };
        }
        Answered::GoesOn
    }
}

//! One HTTP connection between a core and the runtime: two bounded directions without a lock, so that neither
//! thread ever waits for the other.
//!
//! Inbound: a queue of received chunks, bounded in number and bytes. Outbound: the core's mailbox, with at most
//! [`OUTBOUND_WINDOW_BYTES`] sent and not yet reported as written. When the core lets go of its end, both
//! directions end; when the runtime does, `serve.rs` tells the core to close.

use super::ingress::IngressFull;
use super::under_way::ConnectionUnderWay;
use crate::front::ConnectionToken;
use crate::worker::mailbox::{CoreMailbox, CoreMessage};
use bytes::{Buf, Bytes, BytesMut};
use crossbeam_queue::ArrayQueue;
use futures_util::task::AtomicWaker;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// Bytes of a client that wait for the runtime: the largest request with its head, twice.
pub const INBOUND_BYTES_MAX: usize = 64 * 1024;
/// Chunks that wait for the runtime. A client whose requests come in smaller pieces, faster than they are
/// taken, is no browser.
const INBOUND_CHUNKS_MAX: usize = 64;
/// Bytes on their way to a client's outbox: what the core has to hold for it when the outbox is full.
pub const OUTBOUND_WINDOW_BYTES: usize = 64 * 1024;
/// Largest single message to the core, in bytes: a full TLS record.
const OUTBOUND_CHUNK_BYTES: usize = 16 * 1024;
/// A full mailbox is tried again after this long, in milliseconds: a few turns of a busy core.
pub(super) const MAILBOX_RETRY_MS: u64 = 2;

struct Shared {
    inbound: ArrayQueue<Bytes>,
    inbound_bytes: AtomicUsize,
    reader: AtomicWaker,
    /// Bytes sent and not yet written.
    unwritten: AtomicUsize,
    writer: AtomicWaker,
    /// The client sends nothing more.
    ended: AtomicBool,
    /// The core let go: nothing can be written either.
    gone: AtomicBool,
}

/// The core's end.
pub(super) struct PipeFeed {
    shared: Arc<Shared>,
}

impl PipeFeed {
    pub(super) fn new(
        token: ConnectionToken,
        mailbox: CoreMailbox,
        under_way: Arc<ConnectionUnderWay>,
    ) -> (PipeFeed, CorePipe) {
        let shared = Arc::new(Shared {
            inbound: ArrayQueue::new(INBOUND_CHUNKS_MAX),
            inbound_bytes: AtomicUsize::new(0),
            reader: AtomicWaker::new(),
            unwritten: AtomicUsize::new(0),
            writer: AtomicWaker::new(),
            ended: AtomicBool::new(false),
            gone: AtomicBool::new(false),
        });
        let (chunk, retry) = (Bytes::new(), None);
        let pipe = CorePipe { token, mailbox, shared: shared.clone(), under_way, chunk, retry };
        (PipeFeed { shared }, pipe)
    }

    pub(super) fn push(&self, bytes: Bytes) -> Result<(), IngressFull> {
        let shared = &self.shared;
        let length = bytes.len();
        if length == 0 {
            return Ok(());
        }
        // Counted before it is there, so that the runtime never subtracts what was not yet added.
        let before = shared.inbound_bytes.fetch_add(length, Ordering::AcqRel);
        if before + length > INBOUND_BYTES_MAX || shared.inbound.push(bytes).is_err() {
            shared.inbound_bytes.fetch_sub(length, Ordering::AcqRel);
            return Err(IngressFull);
        }
        shared.reader.wake();
        Ok(())
    }

    pub(super) fn end(&self) {
        self.shared.ended.store(true, Ordering::Release);
        self.shared.reader.wake();
    }

    pub(super) fn written(&self, bytes: usize) {
        let before = self.shared.unwritten.fetch_sub(bytes, Ordering::AcqRel);
        assert!(before >= bytes, "no more is written than was sent");
        self.shared.writer.wake();
    }
}

impl Drop for PipeFeed {
    fn drop(&mut self) {
        self.shared.gone.store(true, Ordering::Release);
        self.end();
        self.shared.writer.wake();
    }
}

/// The runtime's end: what hyper reads requests from and writes answers to.
pub(super) struct CorePipe {
    token: ConnectionToken,
    mailbox: CoreMailbox,
    shared: Arc<Shared>,
    under_way: Arc<ConnectionUnderWay>,
    /// The rest of a chunk that did not fit the reader's buffer.
    chunk: Bytes,
    /// Runs while the mailbox is full.
    retry: Option<Pin<Box<Sleep>>>,
}

impl CorePipe {
    /// For the message that ends the connection.
    pub(super) fn closer(&self) -> (CoreMailbox, ConnectionToken) {
        (self.mailbox.clone(), self.token)
    }

    fn next_chunk(&self) -> Option<Bytes> {
        let chunk = self.shared.inbound.pop()?;
        self.shared.inbound_bytes.fetch_sub(chunk.len(), Ordering::AcqRel);
        Some(chunk)
    }

    /// Bytes that may be sent now; registers to be woken when there are none.
    fn poll_window(&self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let look = || {
            if self.shared.gone.load(Ordering::Acquire) {
                return Some(Err(io::ErrorKind::BrokenPipe.into()));
            }
            let free = OUTBOUND_WINDOW_BYTES.saturating_sub(self.shared.unwritten.load(Ordering::Acquire));
            (free > 0).then_some(Ok(free))
        };
        if let Some(outcome) = look() {
            return Poll::Ready(outcome);
        }
        self.shared.writer.register(context.waker());
        look().map_or(Poll::Pending, Poll::Ready)
    }

    fn poll_retry(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(retry) = &mut self.retry else { return Poll::Ready(()) };
        ready!(retry.as_mut().poll(context));
        self.retry = None;
        Poll::Ready(())
    }

    fn poll_send(&mut self, context: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_retry(context));
            let free = ready!(self.poll_window(context))?;
            let bytes = gather(parts, free.min(OUTBOUND_CHUNK_BYTES));
            let length = bytes.len();
            if length == 0 {
                return Poll::Ready(Ok(0));
            }
            // Counted first: the core may report it as written before `send` returns.
            self.shared.unwritten.fetch_add(length, Ordering::AcqRel);
            if self.mailbox.send(CoreMessage::HttpOut { token: self.token, bytes }).is_ok() {
                return Poll::Ready(Ok(length));
            }
            self.shared.unwritten.fetch_sub(length, Ordering::AcqRel);
            self.retry = Some(Box::pin(tokio::time::sleep(Duration::from_millis(MAILBOX_RETRY_MS))));
        }
    }
}

/// The first `bytes_max` bytes of all parts in one piece: a head and its body leave in one message.
fn gather(parts: &[IoSlice<'_>], bytes_max: usize) -> Bytes {
    let total: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = BytesMut::with_capacity(total.min(bytes_max));
    for part in parts {
        let room = bytes_max - out.len();
        out.extend_from_slice(part.get(..room).unwrap_or(part));
    }
    out.freeze()
}

impl AsyncRead for CorePipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.chunk.is_empty() {
            // Whether it ended is read before the queue, so that what was pushed before the end is never missed.
            let look = || {
                let ended = self.shared.ended.load(Ordering::Acquire);
                self.next_chunk().or_else(|| ended.then(Bytes::new))
            };
            let chunk = match look() {
                Some(chunk) => chunk,
                None => {
                    self.shared.reader.register(context.waker());
                    let Some(chunk) = look() else { return Poll::Pending };
                    chunk
                }
            };
            self.chunk = chunk;
        }
        let length = self.chunk.len().min(buffer.remaining());
        buffer.put_slice(self.chunk.get(..length).unwrap_or_default());
        self.chunk.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for CorePipe {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(context, &[IoSlice::new(buffer)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// What was written is already in the core's mailbox. Hyper asks when it has nothing left to write.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.under_way.flushed();
        Poll::Ready(Ok(()))
    }

    /// The connection is closed by the message that `serve.rs` sends at the end.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

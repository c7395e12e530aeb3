//! The bytes of one link: two small tasks that move them between a socket and a [`Pipe`], and know nothing else.
//!
//! ```text
//! loop ─outbound─> Pipe ─> writer task ─ TLS ─> socket ─ TLS ─> reader task ─> Pipe ─inbound─> loop
//! ```

use super::tls_pump::{LinkIdentity, TlsPump};
use crate::worker::wake::WakeHandle;
use bytes::BytesMut;
use monoio::io::{
    AsyncReadRent, AsyncWriteRent, AsyncWriteRentExt, OwnedReadHalf, OwnedWriteHalf, Splitable,
};
use monoio::net::TcpStream;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;
use wire_protocol::limits::{LINK_BATCH_BYTES, LINK_FRAME_BYTES_MAX};

/// Received bytes that wait for the loop: one frame of the largest size, and what came with its end. The reader
/// stops there.
const INBOUND_BYTES_MAX: usize = LINK_FRAME_BYTES_MAX + 64 * 1024;
/// Bytes that wait for the writer before the loop polls no more frames: two batches, so that one is always ready.
const OUTBOUND_BYTES_MAX: usize = 2 * LINK_BATCH_BYTES;
/// Bytes of one read.
const READ_BYTES: usize = 64 * 1024;
/// A node that does not take a connection in this time is away, in milliseconds.
const CONNECT_TIMEOUT_MS: u64 = 3_000;

/// Where the loop and the tasks of one connection meet. They share a thread.
pub(super) struct Pipe {
    inbound: RefCell<BytesMut>,
    outbound: RefCell<BytesMut>,
    stage: RefCell<Stage>,
    /// Something for the writer.
    to_write: Signal,
    /// Room for the reader.
    to_read: Signal,
    /// The loop takes a turn.
    wake: WakeHandle,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    Connecting,
    Connected,
    /// And why.
    Closed(String),
}

impl Pipe {
    pub(super) fn new(wake: WakeHandle) -> Rc<Pipe> {
        Rc::new(Pipe {
            inbound: RefCell::default(),
            outbound: RefCell::default(),
            stage: RefCell::new(Stage::Connecting),
            to_write: Signal::default(),
            to_read: Signal::default(),
            wake,
        })
    }

    /// The socket is connected; TLS may still be shaking hands.
    pub(super) fn is_connected(&self) -> bool {
        *self.stage.borrow() == Stage::Connected
    }

    /// Why the connection is gone, if it is.
    pub(super) fn closed(&self) -> Option<String> {
        match &*self.stage.borrow() {
            Stage::Closed(why) => Some(why.clone()),
            Stage::Connecting | Stage::Connected => None,
        }
    }

    /// Everything received since the last call.
    pub(super) fn take_inbound(&self) -> BytesMut {
        let inbound = self.inbound.take();
        if !inbound.is_empty() {
            self.to_read.set();
        }
        inbound
    }

    /// Whether another frame may be queued.
    pub(super) fn has_room(&self) -> bool {
        self.outbound.borrow().len() < OUTBOUND_BYTES_MAX
    }

    /// Queues what `encode` appends.
    pub(super) fn queue(&self, encode: impl FnOnce(&mut BytesMut)) {
        encode(&mut self.outbound.borrow_mut());
        self.to_write.set();
    }

    /// Ends the connection; the first reason stays.
    pub(super) fn close(&self, why: impl Into<String>) {
        let mut stage = self.stage.borrow_mut();
        if !matches!(*stage, Stage::Closed(_)) {
            *stage = Stage::Closed(why.into());
        }
        self.to_write.set();
        self.to_read.set();
        self.wake.wake();
    }

    #[cfg(any(test, feature = "sim"))]
    pub(super) fn connected(&self) {
        self.stage.replace(Stage::Connected);
    }

    #[cfg(any(test, feature = "sim"))]
    pub(super) fn receive(&self, bytes: &[u8]) {
        self.inbound.borrow_mut().extend_from_slice(bytes);
    }

    #[cfg(any(test, feature = "sim"))]
    pub(super) fn take_outbound(&self) -> BytesMut {
        self.outbound.take()
    }
}

/// Wakes one task of the same thread.
#[derive(Default)]
struct Signal {
    set: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Signal {
    fn set(&self) {
        self.set.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    async fn wait(&self) {
        poll_fn(|context| {
            if self.set.take() {
                return Poll::Ready(());
            }
            self.waker.replace(Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}

/// Connects and moves bytes until the pipe closes. Never fails: the reason is in the pipe.
pub(super) async fn run(address: SocketAddr, identity: LinkIdentity, pipe: Rc<Pipe>) {
    let tls = match TlsPump::new(&identity) {
        Ok(tls) => Rc::new(RefCell::new(tls)),
        Err(error) => return pipe.close(format!("TLS: {error}")),
    };
    let connecting = TcpStream::connect(address);
    let stream = match monoio::time::timeout(Duration::from_millis(CONNECT_TIMEOUT_MS), connecting).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return pipe.close(error.to_string()),
        Err(_) => return pipe.close("no connection in time"),
    };
    if let Err(error) = stream.set_nodelay(true) {
        return pipe.close(error.to_string());
    }
    if pipe.closed().is_some() {
        return;
    }
    pipe.stage.replace(Stage::Connected);
    pipe.wake.wake();
    let (read, write) = stream.into_split();
    let writer = monoio::spawn(write_all(write, tls.clone(), pipe.clone()));
    read_all(read, tls, &pipe).await;
    writer.await;
}

async fn read_all(mut socket: OwnedReadHalf<TcpStream>, tls: Rc<RefCell<TlsPump>>, pipe: &Pipe) {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        while pipe.closed().is_none() && pipe.inbound.borrow().len() >= INBOUND_BYTES_MAX {
            pipe.to_read.wait().await;
        }
        let received = {
            let mut reading = std::pin::pin!(socket.read(buffer));
            // A close must end a read that never completes.
            poll_fn(|context| {
                if pipe.closed().is_some() {
                    return Poll::Ready(None);
                }
                pipe.to_read.waker.replace(Some(context.waker().clone()));
                reading.as_mut().poll(context).map(Some)
            })
            .await
        };
        let Some((result, returned)) = received else { return };
        buffer = returned;
        let bytes = match result {
            Ok(0) => return pipe.close("closed by the node"),
            Ok(bytes) => bytes,
            Err(error) => return pipe.close(error.to_string()),
        };
        let decrypted = tls.borrow_mut().receive(&buffer[..bytes], &mut pipe.inbound.borrow_mut());
        // A handshake's next flight, or an alert that says what was wrong.
        pipe.to_write.set();
        if let Err(error) = decrypted {
            return pipe.close(format!("TLS: {error}"));
        }
        pipe.wake.wake();
    }
}

async fn write_all(mut socket: OwnedWriteHalf<TcpStream>, tls: Rc<RefCell<TlsPump>>, pipe: Rc<Pipe>) {
    loop {
        let ciphertext = tls.borrow_mut().send(&mut pipe.outbound.borrow_mut());
        if !ciphertext.is_empty() {
            if let (Err(error), _) = socket.write_all(ciphertext).await {
                return pipe.close(error.to_string());
            }
            // There is room for more frames.
            pipe.wake.wake();
        } else if pipe.closed().is_some() {
            // The other side may be gone already; then there is nobody to tell.
            let _ = socket.shutdown().await;
            return;
        } else {
            pipe.to_write.wait().await;
        }
    }
}

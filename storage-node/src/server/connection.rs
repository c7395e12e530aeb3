//! One connection of a link: socket, TLS, frames, and a link half, with a reading and a writing task. It closes as
//! soon as one of them, or the clock, finds that it cannot go on.

use super::tls_stream::{Flow, TlsStream};
use super::wake::Wake;
use crate::clock;
use crate::failpoint::{self, Failpoint};
use bytes::{Bytes, BytesMut};
use monoio::io::{CancelableAsyncReadRent, CancelableAsyncWriteRent, Canceller, Splitable};
use monoio::net::TcpStream;
use socket2::Socket;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::time::{Duration, Instant};
use wire_protocol::frame::{FrameDecoder, encode_message};
use wire_protocol::limits::{LINK_BATCH_BYTES, LINK_FRAME_BYTES_MAX};
use wire_protocol::link::{CallerEvent, CallerLink, LinkFault, ServingEvent, ServingLink, decode};

/// Bytes of one read from a socket.
const READ_BYTES: usize = 64 * 1024;
/// A write is closed when it has this many bytes of frames; the rest of the link's queue waits.
const WRITE_BYTES: usize = 2 * LINK_BATCH_BYTES;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("closed by the peer")]
    ByPeer,
    #[error("closed here")]
    Here,
    #[error("the peer has opened a newer one")]
    Replaced,
    #[error("socket or TLS: {0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Fault(#[from] LinkFault),
    #[error("frame: {0}")]
    Frame(String),
}

/// What is in frames.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Contents {
    Other,
    /// Deliveries to sessions, among other things.
    Deliveries,
}

/// A link half as the connection sees it.
pub(super) trait Half: 'static {
    type Event: 'static;
    fn take_payload(
        &mut self,
        now_ms: u64,
        payload: Bytes,
        events: &mut Vec<Self::Event>,
    ) -> Result<(), LinkFault>;
    /// Appends the next frame, and says what is in it; `None`: there is none.
    fn put_frame(&mut self, now_ms: u64, out: &mut BytesMut) -> Option<Contents>;
    fn timeout_ms(&self) -> Option<u64>;
    fn time_out(&mut self, now_ms: u64) -> Result<(), LinkFault>;
}

impl Half for ServingLink {
    type Event = ServingEvent;

    fn take_payload(
        &mut self,
        now_ms: u64,
        payload: Bytes,
        events: &mut Vec<ServingEvent>,
    ) -> Result<(), LinkFault> {
        self.handle_frame(now_ms, decode(payload)?, &mut |event| events.push(event))
    }

    fn put_frame(&mut self, now_ms: u64, out: &mut BytesMut) -> Option<Contents> {
        let frame = self.poll_frame(now_ms)?;
        encode_message(&frame, out);
        Some(if frame.deliveries.is_empty() { Contents::Other } else { Contents::Deliveries })
    }

    fn timeout_ms(&self) -> Option<u64> {
        self.poll_timeout()
    }

    fn time_out(&mut self, now_ms: u64) -> Result<(), LinkFault> {
        self.handle_timeout(now_ms)
    }
}

impl Half for CallerLink {
    type Event = CallerEvent;

    fn take_payload(
        &mut self,
        now_ms: u64,
        payload: Bytes,
        events: &mut Vec<CallerEvent>,
    ) -> Result<(), LinkFault> {
        self.handle_frame(now_ms, decode(payload)?, &mut |event| events.push(event))
    }

    fn put_frame(&mut self, now_ms: u64, out: &mut BytesMut) -> Option<Contents> {
        let frame = self.poll_frame(now_ms)?;
        encode_message(&frame, out);
        Some(Contents::Other)
    }

    fn timeout_ms(&self) -> Option<u64> {
        self.poll_timeout()
    }

    fn time_out(&mut self, now_ms: u64) -> Result<(), LinkFault> {
        self.handle_timeout(now_ms)
    }
}

/// What the tasks of one connection, and the loop, share.
pub(super) struct Connection<H> {
    pub half: RefCell<H>,
    tls: RefCell<TlsStream>,
    /// Wakes the writing task.
    writable: Wake,
    state: Cell<State>,
    canceller: RefCell<Canceller>,
    /// The socket once more, where it may have to be [cut off](Self::cut_off).
    socket: RefCell<Option<Socket>>,
    made: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// What is queued is still written.
    Closing,
    /// Nothing is read or written any more.
    Closed,
}

impl<H: Half> Connection<H> {
    pub fn new(half: H, tls: TlsStream) -> Rc<Self> {
        Rc::new(Self {
            half: RefCell::new(half),
            tls: RefCell::new(tls),
            writable: Wake::default(),
            state: Cell::new(State::Open),
            canceller: RefCell::new(Canceller::new()),
            socket: RefCell::new(None),
            made: clock::now(),
        })
    }

    /// The same over a socket that may have to be [cut off](Self::cut_off).
    pub fn over(half: H, tls: TlsStream, socket: Socket) -> Rc<Self> {
        let connection = Self::new(half, tls);
        connection.socket.replace(Some(socket));
        connection
    }

    /// The half has something to send.
    pub fn notify(&self) {
        self.writable.wake();
    }

    /// Closes after what is queued was written.
    pub fn close(&self) {
        if self.state.get() == State::Open {
            self.state.set(State::Closing);
        }
        self.notify();
    }

    #[cfg(test)]
    pub fn is_closed(&self) -> bool {
        self.state.get() == State::Closed
    }

    /// For how long there has been this connection.
    pub fn age(&self, now: Instant) -> Duration {
        now.duration_since(self.made)
    }

    /// Closes at once, and with a reset: what the kernel has and has not sent yet never leaves.
    pub fn cut_off(&self) {
        if let Some(socket) = self.socket.take()
            && let Err(error) = socket.set_linger(Some(Duration::ZERO))
        {
            tracing::debug!("link: linger: {error}");
        }
        self.abort();
    }

    fn abort(&self) {
        self.state.set(State::Closed);
        // It would keep the connection open.
        drop(self.socket.take());
        let canceller = self.canceller.take();
        self.canceller.replace(canceller.cancel());
        self.notify();
    }

    /// Lets the half look at the clock: it may want to ping, or find the peer dead.
    pub fn look_at_clock(&self, now_ms: u64) {
        let mut half = self.half.borrow_mut();
        if half.timeout_ms().is_some_and(|due_ms| due_ms <= now_ms) {
            let fault = half.time_out(now_ms);
            drop(half);
            match fault {
                Ok(()) => self.notify(),
                Err(fault) => {
                    tracing::warn!("link: {fault}");
                    self.cut_off();
                }
            }
        }
    }

    /// Serves the connection until it ends. `take` gets what each frame brought.
    pub async fn run(
        self: Rc<Self>,
        stream: TcpStream,
        mut take: impl FnMut(&Rc<Self>, Vec<H::Event>) -> Result<(), Ended>,
    ) -> Ended {
        let (read_half, write_half) = stream.into_split();
        monoio::spawn(Rc::clone(&self).write(write_half));
        let ended = match self.read(read_half, &mut take).await {
            Ok(()) => Ended::ByPeer,
            Err(_) if self.state.get() != State::Open => Ended::Here,
            Err(error) => error,
        };
        // An alert or the last answers may still leave; the writing task ends the socket.
        self.close();
        ended
    }

    async fn read(
        self: &Rc<Self>,
        mut socket: impl CancelableAsyncReadRent,
        take: &mut impl FnMut(&Rc<Self>, Vec<H::Event>) -> Result<(), Ended>,
    ) -> Result<(), Ended> {
        let mut buffer = Vec::with_capacity(READ_BYTES);
        let mut plaintext = Vec::new();
        let mut decoder = FrameDecoder::new(LINK_FRAME_BYTES_MAX);
        while self.state.get() != State::Closed {
            buffer.clear();
            let handle = self.canceller.borrow().handle();
            let (result, returned) = socket.cancelable_read(buffer, handle).await;
            buffer = returned;
            if result? == 0 {
                return Ok(());
            }
            plaintext.clear();
            let flow = self.tls.borrow_mut().receive(&buffer, &mut plaintext);
            // The handshake, an alert, an answer to a key update.
            self.notify();
            let flow = flow?;
            decoder.push(&plaintext);
            let mut events = Vec::new();
            let now_ms = clock::now_ms();
            while let Some(payload) = decoder.next_frame().map_err(|error| Ended::Frame(error.to_string()))? {
                self.half.borrow_mut().take_payload(now_ms, payload, &mut events)?;
            }
            if !events.is_empty() {
                take(self, events)?;
            }
            if flow == Flow::Ended {
                return Ok(());
            }
        }
        Err(Ended::Here)
    }

    async fn write(self: Rc<Self>, mut socket: impl CancelableAsyncWriteRent) {
        let mut frames = BytesMut::new();
        let mut ciphertext = Vec::new();
        while self.state.get() != State::Closed {
            let contents = self.gather(&mut frames, &mut ciphertext);
            if ciphertext.is_empty() {
                if self.state.get() == State::Closing {
                    break;
                }
                // Idle links hold no buffers.
                (frames, ciphertext) = (BytesMut::new(), Vec::new());
                poll_fn(|context| self.writable.poll_woken(context)).await;
                continue;
            }
            match self.write_all(&mut socket, ciphertext).await {
                Ok(returned) => {
                    ciphertext = returned;
                    if contents == Contents::Deliveries {
                        failpoint::pass(Failpoint::DeliveriesSent);
                    }
                }
                Err(error) => {
                    tracing::debug!("link: write: {error}");
                    break;
                }
            }
        }
        let _ = socket.shutdown().await;
        self.abort();
    }

    /// Encrypts what is to be sent next.
    fn gather(&self, frames: &mut BytesMut, ciphertext: &mut Vec<u8>) -> Contents {
        let mut contents = Contents::Other;
        let mut tls = self.tls.borrow_mut();
        ciphertext.clear();
        // Before the handshake ends frames wait in the half, which is bounded, not in the TLS library.
        if !tls.is_handshaking() {
            frames.clear();
            let now_ms = clock::now_ms();
            let mut half = self.half.borrow_mut();
            while frames.len() < WRITE_BYTES
                && let Some(of_frame) = half.put_frame(now_ms, frames)
            {
                contents = contents.max(of_frame);
            }
            tls.send(frames);
            if self.state.get() == State::Closing && frames.is_empty() {
                tls.close();
            }
        }
        tls.take_ciphertext(ciphertext);
        contents
    }

    async fn write_all(
        &self,
        socket: &mut impl CancelableAsyncWriteRent,
        bytes: Vec<u8>,
    ) -> std::io::Result<Vec<u8>> {
        let mut rest = Bytes::from(bytes);
        while !rest.is_empty() {
            // What was written when it was closed is not gone on with: nobody would end that any more.
            if self.state.get() == State::Closed {
                return Err(std::io::ErrorKind::ConnectionAborted.into());
            }
            let handle = self.canceller.borrow().handle();
            let (result, returned) = socket.cancelable_write(rest, handle).await;
            rest = returned;
            match result? {
                0 => return Err(std::io::ErrorKind::WriteZero.into()),
                written => rest = rest.slice(written..),
            }
        }
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use monoio::BufResult;
    use monoio::buf::{IoBuf, IoVecBuf};
    use monoio::io::{AsyncWriteRent, CancelHandle};
    use rustls::crypto::aws_lc_rs;
    use rustls::version::TLS13;
    use rustls::{ClientConfig, RootCertStore};
    use std::io;
    use std::sync::Arc;
    use wire_protocol::internal::LinkHello;
    use wire_protocol::link::Versions;

    impl Connection<CallerLink> {
        /// To nobody, as nobody is trusted.
        pub fn of_test(socket: Option<Socket>) -> Rc<Self> {
            let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_protocol_versions(&[&TLS13])
                .expect("it has that")
                .with_root_certificates(RootCertStore::empty())
                .with_no_client_auth();
            let tls = TlsStream::client(Arc::new(config), "other".try_into().expect("a name"));
            let half = CallerLink::speaking(Versions::OURS, LinkHello::default(), 0);
            let connection = Self::new(half, tls.expect("a client"));
            connection.socket.replace(socket);
            connection
        }
    }

    /// A socket that takes a byte at a time.
    struct Narrow {
        /// Cut off while the first one is written.
        link: Option<Rc<Connection<CallerLink>>>,
        writes: usize,
    }

    impl AsyncWriteRent for Narrow {
        async fn write<T: IoBuf>(&mut self, _: T) -> BufResult<usize, T> {
            unreachable!("it could not be cancelled")
        }

        async fn writev<T: IoVecBuf>(&mut self, _: T) -> BufResult<usize, T> {
            unreachable!("it could not be cancelled")
        }

        async fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }

        async fn shutdown(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl CancelableAsyncWriteRent for Narrow {
        async fn cancelable_write<T: IoBuf>(&mut self, buffer: T, _: CancelHandle) -> BufResult<usize, T> {
            self.writes += 1;
            if let Some(link) = self.link.take() {
                link.cut_off();
            }
            (Ok(1), buffer)
        }

        async fn cancelable_writev<T: IoVecBuf>(&mut self, _: T, _: CancelHandle) -> BufResult<usize, T> {
            unreachable!("it has one buffer")
        }

        async fn cancelable_flush(&mut self, _: CancelHandle) -> io::Result<()> {
            Ok(())
        }

        async fn cancelable_shutdown(&mut self, _: CancelHandle) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_rest_of_a_write_is_not_written_once_its_connection_is_cut_off() {
        let aborted = Some(io::ErrorKind::ConnectionAborted);
        for (is_cut_off, writes, ended) in [(false, 4, None), (true, 1, aborted)] {
            let link = Connection::of_test(None);
            let mut socket = Narrow { link: is_cut_off.then(|| Rc::clone(&link)), writes: 0 };
            let written = link.write_all(&mut socket, vec![0; 4]).now_or_never();
            let error = written.expect("it waits for nothing").err();
            assert_eq!((socket.writes, error.map(|error| error.kind())), (writes, ended));
        }
    }
}

//! One connection: socket, TLS where there is any, protocol.
//!
//! ```text
//! Connecting -> Handshaking -> Open        (without TLS: Connecting -> Open)
//! ```
//!
//! It holds no buffer while idle. Reading, decrypting and writing happen in [`Scratch`], which all connections of
//! an engine share; only what the kernel would not take stays here.

use super::sockets;
use super::timers::{EntryUs, NO_ENTRY};
use super::tls::{Handshake, TlsClient, TlsTarget, UseTicket};
use crate::agent::protocol::{ClientProtocol, DeviceMemory, NotSent, ProtocolEvent, Request, Token};
use crate::workload::population::DeviceIndex;
use bytes::BytesMut;
use mio::net::TcpStream;
use std::io::{self, Read, Write};

/// Bytes read at a time.
const READ_BYTES: usize = 64 * 1024;
/// Reads of one connection in a row; then the others have their turn.
const READS_MAX: usize = 8;
/// Bytes that wait for the kernel to take them; beyond it requests are refused as [`NotSent::Full`]. As much as a
/// gateway holds for a client.
const UNSENT_BYTES_MAX: usize = 256 * 1024;
/// Scratch buffers above this are given back after use, in bytes: a page of history is 64 KiB.
const SCRATCH_BYTES_KEPT: usize = 256 * 1024;

/// Buffers that all connections of an engine share. Empty between two connections, but for `events`.
pub(super) struct Scratch {
    received: Box<[u8]>,
    plaintext: Vec<u8>,
    /// What the protocol wants to send, in plain text.
    out: BytesMut,
    /// What goes to the kernel.
    wire: Vec<u8>,
    /// What the protocol has understood.
    pub(super) events: Vec<ProtocolEvent>,
    /// Bytes that came and went so far.
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
}

impl Scratch {
    pub(super) fn new() -> Self {
        Self {
            received: vec![0; READ_BYTES].into(),
            plaintext: Vec::new(),
            out: BytesMut::new(),
            wire: Vec::new(),
            events: Vec::new(),
            bytes_in: 0,
            bytes_out: 0,
        }
    }

    fn clear(&mut self) {
        self.plaintext.clear();
        self.plaintext.shrink_to(SCRATCH_BYTES_KEPT);
        self.wire.clear();
        self.wire.shrink_to(SCRATCH_BYTES_KEPT);
        if self.out.capacity() > SCRATCH_BYTES_KEPT {
            self.out = BytesMut::new();
        }
        self.out.clear();
    }
}

/// Why a connection is gone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Loss {
    /// A key in tables of errors.
    pub(super) reason: &'static str,
    /// For a person; empty where the reason says all.
    pub(super) detail: String,
}

impl Loss {
    pub(super) fn new(reason: &'static str) -> Self {
        Self { reason, detail: String::new() }
    }

    fn because(reason: &'static str, detail: &impl ToString) -> Self {
        Self { reason, detail: detail.to_string() }
    }

    pub(super) fn of(error: &io::Error) -> Self {
        Self::because(sockets::reason(error), error)
    }
}

/// What looking at a connection brought, beside [`Scratch::events`].
#[derive(Default)]
pub(super) struct Progress {
    /// Whether the way to the server has just opened.
    pub(super) connected: Option<Handshake>,
    /// The connection is of no use any more.
    pub(super) lost: Option<Loss>,
    /// There is more to read.
    pub(super) more: bool,
}

/// One connection.
pub(super) struct Connection {
    socket: TcpStream,
    stage: Stage,
    /// Until when it must be open, in microseconds.
    open_by_us: u64,
    tls: Option<TlsClient>,
    protocol: Box<dyn ClientProtocol>,
    /// What the kernel would not take. Unallocated while there is nothing.
    unsent: Vec<u8>,
    /// See [`super::timers`].
    pub(super) entry_us: EntryUs,
    device: DeviceIndex,
    use_ticket: UseTicket,
    reading: Reading,
    /// The kernel may have bytes for us.
    readable: bool,
    /// The server has sent its last byte.
    read_closed: bool,
    /// Waits in the engine's list of connections with more to read.
    pub(super) listed: bool,
}

/// Where a connection is in its life.
enum Stage {
    /// With whom to speak TLS then.
    Connecting(Option<Box<TlsTarget>>),
    Handshaking,
    Open,
}

/// Whether bytes are taken from the socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reading {
    On,
    Paused,
}

/// How a connection begins.
pub(super) struct Beginning {
    pub(super) socket: TcpStream,
    pub(super) tls: Option<TlsTarget>,
    pub(super) use_ticket: UseTicket,
    pub(super) protocol: Box<dyn ClientProtocol>,
    pub(super) open_by_us: u64,
}

impl Connection {
    /// A connection whose socket is on its way.
    pub(super) fn new(device: DeviceIndex, beginning: Beginning) -> Self {
        Self {
            socket: beginning.socket,
            stage: Stage::Connecting(beginning.tls.map(Box::new)),
            open_by_us: beginning.open_by_us,
            tls: None,
            protocol: beginning.protocol,
            unsent: Vec::new(),
            entry_us: NO_ENTRY,
            device,
            use_ticket: beginning.use_ticket,
            reading: Reading::On,
            readable: false,
            read_closed: false,
            listed: false,
        }
    }

    /// Closes the socket; what the device is to keep.
    pub(super) fn into_memory(self) -> DeviceMemory {
        self.protocol.into_memory()
    }

    /// When [`Self::handle_timeout`] is to be called.
    pub(super) fn due_us(&self) -> Option<u64> {
        match self.stage {
            Stage::Connecting(_) | Stage::Handshaking => Some(self.open_by_us),
            Stage::Open => self.protocol.poll_timeout(),
        }
    }

    /// Takes what poll said of the socket, and does what can be done.
    pub(super) fn handle_ready(
        &mut self,
        now_us: u64,
        event: &mio::event::Event,
        io: &mut Scratch,
    ) -> Progress {
        self.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        self.read_closed |= event.is_read_closed();
        if let Stage::Connecting(tls) = &mut self.stage {
            match self.socket.take_error() {
                Ok(None) if self.socket.peer_addr().is_ok() => {}
                Ok(None) => return Progress::default(),
                Ok(Some(error)) | Err(error) => return lost(Loss::of(&error)),
            }
            let tls = tls.take();
            return self.reached(now_us, tls, io);
        }
        let written = if event.is_writable() { self.write_unsent(io) } else { Ok(()) };
        match written {
            Err(loss) => lost(loss),
            // A reset shows although nothing is read.
            Ok(()) if self.reading == Reading::Paused && event.is_error() => {
                let error = self.socket.take_error().ok().flatten();
                lost(error.map_or(Loss::new("reset"), |error| Loss::of(&error)))
            }
            Ok(()) => self.read(now_us, io),
        }
    }

    /// TCP is there.
    fn reached(&mut self, now_us: u64, tls: Option<Box<TlsTarget>>, io: &mut Scratch) -> Progress {
        let mut progress = Progress::default();
        let begun = match tls {
            Some(target) => TlsClient::start(&target, self.device, self.use_ticket, &mut io.wire)
                .map(|tls| {
                    self.tls = Some(tls);
                    self.stage = Stage::Handshaking;
                })
                .map_err(|failure| Loss::because("tls", &failure)),
            None => {
                self.open(now_us, Handshake::Full, io, &mut progress);
                Ok(())
            }
        };
        progress.lost = begun.and_then(|()| self.flush(io)).err();
        progress.more = self.readable;
        progress
    }

    fn open(&mut self, now_us: u64, handshake: Handshake, io: &mut Scratch, progress: &mut Progress) {
        self.stage = Stage::Open;
        progress.connected = Some(handshake);
        self.protocol.opened(now_us, &mut io.out);
    }

    /// Reads and understands as much as is fair, and sends what follows from it.
    pub(super) fn read(&mut self, now_us: u64, io: &mut Scratch) -> Progress {
        let mut progress = Progress::default();
        for _ in 0..READS_MAX {
            if !self.may_read() {
                break;
            }
            progress.lost = match self.socket.read(&mut io.received) {
                Ok(0) => Some(Loss::new("end")),
                Ok(count) => {
                    io.bytes_in += count as u64;
                    // A stream that gave less than was asked for has no more, and says so when it has again; but it
                    // says only once that it has ended.
                    self.readable = count == io.received.len() || self.read_closed;
                    self.take(now_us, count, io, &mut progress).err()
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readable = false;
                    None
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => None,
                Err(error) => Some(Loss::of(&error)),
            };
            if progress.lost.is_some() {
                break;
            }
        }
        let flushed = self.flush(io);
        if progress.lost.is_none() {
            progress.lost = flushed.err();
        }
        progress.more = self.may_read();
        progress
    }

    /// A pause begins when the way is open: a handshake that stands still would only time out.
    fn may_read(&self) -> bool {
        self.readable && (self.reading == Reading::On || !matches!(self.stage, Stage::Open))
    }

    /// Understands the first `count` received bytes.
    fn take(
        &mut self,
        now_us: u64,
        count: usize,
        io: &mut Scratch,
        progress: &mut Progress,
    ) -> Result<(), Loss> {
        let Some(tls) = &mut self.tls else {
            let bytes = io.received.get(..count).unwrap_or_default();
            let taken = self.protocol.received(now_us, bytes, &mut io.out, &mut io.events);
            return taken.map_err(|fault| Loss::because("protocol", &fault));
        };
        let bytes = io.received.get_mut(..count).unwrap_or_default();
        io.plaintext.clear();
        let received = tls.receive(bytes, &mut io.plaintext, &mut io.wire);
        if let Ok(received) = received
            && let Some(handshake) = received.finished
        {
            self.open(now_us, handshake, io, progress);
        }
        if !io.plaintext.is_empty() {
            let taken = self.protocol.received(now_us, &io.plaintext, &mut io.out, &mut io.events);
            taken.map_err(|fault| Loss::because("protocol", &fault))?;
        }
        match received {
            Ok(received) if received.peer_closed => Err(Loss::new("end")),
            Ok(_) => Ok(()),
            Err(failure) => Err(Loss::because("tls", &failure)),
        }
    }

    /// Puts a request among what [`Self::flush`] sends.
    pub(super) fn request(
        &mut self,
        now_us: u64,
        token: Token,
        request: &Request,
        io: &mut Scratch,
    ) -> Result<(), NotSent> {
        if !matches!(self.stage, Stage::Open) {
            return Err(NotSent::NotReady);
        }
        if self.unsent.len() + io.out.len() > UNSENT_BYTES_MAX {
            return Err(NotSent::Full);
        }
        self.protocol.request(now_us, token, request, &mut io.out)
    }

    /// Heartbeats, and giving up.
    pub(super) fn handle_timeout(&mut self, now_us: u64, io: &mut Scratch) -> Result<(), Loss> {
        match self.stage {
            Stage::Connecting(_) | Stage::Handshaking => Err(Loss::new("timeout")),
            Stage::Open => {
                let handled = self.protocol.handle_timeout(now_us, &mut io.out);
                handled.map_err(|fault| Loss::because("silent", &fault))?;
                self.flush(io)
            }
        }
    }

    /// Stops reading, or reads again. True: there may be something to read.
    pub(super) fn set_reading(&mut self, reading: Reading) -> bool {
        self.reading = reading;
        self.may_read()
    }

    /// Hands to the kernel what is to be sent, as much as it takes.
    pub(super) fn flush(&mut self, io: &mut Scratch) -> Result<(), Loss> {
        let flushed = self.flush_unclean(io);
        io.clear();
        flushed
    }

    fn flush_unclean(&mut self, io: &mut Scratch) -> Result<(), Loss> {
        let bytes = match &mut self.tls {
            _ if io.out.is_empty() => &io.wire[..],
            Some(tls) => {
                let encrypted = tls.encrypt(&io.out, &mut io.wire);
                encrypted.map_err(|failure| Loss::because("tls", &failure))?;
                &io.wire[..]
            }
            None => &io.out[..],
        };
        if bytes.is_empty() {
            return Ok(());
        }
        let written = if self.unsent.is_empty() { write(&self.socket, bytes, &mut io.bytes_out)? } else { 0 };
        self.unsent.extend_from_slice(bytes.get(written..).unwrap_or_default());
        Ok(())
    }

    fn write_unsent(&mut self, io: &mut Scratch) -> Result<(), Loss> {
        if self.unsent.is_empty() {
            return Ok(());
        }
        let written = write(&self.socket, &self.unsent, &mut io.bytes_out)?;
        if written == self.unsent.len() {
            self.unsent = Vec::new();
        } else {
            self.unsent.drain(..written);
        }
        Ok(())
    }
}

/// How much the kernel took.
fn write(mut socket: &TcpStream, bytes: &[u8], bytes_out: &mut u64) -> Result<usize, Loss> {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match socket.write(rest) {
            Ok(0) => return Err(Loss::new("reset")),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Loss::of(&error)),
        }
    }
    *bytes_out += written as u64;
    Ok(written)
}

fn lost(loss: Loss) -> Progress {
    Progress { lost: Some(loss), ..Progress::default() }
}

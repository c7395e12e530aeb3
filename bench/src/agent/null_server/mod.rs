//! A server that does nothing but answer, to show what an agent can do.
//!
//! One thread, one poll. It speaks the real native protocol over TLS 1.3, with tickets; it accepts every token and
//! every message at once, numbers messages, and pushes them to the other members that are here. It stores nothing,
//! so there is nothing to catch up with, and nothing outlives it. Nobody is timed out: whoever connects is a bench.
//!
//! `mod.rs` has the sockets, [`rooms`] what requests mean.

mod rooms;

use crate::clock;
use bytes::{Buf, BytesMut};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use rooms::{Outgoing, Rooms};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{Ticketer, cipher_suite, default_provider};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::{ServerConfig, ServerConnection};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use wire_protocol::frame::{FrameDecoder, encode_frame};
use wire_protocol::ids::{DeviceId, UserId};
use wire_protocol::limits::{ALPN_NATIVE, FRAME_BYTES_MAX, OUTBOX_BYTES_MAX};
use wire_protocol::session::ServerSession;
use wire_protocol::v1::{SyncNeeded, server_frame};

/// Name in the certificate.
pub const SERVER_NAME: &str = "localhost";
const LISTENER: Token = Token(usize::MAX);
const WAKER: Token = Token(usize::MAX - 1);
/// Connections that wait to be accepted.
const BACKLOG: i32 = 4_096;
const EVENTS_MAX: usize = 1_024;
/// Plaintext taken from a session at a time, in bytes: one round of all sessions before the next.
const READ_BYTES: usize = 16 * 1024;
/// Plaintext of one record, in bytes.
const RECORD_BYTES_MAX: usize = 16 * 1024;

/// One connection.
struct Session {
    socket: TcpStream,
    tls: ServerConnection,
    decoder: FrameDecoder,
    half: ServerSession,
    identity: Option<(UserId, DeviceId)>,
    /// Frames in plain text; no more than [`OUTBOX_BYTES_MAX`] and one frame.
    outbox: BytesMut,
    /// Events were dropped since the outbox was full.
    sync_needed: bool,
    /// Has something to send in this round.
    dirty: bool,
}

/// A server that does nothing but answer.
pub struct NullServer {
    listener: TcpListener,
    address: SocketAddr,
    certificate_pem: String,
    config: Arc<ServerConfig>,
    poll: Poll,
    waker: Arc<Waker>,
    sessions: Vec<Option<Box<Session>>>,
    free: Vec<usize>,
    dirty: Vec<usize>,
    rooms: Rooms,
}

impl NullServer {
    /// Listens. The certificate is made anew.
    pub fn bind(listen: SocketAddr) -> io::Result<Self> {
        let made =
            rcgen::generate_simple_self_signed(vec![SERVER_NAME.to_owned()]).map_err(io::Error::other)?;
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(io::Error::other)?;
        let config = server_config(made.cert.der().clone(), key).map_err(io::Error::other)?;
        let mut listener = listen_on(listen)?;
        let poll = Poll::new()?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        Ok(Self {
            address: listener.local_addr()?,
            listener,
            certificate_pem: made.cert.pem(),
            config,
            poll,
            waker,
            sessions: Vec::new(),
            free: Vec::new(),
            dirty: Vec::new(),
            rooms: Rooms::default(),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What its clients have to trust.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Wakes it to look at `stop`.
    pub fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }

    /// Serves until `stop` is set and the waker used; every connection is dropped then.
    pub fn run(mut self, stop: &AtomicBool) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        while !stop.load(Ordering::Acquire) {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept()?,
                    WAKER => {}
                    Token(place) => self.look_at(place),
                }
            }
            self.flush();
        }
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let mut socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // Gone before it was taken.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            socket.set_nodelay(true)?;
            let place = self.free.pop().unwrap_or_else(|| {
                self.sessions.push(None);
                self.sessions.len() - 1
            });
            self.poll.registry().register(
                &mut socket,
                Token(place),
                Interest::READABLE | Interest::WRITABLE,
            )?;
            let tls = ServerConnection::new(Arc::clone(&self.config)).map_err(io::Error::other)?;
            self.sessions[place] = Some(Box::new(Session {
                socket,
                tls,
                decoder: FrameDecoder::new(FRAME_BYTES_MAX),
                half: ServerSession::new(clock::now_us() / 1_000),
                identity: None,
                outbox: BytesMut::new(),
                sync_needed: false,
                dirty: false,
            }));
        }
    }

    /// Takes what a socket has, and answers. Whatever is wrong ends the connection.
    fn look_at(&mut self, place: usize) {
        let mut ended = false;
        while let Some(session) = self.sessions.get_mut(place).and_then(Option::as_deref_mut) {
            match session.tls.read_tls(&mut session.socket) {
                Ok(0) => ended = true,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => ended = true,
            }
            if ended || self.understand(place).is_none() {
                return self.close(place);
            }
        }
        self.mark(place);
    }

    /// Hands whole frames on; `None`: the connection is of no use.
    fn understand(&mut self, place: usize) -> Option<()> {
        let session = self.sessions.get_mut(place)?.as_deref_mut()?;
        session.tls.process_new_packets().ok()?;
        let mut plaintext = [0; READ_BYTES];
        loop {
            let session = self.sessions.get_mut(place)?.as_deref_mut()?;
            match session.tls.reader().read(&mut plaintext) {
                Ok(0) => return None,
                Ok(count) => session.decoder.push(plaintext.get(..count)?),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Some(()),
                Err(_) => return None,
            }
            loop {
                let session = self.sessions.get_mut(place)?.as_deref_mut()?;
                let Some(payload) = session.decoder.next_frame().ok()? else { break };
                let mut out = BytesMut::new();
                let input = session.half.handle_frame(clock::now_us() / 1_000, payload, &mut out).ok()?;
                session.push(&out);
                let pushed = self.rooms.answer(place, session.identity, input)?;
                self.send(place, pushed);
            }
        }
    }

    /// Writes answers and events into the outboxes that they are for.
    fn send(&mut self, asking: usize, outgoing: Vec<Outgoing>) {
        for item in outgoing {
            let place = match &item {
                Outgoing::Event { place, .. } => *place,
                _ => asking,
            };
            let Some(session) = self.sessions.get_mut(place).and_then(Option::as_deref_mut) else { continue };
            let mut out = BytesMut::new();
            match item {
                Outgoing::Ready { identity, info } => {
                    session.identity = Some(identity);
                    session.half.ready(clock::now_us() / 1_000, info, &mut out);
                }
                Outgoing::Answer { request_id, body } => {
                    session.half.answer(request_id, body, &mut out);
                }
                Outgoing::Event { .. } if session.outbox.len() > OUTBOX_BYTES_MAX => {
                    session.sync_needed = true
                }
                Outgoing::Event { body, .. } => session.half.event(body, &mut out),
            }
            session.push(&out);
            self.mark(place);
        }
    }

    fn mark(&mut self, place: usize) {
        if let Some(session) = self.sessions.get_mut(place).and_then(Option::as_deref_mut)
            && !session.dirty
        {
            session.dirty = true;
            self.dirty.push(place);
        }
    }

    fn flush(&mut self) {
        for place in std::mem::take(&mut self.dirty) {
            let Some(session) = self.sessions.get_mut(place).and_then(Option::as_deref_mut) else { continue };
            session.dirty = false;
            if session.flush().is_err() {
                self.close(place);
            }
        }
    }

    fn close(&mut self, place: usize) {
        if let Some(session) = self.sessions.get_mut(place).and_then(Option::take) {
            if let Some((user, _)) = session.identity {
                self.rooms.left(user, place);
            }
            self.free.push(place);
        }
    }
}

impl Session {
    /// A frame into the outbox.
    fn push(&mut self, payload: &[u8]) {
        if !payload.is_empty() {
            encode_frame(payload, &mut self.outbox);
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        loop {
            while self.tls.wants_write() {
                match self.tls.write_tls(&mut self.socket) {
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            if self.outbox.is_empty() && self.sync_needed {
                self.sync_needed = false;
                let mut out = BytesMut::new();
                self.half.event(server_frame::Body::SyncNeeded(SyncNeeded {}), &mut out);
                self.push(&out);
            }
            if self.outbox.is_empty() || self.tls.is_handshaking() {
                return Ok(());
            }
            let record = self.outbox.len().min(RECORD_BYTES_MAX);
            let taken = self.tls.writer().write(self.outbox.get(..record).unwrap_or_default())?;
            self.outbox.advance(taken);
            if self.outbox.is_empty() {
                self.outbox = BytesMut::new();
            }
        }
    }
}

fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

/// As a gateway's.
fn server_config(
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let provider =
        CryptoProvider { cipher_suites: vec![cipher_suite::TLS13_AES_128_GCM_SHA256], ..default_provider() };
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    config.alpn_protocols = vec![ALPN_NATIVE.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = Ticketer::new()?;
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}

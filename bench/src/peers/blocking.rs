//! Drives one protocol over one TLS socket, blocking: for setting up a server and for checks by hand. Load is the
//! engine's (`agent/engine/`).

use crate::agent::protocol::{
    ClientProtocol, DeviceMemory, NotSent, ProtocolEvent, ProtocolFault, Request, Token,
};
use crate::clock;
use crate::coordinator::control::messages::TargetAddress;
use bytes::BytesMut;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of a read.
const READ_BYTES: usize = 16 * 1024;
/// Longest wait for a server's first words.
const PROBE_WAIT: Duration = Duration::from_secs(5);
/// Shortest wait of a read: a zero would mean "for ever".
const READ_WAIT_MIN: Duration = Duration::from_millis(1);

/// Why a blocking client could not go on.
#[derive(Debug, thiserror::Error)]
pub enum BlockingError {
    /// The socket, or TLS on it.
    #[error("connection to {address}: {error}")]
    Connection {
        /// Whose.
        address: String,
        /// Why.
        error: io::Error,
    },
    /// The server broke the protocol.
    #[error("protocol: {0}")]
    Protocol(#[from] ProtocolFault),
    /// The request was not written.
    #[error("not sent: {0}")]
    NotSent(#[from] NotSent),
    /// The server refused, or closed.
    #[error("{0:?}")]
    Refused(ProtocolEvent),
    /// Nothing that was waited for came in time.
    #[error("nothing that was waited for came within {0:?}")]
    TimedOut(Duration),
}

/// One connection.
pub struct BlockingClient {
    address: String,
    protocol: Box<dyn ClientProtocol>,
    stream: StreamOwned<ClientConnection, TcpStream>,
    start: Instant,
    out: BytesMut,
    events: VecDeque<ProtocolEvent>,
}

/// The engine's TLS for a target: its own authority, TLS 1.3.
pub fn tls_config(target: &TargetAddress) -> Result<Arc<ClientConfig>, io::Error> {
    let bad = |error: &dyn std::fmt::Display| io::Error::new(io::ErrorKind::InvalidData, error.to_string());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(target.ca_pem.as_bytes()) {
        roots.add(certificate.map_err(|error| bad(&error))?).map_err(|error| bad(&error))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| bad(&error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Whether a server answers: after TLS and `hello`, with something that has `wanted` in it.
pub fn answers(target: &TargetAddress, hello: &[u8], wanted: &[u8]) -> bool {
    let asked = || -> io::Result<bool> {
        let name = ServerName::try_from(target.tls_name.clone()).map_err(io::Error::other)?;
        let tls = ClientConnection::new(tls_config(target)?, name).map_err(io::Error::other)?;
        let tcp = TcpStream::connect(&target.address)?;
        tcp.set_read_timeout(Some(PROBE_WAIT))?;
        let mut stream = StreamOwned::new(tls, tcp);
        stream.conn.complete_io(&mut stream.sock)?;
        stream.write_all(hello)?;
        stream.flush()?;
        let (mut answer, mut bytes) = (Vec::new(), [0; 1024]);
        while !wanted.is_empty() && !answer.windows(wanted.len()).any(|part| part == wanted) {
            match stream.read(&mut bytes)? {
                count if count == 0 || answer.len() > READ_BYTES => return Ok(false),
                count => answer.extend_from_slice(bytes.get(..count).unwrap_or_default()),
            }
        }
        Ok(true)
    };
    asked().unwrap_or(false)
}

impl BlockingClient {
    /// Connects and waits until the protocol is ready. `start` is the zero of its clock.
    pub fn connect(
        target: &TargetAddress,
        protocol: Box<dyn ClientProtocol>,
        start: Instant,
        wait: Duration,
    ) -> Result<Self, BlockingError> {
        let failed = |error| BlockingError::Connection { address: target.address.clone(), error };
        let name = ServerName::try_from(target.tls_name.clone())
            .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidInput, error.to_string())))?;
        let tls = ClientConnection::new(tls_config(target).map_err(failed)?, name)
            .map_err(|error| failed(io::Error::other(error)))?;
        let tcp = TcpStream::connect(&target.address).map_err(failed)?;
        tcp.set_nodelay(true).map_err(failed)?;
        let mut client = Self {
            address: target.address.clone(),
            protocol,
            stream: StreamOwned::new(tls, tcp),
            start,
            out: BytesMut::new(),
            events: VecDeque::new(),
        };
        let now_us = client.now_us();
        client.protocol.opened(now_us, &mut client.out);
        client.flush()?;
        client.wait_for(wait, |event| matches!(event, ProtocolEvent::Ready).then_some(()))?;
        Ok(client)
    }

    /// Writes a request; the answer is an event.
    pub fn request(&mut self, token: Token, request: &Request) -> Result<(), BlockingError> {
        let now_us = self.now_us();
        self.protocol.request(now_us, token, request, &mut self.out)?;
        self.flush()
    }

    /// The first event that `wanted` takes. Refusals and ends are errors, other events are passed over.
    pub fn wait_for<T>(
        &mut self,
        wait: Duration,
        mut wanted: impl FnMut(&ProtocolEvent) -> Option<T>,
    ) -> Result<T, BlockingError> {
        let deadline = clock::now() + wait;
        loop {
            while let Some(event) = self.events.pop_front() {
                if let Some(found) = wanted(&event) {
                    return Ok(found);
                }
                if matches!(event, ProtocolEvent::Refused { .. } | ProtocolEvent::Closing { .. }) {
                    return Err(BlockingError::Refused(event));
                }
            }
            if clock::now() >= deadline {
                return Err(BlockingError::TimedOut(wait));
            }
            self.read_until(deadline)?;
        }
    }

    /// Drops the connection without a word.
    pub fn disconnect(self) -> DeviceMemory {
        let _ = self.stream.sock.shutdown(Shutdown::Both);
        self.protocol.into_memory()
    }

    /// Reads once; comes back without bytes when the protocol or the caller has something to do.
    fn read_until(&mut self, deadline: Instant) -> Result<(), BlockingError> {
        let timeout = self.protocol.poll_timeout().map(|us| self.start + Duration::from_micros(us));
        let until = timeout.map_or(deadline, |timeout| timeout.min(deadline));
        let wait = until.saturating_duration_since(clock::now()).max(READ_WAIT_MIN);
        self.stream.sock.set_read_timeout(Some(wait)).map_err(|error| self.failed(error))?;
        let mut bytes = [0; READ_BYTES];
        let read = self.stream.read(&mut bytes);
        let now_us = self.now_us();
        match read {
            Ok(0) => return Err(self.failed(io::ErrorKind::UnexpectedEof.into())),
            Ok(count) => {
                let mut events = Vec::new();
                let bytes = bytes.get(..count).unwrap_or_default();
                self.protocol.received(now_us, bytes, &mut self.out, &mut events)?;
                self.events.extend(events);
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) => return Err(self.failed(error)),
        }
        if self.protocol.poll_timeout().is_some_and(|due| due <= now_us) {
            self.protocol.handle_timeout(now_us, &mut self.out)?;
        }
        self.flush()
    }

    fn flush(&mut self) -> Result<(), BlockingError> {
        let out = self.out.split();
        let written = self.stream.write_all(&out).and_then(|()| self.stream.flush());
        written.map_err(|error| self.failed(error))
    }

    fn failed(&self, error: io::Error) -> BlockingError {
        BlockingError::Connection { address: self.address.clone(), error }
    }

    fn now_us(&self) -> u64 {
        u64::try_from(clock::now().duration_since(self.start).as_micros()).unwrap_or(u64::MAX)
    }
}

//! A session over one socket: native over TLS, or WebSocket over TLS or plain loopback.

use super::AgentError;
use crate::clock;
use bytes::{Buf, Bytes, BytesMut};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use wire_protocol::frame::{FrameDecoder, encode_frame};
use wire_protocol::limits::{ALPN_HTTP, ALPN_NATIVE, FRAME_BYTES_MAX};
use wire_protocol::session::{ClientEvent, ClientSession, Proof};
use wire_protocol::v1::{self, client_frame, server_frame};
use wire_protocol::websocket;

/// How a client comes in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
    /// Length-prefixed frames over TLS.
    Native,
    /// WebSocket over TLS.
    WebSocketTls,
    /// WebSocket over plain loopback.
    WebSocketPlain,
}

/// A gateway's addresses.
#[derive(Clone, Debug)]
pub struct Target {
    /// TLS port.
    pub tls: SocketAddr,
    /// As HTTP names it over TLS: host and port.
    pub authority: String,
    /// Name in its certificate.
    pub tls_name: String,
    /// Whom to believe that it is the one.
    pub trust: Trust,
    /// What only a gateway of this machine offers.
    pub loopback: Option<Loopback>,
}

/// Whose certificates are believed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Trust {
    /// Those in this file, PEM.
    File(PathBuf),
    /// These, PEM.
    Pem(String),
    /// Those that the system believes.
    System,
}

/// Ports without TLS.
#[derive(Clone, Copy, Debug)]
pub struct Loopback {
    /// HTTP and WebSocket.
    pub plain: SocketAddr,
    /// Prometheus text.
    pub metrics: SocketAddr,
}

impl Trust {
    fn roots(&self) -> Result<rustls::RootCertStore, AgentError> {
        let mut roots = rustls::RootCertStore::empty();
        match self {
            Self::File(file) => {
                let unusable = |error: String| AgentError::Trust(format!("{}: {error}", file.display()));
                let found =
                    CertificateDer::pem_file_iter(file).map_err(|error| unusable(error.to_string()))?;
                for certificate in found {
                    let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
                    roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
                }
                if roots.is_empty() {
                    return Err(unusable("no certificate in it".into()));
                }
            }
            Self::Pem(text) => {
                for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
                    let certificate = certificate.map_err(|error| AgentError::Trust(error.to_string()))?;
                    roots.add(certificate).map_err(|error| AgentError::Trust(error.to_string()))?;
                }
                if roots.is_empty() {
                    return Err(AgentError::Trust("there is none to believe".into()));
                }
            }
            Self::System => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                if roots.is_empty() {
                    return Err(AgentError::Trust("the system believes no certificate".into()));
                }
            }
        }
        Ok(roots)
    }
}

/// Longest wait for one answer, in milliseconds: beyond it the server is taken for dead.
pub const ANSWER_MS_MAX: u64 = 30_000;

pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

enum Codec {
    Native(FrameDecoder),
    WebSocket(Box<websocket::Decoder>),
}

/// One open session. Dropping it closes the socket without a word, as a lost network would.
pub struct Connection {
    stream: Box<dyn Stream>,
    codec: Codec,
    session: ClientSession,
    /// What the server told when the session opened.
    pub ready: v1::Ready,
    answers: HashMap<u32, server_frame::Body>,
    events: VecDeque<server_frame::Body>,
    outgoing: BytesMut,
    started: Instant,
    mask: u32,
}

impl Connection {
    /// Connects, says hello, and returns once the session is ready.
    pub async fn open(target: &Target, route: Route, proof: Proof) -> Result<Self, AgentError> {
        let within = Duration::from_millis(ANSWER_MS_MAX);
        tokio::time::timeout(within, Self::open_unbounded(target, route, proof))
            .await
            .unwrap_or(Err(AgentError::TimedOut(ANSWER_MS_MAX)))
    }

    async fn open_unbounded(target: &Target, route: Route, proof: Proof) -> Result<Self, AgentError> {
        let (mut stream, host) = match route {
            Route::WebSocketPlain => plain(target).await?,
            Route::Native => tls(target, ALPN_NATIVE).await?,
            Route::WebSocketTls => tls(target, ALPN_HTTP).await?,
        };
        let codec = match route {
            Route::Native => Codec::Native(FrameDecoder::new(FRAME_BYTES_MAX)),
            _ => Codec::WebSocket(Box::new(upgrade(&mut stream, &host).await?)),
        };
        let started = clock::now();
        let mut connection = Self {
            stream,
            codec,
            session: ClientSession::new(0),
            ready: v1::Ready::default(),
            answers: HashMap::new(),
            events: VecDeque::new(),
            outgoing: BytesMut::new(),
            started,
            mask: 0x9e37_79b9,
        };
        let mut hello = BytesMut::new();
        connection.session.hello(proof, 0, "ringline-bench", &mut hello);
        connection.queue(&hello);
        connection.flush().await?;
        match connection.receive().await? {
            ClientEvent::Ready(ready) => connection.ready = ready,
            ClientEvent::Closing(closing) => return Err(AgentError::Closing(closing)),
            other => return Err(AgentError::Protocol(format!("no answer to hello: {other:?}"))),
        }
        Ok(connection)
    }

    /// Sends a request and waits for its answer; events that come meanwhile are kept. An error answer is an error.
    pub async fn request(&mut self, body: client_frame::Body) -> Result<server_frame::Body, AgentError> {
        let id = self.begin(body)?;
        self.flush().await?;
        self.answer(id).await
    }

    /// Queues a request; [`Self::flush`] sends it.
    pub fn begin(&mut self, body: client_frame::Body) -> Result<u32, AgentError> {
        let mut payload = BytesMut::new();
        let id = self.session.request(clock::since_ms(self.started), body, &mut payload)?;
        self.queue(&payload);
        Ok(id)
    }

    /// Queues a frame that wants no answer.
    pub fn notify(&mut self, body: client_frame::Body) {
        let mut payload = BytesMut::new();
        if self.session.notify(clock::since_ms(self.started), body, &mut payload) {
            self.queue(&payload);
        }
    }

    /// Waits for the answer of one request.
    pub async fn answer(&mut self, id: u32) -> Result<server_frame::Body, AgentError> {
        loop {
            if let Some(body) = self.answers.remove(&id) {
                return match body {
                    server_frame::Body::Error(error) => Err(AgentError::Refused(error)),
                    body => Ok(body),
                };
            }
            self.take_one().await?;
        }
    }

    /// Waits for any answer, in the order of arrival.
    pub async fn any_answer(&mut self) -> Result<(u32, server_frame::Body), AgentError> {
        loop {
            if let Some(id) = self.answers.keys().next().copied()
                && let Some(body) = self.answers.remove(&id)
            {
                return Ok((id, body));
            }
            self.take_one().await?;
        }
    }

    /// Waits for an event.
    pub async fn event(&mut self) -> Result<server_frame::Body, AgentError> {
        loop {
            if let Some(body) = self.events.pop_front() {
                return Ok(body);
            }
            self.take_one().await?;
        }
    }

    /// An event if one is here already or comes within `ms`.
    pub async fn event_within(&mut self, ms: u64) -> Result<Option<server_frame::Body>, AgentError> {
        match tokio::time::timeout(Duration::from_millis(ms), self.event()).await {
            Ok(event) => event.map(Some),
            Err(_) => Ok(None),
        }
    }

    /// Pings if a ping is due; an error if the server has been silent for too long.
    pub async fn keep_alive(&mut self) -> Result<(), AgentError> {
        let mut ping = BytesMut::new();
        self.session.handle_timeout(clock::since_ms(self.started), &mut ping)?;
        if !ping.is_empty() {
            self.queue(&ping);
            self.flush().await?;
        }
        Ok(())
    }

    async fn take_one(&mut self) -> Result<(), AgentError> {
        let within = Duration::from_millis(ANSWER_MS_MAX);
        let event = tokio::time::timeout(within, self.receive()).await;
        match event.unwrap_or(Err(AgentError::TimedOut(ANSWER_MS_MAX)))? {
            ClientEvent::Answer { request_id, body } => {
                self.answers.insert(request_id, body);
            }
            ClientEvent::Event(body) => self.events.push_back(body),
            ClientEvent::Closing(closing) => return Err(AgentError::Closing(closing)),
            ClientEvent::Ready(_) | ClientEvent::Handled => {}
        }
        Ok(())
    }

    /// Waits for one frame. Safe to drop while waiting: what was read stays in the decoder.
    pub async fn receive(&mut self) -> Result<ClientEvent, AgentError> {
        loop {
            if let Some(payload) = self.next_payload()? {
                let now_ms = clock::since_ms(self.started);
                return Ok(self.session.handle_frame(now_ms, payload)?);
            }
            let mut buffer = [0u8; 8_192];
            let count = self.stream.read(&mut buffer).await?;
            if count == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            let bytes = buffer.get(..count).unwrap_or_default();
            match &mut self.codec {
                Codec::Native(decoder) => decoder.push(bytes),
                Codec::WebSocket(decoder) => decoder.push(bytes),
            }
        }
    }

    fn next_payload(&mut self) -> Result<Option<Bytes>, AgentError> {
        match &mut self.codec {
            Codec::Native(decoder) => {
                decoder.next_frame().map_err(|error| AgentError::Protocol(format!("{error:?}")))
            }
            Codec::WebSocket(decoder) => loop {
                match decoder.next_item().map_err(|error| AgentError::Protocol(format!("{error:?}")))? {
                    Some(websocket::Item::Binary(payload)) => return Ok(Some(payload)),
                    Some(websocket::Item::Close { .. }) => {
                        return Err(io::Error::from(io::ErrorKind::ConnectionAborted).into());
                    }
                    Some(_) => {}
                    None => return Ok(None),
                }
            },
        }
    }

    fn queue(&mut self, payload: &[u8]) {
        match &self.codec {
            Codec::Native(_) => encode_frame(payload, &mut self.outgoing),
            Codec::WebSocket(_) => {
                // Masks guard proxies from browsers' scripts; a load generator only has to vary them.
                self.mask = self.mask.wrapping_mul(0x0019_660d).wrapping_add(0x3c6e_f35f);
                let mask = self.mask.to_be_bytes();
                websocket::encode(websocket::Outgoing::Binary(payload), Some(mask), &mut self.outgoing);
            }
        }
    }

    /// Writes what was queued.
    pub async fn flush(&mut self) -> Result<(), AgentError> {
        while self.outgoing.has_remaining() {
            let written = self.stream.write(&self.outgoing).await?;
            self.outgoing.advance(written);
        }
        self.stream.flush().await?;
        Ok(())
    }
}

/// What HTTP is spoken over, and the host that it names: the plain port where there is one, or else TLS.
pub(super) async fn http(target: &Target) -> Result<(Box<dyn Stream>, String), AgentError> {
    match target.loopback {
        Some(_) => plain(target).await,
        None => tls(target, ALPN_HTTP).await,
    }
}

async fn plain(target: &Target) -> Result<(Box<dyn Stream>, String), AgentError> {
    let none = || AgentError::Protocol(format!("{}: no port without TLS is known", target.authority));
    let address = target.loopback.ok_or_else(none)?.plain;
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    Ok((Box::new(tcp), address.to_string()))
}

async fn tls(target: &Target, alpn: &[u8]) -> Result<(Box<dyn Stream>, String), AgentError> {
    let tcp = TcpStream::connect(target.tls).await?;
    tcp.set_nodelay(true)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| AgentError::Protocol(error.to_string()))?
        .with_root_certificates(target.trust.roots()?)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let name = ServerName::try_from(target.tls_name.clone())
        .map_err(|_| AgentError::Trust(format!("{:?} is no name of a host", target.tls_name)))?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    Ok((Box::new(connector.connect(name, tcp).await?), target.authority.clone()))
}

/// The HTTP upgrade. Returns the decoder with whatever came behind the response's head.
async fn upgrade(stream: &mut Box<dyn Stream>, host: &str) -> Result<websocket::Decoder, AgentError> {
    let (request, accept) = websocket::upgrade_request(host, *b"ringline-bench-1");
    stream.write_all(&request).await?;
    stream.flush().await?;
    let mut head = Vec::new();
    let end = loop {
        if let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        if head.len() > 8_192 || stream.read_buf(&mut head).await? == 0 {
            return Err(AgentError::Http("no end of the response's head".into()));
        }
    };
    let (head, rest) = head.split_at(end);
    let text = String::from_utf8_lossy(head);
    if !text.starts_with("HTTP/1.1 101") || !text.contains(accept.as_str()) {
        return Err(AgentError::Http(format!(
            "upgrade refused: {}",
            text.lines().next().unwrap_or_default()
        )));
    }
    let mut decoder = websocket::Decoder::for_client(FRAME_BYTES_MAX);
    decoder.push(rest);
    Ok(decoder)
}

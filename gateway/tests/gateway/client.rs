//! A client that waits: the protocol's client half over a blocking socket.

use crate::server::{Account, PATIENCE_S, Server};
use bytes::{Bytes, BytesMut};
use prost::Message;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use std::collections::{HashSet, VecDeque};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};
use wire_protocol::frame::{FrameDecoder, encode_frame};
use wire_protocol::ids::UserId;
use wire_protocol::limits::{ALPN_NATIVE, FRAME_BYTES_MAX};
use wire_protocol::session::{ClientEvent, ClientSession, Proof};
use wire_protocol::v1::{self, client_frame, server_frame};
use wire_protocol::websocket::{self, CloseCode, Item, Outgoing};

trait Socket: Read + Write + Send {
    fn tcp(&self) -> &TcpStream;
}

impl Socket for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Socket for StreamOwned<ClientConnection, TcpStream> {
    fn tcp(&self) -> &TcpStream {
        &self.sock
    }
}

enum Framing {
    Native(FrameDecoder),
    WebSocket(websocket::Decoder),
}

/// How a client comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    NativeTls,
    NativePlain,
    WebSocket,
}

/// One session.
pub struct Client {
    socket: Box<dyn Socket>,
    framing: Framing,
    session: ClientSession,
    started: Instant,
    answers: Vec<(u32, server_frame::Body)>,
    events: VecDeque<server_frame::Body>,
    /// Entries that came as events, by conversation and seq: what is pushed may come twice.
    pushed: HashSet<(Bytes, u64)>,
    pub ready: v1::Ready,
    pub closing: Option<v1::SessionClosing>,
    /// Of a WebSocket that the server closed.
    pub close_code: Option<CloseCode>,
    /// The server closed the connection.
    pub is_over: bool,
}

impl Client {
    /// Connects and says hello; panics unless that is answered with ready.
    pub fn connect(server: &Server, way: Way, account: &Account) -> Self {
        let client = Self::hello(server, way, Proof::AccessToken(account.access_token.clone()));
        assert_eq!(client.closing, None);
        assert_eq!(client.ready.user_id, id(&account.user_id));
        client
    }

    /// Connects and says hello; whatever comes of it.
    pub fn hello(server: &Server, way: Way, proof: Proof) -> Self {
        let mut client = Self::open(server, way);
        client.say_hello(proof, 0);
        client
    }

    /// As [`Self::connect`], wishing for a heartbeat of so many seconds.
    pub fn connect_with_heartbeat(server: &Server, way: Way, account: &Account, heartbeat_s: u32) -> Self {
        let mut client = Self::open(server, way);
        client.say_hello(Proof::AccessToken(account.access_token.clone()), heartbeat_s);
        assert_eq!(client.closing, None);
        client
    }

    fn say_hello(&mut self, proof: Proof, heartbeat_s: u32) {
        self.begin_hello(proof, heartbeat_s);
        self.pump_until("ready or closing", |client| client.is_ready() || client.closing.is_some());
    }

    fn begin_hello(&mut self, proof: Proof, heartbeat_s: u32) {
        let mut out = BytesMut::new();
        self.session.hello(proof, heartbeat_s, "test", &mut out);
        self.send(&out);
    }

    fn is_ready(&self) -> bool {
        !self.ready.user_id.is_empty()
    }

    /// As [`Self::connect`], over a socket that was made elsewhere.
    pub fn connect_over(server: &Server, stream: TcpStream, way: Way, account: &Account) -> Self {
        let mut client = Self::over(server, stream, way);
        client.say_hello(Proof::AccessToken(account.access_token.clone()), 0);
        assert_eq!(client.closing, None);
        client
    }

    /// As [`Self::connect_over`]; `None`: the server closed instead, as it does with whoever takes too long.
    pub fn try_connect_over(server: &Server, stream: TcpStream, way: Way, account: &Account) -> Option<Self> {
        let mut client = Self::over(server, stream, way);
        client.begin_hello(Proof::AccessToken(account.access_token.clone()), 0);
        client.pump_until("ready or the end", |client| client.is_ready() || client.is_over);
        client.is_ready().then_some(client)
    }

    /// Connects only.
    pub fn open(server: &Server, way: Way) -> Self {
        let address = if way == Way::NativeTls { server.tls } else { server.plain };
        Self::over(server, TcpStream::connect(address).expect("it listens"), way)
    }

    fn over(server: &Server, stream: TcpStream, way: Way) -> Self {
        stream.set_nodelay(true).expect("a socket");
        stream.set_write_timeout(Some(Duration::from_secs(PATIENCE_S))).expect("a socket");
        let (socket, framing): (Box<dyn Socket>, _) = match way {
            Way::NativeTls => (Box::new(secured(tls_config(server), stream)), native()),
            Way::NativePlain => (Box::new(stream), native()),
            Way::WebSocket => (Box::new(upgraded(stream)), web_socket()),
        };
        socket.tcp().set_read_timeout(Some(Duration::from_millis(20))).expect("a socket");
        Self {
            socket,
            framing,
            session: ClientSession::new(0),
            started: Instant::now(),
            answers: Vec::new(),
            events: VecDeque::new(),
            pushed: HashSet::new(),
            ready: v1::Ready::default(),
            closing: None,
            close_code: None,
            is_over: false,
        }
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// A frame's payload as it goes over the socket.
    pub fn framed(&self, payload: &[u8]) -> BytesMut {
        let mut bytes = BytesMut::new();
        match self.framing {
            Framing::Native(_) => encode_frame(payload, &mut bytes),
            Framing::WebSocket(_) => {
                websocket::encode(Outgoing::Binary(payload), Some([1, 2, 3, 4]), &mut bytes)
            }
        }
        bytes
    }

    pub fn send(&mut self, payload: &[u8]) {
        let bytes = self.framed(payload);
        self.send_raw(&bytes);
    }

    pub fn send_raw(&mut self, bytes: &[u8]) {
        // A server that has closed is found by the next read.
        let _ = self.socket.write_all(bytes).and_then(|()| self.socket.flush());
    }

    /// Sends a request; its id.
    pub fn request(&mut self, body: client_frame::Body) -> u32 {
        let mut out = BytesMut::new();
        let request_id = self.session.request(self.now_ms(), body, &mut out).expect("room for a request");
        self.send(&out);
        request_id
    }

    pub fn notify(&mut self, body: client_frame::Body) {
        let mut out = BytesMut::new();
        assert!(self.session.notify(self.now_ms(), body, &mut out));
        self.send(&out);
    }

    /// Waits for the answer to a request.
    pub fn answer(&mut self, request_id: u32) -> server_frame::Body {
        self.pump_until("an answer", |client| client.answers.iter().any(|(id, _)| *id == request_id));
        self.take_answer(request_id).expect("just seen")
    }

    /// The answer to a request, if it has come.
    pub fn take_answer(&mut self, request_id: u32) -> Option<server_frame::Body> {
        let place = self.answers.iter().position(|(id, _)| *id == request_id)?;
        Some(self.answers.swap_remove(place).1)
    }

    /// Asks and waits.
    pub fn ask(&mut self, body: client_frame::Body) -> server_frame::Body {
        let request_id = self.request(body);
        self.answer(request_id)
    }

    /// Waits for the next event.
    pub fn event(&mut self) -> server_frame::Body {
        self.pump_until("an event", |client| !client.events.is_empty());
        self.events.pop_front().expect("just seen")
    }

    /// Waits for the next event that this finds something in; drops those before it.
    pub fn event_with<T>(&mut self, wanted: impl Fn(server_frame::Body) -> Option<T>) -> T {
        loop {
            if let Some(found) = wanted(self.event()) {
                return found;
            }
        }
    }

    /// Waits until the server has closed the connection; its last frame.
    pub fn wait_for_end(&mut self) -> Option<v1::SessionClosing> {
        self.pump_until("the end", |client| client.is_over);
        self.closing.clone()
    }

    /// Events that have come so far.
    pub fn events_so_far(&mut self) -> usize {
        self.pump();
        self.events.len()
    }

    /// From now on writes what the kernel takes and no more.
    pub fn never_wait(&mut self) {
        self.socket.tcp().set_nonblocking(true).expect("a socket");
    }

    /// Sends nothing more; what the server still says can be read.
    pub fn half_close(&self) {
        // A server that is quicker has closed it already.
        let _ = self.socket.tcp().shutdown(Shutdown::Write);
    }

    /// Leaves without a word.
    pub fn drop_connection(self) {}

    fn pump_until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(PATIENCE_S);
        while !is_so(self) {
            assert!(!self.is_over, "the connection ended before {what}: {:?}", self.closing);
            assert!(Instant::now() < deadline, "{what} never came");
            self.pump();
        }
    }

    /// Takes what has come, waiting for a moment if nothing has.
    fn pump(&mut self) {
        let mut buffer = [0; 16 * 1024];
        match self.socket.read(&mut buffer) {
            Ok(0) => self.is_over = true,
            Ok(bytes) => self.take(&buffer[..bytes]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => self.is_over = true,
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        match &mut self.framing {
            Framing::Native(decoder) => decoder.push(bytes),
            Framing::WebSocket(decoder) => decoder.push(bytes),
        }
        while let Some(payload) = self.next_payload() {
            self.take_frame(payload);
        }
    }

    fn next_payload(&mut self) -> Option<Bytes> {
        match &mut self.framing {
            Framing::Native(decoder) => decoder.next_frame().expect("framed"),
            Framing::WebSocket(decoder) => match decoder.next_item().expect("a WebSocket frame")? {
                Item::Binary(payload) => Some(payload),
                Item::Close { code, .. } => {
                    (self.is_over, self.close_code) = (true, code);
                    None
                }
                other => panic!("{other:?}"),
            },
        }
    }

    /// Whether this is no entry that was pushed before.
    fn is_new(&mut self, event: &server_frame::Body) -> bool {
        let server_frame::Body::Message(message) = event else { return true };
        let seq = message.entry.as_ref().expect("always there").seq;
        self.pushed.insert((message.conversation_id.clone(), seq))
    }

    fn take_frame(&mut self, payload: Bytes) {
        let frame = v1::ServerFrame::decode(payload.clone()).expect("a frame");
        if let Some(server_frame::Body::Closing(closing)) = frame.body {
            // It may come to who has not even said hello.
            self.closing = Some(closing);
            return;
        }
        match self.session.handle_frame(self.now_ms(), payload).expect("by the protocol") {
            ClientEvent::Ready(ready) => self.ready = ready,
            ClientEvent::Answer { request_id, body } => self.answers.push((request_id, body)),
            ClientEvent::Event(body) => {
                if self.is_new(&body) {
                    self.events.push_back(body);
                }
            }
            ClientEvent::Closing(_) | ClientEvent::Handled => {}
        }
    }
}

fn native() -> Framing {
    Framing::Native(FrameDecoder::new(FRAME_BYTES_MAX))
}

fn web_socket() -> Framing {
    Framing::WebSocket(websocket::Decoder::for_client(FRAME_BYTES_MAX))
}

/// A client of the native protocol that trusts the server's certificate.
pub fn tls_config(server: &Server) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    let certificate =
        CertificateDer::from_pem_file(&server.certificate).expect("the development certificate");
    roots.add(certificate).expect("fits");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = versions.expect("versions").with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![ALPN_NATIVE.to_vec()];
    config
}

/// The socket after its handshake.
pub fn secured(config: ClientConfig, stream: TcpStream) -> StreamOwned<ClientConnection, TcpStream> {
    let name = ServerName::try_from("localhost").expect("a name");
    let connection = ClientConnection::new(Arc::new(config), name).expect("a connection");
    let mut secured = StreamOwned::new(connection, stream);
    // Whole before anything is written: a write would give up with the first read that takes too long.
    secured.sock.set_read_timeout(Some(Duration::from_secs(PATIENCE_S))).expect("a socket");
    while secured.conn.is_handshaking() {
        secured.conn.complete_io(&mut secured.sock).expect("a handshake");
    }
    secured
}

/// Asks for a WebSocket and reads the answer.
pub fn upgraded(stream: TcpStream) -> TcpStream {
    try_upgraded(stream).expect("upgraded")
}

/// As [`upgraded`]; or why not.
pub fn try_upgraded(mut stream: TcpStream) -> io::Result<TcpStream> {
    let host = stream.peer_addr()?.to_string();
    let (request, expected) = websocket::upgrade_request(&host, [7; 16]);
    stream.set_read_timeout(Some(Duration::from_secs(PATIENCE_S)))?;
    stream.write_all(&request)?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).map_err(io::Error::other)?;
    let mut lines = head.split("\r\n");
    let status: Option<u16> = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let headers =
        lines.filter_map(|line| line.split_once(": ")).map(|(name, value)| (name, value.as_bytes()));
    // 0: there is no status.
    websocket::check_upgraded(status.unwrap_or(0), headers, &expected).map_err(io::Error::other)?;
    Ok(stream)
}

/// 16 bytes from the REST interface's hexadecimal.
pub fn id(hex: &str) -> Bytes {
    UserId::from_hex(hex).expect("an id").to_bytes()
}

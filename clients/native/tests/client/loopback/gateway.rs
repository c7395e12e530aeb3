//! A gateway for tests: sockets around the fake server.

use super::http;
use crate::fake_server::{Caller, FakeServer, READY_TIME_MS};
use bytes::{Bytes, BytesMut};
use rcgen::{CertificateParams, KeyPair};
use ringline_client::{ConversationId, DeviceId, TransportKind, UserId};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use wire_protocol::error::RequestError;
use wire_protocol::frame::{FrameDecoder, encode_frame};
use wire_protocol::limits::{ALPN_HTTP, ALPN_NATIVE, FRAME_BYTES_MAX};
use wire_protocol::session::{Proof, ReadyInfo, ServerInput, ServerSession};
use wire_protocol::v1::{ErrorCode, server_frame};
use wire_protocol::websocket;

pub struct Gateway {
    shared: Arc<Shared>,
    pub certificate: PathBuf,
    tls_address: String,
    plain_address: String,
    acceptor: TlsAcceptor,
    stop: watch::Sender<bool>,
    _folder: crate::folder::Folder,
}

pub struct Shared {
    state: Mutex<State>,
    cut: watch::Sender<u64>,
}

#[derive(Default)]
pub struct State {
    pub server: FakeServer,
    pub accounts: BTreeMap<String, (UserId, String)>,
    pub access: BTreeMap<String, Caller>,
    pub refresh: BTreeMap<String, Caller>,
    pub next: u64,
    pub refresh_count: usize,
    pub request_count: usize,
    /// Answers to the pings that go before each message of a WebSocket.
    pub pong_count: usize,
    /// What `GET /v1/gateways` says.
    pub gateways: Vec<String>,
    /// Where the main door sends every session, if it leaves.
    pub sends_on: Vec<String>,
    /// The doors through which sessions became ready, in order.
    pub doors: Vec<String>,
    sessions: BTreeMap<u64, (Caller, mpsc::UnboundedSender<server_frame::Body>)>,
}

/// When whoever is sent on is to come, in milliseconds.
pub const SLOT_MS: u32 = 200;

/// What a connection speaks.
enum Wire {
    Native(FrameDecoder),
    WebSocket(websocket::Decoder),
}

pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl Gateway {
    pub async fn start() -> Self {
        let folder = crate::folder::Folder::new("gateway");
        let (file, mut config) = tls(&folder);
        config.alpn_protocols = vec![ALPN_NATIVE.to_vec(), ALPN_HTTP.to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));

        let state = State { server: FakeServer::new(40), ..State::default() };
        let shared = Arc::new(Shared { state: Mutex::new(state), cut: watch::Sender::new(0) });
        let (stop, stopped) = watch::channel(false);
        let tls_address = listen(Arc::clone(&shared), Some(acceptor.clone()), stopped.clone()).await;
        let plain_address = listen(Arc::clone(&shared), None, stopped).await;
        Self { shared, certificate: file, tls_address, plain_address, acceptor, stop, _folder: folder }
    }

    pub fn address(&self, transport: TransportKind) -> String {
        match transport {
            TransportKind::WebSocketPlain => self.plain_address.clone(),
            TransportKind::Native | TransportKind::WebSocket => self.tls_address.clone(),
        }
    }

    /// A further address of the same server.
    pub async fn another_door(&self) -> String {
        listen(Arc::clone(&self.shared), Some(self.acceptor.clone()), self.stop.subscribe()).await
    }

    /// What it says and has seen.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.shared.lock()
    }

    /// Every connection breaks; new ones are taken.
    pub fn cut_all(&self) {
        self.shared.cut.send_modify(|cuts| *cuts += 1);
    }

    /// Every connection breaks; no new ones are taken.
    pub fn stop(&self) {
        self.stop.send_replace(true);
        self.cut_all();
    }

    pub fn texts(&self, room: ConversationId) -> Vec<String> {
        let entries = self.shared.lock().server.rooms[&room].entries.clone();
        let texts = entries.into_iter().map(|entry| String::from_utf8_lossy(&entry.body).into_owned());
        texts.filter(|text| !text.is_empty()).collect()
    }

    /// Messages that a member sent while nobody listened.
    pub fn fill(&self, room: ConversationId, count: usize) {
        use wire_protocol::v1::{SendMessage, client_frame::Body};
        let mut state = self.shared.lock();
        let user = state.server.rooms[&room].members[1];
        let caller = Caller { user, device: DeviceId([77; 16]) };
        for number in 0..count {
            state.server.handle(
                caller,
                Body::Send(SendMessage {
                    conversation_id: room.to_bytes(),
                    client_message_id: number as u64 + 1,
                    body: format!("filler {number}").into(),
                    ..SendMessage::default()
                }),
            );
        }
    }

    pub fn forget_sessions_and_access_tokens(&self) {
        self.shared.lock().access.clear();
    }

    pub fn forget_refresh_tokens(&self) {
        self.shared.lock().refresh.clear();
    }

    pub fn refresh_count(&self) -> usize {
        self.shared.lock().refresh_count
    }

    pub fn pong_count(&self) -> usize {
        self.shared.lock().pong_count
    }

    pub fn request_count(&self) -> usize {
        self.shared.lock().request_count
    }
}

/// A certificate of its own in the folder, and a server that shows it.
fn tls(folder: &crate::folder::Folder) -> (PathBuf, ServerConfig) {
    let key = KeyPair::generate().expect("a key");
    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let certificate = CertificateParams::new(names).expect("names").self_signed(&key).expect("signed");
    let file = folder.path().join("cert.pem");
    std::fs::write(&file, certificate.pem()).expect("written");
    let private = rustls_pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)
        .expect("a certificate");
    (file, config)
}

/// A trusted server that does TLS and names no protocol: something else answers at the address.
pub struct WithoutProtocol {
    pub address: String,
    pub certificate: PathBuf,
    _folder: crate::folder::Folder,
}

impl WithoutProtocol {
    pub async fn start() -> Self {
        let folder = crate::folder::Folder::new("gateway");
        let (certificate, config) = tls(&folder);
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                // Whoever says anything after the handshake was mistaken.
                if let Ok(mut stream) = acceptor.accept(socket).await {
                    let mut bytes = BytesMut::new();
                    assert!(!matches!(stream.read_buf(&mut bytes).await, Ok(1..)), "it was spoken to");
                }
            }
        });
        Self { address, certificate, _folder: folder }
    }
}

impl Shared {
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test thread panics with the lock")
    }
}

async fn listen(shared: Arc<Shared>, tls: Option<TlsAcceptor>, mut stopped: watch::Receiver<bool>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    tokio::spawn(async move {
        loop {
            let socket = tokio::select! {
                accepted = listener.accept() => accepted.expect("accepted").0,
                _ = stopped.wait_for(|stopped| *stopped) => return,
            };
            tokio::spawn(serve(Arc::clone(&shared), tls.clone(), socket));
        }
    });
    address
}

async fn serve(shared: Arc<Shared>, tls: Option<TlsAcceptor>, socket: TcpStream) {
    let mut cut = shared.cut.subscribe();
    let Ok(door) = socket.local_addr() else { return };
    let door = door.to_string();
    let served = async {
        match tls {
            Some(tls) => {
                let Ok(stream) = tls.accept(socket).await else { return };
                if stream.get_ref().1.alpn_protocol() == Some(ALPN_NATIVE) {
                    let wire = Wire::Native(FrameDecoder::new(FRAME_BYTES_MAX));
                    session(&shared, Box::new(stream), wire, Bytes::new(), &door).await;
                } else {
                    http_or_websocket(&shared, Box::new(stream), &door).await;
                }
            }
            None => http_or_websocket(&shared, Box::new(socket), &door).await,
        }
    };
    tokio::select! {
        () = served => {}
        _ = cut.changed() => {}
    }
}

async fn http_or_websocket(shared: &Shared, mut stream: Box<dyn Stream>, door: &str) {
    shared.lock().request_count += 1;
    if let Some(rest) = http::serve(shared, &mut stream).await {
        let wire = Wire::WebSocket(websocket::Decoder::new(FRAME_BYTES_MAX));
        session(shared, stream, wire, rest, door).await;
    }
}

async fn session(shared: &Shared, mut stream: Box<dyn Stream>, mut wire: Wire, first: Bytes, door: &str) {
    let mut session = ServerSession::new(0);
    let (push, mut pushed) = mpsc::unbounded_channel();
    let number = {
        let mut state = shared.lock();
        state.next += 1;
        state.next
    };
    let mut caller = None;
    let mut bytes = BytesMut::from(&first[..]);
    loop {
        let (payloads, pong_count) = wire.decode(&bytes);
        shared.lock().pong_count += pong_count;
        bytes.clear();
        for payload in payloads {
            let mut out = BytesMut::new();
            let alive = take(shared, &mut session, &mut caller, payload, door, &mut out);
            if !out.is_empty() && stream.write_all(&wire.encode(&out)).await.is_err() {
                return;
            }
            if !alive {
                return;
            }
            if let Some(caller) = caller {
                shared.lock().sessions.entry(number).or_insert_with(|| (caller, push.clone()));
            }
        }
        tokio::select! {
            read = stream.read_buf(&mut bytes) => if !matches!(read, Ok(1..)) { break },
            Some(body) = pushed.recv() => {
                let mut out = BytesMut::new();
                session.event(body, &mut out);
                if stream.write_all(&wire.encode(&out)).await.is_err() {
                    break;
                }
            }
        }
    }
    shared.lock().sessions.remove(&number);
}

/// False: the connection ends.
fn take(
    shared: &Shared,
    session: &mut ServerSession,
    caller: &mut Option<Caller>,
    payload: Bytes,
    door: &str,
    out: &mut BytesMut,
) -> bool {
    let mut state = shared.lock();
    match session.handle_frame(0, payload, out) {
        Ok(ServerInput::Authenticate { proof }) => {
            let token = match proof {
                Proof::AccessToken(token) => token,
                Proof::ResumeToken(token) => String::from_utf8_lossy(&token).into_owned(),
            };
            let Some(found) = state.access.get(&token).copied() else {
                session.refuse(&RequestError::new(ErrorCode::ErrorUnauthenticated, "token"), out);
                return false;
            };
            if !state.sends_on.is_empty() && !state.sends_on.iter().any(|address| address == door) {
                session.leaving(SLOT_MS, state.sends_on.clone(), out);
                return false;
            }
            state.doors.push(door.to_owned());
            let info = ReadyInfo {
                user: found.user,
                device: found.device,
                server_time_ms: READY_TIME_MS,
                resume_token: token.into(),
                feed_version: state.server.feed_version(found.user),
            };
            session.ready(0, info, out);
            *caller = Some(found);
            true
        }
        Ok(ServerInput::Request { request_id, body }) => {
            let caller = caller.expect("a session");
            let done = state.server.handle(caller, body);
            session.answer(request_id, done.answer, out);
            for event in done.events {
                let others = state.sessions.values();
                let others = others.filter(|(to, _)| to.user == event.user && to.device != event.origin);
                others.for_each(|(_, push)| drop(push.send(event.body.clone())));
            }
            true
        }
        Ok(ServerInput::Handled) => true,
        Err(fatal) => panic!("the client broke the protocol: {fatal:?}"),
    }
}

impl Wire {
    /// Payloads, and how many pongs were among them.
    fn decode(&mut self, bytes: &[u8]) -> (Vec<Bytes>, usize) {
        let (mut payloads, mut pong_count) = (Vec::new(), 0);
        match self {
            Wire::Native(decoder) => {
                decoder.push(bytes);
                while let Some(payload) = decoder.next_frame().expect("good framing") {
                    payloads.push(payload);
                }
            }
            Wire::WebSocket(decoder) => {
                decoder.push(bytes);
                while let Some(item) = decoder.next_item().expect("a good WebSocket") {
                    match item {
                        websocket::Item::Binary(payload) => payloads.push(payload),
                        websocket::Item::Pong(_) => pong_count += 1,
                        _ => {}
                    }
                }
            }
        }
        (payloads, pong_count)
    }

    fn encode(&self, payload: &[u8]) -> BytesMut {
        let mut bytes = BytesMut::new();
        match self {
            Wire::Native(_) => encode_frame(payload, &mut bytes),
            Wire::WebSocket(_) => {
                // A ping before each message: the client must answer it and go on.
                websocket::encode_ping(b"?", &mut bytes);
                websocket::encode_binary(payload, &mut bytes);
            }
        }
        bytes
    }
}

impl State {
    /// Tokens of a device.
    pub fn issue(&mut self, caller: Caller) -> serde_json::Value {
        self.next += 1;
        let (access, refresh) = (format!("access-{}", self.next), format!("refresh-{}", self.next));
        self.access.insert(access.clone(), caller);
        self.refresh.insert(refresh.clone(), caller);
        serde_json::json!({ "access_token": access, "expires_in_s": 900, "refresh_token": refresh })
    }

    pub fn new_device(&mut self) -> DeviceId {
        self.next += 1;
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.next.to_be_bytes());
        DeviceId(id)
    }
}

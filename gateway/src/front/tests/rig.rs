//! A front in its runtime on one thread, its clients on another.

use crate::admission::addresses::AddressLimits;
use crate::admission::rate::Rate;
use crate::clock::moment;
use crate::front::{
    CloseReason, ConnectionToken, FrameFault, Front, FrontConfig, FrontEvent, ListenerConfig, SendRefused,
};
use crate::tls::server_config;
use bytes::{Bytes, BytesMut};
use monoio::net::UnixStream;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use wire_protocol::frame::{FrameDecoder, encode_frame};
use wire_protocol::limits::FRAME_BYTES_MAX;

/// A silent peer is a failed test, not a hanging one.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What a server does with an event; the rest is up to [`echo`].
pub type Handler<'a> = &'a mut dyn FnMut(&mut Front, FrontEvent);

/// Addresses of the front under test.
#[derive(Clone, Copy)]
pub struct Addresses {
    pub tls: SocketAddr,
    pub plain: SocketAddr,
}

/// A front with one TLS and one plain listener.
pub fn front(connections_max: usize, ring_connections_max: usize) -> Front {
    front_with(connections_max, ring_connections_max, identity().server.clone())
}

pub fn front_with(
    connections_max: usize,
    ring_connections_max: usize,
    tls: Arc<rustls::ServerConfig>,
) -> Front {
    limited_front(connections_max, ring_connections_max, tls, AddressLimits::default())
}

pub fn limited_front(
    connections_max: usize,
    ring_connections_max: usize,
    tls: Arc<rustls::ServerConfig>,
    addresses: AddressLimits,
) -> Front {
    made_of(FrontConfig { addresses, ..whole(connections_max, ring_connections_max, tls) })
}

/// A front that accepts at this rate.
pub fn paced_front(accepts: Rate) -> Front {
    made_of(FrontConfig { accepts: Some(accepts), ..whole(256, 256, identity().server.clone()) })
}

fn made_of(config: FrontConfig) -> Front {
    Front::new(config).expect("a front")
}

fn whole(connections_max: usize, ring_connections_max: usize, tls: Arc<rustls::ServerConfig>) -> FrontConfig {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    FrontConfig {
        listeners: vec![ListenerConfig { address, tls: true }, ListenerConfig { address, tls: false }],
        tls: Some(tls),
        connections_max,
        ring_connections_max,
        websocket_origins: vec!["https://friend.example".to_owned()],
        addresses: AddressLimits::default(),
        accepts: None,
    }
}

/// Runs the clients on a thread of their own against a front on this one, until they are done; what they return.
pub fn run<T: Send + 'static>(
    front: &mut Front,
    handler: Handler<'_>,
    clients: impl FnOnce(Addresses) -> T + Send + 'static,
) -> T {
    let runtime = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().enable_timer().build();
    runtime.expect("a runtime").block_on(async {
        let addresses = addresses(front);
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let clients = std::thread::spawn(move || {
            // Its end tells that the clients are done, however they end.
            let _done = theirs;
            clients(addresses)
        });
        let done = UnixStream::from_std(ours).expect("a stream");
        let start = moment();
        let mut events = Vec::new();
        loop {
            let now_ms = start.elapsed().as_millis() as u64;
            front.turn(now_ms, &mut events);
            events.drain(..).for_each(|event| handler(front, event));
            front.flush(now_ms);
            if front.has_more() {
                continue;
            }
            monoio::select! {
                _ = done.readable(false) => break,
                ready = monoio::time::timeout(PATIENCE, front.readable()) => {
                    ready.expect("the front is silent").expect("a pollable ring");
                }
            }
        }
        clients.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

pub fn addresses(front: &Front) -> Addresses {
    let [tls, plain] = front.local_addresses() else { panic!("two listeners") };
    Addresses { tls: *tls, plain: *plain }
}

/// Sends every frame back.
pub fn echo(front: &mut Front, event: FrontEvent) {
    match event {
        FrontEvent::Opened { token, .. } => front.set_frame_bytes_max(token, FRAME_BYTES_MAX),
        FrontEvent::Frame { token, payload } => {
            // A client may have ended right behind its frame.
            assert_ne!(front.send(token, &payload), Err(SendRefused::Full));
        }
        FrontEvent::Malformed { token, .. } => front.close(token),
        _ => {}
    }
}

/// Certificates and configurations for tests.
pub struct Identity {
    pub server: Arc<rustls::ServerConfig>,
    pub roots: Arc<RootCertStore>,
}

pub fn new_server_config() -> (Arc<rustls::ServerConfig>, Arc<RootCertStore>) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let certificate = CertificateDer::from(made.cert.der().to_vec());
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).expect("a root");
    (server_config(vec![certificate], key).expect("a configuration"), Arc::new(roots))
}

pub fn identity() -> &'static Identity {
    static IDENTITY: OnceLock<Identity> = OnceLock::new();
    IDENTITY.get_or_init(|| {
        let (server, roots) = new_server_config();
        Identity { server, roots }
    })
}

/// A client's configuration, which remembers tickets.
pub fn client_config(alpn: &[&[u8]]) -> Arc<ClientConfig> {
    let mut config =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(identity().roots.clone())
            .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("an option");
    stream.set_nodelay(true).expect("an option");
    stream
}

pub type TlsStream<S = TcpStream> = StreamOwned<ClientConnection, S>;

pub fn secure<S: Read + Write>(stream: S, config: &Arc<ClientConfig>) -> TlsStream<S> {
    let name = ServerName::try_from("localhost").expect("a name");
    StreamOwned::new(ClientConnection::new(config.clone(), name).expect("a client"), stream)
}

/// A client that speaks native frames over anything.
pub struct Frames<S> {
    pub stream: S,
    decoder: FrameDecoder,
}

impl<S: Read + Write> Frames<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, decoder: FrameDecoder::new(FRAME_BYTES_MAX) }
    }

    pub fn write(&mut self, payload: &[u8]) {
        self.stream.write_all(&framed(payload)).expect("sent");
        self.stream.flush().expect("sent");
    }

    /// The next frame; `None` at a clean end.
    pub fn read(&mut self) -> Option<Bytes> {
        loop {
            if let Some(payload) = self.decoder.next_frame().expect("frames") {
                return Some(payload);
            }
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes).expect("bytes, or a clean end") {
                0 => return None,
                read => self.decoder.push(&bytes[..read]),
            }
        }
    }

    /// Writes a frame and expects it back.
    pub fn echo(&mut self, payload: &[u8]) {
        self.echo_other(payload, payload);
    }

    /// Writes a frame and expects another.
    pub fn echo_other(&mut self, payload: &[u8], answer: &[u8]) {
        self.write(payload);
        assert_eq!(self.read().as_deref(), Some(answer));
    }
}

pub fn framed(payload: &[u8]) -> BytesMut {
    let mut frame = BytesMut::new();
    encode_frame(payload, &mut frame);
    frame
}

/// Remembers what happened to connections, and echoes.
#[derive(Default)]
pub struct Seen {
    pub opened: Vec<ConnectionToken>,
    pub closed: Vec<(ConnectionToken, CloseReason)>,
    pub faults: Vec<FrameFault>,
}

impl Seen {
    pub fn echo(&mut self, front: &mut Front, event: FrontEvent) {
        match &event {
            FrontEvent::Opened { token, .. } | FrontEvent::Http { token, .. } => self.opened.push(*token),
            FrontEvent::Closed { token, reason } => self.closed.push((*token, *reason)),
            FrontEvent::Malformed { fault, .. } => self.faults.push(*fault),
            _ => {}
        }
        echo(front, event);
    }

    pub fn reasons(&self) -> Vec<CloseReason> {
        self.closed.iter().map(|(_, reason)| *reason).collect()
    }
}

/// Goes on until nothing is left to do, without clients.
pub fn settle(front: &mut Front, now_ms: u64, handler: Handler<'_>) {
    let mut events = Vec::new();
    // What clients did by ending reaches us through the kernel at once on loopback; a few rounds take it all.
    let runtime = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().enable_timer().build();
    runtime.expect("a runtime").block_on(async {
        loop {
            front.turn(now_ms, &mut events);
            events.drain(..).for_each(|event| handler(front, event));
            front.flush(now_ms);
            if front.connection_count() == 0 && !front.has_more() {
                return;
            }
            if !front.has_more() {
                monoio::time::timeout(PATIENCE, front.readable())
                    .await
                    .expect("the front is silent")
                    .expect("a pollable ring");
            }
        }
    });
}

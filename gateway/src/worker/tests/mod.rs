//! One core on the test's own thread: real sockets on one side, storage answered by hand on the other, and the time
//! that the test tells.

mod announcing;
mod http;
mod leaving;
mod limits;
mod requests;
mod sessions;

use super::mailbox::{CoreMailbox, StorageResult};
use super::wake::WakeHandle;
use super::{Core, CoreParts};
use crate::admission::rate::Rate;
use crate::admission::requests::RequestLimits;
use crate::clock::{Clock, moment};
use crate::config::AuthConfig;
use crate::domain::auth::{self, Issuer};
use crate::front::{Clients, Front, FrontConfig, ListenerConfig};
use crate::http::{HttpParts, HttpServer};
use crate::observe::{CoreObserver, Metric};
use crate::router::{LinkIndex, Router};
use crate::storage_client::fake::SharedLink;
use crate::storage_client::{StorageClient, StorageEvent};
use bytes::BytesMut;
use monoio::{IoUringDriver, RuntimeBuilder};
use prost::Message;
use socket2::{Domain, Socket, Type};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use wire_protocol::frame::{FrameDecoder, encode_frame};
use wire_protocol::ids::{DeviceId, UserId};
use wire_protocol::internal::{
    Accepted, Delivery, Outcome, SessionAttached, ShardRequest, outcome, shard_request, shard_response,
};
use wire_protocol::limits::FRAME_BYTES_MAX;
use wire_protocol::session::{ClientEvent, ClientSession, Proof};
use wire_protocol::v1::{self, client_frame, server_frame};

/// A core that is silent this long fails the test.
const PATIENCE: Duration = Duration::from_secs(30);

/// One core and its surroundings.
struct Rig {
    core: Core,
    link: SharedLink,
    mailbox: CoreMailbox,
    issuer: Issuer,
    /// Mints benchmark users.
    minter: Issuer,
    now_ms: u64,
    /// Serves until the test is over.
    _http: HttpServer,
}

/// Runs a test inside the runtime that a core needs.
fn run(test: impl FnOnce(Rig)) {
    let runtime = RuntimeBuilder::<IoUringDriver>::new().enable_timer().build();
    runtime.expect("a runtime").block_on(async { test(Rig::new(RequestLimits::default(), None)) });
}

/// The same with limits.
fn run_limited(limits: RequestLimits, test: impl FnOnce(Rig)) {
    let runtime = RuntimeBuilder::<IoUringDriver>::new().enable_timer().build();
    runtime.expect("a runtime").block_on(async { test(Rig::new(limits, None)) });
}

/// The same with a rate of hellos.
fn run_paced(hellos: Rate, test: impl FnOnce(Rig)) {
    let runtime = RuntimeBuilder::<IoUringDriver>::new().enable_timer().build();
    let limits = RequestLimits::default();
    runtime.expect("a runtime").block_on(async { test(Rig::new(limits, Some(hellos))) });
}

impl Rig {
    fn new(limits: RequestLimits, hellos: Option<Rate>) -> Self {
        static FOLDERS: AtomicU64 = AtomicU64::new(0);
        let auth = AuthConfig {
            argon2_memory_kib: 8,
            argon2_iterations: 1,
            argon2_parallelism: 1,
            ..AuthConfig::default()
        };
        let folder = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("ringline-worker-{}-{folder}", std::process::id()));
        let (minter, _) = auth::open(&auth, &folder.join("benchmark")).expect("keys are made");
        let benchmark_key = Some(folder.join("benchmark/signing-key.pem"));
        let trusting = AuthConfig { benchmark_key, ..auth.clone() };
        let (issuer, verifier) = auth::open(&trusting, &folder).expect("keys are made");
        std::fs::remove_dir_all(&folder).expect("the keys were just made there");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let front = Front::new(FrontConfig {
            listeners: vec![ListenerConfig { address, tls: false }],
            tls: None,
            connections_max: 1_024,
            ring_connections_max: 1_024,
            websocket_origins: Vec::new(),
            addresses: Default::default(),
            accepts: None,
        });
        let front = front.expect("a front");
        let wake = WakeHandle::new();
        let (mailbox, inbox) = CoreMailbox::new(wake.clone());
        let (http, mut ingresses) = HttpServer::start(HttpParts {
            mailboxes: vec![mailbox.clone()],
            issuer: issuer.clone(),
            verifier: verifier.clone(),
            fleet: tokio::sync::watch::channel(Default::default()).1,
            auth,
            attempts: Default::default(),
            metrics: None,
            render_metrics: String::new,
            ready: Arc::new(|| Ok(())),
        })
        .expect("it starts");
        let link = SharedLink::default();
        let core = Core::new(CoreParts {
            clients: Clients::Front(Box::new(front)),
            now_ms: Clock::new().now_ms(),
            storage: StorageClient::Fake(link.clone()),
            router: Router::embedded(4),
            verifier,
            ingress: ingresses.pop().expect("one for the mailbox"),
            inbox,
            limits,
            hellos,
            observer: CoreObserver::new(),
            serving: Arc::new(AtomicUsize::new(1)),
        });
        let now_ms = core.now_ms;
        Self { core, link, mailbox, issuer, minter, now_ms, _http: http }
    }

    fn turn(&mut self) {
        self.core.turn_at(self.now_ms);
    }

    /// Time passes, and the core has a turn.
    fn pass_ms(&mut self, ms: u64) {
        self.now_ms += ms;
        self.turn();
    }

    /// Turns until it is so, without letting time pass.
    fn turn_until(&mut self, what: &str, mut is_so: impl FnMut(&mut Self) -> bool) {
        let started = moment();
        loop {
            self.turn();
            if is_so(self) {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "never: {what}");
            std::thread::yield_now();
        }
    }

    /// Turns until the client has it.
    fn serve_until(&mut self, client: &mut Client, what: &str, is_so: impl Fn(&Client) -> bool) {
        self.turn_until(what, |_| {
            client.pump();
            is_so(client)
        });
    }

    fn metric(&self, metric: Metric) -> u64 {
        self.core.observer.shared().value(metric)
    }

    fn address(&self) -> SocketAddr {
        self.core.clients.local_addresses()[0]
    }

    /// A client that has said hello; its attach waits at storage.
    fn greet(&mut self, number: u8, heartbeat_s: u32) -> (Client, ShardRequest) {
        let proof = self.access_token(number);
        let client = self.hello(proof, heartbeat_s);
        let attach = self.next_request();
        assert!(matches!(attach.operation, Some(shard_request::Operation::Attach(_))), "{attach:?}");
        (client, attach)
    }

    fn benchmark_token(&self) -> Proof {
        let (user, device) = (UserId(*b"rl-bench\0\0\0\0\0\0\0\x07"), DeviceId([7; 16]));
        let token = self.minter.issue_access(user, device, self.now_ms);
        Proof::AccessToken(token.expect("the key signs").text)
    }

    /// A client whose session is ready.
    fn connect(&mut self, number: u8) -> Client {
        self.connect_with_heartbeat(number, 0)
    }

    fn connect_with_heartbeat(&mut self, number: u8, heartbeat_s: u32) -> Client {
        let (mut client, attach) = self.greet(number, heartbeat_s);
        self.answer(attach.id, Ok(attached(true)));
        self.serve_until(&mut client, "ready", |client| client.ready.is_some());
        assert_eq!(client.ready.as_ref().map(|ready| ready.feed_version), Some(7));
        client
    }

    /// A client that has said hello with this proof; whatever comes of it.
    fn hello(&mut self, proof: Proof, heartbeat_s: u32) -> Client {
        self.hello_from([127, 0, 0, 1], proof, heartbeat_s)
    }

    fn hello_from(&mut self, from: [u8; 4], proof: Proof, heartbeat_s: u32) -> Client {
        let mut client = Client::open_from(from, self.address());
        let mut hello = BytesMut::new();
        client.session.hello(proof, heartbeat_s, "test", &mut hello);
        client.write(&hello);
        client
    }

    fn access_token(&self, number: u8) -> Proof {
        let (user, device) = (UserId([number; 16]), DeviceId([number; 16]));
        let token = self.issuer.issue_access(user, device, self.now_ms);
        Proof::AccessToken(token.expect("the key signs").text)
    }

    /// The oldest request that storage has not been asked to answer.
    fn next_request(&mut self) -> ShardRequest {
        self.turn_until("a storage request", |rig| !rig.link.borrow().requests.is_empty());
        self.link.borrow_mut().requests.pop_front().expect("just seen")
    }

    /// Storage has been asked for nothing more.
    fn assert_no_request(&mut self) {
        self.turn();
        assert_eq!(self.link.borrow().requests, []);
    }

    /// What storage says is heard in the next turn.
    fn answer(&mut self, id: u64, result: StorageResult) {
        self.tell(StorageEvent::Answered { id, result });
    }

    fn tell(&mut self, event: StorageEvent) {
        self.link.borrow_mut().events.push(event);
    }

    fn deliver(&mut self, delivery: Delivery) {
        self.tell(StorageEvent::Delivered { link: LinkIndex(0), delivery });
    }
}

fn attached(device_known: bool) -> shard_response::Result {
    shard_response::Result::Attached(SessionAttached { device_known, feed_version: 7 })
}

fn accepted() -> shard_response::Result {
    shard_response::Result::Outcome(Outcome { kind: Some(outcome::Kind::Accepted(Accepted {})) })
}

/// A cursor, the simplest request: one command, answered with done.
fn read_up_to(seq: u64) -> client_frame::Body {
    client_frame::Body::Read(v1::ReadUpTo { conversation_id: vec![3; 16].into(), seq, handle: 0 })
}

fn error_of(body: server_frame::Body) -> v1::Error {
    match body {
        server_frame::Body::Error(error) => error,
        other => panic!("{other:?}"),
    }
}

/// A native client over plain text that never waits.
struct Client {
    stream: TcpStream,
    decoder: FrameDecoder,
    session: ClientSession,
    ready: Option<v1::Ready>,
    answers: Vec<(u32, server_frame::Body)>,
    events: VecDeque<server_frame::Body>,
    closing: Option<v1::SessionClosing>,
    is_over: bool,
}

impl Client {
    /// From this address: all of 127/8 is this machine.
    fn open_from(from: [u8; 4], address: SocketAddr) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from((from, 0)).into()).expect("an address of ours");
        socket.connect(&address.into()).expect("it listens");
        let stream = TcpStream::from(socket);
        stream.set_nonblocking(true).expect("an option");
        Self {
            stream,
            decoder: FrameDecoder::new(FRAME_BYTES_MAX),
            session: ClientSession::new(0),
            ready: None,
            answers: Vec::new(),
            events: VecDeque::new(),
            closing: None,
            is_over: false,
        }
    }

    fn write(&mut self, payload: &[u8]) {
        let mut frame = BytesMut::new();
        encode_frame(payload, &mut frame);
        self.stream.write_all(&frame).expect("the kernel takes it");
    }

    fn request(&mut self, body: client_frame::Body) -> u32 {
        let mut out = BytesMut::new();
        let id = self.session.request(0, body, &mut out).expect("room for a request");
        self.write(&out);
        id
    }

    fn notify(&mut self, body: client_frame::Body) {
        let mut out = BytesMut::new();
        assert!(self.session.notify(0, body, &mut out));
        self.write(&out);
    }

    /// The answer to a request, if it has come.
    fn take_answer(&mut self, request_id: u32) -> Option<server_frame::Body> {
        let place = self.answers.iter().position(|(id, _)| *id == request_id)?;
        Some(self.answers.swap_remove(place).1)
    }

    /// Takes what has come.
    fn pump(&mut self) {
        let mut buffer = [0; 64 * 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => self.is_over = true,
                Ok(bytes) => {
                    self.decoder.push(&buffer[..bytes]);
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => self.is_over = true,
            }
            break;
        }
        while let Some(payload) = self.decoder.next_frame().expect("framed") {
            let frame = v1::ServerFrame::decode(payload.clone()).expect("a frame");
            if let Some(server_frame::Body::Closing(closing)) = frame.body {
                self.closing = Some(closing);
                continue;
            }
            match self.session.handle_frame(0, payload).expect("by the protocol") {
                ClientEvent::Ready(ready) => self.ready = Some(ready),
                ClientEvent::Answer { request_id, body } => self.answers.push((request_id, body)),
                ClientEvent::Event(body) => self.events.push_back(body),
                ClientEvent::Closing(_) | ClientEvent::Handled => {}
            }
        }
    }
}

//! The HTTP side as a client and a core see it: requests go in through an ingress, answers and storage calls come
//! out of a mailbox. One thread, paused time.

mod accounts;
mod directory;
mod fake_storage;
mod limits;
mod pages;
mod pipe;

use super::Now;
use super::attempts::SharedAttempts;
use super::directory::Directory;
use super::ingress::HttpIngress;
use super::passwords::{Hasher, PasswordPool};
use super::routes::{Services, router};
use super::serve::serve_core;
use crate::admission::attempts::AttemptLimits;
use crate::config::AuthConfig;
use crate::domain::auth::{self, Issuer, Verifier};
use crate::fleet::FleetView;
use crate::front::ConnectionToken;
use crate::worker::mailbox::{CoreInbox, CoreMailbox, CoreMessage};
use crate::worker::wake::WakeHandle;
use bytes::{Bytes, BytesMut};
use fake_storage::FakeStorage;
use serde_json::Value;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// Time at the start of each test, in milliseconds since 1970.
pub(super) const START_MS: u64 = 1_800_000_000_000;

/// What a client has received.
#[derive(Default)]
struct Received {
    bytes: BytesMut,
    closed: bool,
}

/// One core without sockets, its storage, and the HTTP side it feeds.
pub(super) struct Harness {
    pub(super) ingress: HttpIngress,
    pub(super) inbox: CoreInbox,
    pub(super) mailbox: CoreMailbox,
    pub(super) storage: FakeStorage,
    pub(super) verifier: Verifier,
    pub(super) issuer: Issuer,
    pub(super) fleet: watch::Sender<Arc<FleetView>>,
    pub(super) ready: Arc<AtomicBool>,
    pub(super) attempts: SharedAttempts,
    now_ms: Arc<AtomicU64>,
    connections: HashMap<ConnectionToken, Received>,
    slot: u32,
    /// Where the next connections come from.
    pub(super) address: [u8; 4],
    pub(super) secure: bool,
}

/// One parsed answer.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HashMap<String, String>,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }

    pub(super) fn text(&self, name: &str) -> String {
        self.json()[name].as_str().unwrap_or_else(|| panic!("{name} is text")).to_owned()
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// As cheap as argon2 can be.
fn cheap_passwords() -> AuthConfig {
    AuthConfig { argon2_memory_kib: 8, argon2_iterations: 1, argon2_parallelism: 1, ..AuthConfig::default() }
}

fn cheap_hasher() -> Hasher {
    Hasher::new(&cheap_passwords()).expect("the cost is possible")
}

impl Harness {
    pub(super) fn new() -> Self {
        Self::with_password_places(8)
    }

    pub(super) fn with_password_places(places: usize) -> Self {
        Self::with(places, AttemptLimits::default())
    }

    pub(super) fn with_attempts(attempts: AttemptLimits) -> Self {
        Self::with(8, attempts)
    }

    fn with(places: usize, attempts: AttemptLimits) -> Self {
        static FOLDERS: AtomicU64 = AtomicU64::new(0);
        let config = cheap_passwords();
        let folder = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("ringline-http-{}-{folder}", std::process::id()));
        let (issuer, verifier) = auth::open(&config, &folder).expect("keys are made");
        std::fs::remove_dir_all(&folder).expect("the keys were just made there");
        let hasher = cheap_hasher();
        let (now_ms, ready) = (Arc::new(AtomicU64::new(START_MS)), Arc::new(AtomicBool::new(true)));
        let (clock, is_ready) = (now_ms.clone(), ready.clone());
        let attempts = SharedAttempts::new(attempts);
        let (fleet, watch) = watch::channel(Arc::default());
        let now: Now = Arc::new(move || clock.load(Ordering::Relaxed));
        let directory = Directory {
            verifier: verifier.clone(),
            fleet: watch,
            ready: Arc::new(move || is_ready.load(Ordering::Relaxed).then_some(()).ok_or("draining".into())),
            now: now.clone(),
        };
        let services = Services {
            attempts: attempts.clone(),
            issuer: issuer.clone(),
            passwords: PasswordPool::with_places(hasher, places),
            directory,
            now,
        };
        let (mailbox, inbox) = CoreMailbox::new(WakeHandle::new());
        let (ingress, opened) = HttpIngress::new(mailbox.clone());
        tokio::spawn(serve_core(opened, router(services, mailbox.clone())));
        let storage = FakeStorage::default();
        let connections = HashMap::new();
        Self {
            ingress,
            inbox,
            mailbox,
            storage,
            verifier,
            issuer,
            fleet,
            ready,
            attempts,
            now_ms,
            connections,
            slot: 0,
            address: [127, 0, 0, 1],
            secure: true,
        }
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.now_ms.load(Ordering::Relaxed)
    }

    pub(super) fn pass_ms(&self, ms: u64) {
        self.now_ms.fetch_add(ms, Ordering::Relaxed);
    }

    /// A new connection whose first bytes these are.
    pub(super) fn open(&mut self, first: &str) -> ConnectionToken {
        self.slot += 1;
        let token = ConnectionToken { slot: self.slot, generation: 1 };
        let peer = SocketAddr::from((self.address, 50_000));
        let opened = self.ingress.open(token, peer, self.secure, Bytes::copy_from_slice(first.as_bytes()));
        opened.expect("there is room for a connection");
        self.connections.insert(token, Received::default());
        token
    }

    pub(super) fn send(&mut self, token: ConnectionToken, bytes: &str) {
        self.ingress.bytes(token, Bytes::copy_from_slice(bytes.as_bytes())).expect("there is room for bytes");
    }

    /// What a core does in a turn with its mailbox.
    pub(super) fn turn(&mut self) {
        while let Some(message) = self.inbox.take() {
            match message {
                CoreMessage::StorageCall { shard_key, operation, reply } => {
                    let answer = self.storage.answer(shard_key, operation, self.now_ms());
                    if self.storage.silent {
                        self.storage.keep(reply);
                    } else if let Some(answer) = answer {
                        // Nobody waits any more if the client has left.
                        let _ = reply.send(answer);
                    }
                }
                CoreMessage::HttpOut { token, bytes } => {
                    let received = self.connections.get_mut(&token).expect("the connection is open");
                    assert!(!received.closed, "nothing is sent after the close");
                    received.bytes.extend_from_slice(&bytes);
                    self.ingress.written(token, bytes.len());
                }
                CoreMessage::HttpClose { token } => {
                    self.connections.get_mut(&token).expect("the connection is open").closed = true;
                    self.ingress.closed(token);
                }
                _ => panic!("the HTTP side sends nothing else"),
            }
        }
    }

    /// Turns until `done`, each a paused millisecond; gives how many. Fails after ten (paused) minutes.
    pub(super) async fn turn_until(&mut self, mut done: impl FnMut(&mut Self) -> bool) -> u64 {
        for ms in 0..600_000 {
            self.turn();
            if done(self) {
                return ms;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("nothing came");
    }

    pub(super) fn is_closed(&self, token: ConnectionToken) -> bool {
        self.connections.get(&token).is_none_or(|received| received.closed)
    }

    pub(super) fn received(&self, token: ConnectionToken) -> &[u8] {
        self.connections.get(&token).map_or(&[], |received| &received.bytes)
    }

    /// The next answer on a connection.
    pub(super) async fn answer(&mut self, token: ConnectionToken) -> Answer {
        let mut answer = None;
        self.turn_until(|harness| {
            let received = harness.connections.get_mut(&token).expect("the connection is known");
            answer = take_answer(&mut received.bytes);
            answer.is_some()
        })
        .await;
        answer.expect("it was waited for")
    }

    /// One request on a connection of its own.
    pub(super) async fn request(&mut self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let length = body.len();
        let token = self.open(&format!(
            "{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\
             Content-Length: {length}\r\n{headers}\r\n{body}"
        ));
        let head_only = method == "HEAD";
        if head_only {
            self.turn_until(|harness| harness.is_closed(token)).await;
            return parse_head(self.received(token)).expect("a whole head").0;
        }
        let answer = self.answer(token).await;
        self.turn_until(|harness| harness.is_closed(token)).await;
        answer
    }

    pub(super) async fn get(&mut self, path: &str) -> Answer {
        self.request("GET", path, "", "").await
    }

    pub(super) async fn post(&mut self, path: &str, body: &Value) -> Answer {
        self.request("POST", path, "Content-Type: application/json\r\n", &body.to_string()).await
    }
}

/// Status and headers, and how many bytes they take.
fn parse_head(bytes: &[u8]) -> Option<(Answer, usize)> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).expect("heads are text");
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().expect("a status is a number");
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
    Some((Answer { status, headers, body: Vec::new() }, end + 4))
}

fn take_answer(bytes: &mut BytesMut) -> Option<Answer> {
    let (mut answer, head_bytes) = parse_head(bytes)?;
    let length = answer.header("content-length").parse().unwrap_or(0);
    if bytes.len() < head_bytes + length {
        return None;
    }
    let _head = bytes.split_to(head_bytes);
    answer.body = bytes.split_to(length).to_vec();
    Some(answer)
}

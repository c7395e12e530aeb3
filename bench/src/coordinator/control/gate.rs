//! The door of an agent or relay: lets in one coordinator at a time, and only one that proves itself.
//!
//! ```text
//! accepted -> proving itself (few at a time, 5 s at most) -> refused: counted, logged, nothing read
//!                                                         -> busy: told so
//!                                                         -> seated -> next()
//! ```

use super::messages::FromAgent;
use super::tls::{self, Accepted, HandshakeError, Streams};
use super::transport::MessageWriter;
use super::trust::Refusal;
use crate::clock;
use crossbeam_channel::{Receiver, Sender, bounded};
use rustls::ServerConfig;
use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Builder, JoinHandle};
use std::time::{Duration, Instant};

/// Peers that prove themselves at a time; more are dropped unheard.
pub const HANDSHAKES_MAX: usize = 16;
/// Refusals logged a second; more are only counted, so that nobody fills a disk.
const LOGGED_A_SECOND_MAX: u32 = 10;
/// Wait after a failed accept, in milliseconds: out of files, it would fail again at once.
const ACCEPT_RETRY_MS: u64 = 100;

/// A listening door.
pub struct Gate {
    address: SocketAddr,
    entered: Receiver<Entered>,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

/// A coordinator that was let in.
pub struct Entered {
    /// To speak with it.
    pub streams: Streams,
    /// Its address.
    pub peer: String,
    /// Others are told "busy" until this goes.
    pub seat: Seat,
}

/// The one place.
pub struct Seat(Arc<Shared>);

impl Drop for Seat {
    fn drop(&mut self) {
        *locked(&self.0.seated) = None;
    }
}

struct Shared {
    config: Arc<ServerConfig>,
    seated: Mutex<Option<String>>,
    proving: AtomicUsize,
    refusals: Mutex<Refusals>,
    closed: AtomicBool,
}

#[derive(Default)]
struct Refusals {
    counts: BTreeMap<Refusal, u64>,
    second: Option<Instant>,
    logged: u32,
}

impl Gate {
    /// Listens.
    pub fn open(listen: &str, config: Arc<ServerConfig>) -> io::Result<Self> {
        let listener = TcpListener::bind(listen)
            .map_err(|error| io::Error::new(error.kind(), format!("listen {listen}: {error}")))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            config,
            seated: Mutex::new(None),
            proving: AtomicUsize::new(0),
            refusals: Mutex::default(),
            closed: AtomicBool::new(false),
        });
        // Never full: only who is seated is put into it.
        let (entering, entered) = bounded(1);
        let accepting = {
            let shared = Arc::clone(&shared);
            Builder::new().name("gate".into()).spawn(move || accept_all(&listener, &shared, &entering))?
        };
        Ok(Self { address, entered, shared, accepting: Some(accepting) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Those that came in, one after another.
    pub fn entered(&self) -> &Receiver<Entered> {
        &self.entered
    }

    /// How often whom was not let in.
    pub fn refusals(&self) -> BTreeMap<Refusal, u64> {
        locked(&self.shared.refusals).counts.clone()
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        // Wakes the accepting thread; should it fail, the thread stays and holds nothing but its socket.
        if TcpStream::connect(self.address).is_ok()
            && let Some(accepting) = self.accepting.take()
        {
            let _ = accepting.join();
        }
    }
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each is whole after any statement that could panic.
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn accept_all(listener: &TcpListener, shared: &Arc<Shared>, entering: &Sender<Entered>) {
    loop {
        let accepted = listener.accept();
        if shared.closed.load(Ordering::SeqCst) {
            return;
        }
        let (socket, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                eprintln!("accept: {error}");
                thread::park_timeout(Duration::from_millis(ACCEPT_RETRY_MS));
                continue;
            }
        };
        if shared.proving.fetch_add(1, Ordering::SeqCst) >= HANDSHAKES_MAX {
            shared.proving.fetch_sub(1, Ordering::SeqCst);
            shared.refuse(Refusal::TooMany, from, &"too many at a time");
            continue;
        }
        let (of_thread, entering) = (Arc::clone(shared), entering.clone());
        let admit = move || {
            of_thread.admit(socket, from, &entering);
            of_thread.proving.fetch_sub(1, Ordering::SeqCst);
        };
        if let Err(error) = Builder::new().name("gate-handshake".into()).spawn(admit) {
            shared.proving.fetch_sub(1, Ordering::SeqCst);
            shared.refuse(Refusal::TooMany, from, &error);
        }
    }
}

impl Shared {
    fn admit(self: &Arc<Self>, socket: TcpStream, from: SocketAddr, entering: &Sender<Entered>) {
        let accepted = socket.set_nodelay(true).map_err(HandshakeError::Io);
        let accepted = accepted.and_then(|()| tls::accept(&socket, Arc::clone(&self.config)));
        let Accepted { streams, .. } = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                let refusal = match &error {
                    HandshakeError::Tls(error) => Refusal::of(error),
                    HandshakeError::TimedOut => Refusal::TimedOut,
                    HandshakeError::Io(_) => Refusal::Handshake,
                };
                self.refuse(refusal, from, &error);
                return tls::linger(&socket);
            }
        };
        let other = {
            let mut seated = locked(&self.seated);
            let other = seated.clone();
            seated.get_or_insert_with(|| from.to_string());
            other
        };
        let Some(other) = other else {
            let seat = Seat(Arc::clone(self));
            // Fails only while the gate closes.
            let _ = entering.send(Entered { streams, peer: from.to_string(), seat });
            return;
        };
        let detail = format!("busy: serves the coordinator at {other}");
        self.refuse(Refusal::Busy, from, &detail);
        // It may be gone already; then nobody is left to be told.
        let _ = MessageWriter::new("coordinator", streams.writer).send(&FromAgent::Failed { detail });
        tls::linger(&socket);
    }

    fn refuse(&self, refusal: Refusal, from: SocketAddr, detail: &dyn std::fmt::Display) {
        let mut refusals = locked(&self.refusals);
        *refusals.counts.entry(refusal).or_default() += 1;
        let now = clock::now();
        let same = refusals.second.is_some_and(|second| now.duration_since(second) < Duration::from_secs(1));
        if !same {
            (refusals.second, refusals.logged) = (Some(now), 0);
        }
        refusals.logged += 1;
        if refusals.logged <= LOGGED_A_SECOND_MAX {
            eprintln!("refused {from}: {refusal:?}: {detail}");
        }
    }
}

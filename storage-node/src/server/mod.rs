//! A storage node as a process of its own: a pinned thread with a loop for each core, a listener on each for the
//! links of gateways and other nodes, links of its own to the other nodes, and a metrics page.
//!
//! ```text
//! socket -> connection (TLS, frames, link half) -> links / peers -> driver -> StorageCore::turn
//! ```
//!
//! It knows nothing of shards; `worker/` does not know it.

mod wake;
mod ending;
mod signals;
mod tls_config;
mod tls_stream;
mod connection;
mod driver;
mod newest;
mod founding;
mod links;
mod peers;
mod metrics_page;

pub use links::CONNECTIONS_MAX;
pub use tls_config::{LinkTlsConfigs, TlsError};

use crate::config::StorageConfig;
use crate::disk::Disk;
use crate::worker::{AFTER_FAILURE, Founding, StartError, StorageCore, StorageNode};
use driver::Driver;
use ending::{Ends, Stage};
use monoio::{IoUringDriver, RuntimeBuilder};
use newest::NewestLinks;
use signals::Signals;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::sleep;
use wake::Wake;
use wire_protocol::link::Versions;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1_024;
/// Entries of a core's ring: a few operations for each of its connections.
const RING_ENTRIES: u32 = 4_096;

/// What a core's thread ever tells: that it serves, that it has left, that it ended, that it panicked.
const NEWS_PER_CORE_MAX: usize = 4;
/// A node that is asked to stop hands over what it leads for so long at most, in milliseconds; then it stops all the
/// same, and other copies find out.
pub const LEAVE_MS_MAX: u64 = 5_000;

const _: () = {
    // Nobody gives a leader back to a node that is about to leave.
    assert!(LEAVE_MS_MAX < crate::placement::CALM_MS);
    // Each of two other copies may be asked.
    assert!(LEAVE_MS_MAX > 3 * crate::shard::HAND_OVER_MS_MAX);
};

/// Why a standalone node ended, other than by being asked to.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// It did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Its certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The configuration does not say where to listen, or with which certificates.
    #[error("configuration: listen and tls are needed to serve links")]
    NothingToServe,
    /// The operating system refused something.
    #[error("{what}: {error}")]
    Io {
        /// What was tried.
        what: String,
        /// The refusal.
        error: io::Error,
    },
    /// Log or store failed while it ran.
    #[error("storage failed: {0}. {AFTER_FAILURE}")]
    Failed(String),
}

/// What a core's thread tells the main thread.
enum CoreNews {
    Serving,
    Left,
    Ended(Result<(), String>),
}

/// Where a running node is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ready {
    /// Where links are accepted.
    pub listen: SocketAddr,
    /// Where metrics are served.
    pub metrics: Option<SocketAddr>,
}

/// Runs a node until it is asked to stop (SIGTERM, SIGINT) or fails. `ready` is called when every shard answers. Asked
/// once it hands over what it leads before it stops; asked again it stops at once.
pub fn serve(config: StorageConfig, ready: impl FnOnce(Ready)) -> Result<(), ServeError> {
    let (Some(listen), Some(tls)) = (config.listen, &config.tls) else {
        return Err(ServeError::NothingToServe);
    };
    let tls = LinkTlsConfigs::read(tls)?;
    let cpus = core_affinity::get_core_ids().unwrap_or_default();
    let cores = match config.cores {
        0 => cpus.len().max(1),
        cores => cores,
    };
    let (metrics_listen, versions) = (config.metrics_listen, versions());
    let runtime = runtime_of_main_thread()?;
    let mut signals = None;
    if let Some(founding) = Founding::begin(Disk::Real, &config, draw)? {
        let mut of_process = runtime.block_on(async { Signals::new() })?;
        if !founding::found(founding, listen, (&tls, versions), (&runtime, &mut of_process))? {
            return Ok(());
        }
        signals = Some(of_process);
    }
    let listeners = bind(listen, cores).map_err(|error| refused(format!("listen at {listen}"), error))?;
    let listen = listeners[0].local_addr().map_err(|error| refused("listen".to_owned(), error))?;
    // Before any thread is pinned: the node's own threads inherit this one's mask.
    let (node, storage_cores) = StorageNode::start(config, cores)?;
    let (ends, newest_links) = (Ends::default(), NewestLinks::default());
    let (news, news_of_cores) = channel(cores * NEWS_PER_CORE_MAX);
    let (mut threads, mut wakes) = (Vec::with_capacity(cores), Vec::with_capacity(cores));
    for (number, (mut core, listener)) in storage_cores.into_iter().zip(listeners).enumerate() {
        let wake = Wake::default();
        let of_core = wake.clone();
        core.set_waker(Arc::new(move || of_core.wake()));
        let cpu = cpus.get(number % cpus.len().max(1)).copied();
        let parts = CoreThread {
            number,
            core,
            listener,
            tls: tls.clone(),
            wake: wake.clone(),
            ends: ends.clone(),
            newest_links: newest_links.clone(),
            versions,
        };
        threads.push(start_core(parts, cpu, news.clone())?);
        wakes.push(wake);
    }
    drop(news);
    let go_on_to = |stage| {
        ends.go_on_to(stage);
        wakes.iter().for_each(Wake::wake);
    };
    let watched = Watched { news: news_of_cores, cores, go_on_to: &go_on_to };
    let result = runtime.block_on(async {
        let metrics = serve_metrics(&node, metrics_listen).await?;
        let signals = signals.map_or_else(Signals::new, Ok)?;
        until_ended(watched, signals, || ready(Ready { listen, metrics })).await
    });
    go_on_to(Stage::Stopping);
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a core's thread panicked");
        }
    }
    let failure = node.failure();
    node.shutdown();
    match failure {
        Some(failure) => Err(ServeError::Failed(failure)),
        None => result,
    }
}

fn runtime_of_main_thread() -> Result<Runtime, ServeError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| refused("start the main thread's runtime".to_owned(), error))
}

/// Gives where the page is.
async fn serve_metrics(
    node: &StorageNode,
    address: Option<SocketAddr>,
) -> Result<Option<SocketAddr>, ServeError> {
    let Some(address) = address else { return Ok(None) };
    let started = metrics_page::start(address, node.metrics()).await;
    started.map(Some).map_err(|error| refused("metrics page".to_owned(), error))
}

/// The number of a folder with which a fleet begins.
fn draw() -> Result<u64, StartError> {
    getrandom::u64().map_err(|error| StartError::Io {
        what: "draw the number of the folder".to_owned(),
        error: io::Error::other(error.to_string()),
    })
}

/// Link versions that this process speaks.
fn versions() -> Versions {
    let max = std::env::var(Versions::TEST_VARIABLE);
    if let Ok(max) = &max {
        tracing::warn!("{} is set: no link version above {max} is spoken", Versions::TEST_VARIABLE);
    }
    Versions::up_to(max.ok().as_deref())
}

fn refused(what: String, error: io::Error) -> ServeError {
    ServeError::Io { what, error }
}

/// One listener for each core, all at one address: the kernel spreads connections over them.
fn bind(address: SocketAddr, cores: usize) -> io::Result<Vec<TcpListener>> {
    let mut address = address;
    let mut listeners = Vec::with_capacity(cores);
    for _ in 0..cores {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_port(true)?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let listener = TcpListener::from(socket);
        // Port 0 becomes a port with the first one.
        address = listener.local_addr()?;
        listeners.push(listener);
    }
    Ok(listeners)
}

struct CoreThread {
    number: usize,
    core: StorageCore,
    listener: TcpListener,
    tls: LinkTlsConfigs,
    wake: Wake,
    ends: Ends,
    newest_links: NewestLinks,
    versions: Versions,
}

fn start_core(
    parts: CoreThread,
    cpu: Option<core_affinity::CoreId>,
    news: Sender<CoreNews>,
) -> Result<JoinHandle<()>, ServeError> {
    let name = format!("core-{}", parts.number);
    let body = move || {
        if let Some(cpu) = cpu
            && !core_affinity::set_for_current(cpu)
        {
            tracing::warn!("core {}: cannot be pinned", parts.number);
        }
        let panicked = PanicNews { news: news.clone() };
        let ended = run_core(parts, &news).map_err(|error| error.to_string());
        std::mem::forget(panicked);
        let _ = news.try_send(CoreNews::Ended(ended));
    };
    thread::Builder::new().name(name.clone()).spawn(body).map_err(|error| refused(name, error))
}

/// Tells the main thread when a core's thread unwinds.
struct PanicNews {
    news: Sender<CoreNews>,
}

impl Drop for PanicNews {
    fn drop(&mut self) {
        let _ = self.news.try_send(CoreNews::Ended(Err("a core's thread panicked".to_owned())));
    }
}

fn run_core(parts: CoreThread, news: &Sender<CoreNews>) -> io::Result<()> {
    let mut runtime =
        RuntimeBuilder::<IoUringDriver>::new().with_entries(RING_ENTRIES).enable_timer().build()?;
    let result = runtime.block_on(async {
        let listener = monoio::net::TcpListener::from_std(parts.listener)?;
        let driver = Driver::new(parts.core, parts.wake, parts.ends, parts.newest_links, parts.versions);
        monoio::spawn(links::accept(Rc::clone(&driver), listener, Arc::clone(&parts.tls.server)));
        let call = |node| {
            let core = parts.number as u32;
            drop(monoio::spawn(peers::keep(Rc::clone(&driver), node, core, parts.tls.clone())));
        };
        let tell = |what| drop(news.try_send(what));
        driver.run(|| tell(CoreNews::Serving), || tell(CoreNews::Left), call).await
    });
    // An accept is in flight: dropping it with the runtime is not safe to do in this version of the library, and
    // the process ends anyway.
    std::mem::forget(runtime);
    result
}

/// The cores' threads, as the main thread sees them.
struct Watched<'a> {
    news: Receiver<CoreNews>,
    cores: usize,
    go_on_to: &'a dyn Fn(Stage),
}

/// The main thread: signals, and news of the cores, until something ends the node.
async fn until_ended(
    mut watched: Watched<'_>,
    mut signals: Signals,
    ready: impl FnOnce(),
) -> Result<(), ServeError> {
    let mut ready = Some(ready);
    let (mut serving, mut left) = (0, 0);
    let (mut is_asked, mut is_late) = (false, false);
    let mut patience = pin!(sleep(Duration::ZERO));
    loop {
        tokio::select! {
            news = watched.news.recv() => match news {
                Some(CoreNews::Serving) => {
                    serving += 1;
                    if serving == watched.cores && let Some(ready) = ready.take() {
                        ready();
                    }
                }
                Some(CoreNews::Left) => {
                    left += 1;
                    if left == watched.cores {
                        (watched.go_on_to)(Stage::Stopping);
                    }
                }
                Some(CoreNews::Ended(Ok(()))) | None => return Ok(()),
                Some(CoreNews::Ended(Err(detail))) => return Err(ServeError::Failed(detail)),
            },
            () = patience.as_mut(), if is_asked && !is_late => {
                tracing::warn!("stops although it still leads shards");
                is_late = true;
                (watched.go_on_to)(Stage::Stopping);
            }
            () = signals.next() => {
                if is_asked {
                    tracing::info!("asked again: stops at once");
                    (watched.go_on_to)(Stage::Ending);
                } else {
                    tracing::info!("asked to stop: hands over what it leads");
                    is_asked = true;
                    patience.set(sleep(Duration::from_millis(LEAVE_MS_MAX)));
                    (watched.go_on_to)(Stage::Leaving);
                }
            }
        }
    }
}

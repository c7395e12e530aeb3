//! Starting and stopping the whole gateway: storage, the HTTP side, and a pinned thread for each core.
//!
//! Threads that are not cores (the log's, readers', HTTP's) are started first, from the unpinned caller: children
//! inherit the mask. A panic in a core's thread ends the process: its connections cannot be saved, and a gateway
//! that half works is worse than one that is restarted.

use super::mailbox::{CoreInbox, CoreMailbox, CoreMessage, LeaveOrder};
use super::wait::Waits;
use super::wake::WakeHandle;
use super::{Core, CoreError, CoreParts};
use crate::config::certificate::{self, CertificateError, Identity};
use crate::config::{GatewayConfig, StorageMode};
use crate::domain::auth::{self, KeysError, Verifier};
use crate::fleet;
use crate::fleet::driver::{FleetDriver, FleetStartError, FleetWatch};
use crate::fleet::slots::LeavePlan;
use crate::front::{Clients, Front, FrontConfig, ListenerConfig};
use crate::http::{HttpIngress, HttpParts, HttpServer, HttpStartError};
use crate::listen;
use crate::observe::{self, CoreMetrics, CoreObserver, Metric};
use crate::router::Router;
use crate::storage_client::StorageClient;
use crate::storage_client::embedded::{EmbeddedCore, EmbeddedNode, EmbeddedStartError};
use crate::storage_client::nodes::{GatewayPeer, Nodes, NodesPlan, NodesStartError};
use crate::tls;
use crate::tls::secret_file::{SecretFile, SecretFileError, SecretWatch};
use crate::tls::tickets::SharedTicketer;
use crossbeam_channel::{Receiver, Sender};
use monoio::{IoUringDriver, RuntimeBuilder};
use socket2::Socket;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Connections of one ring: the files a process may open by default on common systems, less a reserve.
const RING_CONNECTIONS_MAX: usize = 18_000;
/// How long password hashes under way may hold up the end, in milliseconds.
const HTTP_STOP_MS: u64 = 1_000;

/// Why the gateway did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The data folder cannot be made.
    #[error("{path}: {error}")]
    DataFolder {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// An address cannot be bound.
    #[error("cannot bind {address}: {error}")]
    Bind {
        /// Which.
        address: SocketAddr,
        /// Why.
        error: std::io::Error,
    },
    /// Certificate or key of the listener.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The certificate does not fit its key.
    #[error("tls: {0}")]
    Tls(#[from] rustls::Error),
    /// Secrets of tickets.
    #[error("tls.ticket_secret: {0}")]
    TicketSecret(#[from] SecretFileError),
    /// Keys of tokens.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The embedded storage node.
    #[error(transparent)]
    Embedded(#[from] EmbeddedStartError),
    /// Links to storage nodes.
    #[error(transparent)]
    Nodes(#[from] NodesStartError),
    /// Looking for the other gateways.
    #[error(transparent)]
    Fleet(#[from] FleetStartError),
    /// The HTTP side.
    #[error(transparent)]
    Http(#[from] HttpStartError),
    /// A core.
    #[error(transparent)]
    Core(#[from] CoreError),
    /// The system gave no randomness, or no thread.
    #[error("the system refuses {0}")]
    System(&'static str),
}

/// Addresses really served, after port 0 became one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Addresses {
    /// Native, HTTP and WebSocket over TLS.
    pub tls: SocketAddr,
    /// The same in plain text.
    pub plain: Option<SocketAddr>,
    /// Prometheus text.
    pub metrics: Option<SocketAddr>,
}

impl Addresses {
    fn of(listeners: &[ListenerConfig], http: &HttpServer) -> Self {
        Self {
            tls: listeners[0].address,
            plain: listeners.get(1).map(|listener| listener.address),
            metrics: http.metrics_address(),
        }
    }
}

/// A running gateway.
pub struct Gateway {
    addresses: Addresses,
    mailboxes: Vec<CoreMailbox>,
    threads: Vec<JoinHandle<()>>,
    ends: Receiver<Result<(), CoreError>>,
    http: HttpServer,
    node: Option<EmbeddedNode>,
    draining: Arc<AtomicBool>,
    metrics: Vec<Arc<CoreMetrics>>,
    fleet: FleetWatch,
    drain_ms: u64,
    _fleet_driver: Option<FleetDriver>,
    _secret_watch: Option<SecretWatch>,
}

/// What every core gets a share of.
struct Shares {
    config: Arc<GatewayConfig>,
    listeners: Vec<ListenerConfig>,
    tls: Arc<rustls::ServerConfig>,
    router: Router,
    verifier: Verifier,
    serving: Arc<AtomicUsize>,
}

/// What one core's thread starts from.
struct Seat {
    number: u32,
    wake: WakeHandle,
    inbox: CoreInbox,
    ingress: HttpIngress,
    storage: StorageSeat,
    observer: CoreObserver,
    pin: Option<core_affinity::CoreId>,
}

enum StorageSeat {
    Embedded(Box<EmbeddedCore>),
    Nodes(Box<NodesPlan>, GatewayPeer),
}

impl Gateway {
    /// Starts everything and returns when it serves. To be called from a thread that is not pinned.
    pub fn start(config: GatewayConfig) -> Result<Gateway, GatewayError> {
        let config = Arc::new(config);
        let data_folder = |error| GatewayError::DataFolder { path: config.data_dir.clone(), error };
        std::fs::create_dir_all(&config.data_dir).map_err(data_folder)?;
        let identity = certificate::load(&config.tls, &config.data_dir)?;
        let leaf = identity.chain[0].clone();
        let (tls, secret_watch) = open_tls(&config, identity)?;
        let (fleet_driver, fleet) =
            fleet::driver::start(&config.fleet, &leaf, config.limits.admits_per_s(config.core_count()))?;
        let (issuer, verifier) = auth::open(&config.auth, &config.data_dir)?;
        let (reserved, listeners) = reserve_ports(&config)?;
        let cores = config.core_count();
        let (wakes, (mailboxes, inboxes)): (Vec<_>, (Vec<_>, Vec<_>)) = (0..cores)
            .map(|_| {
                let wake = WakeHandle::new();
                (wake.clone(), CoreMailbox::new(wake))
            })
            .unzip();
        let (node, storage, router) = start_storage(&config, &wakes)?;
        let observers: Vec<_> = (0..cores).map(|_| CoreObserver::new()).collect();
        let metrics: Vec<_> = observers.iter().map(|observer| observer.shared().clone()).collect();
        metrics.iter().cloned().for_each(observe::register_core);
        let draining = Arc::new(AtomicBool::new(false));
        let (http, ingresses) = HttpServer::start(HttpParts {
            mailboxes: mailboxes.clone(),
            issuer,
            verifier: verifier.clone(),
            fleet: fleet.clone(),
            auth: config.auth.clone(),
            attempts: config.limits.attempts,
            metrics: config.metrics,
            render_metrics: observe::render,
            ready: readiness(&config, metrics.clone(), draining.clone()),
        })?;
        observe::register_text(http.attempts_text());
        let addresses = Addresses::of(&listeners, &http);
        let drain_ms = u64::from(config.fleet.drain_s) * 1_000;
        let shares = Arc::new(Shares {
            config,
            listeners,
            tls,
            router,
            verifier,
            serving: Arc::new(AtomicUsize::new(cores)),
        });
        let pins = core_affinity::get_core_ids().unwrap_or_default();
        let parts = wakes.into_iter().zip(inboxes).zip(ingresses).zip(storage).zip(observers);
        let seats = parts.enumerate().map(|(number, ((((wake, inbox), ingress), storage), observer))| {
            let pin = pins.get(number).copied();
            Seat { number: number as u32, wake, inbox, ingress, storage, observer, pin }
        });
        let seats = seats.collect();
        let (threads, ends) = start_cores(seats, &shares)?;
        drop(reserved);
        Ok(Gateway {
            addresses,
            mailboxes,
            threads,
            ends,
            http,
            node,
            draining,
            metrics,
            fleet,
            drain_ms,
            _fleet_driver: fleet_driver,
            _secret_watch: secret_watch,
        })
    }

    /// Addresses really served.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Numbers of each core.
    pub fn metrics(&self) -> &[Arc<CoreMetrics>] {
        &self.metrics
    }

    /// Tells when a core has ended: after [`Self::stop`], or because it cannot go on.
    pub fn ends(&self) -> &Receiver<Result<(), CoreError>> {
        &self.ends
    }

    /// Ends: every session is told where to go, each in its turn while there is time; then no new connections, requests
    /// under way are finished, the rest is told when to go where, what clients are owed is sent; all within bounds.
    pub fn stop(self) -> Result<(), GatewayError> {
        self.draining.store(true, Ordering::Release);
        let fleet = self.fleet.borrow().clone();
        let own_per_s = fleet.own.as_ref().and_then(|own| own.admits_per_s);
        let plan = LeavePlan::new(&fleet, own_per_s, self.drain_ms, self.mailboxes.len());
        for mailbox in &self.mailboxes {
            let mut message = CoreMessage::Drain(LeaveOrder { fleet: fleet.clone(), plan });
            // A full mailbox is emptied within a turn, unless its core has failed.
            while let Err(back) = mailbox.send(message) {
                if !self.ends.is_empty() {
                    break;
                }
                message = back;
                std::thread::yield_now();
            }
        }
        for thread in self.threads {
            // A panic has ended the process before.
            let _ = thread.join();
        }
        let ended: Result<Vec<()>, CoreError> = self.ends.try_iter().collect();
        self.http.stop(Duration::from_millis(HTTP_STOP_MS));
        if let Some(node) = self.node {
            node.shutdown();
        }
        Ok(ended.map(drop)?)
    }
}

/// Tickets are the fleet's if it has a secret.
fn open_tls(
    config: &GatewayConfig,
    identity: Identity,
) -> Result<(Arc<rustls::ServerConfig>, Option<SecretWatch>), GatewayError> {
    let Some(path) = &config.tls.ticket_secret else {
        return Ok((tls::server_config(identity.chain, identity.key)?, None));
    };
    let (secrets, watch) = SecretFile::open(path)?;
    observe::register_text(watch.text());
    let tickets = Arc::new(SharedTicketer(secrets));
    Ok((tls::server_config_with(identity.chain, identity.key, tickets)?, Some(watch)))
}

/// Finds the ports that 0 stands for, and keeps them until the cores have bound them, too.
fn reserve_ports(config: &GatewayConfig) -> Result<(Vec<Socket>, Vec<ListenerConfig>), GatewayError> {
    let wanted = [(Some(config.listen), true), (config.listen_plain, false)];
    let mut sockets = Vec::new();
    let mut listeners = Vec::new();
    for (address, tls) in wanted.into_iter().filter_map(|(address, tls)| Some((address?, tls))) {
        let (socket, address) =
            listen::reserve(address).map_err(|error| GatewayError::Bind { address, error })?;
        sockets.push(socket);
        listeners.push(ListenerConfig { address, tls });
    }
    Ok((sockets, listeners))
}

type StartedStorage = (Option<EmbeddedNode>, Vec<StorageSeat>, Router);

fn start_storage(config: &GatewayConfig, wakes: &[WakeHandle]) -> Result<StartedStorage, GatewayError> {
    match &config.storage {
        StorageMode::Embedded(embedded) => {
            let (node, cores) = EmbeddedNode::start(config, embedded, wakes.len())?;
            let seats = cores.into_iter().zip(wakes).enumerate().map(|(number, (core, wake))| {
                let core = EmbeddedCore::new(core, config.gateway_id, number as u32, wake.clone());
                StorageSeat::Embedded(Box::new(core))
            });
            Ok((Some(node), seats.collect(), Router::embedded(embedded.shard_count)))
        }
        StorageMode::Nodes(nodes) => {
            let plan = NodesPlan::new(nodes)?;
            let mut incarnation = [0; 8];
            getrandom::fill(&mut incarnation).map_err(|_| GatewayError::System("randomness"))?;
            let incarnation = u64::from_ne_bytes(incarnation);
            let seat = |core| {
                let peer = GatewayPeer { gateway_id: config.gateway_id, incarnation, core };
                StorageSeat::Nodes(Box::new(plan.clone()), peer)
            };
            let owners = nodes.nodes.iter().map(|node| node.shards.as_slice());
            let router = match nodes.is_replicated() {
                true => Router::replicated(nodes.shard_count, nodes.nodes.len()),
                false => Router::nodes(nodes.shard_count, owners),
            };
            Ok((None, (0..wakes.len() as u32).map(seat).collect(), router))
        }
    }
}

/// Ready while the gateway stays and each core reaches every shard.
fn readiness(
    config: &GatewayConfig,
    metrics: Vec<Arc<CoreMetrics>>,
    draining: Arc<AtomicBool>,
) -> crate::http::Readiness {
    let (metric, wanted) = match &config.storage {
        StorageMode::Embedded(_) => (Metric::LinksUp, 1),
        StorageMode::Nodes(nodes) => (Metric::ShardsReached, u64::from(nodes.shard_count)),
    };
    Arc::new(move || {
        if draining.load(Ordering::Acquire) {
            return Err("the gateway leaves".into());
        }
        match metrics.iter().position(|core| core.value(metric) < wanted) {
            Some(core) => Err(format!("core {core} does not reach the leaders of all shards")),
            None => Ok(()),
        }
    })
}

type StartedCores = (Vec<JoinHandle<()>>, Receiver<Result<(), CoreError>>);

/// Starts a thread for each seat and waits until each serves.
fn start_cores(seats: Vec<Seat>, shares: &Arc<Shares>) -> Result<StartedCores, GatewayError> {
    let cores = seats.len();
    let (ended, ends) = crossbeam_channel::bounded(cores);
    let (started, starts) = crossbeam_channel::bounded(cores);
    let mut threads = Vec::with_capacity(cores);
    for seat in seats {
        let (shares, started, ended) = (shares.clone(), started.clone(), ended.clone());
        let builder = std::thread::Builder::new().name(format!("ringline-core-{}", seat.number));
        let thread = builder.spawn(move || {
            let number = seat.number;
            let end = catch_unwind(AssertUnwindSafe(|| run_core(seat, &shares, started)));
            match end {
                // Nobody listens any more when the gateway is dropped without a stop.
                Ok(end) => drop(ended.send(end)),
                Err(_) => {
                    eprintln!("ringline-gateway: core {number} panicked; the process ends");
                    std::process::abort();
                }
            }
        });
        threads.push(thread.map_err(|_| GatewayError::System("a thread"))?);
    }
    drop(started);
    for _ in 0..cores {
        // A core that ended before it served has said why.
        if starts.recv().is_err() {
            let problem = || CoreError::Start { core: 0, problem: "ended at once".into() };
            return Err(ends.iter().find_map(Result::err).unwrap_or_else(problem).into());
        }
    }
    Ok((threads, ends))
}

/// `started` is told when the core serves, and let go of either way: so the starter never waits in vain.
fn run_core(seat: Seat, shares: &Shares, started: Sender<()>) -> Result<(), CoreError> {
    let core = seat.number;
    let failed = |problem: String| CoreError::Start { core, problem };
    if let Some(pin) = seat.pin
        && !core_affinity::set_for_current(pin)
    {
        tracing::warn!(core, "cannot pin the thread");
    }
    let builder = RuntimeBuilder::<IoUringDriver>::new();
    let runtime = builder.enable_timer().build();
    let mut runtime = runtime.map_err(|error| failed(format!("no io_uring runtime: {error}")))?;
    let config = &shares.config;
    let cores = config.core_count();
    runtime.block_on(async {
        let front = Front::new(FrontConfig {
            listeners: shares.listeners.clone(),
            tls: Some(shares.tls.clone()),
            connections_max: config.connections_max.div_ceil(cores).max(shares.listeners.len() + 1),
            ring_connections_max: RING_CONNECTIONS_MAX,
            websocket_origins: config.websocket_origins.clone(),
            addresses: config.limits.addresses(cores),
            accepts: config.limits.accepts_per_core,
        });
        let front = front.map_err(|error| failed(error.to_string()))?;
        let waits =
            Waits::new(front.ring_fds(), seat.wake.clone()).map_err(|error| failed(error.to_string()))?;
        let storage = match seat.storage {
            StorageSeat::Embedded(core) => StorageClient::Embedded(core),
            StorageSeat::Nodes(plan, peer) => {
                StorageClient::Nodes(Box::new(Nodes::new(*plan, peer, seat.wake.clone())))
            }
        };
        let core = Core::new(CoreParts {
            clients: Clients::Front(Box::new(front)),
            storage,
            router: shares.router.clone(),
            verifier: shares.verifier.clone(),
            ingress: seat.ingress,
            inbox: seat.inbox,
            now_ms: crate::clock::Clock::new().now_ms(),
            limits: config.limits.requests,
            hellos: config.limits.hellos_per_core,
            observer: seat.observer,
            serving: shares.serving.clone(),
        });
        // The starter may have given up because of another core.
        let _ = started.send(());
        drop(started);
        core.run(waits).await
    })
}

//! What is not on a message's way: accounts over REST, the web chat's files, health, metrics.
//!
//! ```text
//! core's loop --HttpIngress--> CorePipe (one a connection) --> hyper --> routes --> StorageGate
//!     ^                                                                                 |
//!     +------------------------------- CoreMailbox <------------------------------------+
//! ```
//!
//! A small runtime of its own serves them with well-kept HTTP libraries. Sockets stay with the cores: a core
//! that sees an HTTP request opens a pipe through its [`HttpIngress`] and feeds it; what the runtime writes
//! comes back as [`CoreMessage::HttpOut`](crate::worker::mailbox::CoreMessage), and storage is reached only as
//! [`CoreMessage::StorageCall`](crate::worker::mailbox::CoreMessage). Every queue in between is bounded: a core
//! is told when a pipe is full and ends that connection; the runtime waits while a client does not read.
//!
//! This room knows nothing of sessions, shards or TLS.

#![allow(clippy::disallowed_types, reason = "not on the message's way: its threads may share a lock")]

mod accounts;
mod assets;
mod attempts;
mod cookies;
mod directory;
mod failure;
mod fields;
mod ingress;
mod metrics;
mod passwords;
mod pipe;
#[doc(hidden)]
pub mod reading;
mod routes;
mod serve;
mod storage_gate;
#[cfg(test)]
mod tests;
mod under_way;

pub use ingress::{HttpIngress, IngressFull};
pub use pipe::{INBOUND_BYTES_MAX, OUTBOUND_WINDOW_BYTES};

use crate::admission::attempts::AttemptLimits;
use crate::clock::Clock;
use crate::config::AuthConfig;
use crate::domain::auth::{Issuer, Verifier};
use crate::fleet::driver::FleetWatch;
use crate::worker::mailbox::CoreMailbox;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::Runtime;

/// Threads of the runtime: two, so that one request that computes does not hold up the others. They start from
/// the caller's thread and are pinned to no core.
pub const RUNTIME_THREADS: usize = 2;

/// Whether this gateway should get traffic; the text says why not, for operators.
pub type Readiness = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Milliseconds since 1970.
pub(crate) type Now = Arc<dyn Fn() -> u64 + Send + Sync>;

/// What the HTTP side is made of.
pub struct HttpParts {
    /// One mailbox for each core, in the order in which the ingresses come back.
    pub mailboxes: Vec<CoreMailbox>,
    /// Signs access tokens.
    pub issuer: Issuer,
    /// Checks them, for `GET /v1/gateways`.
    pub verifier: Verifier,
    /// Who else serves.
    pub fleet: FleetWatch,
    /// The cost of password hashes.
    pub auth: AuthConfig,
    /// Rates of registering, logging in, refreshing.
    pub attempts: AttemptLimits,
    /// Where metrics are served; loopback only, port 0 asks the system for one. `None`: nowhere.
    pub metrics: Option<SocketAddr>,
    /// The metrics' text.
    pub render_metrics: fn() -> String,
    /// Asked by `GET /v1/health/ready`.
    pub ready: Readiness,
}

/// Why the HTTP side could not start.
#[derive(Debug, thiserror::Error)]
pub enum HttpStartError {
    /// The runtime's threads could not be started.
    #[error("cannot start the HTTP runtime: {0}")]
    Runtime(std::io::Error),
    /// Metrics tell too much for strangers.
    #[error("metrics: {0} is not a loopback address")]
    MetricsNotLoopback(SocketAddr),
    /// The metrics port could not be bound.
    #[error("metrics: cannot listen on {address}: {source}")]
    MetricsListen {
        /// Which address.
        address: SocketAddr,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The configured cost of password hashes is impossible.
    #[error("auth: argon2 refuses its cost: {0}")]
    PasswordCost(String),
}

/// The runtime with everything that it serves. Dropping it ends all of that at once.
pub struct HttpServer {
    runtime: Runtime,
    metrics_address: Option<SocketAddr>,
    attempts: attempts::SharedAttempts,
}

impl HttpServer {
    /// Starts the runtime and gives one ingress for each mailbox. To be called from a thread that is not pinned.
    pub fn start(parts: HttpParts) -> Result<(HttpServer, Vec<HttpIngress>), HttpStartError> {
        let hasher = passwords::Hasher::new(&parts.auth)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(RUNTIME_THREADS)
            .max_blocking_threads(passwords::hashing_threads())
            .thread_name("ringline-http")
            .enable_all()
            .build()
            .map_err(HttpStartError::Runtime)?;
        let metrics_address = match parts.metrics {
            Some(address) => Some(metrics::start(&runtime, address, parts.render_metrics)?),
            None => None,
        };
        let attempts = attempts::SharedAttempts::new(parts.attempts);
        let now = shared_clock();
        let services = routes::Services {
            attempts: attempts.clone(),
            issuer: parts.issuer,
            passwords: passwords::PasswordPool::new(hasher),
            directory: directory::Directory {
                verifier: parts.verifier,
                fleet: parts.fleet,
                ready: parts.ready,
                now: now.clone(),
            },
            now,
        };
        let ingresses = parts.mailboxes.into_iter().map(|mailbox| {
            let (ingress, opened) = HttpIngress::new(mailbox.clone());
            runtime.spawn(serve::serve_core(opened, routes::router(services.clone(), mailbox)));
            ingress
        });
        let ingresses = ingresses.collect();
        Ok((HttpServer { runtime, metrics_address, attempts }, ingresses))
    }

    /// The address that metrics are really served on.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// Metrics' text of what the REST interface refused; for any time.
    pub fn attempts_text(&self) -> impl Fn() -> String + Send + Sync + 'static {
        let attempts = self.attempts.clone();
        move || attempts.render()
    }

    /// Ends: requests under way are dropped, password hashes under way are waited for, but not longer than this.
    pub fn stop(self, wait_max: Duration) {
        self.runtime.shutdown_timeout(wait_max);
    }
}

/// The gateway's clock for the runtime's threads; held for the moment of one reading.
fn shared_clock() -> Now {
    let clock = Mutex::new(Clock::new());
    Arc::new(move || clock.lock().unwrap_or_else(PoisonError::into_inner).now_ms())
}

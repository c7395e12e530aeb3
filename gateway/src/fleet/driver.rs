//! Drives [`Discovery`] on a thread of its own: resolves the name, probes the others, publishes who is healthy.

use super::discovery::{Discovery, Probed};
use super::probe::Prober;
use super::{FleetView, Peer};
use crate::clock::Clock;
use crate::config::FleetConfig;
use crate::config::certificate::CertificateError;
use rustls_pki_types::CertificateDer;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

/// The healthy gateways, always the newest.
pub type FleetWatch = watch::Receiver<Arc<FleetView>>;

/// Why the fleet is not looked for.
#[derive(Debug, thiserror::Error)]
pub enum FleetStartError {
    /// The authority of the others' certificates.
    #[error("fleet.ca: {0}")]
    Authority(#[from] CertificateError),
    /// The name cannot stand in a certificate.
    #[error("fleet.server_name: not a name")]
    ServerName,
    /// No thread.
    #[error("fleet: no thread: {0}")]
    Thread(#[from] io::Error),
}

/// The thread that looks. Dropping it ends that.
pub struct FleetDriver {
    _stop: oneshot::Sender<()>,
}

enum Learned {
    Resolved(Vec<String>),
    Probed(Arc<str>, Probed),
}

/// Begins to look for the others; without a fleet in the configuration there are none, and no thread. Called from a
/// thread that is not pinned. `certificate` is this gateway's own.
pub fn start(
    config: &FleetConfig,
    certificate: &CertificateDer<'static>,
    admits_per_s: Option<u32>,
) -> Result<(Option<FleetDriver>, FleetWatch), FleetStartError> {
    let own = config.advertise.as_deref().map(|address| Peer {
        address: address.into(),
        zone: config.zone.as_str().into(),
        admits_per_s,
    });
    let alone = FleetView { own: own.clone(), others: Vec::new() };
    let (views, watch) = watch::channel(Arc::new(alone));
    if !config.is_fleet() {
        return Ok((None, watch));
    }
    let prober = Prober::new(config, certificate)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).enable_all().build()?;
    let (stop, stopped) = oneshot::channel();
    let config = config.clone();
    std::thread::Builder::new().name("ringline-fleet".into()).spawn(move || {
        let looking = look(config, own, prober, &views);
        runtime.block_on(async {
            tokio::select! {
                () = looking => {}
                _ = stopped => {}
            }
        });
        // A look-up under way is not waited for.
        runtime.shutdown_background();
    })?;
    Ok((Some(FleetDriver { _stop: stop }), watch))
}

async fn look(config: FleetConfig, own: Option<Peer>, prober: Prober, views: &watch::Sender<Arc<FleetView>>) {
    let mut clock = Clock::new();
    let mut discovery = Discovery::new(own, &config.gateways, config.dns.is_some(), clock.now_ms());
    let mut tasks: JoinSet<Learned> = JoinSet::new();
    loop {
        let now_ms = clock.now_ms();
        if let Some(name) = config.dns.clone().filter(|_| discovery.poll_resolve(now_ms)) {
            tasks.spawn(async move { Learned::Resolved(resolve(&name).await) });
        }
        while let Some(address) = discovery.poll_probe(now_ms) {
            let prober = prober.clone();
            tasks.spawn(async move {
                let probed = prober.probe(&address).await;
                Learned::Probed(address, probed)
            });
        }
        let due_ms = discovery.poll_timeout().map(|at_ms| at_ms.saturating_sub(now_ms));
        tokio::select! {
            Some(learned) = tasks.join_next() => match learned {
                Ok(Learned::Resolved(addresses)) => discovery.handle_resolved(clock.now_ms(), &addresses),
                Ok(Learned::Probed(address, probed)) => {
                    discovery.handle_probed(clock.now_ms(), &address, probed);
                }
                Err(error) => tracing::error!(%error, "a probe ended in a panic"),
            },
            () = tokio::time::sleep(Duration::from_millis(due_ms.unwrap_or(u64::MAX))) => {}
        }
        let view = discovery.view();
        views.send_if_modified(|published| {
            let is_new = **published != view;
            if is_new {
                *published = Arc::new(view);
            }
            is_new
        });
    }
}

/// Every address of the name, with its port; none if it cannot be resolved.
async fn resolve(name: &str) -> Vec<String> {
    match tokio::net::lookup_host(name).await {
        Ok(addresses) => {
            let mut addresses: Vec<String> = addresses.map(|address| address.to_string()).collect();
            addresses.sort_unstable();
            addresses.dedup();
            addresses
        }
        Err(error) => {
            tracing::warn!(name, %error, "the name of the gateways cannot be resolved");
            Vec::new()
        }
    }
}

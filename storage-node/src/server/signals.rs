//! The signals that ask a node to stop.

use super::{ServeError, refused};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM and SIGINT. One that comes while nobody waits is not lost.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From now on they end nothing by themselves. Within a runtime.
    pub fn new() -> Result<Self, ServeError> {
        let on = |kind| signal(kind).map_err(|error| refused("signals".to_owned(), error));
        Ok(Self { terminate: on(SignalKind::terminate())?, interrupt: on(SignalKind::interrupt())? })
    }

    /// Until one comes.
    pub async fn next(&mut self) {
        tokio::select! {
            Some(()) = self.terminate.recv() => {}
            Some(()) = self.interrupt.recv() => {}
            else => std::future::pending().await,
        }
    }
}

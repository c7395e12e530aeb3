//! Backups that the configuration asks for.

use super::folder::NodeFolder;
use super::make::{BackupOrder, make};
use crate::clock;
use crate::config::BackupConfig;
use crate::disk::Disk;
use crate::worker::NodeShared;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// After a backup that failed the next one is tried this much later, or when it is due, if that is sooner.
const RETRY_AFTER: Duration = Duration::from_secs(600);

/// Runs until it is told to stop. A backup that fails is no reason to stop serving: it is logged and counted.
pub(crate) fn run_backups(
    shared: &NodeShared,
    config: &BackupConfig,
    stop: &Receiver<()>,
) -> Result<(), String> {
    let order = BackupOrder { to: config.to.clone(), keep: config.keep };
    let every = Duration::from_secs(config.every_s);
    let mut wait = every.saturating_sub(age_of_newest(shared, config));
    while stop.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
        let mut progress = |_| if shared.is_stopping() { Err("the node ends".to_owned()) } else { Ok(()) };
        wait = match make(shared, &order, &mut progress) {
            Ok(report) => {
                tracing::info!("{}", report.to_text());
                every
            }
            Err(_) if shared.is_stopping() => return Ok(()),
            Err(detail) => {
                tracing::error!("no backup: {detail}");
                every.min(RETRY_AFTER)
            }
        };
    }
    Ok(())
}

/// Of the backup that an earlier start may have made; without one it is long ago.
fn age_of_newest(shared: &NodeShared, config: &BackupConfig) -> Duration {
    let folder = NodeFolder::new(&Disk::Real, &config.to, shared.node_id);
    let Ok(backup) = folder.newest(shared.node_id) else { return Duration::MAX };
    shared.metrics.backup_made_ms.set(backup.manifest.made_ms);
    Duration::from_millis(clock::now_ms().saturating_sub(backup.manifest.made_ms))
}

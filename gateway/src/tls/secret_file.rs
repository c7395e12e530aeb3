//! The file of ticket secrets: read at start, and looked at again and again, so that a fleet's secret is changed without
//! a restart.

#![expect(
    clippy::disallowed_types,
    reason = "taken for a moment, once a handshake, and not on a message's way"
)]

use super::tickets::{TicketSecrets, TicketSource};
use crate::clock::wall_now_ms;
use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// How often the file is looked at, in milliseconds: soon enough for someone who waits for it.
const LOOK_MS: u64 = 2_000;
/// Largest file that is read, in bytes: several times what the secrets take.
const FILE_BYTES_MAX: u64 = 4 * 1_024;

/// Why there are no secrets.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// The file cannot be read.
    #[error("{path}: {error}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The file does not hold secrets.
    #[error("{path}: {problem}")]
    Invalid {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        problem: &'static str,
    },
}

/// The secrets of a file, always the newest good ones.
#[derive(Clone)]
pub struct SecretFile {
    newest: Arc<RwLock<Arc<TicketSecrets>>>,
}

/// The thread that looks. Dropping it ends that.
pub struct SecretWatch {
    changes: Arc<AtomicU64>,
    _stop: Sender<()>,
}

impl SecretWatch {
    /// What there is to say of the file, in the exposition format.
    pub fn text(&self) -> impl Fn() -> String + Send + Sync + 'static {
        let changes = self.changes.clone();
        move || {
            let name = "ringline_tls_secret_changes_total";
            let taken_over = changes.load(Ordering::Acquire);
            format!(
                "# HELP {name} Times a changed file of ticket secrets was taken over.\n\
                 # TYPE {name} counter\n{name} {taken_over}\n"
            )
        }
    }
}

impl TicketSource for SecretFile {
    fn secrets(&self) -> Arc<TicketSecrets> {
        self.newest.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn now_ms(&self) -> u64 {
        wall_now_ms()
    }
}

impl SecretFile {
    /// Reads the file, which must be good, and begins to look at it. From a thread that is not pinned.
    pub fn open(path: &Path) -> Result<(Self, SecretWatch), SecretFileError> {
        let mut text = read(path)?;
        let newest = Arc::new(RwLock::new(Arc::new(parse(path, &text)?)));
        let changes = Arc::new(AtomicU64::new(0));
        let (stop, stopped) = bounded(1);
        let watch = SecretWatch { changes: changes.clone(), _stop: stop };
        let (file, path) = (Self { newest: newest.clone() }, path.to_owned());
        let look = move || {
            while stopped.recv_timeout(Duration::from_millis(LOOK_MS)) == Err(RecvTimeoutError::Timeout) {
                let seen = read(&path).and_then(|new| match new == text {
                    true => Ok(None),
                    false => Ok(Some((parse(&path, &new)?, new))),
                });
                match seen {
                    Ok(None) => {}
                    Ok(Some((secrets, new))) => {
                        text = new;
                        *newest.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(secrets);
                        changes.fetch_add(1, Ordering::Release);
                        tracing::info!(path = %path.display(), "the ticket secrets have changed");
                    }
                    Err(error) => tracing::warn!(%error, "the ticket secrets stay as they were"),
                }
            }
        };
        let thread = std::thread::Builder::new().name("ringline-secrets".into()).spawn(look);
        let unreadable = |error| SecretFileError::Unreadable { path: PathBuf::from("a thread"), error };
        thread.map_err(unreadable)?;
        Ok((file, watch))
    }
}

fn read(path: &Path) -> Result<String, SecretFileError> {
    let read = || {
        if path.metadata()?.len() > FILE_BYTES_MAX {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        std::fs::read_to_string(path)
    };
    read().map_err(|error| SecretFileError::Unreadable { path: path.to_owned(), error })
}

fn parse(path: &Path, text: &str) -> Result<TicketSecrets, SecretFileError> {
    TicketSecrets::parse(text).map_err(|problem| SecretFileError::Invalid { path: path.to_owned(), problem })
}

//! The rates of registering, logging in and refreshing, shared by the runtime's threads. The lock is held for the
//! moment of one look.

use super::ingress::Client;
use crate::admission::attempts::{AccountKey, Attempt, AttemptCounts, AttemptLimits, Attempts};
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use wire_protocol::error::RequestError;

/// One for the process.
#[derive(Clone)]
pub(super) struct SharedAttempts {
    inner: Arc<Mutex<Attempts>>,
}

/// A log in under way. Only one whose password was looked at and wrong counts: [`Guess::failed`]. Whatever else
/// becomes of it, also that nobody waits for it any more, gives the account's token back.
pub(super) struct Guess {
    attempts: SharedAttempts,
    account: Option<AccountKey>,
}

impl SharedAttempts {
    pub(super) fn new(limits: AttemptLimits) -> Self {
        Self { inner: Arc::new(Mutex::new(Attempts::new(limits))) }
    }

    /// An address tries something.
    pub(super) fn admit(&self, client: Client, attempt: Attempt, now_ms: u64) -> Result<(), RequestError> {
        self.lock().admit(client.peer.ip().into(), attempt, now_ms)
    }

    /// Somebody tries a password; without a name that anybody can have it is nobody's account.
    pub(super) fn guess(&self, username: Option<&str>, now_ms: u64) -> Result<Guess, RequestError> {
        let mut attempts = self.lock();
        let account = username.map(|username| attempts.account(username));
        account.map_or(Ok(()), |account| attempts.admit_to(account, now_ms))?;
        drop(attempts);
        Ok(Guess { attempts: self.clone(), account })
    }

    /// As Prometheus text.
    pub(super) fn render(&self) -> String {
        let AttemptCounts { registrations, log_ins, accounts, refreshes } = self.lock().counts();
        let name = "ringline_http_throttled_total";
        let mut out = format!("# HELP {name} REST requests refused by a rate.\n# TYPE {name} counter\n");
        for (what, by, count) in [
            ("register", "address", registrations),
            ("log_in", "address", log_ins),
            ("log_in", "account", accounts),
            ("refresh", "address", refreshes),
        ] {
            writeln!(out, "{name}{{what=\"{what}\",by=\"{by}\"}} {count}").expect("a string grows");
        }
        out
    }

    fn lock(&self) -> MutexGuard<'_, Attempts> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guess {
    /// The password was wrong.
    pub(super) fn failed(mut self) {
        self.account = None;
    }
}

impl Drop for Guess {
    fn drop(&mut self) {
        if let Some(account) = self.account {
            self.attempts.lock().did_not_fail(account);
        }
    }
}

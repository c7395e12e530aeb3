//! Whether a live cluster keeps its word, tried by accounts that were given: each acknowledged message on every device
//! of every member, in order, once, and in history. Or, without sending anything, whether the history that is there is
//! whole and the same for everybody.
//!
//! ```text
//! accounts -> cast: log in -> live: send, repeat, drop, resume -> audit  -> outcome     cast: log out, whatever happened
//!                          -> reading: sync, list, history     -> histories -> outcome
//! ```
//!
//! [`audit`], [`histories`] and [`sight`] are pure and say what is wrong; the rest owns connections. Nothing here
//! starts or stops a server. Called by the command `verify`.

pub mod accounts;
pub mod text;
pub mod sight;
pub mod audit;
pub mod histories;
pub mod cast;
pub mod stage;
pub mod live;
pub mod reading;
pub mod outcome;
pub mod run;

use crate::agent::AgentError;
use accounts::AccountsError;

/// Why nothing can be said of the cluster.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// What was asked for cannot be done.
    #[error("{0}")]
    Asked(String),
    /// The file of accounts.
    #[error(transparent)]
    Accounts(#[from] AccountsError),
    /// A gateway's address.
    #[error("target {target}: {detail}")]
    Target {
        /// As it was given.
        target: String,
        /// Why it is none.
        detail: String,
    },
    /// An account could not log in.
    #[error("log in of {account} at {target}: {error}")]
    LogIn {
        /// Which.
        account: String,
        /// Where.
        target: String,
        /// Why.
        error: AgentError,
    },
    /// A device could not go on.
    #[error("{who}: {error}")]
    Device {
        /// Which.
        who: String,
        /// Why.
        error: AgentError,
    },
    /// More than may be kept in memory.
    #[error("{0}")]
    TooMuch(String),
    /// The time that was given is over.
    #[error("not done within {0} s")]
    Time(u64),
    /// Somebody stopped it.
    #[error("stopped by a signal")]
    Stopped,
}

impl VerifyError {
    /// Whether the same command may get further later.
    pub fn retry_helps(&self) -> bool {
        match self {
            Self::Asked(_) | Self::Accounts(_) | Self::TooMuch(_) => false,
            Self::Target { .. } | Self::Time(_) | Self::Stopped => true,
            Self::LogIn { error, .. } | Self::Device { error, .. } => error.is_retryable(),
        }
    }
}

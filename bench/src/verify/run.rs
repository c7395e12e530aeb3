//! One check from its log in to its log out, bounded in time, stopped cleanly by a signal.

use super::VerifyError;
use super::accounts::Account;
use super::audit::Audit;
use super::cast::{Cast, targets};
use super::live;
use super::outcome::{Found, LeftBehind, Outcome, VERIFY_SCHEMA_VERSION, Verdict};
use super::reading;
use super::stage::{Amount, Rooms};
use crate::agent::{Route, Trust};
use crate::clock;
use std::cell::RefCell;
use std::future::Future;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Most messages of one check: what stays behind should have a use.
pub const MESSAGES_MAX: u64 = 100_000;
/// Most messages a second: this is a check, not a load.
pub const RATE_MAX: f64 = 1_000.0;
/// Longest check, in seconds: a day.
pub const SECONDS_MAX: u64 = 86_400;

/// What is checked.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Mode {
    /// Messages are sent and accounted for.
    Messages(Amount, Rooms),
    /// What is there is read.
    HistoryOnly,
}

/// A check to be made.
#[derive(Clone, Debug)]
pub struct Check {
    /// Gateways, HOST:PORT.
    pub targets: Vec<String>,
    /// Name in their certificates; `None`: each one's host.
    pub tls_name: Option<String>,
    /// Whose certificates are believed.
    pub trust: Trust,
    /// Who takes part.
    pub accounts: Vec<Account>,
    /// What is checked.
    pub mode: Mode,
    /// How long it may take, without the log out.
    pub seconds: u64,
}

/// What ends a check before its time: SIGINT, as by Ctrl-C, and SIGTERM.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    fn listen() -> Result<Self, VerifyError> {
        let failed = |error: std::io::Error| VerifyError::Asked(format!("signals: {error}"));
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
        })
    }

    async fn came(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

impl Check {
    /// Refuses what cannot be done.
    pub fn check(&self) -> Result<(), VerifyError> {
        let asked = |detail: String| Err(VerifyError::Asked(detail));
        if self.targets.is_empty() {
            return asked("--target HOST:PORT is missing".into());
        }
        if !(1..=SECONDS_MAX).contains(&self.seconds) {
            return asked(format!("--seconds: 1 to {SECONDS_MAX}, not {}", self.seconds));
        }
        let Mode::Messages(Amount { messages, rate }, _) = self.mode else { return Ok(()) };
        if !(1..=MESSAGES_MAX).contains(&messages) {
            return asked(format!("--messages: 1 to {MESSAGES_MAX}, not {messages}"));
        }
        if !(rate > 0.0 && rate <= RATE_MAX) {
            return asked(format!("--rate: above 0, up to {RATE_MAX}, not {rate}"));
        }
        let sending_s = messages as f64 / rate;
        if sending_s > self.seconds as f64 / 2.0 {
            let detail = format!(
                "{messages} messages at {rate}/s take {sending_s:.0} s, more than half of --seconds {}",
                self.seconds
            );
            return asked(detail);
        }
        Ok(())
    }

    /// Makes it. `say` is told what happens, for people.
    pub async fn make(&self, say: &dyn Fn(&str)) -> Outcome {
        let (started, run) = (clock::now(), getrandom::u64());
        let mut outcome = Outcome {
            schema_version: VERIFY_SCHEMA_VERSION,
            mode: if self.mode == Mode::HistoryOnly { "history" } else { "messages" }.into(),
            verdict: Verdict::NotChecked,
            error: String::new(),
            retry_helps: false,
            targets: self.targets.clone(),
            started_ms: clock::wall_ms(),
            took_ms: 0,
            devices: Vec::new(),
            rooms: Vec::new(),
            conversations: Vec::new(),
            left_behind: LeftBehind::default(),
        };
        let prepared = self.check().and_then(|()| {
            let run = run.map_err(|error| VerifyError::Asked(format!("no randomness: {error}")))?;
            Ok((Stop::listen()?, run))
        });
        match prepared {
            Err(error) => outcome.conclude(Err(error)),
            Ok((mut stop, run)) => {
                let (mut cast, audit) = (Cast::default(), RefCell::new(Audit::new(run)));
                let found = self.bounded(&mut stop, self.work(&mut cast, &audit, say)).await;
                outcome.devices = cast.facts();
                outcome.left_behind = left_behind(&mut cast, audit.into_inner(), &mut stop, say).await;
                outcome.conclude(found);
            }
        }
        outcome.took_ms = clock::since_ms(started);
        outcome
    }

    async fn bounded(
        &self,
        stop: &mut Stop,
        work: impl Future<Output = Result<Found, VerifyError>>,
    ) -> Result<Found, VerifyError> {
        tokio::select! {
            () = stop.came() => Err(VerifyError::Stopped),
            found = tokio::time::timeout(Duration::from_secs(self.seconds), work) => {
                found.unwrap_or(Err(VerifyError::Time(self.seconds)))
            }
        }
    }

    async fn work(
        &self,
        cast: &mut Cast,
        audit: &RefCell<Audit>,
        say: &dyn Fn(&str),
    ) -> Result<Found, VerifyError> {
        let targets = targets(&self.targets, self.tls_name.as_deref(), &self.trust)?;
        match self.mode {
            Mode::Messages(amount, rooms) => {
                cast.log_in(&self.accounts, &targets, &[Route::Native, Route::WebSocketTls]).await?;
                live::run(&mut cast.seats, audit, amount, rooms, say).await?;
                Ok(Found { rooms: audit.borrow().balance(), ..Found::default() })
            }
            Mode::HistoryOnly => {
                cast.log_in(&self.accounts, &targets, &[Route::Native]).await?;
                let conversations = reading::run(&mut cast.seats, say).await?;
                Ok(Found { conversations, ..Found::default() })
            }
        }
    }
}

/// Logs out, unless a signal comes while that takes its time.
async fn left_behind(cast: &mut Cast, audit: Audit, stop: &mut Stop, say: &dyn Fn(&str)) -> LeftBehind {
    if !cast.seats.is_empty() {
        say(&format!("{} devices log out", cast.seats.len()));
    }
    let logged_out = tokio::select! {
        devices = cast.log_out() => Some(devices),
        () = stop.came() => None,
    };
    LeftBehind {
        messages: audit.sent_count(),
        conversations: audit.names(),
        devices: logged_out.unwrap_or_else(|| cast.staying()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(messages: u64, rate: f64, seconds: u64) -> Result<(), String> {
        let mode = Mode::Messages(Amount { messages, rate }, Rooms::Directs);
        let check = Check {
            targets: vec!["127.0.0.1:1".into()],
            tls_name: None,
            trust: Trust::System,
            accounts: Vec::new(),
            mode,
            seconds,
        };
        check.check().map_err(|error| error.to_string())
    }

    #[test]
    fn amounts_are_bounded_and_their_time_must_suffice() {
        assert_eq!(check(200, 20.0, 120), Ok(()));
        for (messages, rate, seconds, culprit) in [
            (0, 20.0, 120, "--messages"),
            (MESSAGES_MAX + 1, 1_000.0, 600, "--messages"),
            (200, 0.0, 120, "--rate"),
            (200, -1.0, 120, "--rate"),
            (200, 1_001.0, 120, "--rate"),
            (200, 20.0, 0, "--seconds"),
            (200, 20.0, SECONDS_MAX + 1, "--seconds"),
            (1_000, 10.0, 120, "half of --seconds"),
        ] {
            let error = check(messages, rate, seconds).expect_err(culprit);
            assert!(error.contains(culprit), "{error}");
        }
    }
}

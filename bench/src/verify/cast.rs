//! The devices that take part: logged in at the start, logged out at the end, whatever happened in between.

use super::VerifyError;
use super::accounts::Account;
use super::outcome::DeviceFacts;
use crate::agent::{AgentError, Identity, Route, Target, Trust, rest};
use crate::clock;
use crate::workload::device::Device;
use crate::workload::population::{DeviceIndex, UserIndex};
use futures_util::future::join_all;
use std::net::ToSocketAddrs;
use std::time::Duration;

/// Tries of a log in that is refused for now: passwords are checked a few at a time.
const LOG_IN_TRIES_MAX: u32 = 10;
/// Pause between two of them, in milliseconds.
const LOG_IN_PAUSE_MS: u64 = 500;
/// Time that a device has to log out, in milliseconds.
const LOG_OUT_MS_MAX: u64 = 10_000;
/// Longest time that a device tries to come back, in milliseconds: a gateway or a node is restarted meanwhile.
const COME_BACK_MS_MAX: u64 = 60_000;
/// Pause between two tries, in milliseconds.
const COME_BACK_PAUSE_MS: u64 = 200;
/// As devices call themselves: whoever looks through an account's devices sees what they were for.
const DEVICE_NAME: &str = "ringline-bench verify";

/// One device of one account.
pub struct Seat {
    /// Its number in this check.
    pub index: DeviceIndex,
    /// Its account's number in this check.
    pub user: UserIndex,
    route: Route,
    target: Target,
    identity: Identity,
    device: Option<Device>,
    drops: u32,
    losses: u32,
}

impl Seat {
    /// Who it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// For error messages.
    pub fn who(&self) -> String {
        format!("{} ({}) at {}", self.index, self.identity.username, self.target.authority)
    }

    /// The same as an error.
    pub fn failed(&self, error: AgentError) -> VerifyError {
        VerifyError::Device { who: self.who(), error }
    }

    async fn connect(&mut self) -> Result<&mut Device, AgentError> {
        if self.device.is_none() {
            let device = Device::connect(&self.target, self.route, self.identity.clone()).await?;
            self.device = Some(device);
        }
        self.device()
    }

    /// The device; it was connected at least once.
    pub fn device(&mut self) -> Result<&mut Device, AgentError> {
        let none = || AgentError::Protocol("the device was never connected".into());
        self.device.as_mut().ok_or_else(none)
    }

    /// Drops the connection on purpose, without a word.
    pub fn drop_connection(&mut self) {
        self.drops += 1;
        if let Some(device) = &mut self.device {
            device.leave();
        }
    }

    /// Asks until there is an answer: comes back after what a retry may help against.
    pub async fn ask<T>(
        &mut self,
        mut request: impl AsyncFnMut(&mut Device) -> Result<T, AgentError>,
    ) -> Result<T, VerifyError> {
        let started = clock::now();
        loop {
            let error = match self.device() {
                Ok(device) => match request(device).await {
                    Ok(answer) => return Ok(answer),
                    Err(error) => error,
                },
                Err(error) => error,
            };
            if !error.is_retryable() || clock::since_ms(started) > COME_BACK_MS_MAX {
                return Err(self.failed(error));
            }
            self.come_back_after(&error).await?;
        }
    }

    /// After an error that may pass: waits as the server asked to, or comes back by the resume token.
    pub async fn come_back_after(&mut self, error: &AgentError) -> Result<(), VerifyError> {
        if let AgentError::Refused(refused) = error {
            let wait_ms = u64::from(refused.retry_after_ms.clamp(10, 1_000));
            tokio::time::sleep(Duration::from_millis(wait_ms)).await;
            return Ok(());
        }
        self.losses += 1;
        self.come_back().await
    }

    /// Comes back by the resume token, for as long as a restart takes.
    pub async fn come_back(&mut self) -> Result<(), VerifyError> {
        let started = clock::now();
        loop {
            let device = self.device.as_mut().ok_or(VerifyError::Stopped)?;
            device.leave();
            match device.come_back().await {
                Ok(()) => return Ok(()),
                Err(error) if error.is_retryable() && clock::since_ms(started) < COME_BACK_MS_MAX => {
                    tokio::time::sleep(Duration::from_millis(COME_BACK_PAUSE_MS)).await;
                }
                Err(error) => return Err(self.failed(error)),
            }
        }
    }

    async fn log_out(&mut self) -> Result<(), AgentError> {
        let asked = match self.connect().await {
            Ok(device) => device.log_out().await,
            Err(error) => Err(error),
        };
        match asked {
            // The connection was broken, perhaps since long: once more on a new one.
            Err(error) if error.is_retryable() => {
                let device = self.connect().await?;
                device.leave();
                device.come_back().await?;
                device.log_out().await
            }
            asked => asked,
        }
    }

    fn facts(&self) -> DeviceFacts {
        DeviceFacts {
            device: self.index.0,
            account: self.identity.username.clone(),
            account_number: self.user.0,
            id: self.identity.device.to_string(),
            route: if self.route == Route::Native { "native" } else { "web_socket" }.into(),
            target: self.target.authority.clone(),
            drops: self.drops,
            losses: self.losses,
        }
    }
}

/// All of them.
#[derive(Default)]
pub struct Cast {
    /// In the order of their numbers.
    pub seats: Vec<Seat>,
}

impl Cast {
    /// Logs each account in once for each of `routes`, and connects. What an error leaves is for [`Self::log_out`].
    pub async fn log_in(
        &mut self,
        accounts: &[Account],
        targets: &[Target],
        routes: &[Route],
    ) -> Result<(), VerifyError> {
        for (account, user) in accounts.iter().zip(0..) {
            for route in routes {
                let index = self.seats.len();
                let target = targets
                    .get(index % targets.len().max(1))
                    .ok_or_else(|| VerifyError::Asked("no --target is given".into()))?;
                let failed = |error| VerifyError::LogIn {
                    account: account.name.clone(),
                    target: target.authority.clone(),
                    error,
                };
                let identity = log_in(target, account).await.map_err(failed)?;
                self.seats.push(Seat {
                    index: DeviceIndex(index as u32),
                    user: UserIndex(user),
                    route: *route,
                    target: target.clone(),
                    identity,
                    device: None,
                    drops: 0,
                    losses: 0,
                });
                let seat = self.seats.last_mut().expect("just added");
                if let Err(error) = seat.connect().await {
                    return Err(seat.failed(error));
                }
            }
        }
        Ok(())
    }

    /// Logs every device out. Gives those that stay, and why.
    pub async fn log_out(&mut self) -> Vec<String> {
        let within = Duration::from_millis(LOG_OUT_MS_MAX);
        let ended = self.seats.iter_mut().map(|seat| async move {
            let outcome = tokio::time::timeout(within, seat.log_out()).await;
            let outcome = outcome.unwrap_or(Err(AgentError::TimedOut(LOG_OUT_MS_MAX)));
            outcome.err().map(|error| stays(seat, &error.to_string()))
        });
        join_all(ended).await.into_iter().flatten().collect()
    }

    /// Every device, when nobody waits for the log out.
    pub fn staying(&self) -> Vec<String> {
        self.seats.iter().map(|seat| stays(seat, "the log out was not waited for")).collect()
    }

    /// Who took part.
    pub fn facts(&self) -> Vec<DeviceFacts> {
        self.seats.iter().map(Seat::facts).collect()
    }
}

fn stays(seat: &Seat, why: &str) -> String {
    format!("{}, id {}, may still be logged in: {why}", seat.who(), seat.identity.device)
}

async fn log_in(target: &Target, account: &Account) -> Result<Identity, AgentError> {
    let mut tries = 1;
    loop {
        match rest::log_in_with(target, &account.name, &account.password, DEVICE_NAME).await {
            // Not after a lost connection: the device may be there already, and each try would add one.
            Err(AgentError::HttpRefused { status: 429 | 503, .. }) if tries < LOG_IN_TRIES_MAX => {
                tries += 1;
                tokio::time::sleep(Duration::from_millis(LOG_IN_PAUSE_MS)).await;
            }
            outcome => return outcome,
        }
    }
}

/// Gateways by their addresses as somebody wrote them: HOST:PORT.
pub fn targets(given: &[String], tls_name: Option<&str>, trust: &Trust) -> Result<Vec<Target>, VerifyError> {
    let one = |given: &String| {
        let wrong = |detail: String| VerifyError::Target { target: given.clone(), detail };
        let (host, _) = given.rsplit_once(':').ok_or_else(|| wrong("HOST:PORT is wanted".into()))?;
        let mut addresses = given.to_socket_addrs().map_err(|error| wrong(error.to_string()))?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        Ok(Target {
            tls: addresses.next().ok_or_else(|| wrong("the name has no address".into()))?,
            authority: given.clone(),
            tls_name: tls_name.unwrap_or(host).to_owned(),
            trust: trust.clone(),
            loopback: None,
        })
    };
    given.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_named_as_they_were_given() {
        let of = |given: &str, name| targets(&[given.to_owned()], name, &Trust::System);
        let target = of("127.0.0.1:443", None).expect("an address").remove(0);
        assert_eq!((target.authority.as_str(), target.tls_name.as_str()), ("127.0.0.1:443", "127.0.0.1"));
        let target = of("[::1]:443", None).expect("an address").remove(0);
        assert_eq!((target.tls.port(), target.tls_name.as_str()), (443, "::1"));
        let target = of("127.0.0.1:443", Some("chat.example")).expect("an address").remove(0);
        assert_eq!(target.tls_name, "chat.example");
        for wrong in ["chat.example", "127.0.0.1:port", ""] {
            let error = of(wrong, None).expect_err("no address").to_string();
            assert!(error.starts_with(&format!("target {wrong}: ")), "{error}");
        }
    }
}

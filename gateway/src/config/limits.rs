//! The `[limits]` table: how often and how much. Written as rates (`20 per second, burst 100`) or `none`.

use super::ConfigError;
use crate::admission::addresses::AddressLimits;
use crate::admission::attempts::AttemptLimits;
use crate::admission::rate::Rate;
use crate::admission::requests::RequestLimits;
use serde::Deserialize;
use std::fmt;

/// Limits of one gateway. Requests and connecting are limited on each core; the rest for the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitsConfig {
    /// Requests, on each core.
    pub requests: RequestLimits,
    /// New connections, on each core.
    pub accepts_per_core: Option<Rate>,
    /// New sessions, on each core.
    pub hellos_per_core: Option<Rate>,
    /// New connections of one address, on each core.
    pub connects_per_address: Option<Rate>,
    /// Connections of one address in the process, spread evenly over its cores; `None`: no limit of its own.
    pub connections_per_address: Option<u32>,
    /// Registering, logging in, refreshing, in the process.
    pub attempts: AttemptLimits,
}

/// As written; what is not written has its default.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LimitsSection {
    sends_per_user: String,
    requests_per_user: String,
    sends_per_conversation: String,
    requests_per_address: String,
    accepts_per_core: String,
    hellos_per_core: String,
    connects_per_address: String,
    /// 0: none.
    connections_per_address: u32,
    registrations_per_address: String,
    log_ins_per_address: String,
    failed_log_ins_per_account: String,
    refreshes_per_address: String,
}

impl Default for LimitsSection {
    fn default() -> Self {
        Self {
            // Nobody types 20 a second; a script that posts a file of lines, or an outbox after a day without
            // network, has its 100 at once and goes on at 20.
            sends_per_user: "20 per second, burst 100".into(),
            // Catching up on 1,000 conversations: 10 pages of sync (50 tokens), then a page of history and a
            // cursor for those that are opened.
            requests_per_user: "100 per second, burst 1000".into(),
            // A group of 256 in which everybody writes once a second; each message is some 256 deliveries.
            sends_per_conversation: "300 per second, burst 1000".into(),
            // A hundred busy users behind one address; a tenth of what a core can serve.
            requests_per_address: "2000 per second, burst 10000".into(),
            // A handshake takes 0.2 to 0.5 ms: half a core or more, for as long as a crowd comes.
            accepts_per_core: "2000 per second, burst 4000".into(),
            // Half of those: who comes too soon costs a handshake, too, and has to be told.
            hellos_per_core: "1000 per second, burst 4000".into(),
            // A handshake takes 0.2 to 0.5 ms: at most a tenth of a core. The burst is an office whose network
            // comes back.
            connects_per_address: "200 per second, burst 2000".into(),
            // An eighth of the default places: no address can take them all. More than any office has.
            connections_per_address: 8_192,
            // A class that registers together; afterwards one each six seconds.
            registrations_per_address: "10 per minute, burst 100".into(),
            // An office in the morning; each costs a password hash, some 30 ms.
            log_ins_per_address: "60 per minute, burst 200".into(),
            // Twenty guesses, then one in ten seconds: 8,600 a day, against passwords of at least 8 characters.
            failed_log_ins_per_account: "6 per minute, burst 20".into(),
            // A client refreshes each 15 minutes: 9,000 clients behind one address.
            refreshes_per_address: "10 per second, burst 1000".into(),
        }
    }
}

impl LimitsSection {
    pub(super) fn check(&self) -> Result<LimitsConfig, ConfigError> {
        Ok(LimitsConfig {
            requests: RequestLimits {
                sends_per_user: rate("limits.sends_per_user", &self.sends_per_user)?,
                requests_per_user: rate("limits.requests_per_user", &self.requests_per_user)?,
                sends_per_conversation: rate("limits.sends_per_conversation", &self.sends_per_conversation)?,
                requests_per_address: rate("limits.requests_per_address", &self.requests_per_address)?,
            },
            accepts_per_core: rate("limits.accepts_per_core", &self.accepts_per_core)?,
            hellos_per_core: rate("limits.hellos_per_core", &self.hellos_per_core)?,
            connects_per_address: rate("limits.connects_per_address", &self.connects_per_address)?,
            connections_per_address: Some(self.connections_per_address).filter(|number| *number > 0),
            attempts: AttemptLimits {
                registrations_per_address: rate(
                    "limits.registrations_per_address",
                    &self.registrations_per_address,
                )?,
                log_ins_per_address: rate("limits.log_ins_per_address", &self.log_ins_per_address)?,
                failed_log_ins_per_account: rate(
                    "limits.failed_log_ins_per_account",
                    &self.failed_log_ins_per_account,
                )?,
                refreshes_per_address: rate("limits.refreshes_per_address", &self.refreshes_per_address)?,
            },
        })
    }
}

fn rate(key: &'static str, text: &str) -> Result<Option<Rate>, ConfigError> {
    if text == "none" {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|problem| ConfigError::impossible(key, format!("{text:?}: {problem}")))
}

impl LimitsConfig {
    /// What one of so many cores holds an address to.
    pub fn addresses(&self, cores: usize) -> AddressLimits {
        let cores = u32::try_from(cores).unwrap_or(u32::MAX).max(1);
        AddressLimits {
            connections_max: self.connections_per_address.map(|number| number.div_ceil(cores)),
            connects: self.connects_per_address,
        }
    }
}

impl LimitsConfig {
    /// Sessions that so many cores admit a second; `None`: as many as come.
    pub fn admits_per_s(&self, cores: usize) -> Option<u32> {
        let cores = u32::try_from(cores).unwrap_or(u32::MAX);
        self.hellos_per_core.map(|rate| rate.whole_per_second().saturating_mul(cores))
    }
}

impl fmt::Display for LimitsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requests, attempts, .. } = self;
        for (name, rate) in [
            ("sends_per_user", requests.sends_per_user),
            ("requests_per_user", requests.requests_per_user),
            ("sends_per_conversation", requests.sends_per_conversation),
            ("requests_per_address", requests.requests_per_address),
            ("accepts_per_core", self.accepts_per_core),
            ("hellos_per_core", self.hellos_per_core),
            ("connects_per_address", self.connects_per_address),
            ("registrations_per_address", attempts.registrations_per_address),
            ("log_ins_per_address", attempts.log_ins_per_address),
            ("failed_log_ins_per_account", attempts.failed_log_ins_per_account),
            ("refreshes_per_address", attempts.refreshes_per_address),
        ] {
            let rate = rate.map_or("none".into(), |rate| rate.to_string());
            writeln!(f, "limits.{name} = \"{rate}\"")?;
        }
        write!(f, "limits.connections_per_address = {}", self.connections_per_address.unwrap_or(0))
    }
}

//! What clients learn when they log in: the gateways, best first for each user (`GET /v1/gateways`).
//!
//! Asked for all users of an agent before a run begins, each at the gateway where it comes in and by the token that it
//! logs in with. Called by `load.rs`; `rest.rs` speaks.

use super::load::address_of;
use super::protocol::TargetIndex;
use super::protocol::ringline::Shared;
use super::{Target, Trust, rest};
use crate::clock;
use crate::coordinator::control::messages::TargetAddress;
use crate::workload::population::{Population, Share, UserIndex};
use futures_util::future::try_join_all;
use std::collections::HashMap;
use std::time::{Duration, Instant};
use wire_protocol::limits::CLOSING_GATEWAYS_MAX;

/// Longest wait until a gateway hands out all others, in milliseconds. They ask each other every two seconds, and one
/// that did not answer at first is handed out after two answers.
const FLEET_MS_MAX: u64 = 30_000;
/// Pause before it is looked again, in milliseconds.
const LOOK_MS: u64 = 200;
/// Users that one connection asks for: half of the requests that a gateway answers on one.
const USERS_PER_CONNECTION: usize = 100;
/// Connections to a gateway at a time: at a gateway 50 ms away one after another would take more than an hour for all
/// users.
const CONNECTIONS_MAX: usize = 16;
/// Longest time for all of it, in milliseconds: the coordinator gives an agent's preparation 120 s.
const ALL_MS_MAX: u64 = 100_000;

/// The lists of an agent's users, with targets of the run alone.
pub(super) fn ask(
    targets: &[TargetAddress],
    people: &Population,
    share: Share,
    shared: &Shared,
) -> Result<HashMap<UserIndex, Vec<TargetIndex>>, String> {
    let gateways = targets.iter().map(gateway).collect::<Result<Vec<_>, _>>()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let users: Vec<UserIndex> = people.users_of(share).map(UserIndex).collect();
    runtime.block_on(Asking { gateways, people, shared }.all(&users))
}

/// As HTTP is spoken to it.
fn gateway(target: &TargetAddress) -> Result<Target, String> {
    Ok(Target {
        tls: address_of(target)?,
        authority: target.address.clone(),
        tls_name: target.tls_name.clone(),
        trust: Trust::Pem(target.ca_pem.clone()),
        loopback: None,
    })
}

/// What is asked of a gateway, within what is left of the time for all.
async fn in_time<T>(
    begun: Instant,
    gateway: &Target,
    asked: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    let left_ms = ALL_MS_MAX.saturating_sub(clock::since_ms(begun));
    let late = || {
        let seconds = ALL_MS_MAX / 1_000;
        format!("{}: lists of gateways: not all came within {seconds} s", gateway.authority)
    };
    tokio::time::timeout(Duration::from_millis(left_ms), asked).await.unwrap_or_else(|_| Err(late()))
}

struct Asking<'a> {
    gateways: Vec<Target>,
    people: &'a Population,
    shared: &'a Shared,
}

impl Asking<'_> {
    async fn all(&self, users: &[UserIndex]) -> Result<HashMap<UserIndex, Vec<TargetIndex>>, String> {
        let (mut all, begun) = (HashMap::new(), clock::now());
        let Some(first) = users.first() else { return Ok(all) };
        for gateway in &self.gateways {
            in_time(begun, gateway, self.wait_for_fleet(gateway, *first)).await?;
        }
        for (place, gateway) in self.gateways.iter().enumerate() {
            let comes_here = |user: &UserIndex| user.0 as usize % self.gateways.len() == place;
            let own: Vec<UserIndex> = users.iter().copied().filter(comes_here).collect();
            all.extend(in_time(begun, gateway, self.lists_of_all(gateway, &own)).await?);
        }
        Ok(all)
    }

    /// Until a gateway hands out every target, or as many as a list holds. One that does not answer may yet be starting.
    async fn wait_for_fleet(&self, gateway: &Target, user: UserIndex) -> Result<(), String> {
        let (wanted, begun) = (self.gateways.len().min(CLOSING_GATEWAYS_MAX), clock::now());
        loop {
            let handed_out =
                self.lists(gateway, &[user]).await.map(|lists| lists.iter().map(Vec::len).sum::<usize>());
            let problem = match handed_out {
                Ok(handed_out) if handed_out >= wanted => return Ok(()),
                Ok(handed_out) => format!(
                    "{}: hands out {handed_out} of {wanted} targets: do its gateways know each other by these addresses?",
                    gateway.authority
                ),
                Err(error) => error,
            };
            if clock::since_ms(begun) > FLEET_MS_MAX {
                return Err(problem);
            }
            tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
        }
    }

    /// Of all users that come in at a gateway, on a few connections at a time.
    async fn lists_of_all(
        &self,
        gateway: &Target,
        users: &[UserIndex],
    ) -> Result<Vec<(UserIndex, Vec<TargetIndex>)>, String> {
        let mut all = Vec::with_capacity(users.len());
        let of_connections: Vec<&[UserIndex]> = users.chunks(USERS_PER_CONNECTION).collect();
        for some in of_connections.chunks(CONNECTIONS_MAX) {
            let lists = try_join_all(some.iter().map(|users| self.lists(gateway, users))).await?;
            for (users, lists) in some.iter().zip(lists) {
                all.extend(users.iter().copied().zip(lists));
            }
        }
        Ok(all)
    }

    async fn lists(&self, gateway: &Target, users: &[UserIndex]) -> Result<Vec<Vec<TargetIndex>>, String> {
        let tokens = users.iter().map(|user| self.token(*user)).collect::<Result<Vec<_>, _>>()?;
        let told = rest::gateways(gateway, &tokens).await;
        let told = told.map_err(|error| format!("{}: its list of gateways: {error}", gateway.authority))?;
        Ok(told.iter().map(|list| self.shared.targets.known(list)).collect())
    }

    fn token(&self, user: UserIndex) -> Result<String, String> {
        let device = self.people.devices_of_user(user).next().expect("a user has a device");
        let names = &self.shared.names;
        let minted = self.shared.minter.mint(names.user(user), names.device(device), clock::wall_ms());
        minted.map_err(|error| error.to_string())
    }
}

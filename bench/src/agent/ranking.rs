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
use std::collections::HashMap;
use std::time::Duration;
use wire_protocol::limits::CLOSING_GATEWAYS_MAX;

/// Longest wait until a gateway hands out all others, in milliseconds. They ask each other every two seconds, and one
/// that did not answer at first is handed out after two answers.
const FLEET_MS_MAX: u64 = 30_000;
/// Pause before it is looked again, in milliseconds.
const LOOK_MS: u64 = 200;
/// Users that one connection asks for: half of the requests that a gateway answers on one.
const USERS_PER_CONNECTION: usize = 100;

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

struct Asking<'a> {
    gateways: Vec<Target>,
    people: &'a Population,
    shared: &'a Shared,
}

impl Asking<'_> {
    async fn all(&self, users: &[UserIndex]) -> Result<HashMap<UserIndex, Vec<TargetIndex>>, String> {
        let mut all = HashMap::new();
        let Some(first) = users.first() else { return Ok(all) };
        for gateway in &self.gateways {
            self.wait_for_fleet(gateway, *first).await?;
        }
        for (place, gateway) in self.gateways.iter().enumerate() {
            let comes_here = |user: &UserIndex| user.0 as usize % self.gateways.len() == place;
            let own: Vec<UserIndex> = users.iter().copied().filter(comes_here).collect();
            for some in own.chunks(USERS_PER_CONNECTION) {
                let lists = self.lists(gateway, some).await?;
                all.extend(some.iter().copied().zip(lists));
            }
        }
        Ok(all)
    }

    /// Until a gateway hands out every target, or as many as a list holds.
    async fn wait_for_fleet(&self, gateway: &Target, user: UserIndex) -> Result<(), String> {
        let (wanted, begun) = (self.gateways.len().min(CLOSING_GATEWAYS_MAX), clock::now());
        loop {
            let handed_out = self.lists(gateway, &[user]).await?.iter().map(Vec::len).sum::<usize>();
            if handed_out >= wanted {
                return Ok(());
            }
            if clock::since_ms(begun) > FLEET_MS_MAX {
                return Err(format!(
                    "{}: hands out {handed_out} of {wanted} targets: do its gateways know each other by these addresses?",
                    gateway.authority
                ));
            }
            tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
        }
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

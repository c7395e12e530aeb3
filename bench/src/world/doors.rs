//! Who is let in by a gateway, and a gateway that leaves.
//!
//! In some runs the doorway of each gateway (`gateway/src/admission/doors.rs`) lets in a few sessions a second, a gateway is
//! lost, and others lose all their connections: whoever comes back too soon is told when to come again, and has to be let
//! in within a bounded time once all is mended. In some a gateway is asked to stop, as by SIGTERM: it sends its clients on to
//! the other one, each in its turn (`gateway/src/worker/leaving.rs`), ends within its time, and comes back.
//!
//! What is before TLS and behind HTTP is not here: the pace at which connections are accepted, the shares of addresses, the
//! rates of log ins. Nor are probes: a gateway that leaves knows which others run at that moment.
//!
//! All of it comes from chance of its own.

use super::faults::{Fault, Planned};
use super::network::Going;
use super::{HOSTS, World};
use crate::workload::random::Random;
use ::gateway::admission::rate::Rate;
use ::gateway::fleet::{FleetView, Peer};
use std::ops::Range;

/// Of 32 seeds in a row those whose gateways let in few at once: most of them without faults that are aimed at leaders,
/// which need devices at both gateways, and none that was kept before there was this; as all that follows.
const PACED: [u64; 3] = [12, 16, 20];
/// Those in which a gateway leaves.
const LEAVING: [u64; 4] = [7, 16, 26, 28];
/// Makes another stream of a seed.
const STREAM: u64 = 0x646f_6f72_735f_5f5f;
/// Sessions that a gateway lets in a second, and at once: so few that five devices are a crowd.
const PER_S: Range<u64> = 1..4;
const BURST: Range<u64> = 1..4;
/// Sessions that a gateway says that it admits a second, where it admits as many as come: a gateway that leaves sends on
/// half as many, so that turns are some hundred milliseconds apart.
const SAID_PER_S: Range<u64> = 2..12;
/// What happens to gateways does within this time, in milliseconds.
const WITHIN_MS: Range<u64> = 3_000..12_000;
/// A gateway that was lost, or has left, is away for so long, in milliseconds.
const AWAY_MS: Range<u64> = 1..4_000;
/// Times that all connections of a gateway are reset, fewer than this.
const RESETS: u64 = 3;
/// Gateways that leave, one after the other or at once.
const LEAVES: Range<u64> = 1..3;
/// Longest time for which one that leaves serves those whose turn has not come, in milliseconds; one in so many has none.
const WINDOW_MS: u64 = 3_000;
const NO_WINDOW: u64 = 4;
/// Once all is mended a device that lost its session has another one within this time, in milliseconds. The parts: nodes and
/// gateways notice dead links within 10 s, an election takes 2, and the last of five slots is 11 s away.
const COME_IN_MS_MAX: u64 = 30_000;

/// The doors of all gateways, and what happens to gateways.
pub(super) struct Doors {
    /// How many sessions a gateway lets in; `None`: whoever comes.
    pub hellos: Option<Rate>,
    /// What gateways say of that.
    admits_per_s: u32,
    /// What happens to them.
    pub faults: Vec<Planned>,
}

impl Doors {
    /// From the seed alone.
    pub fn plan(seed: u64) -> Self {
        let mut random = Random::new(seed ^ STREAM);
        let said_per_s = random.within(SAID_PER_S) as u32;
        let mut doors = Self { hellos: None, admits_per_s: said_per_s, faults: Vec::new() };
        if PACED.contains(&(seed % 32)) {
            let per_s = random.within(PER_S) as u32;
            let burst = random.within(BURST) as u32;
            (doors.hellos, doors.admits_per_s) = (Some(Rate::per_second(per_s, burst)), per_s);
            doors.faults.push(happens(&mut random, Fault::Gateway));
            let resets = random.below(RESETS);
            doors.faults.extend((0..resets).map(|_| happens(&mut random, Fault::Reset)));
        }
        if LEAVING.contains(&(seed % 32)) {
            let leaves = random.within(LEAVES);
            doors.faults.extend((0..leaves).map(|_| {
                let has_window = random.below(NO_WINDOW) > 0;
                let window_ms = if has_window { 1 + random.below(WINDOW_MS) } else { 0 };
                happens(&mut random, |host| Fault::Drain { host, window_ms })
            }));
        }
        doors
    }
}

/// To any gateway.
fn happens(random: &mut Random, fault: impl FnOnce(usize) -> Fault) -> Planned {
    let host = HOSTS.nodes + random.below(HOSTS.gateways as u64) as usize;
    let (at_ms, lasts_ms) = (random.within(WITHIN_MS), random.within(AWAY_MS));
    Planned { at_ms, lasts_ms, fault: fault(host) }
}

impl World {
    /// A gateway is asked to stop. Once it has, it stays away for this long.
    pub(super) fn drain(&mut self, host: usize, window_ms: u64, away_ms: u64) {
        let admits_per_s = Some(self.doors.admits_per_s);
        let peer = |host: usize| {
            let address = HOSTS.address_of_gateway(host).into();
            Peer { address, zone: "".into(), admits_per_s }
        };
        let others = self.gateways.iter().filter(|other| other.host != host && other.is_serving());
        let others = others.map(|other| peer(other.host)).collect();
        let fleet = FleetView { own: Some(peer(host)), others };
        self.away_ms[host] = away_ms;
        self.gateways[host - HOSTS.nodes].leave(fleet, window_ms, &mut self.outside);
    }

    /// A gateway that was asked to stop, and has done what that takes, ends.
    pub(super) fn see_off_gateway(&mut self, host: usize) {
        let gateway = &mut self.gateways[host - HOSTS.nodes];
        if gateway.has_left() {
            gateway.stop();
            self.tried.drained += 1;
            self.went(host, Going::Process, self.away_ms[host]);
        }
    }

    /// Whether gateways that leave end in time, and whether devices are let in.
    pub(super) fn watch_doors(&mut self) {
        let now_ms = self.outside.now_ms;
        for gateway in self.gateways.iter().filter(|gateway| gateway.overstays(now_ms)) {
            self.amiss.insert(format!("the gateway on host {} was to leave, and did not end", gateway.host));
        }
        let Some(mended_ms) = self.mended_ms else { return };
        for device in &self.devices {
            let since_ms = device.away_since_ms().map(|since_ms| since_ms.max(mended_ms));
            if since_ms.is_some_and(|since_ms| now_ms > since_ms + COME_IN_MS_MAX) {
                let host = device.host;
                self.amiss.insert(format!("the device on host {host} was away for {COME_IN_MS_MAX} ms"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateways_that_leave_and_crowds_at_their_doors_come_about() {
        let (mut leaves, mut paced, mut both) = (0, 0, 0);
        for seed in 0..320 {
            let Doors { hellos, faults, .. } = Doors::plan(seed);
            let is_drain = |planned: &&Planned| matches!(planned.fault, Fault::Drain { .. });
            let drains = faults.iter().filter(is_drain).count();
            leaves += usize::from(drains > 0);
            paced += usize::from(hellos.is_some());
            both += usize::from(drains > 0 && hellos.is_some());
            assert_eq!(faults.len() > drains, hellos.is_some(), "a crowd comes from a gateway that is lost");
            for Planned { fault, .. } in &faults {
                let (Fault::Drain { host, .. } | Fault::Gateway(host) | Fault::Reset(host)) = fault else {
                    panic!("{fault:?}")
                };
                assert!(HOSTS.gateway_hosts().contains(host), "{fault:?}");
            }
        }
        assert_eq!((leaves, paced, both), (40, 30, 10));
    }
}

//! Processes that pause, as by SIGSTOP until SIGCONT, or where a machine's owner gives it no time: a storage node or a gateway
//! does nothing for half a second to ten, and knows nothing of it. Its machine's clock goes on, and its machine goes on to take
//! connections and what comes over them, as much as connections hold. A signal waits, and so does whoever runs the fleet.
//!
//! That is the oldest way to break a lease: when a leader goes on, reads wait at it that were asked for after another leader
//! had acknowledged. In some runs it happens to whoever leads: such a leader is cut off with one gateway, as by
//! [`Aim::Apart`], and goes on before it hears of the others again.
//!
//! All of it comes from chance of its own.

use super::agenda::Due;
use super::faults::{Aim, Fault, Planned};
use super::outside::Outside;
use super::{HOSTS, World};
use crate::workload::random::Random;
use std::ops::Range;

/// Of 32 seeds in a row those in which any server pauses, and those in which leaders do: none that was kept before there
/// was this, and none of the latter with quiet or a lost disk.
const ANYWHERE: [u64; 6] = [3, 15, 16, 20, 21, 25];
const OF_LEADERS: [u64; 4] = [17, 19, 27, 31];
/// Makes another stream of a seed.
const STREAM: u64 = 0x7061_7573_6573_5f5f;
/// How many there are of either kind.
const PAUSES: Range<u64> = 1..4;
/// They begin within this time, in milliseconds.
const WITHIN_MS: Range<u64> = 3_000..12_000;
/// How long a process does nothing, in milliseconds: from less than a lease to more than a link waits for its peer.
const LASTS_MS: Range<u64> = 500..10_001;
/// A leader is cut off for so long after that, in milliseconds.
const ALONE_MS: Range<u64> = 300..3_000;

/// Which processes pause, and when.
pub(super) fn plan(seed: u64) -> Vec<Planned> {
    let mut random = Random::new(seed ^ STREAM);
    let is_anywhere = ANYWHERE.contains(&(seed % 32));
    if !is_anywhere && !OF_LEADERS.contains(&(seed % 32)) {
        return Vec::new();
    }
    let count = random.within(PAUSES);
    let one = |_| {
        let (at_ms, for_ms) = (random.within(WITHIN_MS), random.within(LASTS_MS));
        if is_anywhere {
            let host = random.below((HOSTS.nodes + HOSTS.gateways) as u64) as usize;
            return Planned { at_ms, lasts_ms: for_ms, fault: Fault::Pause(host) };
        }
        let gateway = HOSTS.nodes + random.below(HOSTS.gateways as u64) as usize;
        let lasts_ms = for_ms + random.within(ALONE_MS);
        let (shard, aim) = (random.draw() as u32, Aim::Paused { gateway, for_ms });
        Planned { at_ms, lasts_ms, fault: Fault::Aimed { shard, aim } }
    };
    (0..count).map(one).collect()
}

/// A process that does nothing.
pub(super) struct Pause {
    since_ms: u64,
    until_ms: u64,
    /// Shards that it led.
    led: Vec<u32>,
}

impl World {
    /// The process of a host does nothing for so long, if it runs.
    pub(super) fn pause(&mut self, host: usize, for_ms: u64) {
        let is_up = match HOSTS.node_place(host) {
            Some(place) => self.nodes[place].is_up(),
            None => self.gateways[host - HOSTS.nodes].is_up(),
        };
        if !is_up || self.paused[host].is_some() {
            return;
        }
        if HOSTS.node_place(host).is_none() {
            self.gateways[host - HOSTS.nodes].pause(for_ms);
        }
        let shards = 0..self.applied.len() as u32;
        let led = shards.filter(|shard| self.leader(*shard) == Some(host)).collect();
        let since_ms = self.outside.now_ms;
        let until_ms = since_ms + for_ms;
        self.paused[host] = Some(Pause { since_ms, until_ms, led });
        self.outside.network.pause(host, until_ms);
        self.outside.agenda.plan(until_ms, Due::Resume(host));
        self.tried.pauses += 1;
    }

    /// It goes on, unless it went meanwhile.
    pub(super) fn resume(&mut self, host: usize) {
        let now_ms = self.outside.now_ms;
        let pause = self.paused[host].take_if(|pause| pause.until_ms == now_ms);
        let Some(Pause { since_ms, led, .. }) = pause else { return };
        let is_replaced = led.iter().any(|shard| self.leader(*shard) != Some(host));
        self.tried.leaders_replaced += u64::from(is_replaced);
        let Outside { network, agenda, random, .. } = &mut self.outside;
        network.resume(now_ms, host, random, agenda);
        match HOSTS.node_place(host) {
            Some(place) => {
                self.nodes[place].resume(since_ms, &mut self.outside);
                self.see_to(host);
                self.see_off(host);
            }
            None => self.gateways[host - HOSTS.nodes].resume(&mut self.outside),
        }
    }

    /// Until when the process does nothing to which this is due; `None`: it runs, or this is due to none.
    pub(super) fn paused_until(&self, due: Due) -> Option<u64> {
        let host = match due {
            Due::Turn { host, .. } | Due::Work { host, .. } => host,
            Due::Fault(number) => match self.faults[number].fault {
                Fault::Leave(host) | Fault::Upgrade(host) | Fault::Drain { host, .. } => host,
                _ => return None,
            },
            _ => return None,
        };
        self.paused[host].as_ref().map(|pause| pause.until_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn any_server_pauses_and_leaders_go_on_while_they_are_still_cut_off() {
        let (mut hosts, mut gateways) = (BTreeSet::new(), BTreeSet::new());
        for planned in (0..3_200).flat_map(plan) {
            match planned.fault {
                Fault::Pause(host) => {
                    assert!(LASTS_MS.contains(&planned.lasts_ms));
                    hosts.insert(host);
                }
                Fault::Aimed { aim: Aim::Paused { gateway, for_ms }, .. } => {
                    assert!(LASTS_MS.contains(&for_ms) && for_ms < planned.lasts_ms);
                    gateways.insert(gateway);
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(hosts.into_iter().eq(0..HOSTS.nodes + HOSTS.gateways));
        assert!(gateways.into_iter().eq(HOSTS.gateway_hosts()));
    }
}

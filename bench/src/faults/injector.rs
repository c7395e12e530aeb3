//! One fault, from quiet to quiet: waits until everything answers, breaks, looks who leads, heals, and waits until
//! everything answers again, a gateway that was hit by itself: its probes may be at another one by then.

use super::FaultsError;
use super::fleet::Fleet;
use super::kinds::{Kind, Length, Victims};
use super::leaders::{self, Leaders};
use super::probe::{Pauses, Probes, Stream, gaps_us, longest_gap_us};
use crate::agent::Target;
use crate::clock;
use std::time::Duration;

/// How often it looks.
const LOOK: Duration = Duration::from_millis(20);
/// A stream that was answered within this is served, also where answers are slow: see [`served_us`].
const SERVED_US_MIN: u64 = 500_000;
/// Everything has to be served for so long before and after a fault.
const QUIET_US: u64 = 2_000_000;
/// Longest wait for that. What is not served by then stays without.
const QUIET_US_MAX: u64 = 40_000_000;

/// Breaks one thing.
pub struct Injector<'a> {
    /// What.
    pub kind: Kind,
    /// How long.
    pub length: Length,
    /// Who tells when there is service.
    pub probes: &'a Probes,
}

/// What was seen.
pub struct Observed {
    /// Names of the servers that were hit.
    pub victims: Vec<String>,
    /// Gateways that were hit, by index.
    pub gateways: Vec<usize>,
    /// Shards that these could not reach; `None`: all, or their clients could not reach them.
    pub out_of_reach: Option<Vec<u32>>,
    /// Zones that the copies of each shard were in at the least; `None`: it was not looked at.
    pub zones_min: Option<u32>,
    /// Shards that hit nodes led.
    pub led: Vec<u32>,
    /// Begin → each of them has another leader, in microseconds; `None`: not so, or there was none.
    pub elected_us: Option<u64>,
    /// Healing's begin → each gateway that was hit serves each shard again, in microseconds; `None`: not so, or there was
    /// none.
    pub gateways_back_us: Option<u64>,
    /// Begin, healing's begin, and the end, in microseconds of this process without the pauses of its probes.
    pub moments_us: [u64; 3],
    /// What the probes saw, by the same clock, each at the gateway that it was at when the fault began.
    pub streams: Vec<Stream>,
    /// Whether everything answered again.
    pub whole: bool,
    /// Servers that did not run at the end.
    pub missing: Vec<String>,
    /// Link versions that were spoken until then.
    pub link_versions: Vec<u32>,
}

impl Observed {
    /// Whether a stream was at a gateway that was hit, and its shard out of that one's reach: what it waited is the fault's
    /// own. Nobody else was to notice.
    pub fn is_hit(&self, stream: &Stream) -> bool {
        let is_out = self.out_of_reach.as_ref().is_none_or(|shards| shards.contains(&stream.shard));
        is_out && self.gateways.contains(&stream.gateway)
    }
}

impl Injector<'_> {
    /// Does it. What was begun is healed also where it broke in part only.
    pub fn run(&self, fleet: &mut Fleet) -> Result<Observed, FaultsError> {
        let zones_before = self.prepare(fleet)?;
        let quiet_us = clock::now_us();
        self.await_quiet(SERVED_US_MIN);
        let served_us = served_us(&self.probes.look(), quiet_us, clock::now_us());
        let before = leaders::of(&fleet.cluster.storages);
        let victims = self.kind.victims(leaders::busiest(&before), |storage| fleet.zone_of(storage));
        let led = led_by(&before, &victims);
        let places: Vec<usize> = self.probes.look().iter().map(|stream| stream.gateway).collect();
        let begin_us = clock::now_us();
        let begun = self.kind.begin(fleet, &victims);
        let elected_us = if begun.is_ok() { self.hold(fleet, &victims, &led, begin_us) } else { None };
        let led_since = led_by(&leaders::of(&fleet.cluster.storages), &victims);
        let heal_us = clock::now_us();
        let healed = self.kind.heal(fleet, &victims);
        if let (Err(_), Err(error)) = (&begun, &healed) {
            // The run ends with the other one, which came first.
            eprintln!("faults: {} is not healed: {error}", self.kind.name());
        }
        let zones_meanwhile = begun?;
        healed?;
        let gateways_back_us = self.await_gateways(fleet, &victims).map(|at_us| at_us - heal_us);
        let whole = self.await_quiet(served_us);
        let end_us = clock::now_us();
        let pauses = self.probes.pauses();
        Ok(Observed {
            victims: names(fleet, &victims),
            // A shard that was handed to the node meanwhile got out of reach then.
            out_of_reach: self.kind.is_of_one_link().then(|| [&led[..], &led_since].concat()),
            gateways: victims.gateways,
            zones_min: zones_meanwhile.or(zones_before),
            led,
            elected_us,
            gateways_back_us,
            moments_us: [begin_us, heal_us, end_us].map(|at_us| pauses.awake_us(at_us)),
            streams: awake(at_places(self.probes.look(), &places), &pauses),
            whole,
            missing: fleet.missing(),
            link_versions: fleet.link_versions(),
        })
    }

    /// What was prepared in part only is taken back.
    fn prepare(&self, fleet: &Fleet) -> Result<Option<u32>, FaultsError> {
        let prepared = self.kind.prepare(fleet);
        if prepared.is_err()
            && let Err(error) = self.kind.take_back(fleet)
        {
            // The run ends with the other one, which came first.
            eprintln!("faults: {}: what was prepared stays: {error}", self.kind.name());
        }
        prepared
    }

    /// Lets the fault last. Gives the time until a node that was not hit led each of the victims' shards.
    fn hold(&self, fleet: &Fleet, victims: &Victims, led: &[u32], begin_us: u64) -> Option<u64> {
        let [hold_us, hold_us_max] =
            [self.kind.hold(self.length), self.kind.hold_max(self.length)].map(|it| it.as_micros() as u64);
        let mut elected_us = None;
        loop {
            let held_us = clock::now_us() - begin_us;
            if held_us >= hold_us_max || held_us >= hold_us && elected_us.is_some() {
                return elected_us;
            }
            if elected_us.is_none() && !led.is_empty() {
                let now = leaders::of(&fleet.cluster.storages);
                let is_elsewhere =
                    |shard: &u32| now.get(shard).is_some_and(|(_, node)| !victims.storages.contains(node));
                elected_us = led.iter().all(is_elsewhere).then(|| clock::now_us() - begin_us);
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Waits until somebody new has a conversation in each shard through each gateway that was hit. Gives when that was.
    fn await_gateways(&self, fleet: &Fleet, victims: &Victims) -> Option<u64> {
        if victims.gateways.is_empty() {
            return None;
        }
        let targets = &fleet.cluster.targets;
        let hit: Vec<Target> = victims.gateways.iter().map(|index| targets[*index].clone()).collect();
        match Probes::start(&hit, &fleet.bench_key_pem) {
            Ok(_) => Some(clock::now_us()),
            Err(error) => {
                eprintln!("faults: {}: the gateway does not serve again: {error}", self.kind.name());
                None
            }
        }
    }

    /// Waits until all streams have been served for a while, with an answer within `served_us`; whether they were in time.
    fn await_quiet(&self, served_us: u64) -> bool {
        let begun_us = clock::now_us();
        let mut quiet_us = begun_us;
        while clock::now_us() < begun_us + QUIET_US_MAX {
            let now_us = clock::now_us();
            let served = |stream: &Stream| {
                longest_gap_us(&stream.acks_us, now_us.saturating_sub(served_us), now_us) < served_us
            };
            if !self.probes.look().iter().all(served) {
                quiet_us = now_us;
            }
            if now_us >= quiet_us + QUIET_US {
                return true;
            }
            std::thread::sleep(LOOK);
        }
        false
    }
}

/// Shards that hit nodes lead.
fn led_by(leaders: &Leaders, victims: &Victims) -> Vec<u32> {
    victims.storages.iter().flat_map(|node| leaders::led_by(leaders, *node)).collect()
}

/// Who lost a gateway is at another one by now, and it is the lost one's doing all the same.
fn at_places(streams: Vec<Stream>, places: &[usize]) -> Vec<Stream> {
    streams.into_iter().zip(places).map(|(stream, gateway)| Stream { gateway: *gateway, ..stream }).collect()
}

/// By a clock that stood still while the probes did.
fn awake(mut streams: Vec<Stream>, pauses: &Pauses) -> Vec<Stream> {
    for at_us in streams.iter_mut().flat_map(|stream| &mut stream.acks_us) {
        *at_us = pauses.awake_us(*at_us);
    }
    streams
}

/// What a stream that is served has an answer within: three times what half of the answers took between two moments, in
/// which nothing was broken.
fn served_us(streams: &[Stream], from_us: u64, to_us: u64) -> u64 {
    let waits = streams.iter().flat_map(|stream| gaps_us(&stream.acks_us, from_us, to_us));
    let mut waits_us: Vec<u64> = waits.map(|(_, lasted_us)| lasted_us).collect();
    waits_us.sort_unstable();
    let median_us = waits_us.get(waits_us.len() / 2).copied().unwrap_or(0);
    (3 * median_us).clamp(SERVED_US_MIN, QUIET_US)
}

fn names(fleet: &Fleet, victims: &Victims) -> Vec<String> {
    let names = fleet.names(victims);
    if names.is_empty() { vec!["all, in turn".into()] } else { names }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_moved_counts_where_it_was() {
        let moved = Stream { acks_us: vec![7], ..Stream::new(3, 1) };
        let streams = at_places(vec![moved, Stream::new(5, 1)], &[0, 1]);
        let seen: Vec<_> = streams.iter().map(|it| (it.shard, it.gateway, it.acks_us.len())).collect();
        assert_eq!(seen, [(3, 0, 1), (5, 1, 0)]);
    }

    #[test]
    fn where_answers_are_slow_a_stream_may_wait_for_them() {
        let every = |us: u64| Stream {
            acks_us: (1..=10_u64).map(|number| number * us).collect(),
            ..Stream::new(3, 1)
        };
        let away = Stream::new(5, 0);
        assert_eq!(served_us(&[every(50_000), away.clone()], 0, 500_000), SERVED_US_MIN);
        assert_eq!(served_us(&[every(400_000), away.clone()], 0, 4_000_000), 1_200_000);
        assert_eq!(served_us(&[away], 0, 40_000_000), QUIET_US, "it never comes");
        assert_eq!(served_us(&[], 0, 1), SERVED_US_MIN);
    }
}

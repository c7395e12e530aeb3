//! What came of a fault, as a person and a program read it.

use super::injector::Observed;
use super::kinds::Kind;
use super::probe::{Stream, gaps_us, longest_gap_us};
use crate::report::results::RunResult;
use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// A stream that waited longer than this was without service; pace and a late answer are below.
const INTERRUPTED_US: u64 = 500_000;

/// After so long a leader knows that its link is slow, in milliseconds: an election's time.
const KNOWN_SLOW_MS: u64 = 1_000;

/// Half a second or more in which a stream had no acknowledgement.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interruption {
    /// The stream's shard: of its conversation and of its user's sessions.
    pub shard: u32,
    /// The gateway that it was at when the fault began, by index.
    pub gateway: usize,
    /// The last acknowledgement before, or the fault if that came later: milliseconds from the fault on.
    pub begun_ms: u64,
    /// Until the next one, or the end, in milliseconds.
    pub lasted_ms: u64,
}

/// One fault.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// The fault's name.
    pub fault: String,
    /// Who was hit.
    pub victims: Vec<String>,
    /// Zones that the copies of each shard were in at the least: before a zone was lost, or while a node more was there than
    /// there are zones. None: it was not looked at.
    pub zones_min: Option<u32>,
    /// Shards that hit nodes led.
    pub shards_led: u32,
    /// Begin → another node leads each of them, in milliseconds; none if none did.
    pub elected_ms: Option<u64>,
    /// Longest wait of a stream between begin and healing, in milliseconds, for whoever is at a gateway that was not hit, or,
    /// where that one was cut off from one node alone, has a shard that another node led.
    pub without_service_ms: u64,
    /// The same from healing to the end.
    pub after_healing_ms: u64,
    /// Longest wait of the others, who were at the gateway that was hit, over both.
    pub at_hit_gateway_ms: Option<u64>,
    /// Healing → the gateway that was hit serves each shard to clients that come new, in milliseconds; none if it does not
    /// within half a minute.
    pub gateway_back_ms: Option<u64>,
    /// Streams, of those that were not hit, that waited longer than half a second.
    pub streams_interrupted: u32,
    /// Of so many.
    pub streams: u32,
    /// All such waits, of those at the hit gateway, too, in the order of their begin.
    pub interruptions: Vec<Interruption>,
    /// Seconds from begin to healing.
    pub held_s: f64,
    /// Whether everything was served again in the end.
    pub whole: bool,
    /// Servers that did not run at the end.
    pub missing: Vec<String>,
    /// Versions that links were opened with, until then.
    pub link_versions: Vec<u32>,
    /// Messages of the streams that were not answered for 5 s over a connection that stood.
    pub unanswered: u64,
    /// Connections of streams that broke or were given up.
    pub reconnects: u64,
    /// Answers to streams that cannot be.
    pub wrong: Vec<String>,
    /// From the load's ledger.
    pub acknowledged: u64,
    /// Places checked.
    pub checked: u64,
    /// Acknowledged and missing.
    pub lost: u64,
    /// There more than once.
    pub doubled: u64,
    /// Out of order, a sender's own included.
    pub reordered: u64,
    /// Other bytes or another place.
    pub altered: u64,
    /// The load's actions without an answer at the phase's end.
    pub load_unanswered: u64,
    /// Examples of what is wrong.
    pub examples: Vec<String>,
}

impl Outcome {
    /// From what was seen, and the load's result.
    pub fn of(kind: Kind, observed: Observed, result: &RunResult) -> Self {
        let [begin_us, heal_us, end_us] = observed.moments_us;
        let is_hit = |stream: &&Stream| observed.is_hit(stream);
        let longest = |hit: bool, from_us: u64, to_us: u64| {
            let streams = observed.streams.iter().filter(|stream| is_hit(stream) == hit);
            let gaps = streams.map(|stream| longest_gap_us(&stream.acks_us, from_us, to_us));
            gaps.max().unwrap_or(0) / 1_000
        };
        let others: Vec<&Stream> = observed.streams.iter().filter(|stream| !is_hit(stream)).collect();
        let interrupted =
            others.iter().filter(|stream| longest_gap_us(&stream.acks_us, begin_us, end_us) > INTERRUPTED_US);
        // A gap that begins before the healing and ends after it counts where it began.
        let until_us = if heal_us == begin_us { end_us } else { heal_us };
        let ledger = result.ledger.clone().unwrap_or_default();
        let load_streams = result.phases.iter().flat_map(|phase| &phase.streams);
        Self {
            fault: kind.name().to_owned(),
            victims: observed.victims.clone(),
            zones_min: observed.zones_min,
            shards_led: observed.led.len() as u32,
            elected_ms: observed.elected_us.map(|us| us / 1_000),
            without_service_ms: longest(false, begin_us, until_us),
            after_healing_ms: longest(false, heal_us, end_us),
            at_hit_gateway_ms: (!observed.gateways.is_empty()).then(|| longest(true, begin_us, end_us)),
            gateway_back_ms: observed.gateways_back_us.map(|us| us / 1_000),
            streams_interrupted: interrupted.count() as u32,
            streams: others.len() as u32,
            interruptions: interruptions(&observed.streams, begin_us, end_us),
            held_s: (heal_us - begin_us) as f64 / 1e6,
            whole: observed.whole,
            missing: observed.missing.clone(),
            link_versions: observed.link_versions.clone(),
            unanswered: others.iter().map(|stream| stream.unanswered).sum(),
            reconnects: observed.streams.iter().map(|stream| stream.reconnects).sum(),
            wrong: observed.streams.iter().flat_map(|stream| stream.wrong.clone()).collect(),
            acknowledged: ledger.acknowledged,
            checked: ledger.checked,
            lost: ledger.lost,
            doubled: ledger.doubled,
            reordered: ledger.reordered,
            altered: ledger.altered,
            load_unanswered: load_streams.map(|stream| stream.unanswered).sum(),
            examples: ledger.examples,
        }
    }

    /// What breaks a promise; empty: nothing. `limit_ms`: the longest time without service after a leader was lost.
    pub fn broken(&self, limit_ms: u64) -> Vec<String> {
        let mut broken = Vec::new();
        let mut claim = |holds: bool, what: String| {
            if !holds {
                broken.push(format!("{}: {what}", self.fault));
            }
        };
        let wrong = self.lost + self.doubled + self.reordered + self.altered;
        let faults = format!("the ledger does not balance: {:?}", self.examples);
        claim(wrong == 0, faults);
        claim(
            self.acknowledged > 0 && self.checked > self.acknowledged,
            "the ledger holds next to nothing".into(),
        );
        claim(self.wrong.is_empty(), format!("answers that cannot be: {:?}", self.wrong));
        claim(self.whole, "not everything was served again".into());
        claim(self.missing.is_empty(), format!("{:?} did not run at the end", self.missing));
        let takes_leader = Kind::named(&self.fault).is_some_and(Kind::takes_leader);
        claim(
            !takes_leader || self.shards_led == 0 || self.elected_ms.is_some(),
            "nobody else led before it was healed".into(),
        );
        claim(
            self.at_hit_gateway_ms.is_none() || self.gateway_back_ms.is_some(),
            "the gateway that was hit did not serve again".into(),
        );
        let worst_ms = self.without_service_ms.max(self.after_healing_ms);
        // A leader whose link is slow is lost once that is known.
        let limit_ms = limit_ms + if self.fault == Kind::SlowLink.name() { KNOWN_SLOW_MS } else { 0 };
        claim(worst_ms <= limit_ms, format!("{worst_ms} ms without service, more than {limit_ms}"));
        broken
    }
}

fn interruptions(streams: &[Stream], begin_us: u64, end_us: u64) -> Vec<Interruption> {
    let of = |stream: &Stream| {
        let (shard, gateway) = (stream.shard, stream.gateway);
        let long = gaps_us(&stream.acks_us, begin_us, end_us).filter(|(_, us)| *us > INTERRUPTED_US);
        let told = long.map(move |(at_us, us)| Interruption {
            shard,
            gateway,
            begun_ms: (at_us - begin_us) / 1_000,
            lasted_ms: us / 1_000,
        });
        told.collect::<Vec<_>>()
    };
    let mut all: Vec<Interruption> = streams.iter().flat_map(of).collect();
    all.sort_by_key(|it| (it.begun_ms, it.shard, it.gateway));
    all
}

/// All of them as a table.
pub fn table(outcomes: &[Outcome]) -> String {
    let mut text = format!(
        "{:<20}{:<22}{:>6}{:>9}{:>10}{:>9}{:>10}{:>9}{:>8}{:>9}{:>10}{:>6}{:>8}{:>10}{:>8}\n",
        "fault",
        "hit",
        "leads",
        "elected",
        "without",
        "healing",
        "gateway",
        "streams",
        "no ans",
        "broken",
        "acked",
        "lost",
        "doubled",
        "reordered",
        "altered"
    );
    let seconds = |ms: u64| format!("{:.2} s", ms as f64 / 1_000.0);
    let perhaps = |ms: Option<u64>| ms.map_or_else(|| "-".to_owned(), seconds);
    for outcome in outcomes {
        writeln!(
            text,
            "{:<20}{:<22}{:>6}{:>9}{:>10}{:>9}{:>10}{:>9}{:>8}{:>9}{:>10}{:>6}{:>8}{:>10}{:>8}",
            outcome.fault,
            outcome.victims.join(", "),
            outcome.shards_led,
            perhaps(outcome.elected_ms),
            seconds(outcome.without_service_ms),
            seconds(outcome.after_healing_ms),
            perhaps(outcome.at_hit_gateway_ms),
            format!("{}/{}", outcome.streams_interrupted, outcome.streams),
            outcome.unanswered,
            outcome.reconnects,
            outcome.acknowledged,
            outcome.lost,
            outcome.doubled,
            outcome.reordered,
            outcome.altered
        )
        .expect("a string grows");
    }
    text.push_str(
        "\nelected: until another node leads all shards of the hit one. without: longest wait for an acknowledgement from the\n\
         fault to its healing, at gateways that were not hit; healing: from there to the end; gateway: of whoever was at the\n\
         gateway that was hit (gateway-leader-cut: in shards that it could not reach; those in others count as not hit).\n\
         streams: how many waited over half a second. no ans: messages without an answer for 5 s.\n",
    );
    for outcome in outcomes.iter().filter(|outcome| !outcome.interruptions.is_empty()) {
        let waits = outcome.interruptions.iter().map(|it| {
            let (begun, lasted, gateway) = (seconds(it.begun_ms), seconds(it.lasted_ms), it.gateway + 1);
            format!("  shard {} by gateway-{gateway}: {lasted}, from {begun} on", it.shard)
        });
        let waits: Vec<String> = waits.collect();
        let back = outcome.gateway_back_ms.map_or_else(String::new, |ms| {
            format!(", its gateway served again {} after it was healed", seconds(ms))
        });
        let (fault, held_s) = (&outcome.fault, outcome.held_s);
        let _ = writeln!(text, "\n{fault}, held for {held_s:.1} s{back}:\n{}", waits.join("\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fine() -> Outcome {
        Outcome { fault: "kill".into(), whole: true, acknowledged: 10, checked: 20, ..Outcome::default() }
    }

    #[test]
    fn long_waits_are_told_with_place_and_time_and_short_ones_are_not() {
        let stream = |shard, gateway, acks_us: &[u64]| Stream {
            acks_us: acks_us.to_vec(),
            ..Stream::new(shard, gateway)
        };
        let streams = [
            stream(3, 1, &[900_000, 1_400_000, 4_000_000]),
            stream(5, 0, &[1_300_000, 1_800_000, 2_300_000, 2_800_000, 3_300_000, 3_800_000]),
        ];
        let told = interruptions(&streams, 1_000_000, 4_700_001);
        let wait = |shard, gateway, begun_ms, lasted_ms| Interruption { shard, gateway, begun_ms, lasted_ms };
        assert_eq!(told, [wait(3, 1, 400, 2_600), wait(5, 0, 2_800, 900), wait(3, 1, 3_000, 700)]);
        let outcome = Outcome { interruptions: told, gateway_back_ms: Some(310), held_s: 4.04, ..fine() };
        let text = table(&[outcome]);
        assert!(text.contains("shard 3 by gateway-2: 2.60 s, from 0.40 s on"), "{text}");
        assert!(text.contains("kill, held for 4.0 s, its gateway served again 0.31 s after it"), "{text}");
    }

    /// Shards 3 and 5 through both gateways, each stream with a pause of its own from 1 s on.
    fn observed(gateways: Vec<usize>, out_of_reach: Option<Vec<u32>>) -> Observed {
        let pauses = [(3, 0, 7_000), (5, 0, 900), (3, 1, 80), (5, 1, 60)];
        let streams = pauses.map(|(shard, gateway, pause_ms)| {
            let answered = (0..=10).map(|number| number * 100_000);
            let again = (1_000 + pause_ms..20_000).step_by(50).map(|at_ms| at_ms * 1_000);
            Stream { acks_us: answered.chain(again).collect(), ..Stream::new(shard, gateway) }
        });
        Observed {
            victims: vec!["gateway-1".into()],
            gateways,
            out_of_reach,
            zones_min: None,
            led: Vec::new(),
            elected_us: None,
            gateways_back_us: Some(250_000),
            moments_us: [1_000_000, 16_000_000, 19_000_000],
            streams: streams.into(),
            whole: true,
            missing: Vec::new(),
            link_versions: Vec::new(),
        }
    }

    #[test]
    fn who_is_at_the_gateway_that_was_hit_counts_apart_as_far_as_shards_were_out_of_its_reach() {
        let result = crate::report::example::run("ringline", 1);
        for (kind, gateways, out_of_reach, without_ms, at_hit_ms, of_others) in [
            (Kind::GatewayCut, vec![0], None, 80, Some(7_000), (0, 2)),
            (Kind::GatewayLeaderCut, vec![0], Some(vec![3]), 900, Some(7_000), (1, 3)),
            (Kind::GatewayLeaderCut, vec![0], Some(vec![5]), 7_000, Some(900), (1, 3)),
            (Kind::Cut, vec![], None, 7_000, None, (2, 4)),
        ] {
            let outcome = Outcome::of(kind, observed(gateways, out_of_reach), &result);
            assert_eq!((outcome.without_service_ms, outcome.at_hit_gateway_ms), (without_ms, at_hit_ms));
            assert_eq!((outcome.streams_interrupted, outcome.streams), of_others);
            assert_eq!((outcome.after_healing_ms, outcome.gateway_back_ms), (50, Some(250)));
        }
    }

    #[test]
    fn each_broken_promise_is_named() {
        assert!(fine().broken(3_000).is_empty());
        let slow = Outcome { fault: "slow-link".into(), without_service_ms: 4_000, ..fine() };
        assert!(slow.broken(3_000).is_empty() && !slow.broken(2_999).is_empty());
        assert!(Outcome { shards_led: 1, elected_ms: Some(9), ..fine() }.broken(3_000).is_empty());
        assert!(Outcome { shards_led: 1, fault: "clock-ahead".into(), ..fine() }.broken(3_000).is_empty());
        let cut_off = Outcome { at_hit_gateway_ms: Some(9_000), gateway_back_ms: Some(40), ..fine() };
        assert!(cut_off.broken(3_000).is_empty(), "who is at a gateway that is hit waits as long as that is");
        let wrong = [
            (Outcome { lost: 1, ..fine() }, "balance"),
            (Outcome { doubled: 1, ..fine() }, "balance"),
            (Outcome { reordered: 1, ..fine() }, "balance"),
            (Outcome { altered: 1, ..fine() }, "balance"),
            (Outcome { acknowledged: 0, ..fine() }, "next to nothing"),
            (Outcome { wrong: vec!["x".into()], ..fine() }, "cannot be"),
            (Outcome { whole: false, ..fine() }, "served again"),
            (Outcome { missing: vec!["storage-1".into()], ..fine() }, "storage-1"),
            (Outcome { shards_led: 1, ..fine() }, "nobody else led"),
            (Outcome { at_hit_gateway_ms: Some(9), ..fine() }, "gateway that was hit"),
            (Outcome { without_service_ms: 3_001, ..fine() }, "3001 ms"),
            (Outcome { after_healing_ms: 3_002, ..fine() }, "3002 ms"),
        ];
        for (outcome, culprit) in wrong {
            let broken = outcome.broken(3_000);
            assert!(broken.len() == 1 && broken[0].contains(culprit), "{culprit}: {broken:?}");
        }
    }
}

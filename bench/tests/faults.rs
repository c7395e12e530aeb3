//! Faults on real processes in network namespaces, the short way: the command as a person runs it.

#[path = "../../tuning/tests/rights/right.rs"]
mod right;

use bench::coordinator::enclosure::NOT_PERMITTED;
use bench::faults::kinds::Kind;
use bench::faults::outcome::Outcome;
use right::{Right, refused};
use std::process::Command;

/// Longest time without service after a leader was lost, in seconds. What is promised is 3 (docs/reliability.md); tests
/// share their machine with other tests.
const LIMIT_S: &str = "4.5";

#[test]
fn whatever_happens_to_a_leader_another_one_serves_and_nothing_is_lost() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("outcomes.json");
    let output = Command::new(env!("CARGO_BIN_EXE_ringline-bench"))
        .args(["faults", "--short", "--limit-s", LIMIT_S, "--rate-scale", "0.5", "--out"])
        .arg(&out)
        .output()
        .expect("it starts");
    let said =
        format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.code() == Some(i32::from(NOT_PERMITTED)) {
        return refused(Right::Namespaces, &said);
    }
    assert!(output.status.success(), "{said}");
    let text = std::fs::read_to_string(&out).expect("it was written");
    let outcomes: Vec<Outcome> = serde_json::from_str(&text).expect("as it is documented");
    let takes_leader = |fault: &str| Kind::named(fault).is_some_and(Kind::takes_leader);
    for outcome in outcomes.iter().filter(|outcome| takes_leader(&outcome.fault)) {
        assert!(outcome.shards_led > 0, "{}: nobody was hit: {said}", outcome.fault);
        assert!(outcome.without_service_ms > 500, "{}: it broke nothing: {said}", outcome.fault);
    }
    let names: Vec<&str> = outcomes.iter().map(|outcome| outcome.fault.as_str()).collect();
    assert_eq!(names, Kind::ALL.map(Kind::name));
    let of = |kind: Kind| outcomes.iter().find(|outcome| outcome.fault == kind.name()).expect("named above");
    zones_are_apart(of(Kind::ZoneLoss), of(Kind::ShardMoves));
    for kind in [
        Kind::GatewayStop,
        Kind::GatewayCut,
        Kind::GatewayOneWay,
        Kind::GatewayUnheard,
        Kind::GatewayLeaderCut,
    ] {
        one_gateway_is_hit(of(kind));
    }
    assert!(of(Kind::GatewayLeaderCut).shards_led > 0, "no shard was out of the gateway's reach: {said}");
}

/// Whoever is at a gateway that cannot serve waits. That nobody else does for long, and that it serves again, the command
/// has judged.
fn one_gateway_is_hit(outcome: &Outcome) {
    assert!(outcome.victims.contains(&"gateway-1".to_owned()), "{outcome:?}");
    assert!(outcome.at_hit_gateway_ms.is_some_and(|ms| ms > 2_000), "it broke nothing: {outcome:?}");
    assert!(outcome.streams > 0, "nobody was at the other gateway: {outcome:?}");
}

/// A zone is lost with all that stands in it, and takes one copy of a shard at most, also where there are more nodes than
/// zones.
fn zones_are_apart(lost: &Outcome, moved: &Outcome) {
    let zones = [&["storage-1", "gateway-1"][..], &["storage-2", "gateway-2"], &["storage-3"]];
    assert!(zones.iter().any(|zone| lost.victims.iter().eq(zone.iter())), "{lost:?}");
    assert_eq!([lost.zones_min, moved.zones_min], [Some(3), Some(3)]);
}

use super::*;
use std::collections::BTreeSet;

const START_MS: u64 = 1_000_000;

fn own() -> Option<Peer> {
    Some(Peer { address: "a:1".into(), zone: "z".into(), admits_per_s: None })
}

fn ready() -> Probed {
    Probed::Ready { zone: "z".into(), admits_per_s: Some(500) }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn listing(listed: &[&str]) -> Discovery {
    Discovery::new(own(), &names(listed), false, START_MS)
}

/// Takes every probe that is due.
fn due(discovery: &mut Discovery, now_ms: u64) -> Vec<String> {
    std::iter::from_fn(|| discovery.poll_probe(now_ms)).map(|address| address.to_string()).collect()
}

fn others(discovery: &Discovery) -> Vec<String> {
    discovery.view().others.iter().map(|peer| peer.address.to_string()).collect()
}

/// Time goes on to the next probe of the only other gateway, which ends like this.
fn next(discovery: &mut Discovery, now_ms: &mut u64, probed: Probed) -> bool {
    *now_ms = discovery.poll_timeout().expect("a probe is planned").max(*now_ms);
    assert_eq!(due(discovery, *now_ms), ["b:1"]);
    discovery.handle_probed(*now_ms, "b:1", probed);
    !others(discovery).is_empty()
}

#[test]
fn the_list_without_oneself_is_probed_at_once_and_then_in_pauses() {
    let mut discovery = listing(&["b:1", "a:1", "c:1"]);
    assert_eq!(due(&mut discovery, START_MS), ["b:1", "c:1"]);
    assert!(others(&discovery).is_empty(), "nobody is handed out unseen");
    assert_eq!(discovery.poll_timeout(), None);
    discovery.handle_probed(START_MS + 10, "c:1", ready());
    assert_eq!(others(&discovery), ["c:1"]);
    assert_eq!(discovery.view().others[0].admits_per_s, Some(500));
    assert_eq!(discovery.poll_timeout(), Some(START_MS + 10 + PROBE_PAUSE_MS));
    assert!(due(&mut discovery, START_MS + 9 + PROBE_PAUSE_MS).is_empty());
    assert_eq!(due(&mut discovery, START_MS + 10 + PROBE_PAUSE_MS), ["c:1"]);
}

#[test]
fn three_silences_leave_out_and_two_answers_bring_back() {
    let (mut discovery, mut now_ms) = (listing(&["b:1"]), START_MS);
    assert!(next(&mut discovery, &mut now_ms, ready()));
    for _ in 0..5 {
        assert!(next(&mut discovery, &mut now_ms, Probed::Silent));
        assert!(next(&mut discovery, &mut now_ms, Probed::Silent));
        assert!(next(&mut discovery, &mut now_ms, ready()), "an answer between forgives");
    }
    for silences in 1..=SILENCES_MAX {
        assert_eq!(next(&mut discovery, &mut now_ms, Probed::Silent), silences < SILENCES_MAX);
    }
    assert!(!next(&mut discovery, &mut now_ms, ready()));
    assert!(!next(&mut discovery, &mut now_ms, Probed::Silent));
    assert!(!next(&mut discovery, &mut now_ms, ready()), "not two in a row");
    assert!(next(&mut discovery, &mut now_ms, ready()));
}

#[test]
fn one_that_says_it_leaves_is_left_out_at_once() {
    let (mut discovery, mut now_ms) = (listing(&["b:1"]), START_MS);
    assert!(!next(&mut discovery, &mut now_ms, Probed::NotReady));
    assert!(!next(&mut discovery, &mut now_ms, ready()));
    assert!(next(&mut discovery, &mut now_ms, ready()));
    assert!(!next(&mut discovery, &mut now_ms, Probed::NotReady));
}

#[test]
fn every_address_of_the_name_is_a_gateway_and_a_name_that_fails_loses_nobody() {
    let mut discovery = Discovery::new(own(), &names(&["b:1"]), true, START_MS);
    assert!(discovery.poll_resolve(START_MS) && !discovery.poll_resolve(START_MS));
    discovery.handle_resolved(START_MS, &names(&["a:1", "c:1", "d:1"]));
    assert_eq!(due(&mut discovery, START_MS), ["b:1", "c:1", "d:1"]);
    for address in ["b:1", "c:1", "d:1"] {
        discovery.handle_probed(START_MS, address, ready());
    }
    assert!(!discovery.poll_resolve(START_MS + RESOLVE_PAUSE_MS - 1));
    assert!(discovery.poll_resolve(START_MS + RESOLVE_PAUSE_MS));
    discovery.handle_resolved(START_MS + RESOLVE_PAUSE_MS, &[]);
    assert_eq!(others(&discovery), ["b:1", "c:1", "d:1"]);
    // A probe is under way when its gateway leaves the name: its end is nobody's.
    let later_ms = START_MS + 2 * RESOLVE_PAUSE_MS;
    assert_eq!(due(&mut discovery, later_ms).len(), 3);
    discovery.handle_resolved(later_ms, &names(&["a:1", "d:1", "e:1"]));
    discovery.handle_probed(later_ms, "c:1", ready());
    assert_eq!(others(&discovery), ["b:1", "d:1"], "the listed one stays");
    assert_eq!(due(&mut discovery, later_ms), ["e:1"]);
    assert_eq!(discovery.probing, 3);
}

#[test]
fn a_large_fleet_is_probed_more_slowly_and_not_all_at_once() {
    let many: Vec<String> = (0..GATEWAYS_MAX + 10).map(|number| format!("g{number}:1")).collect();
    let mut discovery = Discovery::new(own(), &many, false, START_MS);
    let first = due(&mut discovery, START_MS);
    assert_eq!(first.len(), PROBES_MAX);
    assert_eq!(discovery.poll_timeout(), None, "no place for a further one");
    discovery.handle_probed(START_MS, &first[0], ready());
    let pause_ms = GATEWAYS_MAX as u64 * PROBE_SPACING_MS;
    assert_eq!(discovery.members[first[0].as_str()].probe_at_ms, Some(START_MS + pause_ms));
}

#[test]
fn those_that_never_answer_take_nobodys_turn() {
    // Each takes the whole of a probe's time: 16 rounds of 64, which are 24 s, and the pause is 20 s.
    const SILENCE_MS: u64 = 1_500;
    let many: Vec<String> = (0..1_000).map(|number| format!("g{number:03}:1")).collect();
    let mut discovery = Discovery::new(own(), &many, false, START_MS);
    let mut probed = BTreeSet::new();
    let mut now_ms = START_MS;
    for _ in 0..40 {
        let round = due(&mut discovery, now_ms);
        now_ms += SILENCE_MS;
        for address in round {
            discovery.handle_probed(now_ms, &address, Probed::Silent);
            probed.insert(address);
        }
    }
    assert_eq!(probed.len(), many.len());
}

#[test]
fn a_name_with_more_addresses_than_are_seen_is_cut() {
    let many: Vec<String> = (0..GATEWAYS_MAX + 10).map(|number| format!("g{number}:1")).collect();
    let mut discovery = Discovery::new(own(), &[], true, START_MS);
    discovery.handle_resolved(START_MS, &[names(&["a:1"]), many.clone()].concat());
    assert_eq!((discovery.members.len(), discovery.unseen), (GATEWAYS_MAX, 10));
    discovery.handle_resolved(START_MS, &many);
    assert_eq!((discovery.members.len(), discovery.unseen), (GATEWAYS_MAX, 10), "who was seen stays so");
    // There are places again, also for those who answer.
    discovery.handle_resolved(START_MS, &many[GATEWAYS_MAX..]);
    assert_eq!((discovery.members.len(), discovery.unseen), (10, 0));
    let last = due(&mut discovery, START_MS);
    assert_eq!(last.len(), 10);
    discovery.handle_probed(START_MS, &last[0], ready());
    assert_eq!(others(&discovery), [last[0].as_str()]);
}

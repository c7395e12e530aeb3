use super::*;
use crate::workload::plan::{ActionName, Stream};

/// Latencies of one agent, all different between agents.
fn latencies(agent: u32) -> Latencies {
    let mut latencies = Latencies::default();
    for number in 0..400 * u64::from(agent) {
        latencies.record(100 + (number * number * u64::from(agent)) % 250_000);
    }
    latencies
}

fn share(agent: u32) -> PhaseShare {
    let count = u64::from(agent);
    let stream = |factor: u64| StreamShare {
        due: 10 * count * factor,
        begun: 9 * count,
        succeeded: 7 * count,
        errors: [("busy".to_owned(), count), (format!("only-{agent}"), 1)].into(),
        unanswered: count,
        deliveries: 3 * count,
        histograms: [("answer".to_owned(), latencies(agent).to_text())].into(),
    };
    PhaseShare {
        phase: 2,
        measured_s: 10.0,
        streams: vec![stream(1), stream(5)],
        connections: ConnectionCounts {
            at_end: count,
            peak: 2 * count,
            full_handshakes: 3,
            resumed_handshakes: 4,
        },
        generators: vec![GeneratorResult { agent, cpu_milli: 100 * count, ..GeneratorResult::default() }],
        losses: [("reset".to_owned(), count)].into(),
        ledger_full: agent == 3,
        recovery: latencies(agent).to_text(),
        returns: ReturnCounts { cut: count, told: 2 * count, sent_on: count, put_off: 5, failed: 6 },
    }
}

#[test]
fn shares_add_up_whatever_the_tree() {
    let [one, two, three] = [1, 2, 3].map(share);
    let flat = merge_shares(&[one.clone(), two.clone(), three.clone()]).expect("of one phase");
    let left = merge_shares(&[merge_shares(&[one.clone(), two.clone()]).expect("fits"), three.clone()]);
    let right = merge_shares(&[three.clone(), merge_shares(&[two, one.clone()]).expect("fits")]);
    assert_eq!(left.as_ref(), Ok(&flat));
    assert_eq!(right.as_ref(), Ok(&flat), "the order does not matter either");
    assert_eq!(merge_shares(std::slice::from_ref(&one)), Ok(one), "one alone stays as it is");
    let stream = &flat.streams[1];
    assert_eq!((stream.due, stream.begun, stream.succeeded), (300, 54, 42));
    assert_eq!((stream.unanswered, stream.deliveries), (6, 18));
    assert_eq!(stream.errors["busy"], 6);
    assert_eq!(stream.errors.len(), 4);
    assert_eq!(flat.connections.at_end + flat.connections.peak, 18);
    assert_eq!(flat.connections.full_handshakes * 10 + flat.connections.resumed_handshakes, 102);
    let returns = ReturnCounts { cut: 6, told: 12, sent_on: 6, put_off: 15, failed: 18 };
    assert_eq!(flat.returns, returns);
    assert_eq!(flat.generators.iter().map(|one| one.agent).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!((flat.losses["reset"], flat.ledger_full, flat.measured_s), (6, true, 10.0));
}

#[test]
fn merged_latencies_are_those_of_one_histogram_of_all() {
    let flat = merge_shares(&[1, 2, 3].map(share)).expect("of one phase");
    let mut all = Latencies::default();
    for agent in 1..=3 {
        all.merge(&latencies(agent));
    }
    assert_eq!(flat.streams[0].histograms["answer"], all.to_text());
    let merged = Latencies::from_text(&flat.streams[0].histograms["answer"]).expect("ours");
    let averaged = (1..=3).map(|agent| latencies(agent).at(0.99)).sum::<u64>() / 3;
    assert_eq!(merged.at(0.99), all.at(0.99));
    assert_ne!(merged.at(0.99), averaged, "an average is something else");
}

#[test]
fn shares_that_do_not_belong_together_are_refused_and_change_nothing() {
    let mut sum = ShareSum::default();
    sum.add(&share(1)).expect("the first");
    let foreign = PhaseShare { phase: 3, ..share(2) };
    assert_eq!(sum.add(&foreign), Err(MergeError::Phase { phase: 2, other: 3 }));
    let short = PhaseShare { streams: Vec::new(), ..share(2) };
    assert_eq!(sum.add(&short), Err(MergeError::Streams { phase: 2, streams: 2, other: 0 }));
    let mut broken = share(2);
    broken.streams[1].histograms.insert("answer".into(), "!".into());
    let refused = sum.add(&broken).expect_err("no histogram");
    assert!(refused.to_string().contains("answer"), "{refused}");
    assert_eq!(sum.finish(), share(1));
    let mut sum = ShareSum::default();
    sum.add(&broken).expect_err("no histogram");
    sum.add(&foreign).expect("a refused share chose no phase");
}

#[test]
fn an_empty_tree_is_an_empty_share() {
    assert_eq!(merge_shares(&[]), Ok(PhaseShare::default()));
    assert_eq!(merge_progress(&[]).map(|sum| sum.due), Ok(0));
}

fn progress(agent: u32) -> Progress {
    let count = u64::from(agent);
    Progress {
        phase: 1,
        second: 4,
        due: 10 * count,
        succeeded: 8 * count,
        errors: count,
        connections: 100 * count,
        log_ins: 3 * count,
        sent_on: 2 * count,
        latency: latencies(agent).to_text(),
        cpu_milli: 900 - 100 * count,
    }
}

#[test]
fn seconds_add_up_whatever_the_tree() {
    let [one, two, three] = [1, 2, 3].map(progress);
    let flat = merge_progress(&[one.clone(), two.clone(), three.clone()]).expect("of one second");
    let tree = merge_progress(&[three.clone(), merge_progress(&[two, one.clone()]).expect("fits")]);
    assert_eq!(tree.as_ref(), Ok(&flat));
    assert_eq!((flat.due, flat.succeeded, flat.errors, flat.connections), (60, 48, 6, 600));
    assert_eq!(flat.cpu_milli, 800, "the busiest agent, not all of them");
    let mut sum = ProgressSum::default();
    sum.add(&one).expect("the first");
    let late = Progress { second: 5, ..three };
    assert_eq!(sum.add(&late), Err(MergeError::Second { second: 4, other: 5 }));
    assert_eq!((sum.added(), sum.finish()), (1, one));
}

#[test]
fn a_second_joins_agents_and_servers() {
    let mut sum = ProgressSum::default();
    for agent in 1..=3 {
        sum.add(&progress(agent)).expect("of one second");
    }
    let sample = SecondSample { server_cpu_milli: 1, server_private_bytes: 2, kernel_bytes: 3 };
    let second = sum.second(sample);
    let mut all = Latencies::default();
    (1..=3).for_each(|agent| all.merge(&latencies(agent)));
    assert_eq!((second.second, second.due, second.connections), (4, 60, 600));
    assert_eq!((second.log_ins, second.sent_on), (18, 12));
    assert_eq!((second.p50_us, second.p99_us, second.max_us), (all.at(0.5), all.at(0.99), all.max()));
    assert_eq!((second.server_cpu_milli, second.server_private_bytes, second.kernel_bytes), (1, 2, 3));
    assert_eq!(second.agent_cpu_milli, 800);
}

fn planned(schedules: Vec<Schedule>) -> Phase {
    let stream = |schedule| Stream { action: ActionName::SendDirect, stride: 1, schedule };
    Phase {
        name: "send".into(),
        seconds: 10.0,
        until_done: false,
        warm_up_s: 0.0,
        preparation: false,
        slow_readers: 0.0,
        connections_min: 0,
        streams: schedules.into_iter().map(stream).collect(),
        faults: Vec::new(),
    }
}

#[test]
fn rates_are_counts_over_measured_time() {
    let phase = planned(vec![Schedule::Constant { rate: 1.0 }, Schedule::Closed { in_flight: 1, count: 0 }]);
    let result = phase_result(&phase, share(2), Vec::new(), PhaseSample::default(), Vec::new());
    let result = result.expect("two streams");
    let [open, closed] = &result.streams[..] else { panic!("two streams") };
    assert_eq!((open.action.as_str(), open.open_loop, closed.open_loop), ("send_direct", true, false));
    assert_eq!((open.offered_rate, open.achieved_rate), (2.0, 1.4));
    let instant = PhaseShare { measured_s: 0.0, ..share(2) };
    let result = phase_result(&phase, instant, Vec::new(), PhaseSample::default(), Vec::new());
    assert_eq!(result.expect("two streams").streams[0].offered_rate, 0.0, "not NaN");
    let missing = phase_result(&planned(vec![]), share(2), Vec::new(), PhaseSample::default(), Vec::new());
    assert!(missing.is_err());
}

//! Trees of agents and relays over TLS on loopback, and agents that go away.

use super::rig::*;
use super::*;
use crate::agent::service::fake::{Asked, FakeLoad};
use crate::coordinator::control::authority::test_identities::{self, Unusual};
use crate::coordinator::control::authority::{Authority, Role};
use crate::coordinator::control::clocks::ProcessClock;
use crate::coordinator::control::link::SILENT_S_MAX;
use crate::coordinator::control::trust::{AGENT_ROLE, COORDINATOR_ROLE, TrustFiles, agent_own_name};
use std::time::Duration;

#[test]
fn a_tree_of_relays_counts_as_one_and_begins_together() {
    let mut rig = Rig::new();
    let clock = ProcessClock::start();
    // Clocks of different machines: days apart from each other.
    let forward_us = |agent: u32| u64::from(agent + 1) * 86_400_000_000;
    let leaves: Vec<_> =
        (0..4).map(|agent| rig.agent(&format!("a{agent}"), clock.set_forward(forward_us(agent)))).collect();
    let left = rig.relay("left", clock.set_forward(5_000_000), &[&leaves[0], &leaves[1]]);
    let right = rig.relay("right", clock.set_forward(7_000_000_000), &[&leaves[2], &leaves[3]]);
    let top = rig.relay("top", clock.set_forward(1), &[&left, &right]);

    let mut agents = rig.gather(&[&top]).expect("gathered");
    assert_eq!((agents.agents(), agents.connections_max()), (4, 32));
    let roles: Vec<String> = agents.hosts().into_iter().map(|host| host.role).collect();
    assert_eq!(roles, ["a0", "a1", "a2", "a3"]);
    agents.prepare(&plan("tree", 8, 3.0), &[target(TARGET)], &subject()).expect("prepared");
    let mut onlooker = Onlooker::default();
    let share = agents.run_phase(0, 3.0, &mut onlooker).expect("a phase");
    let bound_us = agents.phase_clocks()[0].bound_us;

    let sum: u64 = (0..4).map(FakeLoad::due).sum();
    assert_eq!(share.streams[0].due, sum);
    assert_eq!(share.connections.at_end, sum);
    let generators: Vec<u32> = share.generators.iter().map(|generator| generator.agent).collect();
    assert_eq!(generators, [1, 2, 3, 4]);
    let seconds: Vec<_> = onlooker.seconds.iter().map(|one| (one.second, one.due, one.connections)).collect();
    assert_eq!(seconds, [(0, sum / 3, sum), (1, sum / 3, sum), (2, sum / 3, sum)]);

    let (mut prepared, mut began_us) = (Vec::new(), Vec::new());
    for asked in rig.asked.try_iter() {
        match asked {
            Asked::Prepared { agent, agents: 4 } => prepared.push(agent),
            // By one clock again.
            Asked::Began { agent, phase: 0, at_us } => began_us.push(at_us - forward_us(agent)),
            Asked::Made => {}
            other => panic!("{other:?}"),
        }
    }
    prepared.sort_unstable();
    assert_eq!(prepared, [0, 1, 2, 3]);
    began_us.sort_unstable();
    let apart_us = began_us[3] - began_us[0];
    assert!(bound_us < 1_000_000, "bound {bound_us} us");
    assert!(apart_us <= 2 * bound_us, "{apart_us} us apart, bound {bound_us} us");

    assert_eq!(agents.settle().expect("settled").expect("kept").acknowledged, sum);
    agents.finish().expect("let go");
    let again = rig.gather(&[&top]).expect("the whole tree is free again");
    assert_eq!(again.agents(), 4);
}

#[test]
fn a_phase_may_be_ended_early_through_relays() {
    let mut rig = Rig::new();
    let leaf = rig.agent("a0", ProcessClock::start());
    let top = rig.relay("top", ProcessClock::start(), &[&leaf]);
    let mut agents = rig.gather(&[&top]).expect("gathered");
    agents.prepare(&plan("endless", 2, 3_600.0), &[target(TARGET)], &subject()).expect("prepared");
    let mut onlooker = Onlooker { end_at_once: true, ..Onlooker::default() };
    let share = agents.run_phase(0, 3_600.0, &mut onlooker).expect("a phase");
    assert_eq!(share.streams[0].due, FakeLoad::due(0));
    rig.await_asked(|asked| *asked == Asked::EndedPhase { agent: 0 });
}

/// Kills, by a signal, a child in the middle of its phase.
struct Killer {
    pid: Option<u32>,
    signal: &'static str,
}

impl PhaseWatch for Killer {
    fn tick(&mut self, elapsed_us: i64) -> Steering {
        if elapsed_us > 0
            && let Some(pid) = self.pid.take()
        {
            signal(self.signal, pid);
        }
        Steering::GoOn
    }

    fn second(&mut self, _: &Progress) {}
}

fn run_and_lose(rig: &mut Rig, signal: &'static str) -> AgentsError {
    let other = rig.agent("a0", ProcessClock::start());
    let places = [other.place.clone(), child_place("agent-2")];
    let merging = super::gathering::sums::MERGING;
    let agents = Agents::gather(&places, Some(&rig.trust()), ProcessClock::start(), merging);
    let mut agents = agents.expect("gathered");
    agents.prepare(&plan("endless", 4, 3_600.0), &[target(TARGET)], &subject()).expect("prepared");
    let mut killer = Killer { pid: agents.child_pids().first().copied(), signal };
    let error = agents.run_phase(0, 3_600.0, &mut killer).expect_err("an agent is lost");
    drop(agents);
    rig.await_asked(|asked| *asked == Asked::Dropped { agent: 0, phase_running: true });
    error
}

#[test]
fn an_agent_killed_in_a_phase_voids_the_run_and_stops_the_others() {
    let error = run_and_lose(&mut Rig::new(), "-KILL");
    let AgentsError::Lost { agent, .. } = &error else { panic!("{error}") };
    assert_eq!(agent, "agent-2");
    let reason = error.void_reason("only");
    assert_eq!((reason.phase.as_str(), reason.rule.as_str()), ("only", "agent_lost"));
    assert!(reason.detail.contains("agent-2"), "{}", reason.detail);
    assert!(!reason.detail.contains("silent"), "noticed at once: {}", reason.detail);
}

#[test]
fn an_agent_that_hangs_is_lost_once_it_was_silent_for_too_long() {
    let error = run_and_lose(&mut Rig::new(), "-STOP").to_string();
    let silent_s = error.strip_prefix("agent agent-2 lost: agent-2: silent for ");
    let silent_s = silent_s.and_then(|rest| rest.strip_suffix(" s")?.parse::<u64>().ok());
    assert!(silent_s.is_some_and(|silent_s| silent_s >= SILENT_S_MAX), "{error}");
}

#[test]
fn a_lost_agent_below_relays_is_named_above() {
    let mut rig = Rig::new();
    // A relay whose agent cannot be reached stands for one whose agent has gone.
    let leaf = rig.agent("a0", ProcessClock::start());
    let gone = Serving {
        place: Place::Remote(RemoteAgent { name: "a1".into(), address: "127.0.0.1:1".into() }),
        address: leaf.address,
        gate: leaf.gate.clone(),
    };
    let bottom = rig.relay("bottom", ProcessClock::start(), &[&leaf, &gone]);
    let top = rig.relay("top", ProcessClock::start(), &[&bottom]);
    let error = rig.gather(&[&top]).err().expect("a1 is not there").to_string();
    assert!(error.starts_with("agent top: agent bottom: agent a1: 127.0.0.1:1: "), "{error}");
    // And a load that fails, through both.
    let bottom = rig.relay("bottom-2", ProcessClock::start(), &[&leaf]);
    let top = rig.relay("top-2", ProcessClock::start(), &[&bottom]);
    let mut agents = rig.gather(&[&top]).expect("gathered");
    let error = agents.prepare(&plan("impossible", 2, 1.0), &[target(TARGET)], &subject());
    let error = error.expect_err("it cannot").to_string();
    assert_eq!(error, "agent top-2: agent bottom-2: agent a0: users: none can be made");
}

#[test]
fn a_relay_lets_its_agents_go_when_the_coordinator_vanishes() {
    let mut rig = Rig::new();
    let leaf = rig.agent("a0", ProcessClock::start());
    let top = rig.relay("top", ProcessClock::start(), &[&leaf]);
    let mut agents = rig.gather(&[&top]).expect("gathered");
    agents.prepare(&plan("endless", 2, 3_600.0), &[target(TARGET)], &subject()).expect("prepared");
    agents.measure_clocks().expect("measured");
    agents.start_phase(0, agents.clock.now_us() + 2_000_000, 3_600.0).expect("told");
    rig.await_asked(|asked| matches!(asked, Asked::Began { .. }));
    drop(agents);
    rig.await_asked(|asked| *asked == Asked::Dropped { agent: 0, phase_running: true });
}

#[test]
fn a_coordinator_speaks_only_to_the_agent_it_means() {
    let mut rig = Rig::new();
    let refused = |rig: &Rig, files: TrustFiles, name: &str| {
        let serving = rig.agent_with(name, files, |_| {});
        rig.gather(&[&serving]).err().expect("refused").to_string()
    };
    let named = |names: &[&str], expired: bool| {
        let names = names.iter().map(ToString::to_string).collect();
        Unusual { names, expired }
    };
    let own_name = agent_own_name("a1");
    let as_agent = [AGENT_ROLE, own_name.as_str()];

    let usurper =
        test_identities::add(&mut rig.authority, "usurper", &named(&[COORDINATOR_ROLE, &own_name], false));
    let error = refused(&rig, usurper, "a1");
    assert!(error.contains("not valid for name") && error.contains(AGENT_ROLE), "{error}");
    let by_use = rig.coordinator.clone();
    let error = refused(&rig, by_use, "a1");
    assert!(error.starts_with("agent a1: ") && error.contains("invalid peer certificate"), "{error}");
    let expired = test_identities::add(&mut rig.authority, "expired", &named(&as_agent, true));
    let error = refused(&rig, expired, "a1");
    assert!(error.contains("expired"), "{error}");
    let other = rig.authority.add(Role::Agent, "a2").expect("an identity");
    let error = refused(&rig, other, "a1");
    assert!(error.contains("a1.agents.ringline-bench"), "{error}");

    let elsewhere = tempfile::tempdir().expect("a folder");
    let mut foreign = Authority::open(elsewhere.path(), Duration::from_secs(3_600)).expect("an authority");
    let foreign = foreign.add(Role::Agent, "a1").expect("an identity");
    let error = refused(&rig, foreign, "a1");
    assert!(error.contains("BadSignature") || error.contains("UnknownIssuer"), "{error}");
    assert!(rig.asked.is_empty(), "none of them was given work");

    let own = rig.authority.add(Role::Agent, "a1").expect("an identity");
    let serving = rig.agent_with("a1", own, |_| {});
    rig.gather(&[&serving]).expect("the right one");
}

#[test]
fn lists_of_agents_are_checked() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("agents.toml");
    let read = |text: &str| {
        std::fs::write(&path, text).expect("written");
        read_agents_file(&path).map_err(|error| error.to_string())
    };
    let places = read("[[agent]]\nname = \"a1\"\naddress = \"10.0.0.5:7700\"\n").expect("a list");
    let expected = RemoteAgent { name: "a1".into(), address: "10.0.0.5:7700".into() };
    assert_eq!(places, [Place::Remote(expected)]);
    let one = "[[agent]]\nname = \"a1\"\naddress = \"h:1\"\n";
    assert!(read(&one.repeat(2)).expect_err("twice").contains("a1 is listed twice"));
    assert!(read("[[agent]]\nname = \"a1\"\n").expect_err("no address").contains("agents.toml"));
    assert!(read(&format!("{one}cpu = 1\n")).expect_err("unknown").contains("cpu"));
    assert!(read("agent = []").expect_err("none").contains("0 agents"));
}

#[test]
fn local_agents_are_told_their_bounds() {
    let local = LocalAgents {
        agents: 3,
        cpus: vec![1, 3],
        targets: vec!["127.0.0.1:443".into()],
        sources: vec!["127.0.0.2".parse().expect("an address")],
        connections_max: Some(9),
    };
    let places = local_agents(std::path::Path::new("/bin/bench"), &local);
    let arguments = |index: usize| match &places[index] {
        Place::Child(child) => child.arguments.join(" "),
        Place::Remote(_) => panic!("a child"),
    };
    let expected = "agent --child --target 127.0.0.1:443 --source 127.0.0.2 --connections-max 9 --cpu ";
    assert_eq!([0, 1, 2].map(arguments), [1, 3, 1].map(|cpu| format!("{expected}{cpu}")));
    let parsed = crate::agent::service::AgentOptions::parse(
        &arguments(0).split(' ').skip(1).map(ToOwned::to_owned).collect::<Vec<_>>(),
        1_024,
    );
    let parsed = parsed.expect("its own command line");
    assert_eq!((parsed.cpu, parsed.connections_max, parsed.targets), (Some(1), 9, local.targets));
}

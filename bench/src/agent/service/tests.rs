//! What an agent refuses, and what stops its load: really over TLS on loopback.

use super::fake::Asked;
use crate::coordinator::agents::rig::*;
use crate::coordinator::control::authority::test_identities::{self, Unusual};
use crate::coordinator::control::authority::{Authority, Role};
use crate::coordinator::control::clocks::ProcessClock;
use crate::coordinator::control::gate::HANDSHAKES_MAX;
use crate::coordinator::control::messages::{CONTROL_MESSAGE_BYTES_MAX, FromAgent, ToAgent};
use crate::coordinator::control::tls::{self, HANDSHAKE_S_MAX};
use crate::coordinator::control::trust::{
    AGENT_ROLE, COORDINATOR_ROLE, CoordinatorTrust, Refusal, TrustFiles,
};
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

fn session_of(files: &TrustFiles) -> ClientConnection {
    CoordinatorTrust::read(files).expect("readable").session().expect("a session")
}

fn session_without_certificate(rig: &Rig) -> ClientConnection {
    let mut roots = RootCertStore::empty();
    let authority = rustls::pki_types::CertificateDer::from_pem_file(&rig.coordinator.authority);
    roots.add(authority.expect("readable")).expect("a certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]);
    let config = config.expect("TLS 1.3").with_root_certificates(roots).with_no_client_auth();
    ClientConnection::new(Arc::new(config), ServerName::try_from(AGENT_ROLE).expect("a name"))
        .expect("a session")
}

#[test]
fn only_a_coordinator_of_the_authority_is_let_in() {
    let mut rig = Rig::new();
    let agent = rig.agent("a0", ProcessClock::start());
    let elsewhere = tempfile::tempdir().expect("a folder");
    let mut other = Authority::open(elsewhere.path(), Duration::from_secs(3_600)).expect("an authority");
    let mut foreign = other.add(Role::Coordinator, "coordinator").expect("an identity");
    foreign.authority.clone_from(&rig.coordinator.authority);
    let mut unusual = |name: &str, role: &str, expired: bool| {
        let names = vec![role.to_owned()];
        test_identities::add(&mut rig.authority, name, &Unusual { names, expired })
    };
    let expired = unusual("expired", COORDINATOR_ROLE, true);
    let by_name = unusual("by-name", AGENT_ROLE, false);
    let by_use = rig.authority.add(Role::Agent, "a1").expect("an identity");
    let cases = [
        (Refusal::NoCertificate, session_without_certificate(&rig)),
        (Refusal::ForeignAuthority, session_of(&foreign)),
        (Refusal::Expired, session_of(&expired)),
        (Refusal::WrongRole, session_of(&by_name)),
        (Refusal::WrongRole, session_of(&by_use)),
    ];
    let mut counted = 0;
    for (refusal, session) in cases {
        let before = agent.gate.refusals().get(&refusal).copied().unwrap_or(0);
        let mut refused = RawCoordinator::connect(agent.address, session);
        // Work that comes with the handshake must not be looked at; it may find the connection gone.
        let _ = refused.writer.send(&prepare_message(&plan("any", 2, 1.0)));
        let words = refused.receive();
        // The end follows the alert once the refusal was counted.
        let _ = refused.receive();
        assert!(words.is_err(), "{refusal:?}: {words:?}");
        assert_eq!(agent.gate.refusals().get(&refusal), Some(&(before + 1)), "{refusal:?}");
        counted += 1;
    }
    let mut plain = TcpStream::connect(agent.address).expect("it listens");
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("sent");
    // An alert, then the end.
    plain.read_to_end(&mut Vec::new()).expect("closed");
    assert_eq!(agent.gate.refusals().get(&Refusal::Handshake), Some(&1));
    assert_eq!(agent.gate.refusals().values().sum::<u64>(), counted + 1);
    assert!(rig.asked.is_empty(), "no load was made for any of them");

    let mut welcome = RawCoordinator::connect(agent.address, session_of(&rig.coordinator));
    assert!(matches!(welcome.receive(), Ok(Some(FromAgent::Hello { agents: 1, .. }))));
    assert_eq!(welcome.ask(&prepare_message(&plan("any", 2, 1.0))), FromAgent::Prepared);
}

#[test]
fn handshakes_are_few_at_a_time_and_take_no_longer_than_they_may() {
    let mut rig = Rig::new();
    let agent = rig.agent("a0", ProcessClock::start());
    // One byte of a record's head, and then nothing.
    let connect = |_| {
        let mut socket = TcpStream::connect(agent.address).expect("it listens");
        socket.write_all(&[22]).expect("sent");
        socket
    };
    let silent: Vec<TcpStream> = (0..HANDSHAKES_MAX).map(connect).collect();
    let mut one_more = TcpStream::connect(agent.address).expect("it listens");
    one_more.set_read_timeout(Some(Duration::from_secs(HANDSHAKE_S_MAX / 2))).expect("settable");
    assert_eq!(one_more.read(&mut [0; 1]).expect("dropped unheard, at once"), 0);
    assert_eq!(agent.gate.refusals().get(&Refusal::TooMany), Some(&1));
    for mut socket in silent {
        socket.set_read_timeout(Some(4 * SOON)).expect("settable");
        // A reset where our byte was never read.
        assert!(matches!(socket.read(&mut [0; 1]), Ok(0) | Err(_)));
    }
    assert_eq!(agent.gate.refusals().get(&Refusal::TimedOut), Some(&(HANDSHAKES_MAX as u64)));
    rig.gather(&[&agent]).expect("there is room again");
}

#[test]
fn a_second_coordinator_is_told_busy_and_served_later() {
    let mut rig = Rig::new();
    let agent = rig.agent("a0", ProcessClock::start());
    let mut first = rig.gather(&[&agent]).expect("gathered");
    let error = rig.gather(&[&agent]).err().expect("busy").to_string();
    assert!(error.starts_with("agent a0: busy: serves the coordinator at 127.0.0.1:"), "{error}");
    assert_eq!(agent.gate.refusals().get(&Refusal::Busy), Some(&1));
    first.prepare(&plan("any", 2, 1.0), &[target(TARGET)], &subject()).expect("the first one goes on");
    first.finish().expect("let go");
    rig.gather(&[&agent]).expect("the seat is free");
}

#[test]
fn plans_beyond_the_command_line_are_refused_before_a_load_is_made() {
    let mut rig = Rig::new();
    let agent = rig.agent("a0", ProcessClock::start());
    let refused = |plan_name: &str, users: u32, targets: &[&str]| {
        let mut agents = rig.gather(&[&agent]).expect("gathered");
        let targets: Vec<_> = targets.iter().map(|address| target(address)).collect();
        let refused = agents.prepare(&plan(plan_name, users, 1.0), &targets, &subject());
        refused.expect_err("refused").to_string()
    };
    assert_eq!(
        refused("any", 2, &[TARGET, "192.0.2.1:443"]),
        "agent a0: target 192.0.2.1:443 is not one of those this agent was started for"
    );
    assert_eq!(refused("any", 10, &[TARGET]), "agent a0: 10 connections for this agent, which may hold 8");
    assert!(refused("any", 2, &[]).contains("0 targets"));
    assert!(rig.asked.is_empty(), "no load was made");
    assert_eq!(refused("impossible", 2, &[TARGET]), "agent a0: users: none can be made");
}

#[test]
fn the_load_stops_at_once_when_the_coordinator_vanishes() {
    let mut rig = Rig::new();
    let agent = rig.agent("a0", ProcessClock::start());
    let clock = ProcessClock::start();
    let mut coordinator = RawCoordinator::connect(agent.address, session_of(&rig.coordinator));
    assert!(matches!(coordinator.receive(), Ok(Some(FromAgent::Hello { .. }))));
    assert_eq!(coordinator.ask(&prepare_message(&plan("endless", 2, 3_600.0))), FromAgent::Prepared);
    let FromAgent::Echo { now_us, .. } = coordinator.ask(&ToAgent::Probe { number: 1 }) else {
        panic!("no echo")
    };
    coordinator.writer.send(&ToAgent::Begin { phase: 0, at_us: now_us + 5_000_000 }).expect("sent");
    rig.await_asked(|asked| matches!(asked, Asked::Began { .. }));
    let before_us = clock.now_us();
    drop(coordinator);
    rig.await_asked(|asked| *asked == Asked::Dropped { agent: 0, phase_running: true });
    let took = Duration::from_micros(clock.now_us() - before_us);
    assert!(took < SOON, "{took:?}: not by silence alone");
}

#[test]
fn the_load_stops_when_the_coordinator_falls_silent() {
    let mut rig = Rig::new();
    let agent = rig.agent("a0", ProcessClock::start());
    let mut coordinator = RawCoordinator::connect(agent.address, session_of(&rig.coordinator));
    assert!(matches!(coordinator.receive(), Ok(Some(FromAgent::Hello { .. }))));
    assert_eq!(coordinator.ask(&prepare_message(&plan("endless", 2, 3_600.0))), FromAgent::Prepared);
    // Its socket stays open: what a machine that lost its network looks like.
    let asked = std::iter::from_fn(|| rig.asked.recv_timeout(2 * SOON).ok());
    let dropped = Asked::Dropped { agent: 0, phase_running: false };
    assert!(asked.into_iter().any(|asked| asked == dropped));
    assert!(coordinator.receive().is_err() || coordinator.receive().is_ok_and(|end| end.is_none()));
}

#[test]
fn a_phase_that_does_not_end_is_stopped_after_its_grace() {
    let mut rig = Rig::new();
    let files = rig.authority.add(Role::Agent, "a0").expect("an identity");
    let agent = rig.agent_with("a0", files, |agent| agent.phase_grace_s = 0);
    let mut agents = rig.gather(&[&agent]).expect("gathered");
    agents.prepare(&plan("endless", 2, 0.2), &[target(TARGET)], &subject()).expect("prepared");
    let error = agents.run_phase(0, 0.2, &mut Onlooker::default()).expect_err("stopped").to_string();
    assert_eq!(error, "agent a0: phase 0 had not ended 0 s after its time: stopped");
    rig.await_asked(|asked| *asked == Asked::Dropped { agent: 0, phase_running: true });
}

#[test]
fn an_oversized_message_ends_the_session_and_nothing_else() {
    let mut rig = Rig::new();
    let agent = rig.agent("a0", ProcessClock::start());
    let socket = TcpStream::connect(agent.address).expect("it listens");
    let mut streams = tls::connect(&socket, session_of(&rig.coordinator)).expect("let in").streams;
    let length = u32::try_from(CONTROL_MESSAGE_BYTES_MAX + 1).expect("fits").to_be_bytes();
    streams.writer.write_all(&length).expect("sent");
    // Hello, and the end, although nothing of the message itself was sent.
    streams.reader.read_to_end(&mut Vec::new()).expect("closed with a goodbye");
    rig.gather(&[&agent]).expect("served");
}

#[test]
fn orders_out_of_turn_and_out_of_time_are_refused() {
    let mut rig = Rig::new();
    let agent = rig.agent("a0", ProcessClock::start());
    let prepare = prepare_message(&plan("endless", 2, 1.0));
    let refused = |orders: &[ToAgent]| {
        let mut coordinator = RawCoordinator::connect(agent.address, session_of(&rig.coordinator));
        assert!(matches!(coordinator.receive(), Ok(Some(FromAgent::Hello { .. }))));
        orders.iter().for_each(|order| coordinator.writer.send(order).expect("it reads"));
        loop {
            match coordinator.receive().expect("it answers").expect("before it ends") {
                FromAgent::Failed { detail } => break detail,
                FromAgent::Prepared => {}
                other => panic!("{other:?}"),
            }
        }
    };
    let begin = |phase, at_us| ToAgent::Begin { phase, at_us };
    assert_eq!(refused(&[begin(0, 1)]), "Begin does not fit in while Empty");
    assert_eq!(refused(&[prepare.clone(), begin(1, 1)]), "the plan has no phase 1");
    assert!(refused(&[prepare.clone(), begin(0, 1)]).contains("us before this agent was told"));
    assert!(refused(&[prepare.clone(), begin(0, u64::MAX)]).contains("more than 60 s ahead"));
    assert_eq!(refused(&[ToAgent::Settle]), "Settle does not fit in while Empty");
    // A search prepares again: the old load goes before the new one is made.
    while rig.asked.try_recv().is_ok() {}
    assert!(refused(&[prepare.clone(), prepare.clone(), begin(9, 1)]).contains("no phase 9"));
    let asked: Vec<Asked> = rig.asked.try_iter().collect();
    let prepared = Asked::Prepared { agent: 0, agents: 1 };
    let dropped = Asked::Dropped { agent: 0, phase_running: false };
    let one = [Asked::Made, prepared, dropped];
    assert_eq!(asked, [one.clone(), one].concat());
}

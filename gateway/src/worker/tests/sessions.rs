//! Sessions that fall silent, do not read, or lose their device.

use super::*;
use crate::session::outbox::SLOW_READER_MS;
use crate::session::timers::TIMER_SLOT_MS;
use wire_protocol::error::RequestError;
use wire_protocol::internal::{RemoveDevice, SessionAddress, command, delivery};
use wire_protocol::limits::{
    HEARTBEAT_S_MIN, HEARTBEATS_MISSED_MAX, HELLO_TIMEOUT_MS, OUTBOX_BYTES_MAX, REQUEST_TIMEOUT_MS,
};
use wire_protocol::v1::ErrorCode;
use wire_protocol::v1::session_closing::Reason;

/// Silence after which a session with the shortest heartbeat is dead, in milliseconds.
const SILENCE_MS: u64 = 1_000 * HEARTBEAT_S_MIN as u64 * HEARTBEATS_MISSED_MAX as u64;

fn delivery(attach: &ShardRequest, event: delivery::Event) -> Delivery {
    Delivery { sessions: vec![address(attach)], conversation_id: vec![3; 16].into(), event: Some(event) }
}

fn address(attach: &ShardRequest) -> SessionAddress {
    match &attach.operation {
        Some(shard_request::Operation::Attach(attach)) => attach.session.expect("always named"),
        other => panic!("{other:?}"),
    }
}

fn message(seq: u64, bytes: usize) -> delivery::Event {
    delivery::Event::Entry(v1::Entry { seq, body: vec![1; bytes].into(), ..Default::default() })
}

fn command_of(request: &ShardRequest) -> Option<&command::Kind> {
    match &request.operation {
        Some(shard_request::Operation::Command(command)) => command.kind.as_ref(),
        _ => None,
    }
}

fn detached(request: &ShardRequest) -> Option<SessionAddress> {
    match &request.operation {
        Some(shard_request::Operation::Detach(detach)) => detach.session,
        _ => None,
    }
}

#[test]
fn a_session_that_falls_silent_is_ended_and_one_that_pings_is_not() {
    run(|mut rig| {
        let (mut silent, attach) = rig.greet(1, HEARTBEAT_S_MIN);
        rig.answer(attach.id, Ok(attached(true)));
        rig.serve_until(&mut silent, "ready", |client| client.ready.is_some());
        let mut awake = rig.connect_with_heartbeat(2, HEARTBEAT_S_MIN);
        let start_ms = rig.now_ms;
        while rig.now_ms < start_ms + SILENCE_MS - TIMER_SLOT_MS {
            rig.pass_ms(TIMER_SLOT_MS);
            let before = rig.metric(Metric::FramesReceived);
            awake.notify(client_frame::Body::Ping(v1::Ping {}));
            rig.core.publish();
            rig.turn_until("the ping is heard", |rig| {
                rig.core.publish();
                rig.metric(Metric::FramesReceived) > before
            });
        }
        silent.pump();
        assert_eq!(silent.closing, None, "three heartbeats have not passed");
        // As often as a loop that sleeps until something is due.
        for _ in 0..2 {
            assert!(rig.core.next_deadline_ms() <= rig.now_ms + TIMER_SLOT_MS);
            rig.pass_ms(TIMER_SLOT_MS);
        }
        rig.serve_until(&mut silent, "the end", |client| client.is_over);
        assert_eq!(silent.closing.map(|closing| closing.reason()), Some(Reason::Idle));
        assert_eq!(detached(&rig.next_request()), Some(address(&attach)), "its home shard hears of it");
        awake.pump();
        assert!(!awake.is_over && awake.closing.is_none());
    });
}

#[test]
fn a_proof_whose_time_is_over_opens_nothing() {
    run(|mut rig| {
        let config = AuthConfig::default();
        let access = rig.access_token(1);
        let mut client = rig.connect(1);
        let resume = client.ready.take().expect("it is ready").resume_token;
        drop(client);
        rig.turn_until("the session is gone", |rig| rig.core.sessions.native_count() == 0);
        rig.link.borrow_mut().requests.clear();
        for (proof, ttl_s) in [
            (access, config.token_ttl_s),
            (Proof::ResumeToken(resume), config.resume_ttl_s - config.token_ttl_s),
        ] {
            rig.pass_ms(1_000 * ttl_s);
            let mut late = rig.hello(proof, 0);
            rig.serve_until(&mut late, "the end", |client| client.is_over);
            let closing = late.closing.expect("a reason");
            assert_eq!(
                (closing.reason(), closing.code()),
                (Reason::Unauthenticated, ErrorCode::ErrorTokenExpired)
            );
        }
        rig.assert_no_request();
    });
}

#[test]
fn a_device_that_its_home_shard_does_not_know_is_refused() {
    run(|mut rig| {
        let (mut client, attach) = rig.greet(1, 0);
        rig.answer(attach.id, Ok(attached(false)));
        rig.serve_until(&mut client, "the end", |client| client.is_over);
        assert_eq!(client.closing.map(|closing| closing.reason()), Some(Reason::Unauthenticated));
        assert!(client.ready.is_none());
        assert_eq!(rig.metric(Metric::SessionsReady), 0);
    });
}

/// A benchmark user that nobody knows has said hello; the commands that make it.
fn greet_benchmark_user(rig: &mut Rig) -> (Client, [ShardRequest; 2]) {
    let proof = rig.benchmark_token();
    let client = rig.hello(proof, 0);
    let attach = rig.next_request();
    rig.answer(attach.id, Ok(attached(false)));
    (client, [rig.next_request(), rig.next_request()])
}

#[test]
fn a_benchmark_user_is_let_in_once_both_it_and_its_device_are_stored() {
    run(|mut rig| {
        let (mut client, [user, device]) = greet_benchmark_user(&mut rig);
        assert!(matches!(command_of(&user), Some(command::Kind::CreateUser(_))), "{user:?}");
        assert!(matches!(command_of(&device), Some(command::Kind::AddDevice(_))), "{device:?}");
        rig.answer(user.id, Ok(accepted()));
        rig.turn();
        rig.assert_no_request();
        rig.answer(device.id, Ok(accepted()));
        let attach = rig.next_request();
        assert!(matches!(attach.operation, Some(shard_request::Operation::Attach(_))), "{attach:?}");
        rig.answer(attach.id, Ok(attached(true)));
        rig.serve_until(&mut client, "ready", |client| client.ready.is_some());
    });
}

#[test]
fn a_benchmark_user_that_is_not_stored_is_refused_in_time() {
    run(|mut rig| {
        let (mut refused, [user, device]) = greet_benchmark_user(&mut rig);
        rig.answer(user.id, Ok(accepted()));
        rig.answer(device.id, Err(RequestError::new(ErrorCode::ErrorUnavailable, "away").after_ms(300)));
        rig.serve_until(&mut refused, "the end", |client| client.is_over);
        let closing = refused.closing.expect("a reason");
        assert_eq!((closing.reason(), closing.retry_after_ms), (Reason::Overloaded, 300));
        rig.link.borrow_mut().requests.clear();

        let (mut unanswered, _) = greet_benchmark_user(&mut rig);
        rig.pass_ms(REQUEST_TIMEOUT_MS + 2 * TIMER_SLOT_MS);
        rig.serve_until(&mut unanswered, "the end", |client| client.is_over);
        assert_eq!(unanswered.closing.map(|closing| closing.reason()), Some(Reason::Overloaded));
        assert!(rig.core.pending.is_empty());
    });
}

#[test]
fn large_frames_are_taken_from_who_has_said_hello() {
    run(|mut rig| {
        let mut client = rig.connect(1);
        client.request(client_frame::Body::Send(v1::SendMessage {
            conversation_id: vec![3; 16].into(),
            client_message_id: 1,
            body: vec![b'x'; 16_000].into(),
            ..Default::default()
        }));
        assert!(matches!(rig.next_request().operation, Some(shard_request::Operation::Command(_))));
        client.write(&vec![0; FRAME_BYTES_MAX + 1]);
        rig.serve_until(&mut client, "the end", |client| client.is_over);
        let closing = client.closing.expect("a reason");
        assert_eq!(
            (closing.reason(), closing.code()),
            (Reason::ProtocolError, ErrorCode::ErrorFrameTooLarge)
        );
    });
}

#[test]
fn a_hello_that_storage_does_not_answer_is_refused_in_time() {
    run(|mut rig| {
        let (mut client, attach) = rig.greet(1, 0);
        rig.pass_ms(REQUEST_TIMEOUT_MS - TIMER_SLOT_MS);
        client.pump();
        assert!(client.closing.is_none() && !client.is_over);
        rig.pass_ms(2 * TIMER_SLOT_MS);
        rig.serve_until(&mut client, "the end", |client| client.is_over);
        assert_eq!(client.closing.as_ref().map(|closing| closing.reason()), Some(Reason::Overloaded));
        assert_eq!(detached(&rig.next_request()), Some(address(&attach)), "it may have been attached");
        // The answer comes after all, and finds nobody.
        rig.answer(attach.id, Ok(attached(true)));
        rig.turn();
        assert_eq!(rig.metric(Metric::LateAnswers), 1);
    });
}

#[test]
fn a_hello_that_storage_refuses_names_when_to_come_again() {
    run(|mut rig| {
        let away = RequestError::new(ErrorCode::ErrorUnavailable, "away").after_ms(300);
        let (mut answered, attach) = rig.greet(1, 0);
        rig.answer(attach.id, Err(away.clone()));
        rig.serve_until(&mut answered, "the end", |client| client.is_over);
        let closing = answered.closing.expect("a reason");
        assert_eq!((closing.reason(), closing.retry_after_ms), (Reason::Overloaded, 300));
    });
}

#[test]
fn whoever_does_not_read_live_events_is_ended_in_time() {
    run(|mut rig| {
        let (mut client, attach) = rig.greet(1, 600);
        rig.answer(attach.id, Ok(attached(true)));
        rig.serve_until(&mut client, "ready", |client| client.ready.is_some());
        // Its timer is far off by now.
        rig.pass_ms(HELLO_TIMEOUT_MS + 2 * TIMER_SLOT_MS);
        let mut seq = 0;
        rig.turn_until("events are dropped", |rig| {
            seq += 1;
            rig.deliver(delivery(&attach, message(seq, 16_000)));
            rig.metric(Metric::EventsDropped) > 0
        });
        let slow_at_ms = rig.now_ms;
        while rig.now_ms < slow_at_ms + SLOW_READER_MS - TIMER_SLOT_MS {
            rig.pass_ms(TIMER_SLOT_MS);
        }
        assert_eq!(rig.metric(Metric::SessionsClosed), 0, "it still has time to read");
        rig.pass_ms(2 * TIMER_SLOT_MS);
        assert_eq!(rig.metric(Metric::SessionsClosed), 1);
        assert_eq!(detached(&rig.next_request()), Some(address(&attach)));
        // It has room for the reason beside what it did not read.
        rig.serve_until(&mut client, "the end", |client| client.is_over);
        assert_eq!(client.closing.map(|closing| closing.reason()), Some(Reason::TooSlow));
    });
}

#[test]
fn a_slow_reader_that_reads_in_time_is_told_to_sync_and_stays() {
    run(|mut rig| {
        let (mut client, attach) = rig.greet(1, 600);
        rig.answer(attach.id, Ok(attached(true)));
        rig.serve_until(&mut client, "ready", |client| client.ready.is_some());
        let mut seq = 0;
        rig.turn_until("events are dropped", |rig| {
            seq += 1;
            rig.deliver(delivery(&attach, message(seq, 16_000)));
            rig.metric(Metric::EventsDropped) > 0
        });
        let is_sync = |event: &server_frame::Body| matches!(event, server_frame::Body::SyncNeeded(_));
        rig.serve_until(&mut client, "the hint", |client| client.events.iter().any(is_sync));
        rig.pass_ms(SLOW_READER_MS);
        rig.pass_ms(2 * TIMER_SLOT_MS);
        client.events.clear();
        rig.deliver(delivery(&attach, message(seq + 1, 10)));
        rig.serve_until(&mut client, "a live event again", |client| !client.events.is_empty());
        assert!(client.closing.is_none());
    });
}

#[test]
fn an_outbox_without_room_for_an_error_ends_the_session() {
    run(|mut rig| {
        let (mut client, attach) = rig.greet(1, 600);
        rig.answer(attach.id, Ok(attached(true)));
        rig.serve_until(&mut client, "ready", |client| client.ready.is_some());
        let token = rig.core.sessions.token_at(address(&attach).slot).expect("it is there");
        client.request(read_up_to(1));
        let request = rig.next_request();
        // Filled behind the session's back, to the last bytes.
        rig.turn_until("the kernel takes no more", |rig| {
            while rig.core.clients.send(token, &[0; 1_000]).is_ok() {}
            rig.core.clients.flush(rig.now_ms);
            rig.core.clients.queued_bytes(token) > OUTBOX_BYTES_MAX - 2_000
        });
        while rig.core.clients.send(token, &[0; 1]).is_ok() {}
        rig.answer(request.id, Ok(accepted()));
        rig.turn_until("the session is ended", |rig| {
            rig.link.borrow().requests.iter().any(|request| detached(request).is_some())
        });
    });
}

#[test]
fn a_removed_device_loses_its_session() {
    run(|mut rig| {
        let (mut client, attach) = rig.greet(1, 0);
        rig.answer(attach.id, Ok(attached(true)));
        rig.serve_until(&mut client, "ready", |client| client.ready.is_some());
        rig.deliver(delivery(&attach, delivery::Event::DeviceRemoved(true)));
        rig.serve_until(&mut client, "the end", |client| client.is_over);
        assert_eq!(client.closing.map(|closing| closing.reason()), Some(Reason::Unauthenticated));
    });
}

#[test]
fn a_log_out_is_answered_before_its_session_ends() {
    run(|mut rig| {
        let (mut client, attach) = rig.greet(1, 0);
        rig.answer(attach.id, Ok(attached(true)));
        rig.serve_until(&mut client, "ready", |client| client.ready.is_some());
        let failed = client.request(client_frame::Body::LogOut(v1::LogOut {}));
        let request = rig.next_request();
        rig.answer(request.id, Err(RequestError::new(ErrorCode::ErrorUnavailable, "away")));
        rig.serve_until(&mut client, "the refusal", |client| !client.answers.is_empty());
        assert!(error_of(client.take_answer(failed).expect("the only one")).retryable);
        // Storage tells the sessions of the device before it answers.
        let id = client.request(client_frame::Body::LogOut(v1::LogOut {}));
        let request = rig.next_request();
        let removed = RemoveDevice { user_id: vec![1; 16].into(), device_id: vec![1; 16].into() };
        assert_eq!(command_of(&request), Some(&command::Kind::RemoveDevice(removed)));
        rig.deliver(delivery(&attach, delivery::Event::DeviceRemoved(true)));
        rig.turn();
        rig.answer(request.id, Ok(accepted()));
        rig.serve_until(&mut client, "the end", |client| client.is_over);
        assert_eq!(client.take_answer(id), Some(server_frame::Body::Done(v1::Done {})));
        assert_eq!(client.closing.map(|closing| closing.reason()), Some(Reason::LoggedOut));
    });
}

#[test]
fn a_log_out_that_failed_does_not_keep_a_removed_device() {
    run(|mut rig| {
        let (mut client, attach) = rig.greet(1, 0);
        rig.answer(attach.id, Ok(attached(true)));
        rig.serve_until(&mut client, "ready", |client| client.ready.is_some());
        client.request(client_frame::Body::LogOut(v1::LogOut {}));
        let request = rig.next_request();
        rig.answer(request.id, Err(RequestError::new(ErrorCode::ErrorUnavailable, "away")));
        rig.serve_until(&mut client, "the refusal", |client| !client.answers.is_empty());
        rig.deliver(delivery(&attach, delivery::Event::DeviceRemoved(true)));
        rig.serve_until(&mut client, "the end", |client| client.is_over);
        assert_eq!(client.closing.map(|closing| closing.reason()), Some(Reason::Unauthenticated));
    });
}

#[test]
fn whoever_leaves_is_detached_once() {
    run(|mut rig| {
        let (mut client, attach) = rig.greet(1, 0);
        rig.answer(attach.id, Ok(attached(true)));
        rig.serve_until(&mut client, "ready", |client| client.ready.is_some());
        drop(client);
        assert_eq!(detached(&rig.next_request()), Some(address(&attach)));
        rig.turn_until("the session is gone", |rig| rig.core.sessions.native_count() == 0);
        rig.assert_no_request();
        // One that leaves before storage has answered may have been attached, too.
        let (client, attach) = rig.greet(2, 0);
        drop(client);
        assert_eq!(detached(&rig.next_request()), Some(address(&attach)));
        rig.answer(attach.id, Ok(attached(true)));
        rig.turn();
        assert_eq!(rig.metric(Metric::SessionsReady), 1);
    });
}

//! Requests that storage refuses, forgets or never answers, and the places they take.

use super::*;
use crate::admission::{HEAVY_REQUESTS_MAX, SESSION_REQUESTS_MAX};
use crate::session::timers::TIMER_SLOT_MS;
use crate::worker::leaving::{DRAIN_FLUSH_MS, DRAIN_REQUESTS_MS, Stage};
use crate::worker::mailbox::{CoreMessage, LeaveOrder, ShardKey};
use std::net::Shutdown;
use tokio::sync::oneshot;
use wire_protocol::error::RequestError;
use wire_protocol::internal::{Command, MessageApplied, Query};
use wire_protocol::limits::{OUTBOX_BYTES_MAX, REQUEST_TIMEOUT_MS};
use wire_protocol::v1::ErrorCode;
use wire_protocol::v1::session_closing::Reason;

pub(super) fn send(client_message_id: u64) -> client_frame::Body {
    client_frame::Body::Send(v1::SendMessage {
        conversation_id: vec![3; 16].into(),
        client_message_id,
        body: vec![b'x'; 10].into(),
        ..Default::default()
    })
}

pub(super) fn applied(seq: u64) -> shard_response::Result {
    let kind = outcome::Kind::MessageApplied(MessageApplied { seq, ..Default::default() });
    shard_response::Result::Outcome(Outcome { kind: Some(kind) })
}

fn seq_of(body: Option<server_frame::Body>) -> u64 {
    match body {
        Some(server_frame::Body::Accepted(accepted)) => accepted.seq,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_request_that_storage_does_not_answer_is_answered_in_time() {
    run(|mut rig| {
        let mut client = rig.connect(1);
        let id = client.request(send(1));
        let request = rig.next_request();
        rig.pass_ms(REQUEST_TIMEOUT_MS - TIMER_SLOT_MS);
        client.pump();
        assert_eq!(client.answers, []);
        rig.pass_ms(2 * TIMER_SLOT_MS);
        rig.serve_until(&mut client, "an answer", |client| !client.answers.is_empty());
        let error = error_of(client.take_answer(id).expect("the only one"));
        assert_eq!((error.code(), error.retryable), (ErrorCode::ErrorTimedOut, true));
        assert!(rig.core.pending.is_empty());
        // The outcome comes after all: it is nobody's, not the next request's.
        let id = client.request(send(2));
        let next = rig.next_request();
        rig.answer(request.id, Ok(applied(5)));
        rig.turn();
        rig.answer(next.id, Ok(applied(6)));
        rig.serve_until(&mut client, "an answer", |client| !client.answers.is_empty());
        assert_eq!(seq_of(client.take_answer(id)), 6);
        assert_eq!(rig.metric(Metric::LateAnswers), 1);
    });
}

#[test]
fn a_tick_never_comes_without_its_outcome() {
    run(|mut rig| {
        let mut client = rig.connect(1);
        let refused = outcome::Kind::Refused(wire_protocol::internal::Refused {
            code: ErrorCode::ErrorNotAMember as u32,
            detail: "no".into(),
        });
        let refused = shard_response::Result::Outcome(Outcome { kind: Some(refused) });
        let away = RequestError::new(ErrorCode::ErrorUnavailable, "away").after_ms(77);
        for (result, code) in [
            (Err(away), ErrorCode::ErrorUnavailable),
            (Ok(refused), ErrorCode::ErrorNotAMember),
            (Ok(accepted()), ErrorCode::ErrorInternal),
            (Ok(attached(true)), ErrorCode::ErrorInternal),
        ] {
            let id = client.request(send(1));
            let request = rig.next_request();
            rig.answer(request.id, result);
            rig.serve_until(&mut client, "an answer", |client| !client.answers.is_empty());
            let error = error_of(client.take_answer(id).expect("the only one"));
            assert_eq!(error.code(), code);
            assert_eq!(error.retry_after_ms == 77, code == ErrorCode::ErrorUnavailable);
        }
        assert_eq!(rig.metric(Metric::Acks), 0);
        assert!(rig.core.pending.is_empty());
        let id = client.request(send(1));
        let request = rig.next_request();
        rig.answer(request.id, Ok(applied(4)));
        rig.serve_until(&mut client, "the tick", |client| !client.answers.is_empty());
        assert_eq!((seq_of(client.take_answer(id)), rig.metric(Metric::Acks)), (4, 1));
    });
}

#[test]
fn a_call_that_no_link_takes_is_answered_at_once() {
    run(|mut rig| {
        let mut client = rig.connect(1);
        let full = RequestError::new(ErrorCode::ErrorOverloaded, "full").after_ms(50);
        rig.link.borrow_mut().refusal = Some(full);
        // One call, and one of many.
        let bodies = [
            send(1),
            client_frame::Body::LookUp(v1::LookUpUsers {
                usernames: (0..50).map(|number| format!("user{number}")).collect(),
                ..Default::default()
            }),
        ];
        for body in bodies {
            let id = client.request(body);
            rig.serve_until(&mut client, "an answer", |client| !client.answers.is_empty());
            let error = error_of(client.take_answer(id).expect("the only one"));
            assert_eq!((error.code(), error.retry_after_ms), (ErrorCode::ErrorOverloaded, 50));
        }
        assert!(rig.core.pending.is_empty() && rig.core.calls.is_empty());
        // A hello, too.
        rig.link.borrow_mut().requests.clear();
        let proof = rig.access_token(2);
        let mut stranger = rig.hello(proof, 0);
        rig.serve_until(&mut stranger, "the end", |client| client.is_over);
        let closing = stranger.closing.expect("a reason");
        assert_eq!((closing.reason(), closing.retry_after_ms), (Reason::Overloaded, 50));
    });
}

#[test]
fn a_session_has_as_many_places_as_it_is_given_and_gets_each_back() {
    run(|mut rig| {
        let mut client = rig.connect(1);
        for round in 0..3 {
            for seq in 0..u64::from(SESSION_REQUESTS_MAX) {
                client.notify(read_up_to(seq + 1));
            }
            let all = usize::from(SESSION_REQUESTS_MAX);
            rig.turn_until("all are out", |rig| rig.link.borrow().requests.len() == all);
            let id = client.request(send(1));
            rig.serve_until(&mut client, "a refusal", |client| !client.answers.is_empty());
            let error = error_of(client.take_answer(id).expect("the only one"));
            assert_eq!(error.code(), ErrorCode::ErrorThrottled, "round {round}");
            assert!(error.retryable && error.retry_after_ms > 0);
            let requests = std::mem::take(&mut rig.link.borrow_mut().requests);
            match round {
                // Each way to an end gives its place back.
                0 => requests.iter().for_each(|request| rig.answer(request.id, Ok(accepted()))),
                1 => {
                    let lost = RequestError::new(ErrorCode::ErrorUnavailable, "lost");
                    requests.iter().for_each(|request| rig.answer(request.id, Err(lost.clone())));
                }
                _ => rig.pass_ms(REQUEST_TIMEOUT_MS + 2 * TIMER_SLOT_MS),
            }
            rig.turn();
            assert!(rig.core.pending.is_empty());
        }
        let id = client.request(send(1));
        let request = rig.next_request();
        rig.answer(request.id, Ok(applied(9)));
        rig.serve_until(&mut client, "an answer", |client| !client.answers.is_empty());
        assert_eq!(seq_of(client.take_answer(id)), 9);
    });
}

#[test]
fn large_requests_have_fewer_places_and_invalid_ones_take_none() {
    run(|mut rig| {
        let mut client = rig.connect(1);
        let sync = |cursors| client_frame::Body::Sync(v1::Sync { cursors, ..Default::default() });
        let nothing_named = v1::Sync { named_only: true, ..Default::default() };
        for _ in 0..2 * HEAVY_REQUESTS_MAX {
            let id = client.request(client_frame::Body::Sync(nothing_named.clone()));
            rig.serve_until(&mut client, "a refusal", |client| !client.answers.is_empty());
            let error = error_of(client.take_answer(id).expect("the only one"));
            assert_eq!(error.code(), ErrorCode::ErrorInvalidArgument);
        }
        for _ in 0..HEAVY_REQUESTS_MAX {
            client.request(sync(vec![]));
            rig.next_request();
        }
        let heavy = [
            sync(vec![]),
            client_frame::Body::List(v1::ListConversations::default()),
            client_frame::Body::LookUp(v1::LookUpUsers {
                usernames: vec!["ada".into()],
                ..Default::default()
            }),
        ];
        for body in heavy {
            let id = client.request(body);
            rig.serve_until(&mut client, "a refusal", |client| !client.answers.is_empty());
            let error = error_of(client.take_answer(id).expect("the only one"));
            assert_eq!(error.code(), ErrorCode::ErrorThrottled);
        }
        client.request(send(1));
        assert!(matches!(rig.next_request().operation, Some(shard_request::Operation::Command(_))));
    });
}

/// Leaves a call of the HTTP side; its answer.
fn call_for_http(rig: &mut Rig) -> oneshot::Receiver<StorageResult> {
    let (reply, answer) = oneshot::channel();
    let message = CoreMessage::StorageCall {
        shard_key: ShardKey::Name("ada".into()),
        operation: shard_request::Operation::Query(Query::default()),
        reply,
    };
    assert!(rig.mailbox.send(message).is_ok());
    rig.turn();
    answer
}

#[test]
fn the_http_side_hears_how_each_of_its_calls_ended() {
    run(|mut rig| {
        let mut answered = call_for_http(&mut rig);
        let request = rig.next_request();
        rig.answer(request.id, Ok(accepted()));
        rig.turn();
        assert_eq!(answered.try_recv(), Ok(Ok(accepted())));

        let mut unanswered = call_for_http(&mut rig);
        rig.next_request();
        rig.pass_ms(REQUEST_TIMEOUT_MS + 2 * TIMER_SLOT_MS);
        let error = unanswered.try_recv().expect("told in time").expect_err("no answer");
        assert_eq!(error.code, ErrorCode::ErrorTimedOut);

        let full = RequestError::new(ErrorCode::ErrorOverloaded, "full").after_ms(50);
        rig.link.borrow_mut().refusal = Some(full.clone());
        let mut refused = call_for_http(&mut rig);
        assert_eq!(refused.try_recv(), Ok(Err(full)));
        assert!(rig.core.pending.is_empty());
    });
}

#[test]
fn a_core_that_leaves_finishes_what_is_under_way() {
    run(|mut rig| {
        let mut client = rig.connect(1);
        let id = client.request(send(1));
        let request = rig.next_request();
        assert!(matches!(request.operation, Some(shard_request::Operation::Command(Command { .. }))));
        assert!(rig.mailbox.send(CoreMessage::Drain(LeaveOrder::alone())).is_ok());
        rig.turn();
        rig.turn();
        client.pump();
        assert_eq!(client.closing, None, "the answer is waited for");
        rig.answer(request.id, Ok(applied(2)));
        rig.serve_until(&mut client, "the end", |client| client.is_over);
        assert_eq!(seq_of(client.take_answer(id)), 2);
        let closing = client.closing.take().expect("a reason");
        assert!(closing.reason() == Reason::Draining && closing.retry_after_ms > 0);
    });
}

#[test]
fn a_core_that_leaves_sends_what_it_owes_before_it_is_done() {
    run(|mut rig| {
        let mut client = rig.connect(1);
        let token = rig.core.sessions.token_at(0).expect("the only one");
        // The kernel takes no more, and the rest waits in the outbox.
        rig.turn_until("something is owed", |rig| {
            while rig.core.clients.send(token, &[0; 1_000]).is_ok() {}
            rig.core.clients.flush(rig.now_ms);
            rig.core.clients.queued_bytes(token) > OUTBOX_BYTES_MAX - 2_000
        });
        assert!(rig.mailbox.send(CoreMessage::Drain(LeaveOrder::alone())).is_ok());
        for _ in 0..10 {
            rig.turn();
        }
        assert!(matches!(rig.core.stage, Stage::Flushing { .. }), "{:?}", rig.core.stage);
        assert_eq!(rig.core.serving.load(Ordering::Acquire), 1);
        let mut buffer = vec![0; 1 << 20];
        rig.turn_until("the end", |rig| {
            if !client.is_over && matches!(client.stream.read(&mut buffer), Ok(0)) {
                client.is_over = true;
                client.stream.shutdown(Shutdown::Both).expect("open until now");
            }
            client.is_over && rig.core.stage == Stage::Done
        });
        assert_eq!(rig.core.serving.load(Ordering::Acquire), 0);
    });
}

#[test]
fn a_core_that_leaves_does_not_wait_for_ever() {
    run(|mut rig| {
        let mut client = rig.connect(1);
        client.request(send(1));
        rig.next_request();
        assert!(rig.mailbox.send(CoreMessage::Drain(LeaveOrder::alone())).is_ok());
        rig.turn();
        rig.pass_ms(DRAIN_REQUESTS_MS);
        rig.serve_until(&mut client, "the end", |client| client.is_over);
        assert_eq!(client.closing.map(|closing| closing.reason()), Some(Reason::Draining));
    });
    run(|mut rig| {
        let _silent = rig.connect(1);
        let token = rig.core.sessions.token_at(0).expect("the only one");
        rig.turn_until("something is owed", |rig| {
            while rig.core.clients.send(token, &[0; 1_000]).is_ok() {}
            rig.core.clients.flush(rig.now_ms);
            rig.core.clients.queued_bytes(token) > OUTBOX_BYTES_MAX - 2_000
        });
        assert!(rig.mailbox.send(CoreMessage::Drain(LeaveOrder::alone())).is_ok());
        rig.turn();
        rig.pass_ms(DRAIN_FLUSH_MS - 1);
        assert!(matches!(rig.core.stage, Stage::Flushing { .. }), "{:?}", rig.core.stage);
        rig.pass_ms(1);
        assert_eq!(rig.core.stage, Stage::Done);
    });
}

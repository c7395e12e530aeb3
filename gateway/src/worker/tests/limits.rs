//! Rates of users, conversations and addresses, as clients and storage see them.

use super::*;
use crate::admission::rate::Rate;
use crate::worker::hush::HUSH_MS;
use wire_protocol::internal::{Command, MessageApplied, Refused, command};
use wire_protocol::v1::ErrorCode;

fn limits() -> RequestLimits {
    RequestLimits {
        sends_per_user: Some(Rate::per_second(10, 4)),
        requests_per_user: Some(Rate::per_second(10, 4)),
        sends_per_conversation: Some(Rate::per_second(10, 6)),
        requests_per_address: Some(Rate::per_second(10, 20)),
    }
}

fn send(conversation: u8, number: u64) -> client_frame::Body {
    client_frame::Body::Send(v1::SendMessage {
        conversation_id: vec![conversation; 16].into(),
        client_message_id: number,
        predecessor: number - 1,
        body: vec![b'x'; 10].into(),
        ..Default::default()
    })
}

fn outcome(kind: outcome::Kind) -> StorageResult {
    Ok(shard_response::Result::Outcome(Outcome { kind: Some(kind) }))
}

impl Rig {
    /// Answers the oldest send as applied; its client message id.
    fn apply_next(&mut self, seq: u64) -> u64 {
        let request = self.next_request();
        let Some(shard_request::Operation::Command(Command { kind: Some(command::Kind::SendMessage(sent)) })) =
            request.operation
        else {
            panic!("not a message: {request:?}")
        };
        let applied = MessageApplied { seq, ..Default::default() };
        self.answer(request.id, outcome(outcome::Kind::MessageApplied(applied)));
        sent.client_message_id
    }

    /// Serves until a message is answered as accepted.
    fn accepted(&mut self, client: &mut Client, request_id: u32) {
        self.serve_until(client, "an answer", |client| {
            client.answers.iter().any(|(id, _)| *id == request_id)
        });
        let answer = client.take_answer(request_id);
        assert!(matches!(answer, Some(server_frame::Body::Accepted(_))), "{answer:?}");
    }

    /// The refusal of a request that came too soon.
    fn throttled(&mut self, client: &mut Client, request_id: u32) -> v1::Error {
        self.serve_until(client, "a refusal", |client| {
            client.answers.iter().any(|(id, _)| *id == request_id)
        });
        let error = error_of(client.take_answer(request_id).expect("just seen"));
        assert_eq!((error.code(), error.retryable), (ErrorCode::ErrorThrottled, true), "{error:?}");
        error
    }
}

#[test]
fn a_throttled_message_is_refused_whole_and_goes_through_after_the_wait() {
    run_limited(limits(), |mut rig| {
        let mut client = rig.connect(1);
        let ids: Vec<u32> = (1..=6).map(|number| client.request(send(3, number))).collect();
        for number in 1..=4 {
            assert_eq!(rig.apply_next(number), number);
            rig.accepted(&mut client, ids[number as usize - 1]);
        }
        // The fifth and the sixth came too soon: storage never heard of them, so nothing overtakes.
        for id in [ids[4], ids[5]] {
            let error = rig.throttled(&mut client, id);
            assert_eq!((error.detail.as_str(), error.retry_after_ms), ("user: 10 per second, burst 4", 100));
        }
        rig.assert_no_request();
        assert_eq!(rig.metric(Metric::ThrottledUsers), 2);
        rig.pass_ms(99);
        let id = client.request(send(3, 5));
        assert_eq!(rig.throttled(&mut client, id).retry_after_ms, 1);
        rig.pass_ms(1);
        let again = client.request(send(3, 5));
        let more = client.request(send(3, 6));
        assert_eq!(rig.apply_next(5), 5);
        rig.accepted(&mut client, again);
        rig.throttled(&mut client, more);
        rig.pass_ms(100);
        let last = client.request(send(3, 6));
        assert_eq!(rig.apply_next(6), 6);
        rig.accepted(&mut client, last);
    });
}

#[test]
fn whoever_does_not_mind_refusals_is_not_read_for_a_moment() {
    run_limited(limits(), |mut rig| {
        let (mut client, mut other) = (rig.connect(1), rig.connect(2));
        let ids: Vec<u32> = (1..=14).map(|number| client.request(send(3, number))).collect();
        for number in 1..=4 {
            rig.apply_next(number);
            rig.accepted(&mut client, ids[number as usize - 1]);
        }
        for id in &ids[4..] {
            rig.throttled(&mut client, *id);
        }
        let deaf = client.request(send(3, 15));
        let heard = other.request(send(4, 1));
        rig.apply_next(1);
        rig.accepted(&mut other, heard);
        assert_eq!(rig.metric(Metric::ThrottledUsers), 10, "others are read, it is not");
        rig.pass_ms(HUSH_MS - 1);
        rig.turn();
        assert_eq!(rig.metric(Metric::ThrottledUsers), 10);
        rig.pass_ms(1);
        rig.throttled(&mut client, deaf);
        // Once it has waited it is heard at once.
        rig.pass_ms(100);
        let id = client.request(send(3, 5));
        assert_eq!(rig.apply_next(5), 5);
        rig.accepted(&mut client, id);
    });
}

#[test]
fn a_flood_of_pings_is_not_read_either() {
    run_limited(limits(), |mut rig| {
        let (mut client, mut other) = (rig.connect(1), rig.connect(2));
        // All pings have one id: their answers are counted. Four are within the burst.
        for pongs in 1..=13 {
            client.request(client_frame::Body::Ping(v1::Ping {}));
            rig.serve_until(&mut client, "a pong", |client| client.answers.len() == pongs);
        }
        rig.turn_until("they are counted", |rig| rig.metric(Metric::ThrottledUsers) == 9);
        client.request(client_frame::Body::Ping(v1::Ping {}));
        other.request(client_frame::Body::Ping(v1::Ping {}));
        rig.serve_until(&mut other, "a pong", |client| client.answers.len() == 1);
        rig.pass_ms(HUSH_MS - 1);
        client.pump();
        assert_eq!(client.answers.len(), 13);
        rig.pass_ms(1);
        rig.serve_until(&mut client, "a pong", |client| client.answers.len() == 14);
    });
}

#[test]
fn all_sessions_of_a_user_share_its_rate_and_other_users_do_not() {
    run_limited(limits(), |mut rig| {
        let (mut one, mut two, mut other) = (rig.connect(1), rig.connect(1), rig.connect(2));
        for number in 1..=2 {
            one.request(send(3, number));
            rig.apply_next(number);
            two.request(send(3, 10 + number));
            rig.apply_next(number);
        }
        let id = two.request(send(3, 13));
        rig.throttled(&mut two, id);
        other.request(send(4, 1));
        assert_eq!(rig.apply_next(1), 1);
        // Whoever comes anew is the same user still.
        drop(two);
        let detach = rig.next_request();
        assert!(matches!(detach.operation, Some(shard_request::Operation::Detach(_))), "{detach:?}");
        let mut again = rig.connect(1);
        let id = again.request(send(3, 13));
        rig.throttled(&mut again, id);
        // What is no message has a rate of its own.
        again.request(read_up_to(1));
        rig.next_request();
    });
}

#[test]
fn a_conversation_has_a_rate_that_only_its_members_use() {
    run_limited(limits(), |mut rig| {
        let mut strangers: Vec<Client> = (10..13).map(|number| rig.connect(number)).collect();
        for stranger in &mut strangers {
            for number in 1..=4 {
                stranger.request(send(3, number));
                let request = rig.next_request();
                let refused = Refused { code: ErrorCode::ErrorNotAMember as u32, detail: "no".into() };
                rig.answer(request.id, outcome(outcome::Kind::Refused(refused)));
                rig.turn();
            }
        }
        let (mut one, mut two) = (rig.connect(1), rig.connect(2));
        for number in 1..=4 {
            one.request(send(3, number));
            rig.apply_next(number);
        }
        for number in 1..=2 {
            two.request(send(3, number));
            rig.apply_next(number);
        }
        let id = two.request(send(3, 3));
        assert_eq!(rig.throttled(&mut two, id).detail, "conversation: 10 per second, burst 6");
        assert_eq!(rig.metric(Metric::ThrottledConversations), 1);
        two.request(send(5, 3));
        assert_eq!(rig.apply_next(1), 3, "the refusal took nothing of the user's own");
    });
}

#[test]
fn many_users_of_one_address_share_its_rate() {
    run_limited(limits(), |mut rig| {
        let mut clients: Vec<Client> = (1..=6).map(|number| rig.connect(number)).collect();
        for (conversation, client) in (1..).zip(&mut clients[..5]) {
            for number in 1..=4 {
                client.request(send(conversation, number));
                rig.apply_next(number);
            }
        }
        let last = &mut clients[5];
        let id = last.request(send(9, 1));
        assert_eq!(rig.throttled(last, id).detail, "address: 10 per second, burst 20");
        assert_eq!(rig.metric(Metric::ThrottledAddresses), 1);
        // The same user from elsewhere is not held to it.
        let proof = rig.access_token(6);
        let mut elsewhere = rig.hello_from([127, 0, 0, 2], proof, 0);
        let attach = rig.next_request();
        rig.answer(attach.id, Ok(attached(true)));
        rig.serve_until(&mut elsewhere, "ready", |client| client.ready.is_some());
        elsewhere.request(send(9, 1));
        assert_eq!(rig.apply_next(1), 1);
        let last = &mut clients[5];
        let id = last.request(client_frame::Body::LogOut(v1::LogOut {}));
        let request = rig.next_request();
        rig.answer(request.id, Ok(accepted()));
        rig.serve_until(last, "the answer", |client| client.answers.iter().any(|(of, _)| *of == id));
    });
}

#[test]
fn a_cursor_without_an_answer_that_comes_too_soon_is_counted() {
    run_limited(limits(), |mut rig| {
        let mut client = rig.connect(1);
        (1..=6).for_each(|seq| client.notify(read_up_to(seq)));
        for _ in 1..=4 {
            rig.next_request();
        }
        rig.turn_until("both are counted", |rig| rig.metric(Metric::CursorsDropped) == 2);
        rig.assert_no_request();
    });
}

#[test]
fn a_benchmark_measures_the_server_not_its_limits() {
    run_limited(limits(), |mut rig| {
        let proof = rig.benchmark_token();
        let mut client = rig.hello(proof, 0);
        let attach = rig.next_request();
        rig.answer(attach.id, Ok(attached(true)));
        rig.serve_until(&mut client, "ready", |client| client.ready.is_some());
        for number in 1..=50 {
            client.request(send(3, number));
            assert_eq!(rig.apply_next(number), number);
            rig.serve_until(&mut client, "an answer", |client| client.answers.len() == number as usize);
        }
    });
}

//! Leaving in turns, and letting sessions in at a rate.

use super::*;
use crate::fleet::slots::LeavePlan;
use crate::fleet::{FleetView, Peer};
use crate::worker::leaving::{DRAIN_REQUESTS_MS, Stage};
use crate::worker::mailbox::{CoreMessage, LeaveOrder};
use crate::worker::tests::requests::{applied, send};
use wire_protocol::v1::ErrorCode;
use wire_protocol::v1::session_closing::Reason;

/// Others that admit 20 a second, of which a gateway that leaves uses 10: one in 100 ms.
fn order(window_ms: u64) -> LeaveOrder {
    let peer = |address: &str| Peer { address: address.into(), zone: "".into(), admits_per_s: Some(10) };
    let fleet = FleetView { own: Some(peer("a:1")), others: vec![peer("b:1"), peer("c:1")] };
    LeaveOrder { plan: LeavePlan::new(&fleet, None, window_ms, 1), fleet: Arc::new(fleet) }
}

fn is_told(client: &Client) -> bool {
    client.closing.is_some()
}

#[test]
fn clients_go_one_after_the_other_and_are_served_until_then() {
    run(|mut rig| {
        let mut clients: Vec<_> = (1..=4).map(|number| rig.connect(number)).collect();
        assert!(rig.mailbox.send(CoreMessage::Drain(order(10_000))).is_ok());
        let began_ms = rig.now_ms;
        for (number, client) in clients.iter_mut().enumerate().take(3) {
            let slot_ms = began_ms + number as u64 * 100;
            if number > 0 {
                rig.pass_ms(slot_ms - 1 - rig.now_ms);
                client.pump();
                assert!(!is_told(client), "not before its turn");
                rig.pass_ms(1);
            }
            rig.serve_until(client, "its turn", |client| client.is_over);
            let closing = client.closing.clone().expect("told");
            assert_eq!((closing.reason(), closing.retry_after_ms), (Reason::Draining, 0));
            let user = UserId([number as u8 + 1; 16]);
            let expected: Vec<String> =
                order(0).fleet.ranked_others(user).iter().map(|address| address.to_string()).collect();
            assert_eq!(closing.gateways, expected);
            assert!(
                rig.core.next_deadline_ms() <= began_ms + (number as u64 + 1) * 100,
                "it wakes for the next"
            );
        }
        // The last one has a request under way, and gets its answer first.
        let last = &mut clients[3];
        let id = last.request(send(1));
        let is_command =
            |request: &ShardRequest| matches!(request.operation, Some(shard_request::Operation::Command(_)));
        // Those who have gone are detached.
        let request = std::iter::repeat_with(|| rig.next_request()).find(is_command).expect("without end");
        rig.pass_ms(150);
        last.pump();
        assert!(!is_told(last));
        rig.answer(request.id, Ok(applied(2)));
        rig.turn();
        rig.pass_ms(10);
        rig.serve_until(last, "the end", |client| client.is_over);
        last.take_answer(id);
        drop(clients);
        rig.turn_until("all are gone", |rig| rig.core.stage == Stage::Done);
    });
}

#[test]
fn who_comes_to_a_core_that_leaves_is_sent_on_and_who_is_left_at_the_end_is_told_when() {
    run(|mut rig| {
        let mut clients: Vec<_> = (1..=5).map(|number| rig.connect(number)).collect();
        assert!(rig.mailbox.send(CoreMessage::Drain(order(200))).is_ok());
        rig.turn();
        let mut late = rig.hello(rig.access_token(9), 0);
        rig.serve_until(&mut late, "sent on", is_told);
        let closing = late.closing.take().expect("told");
        assert_eq!(
            (closing.reason(), closing.retry_after_ms, closing.gateways.len()),
            (Reason::Draining, 0, 2)
        );
        // Slots at 0, 100 and 200 ms are served; the window ends, and two are left.
        (0..2).for_each(|_| rig.pass_ms(100));
        rig.pass_ms(1);
        rig.pass_ms(DRAIN_REQUESTS_MS);
        let mut waits = Vec::new();
        for client in &mut clients {
            rig.serve_until(client, "the end", |client| client.is_over);
            waits.push(client.closing.as_ref().expect("told").retry_after_ms);
        }
        assert_eq!(waits, [0, 0, 0, 99, 199]);
    });
}

#[test]
fn who_comes_too_soon_is_told_when_to_come_again_and_is_let_in_then() {
    run_paced(Rate::per_second(10, 2), |mut rig| {
        let _in_time = [rig.connect(1), rig.connect(2)];
        let proof = rig.access_token(3);
        let mut early = rig.hello(proof, 0);
        rig.serve_until(&mut early, "put off", |client| client.is_over);
        let closing = early.closing.take().expect("told");
        assert_eq!((closing.reason(), closing.code()), (Reason::Overloaded, ErrorCode::ErrorOverloaded));
        assert_eq!(closing.retry_after_ms, 1_000);
        assert!(rig.link.borrow().requests.is_empty(), "storage was not asked");
        let mut next = rig.hello(rig.access_token(4), 0);
        rig.serve_until(&mut next, "put off", |client| client.is_over);
        assert_eq!(next.closing.take().expect("told").retry_after_ms, 1_200, "a slot of its own");
        assert_eq!(rig.metric(Metric::SessionsPutOff), 2);
        rig.pass_ms(1_000);
        let _third = rig.connect(3);
        rig.pass_ms(200);
        let _fourth = rig.connect(4);
    });
}

//! Messages of the app on their way out, and the connection below them.

use super::rig::*;
use crate::engine::{
    Action, Failure, NewMessage, Operation, OperationId, Outcome, ProofWanted, SendRefused, Snapshot, Write,
};
use crate::limits::{
    AHEAD_ENTRIES_MAX, ANSWER_MS_MAX, OUTBOX_MESSAGES_MAX, SENDS_IN_FLIGHT_MAX, UNCONFIRMED_MS,
};
use crate::model::{ConnectionState, Event, Refusal};
use wire_protocol::ids::{ClientMessageId, ConversationId, DeviceId};
use wire_protocol::v1::{ErrorCode, client_frame, session_closing::Reason};

#[test]
fn a_message_is_sent_again_under_its_id_until_it_is_answered() {
    let mut rig = Rig::online(1, 1);
    rig.engine.handle_send(rig.now_ms, message(5)).expect("taken");
    assert!(rig.writes.iter().all(|write| !matches!(write, Write::Queued(_))));
    assert_eq!(rig.sends().len(), 1);
    let queued = |write: &Write| matches!(write, Write::Queued(queued) if queued.id == ClientMessageId(5));
    assert!(rig.writes.iter().any(queued), "it is stored with the turn that sends it");
    let attempted = |write: &Write| matches!(write, Write::Attempted { id: ClientMessageId(5), .. });
    assert!(rig.writes.iter().any(attempted), "and so is that it was sent");
    for _ in 0..3 {
        rig.lose_connection();
        rig.connect();
        let sends = rig.sends();
        assert_eq!(sends.iter().map(|(_, id)| *id).collect::<Vec<_>>(), [5]);
    }
    rig.lose_connection();
    rig.connect();
    let (request_id, _) = rig.sends()[0];
    rig.writes.clear();
    rig.accept(request_id, 2);
    assert!(rig.writes.contains(&Write::Unqueued { conversation: ROOM, id: ClientMessageId(5) }));
    let is_entry = |write: &Write| {
        matches!(write, Write::Entry { arrived, .. }
            if arrived.entry.seq == 2 && arrived.link == Some(ClientMessageId(5)))
    };
    assert!(rig.writes.iter().any(is_entry), "it leaves the outbox for the conversation in one transaction");
    rig.lose_connection();
    rig.connect();
    assert_eq!(rig.sends(), []);
}

#[test]
fn a_request_without_an_answer_ends_the_connection_and_is_made_again() {
    let mut rig = Rig::online(1, 1);
    rig.engine.handle_send(rig.now_ms, message(5)).expect("taken");
    assert_eq!(rig.sends().len(), 1);
    let started_ms = rig.now_ms;
    while rig.now_ms < started_ms + ANSWER_MS_MAX - 1_000 {
        // The server is alive: it answers pings, but not the request.
        rig.advance(1_000);
        assert_eq!(rig.sends(), []);
        assert!(!rig.actions.contains(&Action::Disconnect), "after {} ms", rig.now_ms - started_ms);
    }
    rig.advance(1_000);
    assert!(rig.actions.contains(&Action::Disconnect));
    rig.connect();
    assert_eq!(rig.sends().iter().map(|(_, id)| *id).collect::<Vec<_>>(), [5]);
}

#[test]
fn nothing_of_an_old_connection_is_sent_on_a_new_one() {
    let mut rig = Rig::online(1, 1);
    rig.engine.handle_send(rig.now_ms, message(5)).expect("taken");
    rig.settle();
    // The payload is there, but the connection breaks before the driver takes it.
    rig.engine.handle_disconnected(rig.now_ms);
    assert_eq!(rig.engine.poll_payload(), None);
    rig.connect();
    assert_eq!(rig.sends().len(), 1);
}

#[test]
fn a_refused_message_is_the_user_s_to_retry_or_to_drop() {
    let mut rig = Rig::online(1, 1);
    for id in [5, 6] {
        rig.engine.handle_send(rig.now_ms, message(id)).expect("taken");
    }
    let (first, _) = rig.sends()[0];
    rig.refuse(first, ErrorCode::ErrorInvalidArgument);
    let id = ClientMessageId(5);
    let refusal = Refusal::Server { code: ErrorCode::ErrorInvalidArgument, detail: "test".into() };
    assert!(rig.writes.contains(&Write::Refused { conversation: ROOM, id, refusal: refusal.clone() }));
    assert!(rig.events.contains(&Event::Refused { conversation: ROOM, client_message_id: id, refusal }));
    rig.lose_connection();
    rig.connect();
    assert_eq!(rig.sends().iter().map(|(_, id)| *id).collect::<Vec<_>>(), [6], "not by itself");

    rig.writes.clear();
    rig.engine.handle_retry(rig.now_ms, message(5)).expect("taken");
    rig.engine.handle_retry(rig.now_ms, message(5)).expect("once is enough");
    assert_eq!(rig.sends().iter().map(|(_, id)| *id).collect::<Vec<_>>(), [5]);
    let outbox: Vec<bool> = rig
        .writes
        .iter()
        .filter_map(|write| match write {
            Write::Unqueued { id: ClientMessageId(5), .. } => Some(false),
            Write::Queued(message) if message.id == id => Some(true),
            _ => None,
        })
        .collect();
    assert_eq!(outbox, [false, true], "its old row makes room for the new one");

    rig.writes.clear();
    rig.engine.handle_discard(rig.now_ms, ROOM, id);
    rig.lose_connection();
    rig.connect();
    assert_eq!(rig.sends().iter().map(|(_, id)| *id).collect::<Vec<_>>(), [6]);
    assert!(rig.writes.contains(&Write::Unqueued { conversation: ROOM, id }));
}

#[test]
fn what_may_be_stored_twice_waits_for_the_user() {
    let outbox = vec![
        stored(1, Some(NOW - UNCONFIRMED_MS - 60_000)),
        stored(2, Some(NOW - UNCONFIRMED_MS + 3_600_000)),
        stored(3, None),
    ];
    let mut rig = Rig::new(Snapshot { outbox, ..snapshot(conversation(1, 1)) });
    rig.connect();
    assert_eq!(rig.sends().iter().map(|(_, id)| *id).collect::<Vec<_>>(), [2, 3]);
    let (conversation, id, refusal) = (ROOM, ClientMessageId(1), Refusal::Unconfirmed);
    assert!(rig.writes.contains(&Write::Refused { conversation, id, refusal: refusal.clone() }));
    assert!(rig.events.contains(&Event::Refused { conversation, client_message_id: id, refusal }));
    // The age is that of the first attempt, however often it was repeated.
    rig.lose_connection();
    rig.advance(3_700_000);
    rig.connect();
    assert_eq!(rig.sends().iter().map(|(_, id)| *id).collect::<Vec<_>>(), [3]);
}

#[test]
fn a_full_outbox_and_an_unknown_conversation_take_nothing() {
    let mut rig = Rig::new(snapshot(conversation(1, 1)));
    let elsewhere = NewMessage { conversation: ConversationId([77; 16]), ..message(1) };
    assert_eq!(rig.engine.handle_send(NOW, elsewhere), Err(SendRefused::UnknownConversation));
    for id in 1..=OUTBOX_MESSAGES_MAX as u64 {
        rig.engine.handle_send(NOW, message(id)).expect("there is room");
    }
    rig.settle();
    rig.writes.clear();
    assert_eq!(rig.engine.handle_send(NOW, message(u64::MAX)), Err(SendRefused::OutboxFull));
    rig.settle();
    assert_eq!(rig.writes, []);
}

#[test]
fn a_logged_out_device_stops_and_says_so() {
    let mut rig = Rig::online(1, 1);
    rig.operate(1, Operation::Refresh { conversation: ROOM }, 30_000);
    rig.operate(2, Operation::LogOut, 30_000);
    rig.close(Reason::LoggedOut);
    assert!(rig.actions.contains(&Action::LoggedOut));
    assert!(rig.writes.contains(&Write::ResumeToken(None)));
    let failed = (OperationId(1), Outcome::Failed(Failure::LoggedOut));
    assert_eq!(rig.outcomes, [failed, (OperationId(2), Outcome::Done)]);
    assert_eq!(rig.events.last(), Some(&Event::Connection(ConnectionState::LoggedOut)));
    rig.actions.clear();
    rig.advance(3_600_000);
    assert_eq!(rig.actions, []);
    rig.operate(3, Operation::Refresh { conversation: ROOM }, 30_000);
    assert_eq!(rig.outcomes.last(), Some(&(OperationId(3), Outcome::Failed(Failure::LoggedOut))));
}

#[test]
fn the_session_of_another_device_is_not_used() {
    let mut rig = Rig::new(snapshot(conversation(1, 1)));
    rig.engine.handle_send(NOW, message(5)).expect("taken");
    rig.connect_as(DeviceId([66; 16]));
    assert!(rig.actions.contains(&Action::Disconnect));
    assert_eq!(rig.engine.poll_payload(), None);
    let is_token = |write: &Write| matches!(write, Write::ResumeToken(Some(_)));
    assert!(!rig.writes.iter().any(is_token));
}

#[test]
fn the_next_connection_begins_with_the_resume_token() {
    let mut rig = Rig::online(1, 1);
    assert!(rig.writes.contains(&Write::ResumeToken(Some("resume".into()))));
    rig.lose_connection();
    assert_eq!(rig.connect(), ProofWanted::Resume("resume".into()));
}

#[test]
fn an_operation_survives_connections_but_not_its_deadline() {
    let mut rig = Rig::online(1, 1);
    let gets = |rig: &mut Rig| {
        let requests = rig.requests().into_iter();
        requests.filter(|(_, body)| matches!(body, client_frame::Body::Get(_))).count()
    };
    rig.operate(1, Operation::Refresh { conversation: ROOM }, 120_000);
    assert_eq!(gets(&mut rig), 1);
    rig.lose_connection();
    rig.connect();
    assert_eq!(gets(&mut rig), 1, "asked again");
    assert_eq!(rig.outcomes, []);
    rig.lose_connection();
    rig.advance(120_000);
    assert_eq!(rig.outcomes, [(OperationId(1), Outcome::Failed(Failure::TimedOut))]);
    rig.connect();
    assert_eq!(gets(&mut rig), 0);
}

#[test]
fn requests_of_an_earlier_connection_are_not_waited_for() {
    let mut rig = Rig::online(1, 1);
    rig.operate(1, Operation::Refresh { conversation: ROOM }, ANSWER_MS_MAX / 2);
    assert_eq!(rig.requests().len(), 1);
    rig.lose_connection();
    rig.advance(ANSWER_MS_MAX / 2);
    assert_eq!(rig.outcomes.len(), 1, "nobody waits for it any more");
    rig.connect();
    rig.actions.clear();
    for _ in 0..ANSWER_MS_MAX / 1_000 + 2 {
        rig.advance(1_000);
        assert_eq!(rig.requests(), []);
    }
    assert_eq!(rig.actions, [], "nor does the new connection");
}

#[test]
fn a_conversation_with_too_much_accepted_before_a_gap_sends_no_more() {
    let mut rig = Rig::online(1, 1);
    let most = AHEAD_ENTRIES_MAX as u64;
    for id in 1..=most + 50 {
        rig.engine.handle_send(rig.now_ms, message(id)).expect("taken");
    }
    let mut accepted = 0;
    loop {
        let sends = rig.sends();
        if sends.is_empty() {
            break;
        }
        for (request_id, id) in sends {
            accepted += 1;
            // Far above the window: what is between is not here yet.
            rig.accept(request_id, 1_000 + id);
        }
    }
    let in_flight = SENDS_IN_FLIGHT_MAX as u64;
    assert!((most..most + in_flight).contains(&accepted), "{accepted}");
}

#[test]
fn a_broken_order_is_mended_one_message_at_a_time() {
    let mut rig = Rig::online(1, 1);
    for id in 1..=3 {
        rig.engine.handle_send(rig.now_ms, message(id)).expect("taken");
    }
    let sends = rig.sends();
    assert_eq!(sends.len(), 3);
    rig.refuse(sends[0].0, ErrorCode::ErrorUnavailable);
    rig.refuse(sends[1].0, ErrorCode::ErrorPredecessorMissing);
    rig.refuse(sends[2].0, ErrorCode::ErrorPredecessorMissing);
    rig.advance(11_000);
    let again = rig.sends();
    assert_eq!(again.iter().map(|(_, id)| *id).collect::<Vec<_>>(), [1]);
    rig.accept(again[0].0, 2);
    assert_eq!(rig.sends().iter().map(|(_, id)| *id).collect::<Vec<_>>(), [2, 3]);
}

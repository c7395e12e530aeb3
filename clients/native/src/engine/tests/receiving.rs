//! What comes from the server: pushes, pages and answers, whatever is missing between them, and what is reported.

use super::rig::*;
use crate::engine::timeline::Arrived;
use crate::engine::writes::StoredConversation;
use crate::engine::{Operation, Snapshot, Write};
use crate::limits::SYNC_REFRESH_MS;
use crate::model::{ConnectionState, Event};
use bytes::Bytes;
use wire_protocol::ids::{ClientMessageId, ConversationId, Seq};
use wire_protocol::v1::{self, ErrorCode, client_frame, server_frame};

fn history(rig: &mut Rig) -> Option<(u32, u64)> {
    rig.requests().into_iter().find_map(|(request_id, body)| match body {
        client_frame::Body::History(history) => Some((request_id, history.after_seq)),
        _ => None,
    })
}

fn page(from: u64, to: u64, head_seq: u64) -> server_frame::Body {
    server_frame::Body::HistoryPage(v1::HistoryPage {
        handle: 0,
        conversation_id: ROOM.to_bytes(),
        entries: (from..=to).map(entry).collect(),
        head_seq,
    })
}

fn syncs(rig: &mut Rig) -> Vec<u32> {
    let requests = rig.requests().into_iter();
    requests.filter(|(_, body)| matches!(body, client_frame::Body::Sync(_))).map(|(id, _)| id).collect()
}

fn last_page(version: u64) -> server_frame::Body {
    server_frame::Body::SyncPage(v1::SyncPage { conversations: vec![], version, more: false })
}

#[test]
fn delivered_is_never_told_beyond_a_gap() {
    let mut rig = Rig::online(2, 2);
    rig.push(pushed(5));
    let requests = rig.requests();
    let delivered = |(_, body): &(u32, client_frame::Body)| matches!(body, client_frame::Body::Delivered(_));
    assert!(!requests.iter().any(delivered), "{requests:?}");
    assert!(!rig.events.iter().any(|event| matches!(event, Event::Message(_))), "nor is it shown");
    let gap = |requests: &[(u32, client_frame::Body)]| {
        requests.iter().find_map(|(request_id, body)| match body {
            client_frame::Body::History(history) => Some((*request_id, history.after_seq)),
            _ => None,
        })
    };
    let reported = |requests: &[(u32, client_frame::Body)]| {
        requests.iter().find_map(|(request_id, body)| match body {
            client_frame::Body::Delivered(delivered) => Some((*request_id, delivered.seq)),
            _ => None,
        })
    };
    let (request_id, after_seq) = gap(&requests).expect("the gap is asked for");
    assert_eq!(after_seq, 2);
    // Part of what is missing.
    rig.answer(request_id, page(3, 3, 5));
    let requests = rig.requests();
    let (report_id, seq) = reported(&requests).expect("what is here now is reported");
    assert_eq!(seq, 3, "and no more than that");
    let (request_id, after_seq) = gap(&requests).expect("the rest is asked for");
    assert_eq!(after_seq, 3);
    rig.answer(request_id, page(4, 5, 5));
    rig.answer(report_id, server_frame::Body::Done(v1::Done {}));
    assert_eq!(reported(&rig.requests()).map(|(_, seq)| seq), Some(5));
    let seqs = rig.events.iter().filter_map(|event| match event {
        Event::Message(message) => Some(message.seq.0),
        _ => None,
    });
    assert_eq!(seqs.collect::<Vec<_>>(), [3, 4, 5]);
    assert!(rig.writes.contains(&Write::Window { conversation: ROOM, low: 1, high: 5, head: 5 }));
}

#[test]
fn a_gap_is_asked_for_until_it_is_filled() {
    let mut rig = Rig::online(2, 2);
    rig.push(pushed(5));
    let (request_id, _) = history(&mut rig).expect("the gap is asked for");
    // A replica behind the one that pushed.
    rig.answer(request_id, page(3, 2, 2));
    assert_eq!(history(&mut rig), None, "not at once");
    rig.advance(11_000);
    let (request_id, after_seq) = history(&mut rig).expect("once more");
    assert_eq!(after_seq, 2);
    // A page, and there is more.
    rig.answer(request_id, page(3, 3, 5));
    let (request_id, after_seq) = history(&mut rig).expect("the next page");
    assert_eq!(after_seq, 3);
    rig.lose_connection();
    rig.connect();
    assert_eq!(history(&mut rig).map(|(_, after_seq)| after_seq), Some(3), "on the next connection");
    assert_ne!(request_id, 0);
}

#[test]
fn a_gap_of_an_earlier_life_is_asked_for() {
    let mut rig = Rig::online(2, 5);
    assert_eq!(history(&mut rig).map(|(_, after_seq)| after_seq), Some(2));
}

#[test]
fn what_an_earlier_life_did_not_report_is_reported() {
    let behind = StoredConversation { delivered_confirmed: 1, read_up_to: 2, ..conversation(4, 9) };
    let mut rig = Rig::new(snapshot(behind));
    rig.connect();
    let reports = |rig: &mut Rig| -> Vec<(u32, bool, u64)> {
        let requests = rig.requests().into_iter();
        let report = |(request_id, body)| match body {
            client_frame::Body::Delivered(cursor) => Some((request_id, false, cursor.seq)),
            client_frame::Body::Read(cursor) => Some((request_id, true, cursor.seq)),
            _ => None,
        };
        requests.filter_map(report).collect()
    };
    let found = reports(&mut rig);
    assert_eq!(found.iter().map(|report| (report.1, report.2)).collect::<Vec<_>>(), [(true, 2)]);
    rig.answer(found[0].0, server_frame::Body::Done(v1::Done {}));
    let found = reports(&mut rig);
    assert_eq!(found.iter().map(|report| (report.1, report.2)).collect::<Vec<_>>(), [(false, 4)]);
    rig.writes.clear();
    rig.answer(found[0].0, server_frame::Body::Done(v1::Done {}));
    assert_eq!(rig.writes, [Write::Confirmed { conversation: ROOM, delivered: 4, read: 2 }]);
    rig.lose_connection();
    rig.connect();
    assert_eq!(reports(&mut rig), []);
}

#[test]
fn nothing_is_read_that_is_not_here() {
    let mut rig = Rig::online(2, 9);
    rig.requests();
    rig.writes.clear();
    rig.engine.handle_read(rig.now_ms, ROOM, Seq(1_000));
    let read = rig.requests().into_iter().find_map(|(_, body)| match body {
        client_frame::Body::Read(read) => Some(read.seq),
        _ => None,
    });
    assert_eq!(read, Some(2));
    assert_eq!(rig.writes, [Write::ReadUpTo { conversation: ROOM, seq: 2 }]);
    rig.engine.handle_read(rig.now_ms, ROOM, Seq(1));
    assert_eq!(rig.requests().len(), 0, "it never falls");
}

#[test]
fn what_the_user_read_elsewhere_is_read_here() {
    let mut rig = Rig::online(4, 4);
    rig.requests();
    let receipt = |member, read_up_to| {
        let (handle, conversation_id, delivered_up_to) = (0, ROOM.to_bytes(), 4);
        let event = v1::ReceiptEvent { handle, conversation_id, member, delivered_up_to, read_up_to };
        server_frame::Body::Receipt(event)
    };
    rig.push(receipt(1, 4));
    let (conversation, delivered) = (ROOM, 4);
    assert!(rig.writes.contains(&Write::Receipt { conversation, member: 1, delivered, read: 4 }));
    let is_read = |write: &Write| matches!(write, Write::ReadUpTo { .. });
    assert!(!rig.writes.iter().any(is_read), "that was somebody else");
    rig.push(receipt(0, 3));
    assert!(rig.writes.contains(&Write::ReadUpTo { conversation, seq: 3 }));
    assert!(rig.events.contains(&Event::ConversationChanged(ROOM)));
    assert_eq!(rig.requests(), [], "the other device has told the server");
}

#[test]
fn a_conversation_that_is_not_here_is_asked_for_when_it_speaks() {
    let mut rig = Rig::online(1, 1);
    rig.requests();
    let conversation_id = ConversationId([88; 16]).to_bytes();
    rig.push(server_frame::Body::Message(v1::MessageEvent {
        handle: 0,
        conversation_id: conversation_id.clone(),
        entry: Some(entry(40)),
    }));
    let [(_, client_frame::Body::Get(get))] = &rig.requests()[..] else { panic!("one request") };
    assert_eq!(get.conversation_id, conversation_id);
}

#[test]
fn a_hint_to_sync_is_followed_even_during_a_sync() {
    let mut rig = Rig::online(1, 1);
    rig.requests();
    let hint = || server_frame::Body::SyncNeeded(v1::SyncNeeded {});
    rig.push(hint());
    let first = syncs(&mut rig);
    assert_eq!(first.len(), 1);
    rig.push(hint());
    assert!(syncs(&mut rig).is_empty(), "one at a time");
    rig.answer(first[0], last_page(VERSION));
    let second = syncs(&mut rig);
    assert_eq!(second.len(), 1, "what came during the round may not be in it");
    rig.answer(second[0], last_page(VERSION));
    assert!(syncs(&mut rig).is_empty());
}

#[test]
fn a_sync_goes_on_from_page_to_page_and_stores_how_far_it_is() {
    let mut rig = Rig::new(snapshot(conversation(1, 1)));
    rig.feed_version = VERSION + 9;
    rig.connect();
    let is_version = |write: &Write| matches!(write, Write::FeedVersion(_));
    assert!(!rig.writes.iter().any(is_version), "nothing was caught up with yet");
    let first = syncs(&mut rig);
    let page = v1::SyncPage { conversations: vec![], version: VERSION + 4, more: true };
    rig.answer(first[0], server_frame::Body::SyncPage(page));
    assert!(rig.writes.contains(&Write::FeedVersion(VERSION + 4)));
    let second = rig.requests();
    let [(request_id, client_frame::Body::Sync(sync))] = &second[..] else { panic!("{second:?}") };
    assert_eq!(sync.since_version, VERSION + 4);
    assert_eq!(rig.engine.connection(), Some(ConnectionState::Syncing));
    rig.answer(*request_id, last_page(VERSION + 9));
    assert!(rig.writes.contains(&Write::FeedVersion(VERSION + 9)));
    assert_eq!(rig.engine.connection(), Some(ConnectionState::Online));
}

#[test]
fn a_quiet_session_syncs_once_in_a_while() {
    let mut rig = Rig::online(1, 1);
    assert!(syncs(&mut rig).is_empty());
    let mut found = Vec::new();
    let started_ms = rig.now_ms;
    for _ in 0..2 * SYNC_REFRESH_MS / 10_000 + 10 {
        rig.advance(10_000);
        for request_id in syncs(&mut rig) {
            found.push(rig.now_ms - started_ms);
            rig.answer(request_id, last_page(VERSION));
        }
    }
    assert_eq!(found, [SYNC_REFRESH_MS, 2 * SYNC_REFRESH_MS]);
}

#[test]
fn a_sync_waits_for_the_answers_that_tell_which_entries_are_ours() {
    let outbox = vec![stored(2, Some(NOW - 1_000))];
    let mut rig = Rig::new(Snapshot { outbox, ..snapshot(conversation(1, 1)) });
    rig.feed_version = VERSION + 1;
    rig.connect();
    let requests = rig.requests();
    let [(request_id, client_frame::Body::Send(_))] = &requests[..] else { panic!("{requests:?}") };
    rig.accept(*request_id, 2);
    assert_eq!(syncs(&mut rig).len(), 1);
}

#[test]
fn a_page_of_a_sync_is_shown_and_its_entries_are_not_asked_for_again() {
    let mut rig = Rig::new(snapshot(conversation(1, 1)));
    rig.feed_version = VERSION + 1;
    rig.connect();
    let [request_id] = syncs(&mut rig)[..] else { panic!("one sync") };
    let facts =
        v1::Conversation { conversation_id: ROOM.to_bytes(), head_seq: 3, ..v1::Conversation::default() };
    let entries = vec![entry(2), entry(3)];
    let delta = v1::ConversationDelta { conversation: Some(facts), entries, truncated: false };
    let page = v1::SyncPage { conversations: vec![delta], version: VERSION + 1, more: false };
    rig.answer(request_id, server_frame::Body::SyncPage(page));
    let shown = rig.events.iter().filter(|event| matches!(event, Event::Message(_))).count();
    assert_eq!(shown, 2);
    assert_eq!(history(&mut rig), None);
}

#[test]
fn a_further_page_names_the_conversations_of_the_pages_before() {
    let mut rig = Rig::new(snapshot(conversation(3, 3)));
    rig.feed_version = VERSION + 1;
    rig.connect();
    let requests = rig.requests();
    let [(request_id, client_frame::Body::Sync(sync))] = &requests[..] else { panic!("{requests:?}") };
    assert_eq!(sync.cursors, [], "the server starts where this device last confirmed");
    let facts =
        v1::Conversation { conversation_id: ROOM.to_bytes(), head_seq: 3, ..v1::Conversation::default() };
    let delta = v1::ConversationDelta { conversation: Some(facts), ..v1::ConversationDelta::default() };
    let page = v1::SyncPage { conversations: vec![delta], version: VERSION, more: true };
    rig.answer(*request_id, server_frame::Body::SyncPage(page));
    let requests = rig.requests();
    let [(_, client_frame::Body::Sync(sync))] = &requests[..] else { panic!("{requests:?}") };
    assert_eq!(sync.cursors.iter().map(|cursor| cursor.after_seq).collect::<Vec<_>>(), [3]);
}

#[test]
fn a_refused_sync_waits_before_it_is_tried_again() {
    let mut rig = Rig::new(snapshot(conversation(1, 1)));
    rig.feed_version = VERSION + 1;
    rig.connect();
    let mut longest_ms = 0;
    for _ in 0..8 {
        let refused_ms = rig.now_ms;
        let request_id = loop {
            if let [request_id] = syncs(&mut rig)[..] {
                break request_id;
            }
            assert!(rig.now_ms < refused_ms + 20_000, "it comes again");
            rig.advance(10);
        };
        longest_ms = longest_ms.max(rig.now_ms - refused_ms);
        rig.refuse(request_id, ErrorCode::ErrorUnavailable);
    }
    assert!(longest_ms > 200, "waits grow: {longest_ms} ms at most");
}

#[test]
fn an_own_message_that_waited_for_others_is_shown_as_own() {
    let link = Some(ClientMessageId(5));
    let own = v1::Entry { seq: 4, sender: 0, body: "mine".into(), ..v1::Entry::default() };
    let ahead = vec![Arrived { entry: own, link }];
    let stored = StoredConversation { ahead, ..conversation(2, 4) };
    let mut rig = Rig::new(snapshot(stored));
    rig.connect();
    rig.push(pushed(3));
    let shown = rig.events.iter().filter_map(|event| match event {
        Event::Message(message) => Some((message.seq.0, message.client_message_id)),
        _ => None,
    });
    assert_eq!(shown.collect::<Vec<_>>(), [(3, None), (4, link)]);
}

#[test]
fn users_with_malformed_ids_are_left_out_of_what_is_stored() {
    let mut rig = Rig::online(1, 1);
    let requests = {
        rig.operate(1, Operation::Refresh { conversation: ROOM }, 30_000);
        rig.requests()
    };
    let [(request_id, client_frame::Body::Get(_))] = &requests[..] else { panic!("{requests:?}") };
    let whole = v1::Member { ordinal: 0, user_id: USER.to_bytes(), ..v1::Member::default() };
    let broken = v1::Member { ordinal: 1, user_id: "short".into(), ..v1::Member::default() };
    let facts = v1::Conversation {
        conversation_id: ROOM.to_bytes(),
        members: vec![whole.clone(), broken],
        head_seq: 1,
        ..v1::Conversation::default()
    };
    rig.answer(*request_id, server_frame::Body::Conversation(facts));
    assert!(rig.writes.contains(&Write::Members { conversation: ROOM, members: vec![whole] }));

    let user = |id: &[u8], name: &str| {
        let user_id = Bytes::copy_from_slice(id);
        v1::User { user_id, username: name.into(), display_name: name.into() }
    };
    rig.operate(2, Operation::CreateDirect { username: "eve".into() }, 30_000);
    let requests = rig.requests();
    let [(request_id, client_frame::Body::LookUp(_))] = &requests[..] else { panic!("{requests:?}") };
    let eve = user(&[8; 16], "eve");
    let users = vec![user(b"short", "mallory"), eve.clone()];
    rig.answer(*request_id, server_frame::Body::Users(v1::Users { users }));
    assert!(rig.writes.contains(&Write::Users(vec![eve])));
}

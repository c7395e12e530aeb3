//! A server that was restored from a backup.

use super::rig::*;
use crate::engine::{Snapshot, Write};
use crate::model::{Event, Refusal};
use wire_protocol::ids::{ClientMessageId, FEED_VERSION_BITS_OF_ONE_RESTORE};
use wire_protocol::v1::{self, ErrorCode, client_frame, server_frame};

const RESTORED: u64 = (1 << FEED_VERSION_BITS_OF_ONE_RESTORE) + 3;

/// The one sync that is asked for, and from where.
fn sync(rig: &mut Rig) -> (u32, u64) {
    let requests = rig.requests();
    let [(request_id, client_frame::Body::Sync(sync))] = &requests[..] else { panic!("{requests:?}") };
    (*request_id, sync.since_version)
}

/// The room as the server has it: this device has told it to have everything.
fn answer_with_room(rig: &mut Rig, request_id: u32, head_seq: u64) {
    let members = [(0, USER), (1, wire_protocol::ids::UserId([9; 16]))].map(|(ordinal, user)| v1::Member {
        ordinal,
        user_id: user.to_bytes(),
        ..v1::Member::default()
    });
    let facts = v1::Conversation {
        conversation_id: ROOM.to_bytes(),
        head_seq,
        members: members.to_vec(),
        ..v1::Conversation::default()
    };
    let delta = v1::ConversationDelta { conversation: Some(facts), ..v1::ConversationDelta::default() };
    let page = v1::SyncPage { conversations: vec![delta], version: RESTORED, more: false };
    rig.answer(request_id, server_frame::Body::SyncPage(page));
}

fn was_forgotten(rig: &Rig) -> bool {
    rig.writes.contains(&Write::Forgotten) && rig.events.contains(&Event::Restored)
}

#[test]
fn what_it_lost_goes_and_what_it_has_comes_anew() {
    let outbox = vec![stored(2, None)];
    let mut rig = Rig::new(Snapshot { outbox, ..snapshot(conversation(5, 5)) });
    rig.feed_version = RESTORED;
    rig.connect();
    assert!(was_forgotten(&rig));
    let (request_id, since) = sync(&mut rig);
    assert_eq!(since, 0);
    // Entry 4 here was another message there.
    answer_with_room(&mut rig, request_id, 4);
    let requests = rig.requests();
    let history = requests.iter().find_map(|(request_id, body)| match body {
        client_frame::Body::History(history) => Some((*request_id, history.after_seq)),
        _ => None,
    });
    let Some((request_id, 0)) = history else { panic!("the newest ones are asked for: {requests:?}") };
    let is_own = |(_, body): &(u32, client_frame::Body)| matches!(body, client_frame::Body::Send(send) if send.client_message_id == 2);
    assert!(requests.iter().any(is_own), "what waited is sent: {requests:?}");
    let entries = (3..=4).map(entry).collect();
    let page = v1::HistoryPage { handle: 0, conversation_id: ROOM.to_bytes(), entries, head_seq: 4 };
    rig.answer(request_id, server_frame::Body::HistoryPage(page));
    let shown = |event: &Event| match event {
        Event::Message(message) => Some(message.seq.0),
        _ => None,
    };
    assert_eq!(rig.events.iter().filter_map(shown).collect::<Vec<_>>(), [3, 4]);
    rig.push(pushed(5));
    assert_eq!(rig.events.iter().filter_map(shown).last(), Some(5), "a new message with a lost one's number");
    let forgotten = |rig: &Rig| rig.writes.iter().filter(|write| **write == Write::Forgotten).count();
    rig.lose_connection();
    rig.connect();
    assert_eq!(forgotten(&rig), 1, "once");
}

#[test]
fn a_connection_that_outlived_the_restore_ends() {
    let mut rig = Rig::online(5, 5);
    rig.push(server_frame::Body::SyncNeeded(v1::SyncNeeded {}));
    let (request_id, since) = sync(&mut rig);
    assert_eq!(since, VERSION);
    answer_with_room(&mut rig, request_id, 4);
    assert!(was_forgotten(&rig));
    assert!(!rig.writes.contains(&Write::FeedVersion(RESTORED)), "nothing of the page was taken");
    rig.feed_version = RESTORED;
    rig.connect();
    assert_eq!(sync(&mut rig).1, 0);
}

#[test]
fn conversations_go_also_if_it_has_none_of_them() {
    let mut rig = Rig::new(snapshot(conversation(5, 5)));
    rig.feed_version = 1 << FEED_VERSION_BITS_OF_ONE_RESTORE;
    rig.connect();
    assert!(was_forgotten(&rig));
    rig.lose_connection();
    rig.writes.clear();
    rig.connect();
    assert!(!was_forgotten(&rig));
}

#[test]
fn a_message_for_a_conversation_that_was_lost_is_refused_by_the_server() {
    let outbox = vec![stored(2, Some(NOW - 1_000))];
    let mut rig = Rig::new(Snapshot { outbox, ..snapshot(conversation(5, 5)) });
    rig.feed_version = RESTORED;
    rig.connect();
    let (request_id, _) = sync(&mut rig);
    let page = v1::SyncPage { conversations: Vec::new(), version: RESTORED, more: false };
    rig.answer(request_id, server_frame::Body::SyncPage(page));
    let sends = rig.sends();
    let [(request_id, 2)] = sends[..] else { panic!("{sends:?}") };
    rig.refuse(request_id, ErrorCode::ErrorNotFound);
    let refusal = rig.events.iter().find_map(|event| match event {
        Event::Refused { client_message_id: ClientMessageId(2), refusal, .. } => Some(refusal.clone()),
        _ => None,
    });
    assert!(matches!(refusal, Some(Refusal::Server { code: ErrorCode::ErrorNotFound, .. })));
}

#[test]
fn other_versions_of_the_same_storage_change_nothing() {
    let mut rig = Rig::new(snapshot(conversation(5, 5)));
    for version in [VERSION + 1, 0] {
        rig.feed_version = version;
        rig.connect();
        rig.lose_connection();
    }
    let mut rig_of_new_device = Rig::new(Snapshot::default());
    rig_of_new_device.feed_version = RESTORED;
    rig_of_new_device.connect();
    assert!(!was_forgotten(&rig) && !was_forgotten(&rig_of_new_device));
}

#[test]
fn it_is_noticed_by_a_device_that_has_no_version_yet() {
    let nothing_restored = Snapshot { feed_version: 0, ..snapshot(conversation(5, 5)) };
    let mut rig = Rig::new(nothing_restored.clone());
    rig.feed_version = 0;
    rig.connect();
    assert!(rig.writes.contains(&Write::Restores(0)));
    rig.lose_connection();
    rig.feed_version = RESTORED;
    rig.connect();
    assert!(was_forgotten(&rig) && rig.writes.contains(&Write::Restores(1)));
    // Also over the end of the process.
    let mut rig = Rig::new(Snapshot { restores: Some(0), ..nothing_restored });
    rig.feed_version = RESTORED;
    rig.connect();
    assert!(was_forgotten(&rig));
}

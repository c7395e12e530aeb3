//! From committed events to attached sessions and change feeds.

use crate::embedded::{Embedded, PATIENCE, SHARDS};
use crate::requests::{
    Person, applied, attach, body, create_user, feed_page, person, read_feed, remove_device, send,
};
use storage_node::worker::DELIVERIES_WAITING_MAX;
use storage_node::{LinkId, clock};
use wire_protocol::ids::{ConversationId, DeviceId};
use wire_protocol::internal::shard_response::Result as Reply;
use wire_protocol::internal::{SessionAddress, SessionAttached, ShardResponse, delivery};

const PHONE: SessionAddress = SessionAddress { slot: 1, generation: 1 };
const PAGE: SessionAddress = SessionAddress { slot: 2, generation: 1 };

fn attached(response: &ShardResponse) -> SessionAttached {
    match &response.result {
        Some(Reply::Attached(attached)) => *attached,
        other => panic!("not attached: {other:?}"),
    }
}

/// Sessions, link and body of every message that was pushed.
fn pushed(node: &Embedded) -> Vec<(LinkId, Vec<SessionAddress>, bytes::Bytes)> {
    let entries = node.deliveries.iter().filter_map(|(link, pushed)| match &pushed.event {
        Some(delivery::Event::Entry(entry)) if entry.seq > 1 => {
            Some((*link, pushed.sessions.clone(), entry.body.clone()))
        }
        _ => None,
    });
    entries.collect()
}

/// The user's feed shows the conversation with this newest entry.
fn feed_shows(node: &mut Embedded, who: Person, conversation: ConversationId, top_seq: u64) -> u64 {
    let started = clock::now();
    let mut version = 0;
    let mut wanted = None;
    while started.elapsed() < PATIENCE {
        let page = feed_page(node.call(read_feed(SHARDS, who, 0)));
        version = page.version;
        wanted = page.rows.into_iter().find(|row| row.conversation_id == conversation.to_bytes());
        if wanted.as_ref().is_some_and(|row| row.top_seq == top_seq) {
            return version;
        }
    }
    panic!("{wanted:?} instead of {top_seq}, version {version}");
}

#[test]
fn messages_reach_attached_sessions_but_not_the_device_that_sent_them() {
    for cores in [1, 2, 3] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut node = Embedded::start(folder.path(), cores);
        let (ada, bob) = (person(1), person(2));
        let conversation = node.pair(ada, bob);
        // Sessions on the last core's link, whatever core their home shards are on.
        let core = cores - 1;
        for (who, session) in [(ada, PHONE), (bob, PAGE)] {
            let id = node.begin(core, attach(SHARDS, who, session));
            assert!(attached(&node.finish(id)).device_known);
        }
        applied(&node.call(send(SHARDS, ada, conversation, 1)));
        applied(&node.call(send(SHARDS, bob, conversation, 1)));
        node.run_until("two pushes", |node| pushed(node).len() >= 2);
        let link = node.links[core];
        let expected = [(link, vec![PAGE], body(ada, 1)), (link, vec![PHONE], body(bob, 1))];
        assert_eq!(pushed(&node), expected, "{cores} cores");
        node.shutdown();
    }
}

#[test]
fn a_closed_link_takes_its_sessions_along_and_an_unknown_device_is_not_attached() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut node = Embedded::start(folder.path(), 2);
    let (ada, bob) = (person(1), person(2));
    let conversation = node.pair(ada, bob);
    let stranger = Person { device: DeviceId([9; 16]), ..bob };
    assert!(!attached(&node.call(attach(SHARDS, stranger, PHONE))).device_known);
    let id = node.begin(1, attach(SHARDS, bob, PAGE));
    assert!(attached(&node.finish(id)).device_known);
    let link = node.links[1];
    node.cores[1].close_link(link);
    node.run_until("the session's end", |node| {
        node.metrics().contains("_sessions{core=\"0\"} 0\n")
            && node.metrics().contains("_sessions{core=\"1\"} 0\n")
    });
    applied(&node.call(send(SHARDS, ada, conversation, 1)));
    feed_shows(&mut node, bob, conversation, 2);
    assert_eq!(pushed(&node), []);
    node.shutdown();
}

#[test]
fn a_removed_device_loses_its_sessions() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut node = Embedded::start(folder.path(), 2);
    let ada = person(1);
    node.call(create_user(SHARDS, ada));
    assert!(attached(&node.call(attach(SHARDS, ada, PHONE))).device_known);
    // The look-up for a second session is under way when the device goes.
    let attaching = node.begin(1, attach(SHARDS, ada, PAGE));
    node.call(remove_device(SHARDS, ada));
    node.finish(attaching);
    assert!(!attached(&node.call(attach(SHARDS, ada, PHONE))).device_known);
    let told = |node: &Embedded| -> Vec<SessionAddress> {
        let removals = node
            .deliveries
            .iter()
            .filter(|(_, pushed)| pushed.event == Some(delivery::Event::DeviceRemoved(true)));
        removals.flat_map(|(_, pushed)| pushed.sessions.clone()).collect()
    };
    node.run_until("the removal", |node| told(node).contains(&PHONE));
    let text = node.metrics();
    assert!(
        text.contains("_sessions{core=\"0\"} 0\n") && text.contains("_sessions{core=\"1\"} 0\n"),
        "{text}"
    );
    node.shutdown();
}

#[test]
fn change_feeds_survive_restarts_and_their_versions_only_grow() {
    let folder = tempfile::tempdir().expect("a folder");
    let (ada, bob) = (person(1), person(2));
    let conversation = ConversationId::direct(ada.user, bob.user);
    let mut version = 0;
    for round in 0..4u64 {
        let mut node = Embedded::start(folder.path(), 1 + (round as usize % 2));
        if round == 0 {
            node.pair(ada, bob);
        } else {
            let found = feed_shows(&mut node, bob, conversation, round + 1);
            assert!(found >= version, "{found} after {version}");
        }
        applied(&node.call(send(SHARDS, ada, conversation, round + 1)));
        version = feed_shows(&mut node, bob, conversation, round + 2);
        match round {
            // A checkpoint passed, or it did not.
            1 => node.run_until("a checkpoint", |node| {
                (0..2).all(|core| {
                    !node.metrics().contains(&format!("feed_rows_dirty{{core=\"{core}\"}} "))
                        || node.metrics().contains(&format!("feed_rows_dirty{{core=\"{core}\"}} 0\n"))
                })
            }),
            2 => {
                node.shutdown();
                continue;
            }
            _ => {}
        }
        drop(node);
    }
}

#[test]
fn pushes_without_room_become_a_demand_to_sync_but_a_removal_gets_through() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut node = Embedded::start(folder.path(), 1);
    let (ada, bob) = (person(1), person(2));
    let conversation = node.pair(ada, bob);
    assert!(attached(&node.call(attach(SHARDS, ada, PHONE))).device_known);
    let mut client_id = 0;
    let is_quiet = |node: &Embedded| {
        let text = node.metrics();
        ["commands_waiting", "commands_in_flight"]
            .iter()
            .all(|level| text.contains(&format!("_{level}{{core=\"0\"}} 0\n")))
    };
    // Nobody takes what comes out.
    while node.metrics().contains("_deliveries_dropped_total{core=\"0\"} 0\n") {
        assert!(client_id < 2 * DELIVERIES_WAITING_MAX as u64, "all of it found room");
        for _ in 0..8_000 {
            client_id += 1;
            node.begin(0, send(SHARDS, bob, conversation, client_id));
        }
        node.cores[0].turn(clock::now_ms());
        while !is_quiet(&node) {
            std::thread::park_timeout(std::time::Duration::from_millis(10));
            node.cores[0].turn(clock::now_ms());
        }
    }
    node.begin(0, remove_device(SHARDS, ada));
    let told = |node: &Embedded, wanted: delivery::Event| {
        let of_kind = node.deliveries.iter().filter(|(_, pushed)| pushed.event.as_ref() == Some(&wanted));
        of_kind.map(|(_, pushed)| pushed.sessions.clone()).collect::<Vec<_>>()
    };
    node.cores[0].turn(clock::now_ms());
    while !is_quiet(&node) {
        std::thread::park_timeout(std::time::Duration::from_millis(10));
        node.cores[0].turn(clock::now_ms());
    }
    node.run_until("both", |node| {
        !told(node, delivery::Event::DeviceRemoved(true)).is_empty()
            && !told(node, delivery::Event::SyncNeeded(true)).is_empty()
    });
    assert_eq!(told(&node, delivery::Event::DeviceRemoved(true)), [[PHONE]]);
    assert_eq!(told(&node, delivery::Event::SyncNeeded(true)), [[PHONE]], "once, for all that it missed");
    node.shutdown();
}

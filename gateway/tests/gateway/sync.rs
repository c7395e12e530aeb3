//! Catching up after being away, history and the list.

use crate::chat::{accepted, created, direct, text};
use crate::client::{Client, Way};
use crate::server::Server;
use bytes::Bytes;
use wire_protocol::v1::{self, client_frame, server_frame};

pub fn page(client: &mut Client, sync: v1::Sync) -> v1::SyncPage {
    match client.ask(client_frame::Body::Sync(sync)) {
        server_frame::Body::SyncPage(page) => page,
        other => panic!("{other:?}"),
    }
}

/// Syncs to the end; entries of each page joined, and the version.
pub fn catch_up(
    client: &mut Client,
    conversation: &Bytes,
    since_version: u64,
    after_seq: u64,
) -> (Vec<v1::Entry>, u64) {
    let (mut version, mut entries) = (since_version, Vec::<v1::Entry>::new());
    loop {
        let after_seq = entries.last().map_or(after_seq, |entry| entry.seq);
        let cursor = v1::SyncCursor { conversation_id: conversation.clone(), after_seq, handle: 0 };
        let page =
            page(client, v1::Sync { since_version: version, cursors: vec![cursor], named_only: false });
        for delta in page.conversations {
            let of = delta.conversation.expect("always told").conversation_id;
            if of == *conversation {
                entries.extend(delta.entries);
            }
        }
        version = page.version;
        if !page.more {
            return (entries, version);
        }
    }
}

#[test]
fn a_device_that_was_away_gets_everything_once_and_in_order() {
    let server = Server::embedded();
    let (ada, bob) = (server.register("ada"), server.register("bob"));
    let mut adas = Client::connect(&server, Way::NativeTls, &ada);
    let conversation = created(adas.ask(direct(&bob))).conversation_id;
    let mut bobs = Client::connect(&server, Way::NativeTls, &bob);
    let (entries, version) = catch_up(&mut bobs, &conversation, 0, 0);
    assert_eq!((entries.len(), entries[0].kind()), (1, v1::EntryKind::Created));
    assert!(version >= bobs.ready.feed_version);
    bobs.drop_connection();
    // More than a page holds: 300 of 200 bytes.
    for number in 1..=300u64 {
        accepted(adas.ask(text(&conversation, number, vec![b'x'; 200])));
    }
    let mut bobs = Client::connect(&server, Way::WebSocket, &bob);
    assert!(bobs.ready.feed_version > version);
    let (entries, newest) = catch_up(&mut bobs, &conversation, version, 1);
    let seqs: Vec<u64> = entries.iter().map(|entry| entry.seq).collect();
    assert_eq!(seqs, (2..=301).collect::<Vec<u64>>());
    // The feed follows the messages in a moment: it may have grown since ready.
    assert!(newest >= bobs.ready.feed_version);
    let mut since_version = newest;
    server.wait_until("nothing is left", || {
        let page = page(&mut bobs, v1::Sync { since_version, ..Default::default() });
        let is_quiet = page.conversations.is_empty() && !page.more && page.version == since_version;
        since_version = page.version;
        is_quiet
    });
}

#[test]
fn history_goes_both_ways_in_pages() {
    let server = Server::embedded();
    let (ada, bob) = (server.register("ada"), server.register("bob"));
    let mut client = Client::connect(&server, Way::NativePlain, &ada);
    let conversation = created(client.ask(direct(&bob))).conversation_id;
    for number in 1..=70u64 {
        accepted(client.ask(text(&conversation, number, number.to_string())));
    }
    let mut history = |before_seq, after_seq, limit| {
        let conversation_id = conversation.clone();
        let history = v1::History { conversation_id, before_seq, after_seq, limit, handle: 0 };
        match client.ask(client_frame::Body::History(history)) {
            server_frame::Body::HistoryPage(page) => {
                assert_eq!(page.head_seq, 71);
                page.entries.iter().map(|entry| entry.seq).collect::<Vec<_>>()
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(history(0, 0, 0), (22..=71).collect::<Vec<u64>>());
    assert_eq!(history(22, 0, 0), (1..=21).collect::<Vec<u64>>());
    assert_eq!(history(22, 0, 3), [19, 20, 21]);
    assert_eq!(history(0, 69, 0), [70, 71]);
    assert_eq!(history(0, 1, 2), [2, 3]);
}

#[test]
fn the_list_shows_newest_first_with_preview_and_unread() {
    let server = Server::embedded();
    let ada = server.register("ada");
    let others: Vec<_> = (0..4).map(|number| server.register(&format!("user{number}"))).collect();
    let mut client = Client::connect(&server, Way::NativePlain, &ada);
    let made: Vec<_> =
        others.iter().map(|other| created(client.ask(direct(other))).conversation_id).collect();
    // Time and conversation, unread, preview. Not in the order in which the conversations were made.
    let mut wanted = Vec::new();
    for place in [2, 0, 3, 1] {
        let mut theirs = Client::connect(&server, Way::NativePlain, &others[place]);
        let begun_ms = theirs.ready.server_time_ms;
        let messages = place as u64 + 1;
        let mut newest_ms = 0;
        for message in 1..=messages {
            let answer = accepted(theirs.ask(text(&made[place], message, format!("{place} {message}"))));
            newest_ms = begun_ms.checked_add_signed(answer.time_delta_ms).expect("a time");
        }
        wanted.push(((newest_ms, made[place].clone()), messages, format!("{place} {messages}")));
    }
    // A quick server takes messages of several conversations in the same millisecond.
    wanted.sort_by(|one, other| other.cmp(one));
    let as_wanted = |one: v1::Conversation| {
        let last = one.last.expect("always");
        let preview = String::from_utf8(last.body.to_vec()).expect("text");
        ((last.time_ms, one.conversation_id), one.unread, preview)
    };
    // The list follows the feeds of all their shards, each of which follows the messages in a moment.
    let mut listed = |limit| list(&mut client, limit).into_iter().map(as_wanted).collect::<Vec<_>>();
    server.wait_until_equal("the list is whole", &wanted, || listed(0));
    assert_eq!(listed(3), wanted);
}

/// All pages.
fn list(client: &mut Client, limit: u32) -> Vec<v1::Conversation> {
    let (mut page_token, mut listed) = (Bytes::new(), Vec::new());
    loop {
        let ask = v1::ListConversations { limit, page_token };
        let server_frame::Body::ConversationPage(page) = client.ask(client_frame::Body::List(ask)) else {
            panic!("no page")
        };
        listed.extend(page.conversations);
        if page.next.is_empty() {
            return listed;
        }
        page_token = page.next;
    }
}

//! Storage nodes that go away and come back: errors are retryable, sessions stay, and live delivery heals.

use crate::chat::{accepted, accepted_at_last, created, direct, live, refused, text};
use crate::client::{Client, Way};
use crate::nodes::Cluster;
use crate::server::{Account, Server};
use bytes::Bytes;
use wire_protocol::ids::{ConversationId, UserId};
use wire_protocol::v1::{self, client_frame, server_frame};

/// Node (0 or 1) of a shard of four.
fn home(account: &Account) -> u32 {
    UserId::from_hex(&account.user_id).expect("an id").slot().shard(4).0 / 2
}

fn node_of(conversation: &Bytes) -> u32 {
    ConversationId::from_slice(conversation).expect("an id").slot().shard(4).0 / 2
}

/// Accounts until there are two with their home at this node.
fn two_at(server: &Server, node: u32) -> [Account; 2] {
    let mut found = (0..).map(|number| server.register(&format!("user{node}{number}")));
    [(); 2].map(|()| found.find(|account| home(account) == node).expect("half of all"))
}

#[test]
fn a_node_that_comes_back_is_found_and_sessions_live_on() {
    let mut cluster = Cluster::start();
    let server = cluster.gateway();
    let [ada, bob] = two_at(&server, 1);
    let mut adas = Client::connect(&server, Way::NativeTls, &ada);
    let mut bobs = Client::connect(&server, Way::WebSocket, &bob);
    let conversation = created(adas.ask(direct(&bob))).conversation_id;
    let before = accepted(adas.ask(text(&conversation, 1, "before"))).seq;
    while live(&mut bobs).1 != before {}
    cluster.kill_node(1);
    server.wait_until("the loss is seen", || server.get(server.plain, "/v1/health/ready").0 == 503);
    // The conversation may be on either node; the list is at home, which is away.
    let list = client_frame::Body::List(v1::ListConversations::default());
    let error = refused(adas.ask(list.clone()));
    assert!(error.retryable && error.retry_after_ms > 0, "{error:?}");
    match adas.ask(text(&conversation, 2, "meanwhile")) {
        server_frame::Body::Accepted(_) => assert_eq!(node_of(&conversation), 0),
        other => {
            let error = refused(other);
            assert!(error.retryable, "{error:?}");
            assert_eq!(node_of(&conversation), 1);
        }
    }
    // Nobody new is let in, and may come again later.
    let proof = wire_protocol::session::Proof::AccessToken(ada.access_token.clone());
    let closing = Client::hello(&server, Way::NativePlain, proof).wait_for_end().expect("a reason");
    assert_eq!(closing.reason(), v1::session_closing::Reason::Overloaded);
    assert!(closing.retry_after_ms > 0);

    cluster.start_node(1);
    for client in [&mut adas, &mut bobs] {
        client.event_with(|event| matches!(event, server_frame::Body::SyncNeeded(_)).then_some(()));
    }
    // The same message again: stored once, whatever became of the first try. Its shard may be up later than the homes'.
    let seq = accepted_at_last(&mut adas, &text(&conversation, 2, "meanwhile")).seq;
    assert_eq!(seq, before + 1);
    let seq = accepted(adas.ask(text(&conversation, 3, "after"))).seq;
    assert_eq!(seq, before + 2);
    while live(&mut bobs).1 != seq {}
    let (entries, _) = crate::sync::catch_up(&mut bobs, &conversation, 0, 1);
    let bodies: Vec<_> = entries.iter().map(|entry| entry.body.clone()).collect();
    assert_eq!(bodies, ["before", "meanwhile", "after"]);
    assert!(matches!(adas.ask(list), server_frame::Body::ConversationPage(_)));
}

#[test]
fn two_gateways_deliver_to_each_others_sessions() {
    let cluster = Cluster::start();
    let (one, other) = (cluster.gateway(), cluster.gateway());
    let (ada, bob) = (one.register("ada"), one.register("bob"));
    // Each gateway has keys of its own here; so each account logs in where it connects.
    let bob_there = other.log_in("bob");
    assert_eq!(bob.user_id, bob_there.user_id);
    let mut adas = Client::connect(&one, Way::NativeTls, &ada);
    let mut bobs = Client::connect(&other, Way::WebSocket, &bob_there);
    let conversation = created(adas.ask(direct(&bob))).conversation_id;
    for number in 1..=20u64 {
        accepted(adas.ask(text(&conversation, number, "there")));
        accepted(bobs.ask(text(&conversation, number, "and back")));
    }
    let seqs = |client: &mut Client| (0..20).map(|_| live(client).1).collect::<Vec<u64>>();
    assert_eq!(seqs(&mut bobs), (2..=40).step_by(2).collect::<Vec<u64>>());
    assert_eq!(seqs(&mut adas), (3..=41).step_by(2).collect::<Vec<u64>>());
}

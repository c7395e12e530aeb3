//! Sessions that a storage node has forgotten hear again.

use super::*;
use crate::session::table::address_of;
use crate::worker::mailbox::ShardKey;
use wire_protocol::error::RequestError;
use wire_protocol::internal::{SessionAddress, delivery};
use wire_protocol::limits::REQUEST_TIMEOUT_MS;
use wire_protocol::v1::ErrorCode;
use wire_protocol::v1::session_closing::Reason;

/// More than two turns announce.
const CROWD: usize = 600;

fn link_lost_and_back(rig: &mut Rig) {
    rig.link.borrow_mut().is_down = true;
    rig.tell(StorageEvent::LinkDown(LinkIndex(0)));
    rig.turn();
    rig.link.borrow_mut().is_down = false;
    rig.tell(StorageEvent::LinkUp(LinkIndex(0)));
    rig.turn();
}

/// Waits until storage was asked to attach a session.
fn next_attach(rig: &mut Rig) -> (u64, SessionAddress) {
    let request = rig.next_request();
    match request.operation {
        Some(shard_request::Operation::Attach(attach)) => (request.id, attach.session.expect("always named")),
        other => panic!("{other:?}"),
    }
}

/// Turns as the loop would, with its sleeps, until it has nothing to announce.
fn announce_all(rig: &mut Rig) {
    while let Some(at_ms) = rig.core.announcements.next_deadline_ms() {
        rig.now_ms = rig.now_ms.max(at_ms);
        rig.turn();
    }
}

fn wait_for_hint(rig: &mut Rig, client: &mut Client) {
    rig.serve_until(client, "sync needed", |client| {
        client.events.iter().any(|event| matches!(event, server_frame::Body::SyncNeeded(_)))
    });
    client.events.clear();
}

#[test]
fn sessions_are_announced_again_and_told_to_sync() {
    run(|mut rig| {
        let (mut first, mut second) = (rig.connect(1), rig.connect(2));
        link_lost_and_back(&mut rig);
        for _ in 0..2 {
            let (id, _) = next_attach(&mut rig);
            rig.answer(id, Ok(attached(true)));
        }
        wait_for_hint(&mut rig, &mut first);
        wait_for_hint(&mut rig, &mut second);
        rig.assert_no_request();
        // Storage says that it dropped what was for any session of the link.
        rig.deliver(Delivery { event: Some(delivery::Event::SyncNeeded(true)), ..Default::default() });
        for _ in 0..2 {
            let (id, _) = next_attach(&mut rig);
            rig.answer(id, Ok(attached(true)));
        }
        wait_for_hint(&mut rig, &mut first);
        wait_for_hint(&mut rig, &mut second);
        // One session that lost something is told so by name.
        let here = 0..rig.core.sessions.place_count();
        let sessions = here.filter_map(|slot| rig.core.sessions.token_at(slot)).map(address_of).collect();
        let event = Some(delivery::Event::SyncNeeded(true));
        rig.deliver(Delivery { sessions, event, ..Default::default() });
        wait_for_hint(&mut rig, &mut first);
        wait_for_hint(&mut rig, &mut second);
        rig.assert_no_request();
    });
}

#[test]
fn a_device_that_was_removed_meanwhile_is_ended() {
    run(|mut rig| {
        let mut client = rig.connect(1);
        link_lost_and_back(&mut rig);
        let (id, _) = next_attach(&mut rig);
        rig.answer(id, Ok(attached(false)));
        rig.serve_until(&mut client, "the end", |client| client.is_over);
        assert_eq!(client.closing.map(|closing| closing.reason()), Some(Reason::Unauthenticated));
    });
}

#[test]
fn an_announcement_that_failed_is_repeated() {
    run(|mut rig| {
        let mut client = rig.connect(1);
        link_lost_and_back(&mut rig);
        let overloaded = RequestError::new(ErrorCode::ErrorOverloaded, "starting");
        // Storage refuses, then says something else, then nothing, then its link takes nothing.
        let (id, session) = next_attach(&mut rig);
        rig.answer(id, Err(overloaded.clone()));
        rig.turn();
        rig.assert_no_request();
        announce_all(&mut rig);
        let (id, again) = next_attach(&mut rig);
        assert_eq!(again, session);
        rig.answer(id, Ok(accepted()));
        rig.turn();
        announce_all(&mut rig);
        next_attach(&mut rig);
        rig.pass_ms(REQUEST_TIMEOUT_MS + 2_000);
        rig.link.borrow_mut().refusal = Some(overloaded);
        rig.now_ms += 1_000;
        rig.turn();
        rig.link.borrow_mut().refusal = None;
        announce_all(&mut rig);
        let (id, again) = next_attach(&mut rig);
        assert_eq!(again, session);
        rig.answer(id, Ok(attached(true)));
        wait_for_hint(&mut rig, &mut client);
        rig.turn();
        assert_eq!(rig.core.announcements.next_deadline_ms(), None);
    });
}

#[test]
fn a_link_that_is_lost_again_is_waited_for() {
    run(|mut rig| {
        let _client = rig.connect(1);
        link_lost_and_back(&mut rig);
        let (id, _) = next_attach(&mut rig);
        rig.link.borrow_mut().is_down = true;
        rig.answer(id, Err(RequestError::new(ErrorCode::ErrorUnavailable, "lost")));
        rig.tell(StorageEvent::LinkDown(LinkIndex(0)));
        rig.turn();
        assert_eq!(rig.core.announcements.next_deadline_ms(), None, "nothing is tried while it is away");
        rig.link.borrow_mut().is_down = false;
        rig.tell(StorageEvent::LinkUp(LinkIndex(0)));
        next_attach(&mut rig);
    });
}

#[test]
fn whoever_has_not_finished_its_hello_is_not_announced() {
    run(|mut rig| {
        let (mut client, attach) = rig.greet(1, 0);
        link_lost_and_back(&mut rig);
        announce_all(&mut rig);
        rig.assert_no_request();
        rig.answer(attach.id, Ok(attached(true)));
        rig.serve_until(&mut client, "ready", |client| client.ready.is_some());
    });
}

#[test]
fn a_crowd_is_announced_whole_each_time_and_within_bounds() {
    run(|mut rig| {
        let _clients: Vec<Client> = (0..CROWD).map(|number| rig.connect(number as u8)).collect();
        // Lost again in the middle: the next time begins at the first.
        link_lost_and_back(&mut rig);
        rig.turn();
        assert!((1..CROWD).contains(&rig.link.borrow().requests.len()), "a turn stays short");
        let begun = std::mem::take(&mut rig.link.borrow_mut().requests);
        rig.link.borrow_mut().is_down = true;
        let lost = RequestError::new(ErrorCode::ErrorUnavailable, "lost");
        begun.iter().for_each(|request| rig.answer(request.id, Err(lost.clone())));
        let mut homes: Vec<SessionAddress> = Vec::new();
        for round in 0..5 {
            link_lost_and_back(&mut rig);
            announce_all(&mut rig);
            let requests = std::mem::take(&mut rig.link.borrow_mut().requests);
            let sessions = requests.iter().filter_map(|request| match &request.operation {
                Some(shard_request::Operation::Attach(attach)) => attach.session,
                _ => None,
            });
            let mut sessions: Vec<SessionAddress> = sessions.collect();
            sessions.sort_by_key(|session| session.slot);
            sessions.dedup();
            assert_eq!(sessions.len(), CROWD, "round {round}");
            assert_eq!(requests.len(), CROWD, "each once");
            if round > 0 {
                assert_eq!(sessions, homes);
            }
            homes = sessions;
            requests.iter().for_each(|request| rig.answer(request.id, Ok(attached(true))));
            rig.turn();
        }
        // Without answers there is an end to it: an eighth of what a link takes.
        (0..4).for_each(|_| {
            link_lost_and_back(&mut rig);
            announce_all(&mut rig);
        });
        let unanswered = rig.link.borrow().requests.len();
        assert!((CROWD..=1_024).contains(&unanswered), "{unanswered} announcements without an answer");
        let requests = std::mem::take(&mut rig.link.borrow_mut().requests);
        requests.iter().for_each(|request| rig.answer(request.id, Ok(attached(true))));
        rig.turn();
        announce_all(&mut rig);
        let rest = rig.link.borrow().requests.len();
        assert!(unanswered + rest > CROWD, "it goes on when there is room again");
    });
}

#[test]
fn sessions_are_announced_to_a_new_leader_of_their_home_alone() {
    run(|mut rig| {
        // Two homes among four shards.
        let home = |number: u8| Router::embedded(4).shard(&ShardKey::User(UserId([number; 16])));
        let other = (2..=u8::MAX).find(|number| home(*number) != home(1)).expect("users are spread");
        let (mut first, _second) = (rig.connect(1), rig.connect(other));
        let leader = |shard, term| StorageEvent::Leader { link: LinkIndex(0), shard, term };
        rig.tell(leader(home(1), 5));
        let (id, _) = next_attach(&mut rig);
        rig.answer(id, Ok(attached(true)));
        wait_for_hint(&mut rig, &mut first);
        announce_all(&mut rig);
        rig.assert_no_request();
        // What was known already, or is older, changes nothing.
        for term in [5, 4] {
            rig.tell(leader(home(1), term));
            announce_all(&mut rig);
            rig.assert_no_request();
        }
        assert_eq!(rig.metric(Metric::LeadersChanged), 1);
        assert_eq!(rig.metric(Metric::ShardsReached), 4);
    });
}

#[test]
fn a_hello_that_crosses_a_change_of_leader_is_announced_to_the_new_one() {
    run(|mut rig| {
        let home = Router::embedded(4).shard(&ShardKey::User(UserId([1; 16])));
        let (mut client, attach) = rig.greet(1, 0);
        rig.tell(StorageEvent::Leader { link: LinkIndex(0), shard: home, term: 5 });
        announce_all(&mut rig);
        rig.assert_no_request();
        // It was attached where the old leader was.
        rig.answer(attach.id, Ok(attached(true)));
        rig.serve_until(&mut client, "ready", |client| client.ready.is_some());
        let (id, _) = next_attach(&mut rig);
        rig.answer(id, Ok(attached(true)));
        wait_for_hint(&mut rig, &mut client);
        announce_all(&mut rig);
        rig.assert_no_request();
    });
}

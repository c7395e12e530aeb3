//! Each half of the link, and each refusal, step by step.

use super::*;
use crate::internal::link_hello::Role;
use crate::internal::shard_error::Kind;
use crate::internal::*;
use crate::limits::*;
use prost::Message;

pub(super) const NOW: u64 = 1_000_000;

pub(super) fn hello() -> LinkHello {
    LinkHello { role: Role::Gateway as i32, peer_id: 3, incarnation: 9, core: 1, ..LinkHello::default() }
}

pub(super) fn welcome(credits: u32) -> LinkWelcome {
    LinkWelcome { node_id: 5, epoch: 77, credits, shard_count: 8, ..LinkWelcome::default() }
}

pub(super) fn request(id: u64, body_bytes: usize) -> ShardRequest {
    let send = SendMessage { body: vec![7; body_bytes].into(), ..SendMessage::default() };
    let command = Command { kind: Some(command::Kind::SendMessage(send)) };
    ShardRequest { id, shard: 2, operation: Some(shard_request::Operation::Command(command)) }
}

pub(super) fn response(id: u64) -> ShardResponse {
    let outcome = Outcome { kind: Some(outcome::Kind::Accepted(Accepted {})) };
    ShardResponse { id, result: Some(shard_response::Result::Outcome(outcome)) }
}

fn large_response(id: u64, bytes: usize) -> ShardResponse {
    let entry = crate::v1::Entry { body: vec![7; bytes].into(), ..Default::default() };
    let view = ConversationView { entries: vec![entry], ..ConversationView::default() };
    let answer = Answer { kind: Some(answer::Kind::Conversation(view)) };
    ShardResponse { id, result: Some(shard_response::Result::Answer(answer)) }
}

fn error_kind(response: &ShardResponse) -> Option<Kind> {
    match &response.result {
        Some(shard_response::Result::Error(error)) => Some(error.kind()),
        _ => None,
    }
}

pub(super) fn delivery(slot: u32, bytes: usize) -> Delivery {
    let entry = crate::v1::Entry { body: vec![7; bytes].into(), ..Default::default() };
    let sessions = vec![SessionAddress { slot, generation: 1 }];
    Delivery { sessions, event: Some(delivery::Event::Entry(entry)), ..Delivery::default() }
}

pub(super) fn feed(from_index: u64, bytes: usize) -> FeedBatch {
    let item = FeedItem { conversation_id: vec![7; bytes].into(), ..FeedItem::default() };
    FeedBatch { from_index, items: vec![item], ..FeedBatch::default() }
}

fn give_caller(caller: &mut CallerLink, frame: LinkResponseFrame) -> Result<Vec<CallerEvent>, LinkFault> {
    let mut events = Vec::new();
    caller.handle_frame(NOW, frame, &mut |event| events.push(event)).map(|()| events)
}

fn give_serving(serving: &mut ServingLink, frame: LinkRequestFrame) -> Result<Vec<ServingEvent>, LinkFault> {
    let mut events = Vec::new();
    serving.handle_frame(NOW, frame, &mut |event| events.push(event)).map(|()| events)
}

/// Both halves after hello and welcome.
fn open(credits: u32) -> (CallerLink, ServingLink) {
    let (mut caller, mut serving) = (CallerLink::new(hello(), NOW), ServingLink::new(welcome(credits), NOW));
    assert_eq!(serving.poll_frame(NOW), None);
    assert!(!caller.can_send());
    let frame = caller.poll_frame(NOW).expect("hello");
    assert_eq!(caller.poll_frame(NOW), None);
    let said = LinkHello { version_min: LINK_VERSION_MIN, version_max: LINK_VERSION, ..hello() };
    assert_eq!(give_serving(&mut serving, frame), Ok(vec![ServingEvent::Hello(said)]));
    assert_eq!(serving.hello(), Some(&said));
    let frame = serving.poll_frame(NOW).expect("welcome");
    assert_eq!(serving.poll_frame(NOW), None);
    let credits = if credits == 0 { LINK_CREDITS } else { credits };
    let said = LinkWelcome { version: LINK_VERSION, ..welcome(credits) };
    assert_eq!(give_caller(&mut caller, frame), Ok(vec![CallerEvent::Welcome(said)]));
    assert_eq!(caller.welcome(), Some(&said));
    (caller, serving)
}

#[test]
fn nothing_is_taken_before_welcome_but_positions() {
    let mut caller = CallerLink::new(hello(), NOW);
    assert_eq!(caller.queue_request(request(1, 1)), Err(LinkFull::NotReady));
    assert_eq!(caller.queue_feed(feed(1, 1)), Err(LinkFull::NotReady));
    caller.queue_feed_ack(FeedAck { received_index: 4, ..FeedAck::default() });
    let frame = caller.poll_frame(NOW).expect("hello");
    assert!(frame.feed_acks.is_empty());
    let welcome = LinkWelcome { version: LINK_VERSION, ..welcome(1) };
    give_caller(&mut caller, LinkResponseFrame { welcome: Some(welcome), ..Default::default() })
        .expect("good");
    assert_eq!(caller.poll_frame(NOW).expect("positions").feed_acks.len(), 1);
    assert_eq!(caller.lost(), []);
}

#[test]
fn credits_run_out_and_come_back_with_answers() {
    let (mut caller, mut serving) = open(3);
    for id in [10, 11, 12] {
        assert!(caller.can_send());
        assert_eq!(caller.queue_request(request(id, 1)), Ok(()));
    }
    assert!(!caller.can_send());
    assert_eq!(caller.queue_request(request(13, 1)), Err(LinkFull::Credits));
    let taken =
        give_serving(&mut serving, caller.poll_frame(NOW).expect("requests")).expect("within credits");
    let expected: Vec<_> = [10, 11, 12].map(|id| ServingEvent::Request(request(id, 1))).into();
    assert_eq!(taken, expected);
    serving.queue_response(response(11));
    let answers = serving.poll_frame(NOW).expect("an answer");
    assert_eq!(give_caller(&mut caller, answers), Ok(vec![CallerEvent::Response(response(11))]));
    assert!(caller.can_send());
    assert_eq!((caller.outstanding(), serving.outstanding()), (2, 2));
    // Feed needs no credit.
    caller.queue_request(request(13, 1)).expect("a credit came back");
    caller.queue_feed(feed(1, 1)).expect("no credit needed");
    assert_eq!(caller.lost(), [10, 12, 13]);
}

#[test]
fn requests_of_a_shard_are_given_back_once_and_their_answers_are_nobodys() {
    let (mut caller, _) = open(4);
    for (id, shard) in [(10, 2), (11, 3), (12, 2)] {
        caller.queue_request(ShardRequest { shard, ..request(id, 10) }).unwrap();
    }
    assert_eq!(caller.give_back(2), [10, 12]);
    assert_eq!(caller.give_back(2), []);
    let frame = LinkResponseFrame { responses: vec![response(10), response(11)], ..Default::default() };
    let events = give_caller(&mut caller, frame).unwrap();
    assert_eq!(events, [CallerEvent::Response(response(11))]);
    assert_eq!(caller.outstanding(), 1, "what was given back counts until it is answered");
    let again = LinkResponseFrame { responses: vec![response(10)], ..Default::default() };
    assert!(give_caller(&mut caller, again).is_err(), "and is answered once");
    assert_eq!(caller.lost(), []);
}

#[test]
fn frames_are_cut_at_the_batch_limit_and_keep_their_order() {
    let (mut caller, _) = open(0);
    let body_bytes = BODY_BYTES_MAX;
    let count = 3 * LINK_BATCH_BYTES / body_bytes;
    (0..count as u64).for_each(|id| caller.queue_request(request(id, body_bytes)).expect("room"));
    let mut ids = Vec::new();
    let mut frames = 0;
    while let Some(frame) = caller.poll_frame(NOW) {
        assert!(frame.encoded_len() <= LINK_BATCH_BYTES);
        ids.extend(frame.requests.iter().map(|request| request.id));
        frames += 1;
    }
    assert!((3..=5).contains(&frames), "{frames} frames");
    assert!(ids.iter().copied().eq(0..count as u64));
    assert_eq!(caller.queued_bytes(), 0);
}

#[test]
fn a_full_queue_refuses() {
    let (mut caller, _) = open(0);
    assert_eq!(caller.queue_feed(feed(1, LINK_ITEM_BYTES_MAX)), Err(LinkFull::ItemTooLarge));
    assert_eq!(caller.queue_request(request(1, LINK_ITEM_BYTES_MAX)), Err(LinkFull::ItemTooLarge));
    assert_eq!(caller.outstanding(), 0);
    let mut taken = 0;
    while caller.queue_feed(feed(taken, LINK_BATCH_BYTES)).is_ok() {
        taken += 1;
    }
    assert_eq!(caller.queue_feed(feed(1, 1)), Err(LinkFull::Bytes));
    assert_eq!(caller.queue_request(request(1, 1)), Err(LinkFull::Bytes));
    assert!(!caller.can_send());
    assert!(caller.queued_bytes() < LINK_QUEUE_BYTES_MAX + LINK_ITEM_BYTES_MAX);
    let frame = caller.poll_frame(NOW).expect("feed");
    assert_eq!(frame.feed.len(), 1);
    assert!(frame.encoded_len() <= LINK_FRAME_BYTES_MAX);
    assert!(caller.can_send());
}

#[test]
fn a_serving_half_that_is_not_read_refuses_and_degrades() {
    let (_, mut serving) = open(0);
    let ask = |ids: std::ops::Range<u64>| LinkRequestFrame {
        requests: ids.map(|id| request(id, 1)).collect(),
        ..LinkRequestFrame::default()
    };
    let count = (LINK_QUEUE_BYTES_MAX / LINK_BATCH_BYTES) as u64;
    give_serving(&mut serving, ask(0..count)).expect("within credits");
    (0..count).for_each(|id| serving.queue_response(large_response(id, LINK_BATCH_BYTES)));
    // Requests are answered as overloaded by the link itself, and still need their credits.
    assert_eq!(give_serving(&mut serving, ask(count..count + 2)), Ok(vec![]));
    assert_eq!(serving.outstanding() as u64, count + 2);
    let credits_left = u64::from(LINK_CREDITS) - serving.outstanding() as u64;
    let too_many = ask(1_000_000..1_000_000 + credits_left + 1);
    assert!(matches!(give_serving(&mut serving, too_many), Err(LinkFault::Protocol(_))));
    // Deliveries turn into the demand to sync, but a removed device is told.
    assert_eq!(serving.queue_delivery(delivery(4, 10)), DeliveryFate::SyncNeeded);
    assert_eq!(serving.queue_delivery(delivery(4, 10)), DeliveryFate::SyncNeeded);
    assert_eq!(serving.queue_delivery(delivery(2, 10)), DeliveryFate::SyncNeeded);
    let removed = Delivery { event: Some(delivery::Event::DeviceRemoved(true)), ..delivery(8, 0) };
    assert_eq!(serving.queue_delivery(removed.clone()), DeliveryFate::Queued);
    let (mut overloaded, mut deliveries, mut frames_before_sync) = (0, Vec::new(), 0);
    let mut left = serving.outstanding();
    while let Some(frame) = serving.poll_frame(NOW) {
        assert!(frame.encoded_len() <= LINK_FRAME_BYTES_MAX);
        left -= frame.responses.len();
        assert_eq!(serving.outstanding(), left, "a credit is held until its answer leaves");
        overloaded +=
            frame.responses.iter().filter(|answer| error_kind(answer) == Some(Kind::Overloaded)).count();
        frames_before_sync += usize::from(deliveries.is_empty());
        deliveries.extend(frame.deliveries);
    }
    assert_eq!((overloaded, serving.outstanding(), serving.queued_bytes()), (2, 0, 0));
    assert!(frames_before_sync > 10, "told while there is still no room");
    let sessions = [2, 4].map(|slot| SessionAddress { slot, generation: 1 }).into();
    let event = Some(delivery::Event::SyncNeeded(true));
    assert_eq!(deliveries, [Delivery { sessions, event, ..Delivery::default() }, removed]);
}

#[test]
fn so_many_lost_deliveries_that_everyone_must_sync() {
    let (_, mut serving) = open(0);
    while serving.queue_delivery(delivery(0, LINK_BATCH_BYTES)) == DeliveryFate::Queued {}
    for slot in 0..=LINK_SYNC_NEEDED_SESSIONS_MAX as u32 {
        assert_eq!(serving.queue_delivery(delivery(slot, 1)), DeliveryFate::SyncNeeded);
    }
    let told: Vec<Delivery> = std::iter::from_fn(|| serving.poll_frame(NOW))
        .flat_map(|frame| frame.deliveries)
        .filter(|delivery| matches!(delivery.event, Some(delivery::Event::SyncNeeded(_))))
        .collect();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].sessions, []);
    // Fewer are named, in more than one delivery if need be.
    while serving.queue_delivery(delivery(0, LINK_BATCH_BYTES)) == DeliveryFate::Queued {}
    (0..10_000)
        .for_each(|slot| assert_eq!(serving.queue_delivery(delivery(slot, 1)), DeliveryFate::SyncNeeded));
    let named: Vec<u32> = std::iter::from_fn(|| serving.poll_frame(NOW))
        .flat_map(|frame| frame.deliveries)
        .filter(|delivery| matches!(delivery.event, Some(delivery::Event::SyncNeeded(_))))
        .flat_map(|delivery| delivery.sessions.into_iter().map(|session| session.slot))
        .collect();
    assert!(named.into_iter().eq(0..10_000));
}

#[test]
fn answers_too_large_and_requests_without_operation_become_errors() {
    let (_, mut serving) = open(4);
    let unknown = ShardRequest { id: 1, shard: 0, operation: None };
    let requests = vec![unknown, request(2, 1)];
    let events = give_serving(&mut serving, LinkRequestFrame { requests, ..Default::default() });
    assert_eq!(events, Ok(vec![ServingEvent::Request(request(2, 1))]));
    serving.queue_response(large_response(2, LINK_ITEM_BYTES_MAX));
    let frame = serving.poll_frame(NOW).expect("answers");
    let kinds: Vec<_> = frame.responses.iter().map(|answer| (answer.id, error_kind(answer))).collect();
    assert_eq!(kinds, [(1, Some(Kind::Malformed)), (2, Some(Kind::Internal))]);
}

#[test]
fn a_peer_that_breaks_the_protocol_is_given_up() {
    let protocol = |result: LinkFault| matches!(result, LinkFault::Protocol(_));
    let to_serving = |frame: LinkRequestFrame| {
        let (_, mut serving) = open(2);
        give_serving(&mut serving, frame).expect_err("a fault")
    };
    assert!(protocol(to_serving(LinkRequestFrame { hello: Some(hello()), ..Default::default() })));
    let three = (1..4).map(|id| request(id, 1)).collect();
    assert!(protocol(to_serving(LinkRequestFrame { requests: three, ..Default::default() })));

    let first = |hello| {
        let frame = LinkRequestFrame { hello, ping: true, ..Default::default() };
        give_serving(&mut ServingLink::new(welcome(2), NOW), frame).map(|_| ()).expect_err("a fault")
    };
    let speaks = |version_min, version_max| LinkHello { version_min, version_max, ..hello() };
    assert!(protocol(first(None)));
    let is_apart = |fault| matches!(fault, LinkFault::Version { .. });
    assert!(is_apart(first(Some(speaks(LINK_VERSION + 1, LINK_VERSION + 2)))));
    assert!(is_apart(first(Some(speaks(0, LINK_VERSION_MIN - 1)))));
    assert!(protocol(first(Some(LinkHello { role: 0, ..speaks(1, LINK_VERSION) }))));
    let eager =
        LinkRequestFrame { hello: Some(speaks(1, 9)), requests: vec![request(1, 1)], ..Default::default() };
    assert!(give_serving(&mut ServingLink::new(welcome(2), NOW), eager).is_err());

    let to_caller = |frame: LinkResponseFrame| {
        let (mut caller, _) = open(2);
        caller.queue_request(request(6, 1)).expect("a credit");
        give_caller(&mut caller, frame).expect_err("a fault")
    };
    let answer = |answer| LinkResponseFrame { responses: vec![answer], ..Default::default() };
    assert!(protocol(to_caller(answer(response(5)))));
    assert!(protocol(to_caller(answer(ShardResponse { id: 6, result: None }))));
    let again = LinkResponseFrame { responses: vec![response(6), response(6)], ..Default::default() };
    assert!(protocol(to_caller(again)));
    assert!(protocol(to_caller(LinkResponseFrame { welcome: Some(welcome(2)), ..Default::default() })));

    let mut caller = CallerLink::new(hello(), NOW);
    let opening = |welcome| LinkResponseFrame { welcome, pong: true, ..Default::default() };
    let good = LinkWelcome { version: LINK_VERSION, ..welcome(2) };
    assert!(give_caller(&mut caller, opening(Some(good))).is_err(), "before hello");
    caller.poll_frame(NOW).expect("hello");
    assert!(give_caller(&mut caller, opening(None)).is_err());
    let later = LinkWelcome { version: LINK_VERSION + 1, ..good };
    assert!(is_apart(
        give_caller(&mut caller, opening(Some(later))).expect_err("a version that was not offered")
    ));
    assert!(give_caller(&mut caller, opening(Some(LinkWelcome { credits: 0, ..good }))).is_err());
    assert!(give_caller(&mut caller, opening(Some(LinkWelcome { shard_count: 0, ..good }))).is_err());
    assert!(decode::<LinkRequestFrame>(vec![0xff; 9].into()).is_err());
}

/// The version that a caller and a node agree on.
fn agreed(caller: (u32, u32), node: (u32, u32)) -> Result<u32, LinkFault> {
    let [caller, node] = [caller, node].map(|(min, max)| Versions { min, max });
    let mut calling = CallerLink::speaking(caller, hello(), NOW);
    let mut serving = ServingLink::speaking(node, welcome(2), NOW);
    let served = give_serving(&mut serving, calling.poll_frame(NOW).expect("hello"));
    let told = give_caller(&mut calling, serving.poll_frame(NOW).expect("an answer in any case"));
    match (served, told) {
        (Ok(_), Ok(events)) => {
            let [CallerEvent::Welcome(welcome)] = events[..] else { panic!("{events:?}") };
            assert_eq!(calling.queue_request(request(1, 1)), Ok(()));
            Ok(welcome.version)
        }
        (Err(served), Err(told)) => {
            assert_eq!(served, LinkFault::Version { ours: node, theirs: caller });
            assert_eq!(serving.poll_frame(NOW), None, "that was the last frame");
            Err(told)
        }
        (served, told) => panic!("they do not agree: {served:?}, {told:?}"),
    }
}

#[test]
fn two_releases_side_by_side_agree_and_those_too_far_apart_hear_both_versions() {
    assert_eq!(agreed((1, 1), (1, 2)), Ok(1), "nodes are updated first");
    assert_eq!(agreed((1, 2), (1, 1)), Ok(1), "gateways are updated first");
    assert_eq!(agreed((1, 2), (1, 2)), Ok(2));
    assert_eq!(agreed((2, 3), (1, 2)), Ok(2));
    assert_eq!(agreed((1, 4), (2, 3)), Ok(3));
    for (caller, node, text) in [
        ((1, 1), (2, 3), "no link version in common: 1 to 1 here, 2 to 3 there"),
        ((3, 4), (1, 2), "no link version in common: 3 to 4 here, 1 to 2 there"),
        ((2, 1), (1, 2), "no link version in common: 2 to 1 here, 1 to 2 there"),
    ] {
        assert_eq!(agreed(caller, node).map_err(|fault| fault.to_string()), Err(text.to_owned()));
    }
}

#[test]
fn a_test_may_have_a_process_speak_as_the_release_before_it() {
    let spoken = |max| Versions { min: LINK_VERSION_MIN, max };
    for (text, max) in [
        (None, LINK_VERSION),
        (Some("1"), 1),
        (Some("0"), LINK_VERSION_MIN),
        (Some("99"), LINK_VERSION),
        (Some("x"), LINK_VERSION),
    ] {
        assert_eq!(Versions::up_to(text), spoken(max), "{text:?}");
    }
}

#[test]
#[should_panic(expected = "request ids of a link differ")]
fn an_id_is_not_used_twice() {
    let (mut caller, _) = open(2);
    caller.queue_request(request(6, 1)).expect("a credit");
    let _ = caller.queue_request(request(6, 1));
}

#[test]
fn silence_kills_a_link_and_pings_keep_it() {
    let (mut caller, mut serving) = open(2);
    assert_eq!(caller.poll_timeout(), Some(NOW + LINK_PING_MS));
    assert_eq!(caller.handle_timeout(NOW + LINK_PING_MS - 1), Ok(()));
    assert_eq!(caller.poll_frame(NOW), None);
    assert_eq!(caller.handle_timeout(NOW + LINK_PING_MS), Ok(()));
    let ping = caller.poll_frame(NOW + LINK_PING_MS).expect("a ping");
    assert!(ping.ping);
    serving.handle_frame(NOW + LINK_PING_MS + 9, ping, &mut |_| ()).expect("good");
    assert_eq!(serving.poll_timeout(), Some(NOW + LINK_PING_MS + 9 + LINK_DEAD_MS));
    let pong = serving.poll_frame(NOW + LINK_PING_MS + 9).expect("a pong");
    assert!(pong.pong);
    caller.handle_frame(NOW + LINK_PING_MS + 9, pong, &mut |_| ()).expect("good");
    assert_eq!(caller.poll_timeout(), Some(NOW + 2 * LINK_PING_MS));
    // Sending alone does not spare the ping: answers may have nowhere to go.
    caller.handle_timeout(NOW + 2 * LINK_PING_MS).expect("alive");
    caller.queue_feed(feed(1, 1)).expect("room");
    assert!(caller.poll_frame(NOW + 2 * LINK_PING_MS + 5).expect("a frame").ping);
    let heard_ms = NOW + LINK_PING_MS + 9;
    assert_eq!(caller.handle_timeout(heard_ms + LINK_DEAD_MS - 1), Ok(()));
    assert_eq!(caller.handle_timeout(heard_ms + LINK_DEAD_MS), Err(LinkFault::Dead));
    assert_eq!(serving.handle_timeout(heard_ms + LINK_DEAD_MS - 1), Ok(()));
    assert_eq!(serving.handle_timeout(heard_ms + LINK_DEAD_MS), Err(LinkFault::Dead));
    // Nor does a connection live that never opens.
    let mut caller = CallerLink::new(hello(), NOW);
    assert_eq!(caller.poll_timeout(), Some(NOW + LINK_DEAD_MS));
    assert_eq!(caller.handle_timeout(NOW + LINK_DEAD_MS), Err(LinkFault::Dead));
    assert_eq!(ServingLink::new(welcome(1), NOW).handle_timeout(NOW + LINK_DEAD_MS), Err(LinkFault::Dead));
}

#[test]
fn messages_of_replicas_travel_in_their_order_and_only_after_welcome() {
    let message = |index| RaftMessage { shard: 1, from: 1, to: 2, term: 3, index, ..RaftMessage::default() };
    let mut early = CallerLink::new(hello(), NOW);
    assert_eq!(early.queue_raft(message(1)), Err(LinkFull::NotReady));
    let (mut caller, mut serving) = open(4);
    (1..=256).for_each(|index| caller.queue_raft(message(index)).expect("there is room"));
    let frame = caller.poll_frame(NOW).expect("they wait");
    assert!(caller.poll_frame(NOW).is_none(), "all of a turn share a frame");
    let events = give_serving(&mut serving, frame).expect("good");
    assert_eq!(events, (1..=256).map(|index| ServingEvent::Raft(message(index))).collect::<Vec<_>>());
    // So do parts of snapshots, and what is said of them.
    let part = SnapshotPart { shard: 1, number: 4, ..SnapshotPart::default() };
    let progress = SnapshotProgress { shard: 2, next: 5, ..SnapshotProgress::default() };
    caller.queue_snapshot_part(part.clone()).expect("there is room");
    caller.queue_snapshot_progress(progress).expect("there is room");
    let frame = caller.poll_frame(NOW).expect("they wait");
    let events = give_serving(&mut serving, frame).expect("good");
    assert_eq!(events, [ServingEvent::SnapshotPart(part.clone()), ServingEvent::SnapshotProgress(progress)]);
    let mut new = ServingLink::new(welcome(4), NOW);
    let early = LinkRequestFrame { hello: Some(hello()), snapshot_parts: vec![part], ..Default::default() };
    assert!(give_serving(&mut new, early).is_err());
    let mut new = ServingLink::new(welcome(4), NOW);
    let hello = LinkHello { version_min: LINK_VERSION, version_max: LINK_VERSION, ..hello() };
    let too_early = LinkRequestFrame { hello: Some(hello), raft: vec![message(1)], ..Default::default() };
    assert!(give_serving(&mut new, too_early).is_err());
}

/// As many groups as a fleet may have, each with an entry.
#[test]
fn what_all_groups_say_in_a_turn_leaves_in_as_few_frames_as_hold_it() {
    let (mut caller, mut serving) = open(0);
    let append = |shard| {
        let entry = RaftEntry { term: 3, index: 9, record: vec![7; 3_000].into(), ..RaftEntry::default() };
        RaftMessage { shard, from: 1, to: 2, term: 3, entries: vec![entry], ..RaftMessage::default() }
    };
    let said: Vec<RaftMessage> = (0..256).map(append).collect();
    said.iter().cloned().for_each(|message| caller.queue_raft(message).expect("there is room"));
    let frames: Vec<LinkRequestFrame> = std::iter::from_fn(|| caller.poll_frame(NOW)).collect();
    let bytes = said.iter().map(|message| queue::item_bytes(message).expect("it fits"));
    let fit = LINK_BATCH_BYTES / bytes.max().expect("there are some");
    assert_eq!(frames.len(), said.len().div_ceil(fit));
    let arrived = frames.into_iter().flat_map(|frame| give_serving(&mut serving, frame).expect("good"));
    let arrived: Vec<ServingEvent> = arrived.collect();
    assert_eq!(arrived, said.into_iter().map(ServingEvent::Raft).collect::<Vec<_>>(), "in their order");
}

#[test]
fn of_the_leaders_of_a_shard_the_newest_is_told_once() {
    let leader = |shard, node_id, term| ShardLeader { shard, node_id, term };
    let (mut caller, mut serving) = open(4);
    for told in [leader(1, 1, 5), leader(2, 3, 2), leader(1, 2, 6), leader(1, 3, 4)] {
        serving.queue_leader(told);
    }
    let frame = serving.poll_frame(NOW).expect("there is news");
    let events = give_caller(&mut caller, frame).expect("good");
    assert_eq!(events, [CallerEvent::Leader(leader(1, 2, 6)), CallerEvent::Leader(leader(2, 3, 2))]);
    assert!(serving.poll_frame(NOW).is_none());
}

#[test]
fn what_is_told_of_replicas_and_of_the_fleet_arrives() {
    let (mut caller, mut serving) = open(4);
    let fleet = Fleet { epoch: 4, ..Fleet::default() };
    let report = ReplicaReport { shard: 1, voters: vec![1, 2, 3], changed_at: 9 };
    caller.queue_replica_report(report.clone()).expect("there is room");
    caller.queue_fleet_change(fleet.clone()).expect("there is room");
    let hibernating = Hibernating { from: 1, to: 2, led: Bytes::from_static(&[5]), ..Hibernating::default() };
    caller.queue_hibernating(hibernating.clone()).expect("there is room");
    let frame = caller.poll_frame(NOW).expect("they wait");
    let events = give_serving(&mut serving, frame).expect("good");
    let told = [
        ServingEvent::ReplicaReport(report),
        ServingEvent::FleetChange(fleet.clone()),
        ServingEvent::Hibernating(hibernating),
    ];
    assert_eq!(events, told);
    // Of two only the newer one is told.
    serving.queue_fleet(Fleet { epoch: 3, ..Fleet::default() });
    serving.queue_fleet(fleet.clone());
    let frame = serving.poll_frame(NOW).expect("there is news");
    assert_eq!(give_caller(&mut caller, frame).expect("good"), [CallerEvent::Fleet(fleet)]);
    assert!(serving.poll_frame(NOW).is_none());
}

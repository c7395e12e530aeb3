use super::*;
use crate::worker::wake::WakeHandle;
use bytes::BytesMut;
use wire_protocol::internal::{
    Accepted, Delivery, LinkRequestFrame, Outcome, Query, ShardResponse, link_hello, outcome, shard_error,
    shard_request, shard_response,
};
use wire_protocol::limits::{LINK_CREDITS, LINK_DEAD_MS};
use wire_protocol::link::{ServingEvent, ServingLink};
use wire_protocol::v1::ErrorCode;

const NODE: NodeFacts = NodeFacts { id: 7, shard_count: 4 };

/// A link and the node it leads to, joined by hand.
struct Pair {
    link: NodeLink,
    pipe: Rc<Pipe>,
    serving: ServingLink,
    decoder: FrameDecoder,
    events: Vec<StorageEvent>,
    connects: usize,
}

impl Pair {
    fn new(welcome: LinkWelcome) -> Self {
        Self {
            link: NodeLink::new(
                LinkIndex(0),
                NODE,
                Rc::new(KnownNodes::new([NODE.id].into_iter())),
                hello(),
                9,
            ),
            pipe: Pipe::new(WakeHandle::new()),
            serving: ServingLink::new(welcome, 0),
            decoder: FrameDecoder::new(LINK_FRAME_BYTES_MAX),
            events: Vec::new(),
            connects: 0,
        }
    }

    fn open() -> Self {
        let mut pair = Self::new(welcome(NODE.id, NODE.shard_count));
        pair.turn(0);
        pair.pipe.connected();
        pair.turn(0);
        assert!(!pair.link.is_up(), "a socket is no link");
        let early = pair.link.submit(request(1)).expect_err("nobody has said who is there");
        assert!(early.code == ErrorCode::ErrorUnavailable && early.retry_after_ms > 0);
        pair.serve(0);
        pair.turn(0);
        assert!(pair.link.is_up() && matches!(pair.events[..], [StorageEvent::LinkUp(LinkIndex(0))]));
        pair.events.clear();
        pair
    }

    fn turn(&mut self, now_ms: u64) {
        let connect = || {
            self.connects += 1;
            self.pipe.clone()
        };
        self.link.turn(now_ms, &mut self.events, connect);
    }

    /// The node takes what was sent and answers; the requests it saw.
    fn serve(&mut self, now_ms: u64) -> Vec<ShardRequest> {
        self.decoder.push(&self.pipe.take_outbound());
        let mut requests = Vec::new();
        while let Some(payload) = self.decoder.next_frame().expect("framed") {
            let frame = LinkRequestFrame::decode(payload).expect("a frame");
            let mut sink = |event| {
                if let ServingEvent::Request(request) = event {
                    requests.push(request);
                }
            };
            self.serving.handle_frame(now_ms, frame, &mut sink).expect("by the protocol");
        }
        self.send_answers(now_ms);
        requests
    }

    fn send_answers(&mut self, now_ms: u64) {
        let mut bytes = BytesMut::new();
        while let Some(frame) = self.serving.poll_frame(now_ms) {
            encode_message(&frame, &mut bytes);
        }
        self.pipe.receive(&bytes);
    }
}

fn hello() -> LinkHello {
    LinkHello { role: link_hello::Role::Gateway as i32, incarnation: 1, ..Default::default() }
}

fn welcome(node_id: u32, shard_count: u32) -> LinkWelcome {
    LinkWelcome { node_id, shard_count, epoch: 1, credits: LINK_CREDITS, ..Default::default() }
}

fn request(id: u64) -> ShardRequest {
    let operation = Some(shard_request::Operation::Query(Query::default()));
    ShardRequest { id, shard: 1, operation }
}

fn accepted(id: u64) -> ShardResponse {
    let kind = Some(outcome::Kind::Accepted(Accepted {}));
    ShardResponse { id, result: Some(shard_response::Result::Outcome(Outcome { kind })) }
}

#[test]
fn requests_are_answered_in_order_and_deliveries_arrive() {
    let mut pair = Pair::open();
    (1..=3).for_each(|id| pair.link.submit(request(id)).expect("open"));
    pair.turn(1);
    let seen: Vec<u64> = pair.serve(1).iter().map(|request| request.id).collect();
    assert_eq!(seen, [1, 2, 3]);
    pair.serving.queue_response(accepted(2));
    pair.serving.queue_delivery(Delivery::default());
    pair.send_answers(1);
    pair.turn(1);
    assert!(matches!(
        &pair.events[..],
        [StorageEvent::Answered { id: 2, result: Ok(_) }, StorageEvent::Delivered { .. }]
    ));
}

#[test]
fn a_refusal_of_a_node_that_does_not_lead_is_no_answer_and_what_was_sent_comes_back() {
    let mut pair = Pair::open();
    (1..=3).for_each(|id| pair.link.submit(request(id)).expect("open"));
    assert_eq!(pair.link.take_sent().count(), 0, "they are not encoded yet");
    pair.turn(1);
    pair.serve(1);
    assert_eq!(pair.link.take_sent().map(|request| request.id).collect::<Vec<_>>(), [1, 2, 3]);
    for (id, leader_node_id) in [(1, NODE.id), (2, 0), (3, 99)] {
        let kind = shard_error::Kind::NotLeader as i32;
        let error = ShardError { kind, leader_node_id, term: 6, retry_after_ms: 70, ..ShardError::default() };
        let result = Some(shard_response::Result::Error(error));
        pair.serving.queue_response(ShardResponse { id, result });
    }
    pair.send_answers(1);
    pair.turn(1);
    assert!(pair.events.is_empty(), "{:?}", pair.events);
    let refused: Vec<Refused> = pair.link.take_refused().collect();
    let named = refused.iter().map(|refused| (refused.id, refused.leader, refused.term));
    // There is no link to the last one.
    let expected = [(1, Some(LinkIndex(0)), 6), (2, None, 6), (3, None, 6)];
    assert_eq!(named.collect::<Vec<_>>(), expected);
    assert_eq!((refused[0].error.code, refused[0].error.retry_after_ms), (ErrorCode::ErrorUnavailable, 70));
    assert_eq!(pair.link.take_refused().count(), 0, "each is told once");
}

#[test]
fn a_lost_link_answers_everything_and_connects_again() {
    let mut pair = Pair::open();
    (1..=2).for_each(|id| pair.link.submit(request(id)).expect("open"));
    pair.turn(1);
    pair.serve(1);
    // One answer is still in the pipe when the connection ends.
    pair.serving.queue_response(accepted(1));
    pair.send_answers(1);
    pair.link.submit(request(3)).expect("open");
    pair.pipe.close("reset");
    pair.turn(2);
    let answers: Vec<_> = pair
        .events
        .iter()
        .filter_map(|event| match event {
            StorageEvent::Answered { id, result } => {
                Some((*id, result.as_ref().err().map(|error| error.code)))
            }
            _ => None,
        })
        .collect();
    let away = Some(ErrorCode::ErrorUnavailable);
    assert_eq!(answers, [(1, None), (2, away), (3, away)]);
    assert!(matches!(pair.events.last(), Some(StorageEvent::LinkDown(_))));
    assert_eq!(pair.link.submit(request(4)).expect_err("down").code, ErrorCode::ErrorUnavailable);
    assert_eq!(pair.connects, 1);
    let retry_at_ms = pair.link.next_deadline_ms().expect("it will");
    assert!((2..=2 + RETRY_MS_MIN).contains(&retry_at_ms));
    pair.turn(retry_at_ms);
    assert_eq!(pair.connects, 2);
}

#[test]
fn a_silent_node_is_given_up() {
    let mut pair = Pair::open();
    pair.link.submit(request(1)).expect("open");
    pair.turn(1);
    pair.turn(LINK_DEAD_MS + 1);
    assert!(!pair.link.is_up());
    assert!(matches!(
        pair.events[..],
        [StorageEvent::Answered { id: 1, result: Err(_) }, StorageEvent::LinkDown(_)]
    ));
    assert!(pair.pipe.closed().is_some());
}

#[test]
fn the_wrong_node_is_not_talked_to() {
    for wrong in [welcome(8, NODE.shard_count), welcome(NODE.id, 5)] {
        let mut pair = Pair::new(wrong);
        pair.turn(0);
        pair.pipe.connected();
        pair.turn(0);
        pair.serve(0);
        pair.turn(0);
        assert!(!pair.link.is_up());
        assert!(pair.pipe.closed().is_some());
    }
}

#[test]
fn a_link_that_was_open_is_tried_again_soon_however_long_it_took() {
    let mut pair = Pair::new(welcome(NODE.id, NODE.shard_count));
    let mut now_ms = 0;
    for _ in 0..8 {
        pair.pipe = Pipe::new(WakeHandle::new());
        pair.turn(now_ms);
        pair.pipe.close("refused");
        pair.turn(now_ms);
        now_ms = pair.link.next_deadline_ms().expect("it will try again");
    }
    pair.pipe = Pipe::new(WakeHandle::new());
    pair.turn(now_ms);
    pair.pipe.connected();
    pair.turn(now_ms);
    pair.serve(now_ms);
    pair.turn(now_ms);
    assert!(pair.link.is_up());
    pair.pipe.close("reset");
    pair.turn(now_ms);
    let pause_ms = pair.link.next_deadline_ms().expect("it will try again") - now_ms;
    assert!(pause_ms <= RETRY_MS_MIN, "{pause_ms}");
}

#[test]
fn bytes_that_are_no_frame_end_the_link() {
    let mut pair = Pair::open();
    pair.pipe.receive(&[0xff; 16]);
    pair.turn(1);
    assert!(!pair.link.is_up());
}

#[test]
fn pauses_grow_to_a_bound() {
    let mut link = NodeLink::new(
        LinkIndex(0),
        NODE,
        Rc::new(KnownNodes::new([NODE.id].into_iter())),
        LinkHello::default(),
        3,
    );
    let mut now_ms = 0;
    let mut events = Vec::new();
    let mut longest_ms = 0;
    for _ in 0..20 {
        let pipe = Pipe::new(WakeHandle::new());
        link.turn(now_ms, &mut events, || pipe.clone());
        pipe.close("refused");
        link.turn(now_ms, &mut events, || unreachable!("it has just been refused"));
        let pause_ms = link.next_deadline_ms().expect("it will try again") - now_ms;
        assert!((RETRY_MS_MIN / 2..=RETRY_MS_MAX).contains(&pause_ms), "{pause_ms}");
        longest_ms = longest_ms.max(pause_ms);
        now_ms += pause_ms;
    }
    assert!(longest_ms > RETRY_MS_MAX / 2);
    assert!(events.is_empty(), "a link that never was open is not lost");
}

#[test]
fn a_link_to_a_node_that_is_no_more_ends_and_never_connects_again() {
    let mut link = NodeLink::new(LinkIndex(0), NODE, Rc::new(KnownNodes::new([7].into_iter())), hello(), 3);
    let (pipe, mut events) = (Pipe::new(WakeHandle::new()), Vec::new());
    link.turn(0, &mut events, || pipe.clone());
    link.end(1, &mut events);
    assert!(pipe.closed().is_some());
    link.turn(100_000, &mut events, || panic!("it is over"));
    assert_eq!((link.next_deadline_ms(), link.is_up()), (None, false));
    assert!(link.submit(ShardRequest::default()).is_err());
}

use super::*;
use crate::router::Router;
use crate::storage_client::following::LAST_WORD_MS_MAX;
use crate::storage_client::simulated::SimWire;
use bytes::BytesMut;
use prost::Message;
use wire_protocol::frame::{FrameDecoder, encode_message};
use wire_protocol::internal::{
    Accepted, LinkRequestFrame, LinkWelcome, Outcome, Query, ShardError, ShardLeader, ShardResponse, outcome,
    shard_error, shard_request, shard_response,
};
use wire_protocol::limits::{LINK_CREDITS, LINK_FRAME_BYTES_MAX};
use wire_protocol::link::{ServingEvent, ServingLink};
use wire_protocol::v1::ErrorCode;

const SHARD_COUNT: u32 = 4;
/// Its requests go to the first node until a leader is known.
const SHARD: ShardId = ShardId(0);

#[test]
fn every_core_of_every_life_of_a_gateway_has_a_name_of_its_own() {
    // What storage delivers to a name reaches one core: two of one name would steal from each other.
    let peer = |gateway_id, incarnation, core| hello(GatewayPeer { gateway_id, incarnation, core });
    let names = [peer(1, 7, 0), peer(1, 7, 1), peer(1, 8, 0), peer(2, 7, 0)];
    for (place, name) in names.iter().enumerate() {
        assert!(!names[..place].contains(name), "{name:?}");
        assert_eq!(name.role(), link_hello::Role::Gateway);
    }
}

/// A storage node's end of a link: it answers by hand.
struct Node {
    wire: SimWire,
    serving: ServingLink,
    decoder: FrameDecoder,
    /// What it was asked, oldest first.
    requests: Vec<u64>,
}

impl Node {
    fn new(id: u32, wire: SimWire, credits: u32) -> Self {
        let welcome =
            LinkWelcome { node_id: id, shard_count: SHARD_COUNT, epoch: 1, credits, ..Default::default() };
        Self {
            wire,
            serving: ServingLink::new(welcome, 0),
            decoder: FrameDecoder::new(LINK_FRAME_BYTES_MAX),
            requests: Vec::new(),
        }
    }

    /// Takes what the gateway has sent, and sends what it has to say.
    fn serve(&mut self, now_ms: u64) {
        self.decoder.push(&self.wire.take_sent());
        while let Some(payload) = self.decoder.next_frame().expect("framed") {
            let frame = LinkRequestFrame::decode(payload).expect("a frame");
            let requests = &mut self.requests;
            let mut sink = |event| {
                if let ServingEvent::Request(request) = event {
                    requests.push(request.id);
                }
            };
            self.serving.handle_frame(now_ms, frame, &mut sink).expect("by the protocol");
        }
        let mut bytes = BytesMut::new();
        while let Some(frame) = self.serving.poll_frame(now_ms) {
            encode_message(&frame, &mut bytes);
        }
        self.wire.receive(&bytes);
    }

    fn answer(&mut self, result: shard_response::Result) {
        let id = self.requests.remove(0);
        self.serving.queue_response(ShardResponse { id, result: Some(result) });
    }

    /// Does what it was asked first.
    fn accept(&mut self) {
        let kind = Some(outcome::Kind::Accepted(Accepted {}));
        self.answer(shard_response::Result::Outcome(Outcome { kind }));
    }

    /// Refuses what it was asked first: this node leads, in this term.
    fn refuse(&mut self, leader_node_id: u32, term: u64) {
        let kind = shard_error::Kind::NotLeader as i32;
        let error = ShardError { kind, leader_node_id, term, ..ShardError::default() };
        self.answer(shard_response::Result::Error(error));
    }

    fn tell_leader(&mut self, node_id: u32, term: u64) {
        self.serving.queue_leader(ShardLeader { shard: SHARD.0, node_id, term });
    }
}

/// The links of a core, its router, and three nodes, of which the one with id n is at place n - 1.
struct Fleet {
    links: Nodes,
    router: Router,
    nodes: Vec<Node>,
    now_ms: u64,
    /// Answers that came: the id, and the error if it is one.
    told: Vec<(u64, Option<ErrorCode>)>,
}

impl Fleet {
    fn open(credits: u32) -> Self {
        let peer = GatewayPeer { gateway_id: 1, incarnation: 7, core: 0 };
        let (wires, ids) = (SimWires::default(), [1, 2, 3]);
        let mut links = Nodes::simulated(&ids, SHARD_COUNT, peer, wires.clone(), WakeHandle::new());
        links.turn(0, &mut Vec::new());
        let mut nodes = Vec::new();
        while let Some((id, wire)) = wires.take() {
            wire.connected();
            nodes.push(Node::new(id, wire, credits));
        }
        let router = Router::replicated(SHARD_COUNT, ids.len());
        let mut fleet = Self { links, router, nodes, now_ms: 0, told: Vec::new() };
        fleet.settle();
        assert_eq!(fleet.links.links_up(), 3);
        fleet
    }

    fn submit(&mut self, id: u64) {
        let operation = Some(shard_request::Operation::Query(Query::default()));
        let request = ShardRequest { id, shard: SHARD.0, operation };
        self.links.submit(self.router.link(SHARD), request).expect("it is taken");
    }

    /// A turn of the core.
    fn turn(&mut self) {
        let mut events = Vec::new();
        self.links.turn(self.now_ms, &mut events);
        let mut later = Vec::new();
        for event in events {
            if let StorageEvent::Leader { link, shard, term } = event {
                if self.router.follow(shard, term, link) {
                    self.links.follow(self.now_ms, Leads { link, shard, term }, &mut later);
                }
            } else {
                self.hear(event);
            }
        }
        later.into_iter().for_each(|event| self.hear(event));
        self.links.check_invariants();
    }

    fn hear(&mut self, event: StorageEvent) {
        if let StorageEvent::Answered { id, result } = event {
            self.told.push((id, result.err().map(|error| error.code)));
        }
    }

    /// Everybody has some turns: what was said by now has arrived, and what comes of it.
    fn settle(&mut self) {
        for _ in 0..4 {
            self.turn();
            self.nodes.iter_mut().for_each(|node| node.serve(self.now_ms));
        }
        self.turn();
    }

    /// What each node was asked and has not answered.
    fn assert_asked(&self, expected: [&[u64]; 3]) {
        for (place, (node, expected)) in self.nodes.iter().zip(expected).enumerate() {
            assert_eq!(node.requests, expected, "at place {place}");
        }
    }
}

#[test]
fn what_a_follower_refuses_goes_to_the_leader_that_it_names_and_keeps_its_order() {
    let mut fleet = Fleet::open(LINK_CREDITS);
    fleet.submit(1);
    fleet.submit(2);
    fleet.settle();
    fleet.assert_asked([&[1, 2], &[], &[]]);
    fleet.nodes[0].refuse(2, 5);
    fleet.settle();
    assert_eq!(fleet.router.link(SHARD), LinkIndex(1), "the refusal is news of the leader");
    fleet.submit(3);
    fleet.settle();
    fleet.assert_asked([&[2], &[], &[]]);
    assert_eq!(fleet.links.waiting(), 2);
    fleet.nodes[0].refuse(2, 5);
    fleet.settle();
    fleet.assert_asked([&[], &[1, 2, 3], &[]]);
    assert_eq!((fleet.links.followed(), fleet.links.waiting()), (2, 0));
    (0..3).for_each(|_| fleet.nodes[1].accept());
    fleet.settle();
    assert_eq!(fleet.told, [(1, None), (2, None), (3, None)]);
}

#[test]
fn what_names_a_node_without_a_link_waits_until_a_leader_is_told() {
    let mut fleet = Fleet::open(LINK_CREDITS);
    fleet.submit(1);
    fleet.settle();
    fleet.nodes[0].refuse(9, 5);
    fleet.settle();
    fleet.submit(2);
    fleet.settle();
    fleet.assert_asked([&[], &[], &[]]);
    fleet.nodes[1].tell_leader(3, 6);
    fleet.settle();
    fleet.assert_asked([&[], &[], &[1, 2]]);
    assert_eq!(fleet.told, []);
}

#[test]
fn what_a_node_that_is_cut_off_does_not_answer_is_given_back_and_the_rest_goes_on() {
    let mut fleet = Fleet::open(LINK_CREDITS);
    fleet.submit(1);
    fleet.settle();
    fleet.nodes[1].tell_leader(2, 5);
    fleet.settle();
    fleet.submit(2);
    fleet.settle();
    fleet.assert_asked([&[1], &[], &[]]);
    let due_ms = fleet.links.next_deadline_ms().expect("a last word is due");
    assert!(due_ms <= LAST_WORD_MS_MAX, "{due_ms}");
    fleet.now_ms = due_ms;
    fleet.settle();
    assert_eq!(fleet.told, [(1, Some(ErrorCode::ErrorUnavailable))], "whether it was done is unknown");
    fleet.assert_asked([&[1], &[2], &[]]);
    // What it says in the end is nobody's any more.
    fleet.nodes[0].refuse(2, 5);
    fleet.settle();
    assert_eq!((fleet.told.len(), fleet.links.followed()), (1, 0));
}

#[test]
fn a_leader_without_credits_gets_the_rest_as_it_answers() {
    let mut fleet = Fleet::open(2);
    fleet.submit(1);
    fleet.submit(2);
    fleet.settle();
    fleet.nodes[0].refuse(3, 5);
    fleet.settle();
    fleet.submit(3);
    fleet.nodes[0].refuse(3, 5);
    fleet.settle();
    fleet.assert_asked([&[], &[], &[1, 2]]);
    assert_eq!(fleet.links.waiting(), 1);
    fleet.nodes[2].accept();
    fleet.settle();
    fleet.assert_asked([&[], &[], &[2, 3]]);
    assert_eq!(fleet.told, [(1, None)]);
}

#[test]
fn where_shards_have_one_copy_nothing_is_kept_and_a_refusal_is_the_clients() {
    let mut fleet = Fleet::open(LINK_CREDITS);
    // As where the configuration gives every shard to a node.
    fleet.links.following = None;
    fleet.submit(1);
    fleet.submit(2);
    fleet.settle();
    fleet.nodes[0].refuse(2, 5);
    fleet.nodes[0].accept();
    fleet.settle();
    assert_eq!(fleet.told, [(2, None), (1, Some(ErrorCode::ErrorUnavailable))]);
    assert_eq!((fleet.links.waiting(), fleet.links.followed()), (0, 0));
}

//! Both halves joined by a fake wire and a fake clock, with everything random from one seed: answers out of
//! order, bytes cut anywhere, lost and frozen connections. What must hold: each request is answered or given
//! back once, in order and within its credits, and a link that works is never given up.

use super::tests::{NOW, delivery, feed, hello, request, response, welcome};
use super::*;
use crate::frame::{FrameDecoder, encode_message};
use crate::internal::FeedAck;
use crate::limits::LINK_FRAME_BYTES_MAX;
use crate::seed::{Seed, with_seeds};
use bytes::BytesMut;
use prost::Message;
use std::collections::{BTreeSet, VecDeque};

/// One direction, as bytes: frames come whole and in order, cut anyhow on the way.
struct Wire {
    pieces: VecDeque<(u64, Vec<u8>)>,
    decoder: FrameDecoder,
}

impl Wire {
    fn new() -> Self {
        Self { pieces: VecDeque::new(), decoder: FrameDecoder::new(LINK_FRAME_BYTES_MAX) }
    }

    fn send(&mut self, seed: &mut Seed, now_ms: u64, frame: &impl Message) {
        let mut bytes = BytesMut::new();
        encode_message(frame, &mut bytes);
        let last_due_ms = self.pieces.back().map_or(0, |&(due_ms, _)| due_ms);
        let due_ms = last_due_ms.max(now_ms + seed.below(30) as u64);
        let (first, second) = bytes.split_at(seed.below(bytes.len()));
        self.pieces.extend([(due_ms, first.to_vec()), (due_ms + seed.below(5) as u64, second.to_vec())]);
    }

    fn receive<Frame: Message + Default>(&mut self, now_ms: u64) -> Vec<Frame> {
        let mut frames = Vec::new();
        while self.pieces.front().is_some_and(|&(due_ms, _)| due_ms <= now_ms) {
            self.decoder.push(&self.pieces.pop_front().expect("just looked at").1);
            while let Some(payload) = self.decoder.next_frame().expect("well framed") {
                frames.push(decode(payload).expect("well formed"));
            }
        }
        frames
    }
}

/// A caller's owner, a node, and what connects them while it does.
struct World<'a> {
    seed: &'a mut Seed,
    now_ms: u64,
    caller: CallerLink,
    serving: ServingLink,
    up: Wire,
    down: Wire,
    frozen: bool,
    next_id: u64,
    /// Requests of this link that wait, as the owner counts them.
    waiting: BTreeSet<u64>,
    /// Requests the node will answer: when, which.
    working: Vec<(u64, u64)>,
    /// The last request the node saw: they come in order.
    seen: u64,
    answered: u64,
    unavailable: u64,
    dead: u64,
    frames: u64,
}

const CREDITS: u32 = 12;

impl<'a> World<'a> {
    fn new(seed: &'a mut Seed) -> Self {
        Self {
            now_ms: NOW,
            caller: CallerLink::new(hello(), NOW),
            serving: ServingLink::new(welcome(CREDITS), NOW),
            up: Wire::new(),
            down: Wire::new(),
            frozen: false,
            next_id: 1,
            waiting: BTreeSet::new(),
            working: Vec::new(),
            seen: 0,
            answered: 0,
            unavailable: 0,
            dead: 0,
            frames: 0,
            seed,
        }
    }

    fn reconnect(&mut self) {
        let caller = std::mem::replace(&mut self.caller, CallerLink::new(hello(), self.now_ms));
        let lost = caller.lost();
        assert!(lost.iter().copied().eq(std::mem::take(&mut self.waiting)), "each is given back once");
        self.unavailable += lost.len() as u64;
        self.serving = ServingLink::new(welcome(CREDITS), self.now_ms);
        (self.up, self.down, self.frozen) = (Wire::new(), Wire::new(), false);
        self.working.clear();
    }

    fn step(&mut self) {
        self.now_ms += 1 + self.seed.below(25) as u64;
        if self.seed.once_in(3_000) {
            self.frozen = true;
        }
        if self.seed.once_in(1_000) {
            self.reconnect();
        }
        if self.caller.can_send() && self.seed.once_in(2) {
            let id = self.next_id;
            self.next_id += 1;
            let body_bytes = self.seed.below(2_000);
            self.caller.queue_request(request(id, body_bytes)).expect("it can send");
            self.waiting.insert(id);
        }
        if self.seed.once_in(30) {
            let _ = self.caller.queue_feed(feed(1, 10));
            self.caller.queue_feed_ack(FeedAck { received_index: 4, ..FeedAck::default() });
        }
        self.serve();
        self.call();
        let now_ms = self.now_ms;
        let caller_dead = self.caller.poll_timeout().is_some_and(|at_ms| at_ms <= now_ms)
            && self.caller.handle_timeout(now_ms).is_err();
        let serving_dead = self.serving.handle_timeout(now_ms).is_err();
        if caller_dead || serving_dead {
            assert!(self.frozen, "a link that works is not given up");
            self.dead += 1;
            self.reconnect();
        }
        assert!(self.caller.outstanding() <= CREDITS as usize);
        assert!(self.serving.outstanding() <= CREDITS as usize);
    }

    fn serve(&mut self) {
        let frames = if self.frozen { Vec::new() } else { self.up.receive(self.now_ms) };
        for frame in frames {
            let mut requests = Vec::new();
            let take = &mut |event| match event {
                ServingEvent::Request(request) => requests.push(request.id),
                ServingEvent::Hello(_)
                | ServingEvent::Feed(_)
                | ServingEvent::FeedAck(_)
                | ServingEvent::Raft(_)
                | ServingEvent::SnapshotPart(_)
                | ServingEvent::SnapshotProgress(_)
                | ServingEvent::ReplicaReport(_)
                | ServingEvent::FleetChange(_)
                | ServingEvent::Hibernating(_) => {}
            };
            self.serving.handle_frame(self.now_ms, frame, take).expect("the caller keeps the protocol");
            for id in requests {
                assert!(id > self.seen, "requests come in the order they were queued");
                self.seen = id;
                self.working.push((self.now_ms + self.seed.below(500) as u64, id));
            }
        }
        while let Some(row) = self.working.iter().position(|&(due_ms, _)| due_ms <= self.now_ms) {
            let (_, id) = self.working.swap_remove(row);
            self.serving.queue_response(response(id));
        }
        if self.serving.hello().is_some() && self.seed.once_in(10) {
            assert_eq!(self.serving.queue_delivery(delivery(1, 100)), DeliveryFate::Queued);
        }
        while let Some(frame) = self.serving.poll_frame(self.now_ms) {
            self.down.send(self.seed, self.now_ms, &frame);
            self.frames += 1;
        }
    }

    fn call(&mut self) {
        let frames = if self.frozen { Vec::new() } else { self.down.receive(self.now_ms) };
        for frame in frames {
            let (waiting, answered) = (&mut self.waiting, &mut self.answered);
            let take = &mut |event| {
                if let CallerEvent::Response(response) = event {
                    assert!(waiting.remove(&response.id), "each is answered once");
                    *answered += 1;
                }
            };
            self.caller.handle_frame(self.now_ms, frame, take).expect("the node keeps the protocol");
        }
        while let Some(frame) = self.caller.poll_frame(self.now_ms) {
            self.up.send(self.seed, self.now_ms, &frame);
            self.frames += 1;
        }
    }
}

#[test]
fn each_request_is_answered_or_given_back_once_whatever_the_wire_does() {
    let (mut answered, mut unavailable, mut dead) = (0, 0, 0);
    with_seeds(60, |seed| {
        let mut world = World::new(seed);
        (0..4_000).for_each(|_| world.step());
        let asked = world.next_id - 1;
        assert_eq!(world.answered + world.unavailable + world.waiting.len() as u64, asked);
        assert!(world.answered > 100, "{} answered", world.answered);
        answered += world.answered;
        unavailable += world.unavailable;
        dead += world.dead;
    });
    if std::env::var_os("RINGLINE_SEED").is_none() {
        assert!(answered > 10_000 && unavailable > 500 && dead > 20, "{answered} {unavailable} {dead}");
    }
}

#[test]
fn an_idle_link_lives_on_a_ping_now_and_then() {
    let mut seed_used = 0;
    with_seeds(1, |seed| {
        let mut world = World::new(seed);
        for _ in 0..60_000 {
            world.now_ms += 10;
            world.call();
            world.serve_idle();
            if world.caller.poll_timeout().is_some_and(|at_ms| at_ms <= world.now_ms) {
                world.caller.handle_timeout(world.now_ms).expect("alive");
            }
            world.serving.handle_timeout(world.now_ms).expect("alive");
        }
        // Ten minutes: a ping and a pong each three seconds, hello and welcome.
        assert!((350..=402).contains(&world.frames), "{} frames", world.frames);
        seed_used += 1;
    });
    assert_eq!(seed_used, 1);
}

impl World<'_> {
    fn serve_idle(&mut self) {
        for frame in self.up.receive(self.now_ms) {
            self.serving.handle_frame(self.now_ms, frame, &mut |_| ()).expect("good");
        }
        while let Some(frame) = self.serving.poll_frame(self.now_ms) {
            self.down.send(self.seed, self.now_ms, &frame);
            self.frames += 1;
        }
    }
}

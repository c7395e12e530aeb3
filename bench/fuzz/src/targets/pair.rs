//! Both halves of a storage link, joined by bytes in pieces: each frame encoded, cut, and decoded again.

use crate::Target;
use crate::input::Input;
use crate::targets::links::{hello, welcome};
use bytes::{Bytes, BytesMut};
use std::collections::{BTreeMap, BTreeSet};
use wire_protocol::frame::{FrameDecoder, encode_message};
use wire_protocol::internal::{
    Delivery, FeedAck, FeedBatch, LinkRequestFrame, LinkResponseFrame, Query, SessionAddress, ShardError,
    ShardRequest, ShardResponse, delivery, shard_request, shard_response,
};
use wire_protocol::limits::LINK_FRAME_BYTES_MAX;
use wire_protocol::link::{CallerEvent, CallerLink, DeliveryFate, ServingEvent, ServingLink, decode};

/// Steps of a story.
const STEPS_MAX: usize = 96;
/// After steps chosen by such a byte nothing is written yet: what comes next goes into the same frame.
const WAITS_FROM: u8 = 240;

/// See `holds`.
pub const LINK_PAIR: Target = Target {
    name: "link-pair",
    holds: "what one half takes the other gets, however many go in one frame: requests, answers, feed and deliveries once and in \
            order, of positions the newest, and each demand for a replay; bytes that change on the way end the link or are told \
            as they are",
    run: link_pair,
};

/// One direction: bytes written, and the peer's decoder.
struct Wire {
    bytes: BytesMut,
    decoder: FrameDecoder,
}

impl Wire {
    fn new() -> Self {
        Self { bytes: BytesMut::new(), decoder: FrameDecoder::new(LINK_FRAME_BYTES_MAX) }
    }

    /// Some of the bytes arrive, as they were or not. `None`: they are no frames any more.
    fn arrive(&mut self, input: &mut Input<'_>, is_clean: &mut bool) -> Option<Vec<Bytes>> {
        let count = usize::from(input.byte()) * 8;
        let mut piece = self.bytes.split_to(count.min(self.bytes.len()));
        if input.below(64) == 63 {
            let (place, bits) = (usize::from(input.byte()), input.byte());
            if let Some(byte) = piece.get_mut(place).filter(|_| bits > 0) {
                *byte ^= bits;
                *is_clean = false;
            }
        }
        self.decoder.push(&piece);
        let mut frames = Vec::new();
        loop {
            match self.decoder.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => return Some(frames),
                Err(_) => return None,
            }
        }
    }
}

/// Positions of home shards on their way to the caller.
#[derive(Default)]
struct Positions {
    /// By home shard: the newest that was queued, and the newest that came.
    queued: BTreeMap<u32, FeedAck>,
    heard: BTreeMap<u32, FeedAck>,
    /// Home shards and numbers of those that demanded a replay.
    demands: Vec<(u32, u64)>,
    /// Of all that were queued. Each has its number as its durable index.
    count: u64,
}

impl Positions {
    /// The next one to be queued, with its number.
    fn queue(&mut self, ack: FeedAck) -> FeedAck {
        self.count += 1;
        let ack = FeedAck { durable_index: self.count, ..ack };
        self.queued.insert(ack.home_shard, ack);
        self.demands.extend(ack.replay.then_some((ack.home_shard, ack.durable_index)));
        ack
    }

    /// One came: a newer one, and with the demands of all that it stands for.
    fn hear(&mut self, ack: FeedAck) {
        let number = ack.durable_index;
        let before = self.heard.insert(ack.home_shard, ack).map_or(0, |before| before.durable_index);
        assert!(before < number, "an older position behind a newer one");
        let is_due = |(home, of): &(u32, u64)| *home == ack.home_shard && (before + 1..=number).contains(of);
        assert_eq!(ack.replay, self.demands.iter().any(is_due), "a demand for a replay: {ack:?}");
    }

    /// Everybody's newest.
    fn newest(acks: &BTreeMap<u32, FeedAck>) -> Vec<(u32, u64, u64)> {
        acks.values().map(|ack| (ack.home_shard, ack.received_index, ack.durable_index)).collect()
    }
}

/// What is under way between the two.
struct Link {
    caller: CallerLink,
    serving: ServingLink,
    up: Wire,
    down: Wire,
    is_clean: bool,
    asked: u64,
    /// Ids, in the order they came.
    received: Vec<u64>,
    waiting: BTreeSet<u64>,
    /// Ids, in the order in which they were answered, and in which the answers came.
    answers: Vec<u64>,
    answered: Vec<u64>,
    fed: u64,
    feed_received: u64,
    positions: Positions,
    /// Slots of the sessions, in the order of the deliveries that were queued, and that came.
    delivered: Vec<u32>,
    deliveries: Vec<u32>,
}

impl Link {
    fn new() -> Self {
        Self {
            caller: CallerLink::new(hello(), 0),
            serving: ServingLink::new(welcome(), 0),
            up: Wire::new(),
            down: Wire::new(),
            is_clean: true,
            asked: 0,
            received: Vec::new(),
            waiting: BTreeSet::new(),
            answers: Vec::new(),
            answered: Vec::new(),
            fed: 0,
            feed_received: 0,
            positions: Positions::default(),
            delivered: Vec::new(),
            deliveries: Vec::new(),
        }
    }

    /// Both write what they have. False: the link has ended, which only changed bytes may do.
    fn pass(&mut self, input: &mut Input<'_>) -> bool {
        while let Some(frame) = self.caller.poll_frame(0) {
            encode_message(&frame, &mut self.up.bytes);
        }
        while let Some(frame) = self.serving.poll_frame(0) {
            encode_message(&frame, &mut self.down.bytes);
        }
        let goes_on = self.pass_up(input) && self.pass_down(input);
        assert!(goes_on || !self.is_clean, "a link ended that nobody disturbed");
        goes_on
    }

    fn pass_up(&mut self, input: &mut Input<'_>) -> bool {
        let Some(frames) = self.up.arrive(input, &mut self.is_clean) else { return false };
        for frame in frames {
            let Ok(frame) = decode::<LinkRequestFrame>(frame) else { return false };
            let (received, waiting, fed) = (&mut self.received, &mut self.waiting, &mut self.feed_received);
            let is_clean = self.is_clean;
            let taken = self.serving.handle_frame(0, frame, &mut |event| match event {
                ServingEvent::Request(request) => {
                    received.push(request.id);
                    waiting.insert(request.id);
                }
                ServingEvent::Feed(batch) => {
                    assert!(!is_clean || batch.to_index == *fed + 1, "feed out of order");
                    *fed = batch.to_index;
                }
                ServingEvent::Hello(_)
                | ServingEvent::FeedAck(_)
                | ServingEvent::Raft(_)
                | ServingEvent::SnapshotPart(_)
                | ServingEvent::SnapshotProgress(_)
                | ServingEvent::ReplicaReport(_)
                | ServingEvent::FleetChange(_)
                | ServingEvent::Hibernating(_) => {}
            });
            if taken.is_err() {
                return false;
            }
        }
        true
    }

    fn pass_down(&mut self, input: &mut Input<'_>) -> bool {
        let Some(frames) = self.down.arrive(input, &mut self.is_clean) else { return false };
        for frame in frames {
            let Ok(frame) = decode::<LinkResponseFrame>(frame) else { return false };
            let (answered, deliveries, positions) =
                (&mut self.answered, &mut self.deliveries, &mut self.positions);
            let is_clean = self.is_clean;
            let taken = self.caller.handle_frame(0, frame, &mut |event| match event {
                CallerEvent::Response(response) => {
                    assert!(!answered.contains(&response.id), "answered twice");
                    answered.push(response.id);
                }
                CallerEvent::Delivery(delivery) => {
                    deliveries.extend(delivery.sessions.iter().map(|session| session.slot));
                }
                CallerEvent::FeedAck(ack) if is_clean => positions.hear(ack),
                CallerEvent::FeedAck(_)
                | CallerEvent::Welcome(_)
                | CallerEvent::Leader(_)
                | CallerEvent::Fleet(_) => {}
            });
            if taken.is_err() {
                return false;
            }
        }
        true
    }

    fn act(&mut self, choice: u8, input: &mut Input<'_>) {
        match choice % 6 {
            0 | 1 if self.caller.can_send() => {
                self.asked += 1;
                let query: Query = prost::Message::decode(input.slice()).unwrap_or_default();
                let operation = Some(shard_request::Operation::Query(query));
                let request = ShardRequest { id: self.asked, shard: 1, operation };
                self.caller.queue_request(request).expect("it said so");
            }
            2 if self.caller.can_send() => {
                self.fed += 1;
                let batch = FeedBatch { to_index: self.fed, ..FeedBatch::default() };
                self.caller.queue_feed(batch).expect("there is room");
            }
            3 => {
                // In any order.
                let place = input.below(8).min(self.waiting.len().saturating_sub(1));
                if let Some(id) = self.waiting.iter().nth(place).copied() {
                    self.waiting.remove(&id);
                    let detail = String::from_utf8_lossy(input.slice()).into_owned();
                    let error = ShardError { detail, ..ShardError::default() };
                    let result = Some(shard_response::Result::Error(error));
                    self.serving.queue_response(ShardResponse { id, result });
                    self.answers.push(id);
                }
            }
            4 if self.serving.hello().is_some() => {
                let slot = u32::from(input.byte());
                let sessions = vec![SessionAddress { slot, generation: 1 }];
                let event = Some(delivery::Event::SyncNeeded(true));
                let delivery = Delivery { sessions, event, ..Delivery::default() };
                assert_eq!(self.serving.queue_delivery(delivery), DeliveryFate::Queued);
                self.delivered.push(slot);
            }
            5 if self.serving.hello().is_some() => {
                let (home, received_index) = (input.byte(), input.byte().into());
                let (home_shard, replay) = (u32::from(home % 3), home >= 128);
                let ack = FeedAck { home_shard, received_index, replay, ..FeedAck::default() };
                self.serving.queue_feed_ack(self.positions.queue(ack));
            }
            _ => {}
        }
    }

    /// After whatever happened both write until nothing is left; then everything is accounted for.
    fn settle(&mut self) {
        // 2,040 bytes each time, none changed.
        let all = [0xff, 0, 0xff, 0];
        for _ in 0..4 * STEPS_MAX {
            if !self.pass(&mut Input::new(&all)) {
                return;
            }
        }
        if self.is_clean {
            assert!(self.received.iter().copied().eq(1..=self.asked), "each request once, in order");
            assert_eq!(self.answered, self.answers, "each answer once, in order");
            assert_eq!(self.deliveries, self.delivered, "each delivery once, in order");
            assert_eq!(self.feed_received, self.fed);
            let (heard, queued) = (&self.positions.heard, &self.positions.queued);
            assert_eq!(Positions::newest(heard), Positions::newest(queued), "the newest positions");
            assert_eq!(self.serving.queued_bytes() + self.caller.queued_bytes(), 0);
            assert_eq!(self.serving.outstanding(), self.caller.outstanding());
            assert_eq!(self.caller.outstanding() + self.answered.len(), self.asked as usize);
        }
    }
}

fn link_pair(data: &[u8]) {
    let mut input = Input::new(data);
    let mut link = Link::new();
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        let choice = input.byte();
        link.act(choice, &mut input);
        if choice < WAITS_FROM && !link.pass(&mut input) {
            return;
        }
    }
    link.settle();
}

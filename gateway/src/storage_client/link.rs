//! One link to one storage node: connecting, asking, being lost, connecting again.
//!
//! ```text
//! down ── retry is due ──> connecting ──> open ── closed, silent, or against the protocol ──> down
//! ```

use super::following::Refused;
use super::known_nodes::KnownNodes;
use super::link_io::Pipe;
use super::{StorageEvent, refusal};
use crate::router::LinkIndex;
use prost::Message;
use std::rc::Rc;
use wire_protocol::error::RequestError;
use wire_protocol::frame::{FrameDecoder, encode_message};
use wire_protocol::ids::ShardId;
use wire_protocol::internal::{LinkHello, LinkResponseFrame, LinkWelcome, ShardError, ShardRequest};
use wire_protocol::limits::LINK_FRAME_BYTES_MAX;
use wire_protocol::link::{CallerEvent, CallerLink, Versions};

/// First pause before connecting again, in milliseconds.
const RETRY_MS_MIN: u64 = 50;
/// Longest pause, in milliseconds: a node that is back is found again in about this time.
const RETRY_MS_MAX: u64 = 1_000;

/// What a link expects of its node.
#[derive(Clone, Copy, Debug)]
pub(super) struct NodeFacts {
    pub(super) id: u32,
    pub(super) shard_count: u32,
}

/// One link.
pub(super) struct NodeLink {
    index: LinkIndex,
    node: NodeFacts,
    nodes: Rc<KnownNodes>,
    hello: LinkHello,
    versions: Versions,
    stage: Stage,
    /// Requests whose bytes are on their way, and refusals of copies that do not lead, until they are taken.
    sent: Vec<ShardRequest>,
    refused: Vec<Refused>,
    /// Times in a row that no link came about.
    failures: u32,
    jitter: Jitter,
}

enum Stage {
    /// Its node is no more.
    Over,
    Down {
        retry_at_ms: u64,
    },
    Connecting(Rc<Pipe>),
    Live(Box<Live>),
}

struct Live {
    pipe: Rc<Pipe>,
    caller: CallerLink,
    decoder: FrameDecoder,
}

impl NodeLink {
    pub(super) fn new(
        index: LinkIndex,
        node: NodeFacts,
        nodes: Rc<KnownNodes>,
        hello: LinkHello,
        jitter_seed: u64,
    ) -> Self {
        Self {
            index,
            node,
            nodes,
            hello,
            versions: Versions::OURS,
            stage: Stage::Down { retry_at_ms: 0 },
            sent: Vec::new(),
            refused: Vec::new(),
            failures: 0,
            jitter: Jitter(jitter_seed | 1),
        }
    }

    /// The same with these versions.
    pub(super) fn speaking(self, versions: Versions) -> Self {
        Self { versions, ..self }
    }

    /// To which node.
    pub(super) fn node(&self) -> u32 {
        self.node.id
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(&self.stage, Stage::Live(live) if live.caller.welcome().is_some())
    }

    /// Whether [`Self::submit`] would take a request of ordinary size now.
    pub(super) fn can_send(&self) -> bool {
        matches!(&self.stage, Stage::Live(live) if live.caller.can_send())
    }

    /// Takes a request. Its answer comes as an event of a later turn, or in [`Self::take_refused`].
    pub(super) fn submit(&mut self, request: ShardRequest) -> Result<(), RequestError> {
        match &mut self.stage {
            Stage::Live(live) => live.caller.queue_request(request).map_err(refusal::refused),
            Stage::Over | Stage::Down { .. } | Stage::Connecting(_) => Err(refusal::away("storage is away")),
        }
    }

    /// Requests whose bytes have gone on their way since the last call, in the order in which they were submitted.
    pub(super) fn take_sent(&mut self) -> impl Iterator<Item = ShardRequest> + '_ {
        self.sent.drain(..)
    }

    /// Refusals since the last call by a copy that does not lead, in the order in which they came.
    pub(super) fn take_refused(&mut self) -> impl Iterator<Item = Refused> + '_ {
        self.refused.drain(..)
    }

    /// Another node leads the shard: whoever waits here for it is told to ask again.
    pub(super) fn give_back(&mut self, shard: ShardId, events: &mut Vec<StorageEvent>) {
        if let Stage::Live(live) = &mut self.stage {
            let changed = || Err(refusal::away("another copy leads; whether it was done is unknown"));
            let ids = live.caller.give_back(shard.0).into_iter();
            events.extend(ids.map(|id| StorageEvent::Answered { id, result: changed() }));
        }
    }

    /// Moves the link on. `connect` starts a connection and gives its pipe.
    pub(super) fn turn(
        &mut self,
        now_ms: u64,
        events: &mut Vec<StorageEvent>,
        connect: impl FnOnce() -> Rc<Pipe>,
    ) {
        match &mut self.stage {
            Stage::Down { retry_at_ms } if *retry_at_ms <= now_ms => {
                self.stage = Stage::Connecting(connect())
            }
            Stage::Over | Stage::Down { .. } => {}
            Stage::Connecting(pipe) => {
                if let Some(why) = pipe.closed() {
                    self.go_down(now_ms, &why, events);
                } else if pipe.is_connected() {
                    let live = Live {
                        pipe: pipe.clone(),
                        caller: CallerLink::speaking(self.versions, self.hello, now_ms),
                        decoder: FrameDecoder::new(LINK_FRAME_BYTES_MAX),
                    };
                    self.stage = Stage::Live(Box::new(live));
                    self.turn_live(now_ms, events);
                }
            }
            Stage::Live(_) => self.turn_live(now_ms, events),
        }
    }

    /// When [`Self::turn`] is due even if nothing happens.
    pub(super) fn next_deadline_ms(&self) -> Option<u64> {
        match &self.stage {
            Stage::Down { retry_at_ms } => Some(*retry_at_ms),
            Stage::Over | Stage::Connecting(_) => None,
            Stage::Live(live) => live.caller.poll_timeout(),
        }
    }

    fn turn_live(&mut self, now_ms: u64, events: &mut Vec<StorageEvent>) {
        let Stage::Live(live) = &mut self.stage else { return };
        let was_up = live.caller.welcome().is_some();
        let received = live.receive(now_ms, self.index, self.node, &self.nodes, &mut self.refused, events);
        let turned = received.and_then(|()| live.send(now_ms, &mut self.sent));
        let welcome = live.caller.welcome();
        if let (Ok(()), false, Some(LinkWelcome { version, .. })) = (&turned, was_up, welcome) {
            self.failures = 0;
            tracing::info!(node = self.node.id, version, "storage link is open");
            events.push(StorageEvent::LinkUp(self.index));
        }
        if let Err(why) = turned {
            self.go_down(now_ms, &why, events);
        }
    }

    /// The fleet has no such node any more.
    pub(super) fn end(&mut self, now_ms: u64, events: &mut Vec<StorageEvent>) {
        self.go_down(now_ms, "the fleet has no such node any more", events);
        self.stage = Stage::Over;
    }

    fn go_down(&mut self, now_ms: u64, why: &str, events: &mut Vec<StorageEvent>) {
        let pause_ms =
            self.jitter.spread(RETRY_MS_MIN.saturating_mul(1 << self.failures.min(10)).min(RETRY_MS_MAX));
        let down = Stage::Down { retry_at_ms: now_ms + pause_ms };
        match std::mem::replace(&mut self.stage, down) {
            Stage::Live(live) => {
                let Live { pipe, caller, .. } = *live;
                let was_up = caller.welcome().is_some();
                pipe.close(why);
                let lost =
                    || Err(refusal::away("the link to storage was lost; whether it was done is unknown"));
                let answers =
                    caller.lost().into_iter().map(|id| StorageEvent::Answered { id, result: lost() });
                events.extend(answers);
                if was_up {
                    events.push(StorageEvent::LinkDown(self.index));
                }
            }
            Stage::Connecting(pipe) => pipe.close(why),
            Stage::Over | Stage::Down { .. } => {}
        }
        if self.failures == 0 {
            tracing::warn!(node = self.node.id, why, "storage link is down");
        }
        self.failures = self.failures.saturating_add(1);
    }
}

impl Live {
    fn receive(
        &mut self,
        now_ms: u64,
        link: LinkIndex,
        node: NodeFacts,
        nodes: &KnownNodes,
        refused: &mut Vec<Refused>,
        events: &mut Vec<StorageEvent>,
    ) -> Result<(), String> {
        self.decoder.push(&self.pipe.take_inbound());
        let mut wrong_node = None;
        while let Some(payload) = self.decoder.next_frame().map_err(|error| error.to_string())? {
            let frame = LinkResponseFrame::decode(payload).map_err(|error| error.to_string())?;
            let mut sink = |event| match event {
                CallerEvent::Welcome(welcome) => wrong_node = check_welcome(node, &welcome).err(),
                CallerEvent::Response(response) => match refusal::not_leader(&response) {
                    Some(told) => refused.push(by_follower(response.id, told, nodes)),
                    None => {
                        let id = response.id;
                        events.push(StorageEvent::Answered { id, result: refusal::result(response) });
                    }
                },
                CallerEvent::Delivery(delivery) => events.push(StorageEvent::Delivered { link, delivery }),
                // Gateways send no feed.
                CallerEvent::FeedAck(_) => {}
                CallerEvent::Fleet(fleet) => nodes.learn(&fleet),
                CallerEvent::Leader(leader) => match nodes.link(leader.node_id) {
                    Some(link) => {
                        let (shard, term) = (ShardId(leader.shard), leader.term);
                        events.push(StorageEvent::Leader { link, shard, term });
                    }
                    None => tracing::warn!(?leader, "leads, and is not among the nodes that are known"),
                },
            };
            self.caller.handle_frame(now_ms, frame, &mut sink).map_err(|fault| fault.to_string())?;
        }
        if let Some(problem) = wrong_node {
            return Err(problem);
        }
        // What came before the end has been taken.
        self.pipe.closed().map_or(Ok(()), Err)
    }

    fn send(&mut self, now_ms: u64, sent: &mut Vec<ShardRequest>) -> Result<(), String> {
        if self.caller.poll_timeout().is_some_and(|at_ms| at_ms <= now_ms) {
            self.caller.handle_timeout(now_ms).map_err(|fault| fault.to_string())?;
        }
        while self.pipe.has_room() {
            let Some(frame) = self.caller.poll_frame(now_ms) else { break };
            self.pipe.queue(|out| encode_message(&frame, out));
            sent.extend(frame.requests);
        }
        Ok(())
    }
}

/// A refusal of a copy that does not lead. A node that is not among those that are known is as good as none: it becomes known
/// before it is told that it leads.
fn by_follower(id: u64, told: &ShardError, nodes: &KnownNodes) -> Refused {
    let leader = Some(told.leader_node_id).filter(|node| *node > 0).and_then(|node| nodes.link(node));
    Refused { id, leader, term: told.term, error: refusal::shard_error(told.clone()) }
}

fn check_welcome(node: NodeFacts, welcome: &LinkWelcome) -> Result<(), String> {
    if welcome.node_id != node.id {
        return Err(format!("configured as node {}, but it is node {}", node.id, welcome.node_id));
    }
    if welcome.shard_count != node.shard_count {
        return Err(format!("{} shards here, {} there", node.shard_count, welcome.shard_count));
    }
    Ok(())
}

/// Spreads what would else happen at the same moment in every core of every gateway.
struct Jitter(u64);

impl Jitter {
    /// Between a half of `ms` and all of it.
    fn spread(&mut self, ms: u64) -> u64 {
        // Xorshift: any spread will do.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ms / 2 + self.0 % (ms / 2 + 1)
    }
}

#[cfg(test)]
mod tests;

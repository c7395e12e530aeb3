//! The links of a storage node to gateways and other nodes: what the tasks of `server/links.rs`, `server/peers.rs` and
//! `server/driver.rs` do between sockets and cores.

use super::{CUT_OFF_AGE_MS_MIN, Caller, RECONNECT_MS_MAX, RECONNECT_MS_MIN, Running, Serving, Wanted};
use crate::world::HOSTS;
use crate::world::clock::Clock;
use crate::world::network::{ConnectionId, Line, Side};
use crate::world::outside::Outside;
use bytes::{Bytes, BytesMut};
use storage_node::{LinkOutput, LinkPeer, PeerMessage, StorageConfig};
use wire_protocol::frame::{FrameDecoder, encode_message};
use wire_protocol::internal::{Fleet, LinkHello, LinkRequestFrame, LinkResponseFrame, link_hello};
use wire_protocol::limits::LINK_FRAME_BYTES_MAX;
use wire_protocol::link::{CallerEvent, CallerLink, ServingEvent, ServingLink, Versions, decode};

impl Caller {
    /// Whether words that were said over it may be as old as those of a leader that gives way. By the true time.
    fn may_be_late(&self, now_ms: u64) -> bool {
        self.half.is_some() && now_ms >= self.made_ms + CUT_OFF_AGE_MS_MIN
    }
}

impl Running {
    /// Calls nodes that the fleet got; those that it has no more are not called again. As `server/driver.rs` and
    /// `server/peers.rs`.
    pub(super) fn follow_fleet(&mut self, now_ms: u64) {
        for core in 0..self.node.core_count() {
            let owner = self.node.core(core);
            let changes = owner.fleet_changes();
            if std::mem::replace(&mut self.fleet_changes[core], changes) == changes {
                continue;
            }
            let others: Vec<u32> = owner.other_nodes().iter().map(|other| other.id).collect();
            let soon = Wanted { at_ms: now_ms, wait_ms: RECONNECT_MS_MIN };
            for other in &others {
                self.wanted.entry((core, *other)).or_insert(soon);
            }
            let is_called = |wanted: &Wanted| wanted.at_ms == u64::MAX;
            self.wanted
                .retain(|(of, node), wanted| *of != core || others.contains(node) || is_called(wanted));
        }
    }

    /// Connects to other nodes where that is due.
    pub(super) fn connect(&mut self, host: usize, outside: &mut Outside) {
        let now_ms = outside.now_ms;
        let due: Vec<(usize, u32)> =
            self.wanted.iter().filter(|(_, wanted)| wanted.at_ms <= now_ms).map(|(link, _)| *link).collect();
        for (core, node) in due {
            if let Some(wanted) = self.wanted.get_mut(&(core, node)) {
                wanted.at_ms = u64::MAX;
            }
            let id = outside.connect(Line { from: host, to: HOSTS.host_of_node(node), number: core });
            let decoder = FrameDecoder::new(LINK_FRAME_BYTES_MAX);
            self.callers.insert(id, Caller { core, node, half: None, decoder, made_ms: now_ms });
        }
    }

    pub(super) fn accept(&mut self, id: ConnectionId, core: usize, now_ms: u64) {
        let welcome = self.node.core(core).welcome();
        let half = ServingLink::speaking(self.versions, welcome, now_ms);
        let decoder = FrameDecoder::new(LINK_FRAME_BYTES_MAX);
        self.serving.insert(id, Serving { core, half, decoder, link: None, peer: None, version: 0 });
    }

    pub(super) fn connected(
        &mut self,
        id: ConnectionId,
        config: &StorageConfig,
        clock: Clock,
        outside: &Outside,
    ) {
        let Some(caller) = self.callers.get_mut(&id) else { return };
        let hello = LinkHello {
            role: link_hello::Role::Storage as i32,
            peer_id: config.node_id,
            incarnation: self.node.core(caller.core).epoch(),
            core: caller.core as u32,
            ..LinkHello::default()
        };
        caller.half = Some(CallerLink::speaking(self.versions, hello, clock.at(outside.now_ms)));
        caller.made_ms = outside.now_ms;
    }

    /// What a caller's peer said; as `server/peers.rs`.
    pub(super) fn take_answers(&mut self, id: ConnectionId, bytes: &Bytes, now_ms: u64) -> Result<(), ()> {
        let Some(Caller { core, node, half: Some(half), decoder, .. }) = self.callers.get_mut(&id) else {
            return Ok(());
        };
        let mut events = Vec::new();
        decoder.push(bytes);
        while let Some(payload) = decoder.next_frame().map_err(drop)? {
            let frame: LinkResponseFrame = decode(payload).map_err(drop)?;
            half.handle_frame(now_ms, frame, &mut |event| events.push(event)).map_err(drop)?;
        }
        let owner = self.node.core(*core);
        for event in events {
            match event {
                CallerEvent::Welcome(_) => {
                    let opened = Wanted { at_ms: u64::MAX, wait_ms: RECONNECT_MS_MIN };
                    self.wanted.insert((*core, *node), opened);
                    owner.peer_link_opened(*node);
                }
                CallerEvent::FeedAck(ack) => owner.receive_from_peer(now_ms, PeerMessage::Ack(ack)),
                CallerEvent::Leader(leader) => owner.hear_of_leader(leader),
                CallerEvent::Fleet(fleet) => owner.hear_of_fleet(fleet),
                CallerEvent::Response(_) | CallerEvent::Delivery(_) => return Err(()),
            }
        }
        Ok(())
    }

    /// What came over a link that somebody opened; as `server/links.rs`.
    pub(super) fn take_requests(&mut self, id: ConnectionId, bytes: &Bytes, now_ms: u64) -> Result<(), ()> {
        let Some(Serving { core, half, decoder, link, peer, version }) = self.serving.get_mut(&id) else {
            return Ok(());
        };
        let mut events = Vec::new();
        decoder.push(bytes);
        while let Some(payload) = decoder.next_frame().map_err(drop)? {
            let frame: LinkRequestFrame = decode(payload).map_err(drop)?;
            half.handle_frame(now_ms, frame, &mut |event| events.push(event)).map_err(drop)?;
        }
        let owner = self.node.core(*core);
        for event in events {
            if self.is_free && !self.newest.counts(id, peer, &event) {
                return Err(());
            }
            match (event, *link) {
                (ServingEvent::Hello(hello), _) => {
                    let theirs = Versions { min: hello.version_min, max: hello.version_max };
                    *version = self.versions.common(theirs).expect("the half has agreed on one");
                    *link = Some(owner.open_link(LinkPeer {
                        role: hello.role(),
                        peer_id: hello.peer_id,
                        incarnation: hello.incarnation,
                        core: hello.core,
                    }));
                    if hello.role() == link_hello::Role::Storage {
                        half.set_caller_folder(owner.folder_of(hello.peer_id));
                    }
                }
                (ServingEvent::Request(request), Some(link)) => owner.receive(link, request),
                (ServingEvent::Feed(batch), _) => owner.receive_from_peer(now_ms, PeerMessage::Batch(batch)),
                (ServingEvent::Raft(message), _) => {
                    owner.receive_from_peer(now_ms, PeerMessage::Raft(message));
                }
                (ServingEvent::SnapshotPart(part), _) => {
                    owner.receive_from_peer(now_ms, PeerMessage::Part(Box::new(part)));
                }
                (ServingEvent::SnapshotProgress(progress), _) => {
                    owner.receive_from_peer(now_ms, PeerMessage::Progress(progress));
                }
                (ServingEvent::ReplicaReport(report), _) => {
                    owner.receive_from_peer(now_ms, PeerMessage::Report(report));
                }
                (ServingEvent::FleetChange(fleet), _) => {
                    owner.receive_from_peer(now_ms, PeerMessage::FleetChange(Box::new(fleet)));
                }
                (ServingEvent::Hibernating(told), _) => {
                    owner.receive_from_peer(now_ms, PeerMessage::Hibernating(told));
                }
                (ServingEvent::FeedAck(ack), _) => owner.receive_from_peer(now_ms, PeerMessage::Ack(ack)),
                (ServingEvent::Request(_), None) => {
                    unreachable!("the half takes requests after a hello only")
                }
            }
        }
        Ok(())
    }

    /// A connection is gone, or has to go. Of a link that was opened to another node nothing arrives any more: there will be
    /// another one, and it would be old. What a peer was told over its own link may arrive.
    pub(super) fn give_up(&mut self, (id, side): (ConnectionId, Side), outside: &mut Outside) {
        if self.is_free && side == Side::Caller {
            outside.cut_off((id, side));
        } else {
            outside.close((id, side));
        }
        if let Some(Serving { core, link: Some(link), .. }) = self.serving.remove(&id) {
            self.node.core(core).close_link(link);
        }
        if let Some(Caller { core, node, half, .. }) = self.callers.remove(&id) {
            if self.is_free {
                self.node.core(core).peer_link_ended(node);
            }
            let was_open = half.is_some_and(|half| half.welcome().is_some());
            let wait_ms = self.wanted.get(&(core, node)).map_or(RECONNECT_MS_MIN, |wanted| wanted.wait_ms);
            let wait_ms = if was_open { RECONNECT_MS_MIN } else { (wait_ms * 2).min(RECONNECT_MS_MAX) };
            self.wanted.remove(&(core, node));
            if self.node.core(core).other_nodes().iter().any(|other| other.id == node) {
                self.wanted.insert((core, node), Wanted { at_ms: outside.now_ms + wait_ms, wait_ms });
            }
        }
    }

    /// Links to nodes that a core's word reaches too late are made anew, unless they are too young to hold words that old.
    pub(super) fn cut_off_late(&mut self, core: usize, outside: &mut Outside) {
        while let Some(node) = self.node.core(core).poll_late_node() {
            let (now_ms, spares_young) = (outside.now_ms, self.is_free);
            let is_there = |(_, caller): &(&ConnectionId, &Caller)| {
                (caller.core, caller.node) == (core, node) && (!spares_young || caller.may_be_late(now_ms))
            };
            let late = self.callers.iter().find(is_there).map(|(id, _)| *id);
            if let Some(id) = late {
                self.give_up((id, Side::Caller), outside);
            }
        }
    }

    /// Moves what a core has into its links; as `server/driver.rs`.
    pub(super) fn take_outputs(&mut self, core: usize) {
        let owner = self.node.core(core);
        while let Some(output) = owner.poll_output() {
            let (LinkOutput::Response(to, _)
            | LinkOutput::Delivery(to, _)
            | LinkOutput::Leader(to, _)
            | LinkOutput::Fleet(to, _)) = &output;
            let Some(serving) = self.serving.values_mut().find(|serving| serving.link == Some(*to)) else {
                continue;
            };
            match output {
                LinkOutput::Response(_, response) => serving.half.queue_response(response),
                LinkOutput::Delivery(_, delivery) => drop(serving.half.queue_delivery(delivery)),
                LinkOutput::Leader(_, leader) => serving.half.queue_leader(leader),
                LinkOutput::Fleet(_, fleet) => serving.half.queue_fleet(Fleet::clone(&fleet)),
            }
        }
        while let Some(output) = owner.poll_peer_output() {
            let of_node = |caller: &&mut Caller| (caller.core, caller.node) == (core, output.node);
            let Some(half) = self.callers.values_mut().find(of_node).and_then(|caller| caller.half.as_mut())
            else {
                continue;
            };
            // What a full link refuses is lost.
            match output.message {
                PeerMessage::Batch(batch) => drop(half.queue_feed(batch)),
                PeerMessage::Ack(ack) => half.queue_feed_ack(ack),
                PeerMessage::Raft(message) => drop(half.queue_raft(message)),
                PeerMessage::Part(part) => drop(half.queue_snapshot_part(*part)),
                PeerMessage::Progress(progress) => drop(half.queue_snapshot_progress(progress)),
                PeerMessage::Report(report) => drop(half.queue_replica_report(report)),
                PeerMessage::FleetChange(fleet) => drop(half.queue_fleet_change(*fleet)),
                PeerMessage::Hibernating(told) => drop(half.queue_hibernating(told)),
            }
        }
    }

    pub(super) fn look_at_clock(&mut self, now_ms: u64, outside: &mut Outside) {
        let mut dead = Vec::new();
        for (id, serving) in &mut self.serving {
            if serving.half.handle_timeout(now_ms).is_err() {
                dead.push((*id, Side::Accepter));
            }
        }
        for (id, caller) in &mut self.callers {
            let Some(half) = &mut caller.half else { continue };
            let is_due = half.poll_timeout().is_some_and(|due_ms| due_ms <= now_ms);
            if is_due && half.handle_timeout(now_ms).is_err() {
                dead.push((*id, Side::Caller));
            }
        }
        dead.into_iter().for_each(|end| self.give_up(end, outside));
    }

    pub(super) fn flush(&mut self, now_ms: u64, outside: &mut Outside) {
        for (id, serving) in &mut self.serving {
            if !outside.has_room((*id, Side::Accepter)) {
                continue;
            }
            let mut bytes = BytesMut::new();
            while let Some(frame) = serving.half.poll_frame(now_ms) {
                encode_message(&frame, &mut bytes);
            }
            outside.send((*id, Side::Accepter), bytes);
        }
        for (id, caller) in &mut self.callers {
            let Some(half) = &mut caller.half else { continue };
            if !outside.has_room((*id, Side::Caller)) {
                continue;
            }
            let mut bytes = BytesMut::new();
            while let Some(frame) = half.poll_frame(now_ms) {
                encode_message(&frame, &mut bytes);
            }
            outside.send((*id, Side::Caller), bytes);
        }
    }
}

//! How fast parts go, and what passes between them on a link.

use super::super::incoming::{name_of, progress};
use super::super::{PART_AGAIN_MS, PART_MS_WHILE_OTHERS_WAIT, SNAPSHOT_BYTES_PER_S, SnapshotRequest};
use super::queue::Sender;
use super::*;
use crate::worker::PeerMessage;
use prost::Message;
use wire_protocol::internal::{LinkHello, LinkResponseFrame, LinkWelcome};
use wire_protocol::limits::LINK_VERSION;
use wire_protocol::link::CallerLink;

/// Several times what the snapshot takes.
const MS_MAX: u64 = 500;

/// A link to node 2 that is open.
fn open_link() -> CallerLink {
    let mut link = CallerLink::new(LinkHello::default(), 0);
    link.poll_frame(0).expect("hello");
    let welcome = LinkWelcome {
        version: LINK_VERSION,
        node_id: 2,
        epoch: 1,
        credits: 1,
        shard_count: SHARDS,
        ..LinkWelcome::default()
    };
    let frame = LinkResponseFrame { welcome: Some(welcome), ..LinkResponseFrame::default() };
    link.handle_frame(0, frame, &mut |_| ()).expect("it is open");
    link
}

/// Of another shard. It says when it was queued.
fn heartbeat(now_ms: u64) -> RaftMessage {
    let kind = Kind::Heartbeat as i32;
    RaftMessage { shard: 1, kind, from: 1, to: 2, term: TERM, commit: now_ms, ..RaftMessage::default() }
}

#[test]
fn one_part_is_on_its_way_however_long_nobody_answers_and_whatever_waits() {
    let mut sender = Sender::new();
    sender.begin(&[(0, 2), (1, 2), (2, 3)]);
    let mut sent = Vec::new();
    for now_ms in 0..PART_MS_WHILE_OTHERS_WAIT {
        sender.worker.turn(now_ms);
        for (node, message) in sender.sent() {
            let PeerMessage::Part(part) = message else { panic!("only parts are sent") };
            sent.push((now_ms, node, part.shard, part.number));
        }
    }
    let again = (0..PART_MS_WHILE_OTHERS_WAIT).step_by(PART_AGAIN_MS as usize);
    assert_eq!(sent, again.map(|now_ms| (now_ms, 2, 0, 0)).collect::<Vec<_>>(), "the first one, again");
}

/// The other node takes each part at once, over a link that carries one frame in a millisecond: that is far more than a
/// snapshot may take of it. In each millisecond another shard's replica says something, too.
#[test]
fn a_snapshot_keeps_its_pace_and_what_replicas_say_passes_between_its_parts() {
    let mut sender = Sender::new();
    sender.begin(&[(0, 2)]);
    let mut link = open_link();
    let (mut parts, mut waits_ms) = (Vec::new(), Vec::new());
    let (mut on_their_way, mut answer) = (0, None);
    for now_ms in 0..MS_MAX {
        if let Some(progress) = answer.take() {
            sender.worker.take(now_ms, SnapshotRequest::Progress(progress)).unwrap();
        }
        // It is called again at once while it says so, as its thread does.
        while sender.worker.turn(now_ms) <= now_ms {}
        for (_, message) in sender.sent() {
            let PeerMessage::Part(part) = message else { panic!("only parts are sent") };
            on_their_way += 1;
            assert_eq!(on_their_way, 1, "part {} follows before the one before it is answered", part.number);
            parts.push((now_ms, part.encoded_len() as u64));
            link.queue_snapshot_part(*part).unwrap();
        }
        link.queue_raft(heartbeat(now_ms)).unwrap();
        let frame = link.poll_frame(now_ms).expect("there is a heartbeat at least");
        waits_ms.extend(frame.raft.iter().map(|heartbeat| now_ms - heartbeat.commit));
        for part in &frame.snapshot_parts {
            on_their_way -= 1;
            answer = Some(progress(part.to, ShardId(part.shard), name_of(part), part.number + 1, false));
        }
    }
    assert_eq!(sender.reports(), ["0 to 2 arrived"]);
    assert_eq!(waits_ms.len() as u64, MS_MAX, "each heartbeat went");
    assert!(waits_ms.iter().all(|waited_ms| *waited_ms <= 1), "they wait for one part: {waits_ms:?}");
    assert!(parts.len() > 4, "{parts:?}");
    assert_pace(&parts);
}

/// Between any two parts no more was sent than the time between them allows, in whole milliseconds. `parts`: when each was
/// sent, and its bytes.
fn assert_pace(parts: &[(u64, u64)]) {
    for (first, (begun_ms, _)) in parts.iter().enumerate() {
        let mut bytes = 0;
        for (sent_ms, of_part) in &parts[first..] {
            let may_take = (sent_ms - begun_ms + 1) * SNAPSHOT_BYTES_PER_S / 1_000;
            assert!(bytes <= may_take, "{bytes} bytes from {begun_ms} to {sent_ms} ms: {parts:?}");
            bytes += of_part;
        }
    }
}

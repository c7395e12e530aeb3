//! Both halves of the link between gateways and storage nodes.

use crate::Target;
use crate::input::Input;
use bytes::Bytes;
use wire_protocol::internal::{
    LinkHello, LinkRequestFrame, LinkResponseFrame, LinkWelcome, ShardRequest, ShardResponse, link_hello,
    shard_response,
};
use wire_protocol::limits::{LINK_FRAME_BYTES_MAX, LINK_VERSION};
use wire_protocol::link::{CallerEvent, CallerLink, ServingEvent, ServingLink, decode};

/// Requests that the serving half allows.
const CREDITS: u32 = 8;

/// See `holds`.
pub const LINK_SERVING: Target = Target {
    name: "link-serving",
    holds: "whatever a caller sends, requests stay within their credits and every frame can be sent",
    run: link_serving,
};
/// See `holds`.
pub const LINK_CALLER: Target = Target {
    name: "link-caller",
    holds: "whatever a node sends, each request is answered once or given back, and every frame can be sent",
    run: link_caller,
};

/// A gateway's.
pub(super) fn hello() -> LinkHello {
    let role = link_hello::Role::Gateway as i32;
    LinkHello { version_min: LINK_VERSION, version_max: LINK_VERSION, role, ..LinkHello::default() }
}

/// A node's.
pub(super) fn welcome() -> LinkWelcome {
    LinkWelcome {
        version: LINK_VERSION,
        node_id: 1,
        epoch: 7,
        credits: CREDITS,
        shard_count: 8,
        ..LinkWelcome::default()
    }
}

fn sendable(frame: &impl prost::Message) {
    assert!(frame.encoded_len() <= LINK_FRAME_BYTES_MAX);
}

fn link_serving(data: &[u8]) {
    let mut input = Input::new(data);
    let mut serving = ServingLink::new(welcome(), 0);
    let mut unanswered: Vec<u64> = Vec::new();
    let opening = LinkRequestFrame { hello: Some(hello()), ..LinkRequestFrame::default() };
    if input.byte() < 200 {
        serving.handle_frame(0, opening, &mut |_| {}).expect("a good hello");
        assert!(serving.poll_frame(0).expect("a welcome").welcome.is_some());
    }
    while !input.is_empty() {
        let now_ms = input.number();
        let Ok(frame) = decode::<LinkRequestFrame>(Bytes::copy_from_slice(input.slice())) else { return };
        let taken = serving.handle_frame(now_ms, frame, &mut |event| {
            if let ServingEvent::Request(request) = event {
                assert!(request.operation.is_some());
                unanswered.push(request.id);
            }
        });
        if taken.is_err() {
            return;
        }
        assert!(serving.outstanding() <= CREDITS as usize && unanswered.len() <= CREDITS as usize);
        for _ in 0..input.below(4).min(unanswered.len()) {
            let result = Some(shard_response::Result::Error(Default::default()));
            serving.queue_response(ShardResponse { id: unanswered.remove(0), result });
        }
        while let Some(frame) = serving.poll_frame(now_ms) {
            sendable(&frame);
        }
    }
}

fn link_caller(data: &[u8]) {
    let mut input = Input::new(data);
    let mut caller = CallerLink::new(hello(), 0);
    assert!(caller.poll_frame(0).expect("it begins").hello.is_some());
    if input.byte() < 200 {
        let frame = LinkResponseFrame { welcome: Some(welcome()), ..LinkResponseFrame::default() };
        caller.handle_frame(0, frame, &mut |_| {}).expect("a good welcome");
    }
    let (mut asked, mut answered) = (0u64, 0u64);
    while !input.is_empty() {
        let now_ms = input.number();
        for _ in 0..input.below(4) {
            if caller.can_send() {
                asked += 1;
                caller
                    .queue_request(ShardRequest { id: asked, ..ShardRequest::default() })
                    .expect("it said so");
            }
        }
        while let Some(frame) = caller.poll_frame(now_ms) {
            sendable(&frame);
        }
        let Ok(frame) = decode::<LinkResponseFrame>(Bytes::copy_from_slice(input.slice())) else { break };
        let taken = caller.handle_frame(now_ms, frame, &mut |event| {
            answered += u64::from(matches!(event, CallerEvent::Response(_)));
        });
        if taken.is_err() {
            break;
        }
    }
    assert_eq!(answered + caller.lost().len() as u64, asked, "each is answered once or given back");
}

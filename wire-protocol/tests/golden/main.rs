//! Golden frames: the bytes of `golden/*.bin` beside their readable twins `*.json`, in both directions.
//!
//! `golden/README.md` says what they are for and how to make them anew.

mod frames;
mod link;

use bytes::{Bytes, BytesMut};
use frames::{ALICE, CONVERSATION, TIME_MS, client_frames, hello_frames, id, server_frames};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, Kind, MessageDescriptor, SerializeOptions, Value};
use std::collections::BTreeSet;
use std::path::PathBuf;
use wire_protocol::frame::{FrameDecoder, encode_frame};
use wire_protocol::ids::{DeviceId, UserId};
use wire_protocol::internal::{LinkHello, LinkResponseFrame, LinkWelcome, ShardRequest};
use wire_protocol::limits::FRAME_BYTES_MAX;
use wire_protocol::link::{CallerLink, ServingEvent, ServingLink, Versions, decode};
use wire_protocol::session::{ClientEvent, ClientSession, Proof, ReadyInfo, ServerInput, ServerSession};
use wire_protocol::v1::*;

/// When set to `write`, the files are made from the frames in `frames.rs` instead of compared with them.
const WRITE: &str = "RINGLINE_GOLDEN";

fn path(name: &str, ending: &str) -> PathBuf {
    let own = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo says where this checkout is");
    PathBuf::from(own).join("golden").join(format!("{name}.{ending}"))
}

fn writes() -> bool {
    std::env::var(WRITE).is_ok_and(|value| value == "write")
}

/// The file's bytes; made first when asked for.
fn file(name: &str, ending: &str, made: &[u8]) -> Vec<u8> {
    let path = path(name, ending);
    if writes() {
        std::fs::write(&path, made).expect("golden/ can be written");
    }
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; see golden/README.md", path.display()))
}

/// The golden bytes of one frame.
fn golden(name: &str) -> Bytes {
    let client = client_frames().into_iter().map(|(name, frame)| (name, frame.encode_to_vec()));
    let server = server_frames().into_iter().map(|(name, frame)| (name, frame.encode_to_vec()));
    let (_, made) = client.chain(server).find(|(known, _)| *known == name).expect("a golden frame");
    file(name, "bin", &made).into()
}

fn descriptor(message: &str) -> MessageDescriptor {
    let pool =
        DescriptorPool::decode(include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin")).as_slice());
    let pool = pool.expect("what the build script wrote");
    pool.get_message_by_name(&format!("ringline.{message}")).expect("a message of the protocol")
}

/// The readable form: protobuf's own JSON, which every protobuf library reads and writes.
fn to_json(descriptor: &MessageDescriptor, bytes: &[u8]) -> String {
    let message = DynamicMessage::decode(descriptor.clone(), bytes).expect("a frame");
    let mut json = Vec::new();
    let mut serializer = serde_json::Serializer::pretty(&mut json);
    message.serialize_with_options(&mut serializer, &SerializeOptions::new()).expect("JSON");
    json.push(b'\n');
    String::from_utf8(json).expect("JSON is UTF-8")
}

fn from_json(descriptor: &MessageDescriptor, json: &str) -> Vec<u8> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    DynamicMessage::deserialize(descriptor.clone(), &mut deserializer).expect("a twin").encode_to_vec()
}

/// Bytes and twin say the same as the frame in the code, whichever one starts from.
fn compare<Frame: Message + Default + PartialEq + std::fmt::Debug>(message: &str, name: &str, frame: &Frame) {
    let descriptor = descriptor(message);
    let encoded = frame.encode_to_vec();
    let bytes = file(name, "bin", &encoded);
    let twin =
        String::from_utf8(file(name, "json", to_json(&descriptor, &encoded).as_bytes())).expect("UTF-8");
    assert_eq!(encoded, bytes, "{name}: this code writes other bytes");
    assert_eq!(Frame::decode(bytes.as_slice()).as_ref(), Ok(frame), "{name}: this code reads something else");
    assert_eq!(to_json(&descriptor, &bytes), twin, "{name}: the bytes are not what the twin says");
    assert_eq!(from_json(&descriptor, &twin), bytes, "{name}: the twin is not what the bytes say");
}

/// The fields of the frame's oneof that no golden frame has.
fn missing(message: &str, names: impl Iterator<Item = Vec<u8>>) -> BTreeSet<String> {
    let descriptor = descriptor(message);
    let body = descriptor.oneofs().next().expect("the body");
    let mut missing: BTreeSet<String> = body.fields().map(|field| field.name().to_owned()).collect();
    for bytes in names {
        let frame = DynamicMessage::decode(descriptor.clone(), bytes.as_slice()).expect("a frame");
        body.fields().filter(|field| frame.has_field(field)).for_each(|field| {
            missing.remove(field.name());
        });
    }
    missing
}

#[test]
fn every_client_frame_is_what_it_was() {
    client_frames().iter().for_each(|(name, frame)| compare("v1.ClientFrame", name, frame));
    let missing = missing("v1.ClientFrame", client_frames().iter().map(|(_, frame)| frame.encode_to_vec()));
    assert!(missing.is_empty(), "without a golden frame: {missing:?}");
}

#[test]
fn every_server_frame_is_what_it_was() {
    server_frames().iter().for_each(|(name, frame)| compare("v1.ServerFrame", name, frame));
    let missing = missing("v1.ServerFrame", server_frames().iter().map(|(_, frame)| frame.encode_to_vec()));
    assert!(missing.is_empty(), "without a golden frame: {missing:?}");
}

/// A native connection's bytes: each frame behind its length. The twin lists prefix and frame.
fn compare_stream(name: &str, frames: Vec<(&'static str, Vec<u8>)>) {
    let (mut stream, mut twin) = (BytesMut::new(), String::new());
    for (frame_name, payload) in &frames {
        let before = stream.len();
        encode_frame(payload, &mut stream);
        let prefix_bytes = stream.len() - before - payload.len();
        let prefix: String =
            stream[before..before + prefix_bytes].iter().map(|byte| format!("{byte:02x}")).collect();
        twin += &format!("{prefix} {frame_name} ({} bytes)\n", payload.len());
    }
    assert_eq!(file(name, "bin", &stream), stream, "{name}: this code frames otherwise");
    assert_eq!(file(name, "txt", twin.as_bytes()), twin.as_bytes(), "{name}: the twin says otherwise");
    let mut decoder = FrameDecoder::new(FRAME_BYTES_MAX);
    let mut expected = frames.into_iter().map(|(_, payload)| Bytes::from(payload));
    for piece in file(name, "bin", &stream).chunks(7) {
        decoder.push(piece);
        while let Some(payload) = decoder.next_frame().expect("well framed") {
            assert_eq!(Some(payload), expected.next());
        }
    }
    assert!(decoder.is_empty() && expected.next().is_none());
}

#[test]
fn a_native_stream_is_what_it_was() {
    let client = client_frames().into_iter().map(|(name, frame)| (name, frame.encode_to_vec()));
    let server = server_frames().into_iter().map(|(name, frame)| (name, frame.encode_to_vec()));
    compare_stream("native-client", client.collect());
    compare_stream("native-server", server.collect());
}

#[test]
fn a_server_half_takes_every_golden_client_frame() {
    for (first, _) in hello_frames() {
        let mut server = ServerSession::new(0);
        let mut out = BytesMut::new();
        let input = server.handle_frame(0, golden(first), &mut out).expect("a good hello");
        assert!(matches!(input, ServerInput::Authenticate { .. }));
        let info = ReadyInfo {
            user: UserId::from_slice(&id(ALICE)).expect("16 bytes"),
            device: DeviceId::from_slice(&id(0x10)).expect("16 bytes"),
            server_time_ms: TIME_MS,
            resume_token: Bytes::from_static(b"\x01resume\xff"),
            feed_version: 5 << 40,
        };
        server.ready(0, info, &mut out);
        assert_eq!(out.split().freeze(), golden("server-ready"), "a server half writes the golden ready");
        let receipt = ReceiptEvent { conversation_id: id(CONVERSATION), ..ReceiptEvent::default() };
        server.event(server_frame::Body::Receipt(receipt), &mut out);
        for (name, frame) in client_frames().into_iter().skip(hello_frames().len()) {
            let input = server.handle_frame(0, golden(name), &mut BytesMut::new()).expect(name);
            match input {
                ServerInput::Request { request_id, .. } => assert_eq!(request_id, frame.request_id, "{name}"),
                ServerInput::Handled => assert_eq!(name, "client-ping"),
                ServerInput::Authenticate { .. } => panic!("{name}"),
            }
        }
    }
}

#[test]
fn a_client_half_takes_every_golden_server_frame() {
    let mut client = ClientSession::new(0);
    let mut out = BytesMut::new();
    client.hello(Proof::AccessToken("header.claims.signature".into()), 30, "golden 1.0", &mut out);
    assert_eq!(out.split().freeze(), golden("client-hello"), "a client half writes the golden hello");
    let names = server_frames().into_iter().map(|(name, _)| name);
    let (closing, others): (Vec<_>, Vec<_>) = names.partition(|name| name.starts_with("server-closing"));
    for name in others {
        let event = client.handle_frame(0, golden(name));
        assert!(event.is_ok(), "{name}: {event:?}");
        if name == "server-ready" {
            while client.request(0, client_frame::Body::Ping(Ping {}), &mut out).is_ok() {}
        }
    }
    for name in closing {
        let mut client = ClientSession::new(0);
        client.hello(Proof::AccessToken("header.claims.signature".into()), 30, "golden 1.0", &mut out);
        let event = client.handle_frame(0, golden(name));
        assert!(matches!(event, Ok(ClientEvent::Closing(_))), "{name}: {event:?}");
    }
}

/// Full names of the fields that are set in a message and in those within it.
fn fields_set(message: &DynamicMessage, found: &mut BTreeSet<String>) {
    for (field, value) in message.fields() {
        found.insert(field.full_name().to_owned());
        let within = match value {
            Value::List(values) => values.as_slice(),
            value => std::slice::from_ref(value),
        };
        within.iter().filter_map(Value::as_message).for_each(|message| fields_set(message, found));
    }
}

/// Full names of all fields of a message of the link and of those within it; the client protocol has its own frames.
fn fields_known(descriptor: &MessageDescriptor, found: &mut BTreeSet<String>) {
    for field in descriptor.fields() {
        let is_new = found.insert(field.full_name().to_owned());
        if let Kind::Message(within) = field.kind()
            && is_new
            && within.package_name() == descriptor.package_name()
        {
            fields_known(&within, found);
        }
    }
}

fn check_link_frames<Frame: Message + Default + PartialEq + std::fmt::Debug>(
    message: &str,
    frames: &[(&'static str, Frame)],
) {
    let (mut known, mut set) = (BTreeSet::new(), BTreeSet::new());
    fields_known(&descriptor(message), &mut known);
    for (name, frame) in frames {
        compare(message, name, frame);
        let bytes = frame.encode_to_vec();
        fields_set(
            &DynamicMessage::decode(descriptor(message), bytes.as_slice()).expect("a frame"),
            &mut set,
        );
    }
    let missing: Vec<&String> = known.difference(&set).collect();
    assert!(missing.is_empty(), "without a golden frame: {missing:?}");
}

#[test]
fn every_link_frame_is_what_it_was() {
    check_link_frames("internal.v1.LinkRequestFrame", &link::request_frames());
    let responses = [link::response_frames(), link::founding_frames()].concat();
    check_link_frames("internal.v1.LinkResponseFrame", &responses);
}

/// The golden bytes of one frame of the link.
fn golden_link(name: &str) -> Vec<u8> {
    let requests = link::request_frames().into_iter().map(|(name, frame)| (name, frame.encode_to_vec()));
    let responses = link::response_frames().into_iter().map(|(name, frame)| (name, frame.encode_to_vec()));
    let (_, made) = requests.chain(responses).find(|(known, _)| *known == name).expect("a golden frame");
    file(name, "bin", &made)
}

fn golden_hello() -> LinkHello {
    link::request_frames().swap_remove(0).1.hello.expect("it opens the link")
}

fn golden_welcome() -> LinkWelcome {
    link::response_frames().swap_remove(0).1.welcome.expect("it opens the link")
}

#[test]
fn a_serving_half_takes_every_golden_link_request() {
    let mut serving = ServingLink::new(golden_welcome(), 0);
    let mut requests = Vec::new();
    for (name, _) in link::request_frames() {
        let payload = Bytes::from(golden_link(name));
        let mut take = |event| match event {
            ServingEvent::Request(request) => requests.push(request),
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
        serving.handle_frame(0, decode(payload).expect(name), &mut take).expect(name);
        let answer = serving.poll_frame(0).map(|frame| frame.encode_to_vec());
        match name {
            "link-hello" => assert_eq!(answer, Some(golden_link("link-welcome")), "the golden welcome"),
            "link-ping" => assert_eq!(answer, Some(golden_link("link-pong")), "the golden pong"),
            _ => assert_eq!(answer, None, "{name}"),
        }
    }
    let sent = link::request_frames().into_iter().flat_map(|(_, frame)| frame.requests);
    assert_eq!(requests, sent.collect::<Vec<_>>());
}

#[test]
fn a_calling_half_takes_every_golden_link_response() {
    // It is of the first version, which is spoken still.
    let mut caller = CallerLink::speaking(Versions { min: 1, max: 1 }, golden_hello(), 0);
    let hello = caller.poll_frame(0).map(|frame| frame.encode_to_vec());
    assert_eq!(hello, Some(golden_link("link-hello")), "a calling half writes the golden hello");
    let mut events = 0;
    for (name, frame) in link::response_frames() {
        for response in &frame.responses {
            caller.queue_request(ShardRequest { id: response.id, ..ShardRequest::default() }).expect(name);
        }
        let payload = Bytes::from(golden_link(name));
        caller.handle_frame(0, decode(payload).expect(name), &mut |_| events += 1).expect(name);
    }
    let items = link::response_frames()
        .iter()
        .map(|(_, frame)| {
            let LinkResponseFrame { responses, deliveries, feed_acks, leaders, fleet, .. } = frame;
            responses.len() + deliveries.len() + feed_acks.len() + leaders.len() + fleet.iter().count()
        })
        .sum::<usize>();
    assert_eq!((events, caller.outstanding()), (items + 1, 0));
}

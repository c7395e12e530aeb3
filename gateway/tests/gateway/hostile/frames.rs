//! Bytes that are no frames, and frames that are no requests.

use super::{assert_alive, assert_serves, half_close, raw, read_to_end};
use crate::client::{Client, Way, upgraded};
use crate::server::Server;
use bytes::BytesMut;
use std::io::Write;
use std::net::TcpStream;
use wire_protocol::frame::encode_frame;
use wire_protocol::limits::{FRAME_BYTES_MAX, HELLO_FRAME_BYTES_MAX};
use wire_protocol::v1::ErrorCode;
use wire_protocol::v1::session_closing::Reason;
use wire_protocol::websocket::{Decoder, FRAGMENTS_MAX, Item};

const MASK: [u8; 4] = [9, 8, 7, 6];

/// A masked WebSocket frame with this first byte.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() < 126, "a short one");
    let bytes = payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask);
    [first, 0x80 | payload.len() as u8].into_iter().chain(MASK).chain(bytes).collect()
}

/// The code of the close frame that ends the stream.
fn close_code(mut stream: TcpStream) -> Option<u16> {
    let mut decoder = Decoder::for_client(FRAME_BYTES_MAX);
    decoder.push(&read_to_end(&mut stream));
    std::iter::from_fn(|| decoder.next_item().expect("the server keeps RFC 6455")).find_map(|item| match item
    {
        Item::Close { code, .. } => code.map(|code| code.0),
        _ => None,
    })
}

/// What breaks RFC 6455, or ends the session in its way: what it is, the bytes, and the code of the close that answers.
pub fn broken_websocket() -> Vec<(&'static str, Vec<u8>, u16)> {
    let begun = masked(0x02, b"a");
    vec![
        ("no mask", b"\x82\x02hi".to_vec(), 1002),
        ("no mask on a ping", b"\x89\x00".to_vec(), 1002),
        ("reserved bit 1", masked(0xc2, b"a"), 1002),
        ("reserved bit 2", masked(0xa2, b"a"), 1002),
        ("reserved bit 3", masked(0x92, b"a"), 1002),
        ("opcode 3", masked(0x83, b"a"), 1002),
        ("opcode 15", masked(0x8f, b"a"), 1002),
        ("ping of 126 bytes", vec![0x89, 0xfe, 0, 126, 9, 8, 7, 6], 1002),
        ("ping of 2^63 bytes", vec![0x89, 0xff, 128, 0, 0, 0, 0, 0, 0, 0], 1002),
        ("fragmented ping", masked(0x09, b"a"), 1002),
        ("fragmented close", masked(0x08, b""), 1002),
        ("continuation of nothing", masked(0x80, b"a"), 1002),
        ("continuation of nothing, unfinished", masked(0x00, b"a"), 1002),
        ("a message within a message", [begun.clone(), masked(0x82, b"b")].concat(), 1002),
        ("text within a message", [begun.clone(), masked(0x81, b"b")].concat(), 1002),
        ("16 bits for 5", vec![0x82, 0xfe, 0, 5, 9, 8, 7, 6], 1002),
        ("64 bits for 300", vec![0x82, 0xff, 0, 0, 0, 0, 0, 0, 1, 44], 1002),
        ("a length beyond 63 bits", vec![0x82, 0xff, 255, 255, 255, 255, 255, 255, 255, 255], 1002),
        ("a length beyond what is there", vec![0x82, 0xff, 127, 255, 255, 255, 255, 255, 255, 255], 1009),
        ("beyond a hello", vec![0x82, 0xfe, 0x10, 0x01], 1009),
        ("close of one byte", masked(0x88, &[3]), 1002),
        ("close code 0", masked(0x88, &[0, 0]), 1002),
        ("close code 1005", masked(0x88, &[3, 237]), 1002),
        ("close code 1006", masked(0x88, &[3, 238]), 1002),
        ("close code 65535", masked(0x88, &[255, 255]), 1002),
        ("close reason that is no text", masked(0x88, &[3, 232, 0xc3, 0x28]), 1007),
        ("text", masked(0x81, b"hello"), 1003),
        ("text that is no text", masked(0x81, &[0xff]), 1007),
        ("too many fragments", [begun, masked(0x00, b"").repeat(FRAGMENTS_MAX as usize)].concat(), 1009),
        ("a good close", masked(0x88, &[3, 232]), 1000),
        ("a close with a code of its own", masked(0x88, &[0x0f, 0xa0]), 4000),
    ]
}

#[test]
fn whatever_breaks_rfc_6455_is_closed_with_its_code() {
    let server = Server::embedded();
    let ada = server.register("ada");
    for (what, bytes, code) in broken_websocket() {
        let mut stream = upgraded(raw(server.plain));
        // Nothing that follows is looked at.
        stream.write_all(&[bytes, masked(0x89, b"ping")].concat()).expect("sent");
        assert_eq!(close_code(stream), Some(code), "{what}");
    }
    let mut cut = upgraded(raw(server.plain));
    cut.write_all(&masked(0x82, b"a frame")[..8]).expect("sent");
    half_close(&cut);
    read_to_end(&mut cut);
    assert_serves(&server, &ada);
}

#[test]
fn native_bytes_that_are_no_frames_end_the_connection() {
    let server = Server::embedded();
    let ada = server.register("ada");
    let mut long = BytesMut::new();
    encode_frame(&vec![0; HELLO_FRAME_BYTES_MAX + 1], &mut long);
    for (what, bytes) in [
        ("a frame above a hello", long.to_vec()),
        ("a length above everything", vec![0xff, 0xff, 0x7f]),
        ("a length of four bytes", vec![0xff, 0xff, 0xff, 0x01]),
        ("a length not in its shortest form", vec![0x81, 0x00]),
        ("an empty frame", vec![0x00]),
        ("a frame cut off", vec![0x05, 0x0a]),
        ("nothing", Vec::new()),
        ("zeros", vec![0; 10_000]),
        ("ones", vec![0xff; 10_000]),
    ] {
        let mut stream = raw(server.plain);
        // The server may be quicker to close than we to write all.
        let _ = stream.write_all(&bytes);
        half_close(&stream);
        assert!(read_to_end(&mut stream).len() < 200, "{what}");
    }
    assert_serves(&server, &ada);
}

/// Fields within fields, so deep, in the field with this tag.
fn nested(tag: &[u8], depth: usize) -> Vec<u8> {
    (0..depth).fold(Vec::new(), |inner: Vec<u8>, _| {
        let mut outer = tag.to_vec();
        prost::encoding::encode_varint(inner.len() as u64, &mut outer);
        outer.extend(inner);
        outer
    })
}

/// Payloads of frames that are no requests: what it is, the bytes, and the code that is told.
pub fn no_requests() -> Vec<(&'static str, Vec<u8>, ErrorCode)> {
    let malformed = ErrorCode::ErrorMalformedFrame;
    let unexpected = ErrorCode::ErrorUnexpectedFrame;
    vec![
        ("random bytes", (0..200u32).map(|byte| (byte * 167 + 13) as u8).collect(), malformed),
        ("a field without its value", vec![0x08], malformed),
        (
            "a varint without end",
            vec![0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            malformed,
        ),
        ("a length beyond the frame", vec![0x32, 0x7f, 0x0a], malformed),
        ("groups within groups", vec![0x0b; 20_000], malformed),
        ("field 0", vec![0x00, 0x00], malformed),
        ("wire type 7", vec![0x0f, 0x01], malformed),
        ("a request without an id", vec![0x4a, 0x00], malformed),
        ("a second hello", vec![0x12, 0x00], unexpected),
        ("too large", vec![0; FRAME_BYTES_MAX + 1], ErrorCode::ErrorFrameTooLarge),
    ]
}

#[test]
fn frames_that_are_no_requests_are_told_and_closed_also_after_hello() {
    let server = Server::embedded();
    let ada = server.register("ada");
    for way in [Way::NativePlain, Way::WebSocket] {
        for (what, payload, code) in &no_requests() {
            let mut client = Client::connect(&server, way, &ada);
            client.send(payload);
            let closing = client.wait_for_end().unwrap_or_else(|| panic!("{what}: no reason"));
            assert_eq!(
                (closing.reason(), closing.code()),
                (Reason::ProtocolError, *code),
                "{what} {way:?}: {}",
                closing.detail
            );
        }
    }
    // Unknown fields, however deep, are a later version's, and never looked into. A ping without an id has no answer.
    let mut client = Client::connect(&server, Way::NativePlain, &ada);
    let ping = [nested(&[0xa2, 0x06], 5_000), vec![0x32, 0x00]].concat();
    client.send(&ping);
    let mut framed = BytesMut::new();
    encode_frame(&[0x32, 0x00], &mut framed);
    framed.iter().for_each(|byte| client.send_raw(&[*byte]));
    assert_alive(&mut client);
    assert_serves(&server, &ada);
}

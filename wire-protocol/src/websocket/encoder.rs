//! Items to the peer become bytes. Every message is one frame; lengths take their shortest form.

use super::{
    CLOSE_REASON_BYTES_MAX, CONTROL_BYTES_MAX, CloseCode, HEADER_BYTES_MAX, MaskKey, Opcode, apply_mask,
};
use bytes::{BufMut, BytesMut};

/// One message or control frame to the peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outgoing<'a> {
    /// One frame of the client protocol.
    Binary(&'a [u8]),
    /// Text; only tests send it.
    Text(&'a str),
    /// 125 bytes at most.
    Ping(&'a [u8]),
    /// 125 bytes at most: the payload of the ping it answers.
    Pong(&'a [u8]),
    /// The last frame. A reason is cut to 123 bytes between two characters; without a code there is none.
    Close(Option<CloseCode>, &'a str),
}

/// Appends one frame: masked with the key (fresh and unpredictable for each frame) if a client sends it,
/// without a key if a server does.
///
/// Panics if a ping or pong is too long or a close code must not be sent: those are the caller's bugs.
pub fn encode(item: Outgoing<'_>, mask: Option<MaskKey>, out: &mut BytesMut) {
    match item {
        Outgoing::Binary(payload) => encode_frame(Opcode::Binary, &[payload], mask, out),
        Outgoing::Text(text) => encode_frame(Opcode::Text, &[text.as_bytes()], mask, out),
        Outgoing::Ping(payload) => encode_frame(Opcode::Ping, &[payload], mask, out),
        Outgoing::Pong(payload) => encode_frame(Opcode::Pong, &[payload], mask, out),
        Outgoing::Close(None, _) => encode_frame(Opcode::Close, &[], mask, out),
        Outgoing::Close(Some(code), reason) => {
            assert!(code.is_sendable(), "{code:?} must not be sent");
            encode_frame(Opcode::Close, &[&code.0.to_be_bytes(), cut_reason(reason).as_bytes()], mask, out);
        }
    }
}

/// Appends a server's binary message.
pub fn encode_binary(payload: &[u8], out: &mut BytesMut) {
    encode(Outgoing::Binary(payload), None, out);
}

/// Appends a server's ping; 125 bytes at most.
pub fn encode_ping(payload: &[u8], out: &mut BytesMut) {
    encode(Outgoing::Ping(payload), None, out);
}

/// Appends a server's pong; 125 bytes at most.
pub fn encode_pong(payload: &[u8], out: &mut BytesMut) {
    encode(Outgoing::Pong(payload), None, out);
}

/// Appends a server's close.
pub fn encode_close(code: CloseCode, reason: &str, out: &mut BytesMut) {
    encode(Outgoing::Close(Some(code), reason), None, out);
}

/// As much of the reason as a close frame holds, cut between two characters.
fn cut_reason(reason: &str) -> &str {
    let ends = (0..=CLOSE_REASON_BYTES_MAX.min(reason.len())).rev();
    ends.filter_map(|end| reason.get(..end)).next().unwrap_or_default()
}

fn encode_frame(opcode: Opcode, parts: &[&[u8]], mask: Option<MaskKey>, out: &mut BytesMut) {
    let payload_bytes: usize = parts.iter().map(|part| part.len()).sum();
    assert!(
        !opcode.is_control() || payload_bytes <= CONTROL_BYTES_MAX,
        "a control frame has 125 bytes at most"
    );
    out.reserve(HEADER_BYTES_MAX + payload_bytes);
    out.put_u8(0x80 | opcode.bits());
    let mask_bit = if mask.is_some() { 0x80 } else { 0 };
    match (u8::try_from(payload_bytes), u16::try_from(payload_bytes)) {
        (Ok(length @ 0..=125), _) => out.put_u8(mask_bit | length),
        (_, Ok(length)) => {
            out.put_u8(mask_bit | 126);
            out.put_u16(length);
        }
        _ => {
            out.put_u8(mask_bit | 127);
            out.put_u64(payload_bytes as u64);
        }
    }
    if let Some(key) = mask {
        out.put_slice(&key);
    }
    let payload_at = out.len();
    parts.iter().for_each(|part| out.put_slice(part));
    if let Some(key) = mask {
        apply_mask(key, &mut out[payload_at..]);
    }
}

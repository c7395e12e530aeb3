//! Length-prefixed framing: a varint length, then that many bytes of payload.
//!
//! Used on native client connections and on storage links alike. Knows nothing of what a payload means. On
//! WebSocket one binary message is one payload and this module is not needed.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::indexing_slicing))]

mod decoder;

pub use decoder::{FrameDecoder, FrameError};

use bytes::{BufMut, BytesMut};
use prost::Message;

/// Appends `payload` as one frame.
pub fn encode_frame(payload: &[u8], out: &mut BytesMut) {
    out.reserve(prost::length_delimiter_len(payload.len()) + payload.len());
    prost::encode_length_delimiter(payload.len(), out).expect("a BytesMut grows");
    out.put_slice(payload);
}

/// Appends `message` as one frame, without an intermediate copy.
pub fn encode_message(message: &impl Message, out: &mut BytesMut) {
    message.encode_length_delimited(out).expect("a BytesMut grows");
}

#[cfg(test)]
mod tests;

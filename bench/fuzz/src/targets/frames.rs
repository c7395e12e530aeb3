//! Frames and the messages in them.

use crate::Target;
use crate::input::Input;
use bytes::{Bytes, BytesMut};
use prost::Message;
use wire_protocol::frame::{FrameDecoder, FrameError, encode_frame};
use wire_protocol::internal::{LinkRequestFrame, LinkResponseFrame};
use wire_protocol::v1::{ClientFrame, ServerFrame};

/// Largest payload of the decoders here.
const PAYLOAD_BYTES_MAX: usize = 4_096;

/// See `holds`.
pub const FRAMES: Target = Target {
    name: "frames",
    holds: "frames come out the same however their bytes are cut, none is larger than allowed, and they encode back to the \
            same bytes",
    run: frames,
};
/// See `holds`.
pub const CLIENT_MESSAGES: Target = Target {
    name: "client-messages",
    holds: "a client's or server's frame that decodes encodes to one that decodes to the same",
    run: client_messages,
};
/// See `holds`.
pub const LINK_MESSAGES: Target = Target {
    name: "link-messages",
    holds: "a link's frame that decodes encodes to one that decodes to the same",
    run: link_messages,
};

fn all_frames<'a>(
    payload_bytes_max: usize,
    pieces: impl Iterator<Item = &'a [u8]>,
) -> (Vec<Bytes>, Option<FrameError>) {
    let mut decoder = FrameDecoder::new(payload_bytes_max);
    let mut frames = Vec::new();
    for piece in pieces {
        decoder.push(piece);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

fn frames(data: &[u8]) {
    let mut input = Input::new(data);
    let step = 1 + input.below(64);
    // Inputs are short: so is the bound, mostly.
    let payload_bytes_max = [16, 256, 1_024, PAYLOAD_BYTES_MAX][input.below(4)];
    let bytes = input.rest();
    let (whole, fault) = all_frames(payload_bytes_max, std::iter::once(bytes));
    let (cut, fault_of_cut) = all_frames(payload_bytes_max, bytes.chunks(step));
    assert_eq!((&whole, fault.is_some()), (&cut, fault_of_cut.is_some()));
    let mut encoded = BytesMut::new();
    for frame in &whole {
        assert!(frame.len() <= payload_bytes_max);
        encode_frame(frame, &mut encoded);
    }
    assert!(bytes.starts_with(&encoded), "a length has one form");
    assert_eq!(all_frames(payload_bytes_max, std::iter::once(&encoded[..])), (whole, None));
}

fn round_trip<M: Message + Default + PartialEq + std::fmt::Debug>(data: &[u8]) {
    if let Ok(message) = M::decode(data) {
        let bytes = message.encode_to_vec();
        assert_eq!(bytes.len(), message.encoded_len());
        assert_eq!(M::decode(&bytes[..]).as_ref(), Ok(&message));
    }
}

fn client_messages(data: &[u8]) {
    round_trip::<ClientFrame>(data);
    round_trip::<ServerFrame>(data);
}

fn link_messages(data: &[u8]) {
    round_trip::<LinkRequestFrame>(data);
    round_trip::<LinkResponseFrame>(data);
}

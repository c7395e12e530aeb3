use super::*;
use crate::limits::{FRAME_BYTES_MAX, LINK_FRAME_BYTES_MAX};
use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

/// Every frame until the stream waits for more.
fn drain(decoder: &mut FrameDecoder) -> Result<Vec<Bytes>, FrameError> {
    let mut frames = Vec::new();
    while let Some(frame) = decoder.next_frame()? {
        frames.push(frame);
    }
    Ok(frames)
}

fn framed(payloads: &[Vec<u8>]) -> BytesMut {
    let mut stream = BytesMut::new();
    payloads.iter().for_each(|payload| encode_frame(payload, &mut stream));
    stream
}

#[test]
fn prefixes_are_as_long_as_they_must_be() {
    for (payload_bytes, prefix) in [
        (0, &[0x00u8][..]),
        (1, &[0x01]),
        (127, &[0x7f]),
        (128, &[0x80, 0x01]),
        (FRAME_BYTES_MAX, &[0x80, 0x80, 0x04]),
        (LINK_FRAME_BYTES_MAX, &[0x80, 0x80, 0x80, 0x02]),
    ] {
        let payload = vec![7; payload_bytes];
        let stream = framed(std::slice::from_ref(&payload));
        assert_eq!(&stream[..prefix.len()], prefix);
        assert_eq!(stream.len(), prefix.len() + payload_bytes);
        let mut decoder = FrameDecoder::new(payload_bytes);
        decoder.push(&stream);
        assert_eq!(drain(&mut decoder), Ok(vec![Bytes::from(payload)]));
        assert!(decoder.is_empty());
    }
}

#[test]
fn a_message_is_framed_without_a_copy_in_between() {
    let message = crate::v1::SessionClosing { detail: "x".repeat(300), ..Default::default() };
    let (mut direct, mut copied) = (BytesMut::new(), BytesMut::new());
    encode_message(&message, &mut direct);
    encode_frame(&message.encode_to_vec(), &mut copied);
    assert_eq!(direct, copied);
}

#[test]
fn a_length_above_the_limit_is_refused_by_its_prefix_alone() {
    let mut decoder = FrameDecoder::new(100);
    decoder.push(&[101]);
    let error = FrameError::TooLarge { bytes: 101, bytes_max: 100 };
    assert_eq!(decoder.next_frame(), Err(error));
    // The error stays, whatever follows and whatever the limit becomes.
    decoder.push(&[0; 500]);
    decoder.set_payload_bytes_max(1_000);
    assert_eq!(decoder.next_frame(), Err(error));
    assert_eq!(decoder.next_frame(), Err(error));
}

#[test]
fn nothing_is_reserved_for_an_announced_length() {
    let mut decoder = FrameDecoder::new(LINK_FRAME_BYTES_MAX);
    decoder.push(&[0x80, 0x80, 0x80, 0x02]);
    assert_eq!(decoder.next_frame(), Ok(None));
    assert!(decoder.buffer_bytes() < 100, "{} bytes for a promise", decoder.buffer_bytes());
}

#[test]
fn an_idle_decoder_holds_no_buffer() {
    assert!(std::mem::size_of::<FrameDecoder>() <= 40);
    let mut decoder = FrameDecoder::new(FRAME_BYTES_MAX);
    assert_eq!(decoder.buffer_bytes(), 0);
    let stream = framed(&[vec![1; 5_000], vec![2; 70], vec![]]);
    for piece in stream.chunks(3_000) {
        decoder.push(piece);
        drain(&mut decoder).expect("within the limit");
    }
    assert!(decoder.is_empty());
    assert_eq!(decoder.buffer_bytes(), 0);
}

#[test]
fn overlong_prefixes_are_refused() {
    let overlong: [&[u8]; 5] = [
        &[0x80, 0x00],
        &[0x81, 0x80, 0x00],
        &[0xff, 0xff, 0xff, 0xff, 0x10],
        &[0xff, 0xff, 0xff, 0xff, 0xff],
        &[0x80, 0x80, 0x80, 0x80, 0x80, 0x01],
    ];
    for prefix in overlong {
        let mut decoder = FrameDecoder::new(FRAME_BYTES_MAX);
        decoder.push(prefix);
        assert_eq!(decoder.next_frame(), Err(FrameError::LengthOverlong), "{prefix:x?}");
        assert_eq!(decoder.next_frame(), Err(FrameError::LengthOverlong), "{prefix:x?}");
    }
    let mut decoder = FrameDecoder::new(FRAME_BYTES_MAX);
    decoder.push(&[0xff, 0xff, 0xff, 0xff, 0x0f]);
    let bytes_max = FRAME_BYTES_MAX as u32;
    assert_eq!(decoder.next_frame(), Err(FrameError::TooLarge { bytes: u32::MAX, bytes_max }));
}

#[test]
fn a_raised_limit_holds_from_the_next_frame_on() {
    let mut decoder = FrameDecoder::new(10);
    decoder.push(&framed(&[vec![1; 10], vec![2; 11]]));
    assert_eq!(decoder.next_frame(), Ok(Some(Bytes::from(vec![1; 10]))));
    decoder.set_payload_bytes_max(11);
    assert_eq!(decoder.next_frame(), Ok(Some(Bytes::from(vec![2; 11]))));
}

proptest! {
    #[test]
    fn frames_are_the_same_however_the_bytes_are_cut(
        payloads in vec(vec(any::<u8>(), 0..400), 0..12),
        cuts in vec(1usize..60, 1..40),
    ) {
        let stream = framed(&payloads);
        let mut decoder = FrameDecoder::new(400);
        let mut frames = Vec::new();
        let mut rest = &stream[..];
        for cut in cuts.iter().cycle() {
            let (piece, after) = rest.split_at((*cut).min(rest.len()));
            decoder.push(piece);
            frames.extend(drain(&mut decoder).expect("within the limit"));
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(frames, payloads);
        prop_assert!(decoder.is_empty());
        prop_assert_eq!(decoder.buffer_bytes(), 0);
    }

    #[test]
    fn arbitrary_bytes_end_the_same_however_they_are_cut(
        stream in vec(any::<u8>(), 0..300),
        cuts in vec(1usize..20, 1..20),
        payload_bytes_max in 0usize..200,
    ) {
        let mut at_once = FrameDecoder::new(payload_bytes_max);
        at_once.push(&stream);
        let mut expected = Vec::new();
        let expected_end = loop {
            match at_once.next_frame() {
                Ok(Some(frame)) => expected.push(frame),
                end => break end,
            }
        };
        let mut decoder = FrameDecoder::new(payload_bytes_max);
        let (mut frames, mut end, mut from) = (Vec::new(), Ok(None), 0);
        for cut in cuts.iter().cycle() {
            let to = (from + cut).min(stream.len());
            decoder.push(&stream[from..to]);
            from = to;
            end = loop {
                match decoder.next_frame() {
                    Ok(Some(frame)) => frames.push(frame),
                    end => break end,
                }
            };
            prop_assert!(decoder.buffer_bytes() <= 2 * stream.len() + 64);
            if from == stream.len() {
                break;
            }
        }
        prop_assert!(frames.iter().all(|frame| frame.len() <= payload_bytes_max));
        prop_assert_eq!(frames, expected);
        prop_assert_eq!(end, expected_end);
        prop_assert_eq!(decoder.is_empty(), at_once.is_empty());
    }
}

use super::*;
use bytes::BytesMut;
use proptest::prelude::*;

/// Maximum of a message in most tests, in bytes.
const BYTES_MAX: usize = 70_000;
const KEY: MaskKey = [0x37, 0xfa, 0x21, 0x3d];

/// Pushes each cut and takes whatever comes out.
fn take_all(decoder: &mut Decoder, cuts: &[&[u8]]) -> (Vec<Item>, Option<Violation>) {
    let mut items = Vec::new();
    for cut in cuts {
        decoder.push(cut);
        loop {
            match decoder.next_item() {
                Ok(Some(item)) => items.push(item),
                Ok(None) => break,
                Err(violation) => return (items, Some(violation)),
            }
        }
    }
    (items, None)
}

/// What a server makes of a client's bytes.
fn from_client(bytes: &[u8]) -> (Vec<Item>, Option<Violation>) {
    take_all(&mut Decoder::new(BYTES_MAX), &[bytes])
}

/// What a client makes of a server's bytes.
fn from_server(bytes: &[u8]) -> (Vec<Item>, Option<Violation>) {
    take_all(&mut Decoder::for_client(BYTES_MAX), &[bytes])
}

/// One masked frame, legal or not: first byte as given, length in the shortest form.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..=125 => frame.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&KEY);
    frame.extend(payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

fn binary(payload: &[u8]) -> Item {
    Item::Binary(Bytes::copy_from_slice(payload))
}

fn text(payload: &str) -> Item {
    Item::Text(Bytes::copy_from_slice(payload.as_bytes()))
}

#[test]
fn examples_of_the_rfc() {
    // RFC 6455, section 5.7.
    let hello = [0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f];
    assert_eq!(from_server(&hello), (vec![text("Hello")], None));
    let masked_hello = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(from_client(&masked_hello), (vec![text("Hello")], None));
    let fragmented = [0x01, 0x03, 0x48, 0x65, 0x6c, 0x80, 0x02, 0x6c, 0x6f];
    assert_eq!(from_server(&fragmented), (vec![text("Hello")], None));
    let ping = [0x89, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f];
    assert_eq!(from_server(&ping), (vec![Item::Ping(Bytes::from_static(b"Hello"))], None));
    let masked_pong = [0x8a, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(from_client(&masked_pong), (vec![Item::Pong(Bytes::from_static(b"Hello"))], None));

    let mut out = BytesMut::new();
    encode(Outgoing::Text("Hello"), None, &mut out);
    assert_eq!(out[..], hello);
    out.clear();
    encode(Outgoing::Text("Hello"), Some(KEY), &mut out);
    assert_eq!(out[..], masked_hello);
    out.clear();
    encode_ping(b"Hello", &mut out);
    assert_eq!(out[..], ping);
    out.clear();
    encode(Outgoing::Pong(b"Hello"), Some(KEY), &mut out);
    assert_eq!(out[..], masked_pong);
    for (length, header) in
        [(256, &[0x82, 0x7e, 0x01, 0x00][..]), (65_536, &[0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0])]
    {
        out.clear();
        encode_binary(&vec![7; length], &mut out);
        assert!(out.starts_with(header));
        assert_eq!(from_server(&out), (vec![binary(&vec![7; length])], None));
    }
}

#[test]
fn lengths_take_their_shortest_form() {
    for (length, header) in [
        (0, vec![0x82, 0]),
        (125, vec![0x82, 125]),
        (126, vec![0x82, 126, 0, 126]),
        (127, vec![0x82, 126, 0, 127]),
        (65_535, vec![0x82, 126, 255, 255]),
        (65_536, vec![0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
    ] {
        let payload = vec![9; length];
        let mut out = BytesMut::new();
        encode_binary(&payload, &mut out);
        assert_eq!(out[..], [header, payload.clone()].concat());
        assert_eq!(from_server(&out), (vec![binary(&payload)], None));
        assert_eq!(from_client(&masked(0x82, &payload)), (vec![binary(&payload)], None));
    }
}

#[test]
fn control_frames_stand_between_fragments() {
    let parts = [
        masked(0x02, b"one "),
        masked(0x89, b"?"),
        masked(0x00, b"two "),
        masked(0x8a, b"!"),
        masked(0x80, b"three"),
    ];
    let (items, violation) = from_client(&parts.concat());
    let expected = [
        Item::Ping(Bytes::from_static(b"?")),
        Item::Pong(Bytes::from_static(b"!")),
        binary(b"one two three"),
    ];
    assert_eq!((items.as_slice(), violation), (expected.as_slice(), None));
}

#[test]
fn every_violation_has_its_code() {
    use Violation::*;
    let long_control = [&[0x89, 0x80 | 126, 0, 126][..], &KEY].concat();
    let fragment = masked(0x02, b"a");
    let cases: Vec<(Vec<u8>, Violation, CloseCode)> = vec![
        (masked(0xc2, b"a"), ReservedBits, CloseCode::PROTOCOL_ERROR),
        (masked(0xa2, b"a"), ReservedBits, CloseCode::PROTOCOL_ERROR),
        (masked(0x92, b"a"), ReservedBits, CloseCode::PROTOCOL_ERROR),
        (masked(0x83, b"a"), UnknownOpcode(3), CloseCode::PROTOCOL_ERROR),
        (masked(0x87, b"a"), UnknownOpcode(7), CloseCode::PROTOCOL_ERROR),
        (masked(0x8b, b"a"), UnknownOpcode(11), CloseCode::PROTOCOL_ERROR),
        (masked(0x8f, b"a"), UnknownOpcode(15), CloseCode::PROTOCOL_ERROR),
        (vec![0x82, 0x01, b'a'], MaskMissing, CloseCode::PROTOCOL_ERROR),
        (masked(0x09, b"a"), ControlFragmented, CloseCode::PROTOCOL_ERROR),
        (masked(0x08, b""), ControlFragmented, CloseCode::PROTOCOL_ERROR),
        (long_control, ControlTooLong, CloseCode::PROTOCOL_ERROR),
        (masked(0x80, b"a"), ContinuationUnexpected, CloseCode::PROTOCOL_ERROR),
        ([fragment.clone(), masked(0x82, b"b")].concat(), ContinuationMissing, CloseCode::PROTOCOL_ERROR),
        ([fragment, masked(0x81, b"b")].concat(), ContinuationMissing, CloseCode::PROTOCOL_ERROR),
        (vec![0x82, 0x80 | 126, 0, 125], LengthOverlong, CloseCode::PROTOCOL_ERROR),
        (vec![0x82, 0x80 | 127, 0, 0, 0, 0, 0, 0, 255, 255], LengthOverlong, CloseCode::PROTOCOL_ERROR),
        (vec![0x82, 0x80 | 127, 128, 0, 0, 0, 0, 0, 0, 0], LengthOverlong, CloseCode::PROTOCOL_ERROR),
        (masked(0x88, b"a"), CloseTruncated, CloseCode::PROTOCOL_ERROR),
        (masked(0x88, &[0x03, 0xed]), CloseCodeInvalid(1005), CloseCode::PROTOCOL_ERROR),
        (masked(0x88, &[0x03, 0xe8, 0xff]), TextNotUtf8, CloseCode::INVALID_PAYLOAD),
        (masked(0x81, &[0xce, 0xba, 0xed, 0xa0, 0x80]), TextNotUtf8, CloseCode::INVALID_PAYLOAD),
        ([masked(0x01, &[0xce]), masked(0x80, b"a")].concat(), TextNotUtf8, CloseCode::INVALID_PAYLOAD),
    ];
    for (bytes, violation, code) in cases {
        assert_eq!(from_client(&bytes), (vec![], Some(violation)), "{bytes:02x?}");
        assert_eq!(violation.close_code(), code, "{violation:?}");
    }
    assert_eq!(from_server(&masked(0x82, b"a")), (vec![], Some(MaskUnexpected)));
    assert_eq!(MaskUnexpected.close_code(), CloseCode::PROTOCOL_ERROR);
}

#[test]
fn utf8_may_be_cut_between_fragments() {
    let message = "κόσμε";
    for cut in 0..=message.len() {
        let (head, tail) = message.as_bytes().split_at(cut);
        let bytes = [masked(0x01, head), masked(0x80, tail)].concat();
        assert_eq!(from_client(&bytes), (vec![text(message)], None));
    }
}

#[test]
fn the_maximum_is_checked_on_the_header_alone() {
    let too_large = |bytes| Some(Violation::MessageTooLarge { bytes, bytes_max: 1_000 });
    assert_eq!(Violation::MessageTooLarge { bytes: 2, bytes_max: 1 }.close_code(), CloseCode::TOO_LARGE);

    // Not even the mask key has arrived, let alone the payload.
    let mut decoder = Decoder::new(1_000);
    assert_eq!(take_all(&mut decoder, &[&[0x82, 0x80 | 126, 0x03, 0xe9]]), (vec![], too_large(1_001)));
    assert_eq!(decoder.buffered_bytes(), 0, "what came before is let go");
    let mut decoder = Decoder::new(1_000);
    let announced = [&[0x82, 0x80 | 127][..], &(u64::MAX >> 1).to_be_bytes()].concat();
    assert_eq!(take_all(&mut decoder, &[&announced]), (vec![], too_large(u64::MAX >> 1)));

    // Fragments count together, control frames between them do not.
    let mut decoder = Decoder::new(1_000);
    let parts = [masked(0x02, &[0; 600]), masked(0x89, &[0; 125]), masked(0x00, &[0; 400])].concat();
    assert_eq!(take_all(&mut decoder, &[&parts]), (vec![Item::Ping(vec![0; 125].into())], None));
    assert_eq!(take_all(&mut decoder, &[&masked(0x80, &[0; 1])]), (vec![], too_large(1_001)));

    // Exactly the maximum is fine, and a session that became ready takes more.
    let mut decoder = Decoder::new(1_000);
    assert_eq!(take_all(&mut decoder, &[&masked(0x82, &[1; 1_000])]).0, vec![binary(&[1; 1_000])]);
    decoder.set_message_bytes_max(1_001);
    assert_eq!(take_all(&mut decoder, &[&masked(0x82, &[1; 1_001])]).0, vec![binary(&[1; 1_001])]);
}

#[test]
fn empty_fragments_do_not_go_on_for_ever() {
    let mut decoder = Decoder::new(BYTES_MAX);
    decoder.push(&masked(0x02, b""));
    for _ in 1..FRAGMENTS_MAX {
        decoder.push(&masked(0x00, b""));
        assert_eq!(decoder.next_item(), Ok(None));
    }
    decoder.push(&masked(0x80, b""));
    assert_eq!(decoder.next_item(), Err(Violation::TooManyFragments));
    assert_eq!(Violation::TooManyFragments.close_code(), CloseCode::TOO_LARGE);
}

#[test]
fn nothing_follows_a_close_or_a_violation() {
    let mut close = BytesMut::new();
    encode(Outgoing::Close(Some(CloseCode::GOING_AWAY), "bye"), Some(KEY), &mut close);
    let mut decoder = Decoder::new(BYTES_MAX);
    let (items, violation) = take_all(&mut decoder, &[&close, &masked(0x82, b"late"), &[0xff; 20]]);
    let expected = Item::Close { code: Some(CloseCode::GOING_AWAY), reason: "bye".into() };
    assert_eq!((items.as_slice(), violation), ([expected].as_slice(), None));
    assert_eq!(decoder.buffered_bytes(), 0);

    let (items, _) = from_client(&masked(0x88, b""));
    assert_eq!(items, [Item::Close { code: None, reason: String::new() }]);

    let mut decoder = Decoder::new(BYTES_MAX);
    decoder.push(&masked(0xf2, b""));
    assert_eq!(decoder.next_item(), Err(Violation::ReservedBits));
    decoder.push(&masked(0x82, b"late"));
    assert_eq!(decoder.next_item(), Err(Violation::ReservedBits));
    assert_eq!(decoder.buffered_bytes(), 0);
}

#[test]
fn only_some_close_codes_may_be_sent() {
    let sendable: Vec<u16> = (0..=5_000).filter(|code| CloseCode(*code).is_sendable()).collect();
    let defined = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014];
    let expected: Vec<u16> = defined.into_iter().chain(3000..=4999).collect();
    assert_eq!(sendable, expected);
    let named = [
        CloseCode::NORMAL,
        CloseCode::GOING_AWAY,
        CloseCode::PROTOCOL_ERROR,
        CloseCode::UNSUPPORTED,
        CloseCode::INVALID_PAYLOAD,
        CloseCode::POLICY,
        CloseCode::TOO_LARGE,
        CloseCode::INTERNAL,
        CloseCode::RESTART,
        CloseCode::TRY_LATER,
    ];
    assert!(named.into_iter().all(CloseCode::is_sendable));
}

#[test]
fn a_long_close_reason_is_cut_between_characters() {
    let mut out = BytesMut::new();
    encode_close(CloseCode::POLICY, &"é".repeat(100), &mut out);
    let (items, violation) = from_server(&out);
    let expected = Item::Close { code: Some(CloseCode::POLICY), reason: "é".repeat(61) };
    assert_eq!((items.as_slice(), violation), ([expected].as_slice(), None));
}

#[test]
fn an_idle_decoder_holds_nothing() {
    let mut decoder = Decoder::new(BYTES_MAX);
    assert!(decoder.is_idle());
    let (items, _) = take_all(&mut decoder, &[&masked(0x82, &[3; 5_000])]);
    assert_eq!(items.len(), 1);
    assert!(decoder.is_idle());
    assert_eq!(decoder.held_bytes(), 0);
    // In two pieces, the second of which makes the buffer grow beyond what is needed.
    let frame = masked(0x82, &[3; 1_000]);
    let (head, tail) = frame.split_at(990);
    assert_eq!(take_all(&mut decoder, &[head, tail]).0.len(), 1);
    assert_eq!(decoder.held_bytes(), 0);
    decoder.push(&[0x82]);
    assert!(!decoder.is_idle());
    let mut decoder = Decoder::new(BYTES_MAX);
    take_all(&mut decoder, &[&masked(0x02, b"half")]);
    assert!(!decoder.is_idle());
}

/// What either side may send.
#[derive(Clone, Debug)]
enum Sent {
    Binary(Vec<u8>, Vec<usize>),
    Text(String, Vec<usize>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
}

impl Sent {
    fn item(&self) -> Item {
        match self {
            Sent::Binary(payload, _) => binary(payload),
            Sent::Text(payload, _) => text(payload),
            Sent::Ping(payload) => Item::Ping(payload.clone().into()),
            Sent::Pong(payload) => Item::Pong(payload.clone().into()),
        }
    }

    /// A message's frames, cut at the given places (taken modulo what is left).
    fn frames(&self) -> Vec<Vec<u8>> {
        let (opcode, mut rest, cuts) = match self {
            Sent::Binary(payload, cuts) => (2, payload.as_slice(), cuts.as_slice()),
            Sent::Text(payload, cuts) => (1, payload.as_bytes(), cuts.as_slice()),
            Sent::Ping(payload) => return vec![masked(0x89, payload)],
            Sent::Pong(payload) => return vec![masked(0x8a, payload)],
        };
        let mut frames = Vec::new();
        for cut in cuts {
            let (head, tail) = rest.split_at(cut % (rest.len() + 1));
            frames.push(masked(if frames.is_empty() { opcode } else { 0 }, head));
            rest = tail;
        }
        frames.push(masked(0x80 | if frames.is_empty() { opcode } else { 0 }, rest));
        frames
    }
}

fn sent() -> impl Strategy<Value = Sent> {
    let cuts = || prop::collection::vec(any::<usize>(), 0..4);
    let control = || prop::collection::vec(any::<u8>(), 0..=CONTROL_BYTES_MAX);
    prop_oneof![
        (prop::collection::vec(any::<u8>(), 0..600), cuts())
            .prop_map(|(bytes, cuts)| Sent::Binary(bytes, cuts)),
        (prop::collection::vec(any::<u8>(), 65_530..65_540), cuts())
            .prop_map(|(bytes, cuts)| Sent::Binary(bytes, cuts)),
        (any::<String>(), cuts()).prop_map(|(text, cuts)| Sent::Text(text, cuts)),
        control().prop_map(Sent::Ping),
        control().prop_map(Sent::Pong),
    ]
}

/// Cuts bytes at places taken modulo what is left.
fn cut_up<'a>(mut bytes: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut parts = Vec::new();
    for cut in cuts {
        let (head, tail) = bytes.split_at(cut % (bytes.len() + 1));
        parts.push(head);
        bytes = tail;
    }
    parts.push(bytes);
    parts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Messages arrive whole and in order, fragmented and cut anywhere, with control frames between fragments.
    #[test]
    fn any_cut_gives_the_same_items(
        messages in prop::collection::vec(sent(), 0..5),
        cuts in prop::collection::vec(any::<usize>(), 0..40),
        ping_between in any::<bool>(),
    ) {
        let (mut bytes, mut expected) = (Vec::new(), Vec::new());
        for message in &messages {
            let frames = message.frames();
            let last = frames.len() - 1;
            for (index, frame) in frames.into_iter().enumerate() {
                if ping_between && index == last {
                    bytes.extend(masked(0x89, b"between"));
                    expected.push(Item::Ping(Bytes::from_static(b"between")));
                }
                bytes.extend(frame);
            }
            expected.push(message.item());
        }
        let mut decoder = Decoder::new(BYTES_MAX);
        prop_assert_eq!(take_all(&mut decoder, &cut_up(&bytes, &cuts)), (expected, None));
        prop_assert!(decoder.is_idle());
    }

    /// Arbitrary bytes end in items or a violation, the same ones however they are cut, and never in a panic.
    #[test]
    fn arbitrary_bytes_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        cuts in prop::collection::vec(any::<usize>(), 0..20),
    ) {
        for (mut whole, mut cut) in [
            (Decoder::new(300), Decoder::new(300)),
            (Decoder::for_client(300), Decoder::for_client(300)),
        ] {
            let outcome = take_all(&mut whole, &[&bytes]);
            prop_assert_eq!(take_all(&mut cut, &cut_up(&bytes, &cuts)), outcome);
            prop_assert!(whole.buffered_bytes() <= 300 + HEADER_BYTES_MAX);
        }
    }

    /// Changing one byte of good frames gives something, too; most of it is reached no other way.
    #[test]
    fn damaged_frames_never_panic(message in sent(), at in any::<usize>(), to in any::<u8>()) {
        let mut bytes = message.frames().concat();
        let index = at % bytes.len();
        bytes[index] = to;
        let whole = from_client(&bytes);
        let (head, tail) = bytes.split_at(index);
        prop_assert_eq!(take_all(&mut Decoder::new(BYTES_MAX), &[head, tail]), whole);
    }

    /// What one side encodes the other one decodes, and the other way round.
    #[test]
    fn encoder_and_decoder_agree(payload in prop::collection::vec(any::<u8>(), 0..66_000), key in any::<MaskKey>()) {
        let mut out = BytesMut::new();
        encode(Outgoing::Binary(&payload), Some(key), &mut out);
        prop_assert_eq!(from_client(&out), (vec![binary(&payload)], None));
        out.clear();
        encode_binary(&payload, &mut out);
        prop_assert_eq!(from_server(&out), (vec![binary(&payload)], None));
    }
}

//! WebSocket frames, and the request that asks for them.

use crate::Target;
use crate::input::Input;
use wire_protocol::websocket::{Decoder, Item, Violation, check_upgrade};

/// Largest message of a decoder: the input chooses one. Inputs are short, and so are most of these, so that the pieces of
/// a message are too much together.
const MESSAGE_BYTES_MAX: [usize; 4] = [4_096, 16, 200, 1_024];
/// Headers of one request.
const HEADERS_MAX: usize = 24;

/// See `holds`.
pub const WEBSOCKET: Target = Target {
    name: "websocket",
    holds: "items come out the same however their bytes are cut, none is larger than allowed, a fault has a close code",
    run: websocket,
};
/// See `holds`.
pub const UPGRADE: Target = Target {
    name: "upgrade",
    holds: "a request's headers are taken or refused with a status of 400 to 599, and the answer says it",
    run: upgrade,
};

fn all_items<'a>(
    mut decoder: Decoder,
    pieces: impl Iterator<Item = &'a [u8]>,
) -> (Vec<Item>, Option<Violation>) {
    let mut items = Vec::new();
    for piece in pieces {
        decoder.push(piece);
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

fn websocket(data: &[u8]) {
    let mut input = Input::new(data);
    let (side, step) = (input.byte(), 1 + input.below(64));
    let message_bytes_max = MESSAGE_BYTES_MAX[usize::from(side / 2) % MESSAGE_BYTES_MAX.len()];
    let decoder = || match side % 2 {
        0 => Decoder::new(message_bytes_max),
        _ => Decoder::for_client(message_bytes_max),
    };
    let bytes = input.rest();
    let (whole, fault) = all_items(decoder(), std::iter::once(bytes));
    let (cut, fault_of_cut) = all_items(decoder(), bytes.chunks(step));
    assert_eq!(format!("{whole:?} {fault:?}"), format!("{cut:?} {fault_of_cut:?}"));
    for item in &whole {
        match item {
            Item::Binary(message) | Item::Text(message) => assert!(message.len() <= message_bytes_max),
            Item::Ping(payload) | Item::Pong(payload) => assert!(payload.len() <= 125),
            Item::Close { reason, .. } => assert!(reason.len() <= 123),
        }
    }
    if let Some(fault) = fault {
        assert!(fault.close_code().is_sendable(), "{fault:?}");
    }
}

fn upgrade(data: &[u8]) {
    let mut input = Input::new(data);
    let minor_version = input.byte() % 3;
    let method = String::from_utf8_lossy(input.slice()).into_owned();
    let mut headers = Vec::new();
    while !input.is_empty() && headers.len() < HEADERS_MAX {
        let name = match input.below(10) {
            0 => "Host".into(),
            1 => "Upgrade".into(),
            2 => "Connection".into(),
            3 => "Sec-WebSocket-Version".into(),
            4 => "Sec-WebSocket-Key".into(),
            5 => "Sec-WebSocket-Protocol".into(),
            6 => "Origin".into(),
            _ => String::from_utf8_lossy(input.slice()).into_owned(),
        };
        headers.push((name, input.slice()));
    }
    let method = if method.is_empty() { "GET" } else { &method };
    let headers = headers.iter().map(|(name, value)| (name.as_str(), *value));
    match check_upgrade(method, minor_version, headers) {
        Ok(upgrade) => assert!(!upgrade.host.is_empty()),
        Err(refused) => {
            assert!((400..600).contains(&refused.status()), "{refused:?}");
            assert!(refused.response().starts_with(format!("HTTP/1.1 {} ", refused.status()).as_bytes()));
        }
    }
}

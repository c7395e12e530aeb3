//! Bytes from the peer become items. Incremental: any cut of the bytes gives the same items.
//!
//! A frame waits in `input` until it is whole, is split off without a copy and unmasked in place. The length a
//! header announces is checked against the maximum before any byte of the payload is waited for, so `input`
//! never holds more than a header, one permitted message and the rest of the last push.

use super::{
    CLOSE_REASON_BYTES_MAX, CONTROL_BYTES_MAX, CloseCode, FRAGMENTS_MAX, Item, MaskKey, Opcode, Violation,
    apply_mask,
};
use bytes::{Buf, BytesMut};

/// Incremental decoder of one direction of a WebSocket. Holds no buffer while idle.
pub struct Decoder {
    input: BytesMut,
    /// The message whose first frames have arrived, and whose last one has not.
    partial: Option<Box<PartialMessage>>,
    message_bytes_max: usize,
    sender: Sender,
    end: Option<End>,
}

struct PartialMessage {
    opcode: Opcode,
    bytes: BytesMut,
    fragments: u32,
}

/// Whose frames these are: only a client's are masked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sender {
    Client,
    Server,
}

/// Why nothing more comes out.
#[derive(Clone, Copy)]
enum End {
    Closed,
    Violated(Violation),
}

/// A header whose every rule was checked.
struct Header {
    fin: bool,
    opcode: Opcode,
    mask: Option<MaskKey>,
    header_bytes: usize,
    payload_bytes: usize,
}

impl Decoder {
    /// For a server: decodes a client's frames, which must be masked. `message_bytes_max` bounds each message.
    pub fn new(message_bytes_max: usize) -> Self {
        Self::of(Sender::Client, message_bytes_max)
    }

    /// For a client: decodes a server's frames, which must not be masked.
    pub fn for_client(message_bytes_max: usize) -> Self {
        Self::of(Sender::Server, message_bytes_max)
    }

    fn of(sender: Sender, message_bytes_max: usize) -> Self {
        Self { input: BytesMut::new(), partial: None, message_bytes_max, sender, end: None }
    }

    /// Another maximum, from the next header on: a session that became ready takes larger messages.
    pub fn set_message_bytes_max(&mut self, message_bytes_max: usize) {
        self.message_bytes_max = message_bytes_max;
    }

    /// Appends received bytes. After a close or a violation they are dropped.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.end.is_none() {
            self.input.extend_from_slice(bytes);
        }
    }

    /// The next item, or `None` until more bytes are pushed. A violation is final and is repeated.
    pub fn next_item(&mut self) -> Result<Option<Item>, Violation> {
        match self.end {
            Some(End::Closed) => return Ok(None),
            Some(End::Violated(violation)) => return Err(violation),
            None => {}
        }
        let outcome = self.decode();
        match &outcome {
            Ok(Some(Item::Close { .. })) => self.finish(End::Closed),
            Err(violation) => self.finish(End::Violated(*violation)),
            Ok(_) => {}
        }
        outcome
    }

    /// Nothing is buffered: no bytes wait, and no message is half received.
    pub fn is_idle(&self) -> bool {
        self.input.is_empty() && self.partial.is_none()
    }

    /// Bytes of allocations that are kept, whether anything is in them or not.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        self.input.capacity() + self.partial.as_ref().map_or(0, |partial| partial.bytes.capacity())
    }

    #[cfg(test)]
    pub(super) fn buffered_bytes(&self) -> usize {
        self.input.len() + self.partial.as_ref().map_or(0, |partial| partial.bytes.len())
    }

    fn finish(&mut self, end: End) {
        self.end = Some(end);
        self.input = BytesMut::new();
        self.partial = None;
    }

    /// Takes frames until one completes an item.
    fn decode(&mut self) -> Result<Option<Item>, Violation> {
        while let Some(header) = self.read_header()? {
            let Some(payload) = self.take_payload(&header) else { return Ok(None) };
            let item = match header.opcode {
                Opcode::Ping => Some(Item::Ping(payload.freeze())),
                Opcode::Pong => Some(Item::Pong(payload.freeze())),
                Opcode::Close => Some(close_item(&payload)?),
                Opcode::Text | Opcode::Binary => self.begin_message(&header, payload)?,
                Opcode::Continuation => self.continue_message(&header, payload)?,
            };
            if item.is_some() {
                return Ok(item);
            }
        }
        Ok(None)
    }

    /// Parses and checks the header at the front of `input`, which stays there; `None` if it is not whole yet.
    fn read_header(&self) -> Result<Option<Header>, Violation> {
        let mut rest: &[u8] = &self.input;
        let Ok(first) = rest.try_get_u8() else { return Ok(None) };
        let opcode = self.check_first_byte(first)?;
        let fin = first & 0x80 != 0;
        let Ok(second) = rest.try_get_u8() else { return Ok(None) };
        let masked = second & 0x80 != 0;
        match (self.sender, masked) {
            (Sender::Client, false) => return Err(Violation::MaskMissing),
            (Sender::Server, true) => return Err(Violation::MaskUnexpected),
            _ => {}
        }
        let short_length = second & 0x7f;
        if opcode.is_control() && usize::from(short_length) > CONTROL_BYTES_MAX {
            return Err(Violation::ControlTooLong);
        }
        let Some(length) = read_length(short_length, &mut rest)? else { return Ok(None) };
        let payload_bytes =
            if opcode.is_control() { usize::from(short_length) } else { self.check_size(length)? };
        let mut mask = None;
        if masked {
            let Ok(key) = rest.try_get_u32() else { return Ok(None) };
            mask = Some(key.to_be_bytes());
        }
        let header_bytes = self.input.len() - rest.len();
        Ok(Some(Header { fin, opcode, mask, header_bytes, payload_bytes }))
    }

    /// Everything that the first byte alone can break.
    fn check_first_byte(&self, first: u8) -> Result<Opcode, Violation> {
        if first & 0x70 != 0 {
            return Err(Violation::ReservedBits);
        }
        let opcode = Opcode::from_bits(first & 0x0f)?;
        match (opcode, &self.partial) {
            (Opcode::Close | Opcode::Ping | Opcode::Pong, _) if first & 0x80 == 0 => {
                Err(Violation::ControlFragmented)
            }
            (Opcode::Continuation, None) => Err(Violation::ContinuationUnexpected),
            (Opcode::Text | Opcode::Binary, Some(_)) => Err(Violation::ContinuationMissing),
            (Opcode::Continuation, Some(partial)) if partial.fragments >= FRAGMENTS_MAX => {
                Err(Violation::TooManyFragments)
            }
            _ => Ok(opcode),
        }
    }

    /// The announced length, if the message stays within its maximum with it.
    fn check_size(&self, length: u64) -> Result<usize, Violation> {
        let before = self.partial.as_ref().map_or(0, |partial| partial.bytes.len());
        let bytes = length.saturating_add(before as u64);
        let too_large = Violation::MessageTooLarge { bytes, bytes_max: self.message_bytes_max };
        if bytes > self.message_bytes_max as u64 {
            return Err(too_large);
        }
        usize::try_from(length).map_err(|_| too_large)
    }

    /// Splits the frame off and unmasks its payload; `None` while it is not whole.
    fn take_payload(&mut self, header: &Header) -> Option<BytesMut> {
        let frame_bytes = header.header_bytes + header.payload_bytes;
        if self.input.len() < frame_bytes {
            return None;
        }
        let mut payload = self.input.split_to(frame_bytes);
        if self.input.is_empty() {
            // Gives the rest of the allocation to the payload alone: an idle decoder holds none.
            self.input = BytesMut::new();
        }
        payload.advance(header.header_bytes);
        if let Some(key) = header.mask {
            apply_mask(key, &mut payload);
        }
        Some(payload)
    }

    fn begin_message(&mut self, header: &Header, payload: BytesMut) -> Result<Option<Item>, Violation> {
        debug_assert!(self.partial.is_none(), "checked with the first byte");
        if header.fin {
            return message_item(header.opcode, payload).map(Some);
        }
        // Copied, so that a small fragment does not keep alive the buffer it arrived in.
        let bytes = BytesMut::from(&payload[..]);
        self.partial = Some(Box::new(PartialMessage { opcode: header.opcode, bytes, fragments: 1 }));
        Ok(None)
    }

    fn continue_message(&mut self, header: &Header, payload: BytesMut) -> Result<Option<Item>, Violation> {
        let Some(mut partial) = self.partial.take() else { return Err(Violation::ContinuationUnexpected) };
        partial.bytes.extend_from_slice(&payload);
        partial.fragments += 1;
        if header.fin {
            return message_item(partial.opcode, partial.bytes).map(Some);
        }
        self.partial = Some(partial);
        Ok(None)
    }
}

/// The payload length in its shortest form, as RFC 6455 section 5.2 demands; `None` until it is whole.
fn read_length(short_length: u8, rest: &mut &[u8]) -> Result<Option<u64>, Violation> {
    let (length, least) = match short_length {
        126 => match rest.try_get_u16() {
            Ok(length) => (u64::from(length), 126),
            Err(_) => return Ok(None),
        },
        127 => match rest.try_get_u64() {
            Ok(length) => (length, 1 << 16),
            Err(_) => return Ok(None),
        },
        length => (u64::from(length), 0),
    };
    let highest_bit = length >> 63 != 0;
    if length < least || highest_bit {
        return Err(Violation::LengthOverlong);
    }
    Ok(Some(length))
}

fn message_item(opcode: Opcode, payload: BytesMut) -> Result<Item, Violation> {
    if opcode != Opcode::Text {
        return Ok(Item::Binary(payload.freeze()));
    }
    if std::str::from_utf8(&payload).is_err() {
        return Err(Violation::TextNotUtf8);
    }
    Ok(Item::Text(payload.freeze()))
}

fn close_item(payload: &[u8]) -> Result<Item, Violation> {
    debug_assert!(payload.len() <= CLOSE_REASON_BYTES_MAX + 2, "checked with the header");
    let mut rest = payload;
    if rest.is_empty() {
        return Ok(Item::Close { code: None, reason: String::new() });
    }
    let Ok(code) = rest.try_get_u16() else { return Err(Violation::CloseTruncated) };
    if !CloseCode(code).is_sendable() {
        return Err(Violation::CloseCodeInvalid(code));
    }
    let reason = std::str::from_utf8(rest).map_err(|_| Violation::TextNotUtf8)?;
    Ok(Item::Close { code: Some(CloseCode(code)), reason: reason.to_owned() })
}

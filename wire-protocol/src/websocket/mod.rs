//! RFC 6455 as a pure codec: the handshake's texts, and frames in both directions.
//!
//! Bytes go in with [`Decoder::push`], [`Item`]s come out of [`Decoder::next_item`]; the encoder appends to a
//! buffer that the caller sends. Nothing here knows sockets, clocks or randomness (a client's mask keys come
//! from the caller), nor what a binary message means: that is the session's business. Called by the gateway's
//! `transport/` and, in its client role, by tests and load agents. No extension is offered or accepted.
//!
//! What the driver owes: a [`Item::Ping`] is answered by a pong with the same payload, a [`Item::Close`] by a
//! close, a [`Item::Text`] by a close with [`CloseCode::UNSUPPORTED`], a [`Violation`] by a close with its code;
//! after any close it sends, nothing but the end of the connection follows.

mod decoder;
mod encoder;
mod handshake;
#[cfg(test)]
mod tests;

pub use decoder::Decoder;
pub use encoder::{Outgoing, encode, encode_binary, encode_close, encode_ping, encode_pong};
pub use handshake::{
    ACCEPT_KEY_BYTES, AcceptKey, HeadersInvalid, Upgrade, UpgradeRefused, accept_key, check_upgrade,
    check_upgraded, origin_allowed, upgrade_request, upgrade_response,
};

use bytes::Bytes;

/// Largest payload of a ping, pong or close, in bytes: RFC 6455, section 5.5.
pub const CONTROL_BYTES_MAX: usize = 125;
/// Longest reason of a close, in bytes: a control payload less the two bytes of the code.
pub const CLOSE_REASON_BYTES_MAX: usize = CONTROL_BYTES_MAX - 2;
/// Frames that one message may be cut into. Browsers do not fragment what fits our messages; without a limit
/// a peer could send empty fragments for ever without its message growing.
pub const FRAGMENTS_MAX: u32 = 1_024;
/// Largest frame header, in bytes: 2, an 8-byte length, a 4-byte mask key.
pub const HEADER_BYTES_MAX: usize = 14;

/// XORed over a client's payloads so that no intermediary takes them for something else.
pub type MaskKey = [u8; 4];

/// One whole message or control frame from the peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Item {
    /// A message: one frame of the client protocol.
    Binary(Bytes),
    /// Valid UTF-8, but nothing we speak: refuse it with [`CloseCode::UNSUPPORTED`].
    Text(Bytes),
    /// Wants a pong with the same payload, 125 bytes at most.
    Ping(Bytes),
    /// Answers a ping, or is unasked for: either way only a sign of life.
    Pong(Bytes),
    /// The last item: the peer sends nothing more.
    Close {
        /// Why, if the peer said so.
        code: Option<CloseCode>,
        /// Free text for logs, 123 bytes at most, may be empty.
        reason: String,
    },
}

/// Why a WebSocket ends: RFC 6455, section 7.4.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CloseCode(pub u16);

impl CloseCode {
    /// The purpose is fulfilled.
    pub const NORMAL: CloseCode = CloseCode(1000);
    /// The server goes down, or the browser leaves the page.
    pub const GOING_AWAY: CloseCode = CloseCode(1001);
    /// The peer broke RFC 6455.
    pub const PROTOCOL_ERROR: CloseCode = CloseCode(1002);
    /// A kind of message that this end does not take: text.
    pub const UNSUPPORTED: CloseCode = CloseCode(1003);
    /// Text that is not UTF-8.
    pub const INVALID_PAYLOAD: CloseCode = CloseCode(1007);
    /// Refused for another reason.
    pub const POLICY: CloseCode = CloseCode(1008);
    /// A message larger than this end takes.
    pub const TOO_LARGE: CloseCode = CloseCode(1009);
    /// We have a bug.
    pub const INTERNAL: CloseCode = CloseCode(1011);
    /// The server restarts: come again.
    pub const RESTART: CloseCode = CloseCode(1012);
    /// The server is at a limit: come again later.
    pub const TRY_LATER: CloseCode = CloseCode(1013);

    /// Whether the code may stand in a close frame. 1004 to 1006 and 1015 never may, 1016 to 2999 belong to
    /// nobody yet, 3000 to 4999 to libraries and applications.
    pub fn is_sendable(self) -> bool {
        matches!(self.0, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }
}

/// How the peer broke the protocol. The connection is lost; tell the peer [`Violation::close_code`] first.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Violation {
    /// One of RSV1 to RSV3 is set, though no extension was agreed upon.
    #[error("a reserved bit is set")]
    ReservedBits,
    /// An opcode that RFC 6455 does not define.
    #[error("opcode {0:#x} is not defined")]
    UnknownOpcode(u8),
    /// A client must mask.
    #[error("the frame is not masked")]
    MaskMissing,
    /// A server must not mask.
    #[error("the frame is masked")]
    MaskUnexpected,
    /// Control frames stand in one piece.
    #[error("a control frame is fragmented")]
    ControlFragmented,
    /// Control payloads have 125 bytes at most.
    #[error("a control frame is longer than 125 bytes")]
    ControlTooLong,
    /// A continuation without a message to continue.
    #[error("there is no message to continue")]
    ContinuationUnexpected,
    /// A new message before the last one was finished.
    #[error("a message begins within another one")]
    ContinuationMissing,
    /// A length that fits a shorter form, or with its highest bit set.
    #[error("the length is not in its shortest form")]
    LengthOverlong,
    /// Larger than the decoder's maximum, as announced: nothing was allocated for it.
    #[error("the message has {bytes} bytes or more, {bytes_max} are allowed")]
    MessageTooLarge {
        /// Bytes announced so far.
        bytes: u64,
        /// The decoder's maximum.
        bytes_max: usize,
    },
    /// More than [`FRAGMENTS_MAX`].
    #[error("the message is cut into too many frames")]
    TooManyFragments,
    /// A close payload of one byte holds no code.
    #[error("the close code is cut off")]
    CloseTruncated,
    /// A close code that must not be sent.
    #[error("close code {0} must not be sent")]
    CloseCodeInvalid(u16),
    /// A text message or a close reason is not UTF-8.
    #[error("text is not UTF-8")]
    TextNotUtf8,
}

impl Violation {
    /// What the close frame in answer to it says.
    pub fn close_code(self) -> CloseCode {
        match self {
            Violation::MessageTooLarge { .. } | Violation::TooManyFragments => CloseCode::TOO_LARGE,
            Violation::TextNotUtf8 => CloseCode::INVALID_PAYLOAD,
            Violation::ReservedBits
            | Violation::UnknownOpcode(_)
            | Violation::MaskMissing
            | Violation::MaskUnexpected
            | Violation::ControlFragmented
            | Violation::ControlTooLong
            | Violation::ContinuationUnexpected
            | Violation::ContinuationMissing
            | Violation::LengthOverlong
            | Violation::CloseTruncated
            | Violation::CloseCodeInvalid(_) => CloseCode::PROTOCOL_ERROR,
        }
    }
}

/// What a frame carries: the low four bits of its first byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    fn from_bits(bits: u8) -> Result<Self, Violation> {
        Ok(match bits {
            0x0 => Opcode::Continuation,
            0x1 => Opcode::Text,
            0x2 => Opcode::Binary,
            0x8 => Opcode::Close,
            0x9 => Opcode::Ping,
            0xa => Opcode::Pong,
            other => return Err(Violation::UnknownOpcode(other)),
        })
    }

    fn bits(self) -> u8 {
        match self {
            Opcode::Continuation => 0x0,
            Opcode::Text => 0x1,
            Opcode::Binary => 0x2,
            Opcode::Close => 0x8,
            Opcode::Ping => 0x9,
            Opcode::Pong => 0xa,
        }
    }

    fn is_control(self) -> bool {
        matches!(self, Opcode::Close | Opcode::Ping | Opcode::Pong)
    }
}

/// XORs the key over `payload`; doing it twice gives the payload back.
fn apply_mask(key: MaskKey, payload: &mut [u8]) {
    let [a, b, c, d] = key;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut words = payload.chunks_exact_mut(8);
    for word in &mut words {
        let masked = word.iter().zip(wide.to_ne_bytes()).map(|(byte, mask)| byte ^ mask);
        let mut out = [0u8; 8];
        out.iter_mut().zip(masked).for_each(|(to, from)| *to = from);
        word.copy_from_slice(&out);
    }
    words.into_remainder().iter_mut().zip(key.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
}

//! Lines of the NATS client protocol as a client gets them.

use crate::agent::protocol::ProtocolFault;
use crate::peers::partial::fault;
use wire_protocol::limits::BODY_BYTES_MAX;

/// Longest control line, in bytes: an INFO with its lists of addresses; all others are far shorter.
pub const LINE_BYTES_MAX: usize = 16 * 1024;
/// Largest header block and payload together, in bytes: the largest body, or an answer of JetStream's interface
/// (about 1 KiB, and its list of filters).
pub const PAYLOAD_BYTES_MAX: usize = 4 * BODY_BYTES_MAX;
/// Largest operation, in bytes.
pub const OP_BYTES_MAX: usize = LINE_BYTES_MAX + PAYLOAD_BYTES_MAX + 2 * END.len();
const END: &[u8] = b"\r\n";

/// What a server sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op<'a> {
    /// Who it is, as JSON.
    Info(&'a str),
    /// Are you there?
    Ping,
    /// Answer to ours.
    Pong,
    /// Something went well.
    Ok,
    /// Something did not.
    Err(&'a str),
    /// A message.
    Message(Delivery<'a>),
}

/// A message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Delivery<'a> {
    /// Where it was sent.
    pub subject: &'a str,
    /// Which of our subscriptions it came for.
    pub subscription: u32,
    /// Where an answer goes.
    pub reply: Option<&'a str>,
    /// Header block, whole; empty: none.
    pub header: &'a str,
    /// Its content.
    pub payload: &'a [u8],
}

impl<'a> Delivery<'a> {
    /// The status in the header's first line: then it is no message but the server's word about a request.
    pub fn status(&self) -> Option<u16> {
        self.header.lines().next()?.strip_prefix("NATS/1.0 ")?.get(..3)?.parse().ok()
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        let mut pairs = self.header.lines().skip(1).filter_map(|line| line.split_once(':'));
        pairs.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

/// The first operation of `bytes`, and how long it is; `None`: not whole yet.
pub fn decode(bytes: &[u8]) -> Result<Option<(Op<'_>, usize)>, ProtocolFault> {
    let seen = bytes.get(..LINE_BYTES_MAX).unwrap_or(bytes);
    let Some(length) = seen.windows(END.len()).position(|pair| pair == END) else {
        if seen.len() == LINE_BYTES_MAX {
            return Err(fault(format!("a line of more than {LINE_BYTES_MAX} bytes")));
        }
        return Ok(None);
    };
    let (line, rest) = bytes.split_at(length);
    let line = std::str::from_utf8(line).map_err(|_| fault("a line that is not UTF-8"))?;
    let rest = rest.get(END.len()..).unwrap_or_default();
    let (word, arguments) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    let op = match word.to_ascii_uppercase().as_str() {
        "MSG" => return message(Shape::Plain, arguments, rest, length),
        "HMSG" => return message(Shape::WithHeader, arguments, rest, length),
        "INFO" => Op::Info(arguments),
        "PING" => Op::Ping,
        "PONG" => Op::Pong,
        "+OK" => Op::Ok,
        "-ERR" => Op::Err(arguments.trim().trim_matches('\'')),
        _ => return Err(fault(format!("{:?}: not an operation", line.get(..40).unwrap_or(line)))),
    };
    Ok(Some((op, length + END.len())))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Plain,
    WithHeader,
}

fn message<'a>(
    shape: Shape,
    arguments: &'a str,
    rest: &'a [u8],
    line_length: usize,
) -> Result<Option<(Op<'a>, usize)>, ProtocolFault> {
    let bad = || fault(format!("a message {:?}", arguments.get(..80).unwrap_or(arguments)));
    let size = |text: &str| {
        let size = text.parse::<usize>().map_err(|_| bad())?;
        if size > PAYLOAD_BYTES_MAX {
            return Err(fault(format!("a message of {size} bytes, more than {PAYLOAD_BYTES_MAX}")));
        }
        Ok(size)
    };
    let words: Vec<&str> = arguments.split_ascii_whitespace().collect();
    let (subject, subscription, reply, header, total) = match (shape, words.as_slice()) {
        (Shape::Plain, [subject, id, total]) => (subject, id, None, 0, size(total)?),
        (Shape::Plain, [subject, id, reply, total]) => (subject, id, Some(*reply), 0, size(total)?),
        (Shape::WithHeader, [subject, id, header, total]) => (subject, id, None, size(header)?, size(total)?),
        (Shape::WithHeader, [subject, id, reply, header, total]) => {
            (subject, id, Some(*reply), size(header)?, size(total)?)
        }
        _ => return Err(bad()),
    };
    let Some((content, rest)) = rest.split_at_checked(total) else { return Ok(None) };
    let Some(end) = rest.get(..END.len()) else { return Ok(None) };
    if end != END {
        return Err(fault("a message longer than it said"));
    }
    let (header, payload) = content.split_at_checked(header).ok_or_else(bad)?;
    let delivery = Delivery {
        subject,
        subscription: subscription.parse().map_err(|_| bad())?,
        reply,
        header: std::str::from_utf8(header).map_err(|_| fault("a header that is not UTF-8"))?,
        payload,
    };
    Ok(Some((Op::Message(delivery), line_length + 2 * END.len() + total)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_read_whole() {
        let stream = b"MSG a.b 7 3\r\na\r\n\r\nHMSG a 8 _INBOX.x 27 29\r\nNATS/1.0 408 Late\r\nA: 1\r\n\r\nxy\r\n-ERR 'Bad'\r\n";
        let (first, taken) = decode(stream).expect("well formed").expect("whole");
        let plain = Delivery { subject: "a.b", subscription: 7, reply: None, header: "", payload: b"a\r\n" };
        assert_eq!(first, Op::Message(plain));
        for end in 0..taken {
            assert_eq!(decode(&stream[..end]), Ok(None), "{end}");
        }
        let rest = &stream[taken..];
        let Ok(Some((Op::Message(second), taken))) = decode(rest) else { panic!("{:?}", decode(rest)) };
        assert_eq!(
            (second.reply, second.status(), second.payload),
            (Some("_INBOX.x"), Some(408), &b"xy"[..])
        );
        assert_eq!((second.header("a"), second.header("b")), (Some("1"), None));
        assert_eq!(decode(&rest[taken..]), Ok(Some((Op::Err("Bad"), 12))));
    }

    #[test]
    fn malformed_operations_are_refused() {
        for bad in [
            &b"MSG a 1\r\n"[..],
            b"MSG a x 1\r\nx\r\n",
            b"MSG a 1 2\r\nxyz\r\n",
            b"MSG a 1 -1\r\n",
            b"MSG a 1 99999999\r\n",
            b"HMSG a 1 5 3\r\nabc\r\n",
            b"HMSG a 1 5\r\nabcde\r\n",
            b"MSG a 1 r s 3\r\nabc\r\n",
            b"GET / HTTP/1.1\r\n",
            b"\xff\r\n",
            b"\r\n",
        ] {
            assert!(decode(bad).is_err(), "{:?}", String::from_utf8_lossy(bad));
        }
        assert!(decode(&[b'I'; LINE_BYTES_MAX]).is_err(), "an endless line");
        assert_eq!(decode(&[b'I'; LINE_BYTES_MAX - 1]), Ok(None));
    }
}

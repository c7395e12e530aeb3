//! MQTT 3.1.1 packets as bytes: those a client gets, and those it sends.

use crate::agent::protocol::ProtocolFault;
use crate::peers::partial::fault;
use bytes::{BufMut, BytesMut};
use wire_protocol::limits::BODY_BYTES_MAX;

/// Largest packet that is taken, in bytes: the largest body, its topic (two lengths, a run and two numbers: below
/// 100), and room to spare.
pub const PACKET_BYTES_MAX: usize = BODY_BYTES_MAX + 1024;
/// Bytes of a fixed header at most: a type, and four of length.
const HEADER_BYTES_MAX: usize = 5;

/// What a server sends to a client of ours.
#[derive(PartialEq, Eq, Debug)]
pub enum Packet<'a> {
    /// Answer to the opening.
    ConnAck {
        /// Whether the server remembers this client.
        session_present: bool,
        /// 0: welcome.
        code: u8,
    },
    /// A message.
    Publish {
        /// To be acknowledged; `None`: quality of service 0.
        id: Option<u16>,
        /// Where it was sent.
        topic: &'a str,
        /// What was sent.
        payload: &'a [u8],
    },
    /// The server has a message of ours.
    PubAck(u16),
    /// The server has our subscriptions.
    SubAck {
        /// Whose answer.
        id: u16,
        /// One for each filter: the granted quality of service, or 0x80.
        codes: &'a [u8],
    },
    /// Answer to a ping.
    PingResp,
}

/// The first packet of `bytes`, and how long it is; `None`: not whole yet.
pub fn decode(bytes: &[u8]) -> Result<Option<(Packet<'_>, usize)>, ProtocolFault> {
    let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
    let Some((length, length_bytes)) = remaining_length(rest)? else { return Ok(None) };
    if length + HEADER_BYTES_MAX > PACKET_BYTES_MAX {
        return Err(fault(format!("a packet of {length} bytes, more than {PACKET_BYTES_MAX}")));
    }
    let Some(body) = rest.get(length_bytes..length_bytes + length) else { return Ok(None) };
    let packet = packet(first, body)?;
    Ok(Some((packet, 1 + length_bytes + length)))
}

fn remaining_length(bytes: &[u8]) -> Result<Option<(usize, usize)>, ProtocolFault> {
    let mut length = 0;
    for (place, byte) in bytes.iter().take(HEADER_BYTES_MAX - 1).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Ok(Some((length, place + 1)));
        }
    }
    if bytes.len() < HEADER_BYTES_MAX - 1 {
        return Ok(None);
    }
    Err(fault("a length of more than four bytes"))
}

fn packet(first: u8, body: &[u8]) -> Result<Packet<'_>, ProtocolFault> {
    match (first >> 4, first & 0x0f, body) {
        (2, 0, &[flags @ 0..=1, code]) => Ok(Packet::ConnAck { session_present: flags == 1, code }),
        (3, flags, body) => publish(flags, body),
        (4, 0, &[high, low]) => Ok(Packet::PubAck(u16::from_be_bytes([high, low]))),
        (9, 0, &[high, low, ref codes @ ..]) if !codes.is_empty() => {
            Ok(Packet::SubAck { id: u16::from_be_bytes([high, low]), codes })
        }
        (13, 0, &[]) => Ok(Packet::PingResp),
        (kind, flags, body) => {
            Err(fault(format!("packet type {kind}, flags {flags:#x}, {} bytes: not one we take", body.len())))
        }
    }
}

fn publish(flags: u8, body: &[u8]) -> Result<Packet<'_>, ProtocolFault> {
    let short = || fault("a message shorter than its topic");
    let (length, rest) = body.split_first_chunk::<2>().ok_or_else(short)?;
    let (topic, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length))).ok_or_else(short)?;
    let topic = std::str::from_utf8(topic).map_err(|_| fault("a topic that is not UTF-8"))?;
    match flags >> 1 & 3 {
        0 => Ok(Packet::Publish { id: None, topic, payload: rest }),
        1 => {
            let (id, payload) = rest.split_first_chunk::<2>().ok_or_else(short)?;
            let id = u16::from_be_bytes(*id);
            if id == 0 {
                return Err(fault("a message with packet id 0"));
            }
            Ok(Packet::Publish { id: Some(id), topic, payload })
        }
        other => Err(fault(format!("a message of quality of service {other}"))),
    }
}

fn header(out: &mut BytesMut, first: u8, mut length: usize) {
    out.put_u8(first);
    loop {
        let low = (length & 0x7f) as u8;
        length >>= 7;
        if length == 0 {
            return out.put_u8(low);
        }
        out.put_u8(low | 0x80);
    }
}

fn text(out: &mut BytesMut, text: &str) {
    out.put_u16(u16::try_from(text.len()).expect("our names are short"));
    out.put_slice(text.as_bytes());
}

/// Opens a session that the server keeps when the connection ends.
pub fn connect(out: &mut BytesMut, client_id: &str, keep_alive_s: u16) {
    header(out, 0x10, 12 + client_id.len());
    text(out, "MQTT");
    // Protocol level 4 is 3.1.1; no flag set: no will, no name, and not a clean session.
    out.put_slice(&[4, 0]);
    out.put_u16(keep_alive_s);
    text(out, client_id);
}

/// Listens to each filter, with quality of service 1.
pub fn subscribe(out: &mut BytesMut, id: u16, filters: &[String]) {
    let length = 2 + filters.iter().map(|filter| filter.len() + 3).sum::<usize>();
    header(out, 0x82, length);
    out.put_u16(id);
    for filter in filters {
        text(out, filter);
        out.put_u8(1);
    }
}

/// A message with quality of service 1.
pub fn publish_once(out: &mut BytesMut, id: u16, topic: &str, payload: &[u8]) {
    header(out, 0x32, 4 + topic.len() + payload.len());
    text(out, topic);
    out.put_u16(id);
    out.put_slice(payload);
}

/// We have the message.
pub fn puback(out: &mut BytesMut, id: u16) {
    out.put_slice(&[0x40, 2]);
    out.put_u16(id);
}

/// Are you there?
pub fn pingreq(out: &mut BytesMut) {
    out.put_slice(&[0xc0, 0]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standard_examples_are_written_as_they_should() {
        let mut out = BytesMut::new();
        connect(&mut out, "d7", 30);
        assert_eq!(&out[..], b"\x10\x0e\0\x04MQTT\x04\0\0\x1e\0\x02d7");
        out.clear();
        subscribe(&mut out, 1, &["a/+".into(), "b".into()]);
        assert_eq!(&out[..], b"\x82\x0c\0\x01\0\x03a/+\x01\0\x01b\x01");
        out.clear();
        publish_once(&mut out, 0x1234, "t", &[b'x'; 200]);
        assert_eq!(&out[..8], b"\x32\xcd\x01\0\x01t\x12\x34");
        assert_eq!(out.len(), 3 + 205);
        out.clear();
        puback(&mut out, 0x1234);
        assert_eq!(&out[..], b"\x40\x02\x12\x34");
        // What a server passes on has the layout of what a client sends.
        out.clear();
        publish_once(&mut out, 9, "t", b"body");
        let expected = Packet::Publish { id: Some(9), topic: "t", payload: b"body" };
        assert_eq!(decode(&out), Ok(Some((expected, out.len()))));
    }

    #[test]
    fn malformed_packets_are_refused_and_short_ones_waited_for() {
        for bad in [
            &b"\x30\xff\xff\xff\xff\x01"[..],
            b"\x30\xff\xff\xff\x7f",
            b"\x20\x02\x02\0",
            b"\x20\x03\0\0\0",
            b"\x34\x05\0\x01t\0\x01",
            b"\x36\x05\0\x01t\0\x01",
            b"\x32\x05\0\x01t\0\0",
            b"\x32\x02\0\x09",
            b"\x32\x01\0",
            b"\x30\x03\0\x01\xff",
            b"\x41\x02\0\x01",
            b"\x40\x03\0\x01\0",
            b"\x90\x02\0\x01",
            b"\xd0\x01\0",
            b"\x10\0",
            b"\0\0",
            b"\xf0\0",
        ] {
            assert!(decode(bad).is_err(), "{bad:x?}");
        }
        let mut whole = BytesMut::new();
        publish_once(&mut whole, 9, "t", &[b'x'; 300]);
        for end in 0..whole.len() {
            assert_eq!(decode(&whole[..end]), Ok(None), "{end}");
        }
    }
}

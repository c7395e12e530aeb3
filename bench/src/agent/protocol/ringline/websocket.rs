//! The WebSocket around the session's frames: the upgrade, then one binary message for each frame.

use super::ProtocolFault;
use crate::workload::population::DeviceIndex;
use bytes::{Bytes, BytesMut};
use wire_protocol::limits::FRAME_BYTES_MAX;
use wire_protocol::websocket::{
    self, AcceptKey, CloseCode, Decoder, Item, Outgoing, check_upgraded, upgrade_request,
};

/// Largest head of the upgrade's answer, in bytes: ten times what a gateway writes.
const HEAD_BYTES_MAX: usize = 2_048;
/// Ends a head.
const HEAD_END: &[u8] = b"\r\n\r\n";

/// An upgrade without its answer.
pub(super) struct Opening {
    request: Bytes,
    expected: AcceptKey,
    head: Vec<u8>,
}

impl Opening {
    pub(super) fn new(host: &str, device: DeviceIndex) -> Self {
        // The nonce guards caches, of which there is none here: it need not be secret, only differ.
        let mut nonce = *b"ringline-bench..";
        nonce.iter_mut().rev().zip(device.0.to_le_bytes()).for_each(|(to, from)| *to = from);
        let (request, expected) = upgrade_request(host, nonce);
        Self { request, expected, head: Vec::new() }
    }

    pub(super) fn begin(&mut self, out: &mut BytesMut) {
        out.extend_from_slice(&std::mem::take(&mut self.request));
    }

    /// The open WebSocket once the whole answer is there, with whatever came behind it.
    pub(super) fn received(&mut self, bytes: &[u8]) -> Result<Option<Upgraded>, ProtocolFault> {
        self.head.extend_from_slice(bytes);
        let end = self.head.windows(HEAD_END.len()).position(|window| window == HEAD_END);
        let Some(end) = end else {
            return if self.head.len() > HEAD_BYTES_MAX {
                Err(ProtocolFault("the upgrade's answer does not end".into()))
            } else {
                Ok(None)
            };
        };
        let (head, rest) = self.head.split_at(end + HEAD_END.len());
        let text = std::str::from_utf8(head).unwrap_or_default();
        let mut lines = text.split("\r\n");
        let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
        let headers = lines.filter_map(|line| line.split_once(':'));
        let headers = headers.map(|(name, value)| (name, value.trim().as_bytes()));
        check_upgraded(status.unwrap_or(0), headers, &self.expected)
            .map_err(|error| ProtocolFault(format!("{error}: status {status:?}")))?;
        let mut upgraded = Upgraded { decoder: Decoder::for_client(FRAME_BYTES_MAX), mask: MASK_FIRST };
        upgraded.push(rest);
        Ok(Some(upgraded))
    }
}

/// First mask of a connection.
const MASK_FIRST: u32 = 0x9e37_79b9;

/// An open WebSocket.
pub(super) struct Upgraded {
    decoder: Decoder,
    mask: u32,
}

impl Upgraded {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.decoder.push(bytes);
    }

    pub(super) fn write(&mut self, payload: &[u8], out: &mut BytesMut) {
        self.encode(Outgoing::Binary(payload), out);
    }

    /// The next frame's payload. Pings and a close are answered.
    pub(super) fn next_payload(&mut self, out: &mut BytesMut) -> Result<Option<Bytes>, ProtocolFault> {
        loop {
            match self.decoder.next_item().map_err(|error| ProtocolFault(error.to_string()))? {
                Some(Item::Binary(payload)) => return Ok(Some(payload)),
                Some(Item::Ping(payload)) => self.encode(Outgoing::Pong(&payload), out),
                Some(Item::Pong(_)) => {}
                // The socket's end follows.
                Some(Item::Close { .. }) => self.encode(Outgoing::Close(Some(CloseCode::NORMAL), ""), out),
                Some(Item::Text(_)) => return Err(ProtocolFault("text on the WebSocket".into())),
                None => return Ok(None),
            }
        }
    }

    fn encode(&mut self, item: Outgoing<'_>, out: &mut BytesMut) {
        // Masks guard proxies from browsers' scripts; a load generator only has to vary them.
        self.mask = self.mask.wrapping_mul(0x0019_660d).wrapping_add(0x3c6e_f35f);
        websocket::encode(item, Some(self.mask.to_be_bytes()), out);
    }
}

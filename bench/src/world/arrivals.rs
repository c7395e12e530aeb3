//! What arrives twice. The network itself doubles nothing, as TCP does not; but whoever lost a connection does not know what
//! came over it, and says again over the next one what was not answered. Counted are messages of devices at gateways; one
//! that was refused has its answer, and is sent again for that.

use super::device::message_of;
use super::network::ConnectionId;
use super::story::{Message, Story};
use bytes::Bytes;
use std::collections::BTreeMap;
use wire_protocol::frame::FrameDecoder;
use wire_protocol::limits::FRAME_BYTES_MAX;
use wire_protocol::link::decode;
use wire_protocol::v1::{ClientFrame, client_frame};

/// What came to gateways so far.
#[derive(Default)]
pub(super) struct Arrivals {
    /// By message: over which connection it came last, and after how many refusals.
    over: BTreeMap<usize, (ConnectionId, u64)>,
    decoders: BTreeMap<ConnectionId, FrameDecoder>,
}

impl Arrivals {
    /// Bytes of a device came to a gateway. How many messages in them had come over another connection, and were not
    /// answered: who has an answer repeats on purpose.
    pub fn doubled(&mut self, over: ConnectionId, bytes: &Bytes, story: &Story) -> u64 {
        let decoder = self.decoders.entry(over).or_insert_with(|| FrameDecoder::new(FRAME_BYTES_MAX));
        decoder.push(bytes);
        let mut doubled = 0;
        while let Ok(Some(payload)) = decoder.next_frame() {
            let Ok(ClientFrame { body: Some(client_frame::Body::Send(send)), .. }) = decode(payload) else {
                continue;
            };
            let message = message_of(send.client_message_id);
            let Message { seq, refusals, .. } = &story.messages[message];
            let before = self.over.insert(message, (over, *refusals));
            let is_again = before.is_some_and(|(before, refused)| before != over && refused == *refusals);
            doubled += u64::from(is_again && seq.is_none());
        }
        doubled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::random::Random;
    use crate::world::agenda::Agenda;
    use crate::world::network::{Line, Network};
    use bytes::BytesMut;
    use wire_protocol::frame::encode_message;
    use wire_protocol::v1::SendMessage;

    /// A frame that sends the story's first message.
    fn sent() -> Bytes {
        let send = SendMessage { client_message_id: 1, ..SendMessage::default() };
        let frame = ClientFrame { request_id: 1, body: Some(client_frame::Body::Send(send)) };
        let mut bytes = BytesMut::new();
        encode_message(&frame, &mut bytes);
        bytes.freeze()
    }

    #[test]
    fn a_message_is_doubled_that_comes_over_the_next_connection_before_it_is_answered() {
        let (mut network, mut random, mut agenda) = (Network::new(2), Random::new(0), Agenda::default());
        let line = Line { from: 0, to: 1, number: 0 };
        let mut connect = || network.connect(0, line, &mut random, &mut agenda);
        let (mut arrivals, mut story) = (Arrivals::default(), Story::new(0, 1));
        let message = story.write(0, 0);
        let [first, second, third, fourth, fifth] = [(); 5].map(|()| connect());
        let half = sent().len() / 2;
        assert_eq!(arrivals.doubled(first, &sent().slice(..half), &story), 0);
        assert_eq!(arrivals.doubled(first, &sent().slice(half..), &story), 0);
        assert_eq!(arrivals.doubled(first, &sent(), &story), 0, "it repeats over the same one");
        assert_eq!(arrivals.doubled(second, &sent(), &story), 1);
        story.messages[message].refusals = 1;
        assert_eq!(arrivals.doubled(third, &sent(), &story), 0, "it was refused");
        assert_eq!(arrivals.doubled(fourth, &sent(), &story), 1, "it was not refused again");
        story.messages[message].seq = Some(1);
        assert_eq!(arrivals.doubled(fifth, &sent(), &story), 0, "it has its answer");
    }
}

use super::*;
use crate::front::SendRefused;
use crate::session::outbox::tests::{FakeSockets, open_session};
use wire_protocol::internal::SessionAddress;
use wire_protocol::limits::OUTBOX_BYTES_MAX;

fn delivery(tokens: &[ConnectionToken], event: delivery::Event) -> Delivery {
    let address = |token: &ConnectionToken| SessionAddress { slot: token.slot, generation: token.generation };
    Delivery {
        sessions: tokens.iter().map(address).collect(),
        conversation_id: vec![3; 16].into(),
        event: Some(event),
    }
}

fn entry() -> delivery::Event {
    delivery::Event::Entry(v1::Entry { seq: 5, body: vec![1; 100].into(), ..Default::default() })
}

#[test]
fn an_event_reaches_every_session_that_is_still_there() {
    let mut sessions = SessionTable::default();
    let (mut sockets, mut space, mut after) = (FakeSockets::default(), BytesMut::new(), Vec::new());
    let here = [open_session(&mut sessions, 0), open_session(&mut sessions, 1)];
    let gone = ConnectionToken { slot: 1, generation: 77 };
    let event = delivery(&[here[0], gone, here[1]], entry());
    let delivered = deliver(event, 0, &mut sessions, &mut sockets, &mut space, &mut after);
    assert_eq!(delivered, Delivered { queued: 2, dropped: 0 });
    assert!(after.is_empty());
    for token in here {
        let bodies = sockets.bodies(token);
        let [server_frame::Body::Message(message)] = &bodies[..] else { panic!("{bodies:?}") };
        assert_eq!(
            (message.entry.as_ref().map(|entry| entry.seq), message.conversation_id.len()),
            (Some(5), 16)
        );
    }
}

#[test]
fn a_receipt_names_its_conversation() {
    let mut sessions = SessionTable::default();
    let (mut sockets, mut space, mut after) = (FakeSockets::default(), BytesMut::new(), Vec::new());
    let token = open_session(&mut sessions, 0);
    let receipt = v1::ReceiptEvent { member: 1, read_up_to: 4, ..Default::default() };
    let event = delivery(&[token], delivery::Event::Receipt(receipt));
    deliver(event, 0, &mut sessions, &mut sockets, &mut space, &mut after);
    let bodies = sockets.bodies(token);
    let [server_frame::Body::Receipt(receipt)] = &bodies[..] else { panic!("{bodies:?}") };
    assert_eq!((receipt.read_up_to, &receipt.conversation_id[..]), (4, &[3; 16][..]));
}

#[test]
fn a_slow_session_loses_events_and_is_marked_once() {
    let mut sessions = SessionTable::default();
    let (mut sockets, mut space, mut after) = (FakeSockets::default(), BytesMut::new(), Vec::new());
    let (slow, quick) = (open_session(&mut sessions, 0), open_session(&mut sessions, 1));
    sockets.queued.insert(slow, OUTBOX_BYTES_MAX - 100);
    for _ in 0..2 {
        let event = delivery(&[slow, quick], entry());
        let delivered = deliver(event, 9, &mut sessions, &mut sockets, &mut space, &mut after);
        assert_eq!(delivered, Delivered { queued: 1, dropped: 1 });
    }
    assert_eq!(after, [Aftermath::BecameSlow(slow)]);
    assert!(sockets.bodies(slow).is_empty());
}

/// Sockets that say they have room and take nothing.
struct Refusing;

impl Sockets for Refusing {
    fn send(&mut self, _: ConnectionToken, _: &[u8]) -> Result<(), SendRefused> {
        Err(SendRefused::Full)
    }

    fn queued_bytes(&self, _: ConnectionToken) -> usize {
        0
    }
}

#[test]
fn a_session_that_takes_nothing_is_named_to_be_closed() {
    let mut sessions = SessionTable::default();
    let token = open_session(&mut sessions, 0);
    let (mut space, mut after) = (BytesMut::new(), Vec::new());
    let event = delivery(&[token], entry());
    let delivered = deliver(event, 0, &mut sessions, &mut Refusing, &mut space, &mut after);
    assert_eq!((delivered, &after[..]), (Delivered::default(), &[Aftermath::TooSlow(token)][..]));
}

#[test]
fn a_session_that_lost_events_elsewhere_is_told_to_sync() {
    let mut sessions = SessionTable::default();
    let (mut sockets, mut space, mut after) = (FakeSockets::default(), BytesMut::new(), Vec::new());
    let token = open_session(&mut sessions, 0);
    let event = delivery(&[token], delivery::Event::SyncNeeded(true));
    deliver(event, 0, &mut sessions, &mut sockets, &mut space, &mut after);
    assert_eq!(sockets.bodies(token), [server_frame::Body::SyncNeeded(v1::SyncNeeded {})]);
}

#[test]
fn a_removed_device_closes_its_sessions() {
    let mut sessions = SessionTable::default();
    let (mut sockets, mut space, mut after) = (FakeSockets::default(), BytesMut::new(), Vec::new());
    let token = open_session(&mut sessions, 0);
    let event = delivery(&[token], delivery::Event::DeviceRemoved(true));
    deliver(event, 0, &mut sessions, &mut sockets, &mut space, &mut after);
    assert_eq!(after, [Aftermath::DeviceRemoved(token)]);
}

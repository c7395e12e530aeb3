//! Delivered and read cursors, and the sender who hears of them.

use crate::chat::{accepted, created, direct, live, text};
use crate::client::{Client, Way};
use crate::server::Server;
use bytes::Bytes;
use wire_protocol::v1::{self, client_frame, server_frame};

fn receipt(client: &mut Client, wanted: impl Fn(&v1::ReceiptEvent) -> bool) -> v1::ReceiptEvent {
    client.event_with(|event| match event {
        server_frame::Body::Receipt(receipt) => Some(receipt).filter(|receipt| wanted(receipt)),
        _ => None,
    })
}

fn delivered(conversation_id: &Bytes, seq: u64) -> client_frame::Body {
    client_frame::Body::Delivered(v1::DeliveredUpTo {
        conversation_id: conversation_id.clone(),
        seq,
        handle: 0,
    })
}

fn read(conversation_id: &Bytes, seq: u64) -> client_frame::Body {
    client_frame::Body::Read(v1::ReadUpTo { conversation_id: conversation_id.clone(), seq, handle: 0 })
}

#[test]
fn ticks_come_back_to_the_sender() {
    let server = Server::embedded();
    let (ada, bob) = (server.register("ada"), server.register("bob"));
    let mut adas = Client::connect(&server, Way::NativeTls, &ada);
    let mut bobs = Client::connect(&server, Way::WebSocket, &bob);
    let made = created(adas.ask(direct(&bob)));
    let conversation = made.conversation_id;
    accepted(adas.ask(text(&conversation, 1, "one")));
    accepted(adas.ask(text(&conversation, 2, "two")));
    while live(&mut bobs).1 != 3 {}
    bobs.notify(delivered(&conversation, 3));
    let told = receipt(&mut adas, |receipt| receipt.delivered_up_to == 3);
    assert_eq!((told.member, told.read_up_to, told.conversation_id.clone()), (1, 0, conversation.clone()));
    assert!(matches!(bobs.ask(read(&conversation, 2)), server_frame::Body::Done(_)));
    assert_eq!(receipt(&mut adas, |receipt| receipt.read_up_to == 2).member, 1);
    // Cursors never fall: an older one changes nothing.
    assert!(matches!(bobs.ask(read(&conversation, 1)), server_frame::Body::Done(_)));
    let get =
        client_frame::Body::Get(v1::GetConversation { conversation_id: conversation.clone(), handle: 0 });
    let seen = created(bobs.ask(get));
    assert_eq!((seen.read_up_to, seen.delivered_up_to, seen.unread), (2, 3, 1));
    let bob_is = &seen.members[1];
    assert_eq!((bob_is.delivered_up_to, bob_is.read_up_to), (3, 2));
}

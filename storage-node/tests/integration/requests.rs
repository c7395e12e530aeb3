//! Requests as a gateway would make them.

use bytes::Bytes;
use wire_protocol::ids::{ConversationId, DeviceId, ShardId, UserId, name_slot};
use wire_protocol::internal::shard_request::Operation;
use wire_protocol::internal::shard_response::Result as Reply;
use wire_protocol::internal::{
    Answer, AttachSession, ClaimName, Command, ConfirmName, ConversationView, CreateConversation, CreateUser,
    Device, MessageApplied, NameRecord, Query, ReadConversation, ReadFeed, ReadName, SendMessage,
    SessionAddress, ShardResponse, answer, command, outcome, query, read_conversation,
};
use wire_protocol::v1::ConversationKind;

/// A user with one device, told apart by a number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Person {
    pub user: UserId,
    pub device: DeviceId,
}

pub fn person(number: u64) -> Person {
    let mut id = [0x11; 16];
    id[..8].copy_from_slice(&number.to_be_bytes());
    let mut device = id;
    device[15] = 0xdd;
    Person { user: UserId(id), device: DeviceId(device) }
}

/// An operation and the shard it belongs to.
#[derive(Clone, Debug)]
pub struct Call {
    pub shard: ShardId,
    pub operation: Operation,
}

fn command(shard: ShardId, kind: command::Kind) -> Call {
    Call { shard, operation: Operation::Command(Command { kind: Some(kind) }) }
}

fn ask(shard: ShardId, kind: query::Kind) -> Call {
    Call { shard, operation: Operation::Query(Query { kind: Some(kind) }) }
}

pub fn create_user(shards: u32, person: Person) -> Call {
    let device = Device {
        device_id: person.device.to_bytes(),
        name: "phone".into(),
        refresh_hash: Bytes::from_static(&[1; 32]),
        created_ms: 0,
    };
    let create = CreateUser {
        user_id: person.user.to_bytes(),
        username: username(person),
        display_name: "Somebody".into(),
        password_hash: "hash".into(),
        device: Some(device),
    };
    command(person.user.slot().shard(shards), command::Kind::CreateUser(create))
}

fn username(person: Person) -> String {
    format!("u{}", person.user)
}

pub fn claim_name(shards: u32, person: Person) -> Call {
    let name = username(person);
    let claim = ClaimName { user_id: person.user.to_bytes(), name: name.clone() };
    command(name_slot(&name).shard(shards), command::Kind::ClaimName(claim))
}

pub fn confirm_name(shards: u32, person: Person) -> Call {
    let name = username(person);
    let confirm = ConfirmName { user_id: person.user.to_bytes(), name: name.clone() };
    command(name_slot(&name).shard(shards), command::Kind::ConfirmName(confirm))
}

pub fn read_name(shards: u32, person: Person) -> Call {
    let name = username(person);
    ask(name_slot(&name).shard(shards), query::Kind::ReadName(ReadName { name }))
}

/// The answer to [`read_name`], of a name that the person has.
pub fn named(person: Person) -> Option<Reply> {
    let record = NameRecord { user_id: person.user.to_bytes() };
    Some(Reply::Answer(Answer { kind: Some(answer::Kind::Name(record)) }))
}

pub fn create_direct(shards: u32, a: Person, b: Person) -> Call {
    let id = ConversationId::direct(a.user, b.user);
    let create = CreateConversation {
        conversation_id: id.to_bytes(),
        kind: ConversationKind::Direct as i32 as u32,
        member_ids: vec![a.user.to_bytes(), b.user.to_bytes()],
        title: String::new(),
    };
    command(id.slot().shard(shards), command::Kind::CreateConversation(create))
}

/// A message whose body says who wrote it and which of theirs it is.
pub fn send(shards: u32, from: Person, conversation: ConversationId, client_id: u64) -> Call {
    send_body(shards, from, conversation, client_id, body(from, client_id))
}

pub fn send_body(
    shards: u32,
    from: Person,
    conversation: ConversationId,
    client_id: u64,
    body: Bytes,
) -> Call {
    let send = SendMessage {
        conversation_id: conversation.to_bytes(),
        user_id: from.user.to_bytes(),
        device_id: from.device.to_bytes(),
        client_message_id: client_id,
        predecessor: 0,
        kind: 0,
        body,
    };
    command(conversation.slot().shard(shards), command::Kind::SendMessage(send))
}

pub fn body(from: Person, client_id: u64) -> Bytes {
    Bytes::from(format!("{} {client_id}", from.user))
}

pub fn read_after(shards: u32, who: Person, conversation: ConversationId, after_seq: u64) -> Call {
    let read = ReadConversation {
        conversation_id: conversation.to_bytes(),
        user_id: who.user.to_bytes(),
        device_id: who.device.to_bytes(),
        with_members: true,
        range: Some(read_conversation::Range::AfterSeq(after_seq)),
        entries_max: 50,
        bytes_max: 40 * 1024,
    };
    ask(conversation.slot().shard(shards), query::Kind::ReadConversation(read))
}

pub fn read_feed(shards: u32, who: Person, since_version: u64) -> Call {
    let read = ReadFeed { user_id: who.user.to_bytes(), since_version, rows_max: 100 };
    ask(who.user.slot().shard(shards), query::Kind::ReadFeed(read))
}

pub fn remove_device(shards: u32, who: Person) -> Call {
    let remove = wire_protocol::internal::RemoveDevice {
        user_id: who.user.to_bytes(),
        device_id: who.device.to_bytes(),
    };
    command(who.user.slot().shard(shards), command::Kind::RemoveDevice(remove))
}

pub fn attach(shards: u32, who: Person, session: SessionAddress) -> Call {
    let attach = AttachSession {
        user_id: who.user.to_bytes(),
        device_id: who.device.to_bytes(),
        session: Some(session),
    };
    Call { shard: who.user.slot().shard(shards), operation: Operation::Attach(attach) }
}

/// The first answer to a send.
pub fn applied(response: &ShardResponse) -> MessageApplied {
    match &response.result {
        Some(Reply::Outcome(outcome)) => match &outcome.kind {
            Some(outcome::Kind::MessageApplied(applied)) => *applied,
            other => panic!("not applied: {other:?}"),
        },
        other => panic!("not applied: {other:?}"),
    }
}

pub fn view(response: ShardResponse) -> ConversationView {
    match response.result {
        Some(Reply::Answer(answer)) => match answer.kind {
            Some(answer::Kind::Conversation(view)) => view,
            other => panic!("no conversation: {other:?}"),
        },
        other => panic!("no conversation: {other:?}"),
    }
}

pub fn feed_page(response: ShardResponse) -> wire_protocol::internal::FeedPage {
    match response.result {
        Some(Reply::Answer(answer)) => match answer.kind {
            Some(answer::Kind::Feed(page)) => page,
            other => panic!("no feed: {other:?}"),
        },
        other => panic!("no feed: {other:?}"),
    }
}

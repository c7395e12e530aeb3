//! What an app sees: messages, conversations, receipts, events.

use bytes::Bytes;
use std::borrow::Cow;
use wire_protocol::ids::{ClientMessageId, ConversationId, DeviceId, Seq, UserId};
use wire_protocol::v1::{ConversationKind, EntryKind, ErrorCode};

/// Who is logged in on this device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The user.
    pub user: UserId,
    /// This device of theirs.
    pub device: DeviceId,
    /// Unique name.
    pub username: String,
    /// Shown name.
    pub display_name: String,
}

/// An entry of a conversation that the server has made durable and given its place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// Where.
    pub conversation: ConversationId,
    /// Its place: 1, 2, 3, … without gaps.
    pub seq: Seq,
    /// The sender's ordinal in the conversation.
    pub sender_ordinal: u32,
    /// The sender, if the members are known by now.
    pub sender: Option<UserId>,
    /// Sent by this user, on whichever device.
    pub own: bool,
    /// Server time, milliseconds since 1970.
    pub time_ms: u64,
    /// What it is.
    pub kind: EntryKind,
    /// Content, opaque to the server.
    pub body: Bytes,
    /// Set if this device sent it: the pending message with this id is this one.
    pub client_message_id: Option<ClientMessageId>,
}

impl Message {
    /// The body of a text.
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }
}

/// A message of this device that is not yet part of the history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PendingMessage {
    /// Where to.
    pub conversation: ConversationId,
    /// As `send` returned it.
    pub client_message_id: ClientMessageId,
    /// What it is.
    pub kind: EntryKind,
    /// Content.
    pub body: Bytes,
    /// Device time when it was accepted into the outbox, milliseconds since 1970.
    pub queued_ms: u64,
    /// How it stands.
    pub state: PendingState,
}

/// How a message stands that is not yet part of the history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PendingState {
    /// It will be sent, or was and waits for its answer.
    OnItsWay,
    /// Durable at this place; messages before it have still to arrive here.
    Accepted(Seq),
    /// It will not be sent without the user's decision.
    Refused(Refusal),
}

/// Why a message stays in the outbox.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The server will not take it.
    Server {
        /// Its code.
        code: ErrorCode,
        /// Names the culprit.
        detail: String,
    },
    /// It was sent, no answer came, and by now (another device id, or a week later) the server could no longer
    /// tell a repeat from a new message. It may or may not have arrived.
    Unconfirmed,
}

/// One member as this device knows them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Small number within the conversation.
    pub ordinal: u32,
    /// Who.
    pub user: UserId,
    /// Unique name; empty until looked up.
    pub username: String,
    /// Shown name; empty until looked up.
    pub display_name: String,
    /// Every entry up to here reached one of their devices.
    pub delivered_up_to: Seq,
    /// They have read up to here.
    pub read_up_to: Seq,
}

/// A conversation as this device knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Conversation {
    /// Its id.
    pub id: ConversationId,
    /// Direct or group.
    pub kind: ConversationKind,
    /// The group's title, or the other user's name.
    pub title: String,
    /// In the order of their ordinals.
    pub members: Vec<Member>,
    /// The own ordinal.
    pub own_ordinal: u32,
    /// The newest stored message.
    pub last: Option<Message>,
    /// Messages of others after the own read cursor.
    pub unread: u64,
    /// The own read cursor.
    pub read_up_to: Seq,
    /// Newest seq that this device holds without a gap.
    pub high: Seq,
    /// Time of the newest message or of creation, milliseconds since 1970: the order of the list.
    pub activity_ms: u64,
}

/// How far an own message has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Progress {
    /// In the outbox.
    Pending,
    /// Durable on the server.
    Durable,
    /// On a device of every other member.
    Delivered,
    /// Read by every other member.
    Read,
}

impl Conversation {
    /// How far the own message at `seq` has come.
    pub fn progress(&self, seq: Seq) -> Progress {
        let mut others = self.members.iter().filter(|member| member.ordinal != self.own_ordinal).peekable();
        if others.peek().is_none() {
            return Progress::Durable;
        }
        let (mut delivered, mut read) = (Seq(u64::MAX), Seq(u64::MAX));
        for member in others {
            delivered = delivered.min(member.delivered_up_to.max(member.read_up_to));
            read = read.min(member.read_up_to);
        }
        match () {
            () if read >= seq => Progress::Read,
            () if delivered >= seq => Progress::Delivered,
            () => Progress::Durable,
        }
    }

    /// The member with this ordinal.
    pub fn member(&self, ordinal: u32) -> Option<&Member> {
        self.members.iter().find(|member| member.ordinal == ordinal)
    }
}

/// What changed. Everything an event tells is already stored: after [`Event::Lagged`], or at any time, read the
/// state through `conversations`, `history` and `pending` instead.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// The connection's state.
    Connection(ConnectionState),
    /// A conversation grew by its next message. Each comes once, in order, without gaps.
    Message(Message),
    /// A message of this device is durable. [`Event::Message`] for it follows as soon as all before it are here.
    Accepted {
        /// Where.
        conversation: ConversationId,
        /// As `send` returned it.
        client_message_id: ClientMessageId,
        /// Its place.
        seq: Seq,
        /// Server time, milliseconds since 1970.
        time_ms: u64,
    },
    /// A message of this device will not be sent without the user's decision.
    Refused {
        /// Where.
        conversation: ConversationId,
        /// As `send` returned it.
        client_message_id: ClientMessageId,
        /// Why.
        refusal: Refusal,
    },
    /// A member's cursors moved.
    Receipt {
        /// Where.
        conversation: ConversationId,
        /// Whose.
        member_ordinal: u32,
        /// Everything up to here reached one of their devices.
        delivered_up_to: Seq,
        /// They have read up to here.
        read_up_to: Seq,
    },
    /// A conversation is new, or its title, members, names or unread count changed.
    ConversationChanged(ConversationId),
    /// The server was restored from a backup: conversations and messages that came from it are gone from this device, and
    /// what it has comes anew. Messages come once and in order from here on; the outbox is what it was.
    Restored,
    /// This reader was too slow and missed events: read the state anew.
    Lagged,
}

/// State of the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConnectionState {
    /// No identity: register or log in. The outbox and what was stored stay.
    LoggedOut,
    /// Waiting to connect again.
    Offline {
        /// Milliseconds until the next attempt.
        retry_in_ms: u64,
    },
    /// A connection is being made.
    Connecting,
    /// Connected, catching up.
    Syncing,
    /// Connected and up to date.
    Online,
    /// The store failed: nothing is accepted any more until the client is opened again.
    StoreFailed,
}

//! What the engine hands to the store, and what it gets back from it at start.

use super::outbox::Outgoing;
use super::timeline::Arrived;
use crate::model::Refusal;
use bytes::Bytes;
use wire_protocol::ids::{ClientMessageId, ConversationId, UserId};
use wire_protocol::v1;

/// One change of the stored state. All that one turn produced is written in one transaction and synced before
/// anything of that turn is told to the server or to the app.
#[derive(Clone, PartialEq, Debug)]
pub enum Write {
    /// The change-feed version up to which everything is stored.
    FeedVersion(u64),
    /// How often the server had been restored from a backup when what is stored came from it.
    Restores(u64),
    /// Spares the full log in next time.
    ResumeToken(Option<Bytes>),
    /// A new conversation, or new facts about one.
    Conversation(ConversationFacts),
    /// Its members; cursors never fall.
    Members {
        /// Where.
        conversation: ConversationId,
        /// Who.
        members: Vec<v1::Member>,
    },
    /// The window and the head.
    Window {
        /// Where.
        conversation: ConversationId,
        /// First sequence number of the window.
        low: u64,
        /// Last sequence number of the window.
        high: u64,
        /// Newest known sequence number.
        head: u64,
    },
    /// An entry; one that is there already stays, and learns the link.
    Entry {
        /// Where.
        conversation: ConversationId,
        /// The entry and the own message that it is.
        arrived: Arrived,
    },
    /// A member's cursors; they never fall.
    Receipt {
        /// Where.
        conversation: ConversationId,
        /// Whose.
        member: u32,
        /// Delivered up to.
        delivered: u64,
        /// Read up to.
        read: u64,
    },
    /// The own read cursor; never falls.
    ReadUpTo {
        /// Where.
        conversation: ConversationId,
        /// Up to.
        seq: u64,
    },
    /// The server confirmed these cursors of this device. Lazy: losing it costs one repeated report.
    Confirmed {
        /// Where.
        conversation: ConversationId,
        /// Delivered up to.
        delivered: u64,
        /// Read up to.
        read: u64,
    },
    /// A new message of the outbox.
    Queued(Outgoing),
    /// A message is about to be sent for the first time.
    Attempted {
        /// Where to.
        conversation: ConversationId,
        /// Which.
        id: ClientMessageId,
        /// When.
        at_ms: u64,
    },
    /// A message left the outbox.
    Unqueued {
        /// Where to.
        conversation: ConversationId,
        /// Which.
        id: ClientMessageId,
    },
    /// A message stays until the user decides.
    Refused {
        /// Where to.
        conversation: ConversationId,
        /// Which.
        id: ClientMessageId,
        /// Why.
        refusal: Refusal,
    },
    /// Names of users.
    Users(Vec<v1::User>),
    /// All conversations with their entries and cursors go, and the feed version. The outbox stays.
    Forgotten,
}

impl Write {
    /// Whether it may wait for company: nothing told to anybody depends on it.
    pub fn is_lazy(&self) -> bool {
        matches!(self, Write::Confirmed { .. } | Write::ResumeToken(_))
    }
}

/// Facts about a conversation that come from the server alone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConversationFacts {
    /// Its id.
    pub id: ConversationId,
    /// `ConversationKind` as it stands on the wire.
    pub kind: i32,
    /// Group title.
    pub title: String,
    /// The own ordinal.
    pub own_ordinal: u32,
    /// Creation time, milliseconds since 1970.
    pub created_ms: u64,
    /// Unread messages by the server's count …
    pub unread: u64,
    /// … when the head stood here. Only counts while the window begins above the read cursor.
    pub unread_at: u64,
}

/// A conversation as the store remembers it.
#[derive(Clone, Debug)]
pub struct StoredConversation {
    /// Its id.
    pub id: ConversationId,
    /// The own ordinal.
    pub own_ordinal: u32,
    /// Ordinals and users.
    pub members: Vec<(u32, UserId)>,
    /// First sequence number of the window; 0: none.
    pub low: u64,
    /// Last sequence number of the window.
    pub high: u64,
    /// Newest known sequence number.
    pub head: u64,
    /// Entries above the window: own accepted messages.
    pub ahead: Vec<Arrived>,
    /// The own read cursor.
    pub read_up_to: u64,
    /// Delivered cursor that the server confirmed to this device.
    pub delivered_confirmed: u64,
    /// Read cursor that the server confirmed to this device.
    pub read_confirmed: u64,
}

/// All that the engine needs to go on where it stopped.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Everything up to this change-feed version is stored.
    pub feed_version: u64,
    /// How often the server had been restored from a backup then; `None`: it never said.
    pub restores: Option<u64>,
    /// Of the last session.
    pub resume_token: Option<Bytes>,
    /// All conversations.
    pub conversations: Vec<StoredConversation>,
    /// The outbox in order, refused messages left out.
    pub outbox: Vec<Outgoing>,
    /// Users whose names are stored.
    pub users: Vec<UserId>,
}

//! One device as a person would use it: a connection, what it has stored, and catching up.

use crate::agent::{AgentError, Connection, Identity, Route, Target};
use std::collections::BTreeMap;
use std::time::Duration;
use wire_protocol::ids::ConversationId;
use wire_protocol::session::Proof;
use wire_protocol::v1::{self, client_frame, server_frame};

/// Entries by sequence number.
pub type Log = BTreeMap<u64, v1::Entry>;

/// Tries of what is refused while storage is away: a restart takes seconds.
const TRIES_MAX: u32 = 600;
/// Between two tries of what names no time of its own, in milliseconds.
const RETRY_MS: u64 = 50;

/// Does something once more for as long as the refusal says that a retry helps.
pub async fn patiently<T>(mut once: impl AsyncFnMut() -> Result<T, AgentError>) -> Result<T, AgentError> {
    for _ in 1..TRIES_MAX {
        match once().await {
            Err(error) if error.is_retryable() => {
                tokio::time::sleep(Duration::from_millis(RETRY_MS)).await;
            }
            done => return done,
        }
    }
    once().await
}

/// A device, connected or away.
pub struct Device {
    /// Who it is.
    pub identity: Identity,
    route: Route,
    target: Target,
    connection: Option<Connection>,
    resume_token: bytes::Bytes,
    version: u64,
    /// What it has stored.
    pub logs: BTreeMap<ConversationId, Log>,
    /// Highest cursors heard of: (conversation, member) to (delivered, read).
    pub receipts: BTreeMap<(ConversationId, u32), (u64, u64)>,
    next_message_id: u64,
    /// How often a request is made that is refused for the time being; 1 or more.
    tries_max: u32,
}

impl Device {
    /// Connects with its access token.
    pub async fn connect(target: &Target, route: Route, identity: Identity) -> Result<Self, AgentError> {
        let connection = Connection::open(target, route, identity.proof()).await?;
        let first = u64::from_be_bytes(identity.device.0[..8].try_into().expect("8 of 16 bytes"));
        Ok(Self {
            resume_token: connection.ready.resume_token.clone(),
            connection: Some(connection),
            identity,
            route,
            target: target.clone(),
            version: 0,
            logs: BTreeMap::new(),
            receipts: BTreeMap::new(),
            next_message_id: first | 1,
            tries_max: 1,
        })
    }

    /// Connects, again for as long as the refusal says that a retry helps. So it is with each of its requests, which is
    /// repeated under the same ids: a busy node may lose its lead, or answer too late.
    pub async fn connect_patiently(
        target: &Target,
        route: Route,
        identity: &Identity,
    ) -> Result<Self, AgentError> {
        let mut device = patiently(async || Self::connect(target, route, identity.clone()).await).await?;
        device.tries_max = TRIES_MAX;
        Ok(device)
    }

    /// Makes a request, as often as it may while the refusal says that a retry helps.
    async fn ask(&mut self, body: client_frame::Body) -> Result<server_frame::Body, AgentError> {
        for _ in 1..self.tries_max {
            match self.connection()?.request(body.clone()).await {
                Err(AgentError::Refused(error)) if error.retryable => {
                    let wait_ms = u64::from(error.retry_after_ms.clamp(10, 1_000));
                    tokio::time::sleep(Duration::from_millis(wait_ms)).await;
                }
                answered => return answered,
            }
        }
        self.connection()?.request(body).await
    }

    /// The open connection; an error if it is away.
    pub fn connection(&mut self) -> Result<&mut Connection, AgentError> {
        self.connection.as_mut().ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotConnected).into())
    }

    /// Keeps the connection alone.
    pub fn into_connection(self) -> Result<Connection, AgentError> {
        self.connection.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotConnected).into())
    }

    /// Drops the connection without a word.
    pub fn leave(&mut self) {
        self.connection = None;
    }

    /// Comes back by the resume token, without catching up.
    pub async fn come_back(&mut self) -> Result<(), AgentError> {
        let proof = Proof::ResumeToken(self.resume_token.clone());
        let connection = Connection::open(&self.target, self.route, proof).await?;
        self.resume_token = connection.ready.resume_token.clone();
        self.connection = Some(connection);
        Ok(())
    }

    /// A client message id that this device has not used.
    pub fn next_message_id(&mut self) -> u64 {
        self.next_message_id = self.next_message_id.wrapping_add(1).max(1);
        self.next_message_id
    }

    /// Sends one text and waits for its tick. Stores the entry. Returns its sequence number.
    pub async fn send(&mut self, conversation: ConversationId, text: &str) -> Result<u64, AgentError> {
        let id = self.next_message_id();
        let accepted = self.send_as(conversation, id, text).await?;
        Ok(accepted.seq)
    }

    /// The same under a client message id of one's own.
    pub async fn send_as(
        &mut self,
        conversation: ConversationId,
        client_message_id: u64,
        text: &str,
    ) -> Result<v1::MessageAccepted, AgentError> {
        let body = send_body(conversation, client_message_id, text);
        match self.ask(body).await? {
            server_frame::Body::Accepted(accepted) => Ok(accepted),
            other => Err(unexpected("accepted", &other)),
        }
    }

    /// Takes what came by itself until nothing comes for `quiet_ms`.
    pub async fn listen(&mut self, quiet_ms: u64) -> Result<(), AgentError> {
        while let Some(event) = self.connection()?.event_within(quiet_ms).await? {
            self.take_event(event);
        }
        Ok(())
    }

    /// Takes events until `done` says so; syncs when it is told to.
    pub async fn listen_until(&mut self, done: impl Fn(&Self) -> bool) -> Result<(), AgentError> {
        while !done(self) {
            match self.connection()?.event().await? {
                server_frame::Body::SyncNeeded(_) => self.sync_patiently().await?,
                event => self.take_event(event),
            }
        }
        Ok(())
    }

    /// Syncs, again for as long as the refusal says that a retry helps: a node may be on its way back.
    pub async fn sync_patiently(&mut self) -> Result<(), AgentError> {
        for _ in 0..TRIES_MAX {
            match self.sync().await {
                Err(AgentError::Refused(error)) if error.retryable => {
                    let wait_ms = u64::from(error.retry_after_ms.clamp(10, 1_000));
                    if let Some(event) = self.connection()?.event_within(wait_ms).await? {
                        self.take_event(event);
                    }
                }
                synced => return synced.map(drop),
            }
        }
        Err(AgentError::TimedOut(0))
    }

    fn take_event(&mut self, event: server_frame::Body) {
        match event {
            server_frame::Body::Message(message) => {
                if let (Some(id), Some(entry)) =
                    (ConversationId::from_slice(&message.conversation_id), message.entry)
                {
                    self.store(id, [entry]);
                }
            }
            server_frame::Body::Receipt(receipt) => {
                if let Some(id) = ConversationId::from_slice(&receipt.conversation_id) {
                    self.heard(id, receipt.member, receipt.delivered_up_to, receipt.read_up_to);
                }
            }
            _ => {}
        }
    }

    fn heard(&mut self, id: ConversationId, member: u32, delivered: u64, read: u64) {
        let known = self.receipts.entry((id, member)).or_default();
        *known = (known.0.max(delivered), known.1.max(read));
    }

    /// Stores entries. Panics if one differs from what was stored under its number: an order was broken.
    pub fn store(&mut self, id: ConversationId, entries: impl IntoIterator<Item = v1::Entry>) {
        let log = self.logs.entry(id).or_default();
        for entry in entries {
            if let Some(known) = log.insert(entry.seq, entry.clone()) {
                assert_eq!(known, entry, "{id}: two entries under one sequence number");
            }
        }
    }

    /// Catches up from the stored version. Returns how many entries were new and how many pages it took.
    pub async fn sync(&mut self) -> Result<(usize, usize), AgentError> {
        let (mut new, mut pages, mut cursors) = (0, 0, Vec::new());
        loop {
            let sync = v1::Sync {
                since_version: self.version,
                cursors: std::mem::take(&mut cursors),
                named_only: false,
            };
            let page = self.sync_page(sync).await?;
            pages += 1;
            for delta in page.conversations {
                let conversation = delta.conversation.unwrap_or_default();
                let Some(id) = ConversationId::from_slice(&conversation.conversation_id) else { continue };
                for member in &conversation.members {
                    self.heard(id, member.ordinal, member.delivered_up_to, member.read_up_to);
                }
                if delta.truncated {
                    let after_seq = delta.entries.last().map_or(0, |entry| entry.seq);
                    let conversation_id = conversation.conversation_id;
                    cursors.push(v1::SyncCursor { handle: 0, conversation_id, after_seq });
                }
                let known = self.logs.get(&id).map_or(0, BTreeMap::len);
                self.store(id, delta.entries);
                new += self.logs.get(&id).map_or(0, BTreeMap::len) - known;
            }
            self.version = page.version;
            if !page.more {
                return Ok((new, pages));
            }
        }
    }

    /// Fetches all of a conversation by pages of history, from the first entry.
    pub async fn history(&mut self, id: ConversationId) -> Result<Log, AgentError> {
        let mut log = Log::new();
        loop {
            let after_seq = log.last_key_value().map_or(0, |(seq, _)| *seq);
            // Both bounds 0 means the newest; the first page is asked for from below its end.
            let (after_seq, before_seq) = if after_seq == 0 { (0, 2) } else { (after_seq, 0) };
            let page = self.history_page(id, before_seq, after_seq).await?;
            let empty = page.entries.is_empty();
            append(&mut log, page.entries)?;
            if empty || log.len() as u64 >= page.head_seq {
                return Ok(log);
            }
        }
    }

    /// One page of history, as many entries as the server gives; see `History` for its bounds.
    pub async fn history_page(
        &mut self,
        id: ConversationId,
        before_seq: u64,
        after_seq: u64,
    ) -> Result<v1::HistoryPage, AgentError> {
        let history =
            v1::History { handle: 0, conversation_id: id.to_bytes(), before_seq, after_seq, limit: 0 };
        match self.ask(client_frame::Body::History(history)).await? {
            server_frame::Body::HistoryPage(page) => Ok(page),
            other => Err(unexpected("a page of history", &other)),
        }
    }

    /// One page of what changed.
    pub async fn sync_page(&mut self, sync: v1::Sync) -> Result<v1::SyncPage, AgentError> {
        match self.ask(client_frame::Body::Sync(sync)).await? {
            server_frame::Body::SyncPage(page) => Ok(page),
            other => Err(unexpected("a sync page", &other)),
        }
    }

    /// A page of the list of conversations, from the token that the page before gave.
    pub async fn list_page(&mut self, page_token: bytes::Bytes) -> Result<v1::ConversationPage, AgentError> {
        let list = v1::ListConversations { limit: 0, page_token };
        match self.ask(client_frame::Body::List(list)).await? {
            server_frame::Body::ConversationPage(page) => Ok(page),
            other => Err(unexpected("a page of conversations", &other)),
        }
    }

    /// A conversation as it is now.
    pub async fn look_at(&mut self, id: ConversationId) -> Result<v1::Conversation, AgentError> {
        let get = v1::GetConversation { handle: 0, conversation_id: id.to_bytes() };
        self.conversation(client_frame::Body::Get(get)).await
    }

    /// Ends the session and forgets the device.
    pub async fn log_out(&mut self) -> Result<(), AgentError> {
        match self.connection()?.request(client_frame::Body::LogOut(v1::LogOut {})).await {
            Ok(server_frame::Body::Done(_)) => Ok(()),
            Ok(other) => Err(unexpected("done", &other)),
            Err(AgentError::Closing(closing))
                if closing.reason == v1::session_closing::Reason::LoggedOut as i32 =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Acknowledges everything up to `seq` as stored, or as read.
    pub async fn acknowledge(&mut self, id: ConversationId, seq: u64, read: bool) -> Result<(), AgentError> {
        let conversation_id = id.to_bytes();
        let body = if read {
            client_frame::Body::Read(v1::ReadUpTo { handle: 0, conversation_id, seq })
        } else {
            client_frame::Body::Delivered(v1::DeliveredUpTo { handle: 0, conversation_id, seq })
        };
        match self.ask(body).await? {
            server_frame::Body::Done(_) => Ok(()),
            other => Err(unexpected("done", &other)),
        }
    }

    /// Opens the direct conversation with another user.
    pub async fn create_direct(&mut self, other: &Identity) -> Result<ConversationId, AgentError> {
        self.create(v1::CreateConversation {
            kind: v1::ConversationKind::Direct as i32,
            member_ids: vec![other.user.to_bytes()],
            title: String::new(),
            creation_id: 0,
        })
        .await
    }

    /// Creates a group.
    pub async fn create_group(
        &mut self,
        title: &str,
        creation_id: u64,
        others: &[&Identity],
    ) -> Result<ConversationId, AgentError> {
        self.create(v1::CreateConversation {
            kind: v1::ConversationKind::Group as i32,
            member_ids: others.iter().map(|other| other.user.to_bytes()).collect(),
            title: title.to_owned(),
            creation_id,
        })
        .await
    }

    async fn create(&mut self, create: v1::CreateConversation) -> Result<ConversationId, AgentError> {
        let conversation = self.open(create).await?;
        ConversationId::from_slice(&conversation.conversation_id)
            .ok_or_else(|| AgentError::Protocol("a conversation id of another length".into()))
    }

    /// Creates a conversation, or opens the one that is there.
    pub async fn open(&mut self, create: v1::CreateConversation) -> Result<v1::Conversation, AgentError> {
        self.conversation(client_frame::Body::Create(create)).await
    }

    async fn conversation(&mut self, body: client_frame::Body) -> Result<v1::Conversation, AgentError> {
        match self.ask(body).await? {
            server_frame::Body::Conversation(conversation) => Ok(conversation),
            other => Err(unexpected("a conversation", &other)),
        }
    }
}

/// Appends a page of history. An entry that does not stand behind all before it is the server's mistake: it would
/// hide one of two under the same number.
fn append(log: &mut Log, entries: Vec<v1::Entry>) -> Result<(), AgentError> {
    for entry in entries {
        let last = log.last_key_value().map_or(0, |(seq, _)| *seq);
        if entry.seq <= last {
            return Err(AgentError::Protocol(format!("history: entry {} after {last}", entry.seq)));
        }
        log.insert(entry.seq, entry);
    }
    Ok(())
}

/// A text message as request.
pub fn send_body(conversation: ConversationId, client_message_id: u64, text: &str) -> client_frame::Body {
    send_body_behind(None, conversation, client_message_id, text)
}

/// The same behind a message of the device in this conversation that has no answer yet.
pub fn send_body_behind(
    predecessor: Option<u64>,
    conversation: ConversationId,
    client_message_id: u64,
    text: &str,
) -> client_frame::Body {
    client_frame::Body::Send(v1::SendMessage {
        handle: 0,
        conversation_id: conversation.to_bytes(),
        client_message_id,
        kind: v1::EntryKind::Text as i32,
        body: bytes::Bytes::copy_from_slice(text.as_bytes()),
        predecessor: predecessor.unwrap_or(0),
    })
}

fn unexpected(wanted: &str, got: &server_frame::Body) -> AgentError {
    AgentError::Protocol(format!("{wanted} was expected, not {got:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(seqs: &[u64]) -> Vec<v1::Entry> {
        seqs.iter().map(|seq| v1::Entry { seq: *seq, ..v1::Entry::default() }).collect()
    }

    #[test]
    fn pages_of_history_join_to_one_order() {
        let mut log = Log::new();
        append(&mut log, page(&[1, 2])).expect("in order");
        append(&mut log, page(&[])).expect("nothing");
        append(&mut log, page(&[3, 5])).expect("a gap is for the ledger to find");
        assert!(log.keys().copied().eq([1, 2, 3, 5]));
    }

    #[test]
    fn an_entry_that_comes_twice_or_too_late_is_not_hidden() {
        for seqs in [&[3, 3][..], &[4, 3], &[2], &[1], &[0]] {
            let mut log = Log::new();
            append(&mut log, page(&[1, 2])).expect("in order");
            assert!(matches!(append(&mut log, page(seqs)), Err(AgentError::Protocol(_))), "{seqs:?}");
        }
    }
}

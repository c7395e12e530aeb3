//! For scripts: lines in, events out as lines. One event is one line; fields are separated by one space, and
//! texts stand last, with everything a terminal would obey made harmless.
//!
//! ```text
//! in                          out
//! text                        queued ID
//! /with USERNAME              open CONVERSATION TITLE
//! /group TITLE USERNAME…      accepted ID SEQ
//! /open CONVERSATION|TITLE    message CONVERSATION SEQ SENDER TEXT
//! /list                       receipt CONVERSATION MEMBER delivered SEQ read SEQ
//! /history COUNT              conversation CONVERSATION UNREAD TITLE
//! /help                       help TEXT
//! /quit                       refused ID REASON · state STATE · error TEXT
//! ```
//! What was printed counts as read. At the end of the input it waits until everything sent is durable.

use crate::app::{Command, parse_command};
use crate::text::{Lines, harmless};
use futures_util::FutureExt;
use ringline_client::{
    Client, ClientMessageId, ConnectionState, Conversation, ConversationId, EntryKind, Error, Event,
    EventStream, Message, Refusal, Seq,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};

/// After the end of the input, everything sent is durable within this time, or the program says it is not.
const DRAIN: Duration = Duration::from_secs(60);
/// Messages that wait for names at most; then they are printed with the sender's ordinal.
const UNNAMED_MAX: usize = 1_000;
/// Conversations listed.
const LIST_MAX: usize = 1_000;

/// What `/help` answers here: a person who tries plain mode by hand asks for it, a script does not.
const COMMANDS: &str = "plain mode knows /with, /group, /open, /list, /history, /logout and /quit";

/// Why plain mode ended early.
#[derive(Debug, thiserror::Error)]
pub enum PlainError {
    /// The client library.
    #[error("{0}")]
    Client(#[from] Error),
    /// Standard input or output.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// Messages were not accepted in time; they stay in the outbox.
    #[error("{0} messages were not accepted in time; they are sent with the next start")]
    NotDrained(usize),
    /// The log in is no longer valid.
    #[error("logged out")]
    LoggedOut,
}

/// Whether a name is waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hurry {
    No,
    Yes,
}

struct Plain<W> {
    client: Client,
    output: W,
    open: Option<ConversationId>,
    waiting: BTreeSet<u64>,
    /// Messages whose sender's name is still being looked up, and those behind them.
    unnamed: Vec<Message>,
    told: Option<ConnectionState>,
    /// Up to where, and not yet told as read.
    printed: BTreeMap<ConversationId, Seq>,
}

/// Until the input ends or says `/quit`.
pub async fn run(
    client: Client,
    input: impl AsyncRead + Unpin,
    output: impl AsyncWrite + Unpin,
) -> Result<(), PlainError> {
    let mut events = client.events();
    let mut lines = BufReader::new(input).lines();
    let (waiting, printed) = (BTreeSet::new(), BTreeMap::new());
    let mut plain = Plain { client, output, open: None, waiting, unnamed: Vec::new(), told: None, printed };
    if plain.client.connection() == ConnectionState::LoggedOut {
        return Err(PlainError::LoggedOut);
    }
    loop {
        tokio::select! {
            line = lines.next_line() => match line? {
                Some(line) => {
                    if !plain.take_line(&line).await? {
                        break;
                    }
                }
                None => break,
            },
            event = events.next() => match event {
                Some(event) => plain.take_events(event, &mut events).await?,
                None => return Ok(()),
            },
        }
    }
    plain.drain(&mut events).await
}

impl<W: AsyncWrite + Unpin> Plain<W> {
    async fn print(&mut self, line: String) -> Result<(), PlainError> {
        self.output.write_all(line.as_bytes()).await?;
        self.output.write_all(b"\n").await?;
        self.output.flush().await?;
        Ok(())
    }

    /// False: leave.
    async fn take_line(&mut self, line: &str) -> Result<bool, PlainError> {
        let outcome = match line.split_whitespace().collect::<Vec<_>>()[..] {
            [] => Ok(()),
            ["/list"] => self.list().await,
            ["/history", count] => self.history(count.parse().unwrap_or(50)).await,
            ["/open", ..] => self.open_known(line.trim_start().trim_start_matches("/open").trim()).await,
            _ => match parse_command(line) {
                Ok(None) => self.send(line).await,
                Ok(Some(Command::Quit)) => return Ok(false),
                Ok(Some(command)) => self.carry_out(command).await,
                Err(problem) => return self.print(format!("error {problem}")).await.map(|()| true),
            },
        };
        match outcome {
            Err(PlainError::Client(error)) => {
                self.print(format!("error {}", harmless(&error.to_string(), Lines::Join))).await?;
            }
            other => other?,
        }
        Ok(true)
    }

    async fn carry_out(&mut self, command: Command) -> Result<(), PlainError> {
        match command {
            Command::With(username) => {
                let conversation = self.client.create_direct(&username).await?;
                self.opened(conversation).await
            }
            Command::Group { title, usernames } => {
                let usernames: Vec<&str> = usernames.iter().map(String::as_str).collect();
                let conversation = self.client.create_group(&title, &usernames).await?;
                self.opened(conversation).await
            }
            Command::LogOut => {
                let told = self.client.log_out().await?;
                self.print(format!("logged-out {}", if told { "everywhere" } else { "here" })).await
            }
            Command::Help => self.print(format!("help {COMMANDS}")).await,
            Command::Retry | Command::Discard | Command::Quit => {
                self.print("error not in plain mode".into()).await
            }
        }
    }

    async fn opened(&mut self, conversation: ConversationId) -> Result<(), PlainError> {
        self.open = Some(conversation);
        let facts = self.client.conversation(conversation).await?;
        let title = facts.map_or_else(String::new, |facts| harmless(&facts.title, Lines::Join));
        self.print(format!("open {conversation} {title}")).await
    }

    async fn open_known(&mut self, wanted: &str) -> Result<(), PlainError> {
        let all = self.client.conversations(LIST_MAX).await?;
        let fits = |facts: &&Conversation| facts.id.to_string() == wanted || facts.title == wanted;
        match all.iter().find(fits) {
            Some(facts) => self.opened(facts.id).await,
            None => Err(Error::UnknownConversation.into()),
        }
    }

    async fn send(&mut self, line: &str) -> Result<(), PlainError> {
        let Some(open) = self.open else { return self.print("error open a conversation first".into()).await };
        let text = if line.starts_with("//") { &line[1..] } else { line };
        let id = self.client.send_text(open, text).await?;
        self.waiting.insert(id.0);
        self.print(format!("queued {}", shown(id))).await
    }

    async fn list(&mut self) -> Result<(), PlainError> {
        for facts in self.client.conversations(LIST_MAX).await? {
            let title = harmless(&facts.title, Lines::Join);
            self.print(format!("conversation {} {} {title}", facts.id, facts.unread)).await?;
        }
        Ok(())
    }

    async fn history(&mut self, count: usize) -> Result<(), PlainError> {
        let Some(open) = self.open else { return self.print("error open a conversation first".into()).await };
        let messages = self.client.history(open, None, count).await?;
        for message in &messages {
            self.print_message(message).await?;
        }
        Ok(())
    }

    /// Prints what has arrived as soon as its sender has a name, in order.
    async fn print_named(&mut self, conversation: ConversationId, hurry: Hurry) -> Result<(), PlainError> {
        let facts = self.client.conversation(conversation).await?;
        while let Some(index) = self.unnamed.iter().position(|message| message.conversation == conversation) {
            let ordinal = self.unnamed[index].sender_ordinal;
            let member = facts.as_ref().and_then(|facts| facts.member(ordinal));
            if hurry == Hurry::No && member.is_none_or(|member| member.username.is_empty()) {
                return Ok(());
            }
            let message = self.unnamed.remove(index);
            self.print_message(&message).await?;
            self.printed.insert(conversation, message.seq);
        }
        Ok(())
    }

    async fn print_message(&mut self, message: &Message) -> Result<(), PlainError> {
        let facts = self.client.conversation(message.conversation).await?;
        let member = facts.as_ref().and_then(|facts| facts.member(message.sender_ordinal));
        let sender = match member {
            Some(member) if !member.username.is_empty() => member.username.clone(),
            _ => format!("#{}", message.sender_ordinal),
        };
        let text = match message.kind {
            EntryKind::Text => harmless(&message.text(), Lines::Join),
            kind => format!("({kind:?})"),
        };
        self.print(format!("message {} {} {sender} {text}", message.conversation, message.seq.0)).await
    }

    /// This event and those that wait behind it; what was printed by then is told as read at once.
    async fn take_events(&mut self, first: Event, events: &mut EventStream) -> Result<(), PlainError> {
        let mut next = Some(first);
        while let Some(event) = next {
            self.take_event(event).await?;
            next = events.next().now_or_never().flatten();
        }
        for (conversation, seq) in std::mem::take(&mut self.printed) {
            self.client.mark_read(conversation, seq).await?;
        }
        Ok(())
    }

    async fn take_event(&mut self, event: Event) -> Result<(), PlainError> {
        match event {
            Event::Connection(state) => self.print_state(state).await,
            Event::Message(message) => {
                let conversation = message.conversation;
                self.unnamed.push(message);
                let hurry = if self.unnamed.len() > UNNAMED_MAX { Hurry::Yes } else { Hurry::No };
                self.print_named(conversation, hurry).await
            }
            Event::Accepted { client_message_id, seq, .. } => {
                self.waiting.remove(&client_message_id.0);
                self.print(format!("accepted {} {}", shown(client_message_id), seq.0)).await
            }
            Event::Refused { client_message_id, refusal, .. } => {
                self.waiting.remove(&client_message_id.0);
                let reason = match refusal {
                    Refusal::Server { code, detail } => {
                        format!("{code:?} {}", harmless(&detail, Lines::Join))
                    }
                    Refusal::Unconfirmed => "unconfirmed".into(),
                };
                self.print(format!("refused {} {reason}", shown(client_message_id))).await
            }
            Event::Receipt { conversation, member_ordinal, delivered_up_to, read_up_to } => {
                let (delivered, read) = (delivered_up_to.0, read_up_to.0);
                let line =
                    format!("receipt {conversation} {member_ordinal} delivered {delivered} read {read}");
                self.print(line).await
            }
            Event::ConversationChanged(conversation) => self.print_named(conversation, Hurry::No).await,
            Event::Restored => self.print("restored".into()).await,
            Event::Lagged => self.print("lagged".into()).await,
        }
    }

    async fn print_state(&mut self, state: ConnectionState) -> Result<(), PlainError> {
        if self.told.replace(state) == Some(state) {
            return Ok(());
        }
        let state = match state {
            ConnectionState::LoggedOut => "logged-out",
            ConnectionState::Offline { .. } => "offline",
            ConnectionState::Connecting => "connecting",
            ConnectionState::Syncing => "syncing",
            ConnectionState::Online => "online",
            ConnectionState::StoreFailed => "store-failed",
        };
        self.print(format!("state {state}")).await
    }

    /// Waits for what was sent.
    async fn drain(&mut self, events: &mut EventStream) -> Result<(), PlainError> {
        let drained = async {
            while !self.waiting.is_empty() {
                match events.next().await {
                    Some(Event::Connection(ConnectionState::LoggedOut)) => return Err(PlainError::LoggedOut),
                    Some(event) => self.take_events(event, events).await?,
                    None => break,
                }
            }
            Ok(())
        };
        let outcome = tokio::time::timeout(DRAIN, drained).await;
        while let Some(message) = self.unnamed.first() {
            let conversation = message.conversation;
            self.print_named(conversation, Hurry::Yes).await?;
        }
        match outcome {
            Ok(outcome) => outcome,
            Err(_) => Err(PlainError::NotDrained(self.waiting.len())),
        }
    }
}

fn shown(id: ClientMessageId) -> String {
    format!("{:016x}", id.0)
}

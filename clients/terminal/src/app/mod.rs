//! What the screen shows and what keys mean. Pure: takes keys and what the client knows, gives wishes.

mod composer;
mod command;

pub use command::{Command, HELP, parse as parse_command};
pub use composer::Composer;

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ringline_client::{
    ClientMessageId, ConnectionState, Conversation, ConversationId, Identity, Message, PendingMessage,
    PendingState, Seq,
};

/// Messages loaded when a conversation is opened, and each time the user scrolls beyond them.
pub const PAGE_MESSAGES: usize = 100;

/// What the driver is to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Wish {
    /// Hand a text over.
    Send {
        /// Where to.
        conversation: ConversationId,
        /// What.
        text: String,
    },
    /// Open the direct conversation with a user.
    With(String),
    /// Make a group.
    Group {
        /// Its title.
        title: String,
        /// Unique names of the other members.
        usernames: Vec<String>,
    },
    /// Load what belongs to the selected conversation.
    Load,
    /// Load older messages.
    Older {
        /// Where.
        conversation: ConversationId,
        /// Below this one.
        before: Seq,
    },
    /// Everything up to here was seen.
    Read {
        /// Where.
        conversation: ConversationId,
        /// Up to.
        seq: Seq,
    },
    /// Send a refused message once more.
    Retry(ConversationId, ClientMessageId),
    /// Take a message out of the outbox.
    Discard(ConversationId, ClientMessageId),
    /// Forget this device.
    LogOut,
    /// Leave.
    Quit,
}

/// The whole state of the screen.
#[derive(Clone, Debug)]
pub struct App {
    /// Who is logged in.
    pub own: Identity,
    /// State of the connection.
    pub connection: ConnectionState,
    /// Newest activity first.
    pub conversations: Vec<Conversation>,
    /// The conversation that is open.
    pub selected: Option<ConversationId>,
    /// Its messages, ascending.
    pub messages: Vec<Message>,
    /// Own messages behind them.
    pub pending: Vec<PendingMessage>,
    /// Rows that the history is scrolled up.
    pub scroll_rows: usize,
    /// Older messages are being loaded.
    pub loading_older: bool,
    /// There are no older messages.
    pub at_beginning: bool,
    /// The line being written.
    pub composer: Composer,
    /// Something to tell.
    pub notice: Option<String>,
    /// Help is shown.
    pub help: bool,
    /// The terminal has the keyboard's attention: what is shown counts as read.
    pub focused: bool,
    loaded_messages: usize,
}

impl App {
    /// Nothing is open yet.
    pub fn new(own: Identity, connection: ConnectionState) -> Self {
        Self {
            own,
            connection,
            conversations: Vec::new(),
            selected: None,
            messages: Vec::new(),
            pending: Vec::new(),
            scroll_rows: 0,
            loading_older: false,
            at_beginning: false,
            composer: Composer::default(),
            notice: None,
            help: false,
            focused: true,
            loaded_messages: PAGE_MESSAGES,
        }
    }

    /// The conversation that is open.
    pub fn open_conversation(&self) -> Option<&Conversation> {
        let selected = self.selected?;
        self.conversations.iter().find(|conversation| conversation.id == selected)
    }

    /// How many messages of the open conversation the driver loads.
    pub fn wanted_messages(&self) -> usize {
        self.loaded_messages
    }

    /// The list as the client knows it now.
    pub fn take_conversations(&mut self, conversations: Vec<Conversation>) {
        self.conversations = conversations;
        if self.selected.is_none() {
            self.selected = self.conversations.first().map(|conversation| conversation.id);
        }
    }

    /// Messages of a conversation as the client knows them now; older news about another one is ignored.
    pub fn take_messages(
        &mut self,
        conversation: ConversationId,
        messages: Vec<Message>,
        pending: Vec<PendingMessage>,
    ) -> Option<Wish> {
        if self.selected != Some(conversation) {
            return None;
        }
        self.messages = messages;
        self.pending = pending;
        self.at_beginning = self.messages.first().is_some_and(|first| first.seq.0 <= 1);
        self.read_wish()
    }

    /// The end of loading older messages.
    pub fn take_older(&mut self, conversation: ConversationId, count: usize) {
        if self.selected == Some(conversation) {
            self.loading_older = false;
            self.loaded_messages += count;
            self.at_beginning |= count == 0;
        }
    }

    /// What is shown at the bottom of an attended screen is read.
    pub fn read_wish(&self) -> Option<Wish> {
        let last = self.messages.last()?;
        let open = self.open_conversation()?;
        let unread = last.conversation == open.id && last.seq > open.read_up_to;
        let seen = self.focused && self.scroll_rows == 0 && !self.help;
        (unread && seen).then_some(Wish::Read { conversation: open.id, seq: last.seq })
    }

    /// A conversation was created or found: open it.
    pub fn open(&mut self, conversation: ConversationId) -> Wish {
        self.selected = Some(conversation);
        self.messages.clear();
        self.pending.clear();
        self.scroll_rows = 0;
        self.loading_older = false;
        self.at_beginning = false;
        self.loaded_messages = PAGE_MESSAGES;
        Wish::Load
    }

    /// A text that was pasted.
    pub fn handle_paste(&mut self, text: &str) {
        self.composer.insert_text(text);
    }

    /// A key.
    pub fn handle_key(&mut self, key: KeyEvent) -> Vec<Wish> {
        if key.kind == KeyEventKind::Release {
            return Vec::new();
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        let alt = key.modifiers.contains(KeyModifiers::ALT);
        if self.help && !(control && key.code == KeyCode::Char('c')) {
            self.help = false;
            return self.read_wish().into_iter().collect();
        }
        match key.code {
            KeyCode::Char('c') if control => return vec![Wish::Quit],
            KeyCode::Char('n') if control => return self.step(Step::Next),
            KeyCode::Char('p') if control => return self.step(Step::Previous),
            KeyCode::Tab => return self.step(Step::Next),
            KeyCode::BackTab => return self.step(Step::Previous),
            KeyCode::Down if self.composer.is_empty() || alt => return self.step(Step::Next),
            KeyCode::Up if self.composer.is_empty() || alt => return self.step(Step::Previous),
            KeyCode::PageUp => return self.scroll_up(10),
            KeyCode::PageDown => return self.scroll_down(10),
            KeyCode::F(1) => self.help = true,
            KeyCode::Esc => self.notice = None,
            KeyCode::Enter if alt => self.composer.insert('\n'),
            KeyCode::Enter => return self.submit(),
            _ => self.composer.handle_key(key),
        }
        Vec::new()
    }

    /// Towards older messages.
    pub fn scroll_up(&mut self, rows: usize) -> Vec<Wish> {
        self.scroll_rows += rows;
        Vec::new()
    }

    /// Towards newer messages.
    pub fn scroll_down(&mut self, rows: usize) -> Vec<Wish> {
        self.scroll_rows = self.scroll_rows.saturating_sub(rows);
        self.read_wish().into_iter().collect()
    }

    /// The view found how far one can scroll: no further, and at the top older messages are wanted.
    pub fn limit_scroll(&mut self, rows_max: usize) -> Option<Wish> {
        let at_top = self.scroll_rows >= rows_max && self.scroll_rows > 0;
        self.scroll_rows = self.scroll_rows.min(rows_max);
        let (conversation, first) = (self.selected?, self.messages.first()?);
        if !at_top || self.at_beginning || self.loading_older {
            return None;
        }
        self.loading_older = true;
        Some(Wish::Older { conversation, before: first.seq })
    }

    fn step(&mut self, step: Step) -> Vec<Wish> {
        let count = self.conversations.len();
        if count == 0 {
            return Vec::new();
        }
        let here = self.conversations.iter().position(|conversation| Some(conversation.id) == self.selected);
        let next = match (here, step) {
            (None, _) => 0,
            (Some(here), Step::Next) => (here + 1) % count,
            (Some(here), Step::Previous) => (here + count - 1) % count,
        };
        let next = self.conversations[next].id;
        vec![self.open(next)]
    }

    /// Enter: a command, or a message.
    fn submit(&mut self) -> Vec<Wish> {
        let line = self.composer.take();
        if line.trim().is_empty() {
            return Vec::new();
        }
        self.notice = None;
        match parse_command(&line) {
            Ok(None) => match self.selected {
                Some(conversation) => {
                    self.scroll_rows = 0;
                    vec![Wish::Send { conversation, text: line }]
                }
                None => {
                    self.notice = Some("open a conversation first: /with USERNAME".into());
                    self.composer.insert_text(&line);
                    Vec::new()
                }
            },
            Ok(Some(command)) => self.carry_out(command),
            Err(problem) => {
                self.notice = Some(problem);
                self.composer.insert_text(&line);
                Vec::new()
            }
        }
    }

    fn carry_out(&mut self, command: Command) -> Vec<Wish> {
        match command {
            Command::With(username) => vec![Wish::With(username)],
            Command::Group { title, usernames } => vec![Wish::Group { title, usernames }],
            Command::Help => {
                self.help = true;
                Vec::new()
            }
            Command::Retry => self.with_refused(Wish::Retry),
            Command::Discard => self.with_refused(Wish::Discard),
            Command::LogOut => vec![Wish::LogOut],
            Command::Quit => vec![Wish::Quit],
        }
    }

    fn with_refused(&mut self, wish: impl Fn(ConversationId, ClientMessageId) -> Wish) -> Vec<Wish> {
        let refused = self.pending.iter().filter(|message| matches!(message.state, PendingState::Refused(_)));
        let wishes: Vec<Wish> =
            refused.map(|message| wish(message.conversation, message.client_message_id)).collect();
        if wishes.is_empty() {
            self.notice = Some("no message was refused here".into());
        }
        wishes
    }
}

#[derive(Clone, Copy)]
enum Step {
    Next,
    Previous,
}

#[cfg(test)]
mod tests;

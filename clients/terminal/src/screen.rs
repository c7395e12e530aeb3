//! Drives the screen: keys and events in, wishes out, and a picture when something changed.

use crate::app::{App, PAGE_MESSAGES, Wish};
use crate::view;
use crossterm::event::{
    DisableBracketedPaste, DisableFocusChange, EnableBracketedPaste, EnableFocusChange,
    Event as TerminalEvent, EventStream as Keys, MouseEventKind,
};
use crossterm::execute;
use futures_util::StreamExt;
use ratatui::DefaultTerminal;
use ringline_client::{Client, ConnectionState, ConversationId, Error, Event, EventStream};
use std::time::Duration;
use tokio::sync::mpsc;

/// Conversations in the list.
const CONVERSATIONS_SHOWN: usize = 200;
/// Longest time between a change and its picture.
const FRAME: Duration = Duration::from_millis(33);
/// Answers of the server that wait for the screen.
const ANSWERS_MAX: usize = 64;

/// Why the screen ended early.
#[derive(Debug, thiserror::Error)]
pub enum ScreenError {
    /// The client library.
    #[error("{0}")]
    Client(#[from] Error),
    /// The terminal.
    #[error("terminal: {0}")]
    Terminal(#[from] std::io::Error),
}

/// What a task that asked the server brings back.
enum Answer {
    Opened(Result<ConversationId, Error>),
    Older(ConversationId, Result<usize, Error>),
    Failed(Error),
    LoggedOut,
}

struct Screen {
    client: Client,
    app: App,
    answers: mpsc::Sender<Answer>,
    /// The client knows something newer than the app.
    stale: bool,
    quit: bool,
}

/// Until the user leaves.
pub async fn run(client: Client) -> Result<(), ScreenError> {
    let Some(own) = client.identity().await? else { return Err(Error::LoggedOut.into()) };
    let events = client.events();
    let (answers, taken) = mpsc::channel(ANSWERS_MAX);
    let app = App::new(own, client.connection());
    let mut screen = Screen { client, app, answers, stale: true, quit: false };
    let terminal = ratatui::try_init()?;
    execute!(std::io::stdout(), EnableFocusChange, EnableBracketedPaste)?;
    let outcome = screen.turn(terminal, events, taken).await;
    let restored = execute!(std::io::stdout(), DisableFocusChange, DisableBracketedPaste);
    ratatui::try_restore()?;
    restored?;
    outcome
}

impl Screen {
    async fn turn(
        &mut self,
        mut terminal: DefaultTerminal,
        mut events: EventStream,
        mut answers: mpsc::Receiver<Answer>,
    ) -> Result<(), ScreenError> {
        let mut keys = Keys::new();
        let mut beat = tokio::time::interval(FRAME);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut changed = true;
        while !self.quit {
            tokio::select! {
                key = keys.next() => match key {
                    Some(key) => self.take_terminal_event(key?).await?,
                    None => self.quit = true,
                },
                event = events.next() => match event {
                    Some(event) => self.take_event(event),
                    None => self.quit = true,
                },
                Some(answer) = answers.recv() => self.take_answer(answer).await?,
                _ = beat.tick(), if changed || self.stale => {
                    if std::mem::take(&mut self.stale) {
                        self.reload().await?;
                    }
                    let mut rows_max = 0;
                    terminal.draw(|frame| rows_max = view::draw(frame, &self.app))?;
                    changed = false;
                    if let Some(wish) = self.app.limit_scroll(rows_max) {
                        self.fulfil(wish).await?;
                    }
                    continue;
                }
            }
            changed = true;
        }
        Ok(())
    }

    async fn take_terminal_event(&mut self, event: TerminalEvent) -> Result<(), ScreenError> {
        let wishes = match event {
            TerminalEvent::Key(key) => self.app.handle_key(key),
            TerminalEvent::Paste(text) => {
                self.app.handle_paste(&text);
                Vec::new()
            }
            TerminalEvent::FocusGained => {
                self.app.focused = true;
                self.app.read_wish().into_iter().collect()
            }
            TerminalEvent::FocusLost => {
                self.app.focused = false;
                Vec::new()
            }
            TerminalEvent::Mouse(mouse) => match mouse.kind {
                MouseEventKind::ScrollUp => self.app.scroll_up(3),
                MouseEventKind::ScrollDown => self.app.scroll_down(3),
                _ => Vec::new(),
            },
            TerminalEvent::Resize(..) => Vec::new(),
        };
        for wish in wishes {
            self.fulfil(wish).await?;
        }
        Ok(())
    }

    fn take_event(&mut self, event: Event) {
        match event {
            Event::Connection(state) => {
                let came_online = state == ConnectionState::Online && self.app.connection != state;
                self.app.connection = state;
                if came_online {
                    self.refresh_open();
                }
            }
            Event::Message(_)
            | Event::Accepted { .. }
            | Event::Refused { .. }
            | Event::Receipt { .. }
            | Event::ConversationChanged(_)
            | Event::Restored
            | Event::Lagged => self.stale = true,
        }
    }

    async fn take_answer(&mut self, answer: Answer) -> Result<(), ScreenError> {
        match answer {
            Answer::Opened(Ok(conversation)) => {
                let wish = self.app.open(conversation);
                self.fulfil(wish).await?;
            }
            Answer::Older(conversation, outcome) => {
                if let Err(error) = &outcome {
                    self.app.notice = Some(error.to_string());
                }
                self.app.take_older(conversation, outcome.unwrap_or(0));
                self.stale = true;
            }
            Answer::Opened(Err(error)) | Answer::Failed(error) => self.app.notice = Some(error.to_string()),
            Answer::LoggedOut => self.quit = true,
        }
        Ok(())
    }

    async fn fulfil(&mut self, wish: Wish) -> Result<(), ScreenError> {
        let outcome = match wish {
            Wish::Send { conversation, text } => {
                // Two slashes stand for one at the beginning of a message.
                let text = if text.starts_with("//") { &text[1..] } else { &text[..] };
                self.client.send_text(conversation, text).await.map(drop)
            }
            Wish::Read { conversation, seq } => self.client.mark_read(conversation, seq).await,
            Wish::Retry(conversation, id) => self.client.retry(conversation, id).await,
            Wish::Discard(conversation, id) => self.client.discard(conversation, id).await,
            Wish::Load => {
                self.refresh_open();
                Ok(())
            }
            Wish::Quit => {
                self.quit = true;
                Ok(())
            }
            asks @ (Wish::With(_) | Wish::Group { .. } | Wish::Older { .. } | Wish::LogOut) => {
                self.ask(asks);
                Ok(())
            }
        };
        if let Err(error) = outcome {
            self.app.notice = Some(error.to_string());
        }
        self.stale = true;
        Ok(())
    }

    /// What needs the server runs beside the screen.
    fn ask(&self, wish: Wish) {
        let (client, answers) = (self.client.clone(), self.answers.clone());
        tokio::spawn(async move {
            let answer = match wish {
                Wish::With(username) => Answer::Opened(client.create_direct(&username).await),
                Wish::Group { title, usernames } => {
                    let usernames: Vec<&str> = usernames.iter().map(String::as_str).collect();
                    Answer::Opened(client.create_group(&title, &usernames).await)
                }
                Wish::Older { conversation, before } => {
                    let older = client.history(conversation, Some(before), PAGE_MESSAGES).await;
                    Answer::Older(conversation, older.map(|messages| messages.len()))
                }
                Wish::LogOut => match client.log_out().await {
                    Ok(_) => Answer::LoggedOut,
                    Err(error) => Answer::Failed(error),
                },
                _ => return,
            };
            // The screen may have ended.
            let _ = answers.send(answer).await;
        });
    }

    /// Members' cursors may have moved while nobody told us.
    fn refresh_open(&self) {
        let Some(conversation) = self.app.selected else { return };
        if self.app.connection != ConnectionState::Online {
            return;
        }
        let client = self.client.clone();
        // Without an answer what is shown stays as it is.
        tokio::spawn(async move { drop(client.refresh(conversation).await) });
    }

    async fn reload(&mut self) -> Result<(), ScreenError> {
        let conversations = self.client.conversations(CONVERSATIONS_SHOWN).await?;
        self.app.take_conversations(conversations);
        let Some(open) = self.app.selected else { return Ok(()) };
        let messages = self.client.stored_history(open, None, self.app.wanted_messages()).await?;
        let pending = self.client.pending(open).await?;
        if let Some(wish) = self.app.take_messages(open, messages, pending) {
            self.fulfil(wish).await?;
        }
        Ok(())
    }
}

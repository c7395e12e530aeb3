//! Messages as rows, newest at the bottom.

use super::FAINT;
use crate::app::App;
use crate::text::{Lines, clock, cut, day, harmless, width, wrap};
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;
use ringline_client::{
    Conversation, ConversationKind, EntryKind, Message, PendingMessage, PendingState, Progress, Refusal,
};

/// Colours of names, by ordinal.
const NAME_COLORS: [Color; 6] =
    [Color::Cyan, Color::Magenta, Color::Green, Color::Yellow, Color::Blue, Color::Red];

/// One row of the history.
pub type Row = Line<'static>;

/// Draws the history; rows that it can be scrolled up.
pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, app: &App) -> usize {
    let Some(open) = app.open_conversation() else { return 0 };
    let rows = rows(open, &app.messages, &app.pending, usize::from(area.width));
    let height = usize::from(area.height);
    let rows_max = rows.len().saturating_sub(height);
    let scrolled = app.scroll_rows.min(rows_max);
    let end = rows.len() - scrolled;
    let start = end.saturating_sub(height);
    let shown: Vec<Row> = rows.into_iter().skip(start).take(end - start).collect();
    // Short histories stand at the bottom, next to the composer.
    let empty = (height - shown.len()) as u16;
    let area = Rect { y: area.y + empty, height: area.height - empty, ..area };
    frame.render_widget(Paragraph::new(shown), area);
    rows_max
}

/// All rows of a conversation.
pub fn rows(open: &Conversation, messages: &[Message], pending: &[PendingMessage], cells: usize) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut last_day = String::new();
    let mut last_sender = None;
    for message in messages {
        let day = day(message.time_ms);
        if day != last_day {
            rows.push(centred(&format!("── {day} ──"), cells));
            last_day = day;
            last_sender = None;
        }
        if message.kind == EntryKind::Created {
            rows.push(centred("the conversation begins here", cells));
            continue;
        }
        let group = open.kind == ConversationKind::Group;
        let named = group && !message.own && last_sender != Some(message.sender_ordinal);
        if named {
            rows.push(name_row(open, message));
        }
        last_sender = Some(message.sender_ordinal);
        let tick = message.own.then(|| tick(open.progress(message.seq)));
        rows.extend(bubble(&text_of(message), &clock(message.time_ms), tick, cells));
    }
    for message in pending {
        let text = harmless(&String::from_utf8_lossy(&message.body), Lines::Keep);
        let tick = match &message.state {
            PendingState::OnItsWay => Span::styled("…", FAINT),
            PendingState::Accepted(_) => tick(Progress::Durable),
            PendingState::Refused(refusal) => {
                Span::styled(format!("✗ {}", reason(refusal)), Style::new().fg(Color::Red))
            }
        };
        rows.extend(bubble(&text, &clock(message.queued_ms), Some(tick), cells));
    }
    rows
}

fn text_of(message: &Message) -> String {
    match message.kind {
        EntryKind::Text => harmless(&message.text(), Lines::Keep),
        kind => format!("({kind:?})"),
    }
}

fn reason(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Server { code, detail } => format!("{code:?}: {}", harmless(detail, Lines::Join)),
        Refusal::Unconfirmed => "may have arrived; /retry or /discard".into(),
    }
}

fn tick(progress: Progress) -> Span<'static> {
    match progress {
        Progress::Pending => Span::styled("…", FAINT),
        Progress::Durable => Span::styled("✓", FAINT),
        Progress::Delivered => Span::styled("✓✓", FAINT),
        Progress::Read => Span::styled("✓✓", Style::new().fg(Color::LightBlue).add_modifier(Modifier::BOLD)),
    }
}

fn name_row(open: &Conversation, message: &Message) -> Row {
    let member = open.member(message.sender_ordinal);
    let name = match member {
        Some(member) if !member.display_name.is_empty() => harmless(&member.display_name, Lines::Join),
        _ => format!("member {}", message.sender_ordinal),
    };
    let color = NAME_COLORS[message.sender_ordinal as usize % NAME_COLORS.len()];
    Line::styled(format!(" {name}"), Style::new().fg(color).add_modifier(Modifier::BOLD))
}

fn centred(text: &str, cells: usize) -> Row {
    let text = cut(text, cells);
    Line::styled(format!("{}{text}", " ".repeat(cells.saturating_sub(width(&text)) / 2)), FAINT)
}

/// Own messages (with a tick) stand at the right, those of others at the left; the time follows the last row.
fn bubble(text: &str, time: &str, tick: Option<Span<'static>>, cells: usize) -> Vec<Row> {
    let tick_cells = tick.as_ref().map_or(0, |tick| 1 + width(&tick.content));
    let meta_cells = 2 + width(time) + tick_cells;
    let most = (cells * 4 / 5).max(12).min(cells.saturating_sub(2).max(4));
    let mut texts = wrap(text, most);
    let last_cells = texts.last().map_or(0, |row| width(row));
    if last_cells + meta_cells > most && last_cells > 0 {
        texts.push(String::new());
    }
    let block_cells = texts.iter().map(|row| width(row.trim_end())).max().unwrap_or(0);
    let last = texts.len() - 1;
    let block_cells = block_cells.max(texts.last().map_or(0, |row| width(row)) + meta_cells);
    let indent = if tick.is_some() { cells.saturating_sub(block_cells + 1) } else { 1 };
    let style = if tick.is_some() { Style::new().fg(Color::LightCyan) } else { Style::new() };
    let mut rows: Vec<Row> = Vec::new();
    for (index, row) in texts.into_iter().enumerate() {
        let mut spans = vec![Span::raw(" ".repeat(indent)), Span::styled(row.clone(), style)];
        if index == last {
            spans.push(Span::raw(" ".repeat(block_cells.saturating_sub(width(&row) + meta_cells) + 2)));
            spans.push(Span::styled(time.to_owned(), FAINT));
            if let Some(tick) = &tick {
                spans.push(Span::raw(" "));
                spans.push(tick.clone());
            }
        }
        rows.push(Line::from(spans));
    }
    rows
}

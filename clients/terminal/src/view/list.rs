//! The list of conversations.

use super::FAINT;
use crate::app::App;
use crate::text::{Lines, clock, cut, harmless, width};
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph};
use ringline_client::{Conversation, EntryKind};

/// Rows of one conversation: title and preview.
const ROWS_EACH: usize = 2;

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, app: &App) {
    let block = Block::new().borders(Borders::RIGHT).border_style(FAINT);
    let inside = block.inner(area);
    let fit = (usize::from(inside.height) / ROWS_EACH).max(1);
    let here = app.conversations.iter().position(|conversation| Some(conversation.id) == app.selected);
    let first = here.map_or(0, |here| (here + 1).saturating_sub(fit));
    let shown = app.conversations.iter().skip(first).take(fit);
    let cells = usize::from(inside.width);
    let lines: Vec<Line<'_>> = shown
        .flat_map(|conversation| rows(conversation, app.selected == Some(conversation.id), cells))
        .collect();
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn rows(conversation: &Conversation, selected: bool, cells: usize) -> [Line<'static>; ROWS_EACH] {
    let unread = match conversation.unread {
        0 => String::new(),
        count => format!(" {} ", count.min(9_999)),
    };
    let mark = if selected { "▌" } else { " " };
    let title = harmless(&conversation.title, Lines::Join);
    let title = if title.is_empty() { "…".to_owned() } else { title };
    let title_cells = cells.saturating_sub(width(&unread) + 2);
    let title = cut(&title, title_cells);
    let gap = " ".repeat(title_cells.saturating_sub(width(&title)));
    let title_style = if conversation.unread > 0 || selected {
        Style::new().add_modifier(Modifier::BOLD)
    } else {
        Style::new()
    };
    let time = clock(conversation.activity_ms);
    let preview = cut(&preview(conversation), cells.saturating_sub(width(&time) + 3));
    let preview_gap = " ".repeat(cells.saturating_sub(width(&preview) + width(&time) + 2));
    [
        Line::from(vec![
            Span::styled(mark, Style::new().fg(Color::Cyan)),
            Span::styled(title, title_style),
            Span::raw(gap),
            Span::styled(unread, Style::new().fg(Color::Black).bg(Color::Green)),
        ]),
        Line::from(vec![
            Span::styled(mark, Style::new().fg(Color::Cyan)),
            Span::styled(preview, FAINT),
            Span::raw(preview_gap),
            Span::styled(time, FAINT),
        ]),
    ]
}

fn preview(conversation: &Conversation) -> String {
    let Some(last) = &conversation.last else { return String::new() };
    match last.kind {
        EntryKind::Created => "new".into(),
        EntryKind::Text if last.own => format!("you: {}", harmless(&last.text(), Lines::Join)),
        EntryKind::Text => harmless(&last.text(), Lines::Join),
        kind => format!("({kind:?})"),
    }
}

//! Draws the state. Knows how wide things are, decides nothing.

mod history;
mod list;

pub use history::{Row, rows};

use crate::app::App;
use crate::text::{Lines, cut, harmless, width, wrap};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Position, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph};
use ringline_client::{ConnectionState, ConversationKind};

/// Narrower terminals show the conversation alone.
const LIST_CELLS_LEAST: u16 = 60;
/// Width of the list of conversations.
const LIST_CELLS: u16 = 26;
/// Rows that the composer grows to.
const COMPOSER_ROWS_MAX: usize = 5;

/// Lines and marks that are not content.
pub(crate) const FAINT: Style = Style::new().fg(Color::DarkGray);

/// Draws everything; rows that the history can be scrolled up.
pub fn draw(frame: &mut Frame<'_>, app: &App) -> usize {
    let [top, middle, bottom] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(1), Constraint::Length(1)])
            .areas(frame.area());
    draw_title(frame, top, app);
    draw_notice(frame, bottom, app);
    let with_list = frame.area().width >= LIST_CELLS_LEAST;
    let list_cells = if with_list { LIST_CELLS } else { 0 };
    let [left, right] =
        Layout::horizontal([Constraint::Length(list_cells), Constraint::Min(1)]).areas(middle);
    if with_list {
        list::draw(frame, left, app);
    }
    let rows_max = draw_conversation(frame, right, app);
    if app.help {
        draw_help(frame, app);
    }
    rows_max
}

fn draw_title(frame: &mut Frame<'_>, area: Rect, app: &App) {
    let (mark, color, state) = match app.connection {
        ConnectionState::Online => ("●", Color::Green, "online".to_owned()),
        ConnectionState::Syncing => ("●", Color::Yellow, "catching up".to_owned()),
        ConnectionState::Connecting => ("○", Color::Yellow, "connecting".to_owned()),
        ConnectionState::Offline { .. } => ("○", Color::Red, "offline, trying again by itself".to_owned()),
        ConnectionState::LoggedOut => ("○", Color::Red, "logged out: start again to log in".to_owned()),
        ConnectionState::StoreFailed => ("○", Color::Red, "the store failed: start again".to_owned()),
    };
    let bar = Style::new().add_modifier(Modifier::REVERSED);
    let name = format!(" ringline · {} ", harmless(&app.own.username, Lines::Join));
    let state = format!("{state} ");
    let cells = usize::from(area.width);
    let gap = cells.saturating_sub(width(&name) + width(&state) + 2);
    let line = Line::from(vec![
        Span::styled(name, bar.add_modifier(Modifier::BOLD)),
        Span::styled(" ".repeat(gap), bar),
        Span::styled(format!("{mark} "), bar.bg(color)),
        Span::styled(state, bar),
    ]);
    frame.render_widget(Paragraph::new(line).style(bar), area);
}

fn draw_notice(frame: &mut Frame<'_>, area: Rect, app: &App) {
    let line = match &app.notice {
        Some(notice) => Line::styled(harmless(notice, Lines::Join), Style::new().fg(Color::Yellow)),
        None => Line::styled("/with NAME  /group TITLE NAME …  Tab next  PgUp older  /help  /quit", FAINT),
    };
    frame.render_widget(Paragraph::new(line), area);
}

/// Rows that the history can be scrolled up.
fn draw_conversation(frame: &mut Frame<'_>, area: Rect, app: &App) -> usize {
    let cells = usize::from(area.width).saturating_sub(2).max(4);
    let written = wrap(app.composer.text(), cells);
    let composer_rows = written.len().clamp(1, COMPOSER_ROWS_MAX) as u16;
    let [head, history, line, composer] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(1),
        Constraint::Length(composer_rows),
    ])
    .areas(area);
    draw_head(frame, head, app);
    frame.render_widget(Paragraph::new(Line::styled("─".repeat(usize::from(line.width)), FAINT)), line);
    draw_composer(frame, composer, app, &written);
    if app.open_conversation().is_none() {
        let hint = "No conversation yet: type /with USERNAME and press Enter.";
        frame.render_widget(Paragraph::new(Line::styled(hint, FAINT)), history);
        return 0;
    }
    history::draw(frame, history, app)
}

fn draw_head(frame: &mut Frame<'_>, area: Rect, app: &App) {
    let Some(open) = app.open_conversation() else { return };
    let title = harmless(&open.title, Lines::Join);
    let names = match open.kind {
        ConversationKind::Group => {
            let names: Vec<&str> = open.members.iter().map(|member| member.username.as_str()).collect();
            harmless(&names.join(", "), Lines::Join)
        }
        _ => String::new(),
    };
    let cells = usize::from(area.width).saturating_sub(width(&title) + 3);
    let line = Line::from(vec![
        Span::styled(format!(" {title}  "), Style::new().add_modifier(Modifier::BOLD)),
        Span::styled(cut(&names, cells), FAINT),
    ]);
    frame.render_widget(Paragraph::new(line).style(Style::new().add_modifier(Modifier::UNDERLINED)), area);
}

fn draw_composer(frame: &mut Frame<'_>, area: Rect, app: &App, written: &[String]) {
    let cells = usize::from(area.width).saturating_sub(2).max(4);
    let before = wrap(app.composer.before_cursor(), cells);
    let cursor_row = before.len().saturating_sub(1);
    let rows = usize::from(area.height);
    let first = (cursor_row + 1).saturating_sub(rows);
    let lines = written.iter().skip(first).take(rows).enumerate().map(|(index, row)| {
        let mark = if index + first == 0 { "› " } else { "  " };
        Line::from(vec![Span::styled(mark, FAINT), Span::raw(harmless(row, Lines::Join))])
    });
    frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()), area);
    let column = before.last().map_or(0, |row| width(row));
    let x = area.x + 2 + (column as u16).min(area.width.saturating_sub(3));
    let y = area.y + (cursor_row - first.min(cursor_row)) as u16;
    frame.set_cursor_position(Position { x, y: y.min(area.bottom().saturating_sub(1)) });
}

fn draw_help(frame: &mut Frame<'_>, _: &App) {
    let area = frame.area();
    let rows: Vec<Line<'_>> = crate::app::HELP
        .iter()
        .map(|(what, does)| {
            Line::from(vec![
                Span::styled(format!(" {what:<26}"), Style::new().add_modifier(Modifier::BOLD)),
                Span::raw(*does),
            ])
        })
        .collect();
    let (cells, height) = (76.min(area.width), (rows.len() as u16 + 2).min(area.height));
    let x = area.x + (area.width - cells) / 2;
    let y = area.y + (area.height - height) / 2;
    let area = Rect { x, y, width: cells, height };
    frame.render_widget(Clear, area);
    let block = Block::bordered().title(" help (any key) ");
    frame.render_widget(Paragraph::new(rows).block(block), area);
}

#[cfg(test)]
mod tests;

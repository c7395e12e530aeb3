//! Texts of others on a terminal: harmless, and cut to its width.

use chrono::{DateTime, Local};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Without anything a terminal would obey: control characters become visible marks, tabs and line ends stay for
/// the caller to lay out if `lines`.
pub fn harmless(text: &str, lines: Lines) -> String {
    let shown = |c: char| match c {
        '\n' if lines == Lines::Keep => c,
        '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        // Marks that turn the direction of what follows, beyond the text itself.
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        c => c,
    };
    text.chars().map(shown).collect()
}

/// What becomes of line ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lines {
    /// They stay.
    Keep,
    /// They become visible marks: one message is one line.
    Join,
}

/// Cells of a text.
pub fn width(text: &str) -> usize {
    text.width()
}

/// Cuts a text into rows of at most `cells`, between words where there are any.
pub fn wrap(text: &str, cells: usize) -> Vec<String> {
    let cells = cells.max(2);
    let mut rows = Vec::new();
    for line in text.split('\n') {
        let mut row = String::new();
        let mut row_cells = 0;
        for word in line.split_inclusive(' ') {
            let word_cells = width(word.trim_end_matches(' '));
            if row_cells > 0 && row_cells + word_cells > cells {
                rows.push(std::mem::take(&mut row));
                row_cells = 0;
            }
            for c in word.chars() {
                let c_cells = c.width().unwrap_or(0);
                if row_cells + c_cells > cells {
                    if c == ' ' {
                        continue;
                    }
                    rows.push(std::mem::take(&mut row));
                    row_cells = 0;
                }
                row.push(c);
                row_cells += c_cells;
            }
        }
        rows.push(row);
    }
    rows
}

/// A text of at most `cells`, with a mark where it was cut.
pub fn cut(text: &str, cells: usize) -> String {
    if width(text) <= cells {
        return text.to_owned();
    }
    let mut short = String::new();
    let mut left = cells.saturating_sub(1);
    for c in text.chars() {
        let c_cells = c.width().unwrap_or(0);
        if c_cells > left {
            break;
        }
        left -= c_cells;
        short.push(c);
    }
    if cells > 0 {
        short.push('…');
    }
    short
}

fn local(time_ms: u64) -> Option<DateTime<Local>> {
    let utc = DateTime::from_timestamp_millis(i64::try_from(time_ms).ok()?)?;
    Some(utc.with_timezone(&Local))
}

/// Hour and minute, local time.
pub fn clock(time_ms: u64) -> String {
    local(time_ms).map_or_else(String::new, |time| time.format("%H:%M").to_string())
}

/// The day, local time.
pub fn day(time_ms: u64) -> String {
    local(time_ms).map_or_else(String::new, |time| time.format("%A, %-d %B %Y").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_lose_their_power() {
        assert_eq!(
            harmless("a\x1b[2Jb\r\n\u{202e}c\t", Lines::Join),
            "a\u{fffd}[2Jb\u{fffd}\u{fffd}\u{fffd}c "
        );
        assert_eq!(harmless("a\nb", Lines::Keep), "a\nb");
    }

    #[test]
    fn rows_fit_and_nothing_is_lost() {
        assert_eq!(wrap("the quick brown fox", 9), ["the quick", "brown fox"]);
        assert_eq!(wrap("abcdefghij", 4), ["abcd", "efgh", "ij"]);
        assert_eq!(wrap("a\n\nb", 4), ["a", "", "b"]);
        assert_eq!(wrap("日本語テキスト", 5), ["日本", "語テ", "キス", "ト"]);
        for cells in 2..20 {
            for row in wrap("ein längerer Text mit Ümläuten 日本 und einemsehrlangenwortdrin", cells) {
                assert!(width(row.trim_end()) <= cells, "{row:?} in {cells}");
            }
        }
    }

    #[test]
    fn cut_texts_say_so() {
        assert_eq!(cut("hello", 5), "hello");
        assert_eq!(cut("hello", 4), "hel…");
        assert_eq!(cut("日本語", 4), "日…");
        assert_eq!(cut("x", 0), "");
    }
}

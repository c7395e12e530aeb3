//! The line being written.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// Bytes of a message at most: what the protocol takes.
const TEXT_BYTES_MAX: usize = 16 * 1024;

/// A text and a cursor in it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Composer {
    text: String,
    /// Byte position, between two characters.
    cursor: usize,
}

impl Composer {
    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What stands before the cursor.
    pub fn before_cursor(&self) -> &str {
        &self.text[..self.cursor]
    }

    /// Nothing is written.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Takes the text; the composer is empty.
    pub fn take(&mut self) -> String {
        self.cursor = 0;
        std::mem::take(&mut self.text)
    }

    /// Writes a character, if there is room.
    pub fn insert(&mut self, c: char) {
        if self.text.len() + c.len_utf8() <= TEXT_BYTES_MAX {
            self.text.insert(self.cursor, c);
            self.cursor += c.len_utf8();
        }
    }

    /// Writes a text, as far as there is room; line ends of all kinds become one kind.
    pub fn insert_text(&mut self, text: &str) {
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        text.chars().filter(|c| *c == '\n' || !c.is_control()).for_each(|c| self.insert(c));
    }

    /// Editing keys.
    pub fn handle_key(&mut self, key: KeyEvent) {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('a') if control => self.cursor = 0,
            KeyCode::Char('e') if control => self.cursor = self.text.len(),
            KeyCode::Char('u') if control => drop(self.text.drain(..std::mem::take(&mut self.cursor))),
            KeyCode::Char('k') if control => self.text.truncate(self.cursor),
            KeyCode::Char('w') if control => self.remove_word(),
            KeyCode::Char(_) if control => {}
            KeyCode::Char(c) => self.insert(c),
            KeyCode::Backspace => {
                if let Some(c) = self.text[..self.cursor].chars().next_back() {
                    self.cursor -= c.len_utf8();
                    self.text.remove(self.cursor);
                }
            }
            KeyCode::Delete if self.cursor < self.text.len() => drop(self.text.remove(self.cursor)),
            KeyCode::Left => {
                self.cursor -= self.text[..self.cursor].chars().next_back().map_or(0, char::len_utf8)
            }
            KeyCode::Right => {
                self.cursor += self.text[self.cursor..].chars().next().map_or(0, char::len_utf8)
            }
            KeyCode::Home => self.cursor = 0,
            KeyCode::End => self.cursor = self.text.len(),
            _ => {}
        }
    }

    fn remove_word(&mut self) {
        let before = &self.text[..self.cursor];
        let start = before
            .trim_end()
            .rfind(char::is_whitespace)
            .map_or(0, |space| space + before[space..].chars().next().map_or(0, char::len_utf8));
        self.text.drain(start..self.cursor);
        self.cursor = start;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(composer: &mut Composer, code: KeyCode) {
        composer.handle_key(KeyEvent::new(code, KeyModifiers::NONE));
    }

    fn control(composer: &mut Composer, c: char) {
        composer.handle_key(KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL));
    }

    #[test]
    fn editing_keeps_to_characters() {
        let mut composer = Composer::default();
        "grüße".chars().for_each(|c| press(&mut composer, KeyCode::Char(c)));
        press(&mut composer, KeyCode::Left);
        press(&mut composer, KeyCode::Backspace);
        assert_eq!((composer.text(), composer.before_cursor()), ("grüe", "grü"));
        press(&mut composer, KeyCode::Left);
        press(&mut composer, KeyCode::Delete);
        assert_eq!(composer.text(), "gre");
        press(&mut composer, KeyCode::Home);
        press(&mut composer, KeyCode::Backspace);
        press(&mut composer, KeyCode::End);
        press(&mut composer, KeyCode::Delete);
        press(&mut composer, KeyCode::Right);
        assert_eq!(composer.take(), "gre");
        assert!(composer.is_empty());
    }

    #[test]
    fn shortcuts_remove_words_and_lines() {
        let mut composer = Composer::default();
        composer.insert_text("one two\r\nthree \x1b four");
        assert_eq!(composer.text(), "one two\nthree  four");
        control(&mut composer, 'w');
        assert_eq!(composer.text(), "one two\nthree  ");
        control(&mut composer, 'w');
        assert_eq!(composer.text(), "one two\n");
        control(&mut composer, 'u');
        assert!(composer.is_empty());
    }

    #[test]
    fn a_message_never_grows_beyond_what_the_protocol_takes() {
        let mut composer = Composer::default();
        composer.insert_text(&"ü".repeat(TEXT_BYTES_MAX));
        assert_eq!(composer.text().len(), TEXT_BYTES_MAX);
    }
}

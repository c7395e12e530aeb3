//! HTML that is written element by element: every text is escaped, and every element that opens is closed.

/// Style of every page.
const STYLE: &str = include_str!("style.css");

/// `& < > " '` as entities: for texts and for attributes. Other control characters than line ends become spaces.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' => out.push('\n'),
            control if control.is_control() => out.push(' '),
            other => out.push(other),
        }
    }
    out
}

/// A piece of a page.
#[derive(Default)]
pub struct Markup {
    out: String,
    open: Vec<&'static str>,
}

impl Markup {
    /// Opens an element; [`Self::close`] closes the one opened last.
    pub fn open(&mut self, tag: &'static str, class: &str) {
        self.out.push_str(&tag_text(tag, class));
        self.open.push(tag);
    }

    /// Closes the element opened last.
    pub fn close(&mut self) {
        let tag = self.open.pop().expect("as many are closed as were opened");
        self.out.push_str(&format!("</{tag}>\n"));
    }

    /// An element with nothing but text.
    pub fn element(&mut self, tag: &'static str, class: &str, text: &str) {
        self.out.push_str(&format!("{}{}</{tag}>\n", tag_text(tag, class), escape(text)));
    }

    /// Markup that was made elsewhere.
    pub fn raw(&mut self, markup: &str) {
        self.out.push_str(markup);
    }

    /// A table that scrolls by itself where it is too wide. The first `names` columns hold texts, the others numbers.
    pub fn table(&mut self, names: usize, head: &[&str], rows: &[Vec<String>]) {
        self.open("div", "scroll");
        self.open("table", "");
        self.open("thead", "");
        self.open("tr", "");
        for (column, title) in head.iter().enumerate() {
            self.element("th", if column < names { "name" } else { "" }, title);
        }
        self.close();
        self.close();
        self.open("tbody", "");
        for row in rows {
            self.open("tr", "");
            for (column, cell) in row.iter().enumerate() {
                self.element("td", if column < names { "name" } else { "" }, cell);
            }
            self.close();
        }
        self.close();
        self.close();
        self.close();
    }

    /// Names and their values, one below the other.
    pub fn facts(&mut self, facts: &[(String, String)]) {
        self.open("dl", "");
        for (name, value) in facts {
            self.element("dt", "", name);
            self.element("dd", "", value);
        }
        self.close();
    }

    /// Opens a part that is folded until it is asked for.
    pub fn open_folded(&mut self, title: &str) {
        self.open("details", "");
        self.element("summary", "", title);
    }

    /// The piece.
    pub fn finish(self) -> String {
        assert!(self.open.is_empty(), "left open: {:?}", self.open);
        self.out
    }
}

fn tag_text(tag: &str, class: &str) -> String {
    if class.is_empty() { format!("<{tag}>") } else { format!("<{tag} class=\"{}\">", escape(class)) }
}

/// A whole page that needs nothing from anywhere.
pub fn page(title: &str, body: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n",
        escape(title)
    )
}

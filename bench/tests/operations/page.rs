//! The page as it is written: blocks of commands that are marked to be tried, and what it says that they print.
//!
//! A mark is what stands behind `sh` where a block begins: the machines, then `serves` or `stops`, then `in-turn`. A block
//! `text` behind it is what it prints.

/// Something in a printed line that differs each time.
const ANYTHING: char = '…';

/// What becomes of the server of the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// Nothing: the commands run and end.
    Runs,
    /// The one command is the server, which stays.
    Serves,
    /// The commands ask it to end.
    Stops,
}

/// Commands that are typed together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Block {
    /// The heading that it is below.
    pub section: String,
    /// Where it begins on the page.
    pub line: usize,
    /// The machines that it is typed on.
    pub places: Vec<String>,
    pub way: Way,
    /// With its neighbours that are so, too, it is done on one machine after the other.
    pub is_in_turn: bool,
    pub text: String,
    /// Lines that it prints, in this order; others may come between.
    pub prints: Vec<String>,
}

impl Block {
    /// The one command of a server.
    pub fn command(&self) -> &str {
        let mut commands = self.text.lines().filter(|line| !line.starts_with('#'));
        match (commands.next(), commands.next()) {
            (Some(command), None) => command,
            _ => panic!("{}: a server is one command", self.name()),
        }
    }

    /// For whoever looks for it.
    pub fn name(&self) -> String {
        format!("docs/operations.md, line {}", self.line)
    }
}

/// What there is to be tried.
#[derive(Debug, Default)]
pub struct Page {
    blocks: Vec<Block>,
    /// Blocks of commands that nobody tries: their sections and lines.
    untried: Vec<(String, usize)>,
}

/// A block that has begun.
struct Open<'a> {
    mark: &'a str,
    line: usize,
    text: Vec<&'a str>,
}

impl Page {
    pub fn read(text: &str) -> Self {
        let (mut page, mut section) = (Self::default(), "");
        let mut open: Option<Open<'_>> = None;
        // Whether what a block prints may come next.
        let mut is_behind_tried = false;
        for (line, content) in (1..).zip(text.lines()) {
            let fence = content.strip_prefix("```");
            assert_eq!(fence.is_some(), content.trim_start().starts_with("```"), "line {line} is indented");
            match (open.take(), fence) {
                (Some(open), Some(_)) => is_behind_tried = page.add(section, &open, is_behind_tried),
                (Some(mut inside), None) => {
                    inside.text.push(content);
                    open = Some(inside);
                }
                (None, Some(mark)) => open = Some(Open { mark, line, text: Vec::new() }),
                (None, None) => {
                    if let Some(title) = content.strip_prefix('#') {
                        section = title.trim_start_matches('#').trim();
                        is_behind_tried = false;
                    }
                }
            }
        }
        page
    }

    /// Whether it is one that is tried.
    fn add(&mut self, section: &str, open: &Open<'_>, is_behind_tried: bool) -> bool {
        let words: Vec<&str> = open.mark.split_whitespace().collect();
        match words.as_slice() {
            ["sh", marks @ ..] if !marks.is_empty() => {
                self.blocks.push(block(section, open, marks));
                return true;
            }
            ["text"] if is_behind_tried => {
                let last = self.blocks.last_mut().expect("one was tried just now");
                last.prints.extend(open.text.iter().map(|line| (*line).to_owned()));
            }
            [] | ["sh"] => self.untried.push((section.to_owned(), open.line)),
            _ => {}
        }
        false
    }

    /// What is below a heading, in its order.
    pub fn section(&self, title: &str) -> Vec<Block> {
        let blocks = self.blocks.iter().filter(|block| block.section == title);
        let blocks: Vec<Block> = blocks.cloned().collect();
        assert!(!blocks.is_empty(), "nothing is to be tried below {title:?}");
        blocks
    }

    /// Lines of blocks below a heading that nobody tries.
    pub fn untried(&self, title: &str) -> Vec<usize> {
        self.untried.iter().filter(|(section, _)| section == title).map(|(_, line)| *line).collect()
    }
}

fn block(section: &str, open: &Open<'_>, marks: &[&str]) -> Block {
    let (mut places, mut way, mut is_in_turn) = (Vec::new(), Way::Runs, false);
    for mark in marks {
        match *mark {
            "serves" => way = Way::Serves,
            "stops" => way = Way::Stops,
            "in-turn" => is_in_turn = true,
            place => places.push(place.to_owned()),
        }
    }
    let (section, line) = (section.to_owned(), open.line);
    Block { section, line, places, way, is_in_turn, text: open.text.join("\n"), prints: Vec::new() }
}

/// The first line of those that should be printed, in their order, that was not.
pub fn missing<'a>(prints: &'a [String], said: &str) -> Option<&'a str> {
    let mut lines = said.lines();
    prints.iter().map(String::as_str).find(|print| !lines.any(|line| is_like(print, line)))
}

/// Columns may be wider or narrower.
fn is_like(print: &str, line: &str) -> bool {
    let narrow = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (print, line) = (narrow(print), narrow(line));
    let mut parts = print.split(ANYTHING);
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some((_, behind)) = rest.split_once(part) else { return false };
        rest = behind;
    }
    true
}

#[test]
fn marks_say_where_and_how_and_what_is_printed() {
    let page = Page::read(
        "# One\n```sh node-1 node-2 serves\n# both\nserver --quietly\n```\nsays\n```text\nready …\n```\n\
         ```text\nof nobody\n```\n## Two\n```sh\nuntried\n```\n```\nuntried\n```\n```toml\nkey = 1\n```\n\
         ```sh nodes stops in-turn\nkill it\nand wait\n```\n",
    );
    let one = &page.section("One")[0];
    assert_eq!((one.places.join(" ").as_str(), one.way), ("node-1 node-2", Way::Serves));
    assert!(!one.is_in_turn);
    assert_eq!((one.command(), one.prints.as_slice()), ("server --quietly", &["ready …".to_owned()][..]));
    let two = &page.section("Two")[0];
    assert_eq!((two.text.as_str(), two.way, two.is_in_turn), ("kill it\nand wait", Way::Stops, true));
    assert_eq!((page.untried("One"), page.untried("Two")), (vec![], vec![14, 17]));
}

#[test]
fn what_is_printed_is_held_against_what_the_page_says() {
    for (print, line, is) in [
        ("node  zone", "   node    zone  ", true),
        ("node zone", "node zone away", false),
        ("1 a …", "1 a 8", true),
        ("1 a … away", "1 a 8 leaves away", true),
        ("1 a … away", "1 a 8 leaves", false),
        ("… of … moves", "3 of 8 moves", true),
        ("… of … moves", "3 of 8 moves left", false),
        ("a … b … c", "a c b", false),
    ] {
        assert_eq!(is_like(print, line), is, "{print} / {line}");
    }
    let prints = ["first".to_owned(), "second".to_owned()];
    assert_eq!(missing(&prints, "first\nbetween\nsecond\n"), None);
    assert_eq!(missing(&prints, "second\nfirst\n"), Some("second"));
}

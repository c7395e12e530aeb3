//! Lines that begin with a slash.

/// What a line asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// `/with USERNAME`
    With(String),
    /// `/group TITLE USERNAME…`
    Group {
        /// Its title.
        title: String,
        /// Unique names of the other members.
        usernames: Vec<String>,
    },
    /// `/retry`: refused messages of this conversation once more.
    Retry,
    /// `/discard`: refused messages of this conversation never.
    Discard,
    /// `/help`
    Help,
    /// `/logout`
    LogOut,
    /// `/quit`
    Quit,
}

/// What `/help` shows: keys and commands.
pub const HELP: &[(&str, &str)] = &[
    ("/with USERNAME", "chat with somebody"),
    ("/group TITLE USER USER …", "make a group (\"a longer title\" in quotes)"),
    ("/retry, /discard", "send refused messages again, drop them"),
    ("/logout", "forget this device and its messages"),
    ("/quit, Ctrl-C", "leave"),
    ("Tab, ↓ / Shift-Tab, ↑", "next / previous conversation"),
    ("Page up, Page down", "scroll"),
    ("Alt-Enter", "a new line in the message"),
    ("//text", "a message that begins with a slash"),
    ("… ✓ ✓✓", "on its way, durable, delivered (blue: read)"),
];

/// `None`: a message. A line that begins with two slashes is one, too (the caller strips nothing).
pub fn parse(line: &str) -> Result<Option<Command>, String> {
    let line = line.trim();
    if !line.starts_with('/') || line.starts_with("//") {
        return Ok(None);
    }
    let words = words(line)?;
    let (name, rest) = words.split_first().ok_or("a command is missing")?;
    let command = match (name.as_str(), rest) {
        ("/with", [username]) => Command::With(username.clone()),
        ("/with", _) => return Err("/with USERNAME".into()),
        ("/group", [title, usernames @ ..]) if !usernames.is_empty() => {
            Command::Group { title: title.clone(), usernames: usernames.to_vec() }
        }
        ("/group", _) => return Err("/group TITLE USERNAME USERNAME …".into()),
        ("/retry", []) => Command::Retry,
        ("/discard", []) => Command::Discard,
        ("/help", []) => Command::Help,
        ("/logout", []) => Command::LogOut,
        ("/quit" | "/exit", []) => Command::Quit,
        (other, _) => return Err(format!("{other} is not known; /help tells what is")),
    };
    Ok(Some(command))
}

/// Words, or texts in double quotes.
fn words(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        let (word, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').ok_or("a quote is not closed")?,
            None => rest.split_once(char::is_whitespace).unwrap_or((rest, "")),
        };
        words.push(word.to_owned());
        rest = after.trim_start();
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read() {
        assert_eq!(parse("/with bob"), Ok(Some(Command::With("bob".into()))));
        let group =
            Command::Group { title: "board games".into(), usernames: vec!["bob".into(), "eve".into()] };
        assert_eq!(parse("/group \"board games\" bob  eve "), Ok(Some(group)));
        assert_eq!(parse("/quit"), Ok(Some(Command::Quit)));
        assert_eq!(parse("hello /with bob"), Ok(None));
        assert_eq!(parse("//etc"), Ok(None));
    }

    #[test]
    fn what_is_not_a_command_is_refused() {
        assert!(parse("/with").is_err());
        assert!(parse("/group title").is_err());
        assert!(parse("/group \"title bob").is_err());
        assert!(parse("/dance").is_err());
        assert!(parse("/quit now").is_err());
    }
}

//! From arguments to a logged-in client.

use crate::arguments::{Arguments, TrustChoice};
use crossterm::event::{Event, KeyCode, KeyEventKind, KeyModifiers};
use ringline_client::{Client, Config, Error, TransportKind, Trust};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

/// Why nobody could be logged in.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// The client library.
    #[error("{0}")]
    Client(#[from] Error),
    /// Standard input or the terminal.
    #[error("terminal: {0}")]
    Terminal(#[from] std::io::Error),
    /// Neither given nor to be found out.
    #[error("--user NAME is needed")]
    UserNeeded,
    /// Not given, and there is nobody to ask.
    #[error("a password is needed: set RINGLINE_PASSWORD, or run it in a terminal")]
    PasswordNeeded,
    /// The store belongs to an account already.
    #[error("this store belongs to {0} already; log in without --register, or use another --store")]
    Taken(String),
    /// Where to put things is unknown.
    #[error("HOME is not set: use --store DIR")]
    NoHome,
}

/// Opens the store and logs in, if that was not done before.
pub async fn open(arguments: &Arguments) -> Result<Client, AccountError> {
    let user = match &arguments.user {
        Some(user) => Some(user.clone()),
        None if arguments.store.is_some() => None,
        None => Some(ask_line("user name: ")?.ok_or(AccountError::UserNeeded)?),
    };
    let store = match (&arguments.store, &user) {
        (Some(store), _) => store.clone(),
        (None, Some(user)) => default_store(&arguments.server, user)?,
        (None, None) => return Err(AccountError::UserNeeded),
    };
    let mut config = Config::new(arguments.server.clone(), store);
    config.trust = trust(arguments);
    config.transport = arguments.transport;
    config.device_name = device_name();
    let client = Client::open(config).await?;
    let logged_in = log_in(&client, arguments, user.as_deref()).await;
    match logged_in {
        Ok(()) => Ok(client),
        Err(error) => {
            client.shutdown().await;
            Err(error)
        }
    }
}

async fn log_in(client: &Client, arguments: &Arguments, user: Option<&str>) -> Result<(), AccountError> {
    let known = client.identity().await?.filter(|known| user.is_none_or(|user| user == known.username));
    if client.is_logged_in().await?
        && let Some(known) = &known
    {
        return if arguments.register { Err(AccountError::Taken(known.username.clone())) } else { Ok(()) };
    }
    let user =
        user.or(known.as_ref().map(|known| known.username.as_str())).ok_or(AccountError::UserNeeded)?;
    let password = match std::env::var("RINGLINE_PASSWORD") {
        Ok(password) => password,
        Err(_) => ask_password(&format!("password of {user}: "))?.ok_or(AccountError::PasswordNeeded)?,
    };
    if arguments.register {
        let display_name = arguments.display_name.as_deref().unwrap_or(user);
        client.register(user, display_name, &password).await?;
    } else {
        client.log_in(user, &password).await?;
    }
    Ok(())
}

fn home() -> Option<PathBuf> {
    std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from)
}

/// Where a store is when nobody says where.
fn default_store(server: &str, user: &str) -> Result<PathBuf, AccountError> {
    let home = home().ok_or(AccountError::NoHome)?;
    Ok(store_below(&home, server, user))
}

/// One folder for each server and user.
fn store_below(home: &Path, server: &str, user: &str) -> PathBuf {
    let part = |text: &str| -> String {
        let kept = |c: char| if c.is_alphanumeric() || matches!(c, '.' | '-' | '_') { c } else { '_' };
        let part: String = text.chars().map(kept).collect();
        // Never a step to another folder.
        if part.starts_with('.') { format!("_{part}") } else { part }
    };
    home.join(".local/share/ringline-terminal").join(part(server)).join(part(user))
}

fn trust(arguments: &Arguments) -> Trust {
    match &arguments.trust {
        TrustChoice::File(file) => Trust::CertFile(file.clone()),
        TrustChoice::System => Trust::System,
        TrustChoice::Default => match home().map(|home| home.join(".local/share/ringline/tls/cert.pem")) {
            Some(file) if is_local(&arguments.server) && is_used(arguments) && file.exists() => {
                Trust::CertFile(file)
            }
            _ => Trust::System,
        },
    }
}

fn is_used(arguments: &Arguments) -> bool {
    arguments.transport != TransportKind::WebSocketPlain
}

fn is_local(server: &str) -> bool {
    let host = server.rsplit_once(':').map_or(server, |(host, _)| host);
    matches!(host, "localhost" | "127.0.0.1" | "[::1]")
}

fn device_name() -> String {
    let name = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    match name.trim() {
        "" => "terminal".into(),
        host => format!("terminal on {host}"),
    }
}

/// Nothing to ask: `None`.
fn ask_line(question: &str) -> std::io::Result<Option<String>> {
    if !std::io::stdin().is_terminal() {
        return Ok(None);
    }
    eprint!("{question}");
    std::io::stderr().flush()?;
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let line = line.trim().to_owned();
    Ok((!line.is_empty()).then_some(line))
}

/// Asks without echo. Nobody to ask, or the user gave up: `None`.
fn ask_password(question: &str) -> std::io::Result<Option<String>> {
    if !std::io::stdin().is_terminal() {
        return Ok(None);
    }
    eprint!("{question}");
    std::io::stderr().flush()?;
    crossterm::terminal::enable_raw_mode()?;
    let password = read_password();
    crossterm::terminal::disable_raw_mode()?;
    eprintln!();
    password
}

fn read_password() -> std::io::Result<Option<String>> {
    let mut password = String::new();
    loop {
        let Event::Key(key) = crossterm::event::read()? else { continue };
        if key.kind == KeyEventKind::Release {
            continue;
        }
        match key.code {
            KeyCode::Enter => return Ok((!password.is_empty()).then_some(password)),
            KeyCode::Esc => return Ok(None),
            KeyCode::Char('c' | 'd') if key.modifiers.contains(KeyModifiers::CONTROL) => return Ok(None),
            KeyCode::Char('u') if key.modifiers.contains(KeyModifiers::CONTROL) => password.clear(),
            KeyCode::Backspace => drop(password.pop()),
            KeyCode::Char(c) => password.push(c),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_never_leaves_its_folder() {
        let store = store_below(Path::new("/home/ada"), "host:1", "../../x");
        let expected = "/home/ada/.local/share/ringline-terminal/host_1/_.._.._x";
        assert_eq!(store, Path::new(expected));
    }

    #[test]
    fn only_servers_on_this_machine_get_the_development_certificate() {
        assert!(is_local("127.0.0.1:8443") && is_local("localhost:1") && is_local("[::1]:8443"));
        assert!(!is_local("chat.example.org:8443") && !is_local("127.0.0.1.example.org:1"));
    }
}

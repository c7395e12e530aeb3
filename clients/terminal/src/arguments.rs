//! The command line.

use std::path::PathBuf;

/// What `--help` prints.
pub const USAGE: &str = "\
ringline-terminal: chat in a terminal

  --user NAME          who you are; needed the first time
  --register           make a new account with this name
  --display-name TEXT  shown name of a new account (default: the user name)
  --server HOST:PORT   the server (default 127.0.0.1:8443)
  --trust FILE         PEM file of the certificates to trust, and no others
                       (default: for a server on this machine the development certificate of `make run`,
                       ~/.local/share/ringline/tls/cert.pem, if it is there; else the system's authorities)
  --trust-system       the system's authorities even then
  --transport KIND     native (default), websocket, or websocket-plain (loopback only)
  --store DIR          where messages are kept (default: ~/.local/share/ringline-terminal/SERVER/USER)
  --plain              for scripts: reads lines from standard input, prints events as lines
  --help               this text

The password is asked for without echo, or taken from the variable RINGLINE_PASSWORD.
";

/// How frames travel.
pub use ringline_client::TransportKind;

/// What the command line says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Arguments {
    /// Who; needed unless a store says it.
    pub user: Option<String>,
    /// Make a new account.
    pub register: bool,
    /// Of a new account.
    pub display_name: Option<String>,
    /// `HOST:PORT`.
    pub server: String,
    /// Trusted certificates.
    pub trust: TrustChoice,
    /// How frames travel.
    pub transport: TransportKind,
    /// Folder of the store.
    pub store: Option<PathBuf>,
    /// Lines instead of a screen.
    pub plain: bool,
}

/// Which certificates are trusted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TrustChoice {
    /// The development certificate for a server on this machine, the system's authorities for others.
    Default,
    /// The system's authorities.
    System,
    /// This file's.
    File(PathBuf),
}

/// What the command line asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Parsed {
    /// Chat.
    Run(Arguments),
    /// Print [`USAGE`].
    Help,
}

/// The command line is not understood.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}; --help tells more")]
pub struct Misunderstood(String);

/// Reads the command line, program name left out.
pub fn parse(words: impl IntoIterator<Item = String>) -> Result<Parsed, Misunderstood> {
    let mut arguments = Arguments {
        user: None,
        register: false,
        display_name: None,
        server: "127.0.0.1:8443".into(),
        trust: TrustChoice::Default,
        transport: TransportKind::Native,
        store: None,
        plain: false,
    };
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| Misunderstood(format!("{word} needs a value")));
        match word.as_str() {
            "--user" => arguments.user = Some(value()?),
            "--register" => arguments.register = true,
            "--display-name" => arguments.display_name = Some(value()?),
            "--server" => arguments.server = value()?,
            "--trust" => arguments.trust = TrustChoice::File(value()?.into()),
            "--trust-system" => arguments.trust = TrustChoice::System,
            "--transport" => arguments.transport = transport(&value()?)?,
            "--store" => arguments.store = Some(value()?.into()),
            "--plain" => arguments.plain = true,
            "--help" | "-h" => return Ok(Parsed::Help),
            other => return Err(Misunderstood(format!("{other} is not known"))),
        }
    }
    Ok(Parsed::Run(arguments))
}

fn transport(kind: &str) -> Result<TransportKind, Misunderstood> {
    match kind {
        "native" => Ok(TransportKind::Native),
        "websocket" => Ok(TransportKind::WebSocket),
        "websocket-plain" => Ok(TransportKind::WebSocketPlain),
        other => Err(Misunderstood(format!("--transport {other} is not known"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Parsed, Misunderstood> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn flags_are_read() {
        let Ok(Parsed::Run(arguments)) =
            parsed("--register --user ada --trust ca.pem --transport websocket --plain")
        else {
            panic!("understood")
        };
        assert!(arguments.register && arguments.plain);
        assert_eq!(arguments.user.as_deref(), Some("ada"));
        assert_eq!(arguments.trust, TrustChoice::File("ca.pem".into()));
        assert_eq!(arguments.transport, TransportKind::WebSocket);
        assert_eq!(arguments.server, "127.0.0.1:8443");
    }

    #[test]
    fn what_is_not_known_is_refused() {
        assert!(parsed("--insecure").is_err());
        assert!(parsed("--user").is_err());
        assert!(parsed("--transport pigeon").is_err());
        assert_eq!(parsed("--user ada --help"), Ok(Parsed::Help));
    }
}

//! The agent's command line.

use super::ServiceError;
use crate::coordinator::control::flags::{FlagError, Flags};
use crate::coordinator::control::trust::TrustFiles;
use std::net::IpAddr;

/// What the command understands.
pub const AGENT_HELP: &str =
    "agent    --listen ADDR --authority FILE --cert FILE --key FILE --target HOST:PORT…
           [--source IP]… [--connections-max N] [--cpu N]
           drives load for a coordinator that proves itself, towards the named targets only
         --child --target HOST:PORT… […]   the same for the process that started it, over stdin and stdout";

/// Files that an agent keeps for itself: libraries, pipes, logs, its control connections.
const FILES_KEPT: u64 = 64;

/// Where coordinators come in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Door {
    /// The process that started it, over stdin and stdout.
    Child,
    /// Who proves itself, over TLS.
    Listen {
        /// Address and port.
        address: String,
        /// The own identity, and whose coordinators may come in.
        files: TrustFiles,
    },
}

/// What an agent was told when it was started; no coordinator can go beyond it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AgentOptions {
    /// Where coordinators come in.
    pub door: Door,
    /// The only addresses that load may go to, as coordinators must spell them.
    pub targets: Vec<String>,
    /// Addresses to bind connections to, in turn.
    pub sources: Vec<IpAddr>,
    /// Most connections at a time.
    pub connections_max: u64,
    /// CPU to be bound to.
    pub cpu: Option<usize>,
}

impl AgentOptions {
    /// From the arguments behind the command's name. `open_files_max` bounds the connections where no flag does.
    pub fn parse(arguments: &[String], open_files_max: u64) -> Result<Self, ServiceError> {
        const VALUED: [&str; 8] = [
            "--listen",
            "--authority",
            "--cert",
            "--key",
            "--target",
            "--source",
            "--connections-max",
            "--cpu",
        ];
        let mut flags = Flags::parse(arguments, &VALUED, &["--child"])?;
        flags.no_operand()?;
        let door = if flags.has("--child") {
            let of_listeners = ["--listen", "--authority", "--cert", "--key"];
            if let Some(flag) = of_listeners.into_iter().find(|flag| flags.has(flag)) {
                return Err(FlagError(format!("{flag} has no meaning with --child")).into());
            }
            Door::Child
        } else {
            let files = TrustFiles {
                authority: flags.needed("--authority")?.into(),
                cert: flags.needed("--cert")?.into(),
                key: flags.needed("--key")?.into(),
            };
            Door::Listen { address: flags.needed("--listen")?, files }
        };
        let targets = flags.all("--target");
        if targets.is_empty() {
            return Err(FlagError("--target is missing: an agent sends nowhere else".to_owned()).into());
        }
        let address =
            |text: String| text.parse().map_err(|_| FlagError(format!("--source: {text} is no IP address")));
        let sources = flags.all("--source").into_iter().map(address).collect::<Result<_, _>>()?;
        let connections_max = flags.number("--connections-max")?;
        let cpu = flags.number("--cpu")?.map(|cpu| usize::try_from(cpu).unwrap_or(usize::MAX));
        let connections_max = connections_max.unwrap_or(open_files_max.saturating_sub(FILES_KEPT));
        Ok(Self { door, targets, sources, connections_max, cpu })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<AgentOptions, String> {
        let arguments: Vec<String> = line.split_whitespace().map(ToOwned::to_owned).collect();
        AgentOptions::parse(&arguments, 1_024).map_err(|error| error.to_string())
    }

    #[test]
    fn a_listening_agent_needs_an_identity_and_targets() {
        let line =
            "--listen 127.0.0.1:0 --authority a.pem --cert c.pem --key k.pem --target h:1 --source 127.0.0.2";
        let options = parse(line).expect("complete");
        assert_eq!(options.connections_max, 1_024 - FILES_KEPT, "by open files");
        assert_eq!((options.targets, options.sources.len(), options.cpu), (vec!["h:1".to_owned()], 1, None));
        for missing in
            ["--listen 127.0.0.1:0", "--authority a.pem", "--cert c.pem", "--key k.pem", "--target h:1"]
        {
            let flag = missing.split(' ').next().expect("a flag");
            let error = parse(&line.replace(missing, "")).expect_err(flag);
            assert!(error.starts_with(&format!("{flag} is missing")), "{error}");
        }
        assert_eq!(
            parse("--child --target h:1 --source here"),
            Err("--source: here is no IP address".to_owned())
        );
        assert_eq!(
            parse("--child --target h:1 --cert c"),
            Err("--cert has no meaning with --child".to_owned())
        );
        assert!(parse("--child --target h:1 stray").is_err());
    }
}

//! Where nats-server is, what its version can do, and how it is started.

use super::process::Start;
use super::{PeerError, Setting, configured, path_text, program as program_of_path, said, written};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The first version that takes TLS from the first byte.
const HANDSHAKE_FIRST: [u32; 3] = [2, 10, 4];
/// The first version with `sync_interval: always`.
const SYNC_ALWAYS: [u32; 3] = [2, 10, 0];

/// The one that `bench/peers/install` unpacked, or the system's.
pub fn program() -> Result<PathBuf, PeerError> {
    let own = std::env::var_os("RINGLINE_PEERS_DIR")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache/ringline/peers")));
    let own = own.map(|folder| folder.join("usr/sbin/nats-server")).filter(|path| path.is_file());
    own.or_else(|| program_of_path("nats-server")).ok_or(PeerError::NotInstalled("nats-server"))
}

/// As it names itself, without the "v".
pub fn version(program: &Path) -> Result<String, PeerError> {
    let text = said(Command::new(program).arg("--version"))?;
    let version = text.trim().rsplit(' ').next().unwrap_or_default();
    Ok(version.trim_start_matches('v').to_owned())
}

/// Refuses a version that cannot do what the setting needs.
fn check(setting: Setting, version: &str) -> Result<(), PeerError> {
    let mut numbers = version.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
    let numbers: [u32; 3] = std::array::from_fn(|_| numbers.next().unwrap_or(0));
    let lacks =
        |problem| Err(PeerError::Version { program: "nats-server", version: version.into(), problem });
    if setting == Setting::JetStreamAlways && numbers < SYNC_ALWAYS {
        return lacks("`sync_interval: always` needs 2.10.0; bench/peers/install unpacks such a version");
    }
    if numbers < HANDSHAKE_FIRST {
        return lacks(
            "speaks in plain text before TLS; `handshake_first` needs 2.10.4; bench/peers/install unpacks such a \
             version",
        );
    }
    Ok(())
}

/// With its settings file.
pub fn start(setting: Setting, folder: &Path, words: &[(&str, String)]) -> Result<Start, PeerError> {
    let program = program()?;
    check(setting, &version(&program)?)?;
    let mut words = words.to_vec();
    let sync = if setting == Setting::JetStreamAlways { "always" } else { "\"2m\"" };
    words.push(("@SYNC@", sync.to_owned()));
    let template = match setting {
        Setting::Nats => include_str!("../../../peers/nats.conf"),
        _ => include_str!("../../../peers/jetstream.conf"),
    };
    let config = written(folder, "nats.conf", &configured(template, &words))?;
    Ok(Start::new("nats-server", Path::new(&path_text(&program))).arguments(["-c", &config]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_that_cannot_do_it_are_refused_by_name() {
        assert!(check(Setting::Nats, "2.10.27").is_ok());
        assert!(check(Setting::JetStreamAlways, "2.10.4").is_ok());
        assert!(check(Setting::JetStreamAlways, "2.12.0-RC.1").is_ok());
        let told = |setting, version| check(setting, version).expect_err("too old").to_string();
        assert!(told(Setting::JetStreamAlways, "2.9.10").contains("sync_interval: always"));
        assert!(told(Setting::JetStream, "2.9.10").contains("nats-server 2.9.10: speaks in plain text"));
        assert!(told(Setting::Nats, "2.10.3").contains("2.10.4"));
    }
}

//! Makes a private authority and the identities of one fleet of load agents: `ringline-bench authority DIR`.

use super::flags::{FlagError, Flags};
use super::trust::{AGENT_ROLE, COORDINATOR_ROLE, TrustFiles, agent_own_name};
use crate::clock;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Life of certificates unless told otherwise, in days: a season of measurements.
const DAYS: u64 = 90;
/// Longest life, in days.
const DAYS_MAX: u64 = 3_650;
/// Clocks of machines may be behind by so much, in seconds, and still find a new certificate valid.
const BACKDATED_S: u64 = 3_600;
/// Longest name of an agent: a DNS label.
const NAME_BYTES_MAX: usize = 63;
/// What the command understands.
pub const AUTHORITY_HELP: &str = "authority DIR [--agent NAME]… [--relay NAME]… [--days 90]
           makes an authority, one coordinator and the named agents and relays; run again, it adds more of them";

/// Why no authority was made.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The command line.
    #[error(transparent)]
    Flags(#[from] FlagError),
    /// A name that no certificate may carry.
    #[error("{0:?} cannot be a name: 1 to {NAME_BYTES_MAX} lower-case letters, digits and inner hyphens")]
    Name(String),
    /// A file.
    #[error("{path}: {error}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A certificate.
    #[error("certificate: {0}")]
    Certificate(#[from] rcgen::Error),
}

/// What a certificate is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Steers.
    Coordinator,
    /// Is steered.
    Agent,
}

/// An authority in a folder.
pub struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    valid: Duration,
}

/// `ringline-bench authority …`: arguments behind the command's name. Returns the files of each identity it made.
pub fn command(arguments: &[String]) -> Result<Vec<TrustFiles>, AuthorityError> {
    let mut flags = Flags::parse(arguments, &["--agent", "--relay", "--days"], &[])?;
    let folder = flags.only_operand("DIR")?;
    let days = flags.number("--days")?.unwrap_or(DAYS).clamp(1, DAYS_MAX);
    let (agents, relays) = (flags.all("--agent"), flags.all("--relay"));
    agents.iter().chain(&relays).try_for_each(|name| check_name(name))?;
    let mut authority = Authority::open(Path::new(&folder), Duration::from_secs(days * 86_400))?;
    let mut made = Vec::new();
    if !authority.files("coordinator").cert.exists() {
        made.push(authority.add(Role::Coordinator, "coordinator")?);
    }
    for name in agents.iter().chain(&relays) {
        made.push(authority.add(Role::Agent, name)?);
    }
    // A relay is an agent to those above it and a coordinator to those below.
    for name in &relays {
        made.push(authority.add(Role::Coordinator, &format!("{name}-down"))?);
    }
    Ok(made)
}

impl Authority {
    /// Opens the folder's authority, or makes one there; its certificates live for `valid`.
    pub fn open(folder: &Path, valid: Duration) -> Result<Self, AuthorityError> {
        let at = |path: &Path, error| AuthorityError::File { path: path.to_owned(), error };
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| at(folder, error))?;
        let (cert, key_path) = (folder.join("authority.pem"), folder.join("authority-key.pem"));
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "ringline-bench authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        date(&mut params, Duration::from_secs(DAYS_MAX * 86_400));
        let key = if key_path.exists() {
            KeyPair::from_pem(&fs::read_to_string(&key_path).map_err(|error| at(&key_path, error))?)?
        } else {
            let key = KeyPair::generate()?;
            write_new(&key_path, &key.serialize_pem())?;
            key
        };
        if !cert.exists() {
            write_new(&cert, &params.self_signed(&key)?.pem())?;
        }
        Ok(Self { folder: folder.to_owned(), issuer: Issuer::new(params, key), valid })
    }

    /// Makes an identity. Refused if there is one of that name.
    pub fn add(&mut self, role: Role, name: &str) -> Result<TrustFiles, AuthorityError> {
        check_name(name)?;
        let mut params = match role {
            Role::Coordinator => CertificateParams::new(vec![COORDINATOR_ROLE.to_owned()])?,
            Role::Agent => CertificateParams::new(vec![AGENT_ROLE.to_owned(), agent_own_name(name)])?,
        };
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match role {
            Role::Coordinator => ExtendedKeyUsagePurpose::ClientAuth,
            Role::Agent => ExtendedKeyUsagePurpose::ServerAuth,
        }];
        date(&mut params, self.valid);
        self.sign(name, &params)
    }

    fn sign(&mut self, name: &str, params: &CertificateParams) -> Result<TrustFiles, AuthorityError> {
        let key = KeyPair::generate()?;
        let files = self.files(name);
        write_new(&files.key, &key.serialize_pem())?;
        write_new(&files.cert, &params.signed_by(&key, &self.issuer)?.pem())?;
        Ok(files)
    }

    /// Where an identity's files are.
    pub fn files(&self, name: &str) -> TrustFiles {
        TrustFiles {
            authority: self.folder.join("authority.pem"),
            cert: self.folder.join(format!("{name}.pem")),
            key: self.folder.join(format!("{name}-key.pem")),
        }
    }
}

fn date(params: &mut CertificateParams, valid: Duration) {
    let now = date_time_ymd(1970, 1, 1) + Duration::from_secs(clock::unix_s());
    params.not_before = now - Duration::from_secs(BACKDATED_S);
    params.not_after = now + valid;
}

fn check_name(name: &str) -> Result<(), AuthorityError> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let edge = |byte: Option<&u8>| byte.is_some_and(|byte| *byte != b'-');
    let bytes = name.as_bytes();
    let fits = bytes.len() <= NAME_BYTES_MAX && bytes.iter().copied().all(plain);
    // These are the authority's own files.
    let reserved = name.starts_with("authority") || name.ends_with("-key");
    if fits && edge(bytes.first()) && edge(bytes.last()) && !reserved {
        Ok(())
    } else {
        Err(AuthorityError::Name(name.to_owned()))
    }
}

/// Never over an old file: a key that is in use somewhere must not be lost.
fn write_new(path: &Path, text: &str) -> Result<(), AuthorityError> {
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    written.map_err(|error| AuthorityError::File { path: path.to_owned(), error })
}

#[cfg(test)]
pub(crate) mod test_identities {
    //! Identities that no command makes.

    use super::*;

    /// What is unusual about it.
    pub struct Unusual {
        /// Names in the certificate.
        pub names: Vec<String>,
        /// Whether it ended yesterday.
        pub expired: bool,
    }

    /// An identity whose key may serve for both roles: only the names tell.
    pub fn add(authority: &mut Authority, name: &str, unusual: &Unusual) -> TrustFiles {
        let mut params = CertificateParams::new(unusual.names.clone()).expect("names");
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        date(&mut params, Duration::from_secs(3_600));
        if unusual.expired {
            params.not_before -= Duration::from_secs(30 * 86_400);
            params.not_after -= Duration::from_secs(86_400);
        }
        authority.sign(name, &params).expect("signed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn arguments(words: &[&str]) -> Vec<String> {
        words.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn files_are_private_never_overwritten_and_may_be_added_to() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path().join("fleet");
        let at = at.to_str().expect("UTF-8");
        let made = command(&arguments(&[at, "--agent", "a1", "--relay", "r1"])).expect("made");
        assert_eq!(made.len(), 4, "coordinator, a1, r1 and r1-down");
        for entry in fs::read_dir(at).expect("made") {
            let entry = entry.expect("readable");
            let mode = entry.metadata().expect("there").permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{:?}", entry.path());
        }
        let again = command(&arguments(&[at, "--agent", "a1"])).expect_err("a1 is there");
        assert!(again.to_string().contains("a1-key.pem"), "{again}");
        assert_eq!(command(&arguments(&[at, "--agent", "a2"])).expect("added").len(), 1);
    }

    #[test]
    fn names_that_would_mean_something_else_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path().join("fleet");
        for name in ["", "A", "a.b", "../x", "-a", "a-", "authority", "x-key", &"a".repeat(64)] {
            let refused = command(&arguments(&[at.to_str().expect("UTF-8"), "--agent", name]));
            assert!(matches!(refused, Err(AuthorityError::Name(_))), "{name:?}");
        }
        assert!(!at.exists(), "nothing was made for them");
    }
}

//! The keys on disk: read once at start, made at the first start when the configuration names none.
//!
//! A key that is made is written to a file of its own, synced, and then linked to its name, which fails if the
//! name exists: two processes that start at once end up with one key, and a crash leaves a whole key or none.

use super::resume::{RESUME_KEY_BYTES, ResumeKeys, VersionedKey};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::{SystemRandom, fill};
use aws_lc_rs::signature::{ED25519_PUBLIC_KEY_LEN, Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::{DecodingKey, EncodingKey};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

pub(super) const SIGNING_KEY_FILE: &str = "signing-key.pem";
pub(super) const RESUME_KEY_FILE: &str = "resume-key";

/// Largest key file that is read, in bytes: hundreds of resume keys; a signing key has 200.
const KEY_FILE_BYTES_MAX: u64 = 64 * 1024;
/// Bytes of a public key's SHA-256 that name it in a token: no accident makes two alike.
const KID_BYTES: usize = 8;
/// RFC 8410: what stands before the 32 bytes of an Ed25519 public key in its SubjectPublicKeyInfo.
const ED25519_SPKI_PREFIX: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// A key that could not be had. The process does not start.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The file could not be read or made.
    #[error("{path}: {error}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
    /// The file does not hold what it should.
    #[error("{path}: {problem}")]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// What should be there.
        problem: &'static str,
    },
    /// The system's random source failed.
    #[error("no randomness for a new key")]
    NoRandomness,
}

fn invalid(path: &Path, problem: &'static str) -> KeysError {
    KeysError::Invalid { path: path.to_owned(), problem }
}

/// The private half that signs access tokens.
pub(super) struct SigningKey {
    encoding: EncodingKey,
    verifying: VerifyingKey,
}

/// A public half: of the key that signs, or of one that signed before or will sign soon.
#[derive(Clone)]
pub(super) struct VerifyingKey {
    kid: String,
    public: [u8; ED25519_PUBLIC_KEY_LEN],
}

impl SigningKey {
    pub(super) fn from_pkcs8(der: &[u8]) -> Option<Self> {
        let pair = Ed25519KeyPair::from_pkcs8(der).ok()?;
        let public = pair.public_key().as_ref().try_into().ok()?;
        Some(Self { encoding: EncodingKey::from_ed_der(der), verifying: VerifyingKey::new(public) })
    }

    pub(super) fn kid(&self) -> &str {
        &self.verifying.kid
    }

    pub(super) fn encoding_key(&self) -> &EncodingKey {
        &self.encoding
    }

    pub(super) fn verifying_key(&self) -> VerifyingKey {
        self.verifying.clone()
    }
}

impl VerifyingKey {
    pub(super) fn new(public: [u8; ED25519_PUBLIC_KEY_LEN]) -> Self {
        let hash = digest(&SHA256, &public);
        let kid = hash.as_ref().iter().take(KID_BYTES).map(|byte| format!("{byte:02x}")).collect();
        Self { kid, public }
    }

    pub(super) fn kid(&self) -> &str {
        &self.kid
    }

    pub(super) fn decoding_key(&self) -> DecodingKey {
        DecodingKey::from_ed_der(&self.public)
    }
}

/// The signing key of a file that must exist: PKCS#8, PEM.
pub(super) fn read_signing_key(path: &Path) -> Result<SigningKey, KeysError> {
    let text = read_secret(path)?;
    let problem = "an Ed25519 private key is expected, PKCS#8 in PEM";
    let der = PrivatePkcs8KeyDer::from_pem_slice(&text).map_err(|_| invalid(path, problem))?;
    SigningKey::from_pkcs8(der.secret_pkcs8_der()).ok_or_else(|| invalid(path, problem))
}

/// The signing key of the data folder, made at the first start.
pub(super) fn open_signing_key(path: &Path) -> Result<SigningKey, KeysError> {
    make_if_missing(path, || {
        let document =
            Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| KeysError::NoRandomness)?;
        let base64 = STANDARD.encode(document.as_ref());
        // RFC 7468: lines of 64 characters.
        let lines = base64.as_bytes().chunks(64).map(String::from_utf8_lossy).collect::<Vec<_>>().join("\n");
        Ok(format!("-----BEGIN PRIVATE KEY-----\n{lines}\n-----END PRIVATE KEY-----\n"))
    })?;
    read_signing_key(path)
}

/// A further key whose tokens are accepted: its public half, or a whole private key.
pub(super) fn read_verifying_key(path: &Path) -> Result<VerifyingKey, KeysError> {
    let text = read_file(path)?;
    if let Ok(spki) = SubjectPublicKeyInfoDer::from_pem_slice(&text) {
        let public = spki.as_ref().strip_prefix(&ED25519_SPKI_PREFIX).and_then(|key| key.try_into().ok());
        return public
            .map(VerifyingKey::new)
            .ok_or_else(|| invalid(path, "the public key is not of Ed25519"));
    }
    let private = PrivatePkcs8KeyDer::from_pem_slice(&text).ok();
    let key = private.and_then(|der| SigningKey::from_pkcs8(der.secret_pkcs8_der()));
    key.map(|key| key.verifying_key()).ok_or_else(|| invalid(path, "an Ed25519 key in PEM is expected"))
}

/// The resume keys of a file that must exist: a line for each, its version (0 to 255), a colon, 64 hexadecimal
/// characters. The first line signs. Empty lines and lines that begin with # are left out.
pub(super) fn read_resume_keys(path: &Path) -> Result<ResumeKeys, KeysError> {
    let text = String::from_utf8(read_secret(path)?).map_err(|_| invalid(path, "text is expected"))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut keys: Vec<VersionedKey> = Vec::new();
    for line in lines {
        let key =
            parse_resume_key(line).ok_or_else(|| invalid(path, "a line is not version:64 hexadecimals"))?;
        if keys.iter().any(|other| other.version == key.version) {
            return Err(invalid(path, "a version stands there twice"));
        }
        keys.push(key);
    }
    let others = keys.split_off(keys.len().min(1));
    let signing = keys.pop().ok_or_else(|| invalid(path, "there is no key"))?;
    Ok(ResumeKeys::new(signing, others))
}

/// The resume key of the data folder, made at the first start.
pub(super) fn open_resume_keys(path: &Path) -> Result<ResumeKeys, KeysError> {
    make_if_missing(path, || {
        let mut secret = [0u8; RESUME_KEY_BYTES];
        fill(&mut secret).map_err(|_| KeysError::NoRandomness)?;
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(format!("1:{hex}\n"))
    })?;
    read_resume_keys(path)
}

fn parse_resume_key(line: &str) -> Option<VersionedKey> {
    let (version, hex) = line.split_once(':')?;
    if hex.len() != 2 * RESUME_KEY_BYTES {
        return None;
    }
    let digits = hex.chars().map(|c| c.to_digit(16)).collect::<Option<Vec<u32>>>()?;
    let mut secret = [0u8; RESUME_KEY_BYTES];
    for (byte, pair) in secret.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = pair.iter().fold(0, |byte, digit| byte << 4 | *digit as u8);
    }
    Some(VersionedKey::new(version.parse().ok()?, &secret))
}

/// A file with a secret: a warning if others on the machine may read it.
fn read_secret(path: &Path) -> Result<Vec<u8>, KeysError> {
    let metadata = path.metadata().map_err(|error| KeysError::Io { path: path.to_owned(), error })?;
    if metadata.permissions().mode() & 0o077 != 0 {
        tracing::warn!(path = %path.display(), "a secret key is readable by others; its mode should be 0600");
    }
    read_file(path)
}

fn read_file(path: &Path) -> Result<Vec<u8>, KeysError> {
    let read = || {
        if path.metadata()?.len() > KEY_FILE_BYTES_MAX {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        std::fs::read(path)
    };
    read().map_err(|error| KeysError::Io { path: path.to_owned(), error })
}

fn make_if_missing(path: &Path, make: impl FnOnce() -> Result<String, KeysError>) -> Result<(), KeysError> {
    if path.exists() {
        return Ok(());
    }
    let text = make()?;
    write_new(path, text.as_bytes()).map_err(|error| KeysError::Io { path: path.to_owned(), error })
}

/// Leaves the whole text under `path` with mode 0600, or what another process left there first.
fn write_new(path: &Path, text: &[u8]) -> io::Result<()> {
    std::fs::create_dir_all(folder_of(path))?;
    let mut unique = [0u8; 8];
    fill(&mut unique).map_err(|_| io::Error::other("no randomness for a file name"))?;
    let temporary = path.with_extension(format!("new-{:016x}", u64::from_ne_bytes(unique)));
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    write_synced(file, text).inspect_err(|_| {
        // Why it could not be written is what a person has to know.
        let _ = std::fs::remove_file(&temporary);
    })?;
    rename_if_missing(&temporary, path)
}

/// Writes all of a file. Its bytes are durable on return.
fn write_synced(mut file: File, text: &[u8]) -> io::Result<()> {
    file.write_all(text)?;
    file.sync_all()
}

/// Gives a file another name; if there is one of that name it stays, and this file goes. The names are durable on return.
fn rename_if_missing(from: &Path, to: &Path) -> io::Result<()> {
    let linked = match std::fs::hard_link(from, to) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    };
    let removed = std::fs::remove_file(from);
    linked.and(removed)?;
    File::open(folder_of(to))?.sync_all()
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The device takes every byte and has nothing to sync: asked to, the kernel says that this makes no sense.
    #[test]
    fn the_bytes_of_a_new_key_are_synced() {
        let device = OpenOptions::new().write(true).open("/dev/null").expect("it opens");
        let told = write_synced(device, b"a key").map_err(|error| error.kind());
        assert_eq!(told, Err(io::ErrorKind::InvalidInput), "nobody asked for a sync");
    }

    /// There is a file of this name, so nothing is linked; of its folder the kernel says that a sync makes no sense.
    #[test]
    fn the_name_of_a_new_key_is_synced() {
        let key = std::env::temp_dir().join(format!("ringline-key-{}", std::process::id()));
        std::fs::write(&key, "a key").expect("the temporary folder is writable");
        let told = rename_if_missing(&key, Path::new("/proc/version")).map_err(|error| error.kind());
        assert_eq!(told, Err(io::ErrorKind::InvalidInput), "nobody asked for a sync");
        assert!(!key.exists(), "nothing temporary stays");
    }
}

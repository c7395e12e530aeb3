//! Certificate and key of the TLS listener: those that are configured, or a self-signed pair for development
//! that is made once and kept in the data folder.

use super::TlsConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Names in the certificate made for development.
pub const DEVELOPMENT_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// A certificate chain with its key.
pub struct Identity {
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub key: PrivateKeyDer<'static>,
    /// Where the chain was read from; clients may be given it as an authority in development.
    pub chain_file: PathBuf,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read or written.
    #[error("{path}: {error}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{path}: {problem}")]
    Pem {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The development certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Making(#[from] rcgen::Error),
}

/// The configured pair, or the development pair of the data folder.
pub fn load(tls: &TlsConfig, data_dir: &Path) -> Result<Identity, CertificateError> {
    match (&tls.cert, &tls.key) {
        (Some(cert), Some(key)) => read(cert, key),
        _ => {
            let (cert, key) = (data_dir.join("tls/cert.pem"), data_dir.join("tls/key.pem"));
            if !(cert.exists() && key.exists()) {
                make(&cert, &key)?;
            }
            read(&cert, &key)
        }
    }
}

/// Reads a chain and a key.
pub fn read(cert: &Path, key: &Path) -> Result<Identity, CertificateError> {
    let chain = read_chain(cert)?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| pem_error(key, &error))?;
    Ok(Identity { chain, key: private, chain_file: cert.to_owned() })
}

/// Reads the certificates of a file, at least one.
pub fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|error| pem_error(path, &error))?.collect();
    let chain = chain.map_err(|error| pem_error(path, &error))?;
    if chain.is_empty() {
        return Err(CertificateError::Pem { path: path.to_owned(), problem: "holds no certificate".into() });
    }
    Ok(chain)
}

fn pem_error(path: &Path, error: &rustls_pki_types::pem::Error) -> CertificateError {
    CertificateError::Pem { path: path.to_owned(), problem: error.to_string() }
}

fn make(cert: &Path, key: &Path) -> Result<(), CertificateError> {
    let names: Vec<String> = DEVELOPMENT_NAMES.iter().map(ToString::to_string).collect();
    let made = rcgen::generate_simple_self_signed(names)?;
    // The key first: a certificate without its key would be taken for a complete pair by nobody.
    write(key, made.signing_key.serialize_pem().as_bytes(), 0o600)?;
    write(cert, made.cert.pem().as_bytes(), 0o644)
}

/// Writes a whole file under its name at once, so that a crash leaves either nothing or all of it.
fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), CertificateError> {
    let file_error = |error| CertificateError::File { path: path.to_owned(), error };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(file_error)?;
    }
    let unfinished = path.with_extension("unfinished");
    let mut options = fs::OpenOptions::new();
    let mut file =
        options.write(true).create(true).truncate(true).mode(mode).open(&unfinished).map_err(file_error)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(file_error)?;
    fs::rename(&unfinished, path).map_err(file_error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_development_pair_is_made_once_and_kept_private() {
        let folder = std::env::temp_dir().join(format!("ringline-certificate-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        let first = load(&TlsConfig::default(), &folder).expect("made");
        let again = load(&TlsConfig::default(), &folder).expect("read");
        assert_eq!(first.chain, again.chain);
        let mode = fs::metadata(folder.join("tls/key.pem")).expect("written").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::write(folder.join("tls/cert.pem"), "not a certificate").expect("writable");
        let refused = load(&TlsConfig::default(), &folder).err().expect("refused").to_string();
        assert!(refused.contains("cert.pem"), "{refused}");
        fs::remove_dir_all(&folder).expect("ours");
    }

    /// In place of the unfinished file stands a device that takes every byte and has nothing to sync: asked to, the
    /// kernel says that this makes no sense.
    #[test]
    fn a_file_is_synced_before_it_gets_its_name() {
        let folder = std::env::temp_dir().join(format!("ringline-certificate-sync-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("the temporary folder is writable");
        std::os::unix::fs::symlink("/dev/null", folder.join("key.unfinished")).expect("it is made");
        let path = folder.join("key.pem");
        match write(&path, b"a key", 0o600) {
            Err(CertificateError::File { error, .. }) => {
                assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput, "{error}");
            }
            other => panic!("nobody asked for a sync: {other:?}"),
        }
        assert!(path.symlink_metadata().is_err(), "it has its name all the same");
        fs::remove_dir_all(&folder).expect("ours");
    }
}

//! An authority made for one peer, and the server's certificate.

use super::PeerError;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Name in the certificate.
pub const SERVER_NAME: &str = "localhost";

/// What a server needs, and what its clients trust.
pub struct Certificate {
    /// The authority, PEM.
    pub ca_pem: String,
    /// File of the server's certificate.
    pub cert: PathBuf,
    /// File of its key.
    pub key: PathBuf,
    /// File of both.
    pub both: PathBuf,
}

/// Makes both in `folder`.
pub fn make(folder: &Path) -> Result<Certificate, PeerError> {
    let mut authority = named(Vec::new(), "ringline-bench peers")?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let server = named(vec![SERVER_NAME.to_owned()], SERVER_NAME)?.signed_by(&key, &authority)?;
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        let done = std::fs::write(&path, text)
            .and_then(|()| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)));
        done.map(|()| path.clone()).map_err(|error| PeerError::io(path.to_string_lossy(), error))
    };
    Ok(Certificate {
        ca_pem: authority.pem(),
        cert: write("server.crt", &server.pem())?,
        key: write("server.key", &key.serialize_pem())?,
        both: write("server.pem", &(server.pem() + &key.serialize_pem()))?,
    })
}

/// With a name and a life that everybody understands: ejabberd takes neither an authority and a server of one name nor
/// a certificate that outlives its calendar.
fn named(names: Vec<String>, common_name: &str) -> Result<CertificateParams, PeerError> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, common_name);
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2049, 1, 1));
    Ok(params)
}

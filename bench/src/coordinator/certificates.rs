//! An authority for the links of one test fleet, and a certificate that it signed.

use super::ClusterError;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::path::{Path, PathBuf};

/// Files of an authority and of one identity that it signed, PEM.
pub struct LinkCertificates {
    /// The authority's certificate.
    pub ca: PathBuf,
    /// The identity's certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Name in the certificates.
pub const SERVER_NAME: &str = "ringline-storage";

/// Makes both in `folder`.
pub fn make(folder: &Path) -> Result<LinkCertificates, ClusterError> {
    let failed = |error: rcgen::Error| ClusterError::Certificates(error.to_string());
    let mut authority = CertificateParams::new(Vec::<String>::new()).map_err(failed)?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority =
        CertifiedIssuer::self_signed(authority, KeyPair::generate().map_err(failed)?).map_err(failed)?;
    let key = KeyPair::generate().map_err(failed)?;
    let identity = CertificateParams::new(vec![SERVER_NAME.to_owned()]).map_err(failed)?;
    let identity = identity.signed_by(&key, &authority).map_err(failed)?;
    let files = LinkCertificates {
        ca: folder.join("link-ca.pem"),
        cert: folder.join("link-cert.pem"),
        key: folder.join("link-key.pem"),
    };
    std::fs::write(&files.ca, authority.pem())?;
    std::fs::write(&files.cert, identity.pem())?;
    std::fs::write(&files.key, key.serialize_pem())?;
    Ok(files)
}

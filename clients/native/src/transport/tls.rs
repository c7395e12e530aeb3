//! TLS 1.3, verified: there is no configuration without verification.

use super::ConnectError;
use crate::config::Trust;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::sync::Arc;
use tokio_rustls::TlsConnector;

/// The trusted certificates.
pub(super) fn roots(trust: &Trust) -> Result<Arc<RootCertStore>, ConnectError> {
    let mut roots = RootCertStore::empty();
    match trust {
        Trust::System => {
            let found = rustls_native_certs::load_native_certs();
            for error in &found.errors {
                tracing::warn!(%error, "a system certificate cannot be read");
            }
            roots.add_parsable_certificates(found.certs);
        }
        Trust::CertFile(file) => {
            let unusable = |error: String| ConnectError::Trust(format!("{}: {error}", file.display()));
            let certificates =
                CertificateDer::pem_file_iter(file).map_err(|error| unusable(error.to_string()))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
                roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
            }
        }
    }
    if roots.is_empty() {
        return Err(ConnectError::Trust("there are none".into()));
    }
    Ok(Arc::new(roots))
}

/// For one protocol.
pub(super) fn connector(roots: &Arc<RootCertStore>, alpn: &[u8]) -> Result<TlsConnector, ConnectError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| ConnectError::Trust(error.to_string()))?;
    let mut config = builder.with_root_certificates(Arc::clone(roots)).with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

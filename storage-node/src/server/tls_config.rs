//! Certificates of links: both ends show one, signed by the fleet's own authority. TLS 1.3 only.

use crate::config::LinkTls;
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Certificates that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {detail}")]
pub struct TlsError {
    /// Which file.
    pub file: PathBuf,
    /// What is wrong.
    pub detail: String,
}

/// Both ends of mutual TLS.
#[derive(Clone)]
pub struct LinkTlsConfigs {
    /// For links that are accepted.
    pub server: Arc<ServerConfig>,
    /// For links that are opened.
    pub client: Arc<ClientConfig>,
    /// The name in the certificates of storage nodes.
    pub server_name: ServerName<'static>,
}

impl LinkTlsConfigs {
    /// Reads the PEM files.
    pub fn read(tls: &LinkTls) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let wrong = |file: &Path, detail: String| TlsError { file: file.to_owned(), detail };
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&tls.ca)? {
            roots.add(certificate).map_err(|error| wrong(&tls.ca, error.to_string()))?;
        }
        let roots = Arc::new(roots);
        let chain = certificates(&tls.cert)?;
        let key =
            PrivateKeyDer::from_pem_file(&tls.key).map_err(|error| wrong(&tls.key, error.to_string()))?;
        let unfit = |error: rustls::Error| wrong(&tls.cert, error.to_string());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
            .build()
            .map_err(|error| wrong(&tls.ca, error.to_string()))?;
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(unfit)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(unfit)?;
        // Links live for days: resuming would save nothing.
        server.send_tls13_tickets = 0;
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(unfit)?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(unfit)?;
        client.resumption = Resumption::disabled();
        let server_name = ServerName::try_from(tls.server_name.clone())
            .map_err(|error| wrong(&tls.cert, format!("server_name {}: {error}", tls.server_name)))?;
        Ok(Self { server: Arc::new(server), client: Arc::new(client), server_name })
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |detail: String| TlsError { file: file.to_owned(), detail };
    let certificates: Vec<_> = CertificateDer::pem_file_iter(file)
        .and_then(|found| found.collect::<Result<_, _>>())
        .map_err(|error| wrong(error.to_string()))?;
    if certificates.is_empty() {
        return Err(wrong("holds no certificate".to_owned()));
    }
    Ok(certificates)
}

//! Asks another gateway over TLS whether it is ready.

use super::discovery::Probed;
use super::driver::FleetStartError;
use crate::config::FleetConfig;
use crate::config::certificate::{self, CertificateError};
use crate::config::fleet::host_and_port;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::{
    CertificateError as TlsCertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use serde::Deserialize;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use wire_protocol::limits::ALPN_HTTP;

/// A gateway that has not answered by then is silent, in milliseconds: less than the pause between two probes.
const PROBE_MS_MAX: u64 = 1_500;
/// Bytes of an answer that are read, at most: several times what ours have.
const ANSWER_BYTES_MAX: u64 = 4 * 1_024;
/// Longest zone that is believed, in bytes.
const ZONE_BYTES_MAX: usize = 64;

/// Probes gateways, as many at once as one likes.
#[derive(Clone)]
pub(super) struct Prober {
    tls: TlsConnector,
    name: Option<ServerName<'static>>,
}

/// What we read of an answer.
#[derive(Deserialize)]
struct Health {
    #[serde(default)]
    zone: String,
    admits_per_s: Option<u32>,
}

impl Prober {
    /// `own` is this gateway's certificate.
    pub(super) fn new(config: &FleetConfig, own: &CertificateDer<'static>) -> Result<Self, FleetStartError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier: Arc<dyn ServerCertVerifier> = match &config.ca {
            None => Arc::new(SameCertificate { own: own.clone(), provider: provider.clone() }),
            Some(path) => {
                let unusable = |problem: String| CertificateError::Pem { path: path.clone(), problem };
                let mut roots = RootCertStore::empty();
                for certificate in certificate::read_chain(path)? {
                    roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
                }
                let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone());
                builder.build().map_err(|error| unusable(error.to_string()))?
            }
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider has suites of TLS 1.3");
        let mut tls = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
        tls.alpn_protocols = vec![ALPN_HTTP.to_vec()];
        let name = config.server_name.clone().map(ServerName::try_from).transpose();
        let name = name.map_err(|_| FleetStartError::ServerName)?;
        Ok(Self { tls: TlsConnector::from(Arc::new(tls)), name })
    }

    /// What became of asking.
    pub(super) async fn probe(&self, address: &str) -> Probed {
        let limit = Duration::from_millis(PROBE_MS_MAX);
        match tokio::time::timeout(limit, self.ask(address)).await {
            Ok(Ok(probed)) => probed,
            Ok(Err(error)) => {
                tracing::debug!(gateway = address, %error, "no answer of a gateway");
                Probed::Silent
            }
            Err(_) => Probed::Silent,
        }
    }

    async fn ask(&self, address: &str) -> io::Result<Probed> {
        let (host, _) = host_and_port(address).ok_or(io::ErrorKind::InvalidInput)?;
        let name = match &self.name {
            Some(name) => name.clone(),
            None => ServerName::try_from(host.to_owned()).map_err(io::Error::other)?,
        };
        let tcp = TcpStream::connect(address).await?;
        let mut stream = self.tls.connect(name, tcp).await?;
        let request =
            format!("GET /v1/health/ready HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        // An end without close_notify is as good: the answer has a length, and what is cut is not understood.
        let read = (&mut stream).take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await;
        match understood(&answer) {
            Some(probed) => Ok(probed),
            None => Err(read.err().unwrap_or_else(|| io::ErrorKind::InvalidData.into())),
        }
    }
}

/// What the bytes of an answer say. `None`: that is no gateway.
pub fn understood(answer: &[u8]) -> Option<Probed> {
    let answer = std::str::from_utf8(answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    match head.split(' ').nth(1)? {
        "200" => {
            let health: Health = serde_json::from_str(body).ok()?;
            let is_zone = health.zone.len() <= ZONE_BYTES_MAX;
            let zone = if is_zone { health.zone } else { String::new() };
            Some(Probed::Ready { zone, admits_per_s: health.admits_per_s })
        }
        "503" => Some(Probed::NotReady),
        _ => None,
    }
}

/// Trusts who has our own certificate and its key.
#[derive(Debug)]
struct SameCertificate {
    own: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for SameCertificate {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if **end_entity == *self.own {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(TlsCertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("only TLS 1.3 is spoken".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_understood_or_silence() {
        let ready = |zone: &str, admits_per_s| Some(Probed::Ready { zone: zone.into(), admits_per_s });
        for (answer, read) in [
            ("HTTP/1.1 200 OK\r\nA: b\r\n\r\n{\"status\":\"ready\"}", ready("", None)),
            (
                "HTTP/1.1 200 OK\r\n\r\n{\"status\":\"ready\",\"zone\":\"a\",\"admits_per_s\":7}",
                ready("a", Some(7)),
            ),
            ("HTTP/1.1 503 Service Unavailable\r\n\r\n{}", Some(Probed::NotReady)),
            ("HTTP/1.1 404 Not Found\r\n\r\n{}", None),
            ("HTTP/1.1 200 OK\r\n\r\n{\"status\":\"re", None),
            ("HTTP/1.1 200 OK\r\n", None),
            ("", None),
        ] {
            assert_eq!(understood(answer.as_bytes()), read, "{answer}");
        }
    }
}

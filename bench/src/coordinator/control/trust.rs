//! Who may steer whom. Both ends show a certificate of the same private authority, and a certificate says which
//! role it is for, twice: by name and by the use of its key. An agent listens and shows a server's certificate with
//! [`AGENT_ROLE`]; a coordinator connects and shows a client's with [`COORDINATOR_ROLE`]. Neither can stand in for the
//! other, so that the key of one agent gives no power over the rest.

use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::{Resumption, verify_server_name};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, DistinguishedName,
    RootCertStore, ServerConfig, SignatureScheme,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Name in every coordinator's certificate.
pub const COORDINATOR_ROLE: &str = "ringline-bench-coordinator";
/// Name in every agent's certificate, and a relay's.
pub const AGENT_ROLE: &str = "ringline-bench-agent";

/// The second name in an agent's certificate: who it is, under a suffix that keeps it apart from roles.
pub fn agent_own_name(name: &str) -> String {
    format!("{name}.agents.ringline-bench")
}

/// Files of an identity, PEM.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TrustFiles {
    /// The authority's certificate.
    pub authority: PathBuf,
    /// The own certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Certificates that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {detail}")]
pub struct TrustError {
    /// Which file.
    pub file: PathBuf,
    /// What is wrong.
    pub detail: String,
}

/// What an agent needs to let coordinators in.
pub fn agent_config(files: &TrustFiles) -> Result<Arc<ServerConfig>, TrustError> {
    let read = Read::new(files)?;
    let unfit = |error: rustls::Error| wrong(&files.cert, error);
    let certificates = WebPkiClientVerifier::builder_with_provider(read.roots, Arc::clone(&read.provider))
        .build()
        .map_err(|error| wrong(&files.authority, error))?;
    let role = role_name(COORDINATOR_ROLE);
    let mut config = ServerConfig::builder_with_provider(read.provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(unfit)?
        .with_client_cert_verifier(Arc::new(RoleVerifier { certificates, role }))
        .with_single_cert(read.chain, read.key)
        .map_err(unfit)?;
    // A coordinator proves itself anew each time.
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// What a coordinator needs to reach agents.
#[derive(Clone, Debug)]
pub struct CoordinatorTrust(Arc<ClientConfig>);

impl CoordinatorTrust {
    /// Reads the files.
    pub fn read(files: &TrustFiles) -> Result<Self, TrustError> {
        let read = Read::new(files)?;
        let unfit = |error: rustls::Error| wrong(&files.cert, error);
        let mut config = ClientConfig::builder_with_provider(read.provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(unfit)?
            .with_root_certificates(read.roots)
            .with_client_auth_cert(read.chain, read.key)
            .map_err(unfit)?;
        config.resumption = Resumption::disabled();
        Ok(Self(Arc::new(config)))
    }

    /// A session in which only an agent is accepted.
    pub fn session(&self) -> Result<ClientConnection, rustls::Error> {
        ClientConnection::new(Arc::clone(&self.0), role_name(AGENT_ROLE))
    }
}

/// Whether the agent's certificate is that of this very agent.
pub fn check_own_name(certificate: &CertificateDer<'_>, name: &str) -> Result<(), rustls::Error> {
    let expected = ServerName::try_from(agent_own_name(name))
        .map_err(|_| rustls::Error::General(format!("{name} cannot be an agent's name")))?;
    verify_server_name(&ParsedCertificate::try_from(certificate)?, &expected)
}

fn role_name(role: &'static str) -> ServerName<'static> {
    ServerName::try_from(role).expect("a role is a DNS name")
}

fn wrong(file: &Path, detail: impl ToString) -> TrustError {
    TrustError { file: file.to_owned(), detail: detail.to_string() }
}

struct Read {
    provider: Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Read {
    fn new(files: &TrustFiles) -> Result<Self, TrustError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&files.authority)? {
            roots.add(certificate).map_err(|error| wrong(&files.authority, error))?;
        }
        let chain = certificates(&files.cert)?;
        let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| wrong(&files.key, error))?;
        Ok(Self { provider: Arc::new(aws_lc_rs::default_provider()), roots: Arc::new(roots), chain, key })
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let read = CertificateDer::pem_file_iter(file).and_then(|found| found.collect::<Result<Vec<_>, _>>());
    let certificates = read.map_err(|error| wrong(file, error))?;
    if certificates.is_empty() { Err(wrong(file, "holds no certificate")) } else { Ok(certificates) }
}

/// Lets in certificates of the authority that carry the role's name. rustls itself checks no name of a client.
#[derive(Debug)]
struct RoleVerifier {
    certificates: Arc<dyn ClientCertVerifier>,
    role: ServerName<'static>,
}

impl ClientCertVerifier for RoleVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.certificates.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.certificates.verify_client_cert(end_entity, intermediates, now)?;
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, &self.role)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.certificates.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.certificates.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.certificates.supported_verify_schemes()
    }
}

/// Why a peer was not let in: a key in counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Refusal {
    /// It showed no certificate.
    NoCertificate,
    /// Its certificate is of another authority.
    ForeignAuthority,
    /// Its certificate is no longer, or not yet, valid.
    Expired,
    /// Its certificate is for another role.
    WrongRole,
    /// It speaks no TLS 1.3, or broke off.
    Handshake,
    /// It took too long.
    TimedOut,
    /// Too many others were proving themselves at the time.
    TooMany,
    /// Another coordinator is served.
    Busy,
}

impl Refusal {
    /// What a failed handshake was refused for.
    pub fn of(error: &rustls::Error) -> Self {
        use CertificateError as Certificate;
        match error {
            rustls::Error::NoCertificatesPresented => Self::NoCertificate,
            rustls::Error::InvalidCertificate(certificate) => match certificate {
                Certificate::UnknownIssuer | Certificate::BadSignature => Self::ForeignAuthority,
                Certificate::Expired
                | Certificate::ExpiredContext { .. }
                | Certificate::NotValidYet
                | Certificate::NotValidYetContext { .. } => Self::Expired,
                Certificate::NotValidForName
                | Certificate::NotValidForNameContext { .. }
                | Certificate::InvalidPurpose
                | Certificate::InvalidPurposeContext { .. } => Self::WrongRole,
                _ => Self::Handshake,
            },
            _ => Self::Handshake,
        }
    }
}

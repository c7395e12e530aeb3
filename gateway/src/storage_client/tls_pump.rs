//! The client side of a link's TLS: plaintext and ciphertext in and out, no socket.

use crate::config::NodesConfig;
use crate::config::certificate::{self, CertificateError};
use bytes::BytesMut;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use rustls_pki_types::ServerName;
use std::io::{Read, Write};
use std::sync::Arc;

/// Plaintext handed to TLS at a time, in bytes: sixteen full records.
const PLAINTEXT_BYTES_MAX: usize = 256 * 1024;

/// What every link of this process authenticates with.
#[derive(Clone)]
pub(super) struct LinkIdentity {
    config: Arc<ClientConfig>,
    server_name: ServerName<'static>,
}

/// Why links cannot authenticate.
#[derive(Debug, thiserror::Error)]
pub enum LinkIdentityError {
    /// A file of the configuration.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The certificates do not fit.
    #[error("storage certificates: {0}")]
    Tls(#[from] rustls::Error),
    /// The name is no DNS name and no address.
    #[error("storage.server_name: {0:?} is no name")]
    ServerName(String),
}

impl LinkIdentity {
    pub(super) fn new(nodes: &NodesConfig) -> Result<Self, LinkIdentityError> {
        let mut roots = RootCertStore::empty();
        for authority in certificate::read_chain(&nodes.ca)? {
            roots.add(authority)?;
        }
        let identity = certificate::read(&nodes.cert, &nodes.key)?;
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_client_auth_cert(identity.chain, identity.key)?;
        let server_name = ServerName::try_from(nodes.server_name.clone())
            .map_err(|_| LinkIdentityError::ServerName(nodes.server_name.clone()))?;
        Ok(Self { config: Arc::new(config), server_name })
    }
}

/// One connection's TLS.
pub(super) struct TlsPump {
    connection: ClientConnection,
}

impl TlsPump {
    pub(super) fn new(identity: &LinkIdentity) -> Result<Self, rustls::Error> {
        let connection = ClientConnection::new(identity.config.clone(), identity.server_name.clone())?;
        Ok(Self { connection })
    }

    /// Takes ciphertext from the socket, appends the plaintext in it.
    pub(super) fn receive(
        &mut self,
        mut ciphertext: &[u8],
        plaintext: &mut BytesMut,
    ) -> Result<(), rustls::Error> {
        while !ciphertext.is_empty() {
            // Reading from a slice does not fail; a full buffer is emptied by the processing below.
            let taken = self.connection.read_tls(&mut ciphertext).unwrap_or(0);
            let state = self.connection.process_new_packets()?;
            let mut room = vec![0; state.plaintext_bytes_to_read()];
            if !room.is_empty() && self.connection.reader().read_exact(&mut room).is_ok() {
                plaintext.extend_from_slice(&room);
            }
            if taken == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Takes plaintext out of `plaintext`, as much as fits, and gives the ciphertext to send; empty if there is
    /// nothing to send now.
    pub(super) fn send(&mut self, plaintext: &mut BytesMut) -> Vec<u8> {
        if !self.connection.is_handshaking() && !plaintext.is_empty() {
            let some = plaintext.len().min(PLAINTEXT_BYTES_MAX);
            let taken = self.connection.writer().write(&plaintext[..some]).unwrap_or(0);
            drop(plaintext.split_to(taken));
        }
        let mut ciphertext = Vec::new();
        while self.connection.wants_write() {
            self.connection.write_tls(&mut ciphertext).expect("a Vec grows");
        }
        ciphertext
    }
}

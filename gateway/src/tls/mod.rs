//! Ciphertext to plaintext and back.
//!
//! [`TlsSession`] is one connection's TLS without any I/O and, while idle, without any buffer; it alone knows rustls'
//! unbuffered interface, which later versions of rustls no longer have. [`server_config`] says what a gateway
//! speaks, [`tickets`] lets a client of one gateway resume at another. Called by `transport/`; hands on plaintext, and ciphertext that wants to be sent.

mod session;
pub mod tickets;
pub mod secret_file;
#[cfg(test)]
mod tests;

pub use session::{Encrypted, Handshake, Received, TlsFailure, TlsSession, ciphertext_bytes_max};

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{Ticketer, cipher_suite, default_provider};
use rustls::server::{NoServerSessionStorage, ProducesTickets};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::Arc;
use wire_protocol::limits::{ALPN_HTTP, ALPN_NATIVE};

/// Tickets sent after a full handshake. One is enough: a client has one connection, and gets a new ticket with each
/// resumption.
const TICKETS: usize = 1;

/// [`server_config_with`] tickets of a key of this process alone.
pub fn server_config(
    certificates: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<rustls::ServerConfig>, rustls::Error> {
    server_config_with(certificates, key, Ticketer::new()?)
}

/// The TLS configuration of a gateway, shared by its cores: TLS 1.3 only, stateless tickets, no early data, ALPN for
/// the native protocol and for HTTP.
pub fn server_config_with(
    certificates: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    tickets: Arc<dyn ProducesTickets>,
) -> Result<Arc<rustls::ServerConfig>, rustls::Error> {
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(certificates, key)?;
    config.alpn_protocols = vec![ALPN_NATIVE.to_vec(), ALPN_HTTP.to_vec()];
    config.ignore_client_order = true;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = tickets;
    config.send_tls13_tickets = TICKETS;
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

/// AES-128 comes first: the smallest expanded keys to keep for each connection, and the fastest.
fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
        ],
        ..default_provider()
    }
}

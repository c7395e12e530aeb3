//! TLS 1.3 of one client without any I/O and, while idle, without any buffer: the counterpart of the gateway's
//! `tls/`, over the same unbuffered interface of rustls.
//!
//! ```text
//! start -> our hello -> (their flight, ours) -> finished: full or resumed -> traffic
//! ```
//!
//! Tickets belong to a device. rustls asks its session store by server name alone, which would hand one device's
//! ticket to any other; so [`Tickets`] is told whose turn it is before rustls is called. Configuration, store and
//! turn are of one engine, which is of one thread.

use crate::workload::population::DeviceIndex;
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::client::{ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};
use rustls::{ClientConfig, HandshakeKind, NamedGroup, RootCertStore};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Plaintext of one full record, in bytes.
const RECORD_BYTES_MAX: usize = 16 * 1024;
/// What TLS 1.3 adds to a record, in bytes: header 5, type 1, tag 16.
const RECORD_OVERHEAD_BYTES: usize = 22;
/// A key update that may go before application data, in bytes.
const UPDATE_BYTES_MAX: usize = 128;
/// Ciphertext kept while it is no whole record or handshake message, in bytes: a server's flight with a long chain
/// of certificates, which rustls itself limits to 64 KiB.
const REMAINDER_BYTES_MAX: usize = 128 * 1024;
/// First size of the room for handshake records, in bytes: a client's hello.
const FLIGHT_BYTES: usize = 1_024;

/// What cannot be used as a target.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TlsTargetError {
    /// Not a name or address.
    #[error("certificate name {0:?}: neither a host name nor an address")]
    Name(String),
    /// Not certificates.
    #[error("certificates to trust: {0}")]
    Roots(String),
    /// rustls refuses.
    #[error("TLS: {0}")]
    Config(String),
}

/// Whether tickets are kept at all: each takes memory of an idle device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeepTickets {
    /// The newest one of each device.
    Newest,
    /// None.
    None,
}

/// What a client of one target, or of several with one name and authority, needs to know; cheap to clone.
#[derive(Clone)]
pub struct TlsTarget {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    tickets: Arc<Tickets>,
}

impl TlsTarget {
    /// `ca_pem` holds the certificates to trust; `alpn` the one protocol to ask for.
    pub fn new(name: &str, ca_pem: &str, alpn: &[u8], keep: KeepTickets) -> Result<Self, TlsTargetError> {
        let server = ServerName::try_from(name.to_owned());
        let server = server.map_err(|_| TlsTargetError::Name(name.to_owned()))?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
            let certificate = certificate.map_err(|error| TlsTargetError::Roots(error.to_string()))?;
            roots.add(certificate).map_err(|error| TlsTargetError::Roots(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(TlsTargetError::Roots("there are none".into()));
        }
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| TlsTargetError::Config(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![alpn.to_vec()];
        let tickets = Arc::new(Tickets { keep, state: Mutex::default() });
        config.resumption = Resumption::store(Arc::clone(&tickets) as Arc<dyn ClientSessionStore>);
        Ok(Self { config: Arc::new(config), name: server, tickets })
    }

    /// Devices that hold a ticket.
    pub fn ticket_count(&self) -> usize {
        self.tickets.state().tickets.len()
    }
}

/// As gateways order them: AES-128 has the smallest keys to keep for each connection.
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

/// The newest ticket of each device.
struct Tickets {
    keep: KeepTickets,
    state: Mutex<TicketState>,
}

#[derive(Default)]
struct TicketState {
    /// Whose connection rustls is working on; `None`: nobody's, so nothing is given or kept.
    turn: Option<DeviceIndex>,
    /// Boxed, so that a table with room for more costs little.
    tickets: HashMap<DeviceIndex, Box<Tls13ClientSessionValue>>,
    /// The key exchange that the server chose: spares all others a second hello.
    hint: Option<NamedGroup>,
}

impl Tickets {
    /// What a panicking thread left is whole: there is one step to each change.
    fn state(&self) -> MutexGuard<'_, TicketState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Without the tickets: they are secrets.
impl std::fmt::Debug for Tickets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tickets").field("keep", &self.keep).finish_non_exhaustive()
    }
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.state().hint = Some(group);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.state().hint
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        let mut state = self.state();
        if let (Some(device), KeepTickets::Newest) = (state.turn, self.keep) {
            state.tickets.insert(device, Box::new(ticket));
        }
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        let mut state = self.state();
        let device = state.turn?;
        state.tickets.remove(&device).map(|ticket| *ticket)
    }
}

/// How a finished handshake was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Handshake {
    /// With certificate and signature.
    Full,
    /// By a ticket.
    Resumed,
}

/// What [`TlsClient::receive`] found beside plaintext.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Received {
    /// The handshake was finished by these bytes.
    pub finished: Option<Handshake>,
    /// The server sent close_notify: nothing more comes.
    pub peer_closed: bool,
}

/// TLS cannot go on.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum TlsFailure {
    /// The server broke TLS, or we do not trust it, or have nothing in common with it.
    #[error("{0}")]
    Peer(rustls::Error),
    /// A record, or a handshake message, that does not end.
    #[error("an unfinished record of more than {REMAINDER_BYTES_MAX} bytes")]
    Oversized,
    /// Nothing more can be encrypted: closed, failed, or the keys are used up.
    #[error("nothing more can be sent")]
    Unsendable,
}

/// TLS of one connection.
pub struct TlsClient {
    connection: UnbufferedClientConnection,
    tickets: Arc<Tickets>,
    /// The beginning of a record whose end has not come. Unallocated otherwise.
    remainder: Vec<u8>,
    device: DeviceIndex,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Handshaking,
    Traffic,
    /// rustls must not be asked again: after an error its place in the received bytes no longer fits any that we
    /// could give it, and it would panic.
    Failed,
}

impl TlsClient {
    /// Begins, offering the device's ticket if there is one and it may be used. The hello is appended to `out`.
    pub fn start(
        target: &TlsTarget,
        device: DeviceIndex,
        use_ticket: UseTicket,
        out: &mut Vec<u8>,
    ) -> Result<Self, TlsFailure> {
        let offered = (use_ticket == UseTicket::Yes).then_some(device);
        target.tickets.state().turn = offered;
        let connection = UnbufferedClientConnection::new(Arc::clone(&target.config), target.name.clone());
        target.tickets.state().turn = None;
        let mut client = Self {
            connection: connection.map_err(TlsFailure::Peer)?,
            tickets: Arc::clone(&target.tickets),
            remainder: Vec::new(),
            device,
            stage: Stage::Handshaking,
        };
        client.process(&mut [], &mut Vec::new(), out, &mut Received::default())?;
        Ok(client)
    }

    /// Takes received ciphertext, which is decrypted in place, and appends its plaintext, and to `out` what TLS
    /// itself has to say. What is found before a failure counts.
    pub fn receive(
        &mut self,
        ciphertext: &mut [u8],
        plaintext: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<Received, TlsFailure> {
        let mut received = Received::default();
        if self.stage == Stage::Failed {
            return Err(TlsFailure::Unsendable);
        }
        if self.remainder.is_empty() {
            let used = self.process(ciphertext, plaintext, out, &mut received)?;
            let rest = ciphertext.get(used..).unwrap_or_default();
            if !rest.is_empty() {
                self.remainder = rest.to_vec();
            }
        } else {
            let mut whole = std::mem::take(&mut self.remainder);
            whole.extend_from_slice(ciphertext);
            let used = self.process(&mut whole, plaintext, out, &mut received)?;
            if used < whole.len() {
                whole.drain(..used);
                self.remainder = whole;
            }
        }
        if received.peer_closed {
            // Whatever follows a close_notify is no part of the conversation.
            self.remainder = Vec::new();
        }
        if self.remainder.len() > REMAINDER_BYTES_MAX {
            self.stage = Stage::Failed;
            return Err(TlsFailure::Oversized);
        }
        Ok(received)
    }

    /// Appends all of `plaintext` to `out` as records.
    pub fn encrypt(&mut self, plaintext: &[u8], out: &mut Vec<u8>) -> Result<(), TlsFailure> {
        if self.stage == Stage::Failed {
            return Err(TlsFailure::Unsendable);
        }
        loop {
            // rustls keeps its place in unfinished messages as positions in this buffer: it must be the same one.
            match self.connection.process_tls_records(&mut self.remainder).state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    let filled = out.len();
                    out.resize(filled + ciphertext_bytes_max(plaintext.len()), 0);
                    let room = out.get_mut(filled..).unwrap_or_default();
                    let written = traffic.encrypt(plaintext, room).map_err(|_| TlsFailure::Unsendable)?;
                    out.truncate(filled + written);
                    return Ok(());
                }
                Ok(ConnectionState::EncodeTlsData(encode)) => append_records(encode, out),
                Ok(ConnectionState::TransmitTlsData(transmit)) => transmit.done(),
                Ok(ConnectionState::PeerClosed) => {}
                Ok(_) | Err(_) => return Err(TlsFailure::Unsendable),
            }
        }
    }

    /// Lets rustls work through `incoming`; how much of it is done with.
    fn process(
        &mut self,
        incoming: &mut [u8],
        plaintext: &mut Vec<u8>,
        out: &mut Vec<u8>,
        received: &mut Received,
    ) -> Result<usize, TlsFailure> {
        // Tickets come in here.
        self.tickets.state().turn = Some(self.device);
        let result = self.process_records(incoming, plaintext, out, received);
        self.tickets.state().turn = None;
        result
    }

    fn process_records(
        &mut self,
        incoming: &mut [u8],
        plaintext: &mut Vec<u8>,
        out: &mut Vec<u8>,
        received: &mut Received,
    ) -> Result<usize, TlsFailure> {
        let mut used = 0;
        loop {
            // rustls never asks to discard more than it was given.
            let rest = incoming.get_mut(used..).unwrap_or_default();
            let UnbufferedStatus { mut discard, state } = self.connection.process_tls_records(rest);
            let mut waits = false;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(Ok(record)) = traffic.next_record() {
                        discard += record.discard;
                        plaintext.extend_from_slice(record.payload);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(encode)) => append_records(encode, out),
                Ok(ConnectionState::TransmitTlsData(transmit)) => transmit.done(),
                Ok(ConnectionState::PeerClosed) => received.peer_closed = true,
                Ok(ConnectionState::Closed | ConnectionState::BlockedHandshake) => waits = true,
                Ok(ConnectionState::WriteTraffic(_)) => {
                    waits = true;
                    if self.stage == Stage::Handshaking {
                        self.stage = Stage::Traffic;
                        received.finished = Some(match self.connection.handshake_kind() {
                            Some(HandshakeKind::Resumed) => Handshake::Resumed,
                            _ => Handshake::Full,
                        });
                    }
                }
                // Early data is not sent.
                Ok(_) => return Err(TlsFailure::Unsendable),
                Err(error) => {
                    self.stage = Stage::Failed;
                    // There may be an alert to send. `rest` is what it failed on: with anything shorter rustls could
                    // panic.
                    let rest = incoming.get_mut(used..).unwrap_or_default();
                    if let Ok(ConnectionState::EncodeTlsData(encode)) =
                        self.connection.process_tls_records(rest).state
                    {
                        append_records(encode, out);
                    }
                    return Err(TlsFailure::Peer(error));
                }
            }
            used += discard;
            if waits {
                return Ok(used);
            }
        }
    }
}

/// Whether a connection may be resumed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UseTicket {
    /// If there is a ticket.
    Yes,
    /// A full handshake.
    No,
}

/// Ciphertext of `plaintext_bytes`, in bytes, at most.
const fn ciphertext_bytes_max(plaintext_bytes: usize) -> usize {
    let records = plaintext_bytes.div_ceil(RECORD_BYTES_MAX);
    plaintext_bytes + records * RECORD_OVERHEAD_BYTES + UPDATE_BYTES_MAX
}

fn append_records(mut encode: EncodeTlsData<'_, ClientConnectionData>, out: &mut Vec<u8>) {
    let filled = out.len();
    let mut room = FLIGHT_BYTES;
    loop {
        out.resize(filled + room, 0);
        match encode.encode(out.get_mut(filled..).unwrap_or_default()) {
            Ok(written) => return out.truncate(filled + written),
            Err(EncodeError::InsufficientSize(needed)) => room = needed.required_size,
            Err(EncodeError::AlreadyEncoded) => return out.truncate(filled),
        }
    }
}

#[cfg(test)]
mod tests;

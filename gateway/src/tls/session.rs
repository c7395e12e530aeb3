//! One TLS connection: ciphertext in, plaintext out, and the other way round.
//!
//! ```text
//! Greeting --our flight--> Handshaking --finished--> Traffic --our close--> Closed
//!     \________________________\_______________________\__________________\__ any error --> Failed (after an alert)
//! ```

use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus};
use rustls::{HandshakeKind, ServerConfig};
use std::sync::Arc;

/// Plaintext of one full record, in bytes.
const RECORD_BYTES_MAX: usize = 16 * 1024;
/// What TLS 1.3 adds to a record, in bytes: header 5, type 1, tag 16.
const RECORD_OVERHEAD_BYTES: usize = 22;
/// A key update, and an alert, that may go before application data, in bytes.
const UPDATE_BYTES_MAX: usize = 128;
/// Ciphertext kept while it is no whole record, or no whole handshake message, in bytes: a record of the largest
/// size rustls reads (16,384 + 2,048 + 5). No client needs more for its hello, nor for anything later.
const REMAINDER_BYTES_MAX: usize = 18_437;
/// First size of the buffer for handshake records, in bytes; one flight with a usual certificate.
const FLIGHT_BYTES: usize = 2 * 1024;

/// TLS cannot go on. If there is an alert for the peer, it waits in [`TlsSession::outgoing`].
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum TlsFailure {
    /// The peer broke TLS, or we have nothing in common with it.
    #[error("{0}")]
    Peer(rustls::Error),
    /// A record, or a handshake message, that does not end.
    #[error("an unfinished record of more than {REMAINDER_BYTES_MAX} bytes")]
    Oversized,
    /// Nothing more can be encrypted: closed, or the keys are used up.
    #[error("nothing more can be sent")]
    Unsendable,
}

/// How a finished handshake was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Handshake {
    /// With certificate and signature.
    Full,
    /// By a ticket.
    Resumed,
}

/// What [`TlsSession::receive`] found beside plaintext.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Received {
    /// The handshake was finished by these bytes.
    pub finished: Option<Handshake>,
    /// The peer sent close_notify: nothing more comes.
    pub peer_closed: bool,
}

/// TLS of one connection, server side. About 4 KiB while idle, nearly all of it within rustls.
pub struct TlsSession {
    connection: UnbufferedServerConnection,
    /// The beginning of a record whose end has not come. Unallocated otherwise.
    remainder: Vec<u8>,
    /// Ciphertext to be sent before anything is encrypted. Unallocated when empty.
    outgoing: Vec<u8>,
    stage: Stage,
}

/// Where a session is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// Nothing was sent: an alert would go in plain text.
    Greeting,
    /// The rest of the handshake.
    Handshaking,
    Traffic,
    /// We have said that nothing more comes.
    Closed,
    /// rustls must not be asked again: after an error its place in the received bytes no longer fits any that we
    /// could give it, and it would panic.
    Failed,
}

/// Types of records that are no alert and stand before one.
const CHANGE_CIPHER_SPEC: u8 = 0x14;
const HANDSHAKE: u8 = 0x16;
/// A fatal decode_error in plain text, for hellos so broken that rustls gives no alert of its own.
const DECODE_ERROR: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 50];

/// Ciphertext of `plaintext_bytes`, in bytes, at most.
pub const fn ciphertext_bytes_max(plaintext_bytes: usize) -> usize {
    let records = plaintext_bytes.div_ceil(RECORD_BYTES_MAX);
    plaintext_bytes + records * RECORD_OVERHEAD_BYTES + UPDATE_BYTES_MAX
}

/// Plaintext whose ciphertext fits `ciphertext_bytes`.
const fn plaintext_bytes_max(ciphertext_bytes: usize) -> usize {
    let room = ciphertext_bytes.saturating_sub(UPDATE_BYTES_MAX);
    let full = room / (RECORD_BYTES_MAX + RECORD_OVERHEAD_BYTES);
    let rest = room % (RECORD_BYTES_MAX + RECORD_OVERHEAD_BYTES);
    full * RECORD_BYTES_MAX + rest.saturating_sub(RECORD_OVERHEAD_BYTES)
}

const _: () = {
    // A large send buffer carries four full records.
    assert!(plaintext_bytes_max(crate::ring::LARGE_BYTES) >= 4 * RECORD_BYTES_MAX);
    assert!(plaintext_bytes_max(ciphertext_bytes_max(1)) >= 1);
};

impl TlsSession {
    /// A session that waits for a ClientHello.
    pub fn new(config: Arc<ServerConfig>) -> Result<Self, TlsFailure> {
        let connection = UnbufferedServerConnection::new(config).map_err(TlsFailure::Peer)?;
        Ok(Self { connection, remainder: Vec::new(), outgoing: Vec::new(), stage: Stage::Greeting })
    }

    /// Whether the handshake is not finished.
    pub fn is_handshaking(&self) -> bool {
        matches!(self.stage, Stage::Greeting | Stage::Handshaking)
    }

    /// Bytes of buffers it holds: none while idle.
    pub fn buffer_bytes(&self) -> usize {
        self.remainder.capacity() + self.outgoing.capacity()
    }

    /// The protocol agreed upon, once the handshake is finished.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.connection.alpn_protocol()
    }

    /// Takes received ciphertext, which is decrypted in place, and appends its plaintext. What is found before a
    /// failure counts.
    pub fn receive(
        &mut self,
        ciphertext: &mut [u8],
        plaintext: &mut Vec<u8>,
        received: &mut Received,
    ) -> Result<(), TlsFailure> {
        if self.stage == Stage::Failed {
            return Err(TlsFailure::Unsendable);
        }
        if self.remainder.is_empty() {
            let used = self.process(ciphertext, plaintext, received)?;
            let rest = ciphertext.get(used..).unwrap_or_default();
            if !rest.is_empty() {
                self.remainder = rest.to_vec();
            }
        } else {
            let mut whole = std::mem::take(&mut self.remainder);
            whole.extend_from_slice(ciphertext);
            let used = self.process(&mut whole, plaintext, received)?;
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
        Ok(())
    }

    /// Encrypts the front of `plaintext` into full records, as much as `out` has room for; how much that was. The
    /// caller has sent [`Self::outgoing`] before.
    pub fn encrypt(&mut self, plaintext: &[u8], out: &mut [u8]) -> Result<Encrypted, TlsFailure> {
        debug_assert!(self.outgoing.is_empty(), "records leave in the order in which they were encrypted");
        let taken = plaintext.len().min(plaintext_bytes_max(out.len()));
        let ciphertext = self.write(&plaintext[..taken], out)?;
        Ok(Encrypted { plaintext: taken, ciphertext })
    }

    /// Ciphertext that wants to be sent: handshake records, tickets, alerts.
    pub fn outgoing(&self) -> &[u8] {
        &self.outgoing
    }

    /// Counts ciphertext that was taken from the front of [`Self::outgoing`].
    pub fn take_outgoing(&mut self, bytes: usize) {
        if bytes == self.outgoing.len() {
            self.outgoing = Vec::new();
        } else {
            self.outgoing.drain(..bytes);
        }
    }

    /// Appends a close_notify to [`Self::outgoing`]; nothing can be encrypted afterwards.
    pub fn close(&mut self) {
        if matches!(self.stage, Stage::Closed | Stage::Failed) {
            return;
        }
        self.stage = Stage::Closed;
        let mut records = [0u8; 2 * UPDATE_BYTES_MAX];
        let written = loop {
            match self.connection.process_tls_records(&mut self.remainder).state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    break traffic.queue_close_notify(&mut records).unwrap_or(0);
                }
                Ok(ConnectionState::EncodeTlsData(encode)) => append_records(encode, &mut self.outgoing),
                Ok(ConnectionState::TransmitTlsData(transmit)) => transmit.done(),
                Ok(ConnectionState::PeerClosed) => {}
                // Not yet encrypting, or closed already: there is nothing to say.
                _ => break 0,
            }
        };
        self.outgoing.extend_from_slice(records.get(..written).unwrap_or_default());
    }

    /// Lets rustls work through `incoming`; how much of it is done with.
    fn process(
        &mut self,
        incoming: &mut [u8],
        plaintext: &mut Vec<u8>,
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
                Ok(ConnectionState::EncodeTlsData(encode)) => {
                    append_records(encode, &mut self.outgoing);
                    if self.stage == Stage::Greeting {
                        self.stage = Stage::Handshaking;
                    }
                }
                Ok(ConnectionState::TransmitTlsData(transmit)) => transmit.done(),
                Ok(ConnectionState::PeerClosed) => received.peer_closed = true,
                Ok(ConnectionState::Closed | ConnectionState::BlockedHandshake) => waits = true,
                Ok(ConnectionState::WriteTraffic(_)) => {
                    waits = true;
                    if self.is_handshaking() {
                        self.stage = Stage::Traffic;
                        received.finished = Some(match self.connection.handshake_kind() {
                            Some(HandshakeKind::Resumed) => Handshake::Resumed,
                            _ => Handshake::Full,
                        });
                    }
                }
                // Early data is not offered.
                Ok(_) => return Err(TlsFailure::Unsendable),
                Err(error) => {
                    self.fail(incoming.get_mut(used..).unwrap_or_default());
                    return Err(TlsFailure::Peer(error));
                }
            }
            used += discard;
            if waits {
                return Ok(used);
            }
        }
    }

    /// After an error rustls may have an alert to send: behind the beginning of our flight, if it failed in the midst
    /// of that, and then encrypted. `rest` is what it failed on: with anything shorter it could panic, and it is not
    /// asked again once the alert is out.
    fn fail(&mut self, rest: &mut [u8]) {
        let greeting = std::mem::replace(&mut self.stage, Stage::Failed) == Stage::Greeting;
        let mut begun = false;
        while let Ok(ConnectionState::EncodeTlsData(encode)) = self.connection.process_tls_records(rest).state
        {
            let filled = self.outgoing.len();
            append_records(encode, &mut self.outgoing);
            begun = true;
            if !matches!(self.outgoing.get(filled), Some(&(HANDSHAKE | CHANGE_CIPHER_SPEC))) {
                return;
            }
        }
        if greeting && !begun {
            self.outgoing.extend_from_slice(&DECODE_ERROR);
        }
    }

    /// Encrypts all of `plaintext`; bytes written to `out`.
    fn write(&mut self, plaintext: &[u8], out: &mut [u8]) -> Result<usize, TlsFailure> {
        if matches!(self.stage, Stage::Closed | Stage::Failed) {
            return Err(TlsFailure::Unsendable);
        }
        let mut written = 0;
        loop {
            // rustls keeps its place in unfinished messages as positions in this buffer: it must be the same one.
            match self.connection.process_tls_records(&mut self.remainder).state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    let room = out.get_mut(written..).unwrap_or_default();
                    return match traffic.encrypt(plaintext, room) {
                        Ok(bytes) => Ok(written + bytes),
                        Err(EncryptError::InsufficientSize(_) | EncryptError::EncryptExhausted) => {
                            Err(TlsFailure::Unsendable)
                        }
                    };
                }
                Ok(ConnectionState::EncodeTlsData(mut encode)) => {
                    let room = out.get_mut(written..).unwrap_or_default();
                    written += encode.encode(room).map_err(|_| TlsFailure::Unsendable)?;
                }
                Ok(ConnectionState::TransmitTlsData(transmit)) => transmit.done(),
                Ok(ConnectionState::PeerClosed) => {}
                Ok(_) | Err(_) => return Err(TlsFailure::Unsendable),
            }
        }
    }
}

/// What [`TlsSession::encrypt`] did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Encrypted {
    /// Bytes taken from the plaintext.
    pub plaintext: usize,
    /// Bytes written.
    pub ciphertext: usize,
}

fn append_records(mut encode: EncodeTlsData<'_, ServerConnectionData>, outgoing: &mut Vec<u8>) {
    let filled = outgoing.len();
    let mut room = FLIGHT_BYTES;
    loop {
        outgoing.resize(filled + room, 0);
        match encode.encode(&mut outgoing[filled..]) {
            Ok(written) => return outgoing.truncate(filled + written),
            Err(EncodeError::InsufficientSize(needed)) => room = needed.required_size,
            Err(EncodeError::AlreadyEncoded) => return outgoing.truncate(filled),
        }
    }
}

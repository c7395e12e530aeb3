//! A gateway's end of TLS: strangers who say anything, and proper clients whose records change on the way.

use crate::Target;
use crate::input::Input;
use gateway::tls::{Received, TlsFailure, TlsSession, server_config};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig};
use std::io::{Read, Write};
use std::sync::{Arc, OnceLock};
use wire_protocol::limits::ALPN_NATIVE;

/// Bytes that a session may keep while it waits: a largest record, and our flight.
const KEPT_BYTES_MAX: usize = 64 * 1024;
/// Messages of a proper client.
const MESSAGES_MAX: usize = 8;

/// See `holds`.
pub const TLS: Target = Target {
    name: "tls",
    holds: "bytes of strangers give no plaintext however they are cut, changed records give none that was not sent",
    run: tls,
};

fn configurations() -> &'static (Arc<ServerConfig>, Arc<ClientConfig>) {
    static CONFIGURATIONS: OnceLock<(Arc<ServerConfig>, Arc<ClientConfig>)> = OnceLock::new();
    CONFIGURATIONS.get_or_init(|| {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
        let certificate = CertificateDer::from(made.cert.der().to_vec());
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).expect("a root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.alpn_protocols = vec![ALPN_NATIVE.to_vec()];
        (server_config(vec![certificate], key).expect("a configuration"), Arc::new(client))
    })
}

fn session() -> TlsSession {
    TlsSession::new(Arc::clone(&configurations().0)).expect("a session")
}

/// What comes of bytes in these pieces; nothing more after a failure.
fn received<'a>(
    session: &mut TlsSession,
    pieces: impl Iterator<Item = &'a [u8]>,
) -> (Vec<u8>, Option<TlsFailure>) {
    let mut plaintext = Vec::new();
    for piece in pieces {
        let mut received = Received::default();
        if let Err(failure) = session.receive(&mut piece.to_vec(), &mut plaintext, &mut received) {
            assert!(!failure.to_string().is_empty());
            return (plaintext, Some(failure));
        }
        assert!(session.buffer_bytes() <= KEPT_BYTES_MAX);
        if received.peer_closed {
            break;
        }
    }
    (plaintext, None)
}

fn tls(data: &[u8]) {
    let mut input = Input::new(data);
    let (is_stranger, step) = (input.below(2) == 0, 1 + input.below(256));
    if is_stranger { stranger(&mut input, step) } else { proper_client(&mut input, step) }
}

fn stranger(input: &mut Input<'_>, step: usize) {
    let bytes = if input.below(4) == 0 {
        // A hello of a proper client, changed.
        let mut hello = Vec::new();
        client().write_tls(&mut hello).expect("memory does not fail");
        change(&mut hello, input);
        hello
    } else {
        input.rest().to_vec()
    };
    let (mut whole, mut cut) = (session(), session());
    let (plaintext, failure) = received(&mut whole, std::iter::once(&bytes[..]));
    let (of_cut, failure_of_cut) = received(&mut cut, bytes.chunks(step));
    assert!(plaintext.is_empty() && of_cut.is_empty(), "plaintext before any key");
    assert_eq!(failure, failure_of_cut);
    assert!(failure.is_none() || !whole.outgoing().is_empty(), "it hears why");
}

fn client() -> ClientConnection {
    let name = ServerName::try_from("localhost").expect("a name");
    ClientConnection::new(Arc::clone(&configurations().1), name).expect("a client")
}

/// Both talk until the client may send.
fn handshaken() -> (TlsSession, ClientConnection) {
    let (mut server, mut client) = (session(), client());
    while client.is_handshaking() || client.wants_write() {
        let mut flight = Vec::new();
        client.write_tls(&mut flight).expect("memory does not fail");
        server.receive(&mut flight, &mut Vec::new(), &mut Received::default()).expect("a proper client");
        let answer = server.outgoing().to_vec();
        server.take_outgoing(answer.len());
        client.read_tls(&mut &answer[..]).expect("memory does not fail");
        client.process_new_packets().expect("a proper server");
    }
    assert_eq!(server.alpn(), Some(ALPN_NATIVE));
    (server, client)
}

fn proper_client(input: &mut Input<'_>, step: usize) {
    let (mut server, mut client) = handshaken();
    let (mut sent, mut wire) = (Vec::new(), Vec::new());
    for number in 0..1 + input.below(MESSAGES_MAX) {
        let message = vec![number as u8; usize::from(input.byte())];
        client.writer().write_all(&message).expect("there is room");
        sent.extend_from_slice(&message);
        while client.wants_write() {
            client.write_tls(&mut wire).expect("memory does not fail");
        }
    }
    let whole = wire.clone();
    change(&mut wire, input);
    let (plaintext, failure) = received(&mut server, wire.chunks(step));
    assert!(sent.starts_with(&plaintext), "the client never sent this");
    if whole == wire {
        assert_eq!((plaintext, failure), (sent, None));
        answers(&mut server, &mut client);
    }
}

/// The other way, undisturbed.
fn answers(server: &mut TlsSession, client: &mut ClientConnection) {
    let mut out = [0; 1_024];
    let encrypted = server.encrypt(b"an answer", &mut out).expect("it is open");
    client.read_tls(&mut &out[..encrypted.ciphertext]).expect("memory does not fail");
    client.process_new_packets().expect("a proper server");
    let mut answer = [0; 9];
    client.reader().read_exact(&mut answer).expect("it came");
    assert_eq!((&answer, encrypted.plaintext), (b"an answer", 9));
}

/// Bits, records left out, doubled or cut off: wherever the input says.
fn change(bytes: &mut Vec<u8>, input: &mut Input<'_>) {
    for _ in 0..4 {
        if input.is_empty() {
            return;
        }
        let place = (usize::from(input.byte()) << 3 | input.below(8)) % bytes.len().max(1);
        match input.below(4) {
            0 => bytes.truncate(place),
            1 => drop(bytes.drain(place..(place + usize::from(input.byte())).min(bytes.len()))),
            2 => {
                let piece = input.slice().to_vec();
                bytes.splice(place..place, piece);
            }
            _ => {
                let bits = input.byte();
                if let Some(byte) = bytes.get_mut(place) {
                    *byte ^= bits;
                }
            }
        }
    }
}

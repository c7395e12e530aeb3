//! TLS sessions against rustls' own client, and against records no proper client would send.

use super::tickets::tests::{Fixed, secrets};
use super::tickets::{SharedTicketer, TICKET_PERIOD_MS, TicketSecrets};
use super::*;
use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::client::{Resumption, UnbufferedClientConnection};
use rustls::pki_types::ServerName;
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use rustls::{
    ClientConfig, ClientConnection, ConnectionTrafficSecrets, HandshakeKind, RootCertStore, ServerConnection,
};

fn configurations() -> (Arc<rustls::ServerConfig>, Arc<ClientConfig>) {
    let (certificate, key, client) = identity_and_client();
    (server_config(vec![certificate], key).expect("a configuration"), Arc::new(client))
}

fn identity_and_client() -> (CertificateDer<'static>, PrivateKeyDer<'static>, ClientConfig) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let certificate = CertificateDer::from(made.cert.der().to_vec());
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).expect("a root");
    let mut client = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.enable_secret_extraction = true;
    client.alpn_protocols = vec![ALPN_NATIVE.to_vec()];
    (certificate, key, client)
}

/// Runs the client until it waits; what it wants to send.
fn drive(client: &mut UnbufferedClientConnection, mut incoming: Vec<u8>) -> Vec<u8> {
    let mut outgoing = Vec::new();
    loop {
        let UnbufferedStatus { discard, state } = client.process_tls_records(&mut incoming);
        let mut waits = false;
        match state.expect("a proper server") {
            ConnectionState::EncodeTlsData(mut encode) => {
                let mut record = vec![0; 4_096];
                let written = encode.encode(&mut record).expect("room");
                outgoing.extend_from_slice(&record[..written]);
            }
            ConnectionState::TransmitTlsData(transmit) => transmit.done(),
            ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) => waits = true,
            other => panic!("{other:?}"),
        }
        incoming.drain(..discard);
        if waits {
            return outgoing;
        }
    }
}

/// A server after its handshake, and a client that makes its own records.
fn handshaken() -> (TlsSession, Forger) {
    let (server, client) = configurations();
    let mut server = TlsSession::new(server).expect("a session");
    let name = ServerName::try_from("localhost").expect("a name");
    let mut client = UnbufferedClientConnection::new(client, name).expect("a client");
    let mut received = Received::default();
    let mut flight = drive(&mut client, Vec::new());
    while received.finished.is_none() {
        server.receive(&mut flight, &mut Vec::new(), &mut received).expect("a proper client");
        let answer = server.outgoing().to_vec();
        server.take_outgoing(answer.len());
        flight = drive(&mut client, answer);
    }
    assert_eq!(received.finished, Some(Handshake::Full));
    assert_eq!(server.alpn(), Some(ALPN_NATIVE));
    let (secrets, _) = client.dangerous_into_kernel_connection().expect("a finished handshake");
    let (sequence, ConnectionTrafficSecrets::Aes128Gcm { key, iv }) = secrets.tx else {
        panic!("AES-128-GCM comes first")
    };
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, key.as_ref()).expect("a key"));
    let iv: [u8; 12] = iv.as_ref().try_into().expect("12 bytes");
    (server, Forger { key, iv, sequence })
}

/// Makes records of any content and type.
struct Forger {
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
}

const HANDSHAKE: u8 = 22;
const APPLICATION: u8 = 23;
/// An encrypted alert record.
const ALERT_BYTES: usize = 24;

impl Forger {
    fn record(&mut self, content: &[u8], kind: u8) -> Vec<u8> {
        let mut nonce = self.iv;
        let sequence = self.sequence.to_be_bytes();
        nonce[4..].iter_mut().zip(sequence).for_each(|(byte, mask)| *byte ^= mask);
        self.sequence += 1;
        let mut body = [content, &[kind]].concat();
        let length = (body.len() + 16) as u16;
        let header = [APPLICATION, 3, 3, (length >> 8) as u8, length as u8];
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.key.seal_in_place_append_tag(nonce, Aad::from(header), &mut body).expect("sealed");
        [&header[..], &body].concat()
    }
}

fn receive(server: &mut TlsSession, record: &[u8]) -> Result<Vec<u8>, TlsFailure> {
    let mut plaintext = Vec::new();
    server.receive(&mut record.to_vec(), &mut plaintext, &mut Received::default())?;
    Ok(plaintext)
}

fn encrypt(server: &mut TlsSession, plaintext: &[u8]) -> Result<Encrypted, TlsFailure> {
    server.encrypt(plaintext, &mut [0; 4_096])
}

#[test]
fn records_are_decrypted_however_they_are_cut() {
    let (mut server, mut client) = handshaken();
    let stream = [client.record(b"hello", APPLICATION), client.record(b" world", APPLICATION)].concat();
    let mut plaintext = Vec::new();
    for byte in stream {
        plaintext.extend(receive(&mut server, &[byte]).expect("proper records"));
    }
    assert_eq!(plaintext, b"hello world");
    assert_eq!(server.buffer_bytes(), 0, "nothing is kept while idle");
}

#[test]
fn sending_in_the_middle_of_a_fragmented_key_update_does_no_harm() {
    let (mut server, mut client) = handshaken();
    // update_requested, in two records; what the server sends meanwhile must not confuse its place.
    let (first, second) = (client.record(&[24, 0, 0], HANDSHAKE), client.record(&[1, 1], HANDSHAKE));
    assert_eq!(receive(&mut server, &first), Ok(Vec::new()));
    assert!(encrypt(&mut server, b"between").is_ok());
    assert_eq!(receive(&mut server, &second[..3]), Ok(Vec::new()));
    assert!(encrypt(&mut server, b"between").is_ok());
    assert_eq!(receive(&mut server, &second[3..]), Ok(Vec::new()));
    // The answer to the update leaves before the next data: 5 + 5 + 1 + 16 bytes more.
    let sent = encrypt(&mut server, b"after").expect("new keys");
    assert_eq!(sent.ciphertext, (5 + 22) + (5 + 22));
    // The client's old keys are of no use any more.
    let stale = client.record(b"old", APPLICATION);
    assert!(matches!(receive(&mut server, &stale), Err(TlsFailure::Peer(_))));
}

#[test]
fn closing_in_the_middle_of_a_fragmented_message_does_no_harm() {
    let (mut server, mut client) = handshaken();
    let first = client.record(&[24, 0, 0], HANDSHAKE);
    assert_eq!(receive(&mut server, &first), Ok(Vec::new()));
    server.close();
    assert_eq!(server.outgoing().len(), ALERT_BYTES);
    assert!(encrypt(&mut server, b"more").is_err());
}

#[test]
fn impossible_records_fail_for_good() {
    let oversized = vec![0; (1 << 14) + 1];
    let broken: [(&[u8], u8); 4] =
        [(&[1, 0, 0, 0], HANDSHAKE), (b"", 0), (b"x", 99), (&oversized, APPLICATION)];
    for (content, kind) in broken {
        let (mut server, mut client) = handshaken();
        let record = client.record(content, kind);
        assert!(matches!(receive(&mut server, &record), Err(TlsFailure::Peer(_))), "type {kind}");
        // rustls has an alert for most of them, not for all.
        let told = server.outgoing().len();
        assert!(told == 0 || told == ALERT_BYTES, "type {kind}: {told} bytes");
        let proper = client.record(b"again", APPLICATION);
        assert_eq!(receive(&mut server, &proper), Err(TlsFailure::Unsendable));
        assert!(encrypt(&mut server, b"more").is_err());
        server.close();
        assert_eq!(server.outgoing().len(), told, "nothing follows it");
    }
}

#[test]
fn a_message_that_does_not_end_is_not_kept_for_ever() {
    let (mut server, mut client) = handshaken();
    // A key update that says it has 65,535 bytes, in many records.
    let mut outcome = receive(&mut server, &client.record(&[24, 0, 0xff, 0xff], HANDSHAKE));
    let mut records = 1;
    while outcome.is_ok() {
        outcome = receive(&mut server, &client.record(&[0; 1_000], HANDSHAKE));
        records += 1;
        assert!(records < 30, "about 18 KiB are kept at most");
    }
    assert!(encrypt(&mut server, b"more").is_err());
}

#[test]
fn a_hello_may_come_in_several_records_but_not_for_ever() {
    let (server, client) = configurations();
    let name = ServerName::try_from("localhost").expect("a name");
    let mut client = UnbufferedClientConnection::new(client, name).expect("a client");
    let hello = drive(&mut client, Vec::new());
    let mut server_session = TlsSession::new(server.clone()).expect("a session");
    for chunk in hello[5..].chunks(50) {
        let record = [&[HANDSHAKE, 3, 1, 0, chunk.len() as u8][..], chunk].concat();
        assert_eq!(receive(&mut server_session, &record), Ok(Vec::new()));
    }
    assert!(server_session.outgoing().len() > 500, "our flight");

    let mut endless = TlsSession::new(server).expect("a session");
    let mut outcome = receive(&mut endless, &[HANDSHAKE, 3, 1, 0, 4, 1, 0, 0xff, 0xf0]);
    let record = [&[HANDSHAKE, 3, 1, 0x10, 0][..], &[0; 4_096]].concat();
    for _ in 0..10 {
        if outcome.is_err() {
            break;
        }
        outcome = receive(&mut endless, &record);
    }
    assert!(outcome.is_err());
}

#[test]
fn ciphertext_always_fits_the_room_asked_for() {
    let (mut server, _) = handshaken();
    let plaintext = vec![1; 70_000];
    for bytes in [1, 100, 16_384, 16_385, 32_768, 65_536, 70_000] {
        let mut room = vec![0; ciphertext_bytes_max(bytes)];
        let sent = server.encrypt(&plaintext[..bytes], &mut room).expect("room");
        assert_eq!(sent.plaintext, bytes);
        assert_eq!(sent.ciphertext, bytes + bytes.div_ceil(16_384) * 22);
    }
    // With less room, less is taken, in full records.
    let sent = server.encrypt(&plaintext, &mut vec![0; 40_000]).expect("room");
    assert!(sent.plaintext > 39_000 && sent.ciphertext <= 40_000);
}

/// A handshake in memory with a client that keeps tickets; its kind as the client sees it.
fn meet(server: &Arc<rustls::ServerConfig>, client: &Arc<ClientConfig>) -> HandshakeKind {
    let name = ServerName::try_from("localhost").expect("a name");
    let mut client = ClientConnection::new(client.clone(), name).expect("a client");
    let mut server = ServerConnection::new(server.clone()).expect("a server");
    let mut wire = Vec::new();
    // The last flight brings the ticket.
    for _ in 0..4 {
        while client.wants_write() {
            client.write_tls(&mut wire).expect("memory");
        }
        let flight = std::mem::take(&mut wire);
        let mut rest = flight.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).expect("memory");
            server.process_new_packets().expect("a handshake");
        }
        while server.wants_write() {
            server.write_tls(&mut wire).expect("memory");
        }
        let flight = std::mem::take(&mut wire);
        let mut rest = flight.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).expect("memory");
            client.process_new_packets().expect("a handshake");
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    client.handshake_kind().expect("it is over")
}

#[test]
fn a_ticket_of_one_gateway_resumes_at_another_until_it_is_two_periods_old() {
    let (certificate, key, client) = identity_and_client();
    let gateway = |secrets: &Arc<TicketSecrets>, now_ms: u64| {
        let tickets = Arc::new(SharedTicketer(Fixed(secrets.clone(), now_ms)));
        server_config_with(vec![certificate.clone()], key.clone_key(), tickets).expect("a configuration")
    };
    let now_ms = 1_800_000_000_000;
    let ours = secrets(&["a"]);
    let meet_both = |later: &Arc<rustls::ServerConfig>| {
        // A client of its own, so that it has the first gateway's ticket and no other.
        let mut client = client.clone();
        client.resumption = Resumption::in_memory_sessions(4);
        let client = Arc::new(client);
        assert_eq!(meet(&gateway(&ours, now_ms), &client), HandshakeKind::Full);
        meet(later, &client)
    };
    assert_eq!(meet_both(&gateway(&ours, now_ms)), HandshakeKind::Resumed);
    assert_eq!(meet_both(&gateway(&ours, now_ms + TICKET_PERIOD_MS)), HandshakeKind::Resumed);
    assert_eq!(meet_both(&gateway(&ours, now_ms + 2 * TICKET_PERIOD_MS)), HandshakeKind::Full);
    assert_eq!(meet_both(&gateway(&secrets(&["b"]), now_ms)), HandshakeKind::Full);
    assert_eq!(meet_both(&gateway(&secrets(&["b", "a"]), now_ms)), HandshakeKind::Resumed);
}

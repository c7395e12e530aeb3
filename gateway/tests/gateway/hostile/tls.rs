//! TLS as it should not be spoken.

use super::{assert_serves, half_close, raw, read_to_end};
use crate::client::{secured, tls_config};
use crate::server::{Account, Server};
use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use bytes::BytesMut;
use prost::Message;
use rustls::{ClientConnection, ConnectionTrafficSecrets};
use rustls_pki_types::ServerName;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use wire_protocol::frame::{FrameDecoder, encode_frame, encode_message};
use wire_protocol::limits::FRAME_BYTES_MAX;
use wire_protocol::session::{ClientSession, Proof};
use wire_protocol::v1::{self, client_frame, server_frame};

/// Types of records.
const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION: u8 = 23;
/// Bytes of a record before its content, and of the tag behind it.
const HEADER_BYTES: usize = 5;
const TAG_BYTES: usize = 16;
/// Level of an alert that ends the connection.
const FATAL: u8 = 2;
/// What an alert says.
const UNEXPECTED_MESSAGE: u8 = 10;
const BAD_RECORD_MAC: u8 = 20;

/// One direction of a connection: its keys, and the number of the next record.
struct Direction {
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
}

impl Direction {
    fn new((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> Self {
        let ConnectionTrafficSecrets::Aes128Gcm { key, iv } = secrets else {
            panic!("AES-128-GCM comes first")
        };
        let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, key.as_ref()).expect("a key"));
        Self { key, iv: iv.as_ref().try_into().expect("12 bytes"), sequence }
    }

    fn nonce(&mut self) -> Nonce {
        let mut nonce = self.iv;
        let sequence = self.sequence.to_be_bytes();
        nonce[4..].iter_mut().zip(sequence).for_each(|(byte, mask)| *byte ^= mask);
        self.sequence += 1;
        Nonce::assume_unique_for_key(nonce)
    }

    /// A record with this content, of this type.
    fn seal(&mut self, content: &[u8], kind: u8) -> Vec<u8> {
        let mut body = [content, &[kind]].concat();
        let [high, low] = ((body.len() + TAG_BYTES) as u16).to_be_bytes();
        let header = [APPLICATION, 3, 3, high, low];
        let nonce = self.nonce();
        self.key.seal_in_place_append_tag(nonce, Aad::from(header), &mut body).expect("sealed");
        [&header[..], &body].concat()
    }

    /// Content and type of a record.
    fn open(&mut self, record: &[u8]) -> (Vec<u8>, u8) {
        let (header, body) = record.split_at(HEADER_BYTES);
        let mut body = body.to_vec();
        let nonce = self.nonce();
        let content = self.key.open_in_place(nonce, Aad::from(header), &mut body).expect("the server's");
        let (kind, content) = content.split_last().expect("a type");
        (content.to_vec(), *kind)
    }
}

/// A session that is ready, whose client makes records of any type and content.
struct Forger {
    stream: TcpStream,
    ours: Direction,
    servers: Direction,
}

impl Forger {
    fn new(server: &Server, account: &Account) -> Self {
        let mut config = tls_config(server);
        config.enable_secret_extraction = true;
        let mut session = secured(config, raw(server.tls));
        let (mut hello, mut framed) = (BytesMut::new(), BytesMut::new());
        let proof = Proof::AccessToken(account.access_token.clone());
        ClientSession::new(0).hello(proof, 0, "forger", &mut hello);
        encode_frame(&hello, &mut framed);
        session.write_all(&framed).expect("sent");
        // With ready everything that the server has to say was read, its ticket included.
        let mut decoder = FrameDecoder::new(FRAME_BYTES_MAX);
        let payload = loop {
            if let Some(payload) = decoder.next_frame().expect("framed") {
                break payload;
            }
            let mut buffer = [0; 4_096];
            let bytes = session.read(&mut buffer).expect("an answer");
            assert!(bytes > 0, "the server closed");
            decoder.push(&buffer[..bytes]);
        };
        let frame = v1::ServerFrame::decode(payload).expect("a frame");
        assert!(matches!(frame.body, Some(server_frame::Body::Ready(_))), "{frame:?}");
        let (connection, stream) = session.into_parts();
        let secrets = connection.dangerous_extract_secrets().expect("a finished handshake");
        let mut forger =
            Self { stream, ours: Direction::new(secrets.tx), servers: Direction::new(secrets.rx) };
        forger.assert_answered();
        forger
    }

    /// What it makes is taken for a client's records, and it can read the server's.
    fn assert_answered(&mut self) {
        let ping = v1::ClientFrame { request_id: 7, body: Some(client_frame::Body::Ping(v1::Ping {})) };
        let mut framed = BytesMut::new();
        encode_message(&ping, &mut framed);
        let record = self.ours.seal(&framed, APPLICATION);
        self.stream.write_all(&record).expect("sent");
        let (content, kind) = self.next_record();
        assert_eq!(kind, APPLICATION);
        let answer = v1::ServerFrame::decode_length_delimited(&content[..]).expect("a frame");
        assert!(matches!(answer.body, Some(server_frame::Body::Pong(_))), "{answer:?}");
    }

    fn next_record(&mut self) -> (Vec<u8>, u8) {
        let mut record = vec![0; HEADER_BYTES];
        self.stream.read_exact(&mut record).expect("a record before the end");
        let body_bytes = u16::from_be_bytes([record[3], record[4]]);
        record.resize(HEADER_BYTES + usize::from(body_bytes), 0);
        self.stream.read_exact(&mut record[HEADER_BYTES..]).expect("a whole record");
        self.servers.open(&record)
    }

    /// Sends these bytes; level and meaning of the alert that is all the server says to them before it closes.
    fn alert_for(&mut self, bytes: &[u8]) -> (u8, u8) {
        self.stream.write_all(bytes).expect("sent");
        let (content, kind) = self.next_record();
        assert_eq!((kind, content.len()), (ALERT, 2), "{content:02x?}");
        assert_eq!(read_to_end(&mut self.stream), b"", "nothing follows an alert");
        (content[0], content[1])
    }
}

/// The record with which a proper client begins.
fn client_hello(server: &Server) -> Vec<u8> {
    let name = ServerName::try_from("localhost").expect("a name");
    let mut client = ClientConnection::new(Arc::new(tls_config(server)), name).expect("a connection");
    let mut record = Vec::new();
    client.write_tls(&mut record).expect("memory");
    let body_bytes = u16::from_be_bytes([record[3], record[4]]);
    assert_eq!(record.len(), HEADER_BYTES + usize::from(body_bytes), "one record");
    record
}

/// A ClientHello of TLS 1.2 or older, as its clients sent it: no supported_versions.
fn old_hello(version: [u8; 2]) -> Vec<u8> {
    let mut body = version.to_vec();
    body.extend([7; 32]);
    body.push(0);
    body.extend([0, 8, 0xc0, 0x2f, 0xc0, 0x30, 0xc0, 0x2b, 0x00, 0x9c]);
    body.extend([1, 0]);
    let groups = [0, 10, 0, 6, 0, 4, 0, 29, 0, 23];
    let signatures = [0, 13, 0, 8, 0, 6, 4, 3, 8, 4, 4, 1];
    let renegotiation = [0xff, 1, 0, 1, 0];
    let extensions = [&groups[..], &signatures, &renegotiation].concat();
    body.extend((extensions.len() as u16).to_be_bytes());
    body.extend(extensions);
    let handshake = [&[1, 0][..], &(body.len() as u16).to_be_bytes(), &body].concat();
    [&[0x16, 3, 1][..], &(handshake.len() as u16).to_be_bytes(), &handshake].concat()
}

#[test]
fn nothing_older_than_tls_1_3_is_spoken() {
    let server = Server::embedded();
    let ada = server.register("ada");
    for version in [[3, 3], [3, 2], [3, 1]] {
        let mut stream = raw(server.tls);
        stream.write_all(&old_hello(version)).expect("sent");
        let answer = read_to_end(&mut stream);
        // An alert, fatal, protocol_version; and nothing of a handshake before it.
        assert_eq!(answer.get(..1), Some(&[0x15][..]), "{answer:02x?}");
        assert_eq!(answer.get(5..), Some(&[2, 70][..]), "{answer:02x?}");
    }
    // SSL 2's hello, plain HTTP, garbage, records of impossible length.
    for bytes in [
        &b"\x80\x2e\x01\x03\x01\0\x15\0\0\0\x10"[..],
        b"GET / HTTP/1.1\r\n\r\n",
        &[0xff; 600],
        &[0x16, 3, 1, 0xff, 0xff, 1],
    ] {
        let mut stream = raw(server.tls);
        stream.write_all(bytes).expect("sent");
        half_close(&stream);
        let answer = read_to_end(&mut stream);
        assert!(answer.is_empty() || answer.starts_with(&[0x15]), "{answer:02x?}");
    }
    assert_serves(&server, &ada);
    server
        .wait_until("failures are counted", || server.metric("ringline_tls_handshakes_failed_total") >= 3.0);
}

#[test]
fn no_handshake_is_begun_or_gone_on_with_in_a_session() {
    let server = Server::embedded();
    let ada = server.register("ada");
    let hello = client_hello(&server);
    let finished = [&[20, 0, 0, 32][..], &[7; 32]].concat();
    let cases: [(&str, &[u8], u8); 6] = [
        ("a client's hello", &hello[HEADER_BYTES..], HANDSHAKE),
        ("a request for one", &[0, 0, 0, 0], HANDSHAKE),
        ("finished", &finished, HANDSHAKE),
        ("the end of early data", &[5, 0, 0, 0], HANDSHAKE),
        ("a message that is none", &[99, 0, 0, 0], HANDSHAKE),
        ("a change of ciphers", &[1], CHANGE_CIPHER_SPEC),
    ];
    for (what, content, kind) in cases {
        let mut forger = Forger::new(&server, &ada);
        let record = forger.ours.seal(content, kind);
        assert_eq!(forger.alert_for(&record), (FATAL, UNEXPECTED_MESSAGE), "{what}");
    }
    assert_serves(&server, &ada);
}

/// Above all no farewell, with which anybody on the way could cut off what comes after it.
#[test]
fn nothing_in_plain_text_is_taken_in_a_session() {
    let server = Server::embedded();
    let ada = server.register("ada");
    let hello = client_hello(&server);
    let cases: [(&str, &[u8]); 4] = [
        ("a client's hello", &hello),
        ("a change of ciphers", &[CHANGE_CIPHER_SPEC, 3, 3, 0, 1, 1]),
        ("a farewell", &[ALERT, 3, 3, 0, 2, 1, 0]),
        ("a ping", &[APPLICATION, 3, 3, 0, 3, 2, 0x32, 0]),
    ];
    for (what, bytes) in cases {
        let (level, meaning) = Forger::new(&server, &ada).alert_for(bytes);
        // Most of them are taken for encrypted, and their tags are wrong.
        let is_meant = [UNEXPECTED_MESSAGE, BAD_RECORD_MAC].contains(&meaning);
        assert!(level == FATAL && is_meant, "{what}: alert {level} {meaning}");
    }
    assert_serves(&server, &ada);
}

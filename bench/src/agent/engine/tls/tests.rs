//! TLS clients against rustls' own server, without sockets.

use super::*;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::NoServerSessionStorage;
use rustls::{ServerConfig, ServerConnection};
use std::io::{Read, Write};

const ALPN: &[u8] = b"test/1";

/// A server's configuration, and a client's that trusts it.
fn ends(keep: KeepTickets) -> (Arc<ServerConfig>, TlsTarget) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a configuration");
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().expect("a ticketer");
    let target = TlsTarget::new("localhost", &made.cert.pem(), ALPN, keep).expect("a target");
    (Arc::new(config), target)
}

/// Both ends, joined by bytes in pieces.
struct Link {
    client: TlsClient,
    server: ServerConnection,
    piece_bytes: usize,
    finished: Option<Handshake>,
    /// What the client got, and what the server got.
    plaintext: Vec<u8>,
    heard: Vec<u8>,
}

impl Link {
    fn open(
        ends: &(Arc<ServerConfig>, TlsTarget),
        device: u32,
        use_ticket: UseTicket,
        piece_bytes: usize,
    ) -> Self {
        let mut out = Vec::new();
        let client = TlsClient::start(&ends.1, DeviceIndex(device), use_ticket, &mut out);
        let mut link = Self {
            client: client.expect("a client"),
            server: ServerConnection::new(Arc::clone(&ends.0)).expect("a server"),
            piece_bytes,
            finished: None,
            plaintext: Vec::new(),
            heard: Vec::new(),
        };
        link.give_server(&out);
        while link.give_client().expect("a proper server") {}
        link
    }

    fn give_server(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            self.server.read_tls(&mut rest).expect("a slice");
            self.server.process_new_packets().expect("a proper client");
            let mut plaintext = [0; 20_000];
            while let Ok(count) = self.server.reader().read(&mut plaintext) {
                self.heard.extend_from_slice(&plaintext[..count]);
            }
        }
    }

    /// Whether there was anything.
    fn give_client(&mut self) -> Result<bool, TlsFailure> {
        let mut bytes = Vec::new();
        while self.server.wants_write() {
            self.server.write_tls(&mut bytes).expect("a Vec grows");
        }
        let mut out = Vec::new();
        for piece in bytes.chunks_mut(self.piece_bytes) {
            let received = self.client.receive(piece, &mut self.plaintext, &mut out)?;
            self.finished = self.finished.or(received.finished);
        }
        self.give_server(&out);
        Ok(!bytes.is_empty())
    }

    fn say(&mut self, text: &[u8]) {
        let mut out = Vec::new();
        self.client.encrypt(text, &mut out).expect("open");
        self.give_server(&out);
    }
}

#[test]
fn records_are_understood_however_they_are_cut() {
    let ends = ends(KeepTickets::None);
    for piece_bytes in [1, 2, 3, 7, 100, 1_000, usize::MAX] {
        let mut link = Link::open(&ends, 1, UseTicket::No, piece_bytes);
        assert_eq!(link.finished, Some(Handshake::Full));
        let long = vec![b'x'; 40_000];
        link.say(&long);
        assert_eq!(link.heard, long);
        link.server.writer().write_all(&long[..20_000]).expect("room");
        link.give_client().expect("records");
        assert_eq!(link.plaintext, long[..20_000]);
        assert_eq!(link.client.remainder.capacity(), 0, "nothing is kept while idle");
    }
}

#[test]
fn a_ticket_is_for_its_own_device_once() {
    let ends = ends(KeepTickets::Newest);
    let open = |device, use_ticket| Link::open(&ends, device, use_ticket, usize::MAX).finished;
    assert_eq!(open(1, UseTicket::Yes), Some(Handshake::Full), "there is none yet");
    assert_eq!(open(2, UseTicket::Yes), Some(Handshake::Full), "another device's is no use");
    assert_eq!(open(1, UseTicket::Yes), Some(Handshake::Resumed));
    assert_eq!(open(1, UseTicket::Yes), Some(Handshake::Resumed), "by the ticket of the resumption");
    assert_eq!(open(1, UseTicket::No), Some(Handshake::Full), "not wanted");
    assert_eq!(open(2, UseTicket::Yes), Some(Handshake::Resumed));
    assert_eq!(ends.1.ticket_count(), 2, "the newest of each");
}

#[test]
fn tickets_are_not_kept_unless_they_are_wanted() {
    let ends = ends(KeepTickets::None);
    for _ in 0..2 {
        let link = Link::open(&ends, 1, UseTicket::Yes, usize::MAX);
        assert_eq!(link.finished, Some(Handshake::Full));
    }
    assert_eq!(ends.1.ticket_count(), 0);
}

#[test]
fn whoever_is_not_trusted_is_refused_for_good() {
    let (server, stranger) = (ends(KeepTickets::None), ends(KeepTickets::None));
    let mut out = Vec::new();
    let mut client =
        TlsClient::start(&stranger.1, DeviceIndex(1), UseTicket::No, &mut out).expect("a client");
    let mut far = ServerConnection::new(server.0).expect("a server");
    far.read_tls(&mut out.as_slice()).expect("a slice");
    far.process_new_packets().expect("a proper hello");
    let mut flight = Vec::new();
    far.write_tls(&mut flight).expect("a Vec grows");
    let (mut plaintext, mut alert) = (Vec::new(), Vec::new());
    let failed = client.receive(&mut flight, &mut plaintext, &mut alert);
    assert!(matches!(failed, Err(TlsFailure::Peer(_))), "{failed:?}");
    assert!(!alert.is_empty(), "the server is told");
    assert_eq!(client.receive(&mut [22, 3, 3], &mut plaintext, &mut alert), Err(TlsFailure::Unsendable));
    assert_eq!(client.encrypt(b"more", &mut alert), Err(TlsFailure::Unsendable));
}

#[test]
fn the_end_is_told_and_nothing_after_it_counts() {
    let mut link = Link::open(&ends(KeepTickets::None), 1, UseTicket::No, usize::MAX);
    link.server.send_close_notify();
    let mut bytes = Vec::new();
    link.server.write_tls(&mut bytes).expect("a Vec grows");
    bytes.extend_from_slice(b"rubbish");
    let received = link.client.receive(&mut bytes, &mut Vec::new(), &mut Vec::new()).expect("an end");
    assert!(received.peer_closed);
    assert_eq!(link.client.remainder.capacity(), 0);
}

#[test]
fn targets_that_cannot_be_are_named() {
    let refused = |name: &str, ca: &str| TlsTarget::new(name, ca, ALPN, KeepTickets::None).err();
    assert_eq!(refused("not a name", ""), Some(TlsTargetError::Name("not a name".into())));
    assert!(matches!(refused("localhost", ""), Some(TlsTargetError::Roots(_))));
}

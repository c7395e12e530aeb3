//! TLS as it should not be spoken.

use super::{assert_serves, half_close, raw, read_to_end};
use crate::server::Server;
use std::io::Write;

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

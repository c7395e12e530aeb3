//! Proofs that were forged, stolen from elsewhere, or are over.

use super::assert_serves;
use crate::client::{Client, Way, id};
use crate::server::{Account, Folder, Server};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};
use wire_protocol::session::Proof;
use wire_protocol::v1::ErrorCode;
use wire_protocol::v1::session_closing::Reason;

/// The parts of a good token: its header and claims.
fn parts(token: &str) -> (Value, Value) {
    let mut parts = token.split('.').map(|part| {
        let json = URL_SAFE_NO_PAD.decode(part).unwrap_or_default();
        serde_json::from_slice(&json).unwrap_or(Value::Null)
    });
    (parts.next().expect("a header"), parts.next().expect("claims"))
}

fn signed(algorithm: Algorithm, kid: &Value, claims: &Value, key: &EncodingKey) -> String {
    let mut header = Header::new(algorithm);
    header.kid = kid.as_str().map(str::to_owned);
    jsonwebtoken::encode(&header, claims, key).expect("it signs anything")
}

fn unsigned(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.", part(header), part(claims))
}

fn changed(claims: &Value, name: &str, value: Value) -> Value {
    let mut claims = claims.clone();
    claims[name] = value;
    claims
}

/// The server's signing key as PEM, and its public half.
fn key_of(server: &Server) -> (Vec<u8>, Vec<u8>) {
    let pem = std::fs::read(server.data().join("signing-key.pem")).expect("the server's key");
    let der = PrivatePkcs8KeyDer::from_pem_slice(&pem).expect("a key");
    let pair = Ed25519KeyPair::from_pkcs8(der.secret_pkcs8_der()).expect("a key");
    (pem, pair.public_key().as_ref().to_vec())
}

#[test]
fn no_forged_token_opens_a_session() {
    let server = Server::embedded();
    let stranger = Server::start(Folder::new(), crate::server::EMBEDDED);
    let (ada, eve) = (server.register("ada"), server.register("eve"));
    let foreign = stranger.register("ada");
    let (pem, public) = key_of(&server);
    let own = EncodingKey::from_ed_pem(&pem).expect("a key");
    let (header, claims) = parts(&ada.access_token);
    let kid = &header["kid"];
    let eves = parts(&eve.access_token).1;
    // What the cases below change is good.
    let good = signed(Algorithm::EdDSA, kid, &claims, &own);
    let opened = Client::hello(&server, Way::NativePlain, Proof::AccessToken(good.clone()));
    assert_eq!(opened.ready.user_id, id(&ada.user_id));

    let (message, signature) = good.rsplit_once('.').expect("three parts");
    let eves_claims = URL_SAFE_NO_PAD.encode(eves.to_string());
    let head = good.split('.').next().expect("a header");
    let confused = |secret: &[u8]| signed(Algorithm::HS256, kid, &claims, &EncodingKey::from_secret(secret));
    let expired = changed(&claims, "exp", json!(1_700_000_000));
    let refused = ErrorCode::ErrorUnauthenticated;
    let cases = [
        ("foreign", foreign.access_token.clone(), refused),
        ("alg none", unsigned(&json!({ "alg": "none", "typ": "JWT", "kid": kid }), &claims), refused),
        ("alg None", unsigned(&json!({ "alg": "NoNe", "kid": kid }), &claims), refused),
        ("signature left out", format!("{message}."), refused),
        ("two parts", message.to_owned(), refused),
        ("another's claims", format!("{head}.{eves_claims}.{signature}"), refused),
        ("public key as secret", confused(&public), refused),
        ("public key in hexadecimal", confused(kid.as_str().unwrap_or_default().as_bytes()), refused),
        ("whole PEM as secret", confused(&pem), refused),
        ("no key named", signed(Algorithm::EdDSA, &Value::Null, &claims, &own), refused),
        ("another key named", signed(Algorithm::EdDSA, &json!("0000000000000000"), &claims, &own), refused),
        ("no user", signed(Algorithm::EdDSA, kid, &changed(&claims, "sub", json!("")), &own), refused),
        (
            "a device of nobody",
            signed(Algorithm::EdDSA, kid, &changed(&claims, "dev", json!("ab".repeat(16))), &own),
            refused,
        ),
        (
            "another's device",
            signed(Algorithm::EdDSA, kid, &changed(&claims, "dev", eves["dev"].clone()), &own),
            refused,
        ),
        (
            "a benchmark's user",
            signed(
                Algorithm::EdDSA,
                kid,
                &changed(&claims, "sub", json!("726c2d62656e63680000000000000007")),
                &own,
            ),
            refused,
        ),
        ("empty", String::new(), refused),
        ("refresh token", ada.refresh_token.clone(), refused),
        ("expired", signed(Algorithm::EdDSA, kid, &expired, &own), ErrorCode::ErrorTokenExpired),
    ];
    for (what, token, code) in cases {
        for way in [Way::NativeTls, Way::WebSocket] {
            let mut client = Client::hello(&server, way, Proof::AccessToken(token.clone()));
            let closing = client.wait_for_end().unwrap_or_else(|| panic!("{what}: no reason"));
            assert_eq!((closing.reason(), closing.code()), (Reason::Unauthenticated, code), "{what} {way:?}");
            assert!(client.ready.user_id.is_empty(), "{what}");
        }
    }
    assert_serves(&server, &ada);
}

#[test]
fn no_forged_resume_token_opens_a_session() {
    let server = Server::embedded();
    let (ada, eve) = (server.register("ada"), server.register("eve"));
    let token = |account: &Account| Client::connect(&server, Way::NativePlain, account).ready.resume_token;
    let (adas, eves) = (token(&ada).to_vec(), token(&eve).to_vec());
    let spliced = [&eves[..17], &adas[17..]].concat();
    let mut cases =
        vec![spliced, Vec::new(), vec![0; adas.len()], adas[1..].to_vec(), [&adas[..], &[0]].concat()];
    // Each byte counts: version, user, device, time, tag.
    for byte in (0..adas.len()).step_by(7) {
        let mut changed = adas.clone();
        changed[byte] ^= 1;
        cases.push(changed);
    }
    for token in cases {
        let mut client = Client::hello(&server, Way::NativePlain, Proof::ResumeToken(token.clone().into()));
        let closing = client.wait_for_end().expect("a reason");
        assert_eq!(closing.reason(), Reason::Unauthenticated, "{token:02x?}");
    }
    assert_serves(&server, &ada);
}

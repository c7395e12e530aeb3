//! Identities without registration: access tokens that the benchmark key signs.
//!
//! A gateway that was given the key's public half accepts such tokens for users whose id begins with
//! [`BENCH_PREFIX`](super::protocol::names::BENCH_PREFIX), and for nobody else. The form is that of
//! `gateway/src/domain/auth/access.rs`.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde::Serialize;
use wire_protocol::ids::{DeviceId, UserId};

/// Seconds that a token stays valid: it is used at once, and clocks of machines differ.
const TOKEN_TTL_S: u64 = 3_600;
/// Bytes of a public key's SHA-256 that name it in a token, as gateways do it.
const KID_BYTES: usize = 8;
/// RFC 8410: what stands before the 32 bytes of an Ed25519 public key in its SubjectPublicKeyInfo.
const ED25519_SPKI_PREFIX: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// RFC 7468: characters of a line.
const PEM_LINE_CHARS: usize = 64;

/// No tokens can be had.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum IdentityError {
    /// The text is something else.
    #[error("benchmark key: an Ed25519 private key is expected, PKCS#8 in PEM")]
    NotAKey,
    /// The system gave no random bytes.
    #[error("benchmark key: no randomness")]
    NoRandomness,
    /// The library did not sign.
    #[error("benchmark key: signing failed: {0}")]
    Unsigned(String),
}

/// A new benchmark key: Ed25519, PKCS#8, PEM. A secret.
pub fn generate_key_pem() -> Result<String, IdentityError> {
    let document =
        Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| IdentityError::NoRandomness)?;
    Ok(pem("PRIVATE KEY", document.as_ref()))
}

fn pem(label: &str, der: &[u8]) -> String {
    let base64 = STANDARD.encode(der);
    let lines: Vec<_> = base64.as_bytes().chunks(PEM_LINE_CHARS).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// Mints access tokens.
pub struct Minter {
    key: EncodingKey,
    header: Header,
    public: Vec<u8>,
}

/// What a token says: RFC 7519 names, times in seconds since 1970.
#[derive(Serialize)]
struct Claims {
    sub: String,
    dev: String,
    iat: u64,
    exp: u64,
}

impl Minter {
    /// From the benchmark key.
    pub fn from_pem(pem: &str) -> Result<Self, IdentityError> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| IdentityError::NotAKey)?;
        let der = der.secret_pkcs8_der();
        let pair = Ed25519KeyPair::from_pkcs8(der).map_err(|_| IdentityError::NotAKey)?;
        let public = pair.public_key().as_ref().to_vec();
        let hash = digest(&SHA256, &public);
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(hash.as_ref().iter().take(KID_BYTES).map(|byte| format!("{byte:02x}")).collect());
        Ok(Self { key: EncodingKey::from_ed_der(der), header, public })
    }

    /// The public half for gateways: SubjectPublicKeyInfo, PEM.
    pub fn public_pem(&self) -> String {
        pem("PUBLIC KEY", &[&ED25519_SPKI_PREFIX, self.public.as_slice()].concat())
    }

    /// An access token for one device, from `now_ms` (since 1970) on.
    pub fn mint(&self, user: UserId, device: DeviceId, now_ms: u64) -> Result<String, IdentityError> {
        let iat = now_ms / 1_000;
        let claims = Claims { sub: user.to_string(), dev: device.to_string(), iat, exp: iat + TOKEN_TTL_S };
        jsonwebtoken::encode(&self.header, &claims, &self.key)
            .map_err(|error| IdentityError::Unsigned(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jsonwebtoken::{DecodingKey, Validation};
    use rustls::pki_types::SubjectPublicKeyInfoDer;
    use serde_json::Value;

    #[test]
    fn tokens_have_the_form_that_gateways_check() {
        let minter = Minter::from_pem(&generate_key_pem().expect("a key")).expect("it is one");
        let token = minter.mint(UserId([7; 16]), DeviceId([9; 16]), 1_700_000_000_999).expect("signed");

        let spki = SubjectPublicKeyInfoDer::from_pem_slice(minter.public_pem().as_bytes()).expect("PEM");
        let public = spki.as_ref().strip_prefix(&ED25519_SPKI_PREFIX).expect("Ed25519");
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.validate_exp = false;
        let read = jsonwebtoken::decode::<Value>(&token, &DecodingKey::from_ed_der(public), &validation);
        let read = read.expect("signed by this key");
        assert_eq!(read.claims["sub"], "07".repeat(16));
        assert_eq!(read.claims["dev"], "09".repeat(16));
        assert_eq!(read.claims["iat"], 1_700_000_000);
        assert_eq!(read.claims["exp"], 1_700_000_000 + TOKEN_TTL_S);
        let hash = digest(&SHA256, public);
        let kid: String = hash.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!((read.header.alg, read.header.kid), (Algorithm::EdDSA, Some(kid)));
    }

    #[test]
    fn other_keys_are_refused_and_no_two_are_alike() {
        assert_eq!(Minter::from_pem("-----BEGIN PRIVATE KEY-----").err(), Some(IdentityError::NotAKey));
        let public = Minter::from_pem(&generate_key_pem().expect("a key")).expect("it is one").public_pem();
        assert_eq!(Minter::from_pem(&public).err(), Some(IdentityError::NotAKey));
        assert_ne!(generate_key_pem(), generate_key_pem());
    }
}

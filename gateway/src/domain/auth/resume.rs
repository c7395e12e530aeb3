//! Resume tokens: what a session gives its client to come back with after a drop.
//!
//! Layout: version of the key (1 byte), user (16), device (16), end in milliseconds since 1970 (8, big-endian),
//! HMAC-SHA256 over all of that (32). Nothing in it is secret; only a gateway of the fleet can make one.

use super::{Identity, TokenRefused};
use aws_lc_rs::hmac;
use bytes::{BufMut, Bytes, BytesMut};
use wire_protocol::ids::{DeviceId, UserId};

const SIGNED_BYTES: usize = 1 + 16 + 16 + 8;
const TAG_BYTES: usize = 32;
/// Length of every resume token, in bytes.
pub const RESUME_TOKEN_BYTES: usize = SIGNED_BYTES + TAG_BYTES;

/// Bytes of a resume key: as many as the tag has.
pub(super) const RESUME_KEY_BYTES: usize = 32;

/// The fleet's keys: the first one signs, all of them verify.
pub(super) struct ResumeKeys {
    signing: VersionedKey,
    others: Vec<VersionedKey>,
}

pub(super) struct VersionedKey {
    pub(super) version: u8,
    key: hmac::Key,
}

impl VersionedKey {
    pub(super) fn new(version: u8, secret: &[u8; RESUME_KEY_BYTES]) -> Self {
        Self { version, key: hmac::Key::new(hmac::HMAC_SHA256, secret) }
    }
}

impl ResumeKeys {
    pub(super) fn new(signing: VersionedKey, others: Vec<VersionedKey>) -> Self {
        Self { signing, others }
    }

    /// A key for another purpose, of which the resume tokens tell nothing, and which tells nothing of theirs.
    pub(super) fn derived_key(&self, purpose: &[u8]) -> hmac::Key {
        // A token is signed over 41 bytes that begin with a version; a purpose is longer, so neither is the other.
        assert!(purpose.len() > SIGNED_BYTES);
        hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&self.signing.key, purpose).as_ref())
    }

    pub(super) fn issue(&self, identity: Identity) -> Bytes {
        let mut token = BytesMut::with_capacity(RESUME_TOKEN_BYTES);
        token.put_u8(self.signing.version);
        token.put_slice(&identity.user.0);
        token.put_slice(&identity.device.0);
        token.put_u64(identity.expires_ms);
        let tag = hmac::sign(&self.signing.key, &token);
        token.put_slice(tag.as_ref());
        assert_eq!(token.len(), RESUME_TOKEN_BYTES);
        token.freeze()
    }

    pub(super) fn check(&self, token: &[u8], now_ms: u64) -> Result<Identity, TokenRefused> {
        let token: &[u8; RESUME_TOKEN_BYTES] = token.try_into().map_err(|_| TokenRefused::Malformed)?;
        let (signed, tag) = token.split_at(SIGNED_BYTES);
        let (version, rest) = signed.split_first().ok_or(TokenRefused::Malformed)?;
        let mut keys = std::iter::once(&self.signing).chain(&self.others);
        let key = keys.find(|key| key.version == *version).ok_or(TokenRefused::KeyUnknown)?;
        // Compares in constant time.
        hmac::verify(&key.key, signed, tag).map_err(|_| TokenRefused::SignatureWrong)?;
        let (user, rest) = rest.split_first_chunk().ok_or(TokenRefused::Malformed)?;
        let (device, expires) = rest.split_first_chunk().ok_or(TokenRefused::Malformed)?;
        let expires_ms = u64::from_be_bytes(expires.try_into().map_err(|_| TokenRefused::Malformed)?);
        if now_ms >= expires_ms {
            return Err(TokenRefused::Expired);
        }
        Ok(Identity { user: UserId(*user), device: DeviceId(*device), expires_ms })
    }
}

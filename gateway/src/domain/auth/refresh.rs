//! Refresh tokens: good for one use, known to the home shard by their hash alone.
//!
//! The next token of a device is computed from the one that is used, under a key that only the fleet has. So a
//! client that never got the answer uses its old token again and gets the same new one, as every request may be
//! repeated safely, until the new one is used; from then on the old one is refused.

use super::TokenRefused;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use std::fmt;
use wire_protocol::ids::{DeviceId, UserId};

/// Random bytes of a refresh token: as many as its hash has, so that guessing is as hard as inverting.
pub const REFRESH_SECRET_BYTES: usize = 32;

/// User, device and secret, in this order, without anything between them.
const TOKEN_BYTES: usize = 16 + 16 + REFRESH_SECRET_BYTES;

/// Proves a device's log in once; using it makes another. Never printed, never stored but as a hash.
#[derive(Clone, PartialEq, Eq)]
pub struct RefreshToken {
    /// The user.
    pub user: UserId,
    /// The device.
    pub device: DeviceId,
    secret: [u8; REFRESH_SECRET_BYTES],
}

impl RefreshToken {
    /// A new token of a device; the secret comes from the system's random source.
    pub fn new(user: UserId, device: DeviceId, secret: [u8; REFRESH_SECRET_BYTES]) -> Self {
        Self { user, device, secret }
    }

    /// From the text a client sent. That it is of a device of ours only its home shard can tell.
    pub fn parse(text: &str) -> Result<Self, TokenRefused> {
        let mut bytes = [0u8; TOKEN_BYTES + 2];
        let length = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).map_err(|_| TokenRefused::Malformed)?;
        let token = bytes.get(..length).ok_or(TokenRefused::Malformed)?;
        let (user, rest) = token.split_first_chunk().ok_or(TokenRefused::Malformed)?;
        let (device, secret) = rest.split_first_chunk().ok_or(TokenRefused::Malformed)?;
        let secret = secret.try_into().map_err(|_| TokenRefused::Malformed)?;
        Ok(Self { user: UserId(*user), device: DeviceId(*device), secret })
    }

    /// The text for the client: base64url.
    pub fn to_text(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.to_token_bytes())
    }

    /// The device's next token, the same one each time.
    pub(super) fn next(&self, key: &hmac::Key) -> Self {
        let tag = hmac::sign(key, &self.to_token_bytes());
        let mut secret = [0u8; REFRESH_SECRET_BYTES];
        assert_eq!(tag.as_ref().len(), secret.len(), "HMAC-SHA256 has as many bytes as a secret");
        secret.copy_from_slice(tag.as_ref());
        Self { secret, ..*self }
    }

    /// What the home shard stores and compares: SHA-256. The secret is random, so a slow hash would add nothing.
    pub fn hash(&self) -> Bytes {
        Bytes::copy_from_slice(digest(&SHA256, &self.to_token_bytes()).as_ref())
    }

    fn to_token_bytes(&self) -> [u8; TOKEN_BYTES] {
        let parts = self.user.0.iter().chain(&self.device.0).chain(&self.secret);
        let mut bytes = [0u8; TOKEN_BYTES];
        bytes.iter_mut().zip(parts).for_each(|(to, from)| *to = *from);
        bytes
    }
}

impl fmt::Debug for RefreshToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user, device, secret: _ } = self;
        f.debug_struct("RefreshToken").field("user", user).field("device", device).finish_non_exhaustive()
    }
}

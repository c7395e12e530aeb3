//! Who a session belongs to: access tokens, refresh tokens, resume tokens.
//!
//! Pure: the caller gives the time, and the random part of a refresh token. [`open`] alone touches the disk, once
//! at start, for the keys. [`Issuer`] serves the REST interface (`http/`), [`Verifier`] the sessions of every
//! core; both are immutable snapshots behind an `Arc`, cheap to clone.
//!
//! | token | form | proves | checked |
//! | --- | --- | --- | --- |
//! | access | JWT signed with Ed25519 | a log in or refresh, minutes ago | here, by the public key |
//! | resume | fixed bytes under HMAC-SHA256 | an earlier session of the device | here, by the fleet's key |
//! | refresh | user, device, 32 secret bytes | the device's log in | in the home shard, by its SHA-256 |
//!
//! Removing a device makes its refresh token useless at once; its access and resume tokens are refused by the
//! home shard when a session attaches. What is absent on purpose: a table of sessions or of revoked tokens.

mod access;
mod keys;
mod refresh;
mod resume;
#[cfg(test)]
mod tests;

pub use access::AccessToken;
pub use keys::KeysError;
pub use refresh::{REFRESH_SECRET_BYTES, RefreshToken};
pub use resume::RESUME_TOKEN_BYTES;

use crate::config::AuthConfig;
use access::{AccessSigner, AccessVerifier};
use aws_lc_rs::hmac;
use bytes::Bytes;
use resume::ResumeKeys;
use std::path::Path;
use std::sync::Arc;
use wire_protocol::error::RequestError;
use wire_protocol::ids::{DeviceId, UserId};
use wire_protocol::v1::ErrorCode;

/// Whom a token speaks for, and until when.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The user.
    pub user: UserId,
    /// The device that logged in.
    pub device: DeviceId,
    /// When the token ends, in milliseconds since 1970.
    pub expires_ms: u64,
}

/// Why a token is refused. For logs and tests; the peer learns the wire code and a detail without secrets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TokenRefused {
    /// Longer than any token of ours.
    #[error("token: too long")]
    TooLong,
    /// Not of the form that we issue.
    #[error("token: malformed")]
    Malformed,
    /// Signed by another algorithm than EdDSA, or not at all.
    #[error("token: algorithm is not EdDSA")]
    AlgorithmRefused,
    /// Names a key that we do not have: it was rotated out, or another fleet issued the token.
    #[error("token: key is not known")]
    KeyUnknown,
    /// The signature or its tag is not right.
    #[error("token: signature is wrong")]
    SignatureWrong,
    /// A claim is missing or not what we would have written.
    #[error("token: claim {0} is invalid")]
    ClaimInvalid(&'static str),
    /// It was good once.
    #[error("token: expired")]
    Expired,
}

impl From<TokenRefused> for RequestError {
    fn from(refused: TokenRefused) -> Self {
        let code = match refused {
            TokenRefused::Expired => ErrorCode::ErrorTokenExpired,
            TokenRefused::TooLong
            | TokenRefused::Malformed
            | TokenRefused::AlgorithmRefused
            | TokenRefused::KeyUnknown
            | TokenRefused::SignatureWrong
            | TokenRefused::ClaimInvalid(_) => ErrorCode::ErrorUnauthenticated,
        };
        RequestError::new(code, refused.to_string())
    }
}

/// Opens the keys that the configuration names, or those of the data folder, which are made if missing.
pub fn open(config: &AuthConfig, data_dir: &Path) -> Result<(Issuer, Verifier), KeysError> {
    let signing = match &config.signing_key {
        Some(path) => keys::read_signing_key(path)?,
        None => keys::open_signing_key(&data_dir.join(keys::SIGNING_KEY_FILE))?,
    };
    let retired = config.verifying_keys.iter().map(|path| keys::read_verifying_key(path));
    let verifying =
        std::iter::once(Ok(signing.verifying_key())).chain(retired).collect::<Result<Vec<_>, _>>()?;
    let benchmark = config.benchmark_key.as_ref().map(|path| keys::read_verifying_key(path)).transpose()?;
    if let Some(path) = &config.benchmark_key {
        tracing::warn!(key = %path.display(), "benchmark users are let in by this key");
    }
    let resume = match &config.resume_key {
        Some(path) => keys::read_resume_keys(path)?,
        None => keys::open_resume_keys(&data_dir.join(keys::RESUME_KEY_FILE))?,
    };
    let resume_ttl_ms = config.resume_ttl_s.saturating_mul(1_000);
    let signer = AccessSigner::new(signing, config.token_ttl_s);
    let rotation = resume.derived_key(ROTATION_PURPOSE);
    let issuer = Issuer { inner: Arc::new(IssuerInner { signer, rotation }) };
    let access = AccessVerifier::new(&verifying, benchmark.as_ref());
    let verifier = Verifier {
        inner: Arc::new(VerifierInner {
            access,
            resume,
            resume_ttl_ms,
            admits_benchmarks: benchmark.is_some(),
        }),
    };
    Ok((issuer, verifier))
}

/// Issues access tokens after a log in or a refresh, and the refresh tokens that follow used ones.
#[derive(Clone)]
pub struct Issuer {
    inner: Arc<IssuerInner>,
}

struct IssuerInner {
    signer: AccessSigner,
    rotation: hmac::Key,
}

/// Names the key of [`Issuer::next_refresh`]; changing it voids answers that were lost at that moment.
const ROTATION_PURPOSE: &[u8] = b"ringline: what a used refresh token is followed by";

impl Issuer {
    /// An access token for a device that has just proved itself.
    pub fn issue_access(
        &self,
        user: UserId,
        device: DeviceId,
        now_ms: u64,
    ) -> Result<AccessToken, RequestError> {
        self.inner.signer.issue(user, device, now_ms)
    }

    /// The token that a used one is followed by: the same one for each repeat.
    pub fn next_refresh(&self, used: &RefreshToken) -> RefreshToken {
        used.next(&self.inner.rotation)
    }
}

/// Checks access tokens, issues and checks resume tokens. Needs no storage.
#[derive(Clone)]
pub struct Verifier {
    inner: Arc<VerifierInner>,
}

struct VerifierInner {
    access: AccessVerifier,
    resume: ResumeKeys,
    resume_ttl_ms: u64,
    /// Whether a benchmark's key is configured: without it no token speaks for a benchmark's user.
    admits_benchmarks: bool,
}

impl Verifier {
    /// Whom an access token speaks for: `ERROR_TOKEN_EXPIRED` or `ERROR_UNAUTHENTICATED` otherwise.
    pub fn verify_access(&self, token: &str, now_ms: u64) -> Result<Identity, RequestError> {
        Ok(self.check_access(token, now_ms)?)
    }

    /// A resume token for a session that is ready. It ends the configured time from now.
    pub fn issue_resume(&self, identity: Identity, now_ms: u64) -> Bytes {
        let expires_ms = now_ms.saturating_add(self.inner.resume_ttl_ms);
        self.inner.resume.issue(Identity { expires_ms, ..identity })
    }

    /// Whom a resume token speaks for: `ERROR_TOKEN_EXPIRED` or `ERROR_UNAUTHENTICATED` otherwise.
    pub fn verify_resume(&self, token: &[u8], now_ms: u64) -> Result<Identity, RequestError> {
        Ok(self.check_resume(token, now_ms)?)
    }

    fn check_access(&self, token: &str, now_ms: u64) -> Result<Identity, TokenRefused> {
        self.inner.access.check(token, now_ms)
    }

    fn check_resume(&self, token: &[u8], now_ms: u64) -> Result<Identity, TokenRefused> {
        let identity = self.inner.resume.check(token, now_ms)?;
        if identity.user.is_benchmark() && !self.inner.admits_benchmarks {
            return Err(TokenRefused::ClaimInvalid("sub"));
        }
        Ok(identity)
    }
}

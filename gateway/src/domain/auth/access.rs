//! Access tokens: JWT, EdDSA only, checked against the time the caller gives.

use super::keys::{SigningKey, VerifyingKey};
use super::{Identity, TokenRefused};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use std::fmt;
use wire_protocol::error::RequestError;
use wire_protocol::ids::{DeviceId, UserId};
use wire_protocol::limits::TOKEN_BYTES_MAX;
use wire_protocol::v1::ErrorCode;

/// A signed access token. Whoever holds it is the device until it ends, so it is never printed.
pub struct AccessToken {
    /// The JWT.
    pub text: String,
    /// Seconds it stays valid.
    pub expires_in_s: u64,
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessToken").field("expires_in_s", &self.expires_in_s).finish_non_exhaustive()
    }
}

/// What a token says: RFC 7519 names, times in seconds since 1970.
#[derive(Serialize, Deserialize)]
struct Claims {
    /// The user, 32 hexadecimal characters.
    sub: String,
    /// The device, 32 hexadecimal characters.
    dev: String,
    iat: u64,
    exp: u64,
}

/// The part of a header that decides how the rest is read.
#[derive(Deserialize)]
struct HeaderSeen {
    alg: String,
    #[serde(default)]
    kid: String,
}

pub(super) struct AccessSigner {
    key: SigningKey,
    ttl_s: u64,
}

impl AccessSigner {
    pub(super) fn new(key: SigningKey, ttl_s: u64) -> Self {
        Self { key, ttl_s }
    }

    pub(super) fn issue(
        &self,
        user: UserId,
        device: DeviceId,
        now_ms: u64,
    ) -> Result<AccessToken, RequestError> {
        let iat = now_ms / 1_000;
        let claims = Claims {
            sub: user.to_string(),
            dev: device.to_string(),
            iat,
            exp: iat.saturating_add(self.ttl_s),
        };
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(self.key.kid().to_owned());
        let text = jsonwebtoken::encode(&header, &claims, self.key.encoding_key()).map_err(|error| {
            RequestError::new(ErrorCode::ErrorInternal, format!("signing failed: {error}"))
        })?;
        Ok(AccessToken { text, expires_in_s: self.ttl_s })
    }
}

/// Whose tokens a key may sign.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SpeaksFor {
    People,
    BenchmarkUsers,
}

pub(super) struct AccessVerifier {
    /// By key id; a handful at most, so a search is as quick as a map.
    keys: Vec<(String, DecodingKey, SpeaksFor)>,
    validation: Validation,
}

impl AccessVerifier {
    pub(super) fn new(keys: &[VerifyingKey], benchmark: Option<&VerifyingKey>) -> Self {
        let mut validation = Validation::new(Algorithm::EdDSA);
        // The library would ask the system's clock; `check` compares with the caller's time instead.
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.set_required_spec_claims(&["exp", "sub"]);
        let people = keys.iter().map(|key| (key, SpeaksFor::People));
        let benchmark = benchmark.into_iter().map(|key| (key, SpeaksFor::BenchmarkUsers));
        let keys = people.chain(benchmark);
        let keys = keys.map(|(key, speaks_for)| (key.kid().to_owned(), key.decoding_key(), speaks_for));
        Self { keys: keys.collect(), validation }
    }

    pub(super) fn check(&self, token: &str, now_ms: u64) -> Result<Identity, TokenRefused> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenRefused::TooLong);
        }
        let header = read_header(token)?;
        if header.alg != "EdDSA" {
            return Err(TokenRefused::AlgorithmRefused);
        }
        let (_, key, speaks_for) =
            self.keys.iter().find(|(kid, ..)| *kid == header.kid).ok_or(TokenRefused::KeyUnknown)?;
        let claims = jsonwebtoken::decode::<Claims>(token, key, &self.validation).map_err(refusal)?.claims;
        let user = UserId::from_hex(&claims.sub).ok_or(TokenRefused::ClaimInvalid("sub"))?;
        // Neither kind of key speaks for the other kind of user.
        if user.is_benchmark() != (*speaks_for == SpeaksFor::BenchmarkUsers) {
            return Err(TokenRefused::ClaimInvalid("sub"));
        }
        let device = DeviceId::from_hex(&claims.dev).ok_or(TokenRefused::ClaimInvalid("dev"))?;
        let expires_ms = claims.exp.saturating_mul(1_000);
        if now_ms >= expires_ms {
            return Err(TokenRefused::Expired);
        }
        Ok(Identity { user, device, expires_ms })
    }
}

/// Reads the header before any key is chosen: what it says is only believed once the signature is checked.
fn read_header(token: &str) -> Result<HeaderSeen, TokenRefused> {
    let (header, _) = token.split_once('.').ok_or(TokenRefused::Malformed)?;
    let json = URL_SAFE_NO_PAD.decode(header).map_err(|_| TokenRefused::Malformed)?;
    serde_json::from_slice(&json).map_err(|_| TokenRefused::Malformed)
}

fn refusal(error: jsonwebtoken::errors::Error) -> TokenRefused {
    match error.kind() {
        ErrorKind::InvalidSignature => TokenRefused::SignatureWrong,
        ErrorKind::InvalidAlgorithm => TokenRefused::AlgorithmRefused,
        ErrorKind::MissingRequiredClaim(claim) if claim == "exp" => TokenRefused::ClaimInvalid("exp"),
        ErrorKind::MissingRequiredClaim(_) => TokenRefused::ClaimInvalid("sub"),
        _ => TokenRefused::Malformed,
    }
}

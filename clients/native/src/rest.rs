//! Register, log in, refresh, the list of gateways: JSON over HTTP on the server's one port.

use crate::limits::{REST_BYTES_MAX, REST_MS_MAX};
use crate::model::Identity;
use crate::store::Credentials;
use crate::transport::{ConnectError, Connector};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::http::request::Builder;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use wire_protocol::ids::{DeviceId, UserId};
use wire_protocol::v1::ErrorCode;

/// Why a REST request failed.
#[derive(Debug, thiserror::Error)]
pub enum RestError {
    /// No connection.
    #[error("{0}")]
    Connect(#[from] ConnectError),
    /// The connection broke, or no answer came in time. Whether the request was carried out is unknown.
    #[error("no answer")]
    NoAnswer,
    /// The server refused it.
    #[error("{detail}")]
    Refused {
        /// Its code.
        code: ErrorCode,
        /// Names the culprit.
        detail: String,
        /// Milliseconds to wait before a retry; 0: none named.
        retry_after_ms: u32,
    },
    /// The answer is not what it should be.
    #[error("the server's answer is not understood")]
    NotUnderstood,
}

/// A new account.
#[derive(Serialize)]
pub(crate) struct Registration<'a> {
    pub(crate) username: &'a str,
    pub(crate) display_name: &'a str,
    pub(crate) password: &'a str,
    pub(crate) device_name: &'a str,
}

/// A new device of an account.
#[derive(Serialize)]
pub(crate) struct LogIn<'a> {
    pub(crate) username: &'a str,
    pub(crate) password: &'a str,
    pub(crate) device_name: &'a str,
}

#[derive(Serialize)]
struct Refresh<'a> {
    refresh_token: &'a str,
}

#[derive(Deserialize)]
struct LoggedIn {
    user_id: String,
    device_id: String,
    username: String,
    display_name: String,
    #[serde(flatten)]
    tokens: Tokens,
}

#[derive(Deserialize)]
struct Tokens {
    access_token: String,
    expires_in_s: u64,
    refresh_token: String,
}

#[derive(Deserialize)]
struct Gateways {
    gateways: Vec<String>,
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    code: String,
    #[serde(default)]
    detail: String,
    #[serde(default)]
    retry_after_ms: u32,
}

impl Tokens {
    fn credentials(self, now_ms: u64) -> Credentials {
        Credentials {
            refresh_token: self.refresh_token,
            access_token: self.access_token,
            access_ends_ms: now_ms.saturating_add(self.expires_in_s.saturating_mul(1_000)),
        }
    }
}

/// Makes an account; this device is its first.
pub(crate) async fn register(
    connector: &Connector,
    registration: &Registration<'_>,
    now_ms: u64,
) -> Result<(Identity, Credentials), RestError> {
    logged_in(post(connector, "/v1/register", registration).await?, now_ms)
}

/// Makes this a device of an account.
pub(crate) async fn log_in(
    connector: &Connector,
    log_in: &LogIn<'_>,
    now_ms: u64,
) -> Result<(Identity, Credentials), RestError> {
    logged_in(post(connector, "/v1/login", log_in).await?, now_ms)
}

/// Turns a refresh token into the next one.
pub(crate) async fn refresh(
    connector: &Connector,
    refresh_token: &str,
    now_ms: u64,
) -> Result<Credentials, RestError> {
    let tokens: Tokens = post(connector, "/v1/refresh", &Refresh { refresh_token }).await?;
    Ok(tokens.credentials(now_ms))
}

/// The fleet's gateways, best first for the user of this access token. None: by the configured address.
pub(crate) async fn gateways(connector: &Connector, access_token: &str) -> Result<Vec<String>, RestError> {
    let request = request(connector, Method::GET, "/v1/gateways");
    let request = request.header(AUTHORIZATION, format!("Bearer {access_token}"));
    let answer: Gateways = ask(connector, request, Vec::new()).await?;
    Ok(answer.gateways)
}

fn logged_in(answer: LoggedIn, now_ms: u64) -> Result<(Identity, Credentials), RestError> {
    let user = UserId::from_hex(&answer.user_id).ok_or(RestError::NotUnderstood)?;
    let device = DeviceId::from_hex(&answer.device_id).ok_or(RestError::NotUnderstood)?;
    let LoggedIn { username, display_name, tokens, .. } = answer;
    Ok((Identity { user, device, username, display_name }, tokens.credentials(now_ms)))
}

async fn post<A: for<'de> Deserialize<'de>>(
    connector: &Connector,
    path: &str,
    body: &impl Serialize,
) -> Result<A, RestError> {
    let body = serde_json::to_vec(body).map_err(|_| RestError::NotUnderstood)?;
    let request = request(connector, Method::POST, path).header(CONTENT_TYPE, "application/json");
    ask(connector, request, body).await
}

fn request(connector: &Connector, method: Method, path: &str) -> Builder {
    Request::builder().method(method).uri(path).header(HOST, connector.authority())
}

async fn ask<A: for<'de> Deserialize<'de>>(
    connector: &Connector,
    request: Builder,
    body: Vec<u8>,
) -> Result<A, RestError> {
    let exchange = exchange(connector, request, body);
    let answered = tokio::time::timeout(Duration::from_millis(REST_MS_MAX), exchange).await;
    let (status, body) = answered.map_err(|_| RestError::NoAnswer)??;
    if status.is_success() {
        return serde_json::from_slice(&body).map_err(|_| RestError::NotUnderstood);
    }
    Err(refusal(status, &body))
}

async fn exchange(
    connector: &Connector,
    request: Builder,
    body: Vec<u8>,
) -> Result<(StatusCode, Bytes), RestError> {
    let stream = connector.open_http().await?;
    let opened = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = opened.map_err(|_| RestError::NoAnswer)?;
    let request = request.body(Full::new(Bytes::from(body))).map_err(|_| RestError::NotUnderstood)?;
    let answering = async {
        let answer = sender.send_request(request).await.map_err(|_| RestError::NoAnswer)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), REST_BYTES_MAX).collect().await;
        Ok((status, body.map_err(|_| RestError::NoAnswer)?.to_bytes()))
    };
    // The connection moves only while it is polled; it ends with this request.
    tokio::select! {
        answer = answering => answer,
        _ = async { let _ = connection.await; std::future::pending::<()>().await } => unreachable!("pending"),
    }
}

/// The server's words, or what its status says without them.
fn refusal(status: StatusCode, body: &[u8]) -> RestError {
    let told: Option<Refusal> = serde_json::from_slice(body).ok();
    let told = told.unwrap_or(Refusal { code: String::new(), detail: String::new(), retry_after_ms: 0 });
    let code = ErrorCode::from_str_name(&told.code).unwrap_or(match status {
        StatusCode::UNAUTHORIZED => ErrorCode::ErrorUnauthenticated,
        StatusCode::CONFLICT => ErrorCode::ErrorAlreadyExists,
        StatusCode::TOO_MANY_REQUESTS => ErrorCode::ErrorThrottled,
        status if status.is_client_error() => ErrorCode::ErrorInvalidArgument,
        _ => ErrorCode::ErrorUnavailable,
    });
    let detail = if told.detail.is_empty() { format!("HTTP status {status}") } else { told.detail };
    RestError::Refused { code, detail, retry_after_ms: told.retry_after_ms }
}

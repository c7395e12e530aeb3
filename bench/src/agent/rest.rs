//! Register and log in over HTTP: on the gateway's plain loopback port where there is one, or else over TLS.

use super::connection::{ANSWER_MS_MAX, http};
use super::{AgentError, Target};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::json;
use std::time::Duration;
use wire_protocol::ids::{DeviceId, UserId};
use wire_protocol::session::Proof;

/// One device of one user, with what proves it.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The user.
    pub user: UserId,
    /// This device.
    pub device: DeviceId,
    /// The unique name.
    pub username: String,
    /// For hello.
    pub access_token: String,
    /// For a new access token.
    pub refresh_token: String,
}

impl Identity {
    /// What hello wants.
    pub fn proof(&self) -> Proof {
        Proof::AccessToken(self.access_token.clone())
    }
}

#[derive(Deserialize)]
struct LoggedIn {
    user_id: String,
    device_id: String,
    access_token: String,
    refresh_token: String,
}

/// Longest answer that is read, in bytes: tokens are below 2 KiB each.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// The password of every user that the harness registers.
pub const PASSWORD: &str = "correct horse battery";

/// Registers a user with a first device.
pub async fn register(target: &Target, username: &str) -> Result<Identity, AgentError> {
    let body = json!({
        "username": username, "display_name": username, "password": PASSWORD, "device_name": "first"
    });
    let (status, answer) = call(target, Method::POST, "/v1/register", Some(body.to_string())).await?;
    logged_in(username, status, 201, &answer)
}

/// Logs a further device of a registered user in.
pub async fn log_in(target: &Target, username: &str) -> Result<Identity, AgentError> {
    log_in_with(target, username, PASSWORD, "another").await
}

/// Logs a further device of anybody in.
pub async fn log_in_with(
    target: &Target,
    username: &str,
    password: &str,
    device_name: &str,
) -> Result<Identity, AgentError> {
    let body = json!({ "username": username, "password": password, "device_name": device_name });
    let (status, answer) = call(target, Method::POST, "/v1/login", Some(body.to_string())).await?;
    logged_in(username, status, 200, &answer)
}

/// Makes a new access token.
pub async fn refresh(target: &Target, identity: &mut Identity) -> Result<(), AgentError> {
    #[derive(Deserialize)]
    struct Refreshed {
        access_token: String,
        refresh_token: String,
    }
    let body = json!({ "refresh_token": identity.refresh_token }).to_string();
    let (status, answer) = call(target, Method::POST, "/v1/refresh", Some(body)).await?;
    if status != 200 {
        return Err(refused(status, &answer));
    }
    let refreshed: Refreshed =
        serde_json::from_slice(&answer).map_err(|e| AgentError::Http(e.to_string()))?;
    identity.access_token = refreshed.access_token;
    identity.refresh_token = refreshed.refresh_token;
    Ok(())
}

fn logged_in(username: &str, status: u16, expected: u16, answer: &[u8]) -> Result<Identity, AgentError> {
    if status != expected {
        return Err(refused(status, answer));
    }
    let answer: LoggedIn = serde_json::from_slice(answer).map_err(|e| AgentError::Http(e.to_string()))?;
    let (Some(user), Some(device)) =
        (UserId::from_hex(&answer.user_id), DeviceId::from_hex(&answer.device_id))
    else {
        return Err(AgentError::Http("ids are 32 hexadecimal characters".into()));
    };
    Ok(Identity {
        user,
        device,
        username: username.to_owned(),
        access_token: answer.access_token,
        refresh_token: answer.refresh_token,
    })
}

fn refused(status: u16, answer: &[u8]) -> AgentError {
    AgentError::HttpRefused { status, answer: String::from_utf8_lossy(answer).into_owned() }
}

/// The gateways of users, best first for each, by their access tokens: on one connection.
pub async fn gateways(target: &Target, tokens: &[String]) -> Result<Vec<Vec<String>>, AgentError> {
    let within = Duration::from_millis(ANSWER_MS_MAX);
    let asked = tokio::time::timeout(within, gateways_unbounded(target, tokens));
    asked.await.unwrap_or(Err(AgentError::TimedOut(ANSWER_MS_MAX)))
}

async fn gateways_unbounded(target: &Target, tokens: &[String]) -> Result<Vec<Vec<String>>, AgentError> {
    #[derive(Deserialize)]
    struct Ranked {
        gateways: Vec<String>,
    }
    let failed = |error: hyper::Error| AgentError::Http(error.to_string());
    let (stream, host) = http(target).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let exchange = async {
        let mut lists = Vec::new();
        for token in tokens {
            sender.ready().await.map_err(failed)?;
            let request = Request::builder()
                .uri("/v1/gateways")
                .header("host", host.as_str())
                .header("authorization", format!("Bearer {token}"))
                .body(Full::new(Bytes::new()))
                .map_err(|error| AgentError::Http(error.to_string()))?;
            let response = sender.send_request(request).await.map_err(failed)?;
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            let answer = body.map_err(|error| AgentError::Http(error.to_string()))?.to_bytes();
            if status != 200 {
                return Err(refused(status, &answer));
            }
            let ranked: Ranked =
                serde_json::from_slice(&answer).map_err(|error| AgentError::Http(error.to_string()))?;
            lists.push(ranked.gateways);
        }
        Ok(lists)
    };
    // The connection moves on only while it is waited for, too; it ends with this call.
    let driver = async {
        let _ = connection.await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        lists = exchange => lists,
        () = driver => unreachable!("it waits for ever"),
    }
}

/// One HTTP call on a connection of its own. Returns status and body.
pub async fn call(
    target: &Target,
    method: Method,
    path: &str,
    body: Option<String>,
) -> Result<(u16, Bytes), AgentError> {
    let within = Duration::from_millis(ANSWER_MS_MAX);
    let called = tokio::time::timeout(within, call_unbounded(target, method, path, body));
    called.await.unwrap_or(Err(AgentError::TimedOut(ANSWER_MS_MAX)))
}

async fn call_unbounded(
    target: &Target,
    method: Method,
    path: &str,
    body: Option<String>,
) -> Result<(u16, Bytes), AgentError> {
    let failed = |error: hyper::Error| AgentError::Http(error.to_string());
    let (stream, host) = http(target).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", host)
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body.unwrap_or_default())))
        .map_err(|error| AgentError::Http(error.to_string()))?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        Ok((status, body))
    };
    // The connection moves on only while it is waited for, too; it ends with this call.
    let driver = async {
        let _ = connection.await;
        std::future::pending::<()>().await;
    };
    let (status, body) = tokio::select! {
        biased;
        answer = exchange => answer.map_err(failed)?,
        () = driver => unreachable!("it waits for ever"),
    };
    let body = body.map_err(|error| AgentError::Http(error.to_string()))?;
    Ok((status, body.to_bytes()))
}

//! How a stranger's bytes are read, without the server around it: for whoever throws bytes at it (`bench/fuzz`).

use super::cookies;
use super::failure::Failure;
use super::fields::{LogIn, Object, Refresh, Registration, parse_object};
use super::ingress::Client;
use crate::domain::auth::RefreshToken;
use axum::http::{HeaderMap, HeaderValue, header};
use std::net::{Ipv4Addr, SocketAddr};
use wire_protocol::ids::UserId;

/// A request's fields.
#[derive(Debug)]
pub enum Read {
    /// `POST /v1/register`.
    Registration {
        /// In its one form.
        username: String,
        /// One line.
        display_name: String,
        /// As it was typed.
        password: String,
        /// One line.
        device_name: String,
    },
    /// `POST /v1/login`.
    LogIn {
        /// In its one form; `None` if nobody can have this name.
        username: Option<String>,
        /// One line.
        device_name: String,
    },
    /// `POST /v1/refresh`, with the token.
    Token(RefreshToken),
    /// `POST /v1/refresh`, with a cookie.
    CookieOf(UserId),
}

/// `POST /v1/register`; or why not.
pub fn register(body: &[u8]) -> Result<Read, String> {
    read(body, |object| {
        let Registration { username, display_name, password, device_name } = Registration::read(object)?;
        let password = String::from_utf8_lossy(password.as_bytes()).into_owned();
        Ok(Read::Registration { username, display_name, password, device_name })
    })
}

/// `POST /v1/login`; or why not.
pub fn log_in(body: &[u8]) -> Result<Read, String> {
    read(body, |object| {
        let LogIn { username, device_name, .. } = LogIn::read(object)?;
        Ok(Read::LogIn { username, device_name })
    })
}

/// `POST /v1/refresh`; or why not.
pub fn refresh(body: &[u8]) -> Result<Read, String> {
    read(body, |object| {
        Ok(match Refresh::read(object)? {
            Refresh::Token(token) => Read::Token(token),
            Refresh::CookieOf(user) => Read::CookieOf(user),
        })
    })
}

fn read(body: &[u8], fields: impl Fn(Object) -> Result<Read, Failure>) -> Result<Read, String> {
    parse_object(body).and_then(fields).map_err(|failure| failure.detail().to_owned())
}

/// The header that sets a token's cookie.
pub fn cookie_set(token: &RefreshToken) -> String {
    let client = Client { peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)), secure: true };
    cookies::set(token, client).to_str().unwrap_or_default().to_owned()
}

/// An account's cookie in these `Cookie` headers; those that no header may be are left out.
pub fn cookie_found(lines: &[Vec<u8>], user: UserId) -> Option<String> {
    let mut headers = HeaderMap::new();
    for value in lines.iter().filter_map(|line| HeaderValue::from_bytes(line).ok()) {
        headers.append(header::COOKIE, value);
    }
    cookies::find(&headers, user)
}

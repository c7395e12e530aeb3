//! The refresh token of a browser: in a cookie that no script can read, that goes to `/v1/refresh` alone, and that no
//! other site's page can make the browser send. One cookie for each account of the browser.

use super::ingress::Client;
use crate::domain::auth::RefreshToken;
use axum::http::{HeaderMap, HeaderValue, header};
use wire_protocol::ids::UserId;
use wire_protocol::websocket::origin_allowed;

/// How long a browser keeps it, in seconds: 400 days, the most that browsers grant. Each refresh begins anew.
const COOKIE_AGE_S_MAX: u64 = 400 * 24 * 3_600;

/// Sets the cookie of the token's account.
pub(super) fn set(token: &RefreshToken, client: Client) -> HeaderValue {
    cookie(token.user, &token.to_text(), COOKIE_AGE_S_MAX, client)
}

/// Drops an account's cookie.
pub(super) fn dropped(user: UserId, client: Client) -> HeaderValue {
    cookie(user, "", 0, client)
}

fn cookie(user: UserId, value: &str, age_s: u64, client: Client) -> HeaderValue {
    // Without TLS there is only loopback, where browsers would not take a secure one.
    let secure = if client.secure { "; Secure" } else { "" };
    let text = format!(
        "{}={value}; Path=/v1/refresh; Max-Age={age_s}; HttpOnly; SameSite=Strict{secure}",
        name_of(user)
    );
    let mut header = HeaderValue::try_from(text).expect("names and tokens are plain ASCII");
    header.set_sensitive(true);
    header
}

fn name_of(user: UserId) -> String {
    format!("ringline-refresh-{user}")
}

/// The value of an account's cookie, if the browser sent it.
pub(super) fn find(headers: &HeaderMap, user: UserId) -> Option<String> {
    let name = name_of(user);
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut cookies =
        lines.flat_map(|line| line.split(';')).filter_map(|cookie| cookie.trim().split_once('='));
    cookies.find(|(found, _)| *found == name).map(|(_, value)| value.to_owned())
}

/// Whether the request may come from a page: its own, or none at all. A page that came in plain text may not reach in
/// through TLS.
pub(super) fn is_own_page(headers: &HeaderMap, client: Client) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let (Ok(origin), Some(host)) = (origin.to_str(), host) else { return false };
    origin_allowed(Some(origin), host, &[]) && !(client.secure && origin.starts_with("http://"))
}

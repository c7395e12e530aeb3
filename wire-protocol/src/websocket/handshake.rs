//! The HTTP texts that open a WebSocket: RFC 6455, section 4. Parsing the head is the caller's; what its
//! headers must say is decided here, for both ends.

use crate::limits::{WEBSOCKET_PATH, WEBSOCKET_PROTOCOL};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use sha1::{Digest, Sha1};

/// Characters of an accept key: 20 bytes of SHA-1 in base64.
pub const ACCEPT_KEY_BYTES: usize = 28;
/// Bytes of the nonce in `Sec-WebSocket-Key`.
const NONCE_BYTES: usize = 16;
/// RFC 6455, section 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const VERSION: &str = "13";

/// Value of `Sec-WebSocket-Accept`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AcceptKey([u8; ACCEPT_KEY_BYTES]);

impl AcceptKey {
    /// Base64 text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// The accept key for a `Sec-WebSocket-Key`, which is hashed as it was sent.
pub fn accept_key(key: &str) -> AcceptKey {
    let digest = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    let mut text = [0u8; ACCEPT_KEY_BYTES];
    let written = STANDARD.encode_slice(digest, &mut text);
    assert_eq!(written, Ok(ACCEPT_KEY_BYTES), "20 bytes are 28 characters of base64");
    AcceptKey(text)
}

/// A request that may be upgraded, once its origin was found allowed with [`origin_allowed`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Upgrade<'a> {
    /// For [`upgrade_response`].
    pub accept_key: AcceptKey,
    /// The `Host` header.
    pub host: &'a str,
    /// The `Origin` header: browsers always send one.
    pub origin: Option<&'a str>,
}

/// Why a request is not upgraded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum UpgradeRefused {
    /// Only GET is upgraded.
    #[error("method: GET is expected")]
    MethodNotGet,
    /// HTTP/1.0 knows no upgrade.
    #[error("version: HTTP/1.1 is expected")]
    HttpTooOld,
    /// Not exactly one `Host`.
    #[error("Host: exactly one is expected")]
    HostInvalid,
    /// Without `Upgrade: websocket` and `Connection: upgrade`.
    #[error("Upgrade: websocket and Connection: upgrade are expected")]
    NotAnUpgrade,
    /// Not version 13.
    #[error("Sec-WebSocket-Version: 13 is expected")]
    VersionUnsupported,
    /// Not exactly one nonce of 16 bytes.
    #[error("Sec-WebSocket-Key: 16 bytes in base64 are expected")]
    KeyInvalid,
    /// Our subprotocol was not offered.
    #[error("Sec-WebSocket-Protocol: ringline.v1 is expected")]
    ProtocolMissing,
    /// More than one, or another site's page: found by the caller with [`origin_allowed`].
    #[error("Origin: not allowed")]
    OriginRefused,
}

/// Looks at the head of a request for [`WEBSOCKET_PATH`]. `minor_version` is the 1 of HTTP/1.1.
pub fn check_upgrade<'a>(
    method: &str,
    minor_version: u8,
    headers: impl Iterator<Item = (&'a str, &'a [u8])>,
) -> Result<Upgrade<'a>, UpgradeRefused> {
    if method != "GET" {
        return Err(UpgradeRefused::MethodNotGet);
    }
    if minor_version < 1 {
        return Err(UpgradeRefused::HttpTooOld);
    }
    let seen = UpgradeHeaders::collect(headers);
    let host = seen.host.only().filter(|host| !host.is_empty()).ok_or(UpgradeRefused::HostInvalid)?;
    if !(seen.upgrade && seen.connection) {
        return Err(UpgradeRefused::NotAnUpgrade);
    }
    if seen.version.only() != Some(VERSION) {
        return Err(UpgradeRefused::VersionUnsupported);
    }
    let key = seen.key.only().filter(|key| is_nonce(key)).ok_or(UpgradeRefused::KeyInvalid)?;
    if !seen.protocol {
        return Err(UpgradeRefused::ProtocolMissing);
    }
    let origin = match seen.origin {
        Once::Never => None,
        Once::Value(origin) => Some(origin),
        Once::Invalid => return Err(UpgradeRefused::OriginRefused),
    };
    Ok(Upgrade { accept_key: accept_key(key), host, origin })
}

/// A header that may stand once.
#[derive(Clone, Copy, Default)]
enum Once<'a> {
    #[default]
    Never,
    Value(&'a str),
    Invalid,
}

impl<'a> Once<'a> {
    fn add(&mut self, value: Option<&'a str>) {
        *self = match (*self, value) {
            (Once::Never, Some(value)) => Once::Value(value.trim()),
            _ => Once::Invalid,
        };
    }

    fn only(self) -> Option<&'a str> {
        match self {
            Once::Value(value) => Some(value),
            Once::Never | Once::Invalid => None,
        }
    }
}

#[derive(Default)]
struct UpgradeHeaders<'a> {
    host: Once<'a>,
    origin: Once<'a>,
    key: Once<'a>,
    version: Once<'a>,
    accept: Once<'a>,
    upgrade: bool,
    connection: bool,
    protocol: bool,
    extensions: bool,
}

impl<'a> UpgradeHeaders<'a> {
    fn collect(headers: impl Iterator<Item = (&'a str, &'a [u8])>) -> Self {
        let mut seen = Self::default();
        for (name, value) in headers {
            let value = std::str::from_utf8(value).ok();
            let is = |header: &str| name.eq_ignore_ascii_case(header);
            if is("host") {
                seen.host.add(value);
            } else if is("origin") {
                seen.origin.add(value);
            } else if is("sec-websocket-key") {
                seen.key.add(value);
            } else if is("sec-websocket-version") {
                seen.version.add(value);
            } else if is("sec-websocket-accept") {
                seen.accept.add(value);
            } else if is("upgrade") {
                seen.upgrade |= lists(value, |token| token.eq_ignore_ascii_case("websocket"));
            } else if is("connection") {
                seen.connection |= lists(value, |token| token.eq_ignore_ascii_case("upgrade"));
            } else if is("sec-websocket-protocol") {
                seen.protocol |= lists(value, |token| token == WEBSOCKET_PROTOCOL);
            } else if is("sec-websocket-extensions") {
                seen.extensions = true;
            }
        }
        seen
    }
}

/// Whether a comma-separated value holds a token.
fn lists(value: Option<&str>, is: impl Fn(&str) -> bool) -> bool {
    value.is_some_and(|value| value.split(',').any(|token| is(token.trim())))
}

fn is_nonce(key: &str) -> bool {
    let mut nonce = [0u8; NONCE_BYTES + 2];
    STANDARD.decode_slice(key, &mut nonce) == Ok(NONCE_BYTES)
}

/// Whether a page of `origin` may open a WebSocket to `host`: it came from this host itself, or is named in
/// `allowed`. Without an origin there is no browser, whose user could be tricked.
pub fn origin_allowed(origin: Option<&str>, host: &str, allowed: &[String]) -> bool {
    let Some(origin) = origin else { return true };
    if allowed.iter().any(|one| one.eq_ignore_ascii_case(origin)) {
        return true;
    }
    let (authority, port) = match (origin.strip_prefix("https://"), origin.strip_prefix("http://")) {
        (Some(authority), _) => (authority, ":443"),
        (_, Some(authority)) => (authority, ":80"),
        _ => return false,
    };
    let named = |authority: &'_ str| authority.strip_suffix(port).unwrap_or(authority).to_ascii_lowercase();
    !authority.is_empty() && named(authority) == named(host)
}

/// The answer that makes the connection a WebSocket.
pub fn upgrade_response(accept_key: &AcceptKey) -> Bytes {
    let accept_key = accept_key.as_str();
    Bytes::from(format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept_key}\r\nSec-WebSocket-Protocol: {WEBSOCKET_PROTOCOL}\r\n\r\n"
    ))
}

impl UpgradeRefused {
    /// The HTTP status of the refusal.
    pub fn status(&self) -> u16 {
        match self {
            UpgradeRefused::MethodNotGet => 405,
            UpgradeRefused::HttpTooOld => 505,
            UpgradeRefused::NotAnUpgrade | UpgradeRefused::VersionUnsupported => 426,
            UpgradeRefused::OriginRefused => 403,
            UpgradeRefused::HostInvalid | UpgradeRefused::KeyInvalid | UpgradeRefused::ProtocolMissing => 400,
        }
    }

    /// The whole answer; the connection is closed after it.
    pub fn response(&self) -> Bytes {
        let (status, text) = match self.status() {
            403 => (403, "Forbidden"),
            405 => (405, "Method Not Allowed\r\nAllow: GET"),
            426 => (426, "Upgrade Required\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13"),
            505 => (505, "HTTP Version Not Supported"),
            _ => (400, "Bad Request"),
        };
        // RFC 9110: whoever sends Upgrade names it in Connection.
        let connection = if status == 426 { "Upgrade, close" } else { "close" };
        let body = format!("{self}\n");
        Bytes::from(format!(
            "HTTP/1.1 {status} {text}\r\nConnection: {connection}\r\nContent-Type: text/plain\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        ))
    }
}

/// A client's request; `nonce` is random and used once. Returns it with the accept key to expect.
pub fn upgrade_request(host: &str, nonce: [u8; NONCE_BYTES]) -> (Bytes, AcceptKey) {
    let key = STANDARD.encode(nonce);
    let request = format!(
        "GET {WEBSOCKET_PATH} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: {VERSION}\r\n\
         Sec-WebSocket-Protocol: {WEBSOCKET_PROTOCOL}\r\n\r\n"
    );
    (Bytes::from(request), accept_key(&key))
}

/// The server did not agree to what [`upgrade_request`] asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the server did not upgrade the connection")]
pub struct HeadersInvalid;

/// A client's look at the answer.
pub fn check_upgraded<'a>(
    status: u16,
    headers: impl Iterator<Item = (&'a str, &'a [u8])>,
    expected: &AcceptKey,
) -> Result<(), HeadersInvalid> {
    let seen = UpgradeHeaders::collect(headers);
    let accepted = seen.accept.only() == Some(expected.as_str());
    let agreed = status == 101 && seen.upgrade && seen.connection && seen.protocol && !seen.extensions;
    if agreed && accepted { Ok(()) } else { Err(HeadersInvalid) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The request of RFC 6455, section 1.3, with our subprotocol.
    const REQUEST: &[(&str, &str)] = &[
        ("Host", "server.example.com"),
        ("Upgrade", "websocket"),
        ("Connection", "keep-alive, Upgrade"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Origin", "http://example.com"),
        ("Sec-WebSocket-Protocol", "chat, ringline.v1"),
        ("Sec-WebSocket-Version", "13"),
    ];

    fn check(headers: &[(&'static str, &'static str)]) -> Result<Upgrade<'static>, UpgradeRefused> {
        check_upgrade("GET", 1, headers.iter().map(|(name, value)| (*name, value.as_bytes())))
    }

    /// The request with one header changed, or left out if `value` is `None`.
    fn with(name: &str, value: Option<&'static str>) -> Vec<(&'static str, &'static str)> {
        let changed =
            REQUEST.iter().map(|(other, old)| (*other, if *other == name { value } else { Some(*old) }));
        changed.filter_map(|(name, value)| Some((name, value?))).collect()
    }

    #[test]
    fn the_accept_key_of_the_rfc() {
        assert_eq!(accept_key("dGhlIHNhbXBsZSBub25jZQ==").as_str(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn a_good_request_is_accepted() {
        let upgrade = check(REQUEST).expect("it follows the RFC");
        assert_eq!(upgrade.accept_key.as_str(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!((upgrade.host, upgrade.origin), ("server.example.com", Some("http://example.com")));
        assert_eq!(check(&with("Origin", None)).map(|upgrade| upgrade.origin), Ok(None));
        let lower: Vec<_> = REQUEST.iter().map(|(name, value)| (name.to_ascii_lowercase(), *value)).collect();
        let lower = lower.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        assert!(check_upgrade("GET", 1, lower).is_ok());
        let response = upgrade_response(&upgrade.accept_key);
        assert!(response.starts_with(b"HTTP/1.1 101 "));
        assert!(response.ends_with(b"Sec-WebSocket-Protocol: ringline.v1\r\n\r\n"));
    }

    #[test]
    fn each_broken_request_is_refused_with_its_reason() {
        let cases = [
            ("Host", None, UpgradeRefused::HostInvalid),
            ("Host", Some(""), UpgradeRefused::HostInvalid),
            ("Host", Some("  "), UpgradeRefused::HostInvalid),
            ("Upgrade", None, UpgradeRefused::NotAnUpgrade),
            ("Upgrade", Some("h2c"), UpgradeRefused::NotAnUpgrade),
            ("Connection", Some("keep-alive"), UpgradeRefused::NotAnUpgrade),
            ("Sec-WebSocket-Version", Some("8"), UpgradeRefused::VersionUnsupported),
            ("Sec-WebSocket-Version", None, UpgradeRefused::VersionUnsupported),
            ("Sec-WebSocket-Key", None, UpgradeRefused::KeyInvalid),
            ("Sec-WebSocket-Key", Some("c2hvcnQ="), UpgradeRefused::KeyInvalid),
            ("Sec-WebSocket-Key", Some("dGhlIHNhbXBsZSBub25jZSE="), UpgradeRefused::KeyInvalid),
            ("Sec-WebSocket-Key", Some("not base64 at all!!!!!!!"), UpgradeRefused::KeyInvalid),
            ("Sec-WebSocket-Protocol", Some("ringline.v2"), UpgradeRefused::ProtocolMissing),
        ];
        for (name, value, refused) in cases {
            assert_eq!(check(&with(name, value)), Err(refused), "{name}: {value:?}");
        }
        for name in ["Host", "Sec-WebSocket-Key", "Origin"] {
            let twice: Vec<_> =
                REQUEST.iter().chain(REQUEST.iter().filter(|(other, _)| *other == name)).copied().collect();
            assert!(check(&twice).is_err(), "{name} stands twice");
        }
        let headers = || REQUEST.iter().map(|(name, value)| (*name, value.as_bytes()));
        assert_eq!(check_upgrade("POST", 1, headers()), Err(UpgradeRefused::MethodNotGet));
        assert_eq!(check_upgrade("GET", 0, headers()), Err(UpgradeRefused::HttpTooOld));
    }

    #[test]
    fn refusals_are_whole_answers() {
        let cases = [
            (UpgradeRefused::MethodNotGet, "HTTP/1.1 405 Method Not Allowed\r\nAllow: GET\r\n"),
            (
                UpgradeRefused::VersionUnsupported,
                "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Connection: Upgrade, close\r\n",
            ),
            (UpgradeRefused::KeyInvalid, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n"),
        ];
        for (refused, start) in cases {
            let response = String::from_utf8(refused.response().to_vec()).expect("it is text");
            assert!(response.starts_with(start), "{response}");
            let (head, body) = response.split_once("\r\n\r\n").expect("it has a head");
            assert!(head.ends_with(&format!("Content-Length: {}", body.len())));
        }
    }

    #[test]
    fn only_the_own_page_and_named_ones_may_connect() {
        let named = ["https://chat.example".to_owned()];
        let cases = [
            (None, "127.0.0.1:8080", true),
            (Some("http://127.0.0.1:8080"), "127.0.0.1:8080", true),
            (Some("http://localhost:8080"), "LocalHost:8080", true),
            (Some("https://[::1]:8443"), "[::1]:8443", true),
            (Some("https://own.example"), "own.example:443", true),
            (Some("http://own.example:80"), "own.example", true),
            (Some("https://chat.example"), "own.example", true),
            (Some("https://chat.example.evil"), "own.example", false),
            (Some("http://127.0.0.1:8081"), "127.0.0.1:8080", false),
            (Some("http://own.example"), "own.example:443", false),
            (Some("http://evil.example"), "own.example", false),
            (Some("null"), "own.example", false),
            (Some("http://"), "", false),
            (Some(""), "", false),
        ];
        for (origin, host, allowed) in cases {
            assert_eq!(origin_allowed(origin, host, &named), allowed, "{origin:?} to {host}");
        }
    }

    #[test]
    fn both_ends_agree() {
        let (request, expected) = upgrade_request("localhost:1", *b"sixteen bytes!!!");
        let request = String::from_utf8(request.to_vec()).expect("it is text");
        let mut lines = request.trim_end().split("\r\n");
        assert_eq!(lines.next(), Some("GET /v1/socket HTTP/1.1"));
        let headers: Vec<_> = lines.filter_map(|line| line.split_once(": ")).collect();
        let upgrade = check_upgrade("GET", 1, headers.iter().map(|(name, value)| (*name, value.as_bytes())));
        let accept_key = upgrade.expect("we follow our own rules").accept_key;
        assert_eq!(accept_key, expected);

        let response = String::from_utf8(upgrade_response(&accept_key).to_vec()).expect("it is text");
        let answer = |text: &str, status, expected: &AcceptKey| {
            let headers: Vec<_> = text.split("\r\n").filter_map(|line| line.split_once(": ")).collect();
            check_upgraded(status, headers.iter().map(|(name, value)| (*name, value.as_bytes())), expected)
        };
        assert_eq!(answer(&response, 101, &expected), Ok(()));
        assert_eq!(answer(&response, 200, &expected), Err(HeadersInvalid));
        assert_eq!(answer(&response, 101, &self::accept_key("another")), Err(HeadersInvalid));
        assert_eq!(answer(&response.replace("ringline.v1", "chat"), 101, &expected), Err(HeadersInvalid));
        let extended =
            response.replace("Upgrade: ", "Sec-WebSocket-Extensions: permessage-deflate\r\nUpgrade: ");
        assert_eq!(answer(&extended, 101, &expected), Err(HeadersInvalid));
    }
}

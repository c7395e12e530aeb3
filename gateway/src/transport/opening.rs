//! The first bytes of a connection: native frames, a WebSocket upgrade, or other HTTP?
//!
//! An HTTP head is read here only as far as that question needs it. Whatever is not a WebSocket upgrade goes to the
//! HTTP library byte for byte, so that it alone decides what a doubtful head means; and once a connection is HTTP it
//! stays HTTP.

use bytes::Bytes;
use wire_protocol::limits::WEBSOCKET_PATH;
use wire_protocol::websocket::{UpgradeRefused, check_upgrade, origin_allowed, upgrade_response};

/// Longest head of an HTTP request, in bytes. Browsers send below 2 KiB, cookies included.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Header lines looked at; a head with more is left to the HTTP library.
const HEADERS_MAX: usize = 64;
/// Every method an HTTP client begins with. As a frame, `GET ` would be 71 bytes beginning with a field that no
/// hello has.
const METHODS: [&[u8]; 9] =
    [b"GET ", b"POST ", b"PUT ", b"HEAD ", b"OPTIONS ", b"DELETE ", b"PATCH ", b"CONNECT ", b"TRACE "];
/// The answer to a head that does not end.
const HEAD_TOO_LARGE: &[u8] =
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// What has been read so far, and what is known.
#[derive(Debug)]
pub(super) struct Opening {
    read: Vec<u8>,
    /// It is HTTP, by ALPN or by its first bytes.
    http: bool,
}

/// What the first bytes turned out to be.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Decision {
    /// Native frames, these being the first bytes.
    Native { read: Vec<u8> },
    /// An upgrade to WebSocket, to be answered with `response`.
    WebSocket { response: Bytes, origin: Option<String>, read: Vec<u8> },
    /// HTTP, these being the first bytes, head included.
    Http { read: Vec<u8> },
    /// To be answered with `response` and closed.
    Refused { response: Bytes },
}

impl Opening {
    /// Nothing is known: the first bytes tell.
    pub(super) fn sniff() -> Self {
        Self { read: Vec::new(), http: false }
    }

    /// The client said that it speaks HTTP.
    pub(super) fn http() -> Self {
        Self { read: Vec::new(), http: true }
    }

    /// Takes more bytes; the decision, once there is one.
    pub(super) fn receive(&mut self, bytes: &[u8], secure: bool, origins: &[String]) -> Option<Decision> {
        let searched = self.read.len();
        self.read.extend_from_slice(bytes);
        if !self.http {
            let begins = |method: &&[u8]| {
                let length = method.len().min(self.read.len());
                self.read[..length] == method[..length]
            };
            let Some(method) = METHODS.iter().find(|method| begins(method)) else {
                return Some(Decision::Native { read: std::mem::take(&mut self.read) });
            };
            if self.read.len() < method.len() {
                return None;
            }
            self.http = true;
        }
        let Some(head_bytes) = head_end(&self.read, searched) else {
            return (self.read.len() > HEAD_BYTES_MAX)
                .then(|| Decision::Refused { response: Bytes::from_static(HEAD_TOO_LARGE) });
        };
        if head_bytes > HEAD_BYTES_MAX {
            return Some(Decision::Refused { response: Bytes::from_static(HEAD_TOO_LARGE) });
        }
        match upgrade(&self.read[..head_bytes], secure, origins) {
            Some(Ok((response, origin))) => {
                let read = self.read.split_off(head_bytes);
                Some(Decision::WebSocket { response, origin, read })
            }
            Some(Err(refused)) => Some(Decision::Refused { response: refused.response() }),
            None => Some(Decision::Http { read: std::mem::take(&mut self.read) }),
        }
    }
}

/// Length of the head: up to and with its empty line, whose line ends may be bare. The first `searched` bytes have
/// been looked at before.
fn head_end(read: &[u8], searched: usize) -> Option<usize> {
    // The empty line may have begun up to three bytes back.
    let from = searched.saturating_sub(3);
    (from..read.len()).find_map(|at| {
        let rest = &read[at..];
        if rest.starts_with(b"\n\r\n") {
            Some(at + 3)
        } else if rest.starts_with(b"\n\n") {
            Some(at + 2)
        } else {
            None
        }
    })
}

/// `None`: not for us, but for the HTTP library. Heads that it would not understand are of that kind, and so are
/// requests with a body.
fn upgrade(
    head: &[u8],
    secure: bool,
    origins: &[String],
) -> Option<Result<(Bytes, Option<String>), UpgradeRefused>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Complete(bytes)) if bytes == head.len() => {}
        _ => return None,
    }
    let path = request.path?.split('?').next()?;
    let has_body = |header: &httparse::Header<'_>| {
        ["content-length", "transfer-encoding"].iter().any(|name| header.name.eq_ignore_ascii_case(name))
    };
    if path != WEBSOCKET_PATH || request.headers.iter().any(has_body) {
        return None;
    }
    let lines = request.headers.iter().map(|header| (header.name, header.value));
    Some(match check_upgrade(request.method?, request.version?, lines) {
        Ok(upgrade) if !origin_may(upgrade.origin, upgrade.host, secure, origins) => {
            Err(UpgradeRefused::OriginRefused)
        }
        Ok(upgrade) => Ok((upgrade_response(&upgrade.accept_key), upgrade.origin.map(str::to_owned))),
        Err(refused) => Err(refused),
    })
}

/// The page's own host or a configured origin; and a page that came by plain HTTP may not reach in through TLS.
fn origin_may(origin: Option<&str>, host: &str, secure: bool, origins: &[String]) -> bool {
    let named = |origin: &str| origins.iter().any(|one| one.eq_ignore_ascii_case(origin));
    let downgraded = origin.is_some_and(|origin| origin.starts_with("http://") && !named(origin));
    origin_allowed(origin, host, origins) && !(secure && downgraded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire_protocol::websocket::upgrade_request;

    /// Whatever the cut, the decision is the same, and comes with the last byte it needs.
    fn decide(bytes: &[u8]) -> Option<Decision> {
        let decide_in = |pieces: &mut dyn Iterator<Item = &[u8]>| {
            let mut opening = Opening::sniff();
            let mut decision = None;
            for piece in pieces {
                match &mut decision {
                    None => decision = opening.receive(piece, false, &[]),
                    Some(
                        Decision::Native { read }
                        | Decision::Http { read }
                        | Decision::WebSocket { read, .. },
                    ) => {
                        read.extend_from_slice(piece);
                    }
                    Some(Decision::Refused { .. }) => {}
                }
            }
            decision
        };
        let whole = decide_in(&mut [bytes].into_iter());
        for cut in 0..=bytes.len() {
            let (first, second) = bytes.split_at(cut);
            assert_eq!(decide_in(&mut [first, second].into_iter()), whole, "cut at {cut}");
        }
        assert_eq!(decide_in(&mut bytes.chunks(1)), whole);
        whole
    }

    #[test]
    fn any_cut_of_the_first_bytes_gives_the_same_decision() {
        let (request, _) = upgrade_request("a", [1; 16]);
        let request = [&request[..], b"\x82frame"].concat();
        let Some(Decision::WebSocket { response, origin: None, read }) = decide(&request) else {
            panic!("an upgrade")
        };
        assert!(response.starts_with(b"HTTP/1.1 101 "));
        assert_eq!(read, b"\x82frame");

        for http in [&b"GET / HTTP/1.1\r\nHost: a\r\n\r\nbody"[..], b"TRACE / HTTP/1.1\n\nbody", b"GET \n\n"]
        {
            assert_eq!(decide(http), Some(Decision::Http { read: http.to_vec() }));
        }
        for native in [&b"\x05hello"[..], b"GETX", b"G\x08", b"get / HTTP/1.1\r\n\r\n", b"PATC\x08"] {
            assert_eq!(decide(native), Some(Decision::Native { read: native.to_vec() }));
        }
        for unfinished in [&b""[..], b"G", b"OPTIONS", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nA: b\r\n\r"]
        {
            assert_eq!(decide(unfinished), None);
        }
    }

    #[test]
    fn an_upgrade_with_a_body_or_to_another_path_is_not_ours() {
        let (request, _) = upgrade_request("a", [1; 16]);
        let request = String::from_utf8(request.to_vec()).expect("text");
        for (from, to) in [
            ("Host: a\r\n", "Host: a\r\nContent-Length: 5\r\n"),
            ("Host: a\r\n", "Host: a\r\ntransfer-encoding: chunked\r\n"),
            ("/v1/socket ", "/v1/sockets "),
            ("/v1/socket ", "//v1/socket "),
            ("HTTP/1.1", "HTTP/1.1 "),
        ] {
            let other = request.replacen(from, to, 1);
            assert_ne!(other, request);
            assert!(matches!(decide(other.as_bytes()), Some(Decision::Http { .. })), "{to}");
        }
        let with_query = request.replacen("/v1/socket ", "/v1/socket?a=b ", 1);
        assert!(matches!(decide(with_query.as_bytes()), Some(Decision::WebSocket { .. })));
    }

    #[test]
    fn a_head_has_a_largest_size() {
        let head = |bytes: usize| {
            let filler = "x".repeat(bytes - "GET / HTTP/1.1\r\nA: \r\n\r\n".len());
            format!("GET / HTTP/1.1\r\nA: {filler}\r\n\r\n").into_bytes()
        };
        let mut opening = Opening::http();
        assert!(matches!(opening.receive(&head(HEAD_BYTES_MAX), true, &[]), Some(Decision::Http { .. })));
        let mut opening = Opening::http();
        let refused = opening.receive(&head(HEAD_BYTES_MAX + 1), true, &[]);
        assert!(matches!(refused, Some(Decision::Refused { .. })));
        let mut opening = Opening::http();
        let endless = opening.receive(&head(2 * HEAD_BYTES_MAX)[..HEAD_BYTES_MAX + 1], true, &[]);
        assert!(matches!(endless, Some(Decision::Refused { .. })));
    }
}

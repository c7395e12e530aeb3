//! The web chat's files, which `build.rs` put into the binary.

use super::failure::Failure;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use wire_protocol::v1::ErrorCode;

/// One file of the web chat.
struct Asset {
    /// As in the request, with the leading slash.
    path: &'static str,
    content_type: &'static str,
    /// From the content's hash.
    tag: &'static str,
    /// The content's hash is in the name: whoever has it never needs to ask again.
    immutable: bool,
    plain: &'static [u8],
    /// The same, compressed, if the build made it.
    brotli: Option<&'static [u8]>,
    gzip: Option<&'static [u8]>,
}

include!(concat!(env!("OUT_DIR"), "/web_assets.rs"));

/// A year: the longest that RFC 9111 advises.
const CACHE_IMMUTABLE: &str = "public, max-age=31536000, immutable";
/// May be kept, but must be asked for each time; the ETag makes that cheap.
const CACHE_ASK: &str = "no-cache";

/// Answers whatever no route takes: a file of the web chat, or that there is none.
pub(super) async fn serve(request: Request) -> Result<Response<Body>, Failure> {
    let path = request.uri().path();
    if path.starts_with("/v1/") {
        return Err(not_found());
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let (status, code) = (StatusCode::METHOD_NOT_ALLOWED, ErrorCode::ErrorInvalidArgument);
        return Err(Failure::with_status(status, code, "method: GET is expected"));
    }
    let path = if path == "/" { "/index.html" } else { path };
    // Sorted by path when they were written down.
    let found =
        ASSETS.binary_search_by(|asset| asset.path.cmp(path)).ok().and_then(|index| ASSETS.get(index));
    Ok(answer(found.ok_or_else(not_found)?, request.headers()))
}

fn not_found() -> Failure {
    Failure::with_status(StatusCode::NOT_FOUND, ErrorCode::ErrorNotFound, "path: nothing is here")
}

fn answer(asset: &Asset, request: &HeaderMap) -> Response<Body> {
    let (coding, bytes) = choose_coding(asset, request);
    // A tag for each coding: their bytes differ.
    let etag =
        if coding.is_empty() { format!("\"{}\"", asset.tag) } else { format!("\"{}-{coding}\"", asset.tag) };
    let unchanged = request.get_all(header::IF_NONE_MATCH).iter().any(|value| names(value, &etag));
    let (status, bytes) =
        if unchanged { (StatusCode::NOT_MODIFIED, &[][..]) } else { (StatusCode::OK, bytes) };
    let mut response = Response::new(Body::from(Bytes::from_static(bytes)));
    *response.status_mut() = status;
    let cache = if asset.immutable { CACHE_IMMUTABLE } else { CACHE_ASK };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    if let Ok(etag) = HeaderValue::try_from(etag) {
        headers.insert(header::ETAG, etag);
    }
    if !unchanged {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(asset.content_type));
        if !coding.is_empty() {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding));
        }
    }
    response
}

/// The smallest form that the client reads.
fn choose_coding(asset: &Asset, request: &HeaderMap) -> (&'static str, &'static [u8]) {
    let reads = |coding| request.get_all(header::ACCEPT_ENCODING).iter().any(|value| accepts(value, coding));
    match (asset.brotli, asset.gzip) {
        (Some(bytes), _) if reads("br") => ("br", bytes),
        (_, Some(bytes)) if reads("gzip") => ("gzip", bytes),
        _ => ("", asset.plain),
    }
}

/// Whether an `Accept-Encoding` names the coding, and not with weight 0.
fn accepts(value: &HeaderValue, coding: &str) -> bool {
    value.to_str().unwrap_or_default().split(',').any(|part| {
        let (name, weight) = part.split_once(';').unwrap_or((part, "q=1"));
        let weight = weight.trim().strip_prefix("q=").and_then(|weight| weight.parse::<f32>().ok());
        name.trim().eq_ignore_ascii_case(coding) && weight.is_some_and(|weight| weight > 0.0)
    })
}

/// Whether an `If-None-Match` names the tag, weakly compared.
fn names(value: &HeaderValue, etag: &str) -> bool {
    let tags = value.to_str().unwrap_or_default().split(',').map(str::trim);
    tags.map(|tag| tag.strip_prefix("W/").unwrap_or(tag)).any(|tag| tag == etag || tag == "*")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: Asset = Asset {
        path: "/assets/app-1234.js",
        content_type: "text/javascript; charset=utf-8",
        tag: "1234",
        immutable: true,
        plain: b"plain",
        brotli: Some(b"br"),
        gzip: Some(b"gz"),
    };

    fn ask(asset: &Asset, name: header::HeaderName, value: &'static str) -> Response<Body> {
        answer(asset, &HeaderMap::from_iter([(name, HeaderValue::from_static(value))]))
    }

    #[test]
    fn each_client_gets_the_smallest_form_it_reads() {
        for (accepted, coding, etag) in [
            ("gzip, deflate, br, zstd", "br", "\"1234-br\""),
            ("gzip;q=1.0, br;q=0", "gzip", "\"1234-gzip\""),
            ("BR;q=0.5", "br", "\"1234-br\""),
            ("deflate", "", "\"1234\""),
            ("brotli, gzipped", "", "\"1234\""),
            ("br;q=x", "", "\"1234\""),
            ("", "", "\"1234\""),
        ] {
            let response = ask(&SCRIPT, header::ACCEPT_ENCODING, accepted);
            let headers = response.headers();
            let told =
                headers.get(header::CONTENT_ENCODING).map_or("", |value| value.to_str().expect("it is ours"));
            assert_eq!(told, coding, "{accepted}");
            assert_eq!(headers[header::ETAG], etag);
            assert_eq!(headers[header::VARY], "Accept-Encoding");
            assert_eq!(headers[header::CONTENT_TYPE], SCRIPT.content_type);
        }
        let plain_only = Asset { brotli: None, gzip: None, ..SCRIPT };
        let response = ask(&plain_only, header::ACCEPT_ENCODING, "br, gzip");
        assert!(!response.headers().contains_key(header::CONTENT_ENCODING));
    }

    #[test]
    fn only_hashed_names_are_kept_unasked() {
        let response = answer(&SCRIPT, &HeaderMap::new());
        assert_eq!(response.headers()[header::CACHE_CONTROL], CACHE_IMMUTABLE);
        let response = answer(&Asset { immutable: false, ..SCRIPT }, &HeaderMap::new());
        assert_eq!(response.headers()[header::CACHE_CONTROL], CACHE_ASK);
        assert_eq!(ask(&SCRIPT, header::IF_NONE_MATCH, "\"1234\"").status(), StatusCode::NOT_MODIFIED);
        assert_eq!(ask(&SCRIPT, header::IF_NONE_MATCH, "\"1234-br\"").status(), StatusCode::OK);
    }

    #[test]
    fn the_table_can_be_searched_and_has_the_page() {
        assert!(ASSETS.is_sorted_by(|one, next| one.path < next.path));
        assert!(ASSETS.iter().any(|asset| asset.path == "/index.html" && !asset.immutable));
        for asset in ASSETS {
            assert_eq!(asset.immutable, asset.path.starts_with("/assets/"));
            assert!(!asset.plain.is_empty() && asset.path.starts_with('/'));
            assert!(asset.brotli.is_none_or(|bytes| bytes.len() < asset.plain.len()), "{}", asset.path);
        }
    }
}

//! The web chat's files, health, and the headers of every answer.

use super::Harness;
use std::sync::atomic::Ordering;

fn assert_secured(answer: &super::Answer) {
    let policy = answer.header("content-security-policy");
    for part in ["default-src 'self'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'"] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert_eq!(answer.header("referrer-policy"), "no-referrer");
    assert_eq!(answer.header("cross-origin-opener-policy"), "same-origin");
}

#[tokio::test(start_paused = true)]
async fn the_page_is_served_with_its_headers() {
    let mut harness = Harness::new();
    let page = harness.get("/").await;
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    assert_eq!((page.header("cache-control"), page.header("vary")), ("no-cache", "Accept-Encoding"));
    assert!(page.body.starts_with(b"<!doctype html>") || page.body.starts_with(b"<!DOCTYPE html>"));
    assert_secured(&page);
    assert_eq!(harness.get("/index.html").await.body, page.body);
    assert_eq!(harness.get("/?invite=1").await.body, page.body);

    let head = harness.request("HEAD", "/", "", "").await;
    assert_eq!((head.status, head.header("content-length")), (200, page.header("content-length")));

    let etag = page.header("etag").to_owned();
    assert!(etag.len() > 10 && etag.starts_with('"') && etag.ends_with('"'), "{etag}");
    for named in [etag.clone(), format!("W/{etag}"), format!("\"other\", {etag}"), "*".into()] {
        let same = harness.request("GET", "/", &format!("If-None-Match: {named}\r\n"), "").await;
        assert_eq!((same.status, same.body.len(), same.header("etag")), (304, 0, etag.as_str()));
        assert_secured(&same);
    }
    let other = harness.request("GET", "/", "If-None-Match: \"other\"\r\n", "").await;
    assert_eq!((other.status, other.body), (200, page.body));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_is_said_so() {
    let mut harness = Harness::new();
    for path in
        ["/v1/nothing", "/nothing.js", "/../Cargo.toml", "/assets", "/assets/", "/%2e%2e/secret", "/v1/"]
    {
        let answer = harness.get(path).await;
        assert_eq!((answer.status, answer.text("code").as_str()), (404, "ERROR_NOT_FOUND"), "{path}");
        assert_secured(&answer);
    }
    for (method, path) in
        [("GET", "/v1/login"), ("PUT", "/v1/register"), ("POST", "/"), ("DELETE", "/v1/health/live")]
    {
        let answer = harness.request(method, path, "", "").await;
        assert_eq!(answer.status, 405, "{method} {path}");
        assert_secured(&answer);
    }
    // What a page of another site could send without being asked.
    for content_type in ["", "Content-Type: text/plain\r\n", "Content-Type: application/json-not\r\n"] {
        let answer = harness.request("POST", "/v1/login", content_type, "{}").await;
        assert_eq!((answer.status, answer.text("code").as_str()), (415, "ERROR_INVALID_ARGUMENT"));
    }
    let charset = "Content-Type: Application/JSON; charset=utf-8\r\n";
    assert_eq!(harness.request("POST", "/v1/login", charset, "{}").await.status, 400);
    assert!(harness.storage.calls.is_empty());
}

#[tokio::test(start_paused = true)]
async fn health_tells_live_from_ready() {
    let mut harness = Harness::new();
    assert_eq!(harness.get("/v1/health/ready").await.status, 200);
    harness.ready.store(false, Ordering::Relaxed);
    let answer = harness.get("/v1/health/ready").await;
    assert_eq!((answer.status, answer.text("detail").as_str()), (503, "draining"));
    let live = harness.get("/v1/health/live").await;
    assert_eq!((live.status, live.text("status").as_str()), (200, "live"));
    assert_eq!(live.header("cache-control"), "no-store");
    assert_secured(&live);
}

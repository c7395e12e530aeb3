//! Prometheus text on a loopback port of its own.

use super::HttpStartError;
use axum::body::Body;
use axum::http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Scrapers connected at once; more of them wait in the listener's queue.
const CONNECTIONS_MAX: usize = 8;
/// A connection lives this long, in milliseconds: a scrape a second for a minute. A scraper then comes again.
const CONNECTION_MS_MAX: u64 = 60_000;
/// A request's head arrives within this long, in milliseconds.
const HEAD_MS_MAX: u64 = 20_000;
/// Wait after a failed accept, in milliseconds: mostly the limit on open files, which passes.
const ACCEPT_RETRY_MS: u64 = 100;
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Binds and serves; gives the address really bound.
pub(super) fn start(
    runtime: &Runtime,
    address: SocketAddr,
    render: fn() -> String,
) -> Result<SocketAddr, HttpStartError> {
    if !address.ip().is_loopback() {
        return Err(HttpStartError::MetricsNotLoopback(address));
    }
    let failed = |source| HttpStartError::MetricsListen { address, source };
    let listener = runtime.block_on(TcpListener::bind(address)).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    runtime.spawn(accept(listener, render));
    Ok(bound)
}

async fn accept(listener: TcpListener, render: fn() -> String) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(async move {
                    serve(stream, render).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "metrics: accept failed");
                tokio::time::sleep(Duration::from_millis(ACCEPT_RETRY_MS)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, render: fn() -> String) {
    let service = service_fn(move |request: Request<Incoming>| async move {
        Ok::<_, Infallible>(answer(request.uri().path(), render))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(HEAD_MS_MAX))
        .serve_connection(TokioIo::new(stream), service);
    // Whoever scrapes sees a failure itself, and comes again.
    let _ = timeout(Duration::from_millis(CONNECTION_MS_MAX), connection).await;
}

fn answer(path: &str, render: fn() -> String) -> Response<Body> {
    if path != "/metrics" {
        let mut response = Response::new(Body::from("metrics are at /metrics\n"));
        *response.status_mut() = StatusCode::NOT_FOUND;
        return response;
    }
    let mut response = Response::new(Body::from(render()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    response
}

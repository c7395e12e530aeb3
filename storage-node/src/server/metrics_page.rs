//! The metrics page: one path, on loopback, by a well-kept HTTP library on the main thread's small runtime.

use crate::observe::NodeMetrics;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Connections at once: a scraper or two, and a person.
const CONNECTIONS_MAX: usize = 8;
/// A request that is not there by then is given up.
const HEAD_WAIT: Duration = Duration::from_secs(5);
/// A connection that is not done by then is dropped.
const CONNECTION_WAIT: Duration = Duration::from_secs(30);

/// Serves until the runtime ends. Gives the address it serves at.
pub(super) async fn start(address: SocketAddr, metrics: Arc<NodeMetrics>) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(address).await?;
    let at = listener.local_addr()?;
    tokio::spawn(async move {
        if let Err(error) = accept(listener, metrics).await {
            tracing::error!("the metrics page ended: {error}");
        }
    });
    Ok(at)
}

async fn accept(listener: TcpListener, metrics: Arc<NodeMetrics>) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = Arc::clone(&places).acquire_owned().await.map_err(io::Error::other)?;
        let (stream, _) = listener.accept().await?;
        let metrics = Arc::clone(&metrics);
        tokio::spawn(async move {
            let _ = tokio::time::timeout(CONNECTION_WAIT, serve_one(stream, metrics)).await;
            drop(place);
        });
    }
}

async fn serve_one(stream: TcpStream, metrics: Arc<NodeMetrics>) {
    let answer = service_fn(|request: Request<Incoming>| {
        let response = respond(&request, &metrics);
        async move { Ok::<_, Infallible>(response) }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_WAIT).keep_alive(false);
    if let Err(error) = http.serve_connection(TokioIo::new(stream), answer).await {
        tracing::debug!("metrics page: {error}");
    }
}

fn respond(request: &Request<Incoming>, metrics: &NodeMetrics) -> Response<String> {
    let mut response = Response::new(String::new());
    if request.uri().path() != "/metrics" {
        *response.status_mut() = StatusCode::NOT_FOUND;
    } else if request.method() != Method::GET {
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    } else {
        let text = HeaderValue::from_static("text/plain; version=0.0.4");
        response.headers_mut().insert(CONTENT_TYPE, text);
        *response.body_mut() = metrics.render();
    }
    response
}

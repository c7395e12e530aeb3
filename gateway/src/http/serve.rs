//! Connections of one core, from pipe to hyper. Each is a task; how many there are the ingress bounds.

use super::ingress::OpenedConnection;
use super::pipe::MAILBOX_RETRY_MS;
use crate::front::ConnectionToken;
use crate::worker::mailbox::{CoreMailbox, CoreMessage};
use axum::Router;
use axum::http::{HeaderValue, Request, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// A request's head has arrived this long after the connection became idle, in milliseconds; an idle connection
/// is closed after it.
pub(super) const HEAD_MS_MAX: u64 = 15_000;
/// A connection lives this long, in milliseconds: enough for the whole page at 10 kB/s.
pub(super) const CONNECTION_MS_MAX: u64 = 300_000;
/// After that it may finish the request under way for this long, in milliseconds.
const FINISH_MS_MAX: u64 = 20_000;
/// Requests of one connection; its client opens another one after them.
pub(super) const REQUESTS_MAX: u32 = 200;
/// Bytes that hyper buffers of a head, and of an answer before it waits.
const BUFFER_BYTES_MAX: usize = 16 * 1024;
/// Headers of a request; browsers send a third of it.
const HEADERS_MAX: usize = 64;

/// Serves what a core opens, until the core drops its ingress.
pub(super) async fn serve_core(mut opened: mpsc::Receiver<OpenedConnection>, router: Router) {
    while let Some(connection) = opened.recv().await {
        tokio::spawn(serve_connection(connection, router.clone()));
    }
}

async fn serve_connection(connection: OpenedConnection, router: Router) {
    let OpenedConnection { pipe, client, under_way } = connection;
    let (mailbox, token) = pipe.closer();
    let router = TowerToHyperService::new(router);
    let requests = AtomicU32::new(0);
    let service = service_fn(|mut request: Request<Incoming>| {
        request.extensions_mut().insert(client);
        let last = requests.fetch_add(1, Ordering::Relaxed) + 1 >= REQUESTS_MAX;
        let (answer, counted) = (router.call(request), under_way.begin());
        async move {
            let mut answer = answer.await?.map(|body| counted.until_written(body));
            if last {
                answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, std::convert::Infallible>(answer)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(HEAD_MS_MAX))
        .max_buf_size(BUFFER_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .half_close(true)
        .serve_connection(TokioIo::new(pipe), service);
    let mut connection = pin!(connection);
    let mut outcome = timeout(Duration::from_millis(CONNECTION_MS_MAX), connection.as_mut()).await;
    if outcome.is_err() {
        connection.as_mut().graceful_shutdown();
        outcome = timeout(Duration::from_millis(FINISH_MS_MAX), connection.as_mut()).await;
    }
    if let Ok(Err(error)) = outcome {
        // The client's doing: it left, was too slow or sent no HTTP. Hyper has answered if that made sense.
        tracing::debug!(%error, "an HTTP connection ended");
    }
    close(mailbox, token).await;
}

/// Tells the core to close, however long its mailbox is full: a connection that nobody closes would stay.
async fn close(mailbox: CoreMailbox, token: ConnectionToken) {
    let mut message = CoreMessage::HttpClose { token };
    while let Err(refused) = mailbox.send(message) {
        message = refused;
        tokio::time::sleep(Duration::from_millis(MAILBOX_RETRY_MS)).await;
    }
}

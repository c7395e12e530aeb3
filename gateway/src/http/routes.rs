//! Which path does what, and the rules that hold for all of them.

use super::attempts::SharedAttempts;
use super::directory::{self, Directory};
use super::failure::Failure;
use super::fields::{Keeping, Object, Refresh, parse_object, parse_refresh, read_user};
use super::ingress::Client;
use super::passwords::PasswordPool;
use super::storage_gate::StorageGate;
use super::{Now, accounts, assets, cookies};
use crate::domain::auth::{Issuer, RefreshToken};
use crate::worker::mailbox::CoreMailbox;
use axum::Json;
use axum::Router;
use axum::body::{Bytes, HttpBody};
use axum::extract::{DefaultBodyLimit, FromRequest, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Serialize;
use std::time::Duration;
use tokio::time::timeout;
use wire_protocol::error::RequestError;
use wire_protocol::limits::HTTP_BODY_BYTES_MAX;
use wire_protocol::v1::ErrorCode;

/// A request is answered after this long at the latest, in milliseconds: as on the message's way, and some for
/// waiting hashes.
pub(super) const REQUEST_MS_MAX: u64 = 15_000;
/// A body has arrived this long after its head, in milliseconds: 16 KiB at 2 kB/s.
pub(super) const BODY_MS_MAX: u64 = 8_000;

/// Content-Security-Policy of every answer: scripts, styles and connections of this origin alone ('self' covers
/// its WebSocket), pictures also from memory, and no page may frame ours.
pub(super) const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; img-src 'self' data: blob:; \
     connect-src 'self'; object-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'";

const _: () = assert!(BODY_MS_MAX < REQUEST_MS_MAX);

/// What all handlers share.
#[derive(Clone)]
pub(super) struct Services {
    pub(super) attempts: SharedAttempts,
    pub(super) issuer: Issuer,
    pub(super) passwords: PasswordPool,
    pub(super) directory: Directory,
    pub(super) now: Now,
}

/// What account handlers work with: the services, and storage by way of the connection's core.
#[derive(Clone)]
pub(super) struct Account {
    pub(super) attempts: SharedAttempts,
    pub(super) issuer: Issuer,
    pub(super) passwords: PasswordPool,
    pub(super) now: Now,
    pub(super) storage: StorageGate,
}

/// The routes for the connections of one core.
pub(super) fn router(services: Services, mailbox: CoreMailbox) -> Router {
    let Services { attempts, issuer, passwords, directory, now } = services;
    let account = Account { attempts, issuer, passwords, now, storage: StorageGate::new(mailbox) };
    let accounts = Router::new()
        .route("/v1/register", post(register))
        .route("/v1/login", post(log_in))
        .route("/v1/refresh", post(refresh).delete(forget))
        .with_state(account);
    let health = Router::new()
        .route("/v1/health/live", get(live))
        .route("/v1/health/ready", get(directory::is_ready))
        .route("/v1/gateways", get(directory::gateways))
        .with_state(directory);
    accounts
        .merge(health)
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(assets::serve)
        .layer(DefaultBodyLimit::max(HTTP_BODY_BYTES_MAX))
        .layer(middleware::from_fn(in_time))
        .layer(middleware::from_fn(with_a_length))
        .layer(middleware::map_response(with_security_headers))
}

async fn register(State(account): State<Account>, request: Request) -> Result<Response, Failure> {
    let client = client_of(&request)?;
    let mut object = read_object(request).await?;
    let keeping = Keeping::read(&mut object)?;
    let mut logged_in = accounts::register(&account, client, object).await?;
    let cookie = cookie_for(keeping, client, || logged_in.take_refresh());
    Ok(with_cookie(cookie, private(StatusCode::CREATED, logged_in)))
}

async fn log_in(State(account): State<Account>, request: Request) -> Result<Response, Failure> {
    let client = client_of(&request)?;
    let mut object = read_object(request).await?;
    let keeping = Keeping::read(&mut object)?;
    let mut logged_in = accounts::log_in(&account, client, object).await?;
    let cookie = cookie_for(keeping, client, || logged_in.take_refresh());
    Ok(with_cookie(cookie, private(StatusCode::OK, logged_in)))
}

async fn refresh(State(account): State<Account>, request: Request) -> Result<Response, Failure> {
    let client = client_of(&request)?;
    let headers = request.headers().clone();
    let (token, keeping) = match Refresh::read(read_object(request).await?)? {
        Refresh::Token(token) => (token, Keeping::Itself),
        Refresh::CookieOf(user) => {
            let missing = || RequestError::new(ErrorCode::ErrorUnauthenticated, "cookie: not there");
            let token = parse_refresh(&cookies::find(&headers, user).ok_or_else(missing)?)?;
            (token, Keeping::Cookie)
        }
    };
    let mut tokens = accounts::refresh(&account, client, token).await?;
    let cookie = cookie_for(keeping, client, || tokens.take_refresh());
    Ok(with_cookie(cookie, private(StatusCode::OK, tokens)))
}

/// `DELETE /v1/refresh`: a browser forgets an account. Its device is removed by logging out.
async fn forget(request: Request) -> Result<Response, Failure> {
    let client = client_of(&request)?;
    let user = read_user(read_object(request).await?)?;
    Ok(with_cookie(Some(cookies::dropped(user, client)), private(StatusCode::OK, serde_json::json!({}))))
}

/// For who keeps its refresh token in a cookie: the cookie, and the token is taken out of the answer.
fn cookie_for<'a>(
    keeping: Keeping,
    client: Client,
    take_refresh: impl FnOnce() -> &'a RefreshToken,
) -> Option<HeaderValue> {
    (keeping == Keeping::Cookie).then(|| cookies::set(take_refresh(), client))
}

fn with_cookie(cookie: Option<HeaderValue>, mut response: Response) -> Response {
    if let Some(cookie) = cookie {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

/// Whose request it is. Another site's page is refused: it has no business with anybody's account.
fn client_of(request: &Request) -> Result<Client, Failure> {
    let client = request.extensions().get::<Client>().copied();
    let missing = || RequestError::new(ErrorCode::ErrorInternal, "a request without its client");
    let client = client.ok_or_else(missing)?;
    if !cookies::is_own_page(request.headers(), client) {
        let (status, code) = (StatusCode::FORBIDDEN, ErrorCode::ErrorInvalidArgument);
        return Err(Failure::with_status(status, code, "Origin: another page's"));
    }
    Ok(client)
}

/// The process runs.
async fn live() -> Response {
    private(StatusCode::OK, serde_json::json!({ "status": "live" }))
}

/// An answer that no cache may keep.
pub(super) fn private(status: StatusCode, body: impl Serialize) -> Response {
    (status, [(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

async fn method_not_allowed() -> Failure {
    let code = ErrorCode::ErrorInvalidArgument;
    Failure::with_status(StatusCode::METHOD_NOT_ALLOWED, code, "method: not allowed for this path")
}

/// The JSON object in a request's body. Only `application/json` is read: another site's page can send other
/// types unasked, but not this one.
async fn read_object(request: Request) -> Result<Object, Failure> {
    let media_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = media_type.and_then(|value| value.split(';').next()).map(str::trim);
    if !media_type.is_some_and(|name| name.eq_ignore_ascii_case("application/json")) {
        let (status, code) = (StatusCode::UNSUPPORTED_MEDIA_TYPE, ErrorCode::ErrorInvalidArgument);
        return Err(Failure::with_status(status, code, "Content-Type: application/json is expected"));
    }
    if request.body().size_hint().lower() > HTTP_BODY_BYTES_MAX as u64 {
        return Err(too_large());
    }
    let read = timeout(Duration::from_millis(BODY_MS_MAX), Bytes::from_request(request, &()));
    let Ok(read) = read.await else {
        let (status, code) = (StatusCode::REQUEST_TIMEOUT, ErrorCode::ErrorTimedOut);
        return Err(Failure::with_status(status, code, "body: did not arrive in time"));
    };
    let body = read.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => too_large(),
        _ => Failure::field("body", "cannot be read"),
    })?;
    parse_object(&body)
}

fn too_large() -> Failure {
    RequestError::new(ErrorCode::ErrorBodyTooLarge, format!("body: {HTTP_BODY_BYTES_MAX} bytes at most"))
        .into()
}

/// Refuses bodies in chunks: nobody here needs them, and with them goes every way of hiding one request in another,
/// where two readers of the same bytes disagree about a body's end. What follows is not read.
async fn with_a_length(request: Request, next: Next) -> Response {
    if !request.headers().contains_key(header::TRANSFER_ENCODING) {
        return next.run(request).await;
    }
    let (status, code) = (StatusCode::LENGTH_REQUIRED, ErrorCode::ErrorInvalidArgument);
    let refused = Failure::with_status(status, code, "Transfer-Encoding: Content-Length is expected");
    ([(header::CONNECTION, "close")], refused).into_response()
}

/// Answers for a handler that takes too long. What it began is dropped; storage calls may still be carried out.
async fn in_time(request: Request, next: Next) -> Response {
    let answer = timeout(Duration::from_millis(REQUEST_MS_MAX), next.run(request)).await;
    answer.unwrap_or_else(|_| {
        Failure::from(RequestError::new(ErrorCode::ErrorTimedOut, "no answer in time")).into_response()
    })
}

async fn with_security_headers(mut response: Response) -> Response {
    const HEADERS: [(HeaderName, &str); 5] = [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    let headers: &mut HeaderMap = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

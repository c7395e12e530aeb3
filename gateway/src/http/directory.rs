//! Whether this gateway serves, and which ones a user had better go to.

use super::failure::Failure;
use super::routes::private;
use super::{Now, Readiness};
use crate::domain::auth::Verifier;
use crate::fleet::driver::FleetWatch;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use serde::Serialize;
use wire_protocol::error::RequestError;
use wire_protocol::v1::ErrorCode;

/// For how long a client may keep the list, in seconds: a gateway that comes has its share of users within it.
const GATEWAYS_TTL_S: u32 = 300;

/// What these handlers look at.
#[derive(Clone)]
pub(super) struct Directory {
    pub(super) verifier: Verifier,
    pub(super) fleet: FleetWatch,
    pub(super) ready: Readiness,
    pub(super) now: Now,
}

#[derive(Serialize)]
struct Health<'a> {
    status: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    zone: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    admits_per_s: Option<u32>,
}

#[derive(Serialize)]
struct Gateways<'a> {
    gateways: Vec<&'a str>,
    ttl_s: u32,
}

/// The process can serve. Other gateways ask, too, and learn where this one is and how many it admits.
pub(super) async fn is_ready(State(directory): State<Directory>) -> Result<Response, Failure> {
    (directory.ready)().map_err(|why| RequestError::new(ErrorCode::ErrorUnavailable, why))?;
    let view = directory.fleet.borrow().clone();
    let (zone, admits_per_s) = view.own.as_ref().map_or(("", None), |own| (&*own.zone, own.admits_per_s));
    Ok(private(StatusCode::OK, Health { status: "ready", zone, admits_per_s }))
}

/// `GET /v1/gateways`: the healthy gateways in the order of the user whose access token is shown.
pub(super) async fn gateways(
    State(directory): State<Directory>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let missing = || RequestError::new(ErrorCode::ErrorUnauthenticated, "Authorization: Bearer is expected");
    let token = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = token.and_then(|value| value.strip_prefix("Bearer ")).ok_or_else(missing)?;
    let user = directory.verifier.verify_access(token, (directory.now)())?.user;
    let view = directory.fleet.borrow().clone();
    // One that starts or leaves sends nobody to itself.
    let ranked = match (directory.ready)() {
        Ok(()) => view.ranked(user),
        Err(_) => view.ranked_others(user),
    };
    let gateways = ranked.iter().map(|address| &**address).collect();
    Ok(private(StatusCode::OK, Gateways { gateways, ttl_s: GATEWAYS_TTL_S }))
}

//! Refusals as HTTP: `{"code", "detail", "retry_after_ms"}` and the status that goes with the code.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use wire_protocol::error::RequestError;
use wire_protocol::v1::ErrorCode;

/// A request that was not carried out.
#[derive(Debug)]
pub(super) struct Failure {
    status: StatusCode,
    error: RequestError,
}

#[derive(Serialize)]
struct FailureBody<'a> {
    /// The name of the code in `errors.proto`.
    code: &'static str,
    /// Names the culprit. For people; programs use the code.
    detail: &'a str,
    retry_after_ms: u32,
}

impl Failure {
    /// A refusal whose status says more than its code.
    pub(super) fn with_status(status: StatusCode, code: ErrorCode, detail: &str) -> Self {
        Self { status, error: RequestError::new(code, detail) }
    }

    /// A field that cannot be taken as it is; the detail begins with its name.
    pub(super) fn field(name: &str, problem: &str) -> Self {
        RequestError::new(ErrorCode::ErrorInvalidArgument, format!("{name}: {problem}")).into()
    }
}

impl Failure {
    /// Names the culprit.
    pub(super) fn detail(&self) -> &str {
        &self.error.detail
    }

    /// Whether what was proved did not suffice.
    pub(super) fn is_unauthenticated(&self) -> bool {
        self.error.code == ErrorCode::ErrorUnauthenticated
    }
}

impl From<RequestError> for Failure {
    fn from(error: RequestError) -> Self {
        Self { status: status_of(error.code), error }
    }
}

fn status_of(code: ErrorCode) -> StatusCode {
    use ErrorCode::*;
    match code {
        ErrorMalformedFrame
        | ErrorHelloExpected
        | ErrorVersionUnsupported
        | ErrorUnexpectedFrame
        | ErrorInvalidArgument
        | ErrorTooManyMembers
        | ErrorUnknownHandle => StatusCode::BAD_REQUEST,
        ErrorUnauthenticated | ErrorTokenExpired => StatusCode::UNAUTHORIZED,
        ErrorNotAMember => StatusCode::FORBIDDEN,
        ErrorNotFound => StatusCode::NOT_FOUND,
        ErrorAlreadyExists | ErrorPredecessorMissing => StatusCode::CONFLICT,
        ErrorFrameTooLarge | ErrorBodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorThrottled => StatusCode::TOO_MANY_REQUESTS,
        ErrorOverloaded | ErrorTooManyInFlight | ErrorUnavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorTimedOut => StatusCode::GATEWAY_TIMEOUT,
        ErrorInternal | ErrorUnspecified => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let Self { status, error } = self;
        if status.is_server_error() {
            tracing::warn!(code = error.code.as_str_name(), detail = %error.detail, "an HTTP request failed");
        }
        let body = FailureBody {
            code: error.code.as_str_name(),
            detail: &error.detail,
            retry_after_ms: error.retry_after_ms,
        };
        let mut response = (status, Json(body)).into_response();
        if error.retry_after_ms > 0 {
            let seconds = error.retry_after_ms.div_ceil(1_000);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

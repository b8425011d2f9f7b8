//! Errors as responses: `application/problem+json`, whatever part made them.

use crate::error::Error;
use axum::response::{IntoResponse, Response};
use heptad_api::{ErrorCode, ProblemDetails};
use http::{HeaderValue, Method, StatusCode, Uri, header};

const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/problem+json");

pub(crate) fn response(problem: &ProblemDetails) -> Response {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = serde_json::to_vec(problem).expect("problem details have string keys and serialize");
    let mut response = (status, [(header::CONTENT_TYPE, CONTENT_TYPE)], body).into_response();
    if problem.code == ErrorCode::Unauthorized {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if problem.code == ErrorCode::Busy {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let problem = self.problem();
        if problem.status >= 500 {
            tracing::error!(detail = problem.detail, "a request failed");
        }
        response(&problem)
    }
}

pub(crate) async fn not_found(method: Method, uri: Uri) -> Error {
    let detail = format!("{method} {}: there is no such path; /v1/version is one", uri.path());
    Error::refused(ErrorCode::NotFound, detail)
}

pub(crate) async fn method_not_allowed(method: Method, uri: Uri) -> Error {
    Error::refused(ErrorCode::MethodNotAllowed, format!("{} does not take {method}", uri.path()))
}

/// Errors from the framework itself become problem details too.
pub(crate) async fn everywhere(answer: Response) -> Response {
    let status = answer.status();
    let content = answer.headers().get(header::CONTENT_TYPE);
    let plain = content.is_none_or(|kind| kind.as_bytes().starts_with(b"text/plain"));
    if !(status.is_client_error() || status.is_server_error()) || !plain {
        return answer;
    }
    let code = match status {
        StatusCode::NOT_FOUND => ErrorCode::NotFound,
        StatusCode::METHOD_NOT_ALLOWED => ErrorCode::MethodNotAllowed,
        StatusCode::PAYLOAD_TOO_LARGE => ErrorCode::TooLarge,
        _ if status.is_server_error() => ErrorCode::Internal,
        _ => ErrorCode::BadRequest,
    };
    let detail = status.canonical_reason().unwrap_or_default();
    response(&ProblemDetails::new(code, detail))
}

//! The responses that the proxy itself makes over HTTP: problem details (RFC 9457) and `Proxy-Status` (RFC 9209).
//! Decides nothing.

use crate::{error::CallError, response_body::ResponseBody};
use heptad_model::with_causes;
use http::{
    HeaderName, HeaderValue, Response, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER},
};
use serde_json::{Value, json};

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// The status, the title, and the error's name in `Proxy-Status`.
fn kind(error: &CallError) -> (StatusCode, &'static str, &'static str) {
    match error {
        CallError::Denied(_) => (StatusCode::FORBIDDEN, "Denied by policy", "http_request_denied"),
        CallError::AmbiguousPath(_) => (StatusCode::BAD_REQUEST, "Ambiguous path", "http_request_error"),
        CallError::NoEndpoint { .. } => {
            (StatusCode::SERVICE_UNAVAILABLE, "No ready endpoint", "destination_unavailable")
        }
        CallError::UnknownService { .. } => (StatusCode::NOT_FOUND, "Unknown service", "destination_not_found"),
        CallError::UnknownHost { .. } => (StatusCode::NOT_FOUND, "Unknown host", "destination_not_found"),
        CallError::Malformed { .. } => (StatusCode::BAD_REQUEST, "Malformed request", "http_request_error"),
        CallError::Unsupported { .. } => (StatusCode::NOT_IMPLEMENTED, "Not served", "http_request_error"),
        CallError::Unreachable { .. } => {
            (StatusCode::SERVICE_UNAVAILABLE, "Endpoints unreachable", "destination_unavailable")
        }
        CallError::Interrupted { .. } => (StatusCode::BAD_GATEWAY, "Connection broke", "connection_terminated"),
        CallError::TimedOut { .. } => (StatusCode::GATEWAY_TIMEOUT, "No response in time", "http_response_timeout"),
    }
}

/// The response for a call that got none from its service.
pub(crate) fn problem(error: &CallError) -> Response<ResponseBody> {
    let (status, title, name) = kind(error);
    let mut body = json!({ "title": title, "status": status.as_u16(), "detail": with_causes(error) });
    if let (CallError::Denied(denied), Value::Object(fields)) = (error, &mut body) {
        fields.insert("caller".to_owned(), denied.caller.to_string().into());
        fields.insert("target".to_owned(), denied.target.to_string().into());
        fields.insert("direction".to_owned(), denied.direction.to_string().into());
        fields.insert("policies".to_owned(), denied.policies.clone().into());
    }
    let mut response = Response::new(ResponseBody::own(format!("{body}\n")));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if let Ok(value) = HeaderValue::try_from(format!("heptad; error={name}")) {
        headers.insert(PROXY_STATUS, value);
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

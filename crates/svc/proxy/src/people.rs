//! Calls and questions of people, as the API offers them: through this proxy, decided by its table.

use crate::{Body, CallError, Proxy};
use heptad_api::{
    ErrorCode, ProblemDetails,
    mesh::{CallRequest, CallResponse, CheckResponse},
};
use heptad_route::{Caller, Explanation, Facts, HttpFacts, NoHeaders, explain};
use http_body_util::{BodyExt, Limited};
use std::collections::BTreeMap;

/// The most bytes of a body that such a call returns.
const CALL_BODY_BYTES_MAX: usize = 1 << 20;

fn caller(request: &CallRequest) -> Caller {
    request.from.clone().map_or(Caller::Operator, Caller::Service)
}

impl Proxy {
    /// Sends a request as the service that it names, or as operator. If no container answers, the mesh's own response
    /// is returned as the answer.
    pub async fn call_for(&self, request: CallRequest) -> Result<CallResponse, ProblemDetails> {
        if let Some(from) = request.from.as_ref().filter(|from| self.table().service(from).is_none()) {
            return Err(ProblemDetails::new(ErrorCode::NotFound, format!("there is no service {from} to call from")));
        }
        let bad = |what: String| ProblemDetails::new(ErrorCode::BadRequest, format!("calling {}: {what}", request.to));
        let mut sent = http::Request::builder().method(request.method.as_str()).uri(request.path.as_str());
        for (name, value) in &request.headers {
            sent = sent.header(name, value);
        }
        if !request.headers.keys().any(|name| name.eq_ignore_ascii_case("host")) {
            sent = sent.header(http::header::HOST, request.to.dns_name());
        }
        let sent = sent.body(Body::from(request.body.clone())).map_err(|error| bad(error.to_string()))?;
        match self.call(&caller(&request), &request.to, request.port, sent).await {
            Ok(answer) => {
                let (parts, body) = answer.response.into_parts();
                let body = Limited::new(body, CALL_BODY_BYTES_MAX).collect().await.map_err(|error| {
                    let detail = format!("calling {}: its answer broke off or is too long: {error}", request.to);
                    ProblemDetails::new(ErrorCode::Unavailable, detail)
                })?;
                let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
                Ok(CallResponse {
                    status: parts.status.as_u16(),
                    headers: parts.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
                    body: String::from_utf8_lossy(&body.to_bytes()).into_owned(),
                    served_by: Some(answer.taken.service),
                    container: Some(answer.taken.endpoint.container),
                    rule: answer.taken.rule,
                })
            }
            Err(error) => refused(&error),
        }
    }

    /// Whether a request would be allowed, and why.
    pub fn check_for(&self, request: &CallRequest) -> CheckResponse {
        let table = self.table();
        let (path, query) = match request.path.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (request.path.as_str(), None),
        };
        let caller = caller(request);
        let port = request.port.or_else(|| table.port_default(&request.to)).unwrap_or(0);
        let headers: Vec<(String, String)> =
            request.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect();
        let headers: &dyn heptad_route::Headers = if headers.is_empty() { &NoHeaders } else { &headers };
        let http = Some(HttpFacts { method: &request.method, path, query, headers });
        response(explain(&table, &Facts { caller: &caller, target: &request.to, port, http }))
    }
}

fn response(explanation: Explanation) -> CheckResponse {
    let checks = explanation.checks.iter().chain(explanation.backends.iter().flat_map(|b| &b.checks));
    let mut policies: Vec<String> = checks.flat_map(|check| check.selected_by.iter().cloned()).collect();
    policies.sort();
    policies.dedup();
    // Shares in thousandths, so that they are exact numbers.
    let share = |share: f64| (share * 1000.0).round() as u32;
    CheckResponse {
        allowed: explanation.is_allowed(),
        explanation: explanation.to_string(),
        policies,
        rule: explanation.rules.iter().find(|rule| rule.fails.is_none()).map(|rule| rule.name.clone()),
        backends: explanation.backends.iter().map(|b| (b.service.to_string(), share(b.share))).collect(),
    }
}

/// The mesh's own answer when nothing else answers.
fn refused(error: &CallError) -> Result<CallResponse, ProblemDetails> {
    let status = match error {
        CallError::AmbiguousPath(_) => 400,
        CallError::Denied(_) => 403,
        CallError::UnknownService { .. } | CallError::UnknownHost { .. } => 404,
        CallError::NoEndpoint { .. } => 503,
        _ => 502,
    };
    let headers = BTreeMap::from([("content-type".to_owned(), "text/plain".to_owned())]);
    let body = error.to_string();
    Ok(CallResponse { status, headers, body, served_by: None, container: None, rule: None })
}

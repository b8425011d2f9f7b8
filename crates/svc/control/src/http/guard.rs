//! Every request passes here: identified, within its caller's share, permitted by the rules, written to the audit
//! log.

use super::{
    App, Shared,
    authenticate::{Asking, Peer, bearer},
    body,
    place::Place,
    problem,
    stream::store_is_silent,
};
use crate::{
    audit::Line,
    authorize::{self, Asked, Principal, Verb},
    budget::{Caller, Full, Permit},
    error::{Error, Result},
};
use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures_util::StreamExt;
use heptad_api::{ErrorCode, Kind, ProblemDetails};
use heptad_model::{Container, Namespace};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use std::time::{Duration, Instant};

/// The most bytes of a path in the audit log.
const PATH_BYTES_MAX: usize = 1_024;

/// Admits a request if it is permitted and its caller does not have too many.
pub(crate) async fn guard(State(app): State<Shared>, request: Request, next: Next) -> Response {
    // Heartbeats stay in memory, and count again when the store is back.
    let path = request.uri().path();
    if *app.leader.store_is_silent().borrow() && !path.ends_with("/heartbeat") && !path.starts_with("/v1/health") {
        return store_is_silent().into_response();
    }
    let began = Instant::now();
    // A request of unknown origin is treated as the least trusted.
    let peer = request.extensions().get::<Peer>().cloned().unwrap_or(Peer::Tcp);
    let place = request.extensions().get::<Place>().cloned();
    let principal = match app.recognized(&peer, place.as_ref(), request.uri(), request.headers()).await {
        Ok(principal) => principal,
        Err(response) => return response,
    };
    let mut asked = Asked::of(request.method().as_str(), request.uri().path());
    let caller = Caller::of(&principal, place.as_ref().map_or("", Place::address));
    let (mut request, _permit) = match app.admitted(&caller, &asked, place.as_ref(), request).await {
        Ok(admitted) => admitted,
        Err(response) => return response,
    };
    let call = Call { method: request.method().clone(), path: request.uri().path().to_owned(), began };
    let token = match &principal {
        Principal::Person(_) => bearer(request.headers()).ok().flatten().map(<[u8]>::to_vec),
        _ => None,
    };
    let mut response = match app.allowed(&principal, &mut asked).await {
        Ok(()) => {
            request.extensions_mut().insert(principal.clone());
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(error) => error.into_response(),
    };
    app.after(&principal, &asked, call, response.status()).await;
    if matches!(principal, Principal::Ended(_)) {
        // Its next request comes over a connection that presents the new certificate.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    match token {
        Some(token) => until_revoked(app, token, response),
        None => response,
    }
}

/// The part of an audit line besides who and what.
struct Call {
    method: Method,
    path: String,
    began: Instant,
}

/// The answer to one request too many; with `close`, the connection ends too.
fn busy(full: Full, close: bool) -> Response {
    let mut response = problem::response(&ProblemDetails::new(ErrorCode::Busy, full.to_string()));
    if close {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

impl App {
    /// Identifies the caller. To find out whose token it is, the store is asked; until the answer comes, this is
    /// charged to the owner of the connection.
    async fn recognized(
        &self,
        peer: &Peer,
        place: Option<&Place>,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> std::result::Result<Principal, Response> {
        let looked_up = *peer == Peer::Tls(None) && headers.contains_key(header::AUTHORIZATION);
        let on_account_of = place.map_or_else(|| Caller::of(&Principal::Anonymous, ""), Place::holder);
        let permit = looked_up.then(|| self.requests.take(&on_account_of)).transpose();
        let _permit = permit.map_err(|full| busy(full, false))?;
        self.authenticate(peer, uri, headers).await.map_err(|error| {
            tracing::info!(path = uri.path(), %error, "somebody unknown was refused");
            error.into_response()
        })
    }

    /// A request within its caller's share. The body of an unidentified caller is read before it takes anything for
    /// which others wait.
    async fn admitted(
        &self,
        caller: &Caller,
        asked: &Asked,
        place: Option<&Place>,
        request: Request,
    ) -> std::result::Result<(Request, Permit), Response> {
        let request = match caller.is_stranger() {
            true => {
                let (parts, content) = request.into_parts();
                let content = body::of_stranger(content, self.options.stranger_body_timeout_ms).await;
                Request::from_parts(parts, Body::from(content.map_err(IntoResponse::into_response)?))
            }
            false => {
                let counted = place.map_or(Ok(()), |place| place.belongs_to(caller, &self.connections));
                counted.map_err(|full| busy(full, true))?;
                request
            }
        };
        let caller = match asked.sub.as_str() {
            "heartbeat" if asked.kind == Kind::Nodes.plural() => caller.clone().for_heartbeat(&asked.name),
            _ => caller.clone(),
        };
        Ok((request, self.requests.take(&caller).map_err(|full| busy(full, false))?))
    }

    /// Whether it is permitted.
    async fn allowed(&self, principal: &Principal, asked: &mut Asked) -> Result<()> {
        let looked_at = matches!(principal, Principal::Node(_) | Principal::Person(_));
        if looked_at && asked.kind == Kind::Containers.plural() && !asked.name.is_empty() {
            // For a container, what counts is where it runs and whose it is.
            let found = self.objects.get::<Container>(&Namespace::default(), &asked.name).await?.object;
            asked.namespace = found.service.namespace.0;
            asked.node = found.node.map(|node| node.0).unwrap_or_default();
        }
        authorize::require(principal, asked)?;
        self.conditions.admit(principal, asked)?;
        if asked.kind == Kind::Policies.plural() && asked.verb != Verb::Read && !asked.name.is_empty() {
            self.may_change_policy(principal, &Namespace(asked.namespace.clone()), &asked.name).await?;
        }
        Ok(())
    }

    /// Whether the caller may record an event about `subject`: a node only about itself and what is bound to it.
    pub(super) async fn may_tell(&self, Asking(principal): &Asking, subject: &str) -> Result<()> {
        let Principal::Node(node) = principal else { return Ok(()) };
        let own = match subject.split_once('/') {
            Some(("node", name)) => name == node.as_str(),
            Some(("container", id)) => {
                let found = self.objects.find::<Container>(&Namespace::default(), id).await?;
                found.is_none_or(|container| container.object.node.as_ref() == Some(node))
            }
            _ => false,
        };
        let refused = || format!("{principal} may not record events of {subject}; it is not bound to it");
        if own { Ok(()) } else { Err(Error::refused(ErrorCode::Forbidden, refused())) }
    }

    /// The consequences of an answer: a line in the audit log, and connections that are cut.
    async fn after(&self, principal: &Principal, asked: &Asked, call: Call, status: StatusCode) {
        let removed = asked.verb == Verb::Delete && asked.kind == Kind::Nodes.plural() && status.is_success();
        if let Some(trust) = self.parts.trust.as_ref().filter(|_| removed) {
            trust.roster().remove(&asked.name.as_str().into());
        }
        // Refused unidentified callers must not push others' lines out of the log.
        let noise = *principal == Principal::Anonymous && !status.is_success();
        let Some(audit) = self.audit.as_ref().filter(|_| asked.is_mutating() && !noise) else { return };
        // Refused identified callers fill no more than their own share of it.
        let left_out = self.refused.line(&principal.to_string(), status.is_client_error(), tokio::time::Instant::now());
        if let Some(left_out) = left_out {
            audit.log(&Line { left_out, ..self.line(principal, asked, call, status) }).await;
        }
    }

    fn line(&self, principal: &Principal, asked: &Asked, call: Call, status: StatusCode) -> Line {
        let (name, role) = match principal {
            Principal::Person(person) => (Some(person.name.clone()), Some(person.role.clone())),
            _ => (None, None),
        };
        Line {
            time: jiff::Timestamp::now().to_string(),
            server: self.options.server_url.is_some().then(|| self.options.server_name.clone()),
            principal: principal.to_string(),
            name,
            role,
            method: call.method.to_string(),
            path: call.path.chars().take(PATH_BYTES_MAX).collect(),
            verb: asked.verb.word(),
            kind: asked.kind.clone(),
            namespace: asked.namespace.clone(),
            object: asked.name.clone(),
            status: status.as_u16(),
            duration_ms: u64::try_from(call.began.elapsed().as_millis()).unwrap_or(u64::MAX),
            left_out: 0,
        }
    }
}

/// A stream for a person ends soon after the token was revoked or has ended.
fn until_revoked(app: Shared, token: Vec<u8>, response: Response) -> Response {
    let streams = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/x-ndjson");
    if !streams {
        return response;
    }
    let interval = Duration::from_millis(app.options.token_recheck_ms.max(1));
    let revoked = async move {
        loop {
            tokio::time::sleep(interval).await;
            let Ok(trust) = app.trust() else { return };
            // A store that does not answer revokes nothing.
            if trust.person(&token).await.is_err_and(|error| error.code() == ErrorCode::Unauthorized) {
                return;
            }
        }
    };
    response.map(|body| Body::from_stream(body.into_data_stream().take_until(Box::pin(revoked))))
}

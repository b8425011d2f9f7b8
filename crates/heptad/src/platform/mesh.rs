//! The mesh of this node: the proxy with the newest table, who calls, and calls on behalf of people.

use super::PlatformError;
use heptad_agent::{Agent, loopback_port};
use heptad_api::{
    ErrorCode, ProblemDetails,
    mesh::{CallRequest, CallResponse, CheckResponse},
};
use heptad_client::{Client, View, watch_state};
use heptad_control::{BoxFuture, MeshAccess};
use heptad_model::{Container, NetworkPolicy, Protocol, Service, ServiceKey, TrafficRule};
use heptad_proxy::{Body, CallError, CallerResolver, Options, Proxy};
use heptad_route::{Caller, Explanation, Facts, HttpFacts, Inputs, NoHeaders, Table, explain};
use http_body_util::{BodyExt, Limited};
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, OnceLock},
    time::Duration,
};

/// Most bytes of a body that a call on behalf of people returns.
const CALL_BODY_BYTES_MAX: usize = 1 << 20;

/// The agent of this node, once it runs; nobody calls before that.
pub(super) type AgentSlot = Arc<OnceLock<Arc<Agent>>>;

/// Finds callers by their container address, or by their process where containers have none.
struct Callers {
    agent: AgentSlot,
    by_address: bool,
}

impl CallerResolver for Callers {
    fn resolve(&self, peer: SocketAddr, local: SocketAddr) -> Caller {
        let service = self.agent.get().and_then(|agent| match self.by_address {
            true => agent.caller_at(peer.ip()),
            false => agent.caller_of_connection(peer, local),
        });
        service.map_or(Caller::External, Caller::Service)
    }
}

/// Starts the proxy. `transparent` is where redirected connections arrive; without it, callers are processes.
pub(super) async fn start_proxy(
    transparent: Option<SocketAddr>,
    ingress: Option<SocketAddr>,
    agent: AgentSlot,
) -> Result<Proxy, PlatformError> {
    let options = Options { transparent, ingress, ..Options::default() };
    let callers = Callers { agent, by_address: transparent.is_some() };
    Ok(Proxy::start(options, Arc::new(callers), Arc::new(Table::default())).await?)
}

/// Keeps the proxy's table up to date for ever; with `listen_on_services`, also a listener per service address.
pub(super) async fn follow(client: Client, proxy: Proxy, listen_on_services: bool) {
    let mut services = watch_state::<Service>(&client);
    let mut containers = watch_state::<Container>(&client);
    let mut policies = watch_state::<NetworkPolicy>(&client);
    let mut rules = watch_state::<TrafficRule>(&client);
    // Before everything is known nothing is forwarded: a policy that is missing would let calls pass.
    services.synced().await;
    policies.synced().await;
    rules.synced().await;
    containers.synced().await;
    let mut listened = BTreeMap::new();
    loop {
        level(|| {
            [services.view().revision, containers.view().revision, policies.view().revision, rules.view().revision]
        })
        .await;
        let (specs, running) = (objects(&services.view()), objects(&containers.view()));
        let (policy, rule) = (objects(&policies.view()), objects(&rules.view()));
        let inputs = Inputs { services: &specs, containers: &running, policies: &policy, rules: &rule };
        proxy.set_table(Arc::new(Table::build(&inputs)));
        if listen_on_services {
            let wanted = service_listeners(&specs);
            if wanted != listened {
                let failed = proxy.set_service_listeners(wanted.clone()).await;
                // Those that failed are tried again with the next change.
                if failed.is_empty() {
                    listened = wanted;
                }
                for error in failed {
                    tracing::warn!(%error, "a service address cannot be served");
                }
            }
        }
        tokio::select! {
            _ = services.changed() => {}
            _ = containers.changed() => {}
            _ = policies.changed() => {}
            _ = rules.changed() => {}
        }
    }
}

/// How long the kinds may take to come to one revision.
const LEVEL_MS_MAX: u64 = 100;

/// Waits until all kinds have been seen up to the same revision: a service that was applied together with its policy is
/// then never routed to without it. A server that is that slow, or away, is not waited for: the mesh must go on.
async fn level(revisions: impl Fn() -> [u64; 4]) {
    for _ in 0..LEVEL_MS_MAX {
        let seen = revisions();
        if seen.iter().all(|revision| *revision == seen[0]) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn objects<T: Clone>(view: &View<T>) -> Vec<T> {
    view.objects.values().map(|item| item.object.clone()).collect()
}

/// Where services are found by processes on loopback.
fn service_listeners(services: &[Service]) -> BTreeMap<SocketAddr, (ServiceKey, u16)> {
    let mut out = BTreeMap::new();
    for service in services {
        let Some(address) = service.address else { continue };
        for port in service.ports.iter().filter(|port| port.protocol == Protocol::Tcp) {
            let listen = SocketAddr::new(IpAddr::V4(address), loopback_port(port.container_port));
            out.insert(listen, (service.key(), port.container_port));
        }
    }
    out
}

/// Calls through the proxy, as the API offers them.
pub(super) struct Mesh(pub(super) Proxy);

fn caller(request: &CallRequest) -> Caller {
    request.from.clone().map_or(Caller::Operator, Caller::Service)
}

impl Mesh {
    async fn send(&self, request: CallRequest) -> Result<CallResponse, ProblemDetails> {
        if let Some(from) = request.from.as_ref().filter(|from| self.0.table().service(from).is_none()) {
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
        match self.0.call(&caller(&request), &request.to, request.port, sent).await {
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

    fn look(&self, request: &CallRequest) -> CheckResponse {
        let table = self.0.table();
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

/// What the mesh itself answers when nothing else does.
fn refused(error: &CallError) -> Result<CallResponse, ProblemDetails> {
    let status = match error {
        CallError::Denied(_) => 403,
        CallError::UnknownService { .. } | CallError::UnknownHost { .. } => 404,
        CallError::NoEndpoint { .. } => 503,
        _ => 502,
    };
    let headers = BTreeMap::from([("content-type".to_owned(), "text/plain".to_owned())]);
    let body = error.to_string();
    Ok(CallResponse { status, headers, body, served_by: None, container: None, rule: None })
}

impl MeshAccess for Mesh {
    fn call(&self, request: CallRequest) -> BoxFuture<'_, Result<CallResponse, ProblemDetails>> {
        Box::pin(self.send(request))
    }

    fn check(&self, request: CallRequest) -> BoxFuture<'_, CheckResponse> {
        Box::pin(async move { self.look(&request) })
    }
}

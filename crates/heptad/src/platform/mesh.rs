//! The mesh of this node: the proxy with the newest table, who calls, and calls on behalf of people.

use super::PlatformError;
use heptad_agent::{Agent, InProgress, Traffic, Wait, loopback_port};
use heptad_api::{
    ErrorCode, ProblemDetails,
    mesh::{CallRequest, CallResponse, CheckResponse},
};
use heptad_client::{Client, MeshView};
use heptad_control::{BoxFuture, MeshAccess};
use heptad_model::{ContainerId, NetworkPolicy, NodeName, Protocol, Service, ServiceKey, TrafficRule};
use heptad_net::Network;
use heptad_proxy::{Body, CallError, CallerResolver, Options, Parts, PeerConnector, Proxy, ProxyError};
use heptad_route::{Caller, Explanation, Facts, HttpFacts, Inputs, NoHeaders, Table, explain};
use http_body_util::{BodyExt, Limited};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr, TcpListener},
    sync::Arc,
};
use tokio::sync::{SetOnce, watch};

/// Most bytes of a body that a call on behalf of people returns.
const CALL_BODY_BYTES_MAX: usize = 1 << 20;

/// What the proxy calls its listener for requests from outside.
pub(super) const INGRESS_SOCKET: &str = "ingress";

/// The agent of this node, once it runs; nobody calls before that.
pub(super) type AgentSlot = Arc<SetOnce<Arc<Agent>>>;

/// Finds callers by their container address, or by their process where containers have none.
struct Resolver {
    agent: AgentSlot,
    by_address: bool,
}

impl CallerResolver for Resolver {
    fn resolve(&self, peer: SocketAddr, local: SocketAddr) -> Caller {
        let service = self.agent.get().and_then(|agent| match self.by_address {
            true => agent.caller_at(peer.ip()),
            false => agent.caller_of_connection(peer, local),
        });
        service.map_or(Caller::External, Caller::Service)
    }
}

/// What comes to the containers of this node, as its proxy tells the agent.
pub(super) struct ToContainers(pub(super) Proxy);

impl Traffic for ToContainers {
    fn requests_ended<'a>(&'a self, container: &'a ContainerId) -> Wait<'a> {
        Box::pin(self.0.requests_ended(container))
    }
    fn flows_ended<'a>(&'a self, container: &'a ContainerId) -> Wait<'a> {
        Box::pin(self.0.flows_ended(container))
    }
    fn in_progress(&self, container: &ContainerId) -> InProgress {
        let heptad_proxy::InProgress { requests, flows } = self.0.in_progress(container);
        InProgress { requests, flows }
    }
}

/// Where a proxy listens, and how it reaches other nodes.
#[derive(Default)]
pub(super) struct ProxyParts {
    /// Where redirected connections arrive; without it, callers are processes.
    pub(super) transparent: Option<SocketAddr>,
    /// Where requests from outside arrive.
    pub(super) ingress: Option<TcpListener>,
    /// The node and its trust domain, with the way to others.
    pub(super) others: Option<(NodeName, String, Arc<dyn PeerConnector>)>,
    /// Listeners of the process before this one.
    pub(super) inherited: BTreeMap<String, TcpListener>,
}

/// Starts the proxy; it accepts nothing before `follow` has given it a table.
pub(super) async fn start_proxy(parts: ProxyParts, agent: AgentSlot) -> Result<Proxy, PlatformError> {
    let ProxyParts { transparent, ingress, others, mut inherited } = parts;
    let address = ingress.as_ref().map(TcpListener::local_addr).transpose().map_err(ProxyError::Adopt)?;
    inherited.extend(ingress.map(|listener| (INGRESS_SOCKET.to_owned(), listener)));
    let callers = Resolver { agent, by_address: transparent.is_some() };
    let options = Options { transparent, ingress: address, ..Options::default() };
    let mut options = options.within_open_files(open_files_max());
    let mut parts = Parts { inherited, ..Parts::new(Arc::new(callers)) };
    if let Some((node, trust_domain, connector)) = others {
        options = Options { node: Some(node), trust_domain, ..options };
        parts.connector = Some(connector);
    }
    Ok(Proxy::start_with(options, parts).await?)
}

/// How many files and sockets this process may have open: as many as the system lets it, not the few that most begin with.
fn open_files_max() -> u64 {
    const UNKNOWN: u64 = 1_024;
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return UNKNOWN };
    if soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_err() {
        return soft;
    }
    hard
}

/// How callers on this node reach services.
pub(super) enum Callers {
    /// Containers, whose connections the network redirects to the proxy, or refuses where nobody serves.
    Redirected(Arc<Network>),
    /// Processes: with a listener per service address at which somebody serves.
    Listening,
    /// There are none.
    None,
}

/// Keeps the proxy's table up to date for ever, and what callers find at the services' addresses. The first table comes when
/// everything is known and, if this is a node, its agent can say who calls: until then connections wait.
pub(super) async fn follow(client: Client, proxy: Proxy, callers: Callers, agent: Option<AgentSlot>) {
    let mut mesh = client.follow_mesh();
    let mut change = mesh.changed().await;
    if let Some(agent) = agent {
        agent.wait().await;
    }
    let mut table = compiled(mesh.view());
    let (tell, told) = watch::channel(Arc::default());
    let reached = tokio::spawn(follow_unserved(proxy.clone(), callers, told));
    let _ended_with_this = AbortOnDrop(reached);
    loop {
        let view = mesh.view();
        if !change.only_containers {
            table = compiled(view);
        }
        let next = Arc::new(table.with_containers(view.containers.values()).at_revision(view.revision));
        proxy.set_table(Arc::clone(&next));
        // After the proxy has it: what is let through is served. Others do not wait for it.
        tell.send_replace(next);
        change = mesh.changed().await;
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Lets callers on this node through to the services at which somebody serves, and refuses the others.
async fn follow_unserved(proxy: Proxy, callers: Callers, mut tables: watch::Receiver<Arc<Table>>) {
    let mut listened = None;
    while tables.changed().await.is_ok() {
        let table = Arc::clone(&tables.borrow_and_update());
        match &callers {
            Callers::Redirected(network) => {
                if let Err(error) = network.set_unserved(table.unserved()).await {
                    tracing::warn!(%error, "connections to services without a ready container are not refused");
                }
            }
            Callers::Listening => {
                let wanted = service_listeners(&table);
                if listened.as_ref() != Some(&wanted) {
                    let failed = proxy.set_service_listeners(wanted.clone()).await;
                    // Those that failed are tried again with the next change.
                    listened = failed.is_empty().then_some(wanted);
                    for error in failed {
                        tracing::warn!(%error, "a service address cannot be served");
                    }
                }
            }
            Callers::None => return,
        }
    }
}

/// The table of a view without its containers.
fn compiled(view: &MeshView) -> Table {
    let services: Vec<Service> = view.services.values().cloned().collect();
    let policies: Vec<NetworkPolicy> = view.policies.values().cloned().collect();
    let rules: Vec<TrafficRule> = view.rules.values().cloned().collect();
    let table = Table::build(&Inputs { services: &services, containers: &[], policies: &policies, rules: &rules });
    for problem in table.problems() {
        tracing::warn!(%problem, "the mesh");
    }
    table
}

/// Where services are found by processes on loopback, as long as somebody serves.
fn service_listeners(table: &Table) -> BTreeMap<SocketAddr, (ServiceKey, u16)> {
    let unserved = table.unserved();
    let mut out = BTreeMap::new();
    for service in table.services() {
        let Some(address) = service.address else { continue };
        for port in service.ports.iter().filter(|port| port.protocol == Protocol::Tcp) {
            if !unserved.contains(&(address, port.container_port)) {
                let listen = SocketAddr::new(IpAddr::V4(address), loopback_port(port.container_port));
                out.insert(listen, (service.key(), port.container_port));
            }
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

impl MeshAccess for Mesh {
    fn call(&self, request: CallRequest) -> BoxFuture<'_, Result<CallResponse, ProblemDetails>> {
        Box::pin(self.send(request))
    }

    fn check(&self, request: CallRequest) -> BoxFuture<'_, CheckResponse> {
        Box::pin(async move { self.look(&request) })
    }
}

//! The mesh proxy of this process beside its agent: who calls, what arrives for containers, how others are reached.

use super::PlatformError;
use heptad_agent::{Agent, InProgress, Traffic, Wait};
use heptad_api::{
    ProblemDetails,
    mesh::{CallRequest, CallResponse, CheckResponse},
};
use heptad_client::Client;
use heptad_control::MeshAccess;
use heptad_member::{Members, Spoken};
use heptad_model::{ContainerId, NodeName};
use heptad_net::Network;
use heptad_proxy::{
    BoxError, BoxFuture, CallerResolver, Callers, Io, Options, Parts, PeerConnector, PeerProtocol, Proxy, ProxyError,
    Redirection,
};
use heptad_route::Caller;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::Arc,
};
use tokio::sync::SetOnce;

/// The name of the proxy's listener for requests from outside.
pub(super) const INGRESS_SOCKET: &str = "ingress";

/// The agent of this node, once it runs; there are no calls before that.
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

/// The traffic to this node's containers, as its proxy reports it to the agent.
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
    /// Listeners of the previous program.
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

/// Keeps the proxy of a node up to date for ever; the node's agent identifies callers.
pub(super) fn follow(
    client: &Client,
    proxy: &Proxy,
    callers: Callers,
    agent: &AgentSlot,
) -> impl Future<Output = ()> + use<> {
    let agent = agent.clone();
    heptad_proxy::follow(client.clone(), proxy.clone(), callers, async move {
        agent.wait().await;
    })
}

/// How many files and sockets this process may open: raises the low default limit to what the system allows.
fn open_files_max() -> u64 {
    const UNKNOWN: u64 = 1_024;
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return UNKNOWN };
    if soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_err() {
        return soft;
    }
    hard
}

/// The way to the proxies of other nodes.
pub(super) struct Peers(pub(super) Members);

impl PeerConnector for Peers {
    fn connect<'a>(&'a self, node: &'a NodeName, protocol: PeerProtocol) -> BoxFuture<'a, io::Result<Box<dyn Io>>> {
        let spoken = match protocol {
            PeerProtocol::Http => Spoken::Mesh,
            PeerProtocol::Stream => Spoken::Stream,
        };
        Box::pin(async move { Ok(Box::new(self.0.dial(node, spoken).await?) as Box<dyn Io>) })
    }
}

/// The container network, which redirects to the proxy.
pub(super) struct ToProxy(pub(super) Arc<Network>);

impl Redirection for ToProxy {
    fn set_served(&self, served: BTreeMap<Ipv4Addr, BTreeSet<u16>>) -> BoxFuture<'_, Result<(), BoxError>> {
        Box::pin(async move { Ok(self.0.set_served(served).await?) })
    }
}

/// Calls through the proxy, as the API offers them.
pub(super) struct Mesh(pub(super) Proxy);

impl MeshAccess for Mesh {
    fn call(&self, request: CallRequest) -> BoxFuture<'_, Result<CallResponse, ProblemDetails>> {
        Box::pin(self.0.call_for(request))
    }

    fn check(&self, request: CallRequest) -> BoxFuture<'_, CheckResponse> {
        Box::pin(async move { self.0.check_for(&request) })
    }
}

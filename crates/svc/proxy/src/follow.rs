//! Keeps a proxy's table up to date with the API's newest view, and lets this node's callers through to services that
//! are served. Knows no packet filter: whoever has one is told which services are served.

use crate::{BoxError, BoxFuture, Proxy};
use heptad_client::{Client, MeshView};
use heptad_model::{NetworkPolicy, Protocol, Service, ServiceKey, TrafficRule};
use heptad_route::{Inputs, Table};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// When to retry letting callers through after a failure.
const AGAIN: Duration = Duration::from_secs(1);

/// The part that redirects the connections of containers.
pub trait Redirection: Send + Sync {
    /// From now on, redirects connections to these addresses at these ports only, and refuses them at others.
    fn set_served(&self, served: BTreeMap<Ipv4Addr, BTreeSet<u16>>) -> BoxFuture<'_, Result<(), BoxError>>;
}

/// How callers on this node reach services.
pub enum Callers {
    /// Callers are containers: the network redirects their connections to the proxy, or refuses them where nobody
    /// serves.
    Redirected(Box<dyn Redirection>),
    /// Callers are processes: each served service address has a listener, on the loopback port that stands for the
    /// service's.
    Listening(fn(u16) -> u16),
    /// There are no callers.
    None,
}

impl fmt::Debug for Callers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Redirected(_) => "Redirected",
            Self::Listening(_) => "Listening",
            Self::None => "None",
        })
    }
}

/// Keeps the proxy's table up to date for ever, and what callers find at the services' addresses. The first table
/// arrives when everything is known and `callers_known` is done: from then on the resolver can identify callers, and
/// until then connections wait.
pub async fn follow(client: Client, proxy: Proxy, callers: Callers, callers_known: impl Future<Output = ()>) {
    let mut mesh = client.follow_mesh();
    let mut change = mesh.changed().await;
    callers_known.await;
    let mut table = compiled(mesh.view());
    let (tell, told) = watch::channel(Arc::default());
    let _ends_with_this = AbortOnDropHandle::new(tokio::spawn(follow_served(proxy.clone(), callers, told)));
    loop {
        let view = mesh.view();
        if !change.only_containers {
            table = compiled(view);
        }
        let next = Arc::new(table.with_containers(view.containers.values()).at_revision(view.revision));
        proxy.set_table(Arc::clone(&next));
        // After the proxy has the table: what is let through is served. Others do not wait for it.
        tell.send_replace(next);
        change = mesh.changed().await;
    }
}

/// Lets callers on this node through to the services that are served, and refuses the others.
async fn follow_served(proxy: Proxy, callers: Callers, mut tables: watch::Receiver<Arc<Table>>) {
    let (mut listened, mut failed, mut told) = (None, false, String::new());
    // What is retried each second is logged once.
    let mut tell = move |said: String| {
        if !said.is_empty() && said != told {
            tracing::warn!("{said}");
        }
        told = said;
    };
    loop {
        tokio::select! {
            changed = tables.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(AGAIN), if failed => {}
        }
        let table = Arc::clone(&tables.borrow_and_update());
        match &callers {
            Callers::Redirected(network) => {
                let set = network.set_served(table.served()).await;
                failed = set.is_err();
                let said = set
                    .err()
                    .map(|error| format!("connections to services that nobody serves cannot be refused: {error}"));
                tell(said.unwrap_or_default());
            }
            Callers::Listening(loopback_port) => {
                let wanted = service_listeners(&table, *loopback_port);
                if listened.as_ref() != Some(&wanted) {
                    let errors = proxy.set_service_listeners(wanted.clone()).await;
                    failed = !errors.is_empty();
                    listened = errors.is_empty().then_some(wanted);
                    let said = errors.iter().map(|error| format!("a service address cannot be served: {error}"));
                    tell(said.collect::<Vec<_>>().join("; "));
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

/// Where processes find services on loopback, as long as somebody serves.
fn service_listeners(table: &Table, loopback_port: fn(u16) -> u16) -> BTreeMap<SocketAddr, (ServiceKey, u16)> {
    let served = table.served();
    let mut out = BTreeMap::new();
    for service in table.services() {
        let Some(address) = service.address else { continue };
        for port in service.ports.iter().filter(|port| port.protocol == Protocol::Tcp) {
            if served.get(&address).is_some_and(|ports| ports.contains(&port.container_port)) {
                let listen = SocketAddr::new(IpAddr::V4(address), loopback_port(port.container_port));
                out.insert(listen, (service.key(), port.container_port));
            }
        }
    }
    out
}

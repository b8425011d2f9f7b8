//! Accepts client connections and finds out who calls and what is addressed, within each caller's share of connections.

use crate::{
    context::{Context, Target},
    core::Core,
    origin::{self, CallerResolver},
    phases::Part,
    serve_http, serve_stream,
    shares::Party,
    socket,
};
use bytes::Bytes;
use heptad_model::ServiceKey;
use heptad_route::Caller;
use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

/// How long to wait after the kernel refused to accept, for example for want of file descriptors.
const ACCEPT_RETRY_MS: u64 = 50;

/// What is served on a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Redirected connections to service addresses.
    Transparent,
    /// Connections to one service.
    Service(ServiceKey, u16),
    /// Requests from outside to exposed services.
    Ingress,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transparent => f.write_str("redirected connections"),
            Self::Service(key, port) => write!(f, "port {port} of {key}"),
            Self::Ingress => f.write_str("exposed services"),
        }
    }
}

impl Role {
    /// The part of the traffic that comes through it.
    pub(crate) fn part(&self) -> Part {
        match self {
            Self::Ingress => Part::Ingress,
            Self::Transparent | Self::Service(..) => Part::All,
        }
    }

    /// The name under which the next process finds the listener.
    pub(crate) fn name(&self, address: SocketAddr) -> String {
        match self {
            Self::Transparent => "transparent".to_owned(),
            Self::Ingress => "ingress".to_owned(),
            Self::Service(..) => format!("service/{address}"),
        }
    }
}

/// What all listeners of a proxy share.
pub(crate) struct Shared {
    pub(crate) core: Arc<Core>,
    pub(crate) resolver: Arc<dyn CallerResolver>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("core", &self.core).finish_non_exhaustive()
    }
}

/// Accepts from the first table until `stop`. Another holder of the listener keeps its queue.
pub(crate) async fn accept(shared: Arc<Shared>, listener: Arc<TcpListener>, role: Role, stop: CancellationToken) {
    if stop.run_until_cancelled(shared.core.phases.running().cancelled()).await.is_none() {
        return;
    }
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, %role, "accepting a connection failed");
                sleep(Duration::from_millis(ACCEPT_RETRY_MS)).await;
                continue;
            }
        };
        // Accepted connections are served even if the proxy stops meanwhile.
        spawn(&shared, stream, peer, role.clone());
    }
}

fn spawn(shared: &Arc<Shared>, stream: TcpStream, peer: SocketAddr, role: Role) {
    let (served, part) = (Arc::clone(shared), role.part());
    shared.core.phases.spawn(part, async move { serve(&served, stream, peer, role).await });
}

async fn serve(shared: &Shared, stream: TcpStream, peer: SocketAddr, role: Role) {
    let core = &shared.core;
    socket::configure(&stream, &core.options);
    let Ok(local) = stream.local_addr() else { return };
    let target = match role {
        Role::Ingress => Target::Host,
        Role::Service(key, port) => Target::Service(key, port),
        Role::Transparent => match redirected(core, &stream, local) {
            Some(target) => target,
            None => return socket::reset(stream),
        },
    };
    let is_ingress = matches!(target, Target::Host);
    let caller = if is_ingress { Caller::External } else { shared.resolver.resolve(peer, local) };
    let shares = if is_ingress { &core.outside } else { &core.callers };
    let Some(place) = shares.enter(Party::client(caller.clone(), peer.ip())) else {
        tracing::debug!(%peer, %caller, "a connection was refused: no more are permitted at once");
        return socket::reset(stream);
    };
    // Until it sends a request.
    place.idle().store(true, Relaxed);
    let context = Arc::new(Context::new(Arc::clone(core), caller, target, peer, Arc::new(place)));
    match is_ingress {
        true => serve_http::serve(context, stream, Bytes::new()).await,
        false => serve_stream::serve(context, stream).await,
    }
}

/// The service to which a redirected connection was addressed.
fn redirected(core: &Core, stream: &TcpStream, local: SocketAddr) -> Option<Target> {
    let destination = origin::destination(stream, local);
    let SocketAddr::V4(address) = destination else { return None };
    let found = core.table().service_at(*address.ip()).cloned();
    if found.is_none() {
        tracing::debug!(%destination, "no service has the address of a redirected connection");
    }
    Some(Target::Service(found?, address.port()))
}

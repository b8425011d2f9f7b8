//! The one port of a node: TLS with a member's certificate, then the protocol that ALPN names. Decides who may speak
//! what.

use crate::{
    Caller, Members, Spoken,
    listen::{Accepted, Endpoint},
};
use heptad_client::BoxFuture;
use heptad_pki::{ClientAuth, Ended, TlsIdentity};
use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::Duration,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::server::TlsStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// A connection that a member has made.
pub type MemberStream = TlsStream<TcpStream>;

/// What a node does for other members.
pub trait NodeServices: Send + Sync + 'static {
    /// Serves a connection on which `caller` may speak this protocol, until it ends.
    fn serve(&self, spoken: Spoken, caller: Caller, stream: MemberStream) -> BoxFuture<'_, io::Result<()>>;
}

/// How long the connections that servers keep open outlive the end of the port.
const KEPT_OPEN_MS_MAX: u64 = 500;

/// A running node port. Dropping it ends it and all its connections.
#[derive(Debug)]
pub struct NodePort {
    /// Its address.
    pub address: SocketAddr,
    /// A copy of the listening socket, so that connections wait in its queue after the end.
    listener: OwnedFd,
    stop: CancellationToken,
    abort: CancellationToken,
    tracker: TaskTracker,
}

impl Drop for NodePort {
    fn drop(&mut self) {
        self.stop.cancel();
        self.abort.cancel();
    }
}

impl NodePort {
    /// Serves on `listener` with this identity.
    pub fn start(
        listener: TcpListener,
        identity: &TlsIdentity,
        members: Members,
        services: Arc<dyn NodeServices>,
    ) -> io::Result<Self> {
        let (address, copy) = (listener.local_addr()?, listener.as_fd().try_clone_to_owned()?);
        let spoken = Spoken::ON_NODES.map(Spoken::alpn);
        let tls = identity.server_config_with(&spoken, ClientAuth::Required, Ended::Passed);
        let (stop, abort, tracker) = (CancellationToken::new(), CancellationToken::new(), TaskTracker::new());
        let (ended, stopping) = (abort.clone(), stop.clone());
        let handle = move |accepted: Accepted| {
            let (members, services) = (members.clone(), services.clone());
            let (ended, stopping) = (ended.clone(), stopping.clone());
            async move {
                let peer = accepted.address;
                let served = tokio::select! {
                    () = ended.cancelled() => Ok(()),
                    served = serve(&members, &*services, accepted, &stopping) => served,
                };
                if let Err(error) = served {
                    tracing::debug!(%peer, %error, "a connection to the node port ended");
                }
            }
        };
        let endpoint = Endpoint { listener, tls };
        tracker.spawn(endpoint.serve(tracker.clone(), stop.clone(), handle));
        Ok(Self { address, listener: copy, stop, abort, tracker })
    }

    /// A copy of its listening socket, for the next node port.
    pub fn listener(&self) -> io::Result<OwnedFd> {
        self.listener.try_clone()
    }

    /// Accepts nothing more, and gives what is in progress some time to end.
    pub async fn shutdown(&self, drain_ms_max: u64) {
        self.stop.cancel();
        self.tracker.close();
        let drained = tokio::time::timeout(Duration::from_millis(drain_ms_max), self.tracker.wait()).await;
        if drained.is_err() {
            self.abort.cancel();
            self.tracker.wait().await;
        }
    }
}

/// Lets a conversation that the other side keeps open go on until shortly after this port begins to end: requests in it
/// take less time than that, and new connections wait until it is over.
async fn until_stopped(stopping: &CancellationToken, served: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    let ended = async {
        stopping.cancelled().await;
        tokio::time::sleep(Duration::from_millis(KEPT_OPEN_MS_MAX)).await;
    };
    tokio::select! {
        () = ended => Ok(()),
        served = served => served,
    }
}

async fn serve(
    members: &Members,
    services: &dyn NodeServices,
    accepted: Accepted,
    stopping: &CancellationToken,
) -> io::Result<()> {
    let Some(peer) = &accepted.peer else { return Err(io::ErrorKind::PermissionDenied.into()) };
    let caller = match members.caller(peer).await {
        Ok(caller) => caller,
        Err(error) => {
            tracing::warn!(peer = %peer.id, address = %accepted.address, %error, "a connection was refused");
            return Err(error);
        }
    };
    let Some(spoken) = Spoken::ON_NODES.into_iter().find(|spoken| spoken.alpn() == accepted.alpn()) else {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "this node port speaks no protocol of that name"));
    };
    match (spoken, &caller) {
        (Spoken::Blob | Spoken::Node, Caller::Node(name)) => {
            let text = format!("node {name} asked for what only servers may ask");
            Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
        }
        (Spoken::Blob | Spoken::Node, Caller::Server(_)) => {
            until_stopped(stopping, services.serve(spoken, caller, accepted.stream)).await
        }
        (Spoken::Mesh | Spoken::Stream | Spoken::Api, _) => services.serve(spoken, caller, accepted.stream).await,
    }
}

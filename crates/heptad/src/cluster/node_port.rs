//! The one port of a node: TLS with the certificate of a member, then what ALPN says. Decides who may speak what.

use super::{Accepted, Caller, Endpoint, Members, alpn, answer_servers};
use crate::platform::LocalNodeAccess;
use heptad_pki::{ClientAuth, Ended, TlsIdentity};
use heptad_proxy::{PeerProtocol, Proxy};
use heptad_store::{Disks, serve_blobs};
use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::Duration,
};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// What a node does for other members.
#[derive(Clone)]
pub(crate) struct NodeServices {
    /// Its containers.
    pub(crate) access: Arc<LocalNodeAccess>,
    /// Its proxy.
    pub(crate) proxy: Proxy,
    /// Its disks of the storage.
    pub(crate) disks: Arc<Disks>,
}

impl std::fmt::Debug for NodeServices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeServices").field("disks", &self.disks.keys()).finish_non_exhaustive()
    }
}

/// How long servers' connections, which they keep open, outlive the end of the port.
const KEPT_OPEN_MS_MAX: u64 = 500;

/// A node port that serves. Dropping it ends it and all its connections.
#[derive(Debug)]
pub(crate) struct NodePort {
    pub(crate) address: SocketAddr,
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
    pub(crate) fn start(
        listener: TcpListener,
        identity: &TlsIdentity,
        members: Members,
        services: NodeServices,
    ) -> io::Result<Self> {
        let (address, copy) = (listener.local_addr()?, listener.as_fd().try_clone_to_owned()?);
        let spoken = [alpn::MESH, alpn::STREAM, alpn::BLOB, alpn::NODE];
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
                    served = serve(&members, services, accepted, &stopping) => served,
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

    /// A copy of its listening socket, for a node port after this one.
    pub(crate) fn listener(&self) -> io::Result<OwnedFd> {
        self.listener.try_clone()
    }

    /// Accepts nothing more, and gives what is in progress some time to end.
    pub(crate) async fn shutdown(&self, drain_ms_max: u64) {
        self.stop.cancel();
        self.tracker.close();
        let drained = tokio::time::timeout(Duration::from_millis(drain_ms_max), self.tracker.wait()).await;
        if drained.is_err() {
            self.abort.cancel();
            self.tracker.wait().await;
        }
    }
}

/// Lets a conversation that its other side keeps open go on until shortly after the end of this port has begun: what is
/// asked in it takes less time, and whoever connects waits until it is over.
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
    services: NodeServices,
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
    let spoken = accepted.alpn().to_vec();
    match (spoken.as_slice(), caller) {
        (alpn::MESH, caller) => {
            services.proxy.serve_peer(accepted.stream, PeerProtocol::Http, caller.as_peer()).await;
            Ok(())
        }
        (alpn::STREAM, caller) => {
            services.proxy.serve_peer(accepted.stream, PeerProtocol::Stream, caller.as_peer()).await;
            Ok(())
        }
        (alpn::BLOB, Caller::Server(_)) => until_stopped(stopping, serve_blobs(services.disks, accepted.stream)).await,
        (alpn::NODE, Caller::Server(_)) => {
            until_stopped(stopping, answer_servers(services.access, accepted.stream)).await
        }
        (alpn::BLOB | alpn::NODE, Caller::Node(name)) => {
            let text = format!("node {name} asked for what only servers may ask");
            Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
        }
        _ => Err(io::Error::new(io::ErrorKind::Unsupported, "nothing is spoken here under that name")),
    }
}

//! What a node serves to other members on its port: each protocol by the part of this process that speaks it.

use super::access::LocalNodeAccess;
use heptad_client::BoxFuture;
use heptad_member::{Caller, MemberStream, NodeServices, Spoken, answer_servers};
use heptad_proxy::{PeerNode, PeerProtocol, Proxy};
use heptad_store::{Disks, serve_blobs};
use std::{io, sync::Arc};

/// The parts of a node that serve others.
pub(super) struct Services {
    pub(super) access: Arc<LocalNodeAccess>,
    pub(super) proxy: Proxy,
    pub(super) disks: Arc<Disks>,
}

/// As the proxy knows it.
fn peer(caller: Caller) -> PeerNode {
    match caller {
        Caller::Server(_) => PeerNode { node: None, is_server: true },
        Caller::Node(name) => PeerNode::node(name),
    }
}

impl Services {
    async fn serve_peer(&self, stream: MemberStream, protocol: PeerProtocol, caller: Caller) -> io::Result<()> {
        self.proxy.serve_peer(stream, protocol, peer(caller)).await;
        Ok(())
    }
}

impl NodeServices for Services {
    fn serve(&self, spoken: Spoken, caller: Caller, stream: MemberStream) -> BoxFuture<'_, io::Result<()>> {
        match spoken {
            Spoken::Mesh => Box::pin(self.serve_peer(stream, PeerProtocol::Http, caller)),
            Spoken::Stream => Box::pin(self.serve_peer(stream, PeerProtocol::Stream, caller)),
            Spoken::Blob => Box::pin(serve_blobs(self.disks.clone(), stream)),
            Spoken::Node => Box::pin(answer_servers(self.access.clone(), stream)),
            Spoken::Api => Box::pin(async { Err(io::ErrorKind::Unsupported.into()) }),
        }
    }
}

//! A stream of bytes to an endpoint: a connection on this node, or a flow through another node's proxy. Does not know
//! what is sent, and does not choose endpoints.

use crate::{
    assertion::{Assertion, Cause},
    attempt::Pick,
    call::Origin,
    core::Core,
    peer::Io,
    peer_link::Peer,
    socket,
};
use heptad_model::NodeName;
use std::{fmt, io, sync::Arc};
use tokio::net::TcpStream;

/// The way to an endpoint.
pub(crate) enum Stream {
    Here(TcpStream),
    /// Through the proxy of another node.
    Peer(Box<dyn Io>),
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Here(_) => "Here",
            Self::Peer(_) => "Peer",
        })
    }
}

/// Opens a stream to the picked endpoint.
pub(crate) async fn open(core: &Core, origin: &Origin<'_>, pick: &Pick) -> Result<Stream, Cause> {
    let endpoint = &pick.taken.endpoint;
    match core.pool.remote(endpoint) {
        Some(node) => open_at(core, origin, pick, node).await.map(Stream::Peer),
        None => Ok(Stream::Here(socket::connect(endpoint.address, &core.options).await?)),
    }
}

/// The same for an endpoint of another node.
pub(crate) async fn open_at(
    core: &Core,
    origin: &Origin<'_>,
    pick: &Pick,
    node: &NodeName,
) -> Result<Box<dyn Io>, Cause> {
    peer(core, node)?.stream(&assertion(core, origin, pick), pick.has_alternative).await
}

/// The proxy of another node.
pub(crate) fn peer(core: &Core, node: &NodeName) -> io::Result<Arc<Peer>> {
    let none = || io::Error::new(io::ErrorKind::Unsupported, format!("there is no way to the node {node}"));
    core.peers.peer(node).ok_or_else(none)
}

/// What that proxy is told about the caller and the container.
pub(crate) fn assertion(core: &Core, origin: &Origin<'_>, pick: &Pick) -> Assertion {
    let endpoint = &pick.taken.endpoint;
    let domain = &core.options.trust_domain;
    Assertion::new(origin.caller, domain, endpoint.container.clone(), endpoint.port, pick.revision)
}

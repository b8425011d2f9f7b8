//! What makes machines one cluster: TLS connections between them, who may connect, the node port, the way to the servers,
//! and what a member keeps on its disk. Knows no container and decides nothing about objects.

mod ask;
mod connect;
pub mod contexts;
pub mod join;
mod listen;
mod members;
mod membership;
mod node_port;
mod renew;
mod servers;

pub(crate) use ask::{NodePortAccess, answer_servers};
pub(crate) use connect::{Wires, configure};
pub(crate) use listen::{Accepted, Endpoint};
pub(crate) use members::{Caller, Members};
pub(crate) use membership::KEYRING_FILE;
pub use membership::{Member, MemberFiles, MembershipError};
pub(crate) use node_port::{NodePort, NodeServices};
pub(crate) use renew::keep_fresh;
pub(crate) use servers::{PersonConnector, ServerConnector, ServerList};

/// What is spoken on a connection to a node, as ALPN names it.
pub(crate) mod alpn {
    /// Requests from proxy to proxy, HTTP/2.
    pub(crate) const MESH: &[u8] = b"heptad-mesh/1";
    /// One opaque flow from proxy to proxy.
    pub(crate) const STREAM: &[u8] = b"heptad-stream/1";
    /// Chunks of stored objects, HTTP/2.
    pub(crate) const BLOB: &[u8] = b"heptad-blob/1";
    /// What servers ask a node: logs and programs inside containers, HTTP/1.1.
    pub(crate) const NODE: &[u8] = b"heptad-node/1";
}

/// The port of the API on servers.
pub const API_PORT: u16 = 7443;
/// The port of nodes.
pub const NODE_PORT: u16 = 7444;

/// Milliseconds since 1970.
pub(crate) fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;

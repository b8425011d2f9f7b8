//! What makes machines one cluster: joining, TLS between members, who may connect, the node port, the way to the
//! servers, what a member keeps on its disk, where a server's state is, and how a process becomes another program
//! without closing its sockets. Decides nothing about objects. Knows no container, mesh or disk: the caller serves the
//! node port.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod ask;
mod connect;
pub mod handover;
pub mod join;
mod listen;
mod members;
mod membership;
mod migrate;
mod node_port;
mod renew;
mod servers;
mod state;

pub use ask::{Containers, Streamed, ToContainers, answer_servers};
pub use connect::{Spoken, Wires};
pub use members::{Caller, Members};
pub use membership::{KEYRING_FILE, Loaded, Member, MemberFiles, MembershipError};
pub use migrate::{migrate, resolve_migration};
pub use node_port::{MemberStream, NodePort, NodeServices};
pub use renew::keep_fresh;
pub use servers::{PersonConnector, ServerConnector, ServerList};
pub use state::{EtcdSettings, StateError, StateSettings};

/// The port of the API on servers.
pub const API_PORT: u16 = 7443;
/// The port of nodes.
pub const NODE_PORT: u16 = 7444;

/// Milliseconds since 1970.
pub fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;

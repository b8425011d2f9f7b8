//! Container networking of one node: bridge, network namespaces, addresses, nftables, host ports, DNS.
//! Knows no service, no policy and no proxy: it only makes sure that every connection of a container to a service address
//! arrives at the proxy's port, and that containers reach neither each other nor the host by any other way.

#![forbid(unsafe_code)]

mod attach;
pub mod dns;
mod error;
mod facts;
mod links;
mod netns;
mod network;
mod nft;
mod options;
mod pool;
mod ports;
pub mod procnet;
mod records;
mod resolv;
mod ruleset;
mod subnet;
mod sysctl;
mod turns;

pub use error::{Error, Result};
pub use facts::{Facts, facts};
pub use network::Network;
pub use options::{Attachment, HostPort, Options, Outside, Protocol};
pub use resolv::{hosts_file, resolv_conf, upstreams_of};

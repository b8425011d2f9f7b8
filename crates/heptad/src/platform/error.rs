//! Why a platform could not be started, with the remedy for each cause.

use heptad_member::{MembershipError, StateError};
use heptad_store::{DiskError, StorageError};
use ipnet::Ipv4Net;
use std::{io, net::SocketAddr, path::PathBuf};
use thiserror::Error;

/// Why a platform could not be started.
#[derive(Debug, Error)]
pub enum PlatformError {
    /// A directory cannot be used.
    #[error("cannot use the directory {}", dir.display())]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another platform runs there.
    #[error("another platform uses {}; stop it, or choose another directory with --data-dir", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// What the platform remembers of its first start cannot be read or written.
    #[error("cannot read or write {}; restore it, or remove the data directory to begin anew", file.display())]
    Identity {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The node's name is invalid.
    #[error("`{name}` is not a node's name; use 1 to 63 lower-case letters, digits and `-`")]
    NodeName {
        /// The name that was given.
        name: String,
    },
    /// Another name than that of the first start was given.
    #[error(
        "{} holds the containers and the data of node {kept}; leave --node out, or use another --data-dir",
        dir.display()
    )]
    OtherNode {
        /// The node's name.
        kept: String,
        /// Its directory.
        dir: PathBuf,
    },
    /// Containers were asked for, and this user or machine cannot make them.
    #[error("containers cannot be made here: {missing}; use --driver process for plain processes")]
    NoContainers {
        /// What is missing.
        missing: String,
    },
    /// The state store.
    #[error(transparent)]
    State(#[from] StateError),
    /// The control plane.
    #[error("cannot start the control plane")]
    Control(#[from] heptad_control::Error),
    /// The container driver.
    #[error("cannot start the container driver")]
    Exec(#[from] heptad_exec::ExecError),
    /// The image store.
    #[error("cannot open the image store")]
    Images(#[from] heptad_image::ImageError),
    /// The container network.
    #[error("cannot set up the container network")]
    Network(#[from] heptad_net::Error),
    /// The proxy.
    #[error("cannot start the mesh proxy")]
    Proxy(#[from] heptad_proxy::ProxyError),
    /// The disks of the storage.
    #[error(transparent)]
    Disks(#[from] DiskError),
    /// The distributed storage.
    #[error("cannot open the distributed storage")]
    Storage(#[from] StorageError),
    /// A task of the start broke off.
    #[error("{what} broke off")]
    Task {
        /// The task.
        what: &'static str,
        /// Why.
        #[source]
        source: tokio::task::JoinError,
    },
    /// What the member keeps of its cluster.
    #[error("cannot be a member of the cluster")]
    Membership(#[from] MembershipError),
    /// A certificate, key or keyring.
    #[error("cannot use what proves who this is")]
    Pki(#[from] heptad_pki::Error),
    /// The platform cannot listen on an address.
    #[error("cannot listen on {address} for {what}; is another program there, and is this an address of this machine?")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What is served there.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The data directory of a server does not allow the operation in its present state.
    #[error("{} {reason}", dir.display())]
    Cluster {
        /// The directory.
        dir: PathBuf,
        /// Why not, and what to do.
        reason: &'static str,
    },
    /// A node without containers cannot use the services' address range.
    #[error(
        "services of this cluster have addresses in {range}, which needs containers; make a cluster for plain processes \
         with `heptad server init --service-cidr 127.96.0.0/16`"
    )]
    ServiceRange {
        /// The cluster's range.
        range: Ipv4Net,
    },
}

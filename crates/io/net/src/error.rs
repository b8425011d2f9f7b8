//! What can go wrong in container networking; each variant names the operation and its subject.

use std::{io, path::PathBuf};

use ipnet::Ipv4Net;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed operation on the node's container network.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A field of `Options` has a value that cannot work.
    #[error("network option {field}: got {got:?}, expected {expected}")]
    InvalidOption {
        /// Field of `Options`.
        field: &'static str,
        /// The refused value.
        got: String,
        /// What would be accepted.
        expected: &'static str,
    },
    /// The container id cannot be a file name.
    #[error(
        "container id {id:?} is not usable: expected 1 to 128 of [A-Za-z0-9_.-], first character a letter or digit"
    )]
    InvalidContainerId {
        /// The refused id.
        id: String,
    },
    /// The process may not change network settings.
    #[error("container networking needs the capability {capability}: run as root, or use the process driver")]
    NotPermitted {
        /// The missing capability.
        capability: &'static str,
    },
    /// Another process manages the same instance.
    #[error(
        "network directory {dir} is in use by another process of this instance: stop it, or choose another instance"
    )]
    Busy {
        /// The locked directory.
        dir: PathBuf,
    },
    /// Every candidate range overlaps something on the host.
    #[error(
        "no free range for the {purpose}: every candidate overlaps a route or address of this host; set {option} to a free one"
    )]
    NoFreeRange {
        /// What the range is for.
        purpose: &'static str,
        /// The option that sets it by hand.
        option: &'static str,
    },
    /// A range chosen by the user overlaps something on the host.
    #[error("{option} {range} overlaps {with} of this host: choose another range")]
    RangeTaken {
        /// The option.
        option: &'static str,
        /// Its value.
        range: Ipv4Net,
        /// The route or address that is in the way.
        with: Ipv4Net,
    },
    /// Containers are still attached in another range.
    #[error("cannot change {option} to {wanted} while {containers} containers run in {current}: stop them first")]
    RangeInUse {
        /// The option.
        option: &'static str,
        /// Its value.
        wanted: Ipv4Net,
        /// The range of the running instance.
        current: Ipv4Net,
        /// Containers that are still attached.
        containers: usize,
    },
    /// All container addresses are given out.
    #[error("no free container address in {subnet}: {in_use} are in use; set a larger subnet")]
    AddressesExhausted {
        /// The node's container subnet.
        subnet: Ipv4Net,
        /// Addresses in use.
        in_use: usize,
    },
    /// The host port is published for another container.
    #[error("host port {protocol} {host_port} is already published for container {holder}")]
    HostPortPublished {
        /// Host port.
        host_port: u16,
        /// `tcp` or `udp`.
        protocol: &'static str,
        /// Container that holds it.
        holder: String,
    },
    /// A process of the host listens on the port.
    #[error("host port {protocol} {host_port} is in use by a process of this host: stop it, or publish another port")]
    HostPortTaken {
        /// Host port.
        host_port: u16,
        /// `tcp` or `udp`.
        protocol: &'static str,
        /// Why the port cannot be reserved.
        #[source]
        source: io::Error,
    },
    /// The container has no network here.
    #[error("container {id} is not attached to the network")]
    NotAttached {
        /// Container id.
        id: String,
    },
    /// A file, possibly a kernel file, could not be used.
    #[error("{operation} {path}")]
    Io {
        /// The operation.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The kernel refused a request about a link, address or route.
    #[error("{operation} {subject}")]
    Netlink {
        /// The operation.
        operation: &'static str,
        /// Its link, address or route.
        subject: String,
        /// The kernel's answer.
        #[source]
        source: Box<rtnetlink::Error>,
    },
    /// A link that was there a moment ago is gone.
    #[error("network link {link} does not exist")]
    NoLink {
        /// Name of the link.
        link: String,
    },
    /// The `nft` program is absent.
    #[error("the program `nft` was not found: install the package `nftables`")]
    NftMissing,
    /// The `nft` program rejected a transaction.
    #[error("nft could not {operation}: {stderr}")]
    Nft {
        /// The operation.
        operation: &'static str,
        /// The first lines of its error output.
        stderr: String,
    },
    /// A helper thread ended without an answer.
    #[error("the thread that should {operation} ended without an answer")]
    ThreadLost {
        /// What it should have done.
        operation: &'static str,
    },
}

impl Error {
    /// Whether the cause lies with this node, so that another node may attach the container. A published port that is
    /// taken was the container's own request, and options are the operator's.
    pub fn is_of_node(&self) -> bool {
        match self {
            Self::AddressesExhausted { .. }
            | Self::Io { .. }
            | Self::Netlink { .. }
            | Self::NoLink { .. }
            | Self::NftMissing
            | Self::Nft { .. }
            | Self::NotPermitted { .. }
            | Self::ThreadLost { .. } => true,
            Self::InvalidOption { .. }
            | Self::InvalidContainerId { .. }
            | Self::Busy { .. }
            | Self::NoFreeRange { .. }
            | Self::RangeTaken { .. }
            | Self::RangeInUse { .. }
            | Self::HostPortPublished { .. }
            | Self::HostPortTaken { .. }
            | Self::NotAttached { .. } => false,
        }
    }

    pub(crate) fn io(operation: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { operation, path, source }
    }

    pub(crate) fn netlink(
        operation: &'static str,
        subject: impl Into<String>,
    ) -> impl FnOnce(rtnetlink::Error) -> Self {
        let subject = subject.into();
        move |source| Self::Netlink { operation, subject, source: Box::new(source) }
    }
}

//! Hosts to test on: many on one machine, each a set of namespaces (network, mounts, processes, name, control groups) with
//! real programs in it, on a network of their own that can be cut and slowed. Knows nothing of what runs in them.
//!
//! A host's first process holds everything of it, and its input ends when the test's process ends, however it ends:
//! then the kernel removes it all. Only directories and control groups can be left, and the next run removes those.

mod groups;
mod host;
mod init;
mod running;
mod sweep;
mod wire;

pub use host::{Host, HostOptions};
pub use running::Running;
pub use wire::Network;

use crate::machine::require_root;
use std::{net::Ipv4Addr, os::unix::fs::MetadataExt, path::Path, sync::Arc};
use wire::Wire;

/// The network of some hosts; it lives as long as one of them.
#[derive(Clone, Debug)]
pub struct Lan(Arc<Wire>);

impl Lan {
    /// A network without hosts. Removes what killed tests have left.
    pub fn start() -> Self {
        require_root();
        sweep::sweep();
        Self(Arc::new(Wire::new()))
    }

    /// One more host, which is on.
    pub fn host(&self, name: &str) -> Host {
        self.host_with(name, HostOptions::default())
    }

    /// The same with options.
    pub fn host_with(&self, name: &str, options: HostOptions) -> Host {
        Host::start(&self.0, name, options)
    }

    /// Reopens all ways.
    pub fn heal(&self) {
        self.0.heal();
    }

    /// Where the tests themselves are on this network.
    pub fn address(&self) -> Ipv4Addr {
        Wire::address(1)
    }

    /// The network as tests see it: every host that is not cut off.
    pub fn network(&self) -> Network {
        Network::of(self.0.pid())
    }

    /// A directory for the tests' files, at the same path in every host; it vanishes with the network.
    pub fn dir(&self) -> &Path {
        &self.0.dir
    }

    /// What these hosts have on the machine, in words, asked after their end too.
    pub fn footprint(&self, hosts: &[&Host]) -> Footprint {
        let networks = hosts.iter().map(|host| host.network()).chain([self.network()]);
        let namespaces = networks.map(|network| network.inode()).collect();
        Footprint { name: self.0.name.clone(), namespaces }
    }
}

/// Removes what killed tests left; returns the names of what was found.
pub fn sweep_hosts() -> Vec<String> {
    sweep::sweep().into_iter().collect()
}

/// The names by which the traces of hosts are found.
#[derive(Clone, Debug)]
pub struct Footprint {
    name: String,
    namespaces: Vec<u64>,
}

impl Footprint {
    /// Of hosts in another process, by the name of their network.
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned(), namespaces: Vec::new() }
    }

    /// Existing processes, control groups, mounts, disks, directories. Links and rules are in namespaces, and those
    /// live as long as a process is in them.
    pub fn traces(&self) -> Vec<String> {
        sweep::traces(&self.name, &self.namespaces)
    }
}

fn netns_of(pid: i32) -> Option<u64> {
    std::fs::metadata(format!("/proc/{pid}/ns/net")).ok().map(|found| found.ino())
}

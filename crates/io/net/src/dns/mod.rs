//! The DNS server of one node, UDP and TCP: answers names of namespaces from a table, everything else through the
//! host's resolvers. Knows neither containers nor services; the caller supplies the table.

mod answer;
mod forward;
mod limit;
mod server;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

pub use server::DnsServer;

/// The zone below which each namespace is a zone of its own, answered from the table and never asked outside. Other
/// names below it belong to others: clouds and companies use it as well.
pub const ZONE: &str = "internal";

/// How the server listens and forwards.
#[derive(Clone, Debug)]
pub struct DnsOptions {
    /// The address of both sockets; port 0 chooses one.
    pub listen: SocketAddr,
    /// The upstream that is asked for all other names.
    pub upstreams: Upstreams,
    /// How long clients may cache an answer of the zone.
    pub ttl_seconds: u32,
    /// How long one upstream may take before the next is asked.
    pub upstream_timeout_ms: u64,
    /// Forwarded queries at a time, a quarter of them for one client; more are answered SERVFAIL at once.
    pub forwards_in_flight_max: usize,
    /// TCP connections at a time, a quarter of them for one client; more are closed at once.
    pub tcp_connections_max: usize,
    /// How long a TCP connection may be silent.
    pub tcp_idle_ms_max: u64,
}

impl Default for DnsOptions {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            upstreams: Upstreams::default(),
            ttl_seconds: 5,
            upstream_timeout_ms: 2_000,
            forwards_in_flight_max: 256,
            tcp_connections_max: 64,
            tcp_idle_ms_max: 10_000,
        }
    }
}

/// Where the upstream resolvers come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upstreams {
    /// The name servers of this file, read again when it may have changed.
    ResolvConf(PathBuf),
    /// These, in order. If empty, other names are SERVFAIL, and below the zone they do not exist.
    Fixed(Vec<SocketAddr>),
}

impl Default for Upstreams {
    fn default() -> Self {
        Self::ResolvConf(PathBuf::from("/etc/resolv.conf"))
    }
}

/// Names of the zone with their service addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsTable {
    names: BTreeMap<String, Ipv4Addr>,
    /// `default.internal` exists because `web.default.internal` does: resolvers take a denial for the whole subtree.
    parents: BTreeSet<String>,
}

impl DnsTable {
    /// Names like `web.default.internal`, in any case, with or without the last dot.
    #[must_use]
    pub fn new(names: BTreeMap<String, Ipv4Addr>) -> Self {
        names.into_iter().collect()
    }

    /// The address of a name in lower case without the last dot.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Ipv4Addr> {
        self.names.get(name).copied()
    }

    fn exists(&self, name: &str) -> bool {
        name == ZONE || self.names.contains_key(name) || self.parents.contains(name)
    }

    /// Whether only the table knows about the name: it is the zone itself, or in an existing namespace.
    fn owns(&self, name: &str) -> bool {
        let Some(below) = below_zone(name) else { return name == ZONE };
        let namespace = below.rsplit('.').next().unwrap_or_default();
        self.parents.contains(&format!("{namespace}.{ZONE}"))
    }
}

impl FromIterator<(String, Ipv4Addr)> for DnsTable {
    fn from_iter<I: IntoIterator<Item = (String, Ipv4Addr)>>(names: I) -> Self {
        let mut table = Self::default();
        for (name, ip) in names {
            let name = canonical(&name);
            let parents = name.match_indices('.').map(|(at, _)| name[at + 1..].to_owned());
            table.parents.extend(parents);
            table.names.insert(name, ip);
        }
        table
    }
}

/// The part of a name that stands before the zone.
fn below_zone(name: &str) -> Option<&str> {
    name.strip_suffix(ZONE)?.strip_suffix('.').filter(|below| !below.is_empty())
}

fn canonical(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

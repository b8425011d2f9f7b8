//! The settings of the control plane, units in the names. Knows no default path: the binary chooses directories.

use ipnet::Ipv4Net;
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};

/// Settings of [`Control`](crate::Control).
#[derive(Clone, Debug)]
pub struct Options {
    /// The Unix socket to listen on; `None`: no Unix socket.
    pub socket: Option<PathBuf>,
    /// The loopback address to listen on, with port 0 for any; `None`: no TCP.
    pub tcp: Option<SocketAddr>,
    /// The file with the token for TCP; created with mode 0600 if absent. Needed with `tcp`.
    pub token_file: Option<PathBuf>,
    /// Where nodes, other servers and people connect over TLS; `None`: nowhere. Needs the cluster's identity among the
    /// parts.
    pub tls: Option<ServerTls>,
    /// The longest time for a TLS handshake.
    pub tls_handshake_ms_max: u64,
    /// How often a person's token is checked while that person watches.
    pub token_recheck_ms: u64,
    /// The directory of the audit log; `None`: no audit log.
    pub audit_dir: Option<PathBuf>,
    /// The size at which an audit file is followed by a new one.
    pub audit_file_bytes_max: u64,
    /// Audit files that are kept.
    pub audit_files_max: usize,
    /// The longest time after which lines of the audit log are on disk.
    pub audit_sync_delay_ms_max: u64,
    /// The directory of the data, whose disk is watched, and on which a reserve is kept; `None`: no disk is watched.
    pub disk_dir: Option<PathBuf>,
    /// The range of service addresses.
    pub service_cidr: Ipv4Net,
    /// Requests processed at once for each kind of callers (the local user, servers, nodes, admins, other people); more
    /// are answered with 429. Heartbeats of nodes do not count.
    pub requests_max: usize,
    /// Those of one node or person, and of all unidentified callers together.
    pub requests_each_max: usize,
    /// Watches and log streams at once for each kind of callers; more are answered with 429. For nodes, only each node
    /// has a bound, here and for connections: they hold some all the time, and there may be thousands.
    pub streams_max: usize,
    /// Those of one node or person.
    pub streams_each_max: usize,
    /// Connections at once for each kind of callers; a request on one more is answered with 429, and the connection
    /// closed.
    pub connections_max: usize,
    /// Those of one node or person.
    pub connections_each_max: usize,
    /// Connections at once over which no identified caller has sent a request yet; one more closes the oldest of the
    /// address that has most.
    pub strangers_max: usize,
    /// Those from one address.
    pub strangers_each_max: usize,
    /// The longest time for the head of a request, and the longest idle time of a connection.
    pub header_timeout_ms: u64,
    /// The longest time for the body of a request.
    pub body_timeout_ms: u64,
    /// The longest time for the body of an unidentified caller's request.
    pub stranger_body_timeout_ms: u64,
    /// How often a watch without changes reports its progress.
    pub bookmark_interval_ms: u64,
    /// Changes that arrive within this time are reconciled together.
    pub debounce_ms: u64,
    /// Everything is checked again after this time, changed or not.
    pub resync_interval_ms: u64,
    /// How many commits of one plan are tried against concurrent changes before the next wake-up.
    pub commit_tries_max: usize,
    /// The first wait before a failed reconciliation is retried; doubles up to `retry_delay_ms_max`.
    pub retry_delay_ms_min: u64,
    /// The longest wait before a failed reconciliation is retried.
    pub retry_delay_ms_max: u64,
    /// How many events are kept.
    pub events_max: usize,
    /// A node that has not reported for this time is `Unknown`.
    pub node_unknown_ms: u64,
    /// A node that has not reported for this time is `NotReady`.
    pub node_not_ready_ms: u64,
    /// How often the heartbeats are checked.
    pub heartbeat_check_ms: u64,
    /// The longest wait at shutdown for requests in progress.
    pub drain_ms_max: u64,
    /// How long a connection is kept for its next request when its server ends: a kept one before a handover, a new one
    /// always.
    pub drain_idle_ms_max: u64,
    /// What the optimiser does by itself.
    pub optimize: OptimizeMode,
    /// How often it looks.
    pub optimize_interval_ms: u64,
    /// The longest time of one search.
    pub optimize_search_ms: u64,
    /// How many moves are suggested or begun at once.
    pub optimize_moves_max: u64,
    /// The name of this server among all.
    pub server_name: String,
    /// Where agents and people reach this server; recorded for them. `None`: nobody needs to find it.
    pub server_url: Option<String>,
    /// Who leads: this server alone, or one of several on the same store.
    pub leadership: Leadership,
}

/// What the optimiser does by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OptimizeMode {
    /// Nothing; it acts only when asked.
    Off,
    /// It records an event when moves would free nodes.
    #[default]
    Suggest,
    /// It moves containers, their successors serving first.
    Auto,
}

/// The listener for TLS.
#[derive(Clone, Debug)]
pub struct ServerTls {
    /// The address; port 0 for any.
    pub listen: SocketAddr,
    /// Its TLS configuration; clients may present a certificate, or a token.
    pub tls: Arc<rustls::ServerConfig>,
}

/// How it is decided which server runs the reconcilers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leadership {
    /// No other server uses the store: this one takes over at its start and renews nothing.
    Sole,
    /// Several servers use the store: one holds a lease and renews it.
    Elected {
        /// A leader that has not renewed its lease for this time is replaced.
        lease_ms: u64,
        /// How often the lease is renewed, and checked by those who do not hold it.
        renew_interval_ms: u64,
    },
}

impl Leadership {
    /// An election with the usual times: a dead leader is replaced after 5 to 6 s.
    pub const fn elected() -> Self {
        Self::Elected { lease_ms: 5_000, renew_interval_ms: 1_000 }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            socket: None,
            tcp: None,
            token_file: None,
            tls: None,
            tls_handshake_ms_max: 5_000,
            token_recheck_ms: 2_000,
            audit_dir: None,
            audit_file_bytes_max: 16 << 20,
            audit_files_max: 10,
            audit_sync_delay_ms_max: 200,
            disk_dir: None,
            service_cidr: Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 16),
            requests_max: 128,
            requests_each_max: 32,
            streams_max: 2_048,
            streams_each_max: 64,
            connections_max: 4_096,
            connections_each_max: 128,
            strangers_max: 512,
            strangers_each_max: 64,
            header_timeout_ms: 30_000,
            body_timeout_ms: 30_000,
            stranger_body_timeout_ms: 5_000,
            bookmark_interval_ms: 3_000,
            debounce_ms: 3,
            resync_interval_ms: 30_000,
            commit_tries_max: 16,
            retry_delay_ms_min: 20,
            retry_delay_ms_max: 2_000,
            events_max: 1_000,
            node_unknown_ms: 5_000,
            node_not_ready_ms: 9_000,
            heartbeat_check_ms: 500,
            drain_ms_max: 5_000,
            drain_idle_ms_max: 500,
            optimize: OptimizeMode::default(),
            optimize_interval_ms: 300_000,
            optimize_search_ms: 2_000,
            optimize_moves_max: 20,
            server_name: "server".to_owned(),
            server_url: None,
            leadership: Leadership::Sole,
        }
    }
}

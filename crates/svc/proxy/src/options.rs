//! The settings of a proxy. Every bound has its unit last in its name.

use heptad_model::NodeName;
use std::{net::SocketAddr, time::Duration};

/// The settings of a proxy.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where connections arrive that the node redirects from service addresses.
    pub transparent: Option<SocketAddr>,
    /// Where HTTP requests from outside arrive, told apart by their `Host`.
    pub ingress: Option<SocketAddr>,
    /// Connections of callers on this node at one time. Beyond that, whoever has most gives way, an idle connection
    /// first. The next two bounds work in the same way.
    pub connections_max: usize,
    /// Connections from outside at one time, counted by address.
    pub ingress_connections_max: usize,
    /// Connections of other proxies at one time, counted by node and caller.
    pub arrivals_max: usize,
    /// Milliseconds that a client may be silent before the proxy assumes a protocol in which the server speaks first.
    pub detect_wait_ms_max: u64,
    /// Milliseconds for the rest of first bytes that may become a request line.
    pub detect_partial_wait_ms_max: u64,
    /// Bytes of the head of a request or response.
    pub header_bytes_max: usize,
    /// Header lines of a request or response.
    pub header_lines_max: usize,
    /// Milliseconds from the first byte of a request's head to its last.
    pub header_wait_ms_max: u64,
    /// Milliseconds that a client's connection may be idle between two requests.
    pub client_idle_ms_max: u64,
    /// Milliseconds for one attempt to connect to an endpoint.
    pub connect_wait_ms_max: u64,
    /// Endpoints that are tried when connecting fails.
    pub connect_attempts_max: usize,
    /// Milliseconds from a request's beginning to the head of its response, over all attempts.
    pub response_wait_ms_max: u64,
    /// Milliseconds for which sent bytes may stay unacknowledged by either side.
    pub unacked_ms_max: u32,
    /// Idle connections kept for one endpoint.
    pub pool_idle_per_endpoint_max: usize,
    /// Milliseconds for which an idle connection to an endpoint is kept.
    pub pool_idle_ms_max: u64,
    /// The same for requests that cannot be sent again if the endpoint has just closed the connection.
    pub pool_idle_unrepeatable_ms_max: u64,
    /// Bytes buffered per direction of a plain TCP connection.
    pub tunnel_buffer_bytes: usize,
    /// Combinations of caller, service and backend that are counted apart; the rest is counted together.
    pub counters_max: usize,
    /// This node. Endpoints of other nodes are reached through the proxies there; without a name, none are.
    pub node: Option<NodeName>,
    /// The trust domain of the SPIFFE ids that proxies assert to each other.
    pub trust_domain: String,
    /// Whether endpoints of this node are preferred while there are any; otherwise all endpoints are equal.
    pub local_first: bool,
    /// HTTP/2 connections to the proxy of one other node; more than one only when the streams of all are in use. Their
    /// streams leave room for a request of every connection that may be open, so that no caller waits for another.
    pub peer_connections_max: usize,
    /// Requests in progress on one connection between two proxies; more wait.
    pub peer_streams_max: u32,
    /// Bytes in flight to a reader of one request or response between two proxies.
    pub peer_stream_window_bytes: u32,
    /// Milliseconds that a request waits for a connection to another node while other endpoints could serve it.
    pub peer_connect_wait_ms_max: u64,
    /// Milliseconds for one attempt to connect to another node; a request that has nowhere else to go waits as long.
    pub peer_connect_ms_max: u64,
    /// The first and the longest wait between two attempts to connect to a node that cannot be reached.
    pub peer_retry_delay_ms_min: u64,
    /// See `peer_retry_delay_ms_min`.
    pub peer_retry_delay_ms_max: u64,
    /// Milliseconds between two probes of whether another proxy is still there.
    pub peer_ping_interval_ms: u64,
    /// Milliseconds for its answer; after that, its connection counts as broken.
    pub peer_ping_wait_ms_max: u64,
    /// Milliseconds for which an idle connection to another proxy is kept.
    pub peer_idle_ms_max: u64,
    /// Milliseconds that an arrival from another node waits until this node has the table that decided it.
    pub peer_table_wait_ms_max: u64,
    /// Milliseconds for the preamble of an opaque flow from another node.
    pub peer_preamble_wait_ms_max: u64,
    /// Bytes of a request's body that are kept so that another node's endpoint can be tried.
    pub replay_bytes_max: usize,
    /// Milliseconds that a stopping proxy gives idle connections for a last request, which it answers with `connection:
    /// close`.
    pub drain_idle_ms_max: u64,
    /// The seed of all random choices; drawn at the start if absent.
    pub draw_seed: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            transparent: None,
            ingress: None,
            connections_max: 8_192,
            ingress_connections_max: 8_192,
            arrivals_max: 8_192,
            detect_wait_ms_max: 50,
            detect_partial_wait_ms_max: 1_000,
            header_bytes_max: 64 << 10,
            header_lines_max: 128,
            header_wait_ms_max: 10_000,
            client_idle_ms_max: 300_000,
            connect_wait_ms_max: 2_000,
            connect_attempts_max: 3,
            response_wait_ms_max: 300_000,
            unacked_ms_max: 120_000,
            pool_idle_per_endpoint_max: 128,
            pool_idle_ms_max: 30_000,
            pool_idle_unrepeatable_ms_max: 1_000,
            tunnel_buffer_bytes: 16 << 10,
            counters_max: 10_000,
            node: None,
            trust_domain: "cluster.local".to_owned(),
            local_first: false,
            peer_connections_max: 32,
            peer_streams_max: 512,
            peer_stream_window_bytes: 256 << 10,
            peer_connect_wait_ms_max: 1_000,
            peer_connect_ms_max: 5_000,
            peer_retry_delay_ms_min: 100,
            peer_retry_delay_ms_max: 2_000,
            peer_ping_interval_ms: 1_000,
            peer_ping_wait_ms_max: 1_000,
            peer_idle_ms_max: 300_000,
            peer_table_wait_ms_max: 1_000,
            peer_preamble_wait_ms_max: 5_000,
            replay_bytes_max: 64 << 10,
            drain_idle_ms_max: 1_000,
            draw_seed: None,
        }
    }
}

/// Descriptors reserved for things other than connections.
const FILES_RESERVED: u64 = 1_024;

impl Options {
    /// The same with bounds on connections that leave the process descriptors for everything else: a connection may
    /// need one to an endpoint as well.
    pub fn within_open_files(self, open_files_max: u64) -> Self {
        let each = open_files_max.saturating_sub(FILES_RESERVED.min(open_files_max / 2)) / 6;
        let each = usize::try_from(each).unwrap_or(usize::MAX).max(1);
        Self {
            connections_max: self.connections_max.min(each),
            ingress_connections_max: self.ingress_connections_max.min(each),
            arrivals_max: self.arrivals_max.min(each),
            ..self
        }
    }

    /// The window of a connection between two proxies: the sum over all its streams, so that slow readers of some never
    /// hold up the others.
    pub(crate) fn peer_window_bytes(&self) -> u32 {
        self.peer_stream_window_bytes.saturating_mul(self.peer_streams_max).min(i32::MAX as u32)
    }

    /// For the slower probe of whether a silent proxy is still there.
    pub(crate) fn peer_keep_alive_interval(&self) -> Duration {
        Duration::from_millis(10 * self.peer_ping_interval_ms.max(self.peer_ping_wait_ms_max))
    }

    /// HTTP/2 counts 32 bytes more per line, and proxies add some lines.
    pub(crate) fn peer_header_bytes_max(&self) -> u32 {
        let bytes = self.header_bytes_max + 32 * self.header_lines_max + (16 << 10);
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }
}

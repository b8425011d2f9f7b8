//! What can be set of a proxy. Every bound has its unit last in its name.

use std::net::SocketAddr;

/// What can be set of a proxy.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where connections arrive that the node redirected from service addresses.
    pub transparent: Option<SocketAddr>,
    /// Where HTTP requests from outside arrive, told apart by their `Host`.
    pub ingress: Option<SocketAddr>,
    /// Client connections at one time; more wait in the kernel's queue.
    pub connections_max: usize,
    /// Milliseconds that a client may be silent before its protocol is taken for one in which the server speaks first.
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
    /// Milliseconds from sending a request to the head of its response.
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
    /// The seed of all random choices; drawn at the start if absent.
    pub draw_seed: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            transparent: None,
            ingress: None,
            connections_max: 8_192,
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
            draw_seed: None,
        }
    }
}

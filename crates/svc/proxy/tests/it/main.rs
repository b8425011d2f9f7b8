//! The proxy against real sockets: clients, endpoints and the kernel's redirection.
#![allow(clippy::print_stdout, reason = "seeds and counts are shown when a test fails")]

mod bounds;
mod call;
mod change;
mod endpoints;
mod half_closed;
mod handover;
mod http1;
mod nodes;
mod peers;
mod peers_faults;
mod peers_flows;
mod policy;
mod redirect;
mod revoked;
mod support;
mod tcp;

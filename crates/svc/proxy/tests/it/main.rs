//! The proxy against real sockets: clients, endpoints and the kernel's redirection.
#![allow(clippy::print_stdout, reason = "seeds and counts are shown when a test fails")]

mod bounds;
mod call;
mod change;
mod endpoints;
mod http1;
mod policy;
mod redirect;
mod support;
mod tcp;

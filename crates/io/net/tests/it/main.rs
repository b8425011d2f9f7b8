//! Container networking against the real kernel. Every test runs in network and mount namespaces of its own, which play
//! the host and vanish with the test. Needs root and the packages nftables, iproute2, util-linux, procps.

mod adoption;
mod dns;
mod isolation;
mod lifecycle;
mod ports;
mod redirect;
mod world;

//! Where a connection comes from and where it was going: a resolver identifies the caller, the kernel tells the address
//! before redirection. Knows no services.

use heptad_route::Caller;
use nix::sys::socket::{getsockopt, sockopt::OriginalDst};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use tokio::net::TcpStream;

/// Identifies who is at the other end of a connection. Called once per connection, on a worker thread: it must not
/// block long.
pub trait CallerResolver: Send + Sync + 'static {
    /// The caller whose socket is `peer`, connected to our socket `local`. An unknown caller is `External`.
    fn resolve(&self, peer: SocketAddr, local: SocketAddr) -> Caller;
}

impl<F: Fn(SocketAddr, SocketAddr) -> Caller + Send + Sync + 'static> CallerResolver for F {
    fn resolve(&self, peer: SocketAddr, local: SocketAddr) -> Caller {
        self(peer, local)
    }
}

/// The address to which the client connected, before redirection; our own if there was none (a listener opened inside
/// the container's namespace has the service address itself).
pub(crate) fn destination(stream: &TcpStream, local: SocketAddr) -> SocketAddr {
    match getsockopt(stream, OriginalDst) {
        Ok(found) => {
            let address = Ipv4Addr::from(u32::from_be(found.sin_addr.s_addr));
            SocketAddr::new(IpAddr::V4(address), u16::from_be(found.sin_port))
        }
        Err(_) => local,
    }
}

//! Where a connection comes from and where it was going: the caller by a resolver, the address before redirection by
//! the kernel. Does not know services.

use heptad_route::Caller;
use nix::sys::socket::{getsockopt, sockopt::OriginalDst};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use tokio::net::TcpStream;

/// Tells who is at the other end of a connection. Asked once per connection, on a worker thread: it must not block long.
pub trait CallerResolver: Send + Sync + 'static {
    /// The caller whose socket is `peer`, connected to our socket `local`. Who is unknown is `External`.
    fn resolve(&self, peer: SocketAddr, local: SocketAddr) -> Caller;
}

impl<F: Fn(SocketAddr, SocketAddr) -> Caller + Send + Sync + 'static> CallerResolver for F {
    fn resolve(&self, peer: SocketAddr, local: SocketAddr) -> Caller {
        self(peer, local)
    }
}

/// The address that the client connected to, before redirection; our own if there was none (a listener that was opened
/// inside the container's namespace has the service address itself).
pub(crate) fn destination(stream: &TcpStream, local: SocketAddr) -> SocketAddr {
    match getsockopt(stream, OriginalDst) {
        Ok(found) => {
            let address = Ipv4Addr::from(u32::from_be(found.sin_addr.s_addr));
            SocketAddr::new(IpAddr::V4(address), u16::from_be(found.sin_port))
        }
        Err(_) => local,
    }
}

//! Settings of TCP sockets: no delay of small writes, bounded waiting for a peer that is gone.

use crate::options::Options;
use nix::sys::socket::{setsockopt, sockopt};
use std::{io, net::SocketAddr, time::Duration};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    time::{error::Elapsed, timeout},
};

/// Seconds of silence after which the kernel probes whether the peer is still there.
const KEEPALIVE_AFTER_S: u32 = 60;

/// Connections that may wait to be accepted, for example while the process is replaced; the kernel limits it further.
const BACKLOG_MAX: u32 = 4_096;

/// A listener on an address that may have been in use a moment ago.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG_MAX)
}

/// Applies the settings. If the kernel refuses one, the connection still serves, only less well.
pub(crate) fn configure(stream: &TcpStream, options: &Options) {
    let _ = stream.set_nodelay(true);
    let _ = setsockopt(stream, sockopt::KeepAlive, &true);
    let _ = setsockopt(stream, sockopt::TcpKeepIdle, &KEEPALIVE_AFTER_S);
    let _ = setsockopt(stream, sockopt::TcpUserTimeout, &options.unacked_ms_max);
}

/// A connection to an endpoint, within the bound.
pub(crate) async fn connect(address: SocketAddr, options: &Options) -> io::Result<TcpStream> {
    let wait = Duration::from_millis(options.connect_wait_ms_max);
    let stream = timeout(wait, TcpStream::connect(address)).await.map_err(|_: Elapsed| io::ErrorKind::TimedOut)??;
    configure(&stream, options);
    Ok(stream)
}

/// Closes the connection with a reset, so that the peer does not take it for a regular end.
pub(crate) fn reset(stream: TcpStream) {
    let _ = stream.set_zero_linger();
}

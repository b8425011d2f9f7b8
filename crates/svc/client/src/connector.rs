//! How the servers are reached: an interface for whoever knows sockets, TLS and addresses, and the two ways that need
//! neither: a Unix socket, and loopback with a token. Knows no request.

pub use futures_util::future::BoxFuture;
use std::{io, net::SocketAddr, path::PathBuf};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};

/// A connection as bytes in both directions.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// The way to one server or several that serve the same state.
pub trait Connector: Send + Sync {
    /// The servers in the order of preference, such as `https://10.0.0.1:7443`. May differ from call to call.
    fn endpoints(&self) -> Vec<String>;

    /// A new connection to one of them, ready for HTTP/1.1.
    fn connect(&self, endpoint: &str) -> BoxFuture<'_, io::Result<Box<dyn Io>>>;

    /// The bearer token of each request, if there is one.
    fn token(&self) -> Option<String> {
        None
    }

    /// The `Host` header for one of them.
    fn host(&self, endpoint: &str) -> String {
        let rest = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
        rest.split('/').next().unwrap_or(rest).to_owned()
    }

    /// The remedy for a connection that could not be made.
    fn remedy(&self, error: &io::Error) -> &'static str {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => "is the server running, and is this its address?",
            io::ErrorKind::TimedOut => "is the machine up, and does its firewall let this port through?",
            _ => "is the server running and reachable from here?",
        }
    }
}

/// The server's Unix socket.
pub(crate) struct UnixConnector(pub(crate) PathBuf);

impl Connector for UnixConnector {
    fn endpoints(&self) -> Vec<String> {
        vec![format!("unix:{}", self.0.display())]
    }

    fn connect(&self, _endpoint: &str) -> BoxFuture<'_, io::Result<Box<dyn Io>>> {
        Box::pin(async { Ok(Box::new(UnixStream::connect(&self.0).await?) as Box<dyn Io>) })
    }

    fn host(&self, _endpoint: &str) -> String {
        "localhost".to_owned()
    }

    fn remedy(&self, error: &io::Error) -> &'static str {
        match error.kind() {
            io::ErrorKind::NotFound => "is `heptad dev` running, and is this its socket?",
            io::ErrorKind::ConnectionRefused => "nobody listens on this socket; is `heptad dev` running?",
            io::ErrorKind::PermissionDenied => "the socket belongs to another user; run this as that user or as root",
            _ => "is `heptad dev` running?",
        }
    }
}

/// The server's loopback address, with the token of its token file.
pub(crate) struct LoopbackConnector {
    pub(crate) address: SocketAddr,
    pub(crate) token: String,
}

impl Connector for LoopbackConnector {
    fn endpoints(&self) -> Vec<String> {
        vec![format!("http://{}", self.address)]
    }

    fn connect(&self, _endpoint: &str) -> BoxFuture<'_, io::Result<Box<dyn Io>>> {
        Box::pin(async {
            let stream = TcpStream::connect(self.address).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Io>)
        })
    }

    fn token(&self) -> Option<String> {
        Some(self.token.clone())
    }

    fn remedy(&self, _error: &io::Error) -> &'static str {
        "is `heptad dev` running, and is this its address?"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_what_stands_between_scheme_and_path() {
        let connector = LoopbackConnector { address: ([127, 0, 0, 1], 80).into(), token: String::new() };
        assert_eq!(connector.host("https://10.0.0.1:7443"), "10.0.0.1:7443");
        assert_eq!(connector.host("https://[::1]:7443/x"), "[::1]:7443");
        assert_eq!(connector.host("server-1"), "server-1");
    }
}

//! Connections to the server: where it is, how to reach it, and a small pool of idle ones. Knows no operation.

use crate::{
    body::WireBody,
    connector::{Connector, Io},
    error::{Error, Result},
};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use std::{
    fmt, io,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::net::{TcpStream, UnixStream};

/// Idle connections that are kept.
const IDLE_CONNECTIONS_MAX: usize = 4;

/// Where the server is.
#[derive(Clone)]
pub(crate) enum Target {
    /// Its Unix socket.
    Unix(PathBuf),
    /// Its loopback address, with the token.
    Tcp { address: SocketAddr, token: String },
    /// Servers that somebody else connects to, and which of them was reached last.
    Injected { connector: Arc<dyn Connector>, reached: Arc<AtomicUsize> },
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp { address, .. } => write!(f, "http://{address}"),
            Self::Injected { connector, .. } => f.write_str(&connector.endpoints().join(",")),
        }
    }
}

impl Target {
    /// The `Host` header.
    pub(crate) fn host(&self) -> String {
        match self {
            Self::Unix(_) => "localhost".to_owned(),
            Self::Tcp { address, .. } => address.to_string(),
            Self::Injected { connector, reached } => {
                let endpoints = connector.endpoints();
                let endpoint = endpoints.get(reached.load(Ordering::Relaxed)).or(endpoints.first());
                endpoint.map_or_else(String::new, |endpoint| authority(endpoint).to_owned())
            }
        }
    }

    pub(crate) fn token(&self) -> Option<String> {
        match self {
            Self::Unix(_) => None,
            Self::Tcp { token, .. } => Some(token.clone()),
            Self::Injected { connector, .. } => connector.token(),
        }
    }

    async fn connect(&self) -> io::Result<Box<dyn Io>> {
        match self {
            Self::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
            Self::Tcp { address, .. } => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
            Self::Injected { connector, reached } => first_reached(&**connector, reached).await,
        }
    }

    fn remedy(&self, error: &io::Error) -> &'static str {
        match (self, error.kind()) {
            (Self::Unix(_), io::ErrorKind::NotFound) => "is `heptad dev` running, and is this its socket?",
            (Self::Unix(_), io::ErrorKind::ConnectionRefused) => {
                "nobody listens on this socket; is `heptad dev` running?"
            }
            (Self::Unix(_), io::ErrorKind::PermissionDenied) => {
                "the socket belongs to another user; run this as that user or as root"
            }
            (Self::Unix(_), _) => "is `heptad dev` running?",
            (Self::Injected { .. }, _) => "is a server running there, and does the network reach it?",
            (Self::Tcp { .. }, _) => "is `heptad dev` running, and is this its address?",
        }
    }
}

/// `HOST:PORT` of `SCHEME://HOST:PORT`.
fn authority(endpoint: &str) -> &str {
    endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest)
}

/// Connects to the server that was reached last, else to the next one that can be reached.
async fn first_reached(connector: &dyn Connector, reached: &AtomicUsize) -> io::Result<Box<dyn Io>> {
    let endpoints = connector.endpoints();
    let start = reached.load(Ordering::Relaxed);
    let mut last = io::Error::new(io::ErrorKind::NotFound, "no server is known");
    for index in (0..endpoints.len()).map(|i| (start + i) % endpoints.len()) {
        match connector.connect(&endpoints[index]).await {
            Ok(io) => {
                reached.store(index, Ordering::Relaxed);
                return Ok(io);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The idle connections to one server.
pub(crate) struct Pool {
    pub(crate) target: Target,
    idle: Mutex<Vec<SendRequest<WireBody>>>,
}

impl Pool {
    pub(crate) fn new(target: Target) -> Self {
        Self { target, idle: Mutex::default() }
    }

    /// An idle connection that is still open, if there is one.
    pub(crate) fn idle(&self) -> Option<SendRequest<WireBody>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(sender) = idle.pop() {
            if sender.is_ready() {
                return Some(sender);
            }
        }
        None
    }

    /// Keeps a connection whose last answer was read to its end.
    pub(crate) fn keep(&self, sender: SendRequest<WireBody>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|other| !other.is_closed());
        if !sender.is_closed() && idle.len() < IDLE_CONNECTIONS_MAX {
            idle.push(sender);
        }
    }

    /// A new connection.
    pub(crate) async fn connect(&self, timeout: Duration) -> Result<SendRequest<WireBody>> {
        let failed = |source: io::Error| Error::Connect {
            address: self.target.to_string(),
            remedy: self.target.remedy(&source),
            source,
        };
        let connecting = async {
            let stream = self.target.connect().await?;
            let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
            // The task ends with the connection, which ends when the sender and the answer's body are dropped.
            tokio::spawn(connection);
            Ok(sender)
        };
        match tokio::time::timeout(timeout, connecting).await {
            Ok(connected) => connected.map_err(failed),
            Err(_) => Err(failed(io::Error::from(io::ErrorKind::TimedOut))),
        }
    }
}

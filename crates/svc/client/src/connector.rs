//! The way to the servers as others make it: over TLS, or through a simulated network. Knows no socket itself.

use std::{future::Future, io, pin::Pin};
use tokio::io::{AsyncRead, AsyncWrite};

/// A future that can be sent between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A connection.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// Connects to servers.
pub trait Connector: Send + Sync {
    /// The servers, such as `https://10.0.0.1:7443`; asked again before every connection.
    fn endpoints(&self) -> Vec<String>;

    /// Connects to one of them.
    fn connect(&self, endpoint: &str) -> BoxFuture<'_, io::Result<Box<dyn Io>>>;

    /// The bearer token that goes with every request, if any.
    fn token(&self) -> Option<String>;
}

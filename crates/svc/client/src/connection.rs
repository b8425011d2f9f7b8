//! Connections to the servers: which server is asked, and a small pool of idle connections. Knows no operation.

use crate::{
    body::WireBody,
    connector::Connector,
    error::{Error, Result},
};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// How many idle connections are kept.
const IDLE_CONNECTIONS_MAX: usize = 4;

/// The servers, the one asked first, and idle connections.
pub(crate) struct Pool {
    connector: Arc<dyn Connector>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// The server that answered last; `None`: the first of the list.
    current: Option<String>,
    idle: Vec<(String, SendRequest<WireBody>)>,
}

/// `endpoints`, rotated to begin with `current`.
fn rotated(mut endpoints: Vec<String>, current: Option<&str>) -> Vec<String> {
    if let Some(at) = current.and_then(|current| endpoints.iter().position(|endpoint| endpoint == current)) {
        endpoints.rotate_left(at);
    }
    endpoints
}

impl Pool {
    pub(crate) fn new(connector: Arc<dyn Connector>) -> Self {
        Self { connector, known: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn connector(&self) -> &Arc<dyn Connector> {
        &self.connector
    }

    /// The servers in the order in which they are asked: the one that answered last first.
    pub(crate) fn endpoints(&self) -> Vec<String> {
        rotated(self.connector.endpoints(), self.known().current.as_deref())
    }

    /// The server that is asked first.
    pub(crate) fn current(&self) -> String {
        self.endpoints().into_iter().next().unwrap_or_else(|| "no server".to_owned())
    }

    /// This server answers: it is asked first from now on.
    pub(crate) fn answered(&self, endpoint: &str) {
        let mut known = self.known();
        if known.current.as_deref() != Some(endpoint) {
            known.current = Some(endpoint.to_owned());
        }
    }

    /// This server does not answer or cannot work: its idle connections are dropped, and another is asked first.
    pub(crate) fn failed(&self, endpoint: &str) {
        let endpoints = self.endpoints();
        let mut known = self.known();
        known.idle.retain(|(of, _)| of != endpoint);
        if endpoints.first().is_some_and(|first| first == endpoint) {
            known.current = endpoints.get(1).cloned();
        }
    }

    /// An idle connection to the server that is still open, if there is one.
    pub(crate) fn idle(&self, endpoint: &str) -> Option<SendRequest<WireBody>> {
        let mut known = self.known();
        known.idle.retain(|(_, sender)| sender.is_ready());
        let at = known.idle.iter().rposition(|(of, _)| of == endpoint)?;
        Some(known.idle.swap_remove(at).1)
    }

    /// Keeps a connection whose last answer was read to its end.
    pub(crate) fn keep(&self, endpoint: String, sender: SendRequest<WireBody>) {
        let mut known = self.known();
        known.idle.retain(|(_, other)| !other.is_closed());
        if !sender.is_closed() && known.idle.len() < IDLE_CONNECTIONS_MAX {
            known.idle.push((endpoint, sender));
        }
    }

    /// A new connection to the server.
    pub(crate) async fn connect(&self, endpoint: &str, timeout: Duration) -> Result<SendRequest<WireBody>> {
        let failed = |source: io::Error| Error::Connect {
            address: endpoint.to_owned(),
            remedy: self.connector.remedy(&source),
            source,
        };
        let connecting = async {
            let stream = self.connector.connect(endpoint).await?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_that_answered_last_is_asked_first_then_the_others_in_order() {
        let all = || vec!["a".to_owned(), "b".to_owned(), "c".to_owned()];
        assert_eq!(rotated(all(), None), ["a", "b", "c"]);
        assert_eq!(rotated(all(), Some("b")), ["b", "c", "a"]);
        assert_eq!(rotated(all(), Some("gone")), ["a", "b", "c"]);
        assert_eq!(rotated(Vec::new(), Some("b")), Vec::<String>::new());
    }
}

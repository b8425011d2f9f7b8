//! Connections: accepted within a bound, served as HTTP/1.1 with time limits, ended gracefully. Knows no route.

use super::{guard::Peer, listen::UnixSocket};
use crate::options::Options;
use axum::{Router, body::Body};
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{future::Future, io, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

/// Wait after an accept that failed, as when there are no more file descriptors.
const ACCEPT_RETRY_MS: u64 = 50;

/// What every listener needs.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) router: Router,
    pub(crate) options: Arc<Options>,
    pub(crate) tracker: TaskTracker,
    pub(crate) stop: CancellationToken,
}

impl Server {
    /// Serves the Unix socket; only the socket's own user and root may talk.
    pub(crate) async fn unix(self, socket: UnixSocket) {
        let own = socket.uid;
        let accept = async || {
            let (stream, _) = socket.listener.accept().await?;
            let uid = stream.peer_cred()?.uid();
            if uid != own && uid != 0 {
                tracing::warn!(uid, "a connection of another user was refused");
                return Ok(None);
            }
            Ok(Some(stream))
        };
        self.serve(Peer::Unix, accept).await;
    }

    /// Serves TCP; each request is checked by the guard.
    pub(crate) async fn tcp(self, listener: TcpListener) {
        let accept = async || {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            Ok(Some(stream))
        };
        self.serve(Peer::Tcp, accept).await;
    }

    async fn serve<S, F>(&self, peer: Peer, accept: impl Fn() -> F)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        F: Future<Output = io::Result<Option<S>>>,
    {
        let connections = Arc::new(Semaphore::new(self.options.connections_max));
        loop {
            let Ok(permit) = connections.clone().acquire_owned().await else { return };
            let accepted = tokio::select! {
                () = self.stop.cancelled() => return,
                accepted = accept() => accepted,
            };
            match accepted {
                Ok(Some(stream)) => {
                    self.tracker.spawn(self.clone().connection(stream, peer, permit));
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(ACCEPT_RETRY_MS)).await;
                }
            }
        }
    }

    pub(crate) async fn connection<S>(self, stream: S, peer: Peer, _permit: OwnedSemaphorePermit)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { router, options, stop, .. } = self;
        let service = service_fn(move |request: Request<Incoming>| {
            let router = router.clone();
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(peer);
            router.oneshot(request)
        });
        let mut connection = std::pin::pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_millis(options.header_timeout_ms))
                .serve_connection(TokioIo::new(stream), service)
        );
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                let drained = tokio::time::timeout(Duration::from_millis(options.drain_ms_max), connection).await;
                drained.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended");
        }
    }
}

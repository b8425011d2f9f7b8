//! What is known of one client connection for as long as it lasts, and its stream with the bytes already read.

use crate::{
    core::Core,
    counters::LastCell,
    error::{CallError, Denied},
    forward::Origin,
    watch::Watch,
};
use bytes::{Buf, Bytes};
use heptad_model::ServiceKey;
use heptad_route::{Caller, revoked};
use http::{HeaderMap, HeaderValue, Uri, header::HOST};
use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context as Task, Poll, ready},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::OwnedSemaphorePermit,
};

/// What is addressed.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    Service(ServiceKey, u16),
    /// The service that is exposed as the `Host` of each request.
    Host,
}

/// One client connection.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) core: Arc<Core>,
    caller: Caller,
    target: Target,
    peer: Option<HeaderValue>,
    last: LastCell,
    permit: Arc<OwnedSemaphorePermit>,
    /// Whom the request in progress calls: what it addressed by its host, and what serves it.
    calls: Mutex<[Option<(ServiceKey, u16)>; 2]>,
}

impl Context {
    pub(crate) fn new(
        core: Arc<Core>,
        caller: Caller,
        target: Target,
        peer: SocketAddr,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        let peer = HeaderValue::try_from(peer.ip().to_string()).ok();
        Self {
            core,
            caller,
            target,
            peer,
            last: LastCell::default(),
            permit: Arc::new(permit),
            calls: Mutex::default(),
        }
    }

    /// Who calls what, for a service known from the connection.
    pub(crate) fn origin<'a>(&'a self, target: &'a ServiceKey, port: u16) -> Origin<'a> {
        let (caller, peer, permit) = (&self.caller, self.peer.as_ref(), Some(&self.permit));
        Origin { caller, target, port, peer, last: &self.last, permit }
    }

    /// The service that a connection addresses, unless each request says it.
    pub(crate) fn fixed_target(&self) -> Option<(&ServiceKey, u16)> {
        match &self.target {
            Target::Service(key, port) => Some((key, *port)),
            Target::Host => None,
        }
    }

    /// Notes whom the request in progress calls.
    pub(crate) fn set_calls(&self, calls: [Option<(ServiceKey, u16)>; 2]) {
        *self.calls.lock().unwrap_or_else(PoisonError::into_inner) = calls;
    }

    /// Why the request in progress is allowed no longer.
    pub(crate) fn revoked(&self) -> Option<Denied> {
        let table = self.core.table();
        let denied = |service: &ServiceKey, port| revoked(&table, &self.caller, service, port).map(Denied::from);
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let fixed = self.fixed_target().and_then(|(service, port)| denied(service, port));
        fixed.or_else(|| calls.iter().flatten().find_map(|(service, port)| denied(service, *port)))
    }

    /// Whether its requests are the last on their connections.
    pub(crate) fn is_draining(&self) -> bool {
        match self.target {
            Target::Service(..) => self.core.drain.is_cancelled(),
            Target::Host => self.core.ingress_drain.is_cancelled(),
        }
    }

    /// The service that a request addresses by its host.
    pub(crate) fn exposed(&self, uri: &Uri, headers: &HeaderMap) -> Result<(ServiceKey, u16), CallError> {
        let given = uri.host().or_else(|| headers.get(HOST)?.to_str().ok()).unwrap_or_default();
        let host = given.rsplit_once(':').map_or(given, |(host, _)| host);
        match self.core.table().service_exposed_as(host) {
            Some((key, port)) => Ok((key.clone(), port)),
            None => Err(CallError::UnknownHost { host: host.chars().take(253).collect() }),
        }
    }
}

/// A client's stream: first the bytes that were read to find out its protocol, then the rest.
#[derive(Debug)]
pub(crate) struct ClientIo {
    pub(crate) read_ahead: Bytes,
    pub(crate) stream: TcpStream,
    pub(crate) watch: Arc<Watch>,
}

impl AsyncRead for ClientIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Task<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.read_ahead.is_empty() {
            let length = self.read_ahead.len().min(buffer.remaining());
            buffer.put_slice(&self.read_ahead[..length]);
            self.read_ahead.advance(length);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            self.watch.received();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Task<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Task<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

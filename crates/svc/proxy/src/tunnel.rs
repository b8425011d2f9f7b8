//! Plain connections: bytes are copied both ways until both ends are done. A broken end is passed on as a reset, so
//! that neither side takes it for a regular end. Knows no protocol.

use crate::{
    core::Core,
    error::CallError,
    forward::{Attempts, Origin, Pick, Taken},
    last_words::LastWords,
    peer::Io,
    peer_link::StreamError,
    pool::Active,
    shares::Place,
    socket,
    standing::Standing,
};
use bytes::{Bytes, BytesMut};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::{fmt, io};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional_with_sizes},
    net::TcpStream,
};

/// Bytes that are read to find out that an endpoint of another node speaks.
const FIRST_BYTES: usize = 1_024;

/// The way to an endpoint.
pub(crate) enum Stream {
    Here(TcpStream),
    /// Through the proxy of another node.
    Peer(Box<dyn Io>),
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Here(_) => "Here",
            Self::Peer(_) => "Peer",
        })
    }
}

/// A connection to an endpoint that counts as active.
#[derive(Debug)]
pub(crate) struct Endpoint {
    stream: Stream,
    /// What was read to find out that it speaks.
    said: BytesMut,
    active: Active,
}

impl Endpoint {
    pub(crate) fn new(stream: Stream, active: Active) -> Self {
        Self { stream, said: BytesMut::new(), active }
    }

    /// Waits until the endpoint says something or ends. Dropping the future loses nothing.
    pub(crate) async fn speaks(&mut self) {
        match &mut self.stream {
            Stream::Here(stream) => _ = stream.readable().await,
            Stream::Peer(stream) => {
                self.said.reserve(FIRST_BYTES);
                // An end or error shows again when it is read on.
                let _ = stream.read_buf(&mut self.said).await;
            }
        }
    }
}

/// A connection that can be broken off.
pub(crate) trait Breakable {
    /// Ends it so that the other side notices that it is no regular end.
    fn break_off(self);
}

impl Breakable for TcpStream {
    fn break_off(self) {
        socket::reset(self);
    }
}

impl Breakable for Box<dyn Io> {
    fn break_off(self) {
        // Without a farewell, which those connections have.
        drop(self);
    }
}

/// Decides on a connection and connects to an endpoint; tries others if one does not accept. Counts nothing: it may still
/// turn out to be HTTP.
pub(crate) async fn connect(core: &Core, origin: &Origin<'_>) -> Result<(Taken, Endpoint), CallError> {
    let draw = core.draw();
    let mut attempts = Attempts::default();
    loop {
        let Some(pick) = core.route(origin, None, draw, attempts.tried())? else {
            return Err(attempts.exhausted(origin));
        };
        pick.active.becomes_flow();
        match open(core, origin, &pick).await {
            Ok(stream) => return Ok((pick.taken, Endpoint::new(stream, pick.active))),
            Err(StreamError::Refused(refusal)) if !refusal.is_unsent() => {
                return Err(core.failed(refusal.into(), origin, pick.taken));
            }
            Err(error) => attempts.failed(pick.taken, error.into(), core.options.connect_attempts_max)?,
        }
    }
}

async fn open(core: &Core, origin: &Origin<'_>, pick: &Pick) -> Result<Stream, StreamError> {
    let endpoint = &pick.taken.endpoint;
    match core.pool.remote(endpoint) {
        Some(node) => core.stream_to_peer(origin, pick, node).await.map(Stream::Peer),
        None => Ok(Stream::Here(socket::connect(endpoint.address, &core.options).await?)),
    }
}

/// Copies both ways, first the bytes that each side had sent before, until both are done or the flow is `ended`.
pub(crate) async fn run<C>(
    client: C,
    endpoint: Endpoint,
    read_ahead: Bytes,
    buffer_bytes: usize,
    ended: impl Future<Output = io::Error>,
) where
    C: AsyncRead + AsyncWrite + Unpin + Breakable,
{
    let Endpoint { stream, said, active } = endpoint;
    let (sent, said) = (read_ahead, said.freeze());
    match stream {
        Stream::Here(stream) => copy(client, stream, sent, said, buffer_bytes, ended).await,
        Stream::Peer(stream) => copy(client, stream, sent, said, buffer_bytes, ended).await,
    }
    drop(active);
}

/// Why a flow has to end: policies no longer allow it, or it makes room.
pub(crate) async fn ended(standing: Standing, place: &Place) -> io::Error {
    tokio::select! {
        () = standing.revoked() => io::Error::new(io::ErrorKind::PermissionDenied, "policies no longer allow it"),
        () = place.evicted().cancelled() => io::Error::other("it makes room for others"),
    }
}

/// Both may say something and close before they have read everything.
async fn copy<C, S>(
    client: C,
    stream: S,
    sent: Bytes,
    said: Bytes,
    buffer_bytes: usize,
    ended: impl Future<Output = io::Error>,
) where
    C: AsyncRead + AsyncWrite + Unpin + Breakable,
    S: AsyncRead + AsyncWrite + Unpin + Breakable,
{
    let (mut client, mut stream) = (LastWords::new(client), LastWords::new(stream));
    let copied = async {
        stream.write_all(&sent).await?;
        stream.flush().await?;
        client.write_all(&said).await?;
        copy_bidirectional_with_sizes(&mut client, &mut stream, buffer_bytes, buffer_bytes).await
    };
    let copied = tokio::select! {
        copied = copied => copied.map(|_| ()),
        error = ended => Err(error),
    };
    if let Err(error) = copied {
        tracing::debug!(%error, "plain connection");
        client.into_inner().break_off();
        stream.into_inner().break_off();
    }
}

/// Copies both ways between two connections that left HTTP, such as WebSocket.
pub(crate) async fn upgraded(client: OnUpgrade, endpoint: OnUpgrade, buffer_bytes: usize) {
    let copied = async {
        let (client, endpoint) = tokio::try_join!(client, endpoint)?;
        let (mut client, mut endpoint) = (TokioIo::new(client), TokioIo::new(endpoint));
        let copied = copy_bidirectional_with_sizes(&mut client, &mut endpoint, buffer_bytes, buffer_bytes).await;
        Ok::<_, hyper::Error>(copied)
    };
    if let Ok(Err(error)) | Err(error) = copied.await.map_err(io::Error::other) {
        tracing::debug!(%error, "upgraded connection");
    }
}

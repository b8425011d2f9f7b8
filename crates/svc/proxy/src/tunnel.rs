//! Plain connections: bytes are copied both ways until both ends are done. A broken end is passed on as a reset, so
//! that neither side takes it for a regular end. Knows no protocol.

use crate::{last_words::LastWords, peer::Io, pool::Active, shares::Place, socket, standing::Standing, stream::Stream};
use bytes::{Bytes, BytesMut};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::io;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional_with_sizes},
    net::TcpStream,
};

/// Bytes that are read to find out whether an endpoint of another node speaks.
const FIRST_BYTES: usize = 1_024;

/// A connection to an endpoint that counts as active.
#[derive(Debug)]
pub(crate) struct Endpoint {
    stream: Stream,
    /// The bytes that were read to find out whether it speaks.
    said: BytesMut,
    active: Active,
}

impl Endpoint {
    pub(crate) fn new(stream: Stream, active: Active) -> Self {
        Self { stream, said: BytesMut::new(), active }
    }

    /// Waits until the endpoint speaks or ends. Dropping the future loses nothing.
    pub(crate) async fn speaks(&mut self) {
        match &mut self.stream {
            Stream::Here(stream) => _ = stream.readable().await,
            Stream::Peer(stream) => {
                self.said.reserve(FIRST_BYTES);
                // An end or error shows again at the next read.
                let _ = stream.read_buf(&mut self.said).await;
            }
        }
    }
}

/// A connection that can be broken off.
pub(crate) trait Breakable {
    /// Ends it so that the other side notices that this is no regular end.
    fn break_off(self);
}

impl Breakable for TcpStream {
    fn break_off(self) {
        socket::reset(self);
    }
}

impl Breakable for Box<dyn Io> {
    fn break_off(self) {
        // Without the farewell of TLS, which those connections have.
        drop(self);
    }
}

/// Copies both ways, first the bytes that each side sent earlier, until both are done or the flow is `ended`.
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

/// Both may send a last message and close before they have read everything.
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

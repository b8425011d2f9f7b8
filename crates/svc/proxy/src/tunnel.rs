//! Plain connections: bytes are copied both ways until both ends are done. A broken end is passed on as a reset, so
//! that neither side takes it for a regular end. Knows no protocol.

use crate::{
    core::Core,
    error::CallError,
    forward::{Attempts, Origin},
    pool::Active,
    socket,
};
use bytes::Bytes;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncWriteExt, copy_bidirectional_with_sizes},
    net::TcpStream,
};

/// A connection to an endpoint that counts as active.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) stream: TcpStream,
    active: Active,
}

/// Decides on a connection and connects to an endpoint; tries others if one does not accept.
pub(crate) async fn connect(core: &Core, origin: &Origin<'_>) -> Result<Endpoint, CallError> {
    let draw = core.draw();
    let mut attempts = Attempts::default();
    let result = loop {
        let taken = match core.route(origin, None, draw, attempts.tried()) {
            Ok(Some(taken)) => taken,
            Ok(None) => break Err(attempts.exhausted(origin)),
            Err(error) => break Err(error),
        };
        let active = core.pool.enter(taken.endpoint.address, &core.options);
        match socket::connect(taken.endpoint.address, &core.options).await {
            Ok(stream) => break Ok((taken, Endpoint { stream, active })),
            Err(error) => match attempts.failed(taken, error, core.options.connect_attempts_max) {
                Ok(()) => {}
                Err(error) => break Err(error),
            },
        }
    };
    core.count_tunnel(origin, result.as_ref().map(|(taken, _)| taken));
    result.map(|(_, endpoint)| endpoint)
}

/// Copies both ways, first the bytes that the client had sent before.
pub(crate) async fn run(mut client: TcpStream, endpoint: Endpoint, read_ahead: Bytes, buffer_bytes: usize) {
    let Endpoint { mut stream, active } = endpoint;
    let copied = async {
        stream.write_all(&read_ahead).await?;
        copy_bidirectional_with_sizes(&mut client, &mut stream, buffer_bytes, buffer_bytes).await
    };
    if let Err(error) = copied.await {
        tracing::debug!(%error, "plain connection");
        socket::reset(client);
        socket::reset(stream);
    }
    drop(active);
}

/// Copies both ways between two connections that left HTTP, such as WebSocket.
pub(crate) async fn upgraded(client: OnUpgrade, endpoint: OnUpgrade, buffer_bytes: usize) {
    let copied = async {
        let (client, endpoint) = tokio::try_join!(client, endpoint)?;
        let (mut client, mut endpoint) = (TokioIo::new(client), TokioIo::new(endpoint));
        let copied = copy_bidirectional_with_sizes(&mut client, &mut endpoint, buffer_bytes, buffer_bytes).await;
        Ok::<_, hyper::Error>(copied)
    };
    if let Ok(Err(error)) | Err(error) = copied.await.map_err(std::io::Error::other) {
        tracing::debug!(%error, "upgraded connection");
    }
}

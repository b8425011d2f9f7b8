//! A client connection to a service whose protocol is not known yet: HTTP if its first bytes say so, else a plain
//! tunnel. A silent client is connected to the endpoint, which may speak first; if the client speaks first after all,
//! its first bytes still decide.

use crate::{
    call::{Origin, Taken},
    connect,
    context::Context,
    detect::{DETECT_BYTES_MAX, Guess, guess},
    error::CallError,
    options::Options,
    serve_http, socket,
    standing::Standing,
    tunnel,
};
use bytes::{Bytes, BytesMut};
use std::{
    io,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};
use tokio::{
    io::AsyncReadExt,
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};

/// What the client's first bytes are.
enum Opening {
    Http(Bytes),
    /// Any other bytes, or an end without bytes.
    Opaque(Bytes),
    Silent,
}

/// Serves one connection to its end.
pub(crate) async fn serve(context: Arc<Context>, mut stream: TcpStream) {
    match opening(&mut stream, &context.core.options).await {
        Ok(Opening::Http(bytes)) => serve_http::serve(context, stream, bytes).await,
        Ok(Opening::Opaque(bytes)) => tunnel_or_reset(&context, stream, bytes).await,
        Ok(Opening::Silent) => first_to_speak(context, stream).await,
        Err(error) => tracing::debug!(%error, "client connection"),
    }
}

/// Reads until the protocol is clear. At the end of the wait, no bytes count as silence, and some bytes as what they
/// look like.
async fn opening(stream: &mut TcpStream, options: &Options) -> io::Result<Opening> {
    let started = Instant::now();
    let mut bytes = BytesMut::with_capacity(DETECT_BYTES_MAX);
    loop {
        let wait_ms = if bytes.is_empty() { options.detect_wait_ms_max } else { options.detect_partial_wait_ms_max };
        bytes.reserve(DETECT_BYTES_MAX);
        let count = match timeout_at(started + Duration::from_millis(wait_ms), stream.read_buf(&mut bytes)).await {
            Ok(read) => read?,
            Err(_) if bytes.is_empty() => return Ok(Opening::Silent),
            Err(_) => 0,
        };
        match guess(&bytes) {
            Guess::Http => return Ok(Opening::Http(bytes.freeze())),
            Guess::Undecided if count > 0 => {}
            Guess::Undecided | Guess::Opaque => return Ok(Opening::Opaque(bytes.freeze())),
        }
    }
}

async fn tunnel_or_reset(context: &Context, client: TcpStream, read_ahead: Bytes) {
    let connected = connect(context).await;
    count(context, connected.as_ref().map(|(taken, _)| taken));
    match connected {
        Ok((taken, endpoint)) => carry(context, client, read_ahead, &taken, endpoint).await,
        Err(_) => socket::reset(client),
    }
}

async fn carry(context: &Context, client: TcpStream, sent: Bytes, taken: &Taken, endpoint: tunnel::Endpoint) {
    let standing = Standing::new(&context.core, &origin(context), taken);
    let ended = tunnel::ended(standing, &context.place);
    tunnel::run(client, endpoint, sent, context.core.options.tunnel_buffer_bytes, ended).await
}

fn origin(context: &Context) -> Origin<'_> {
    let (target, port) = context.fixed_target().expect("only connections with a fixed target are served as streams");
    context.origin(target, port)
}

async fn connect(context: &Context) -> Result<(Taken, tunnel::Endpoint), CallError> {
    let connected = connect::connect(&context.core, &origin(context)).await;
    context.place.idle().store(connected.is_err(), Relaxed);
    connected
}

fn count(context: &Context, result: Result<&Taken, &CallError>) {
    connect::count(&context.core, &origin(context), result);
}

async fn first_to_speak(context: Arc<Context>, mut client: TcpStream) {
    let (taken, mut endpoint) = match connect(&context).await {
        Ok(connected) => connected,
        Err(error) => return refuse(context, client, &error).await,
    };
    let mut sent = Bytes::new();
    tokio::select! {
        () = endpoint.speaks() => {}
        _ = client.readable() => {
            match opening(&mut client, &context.core.options).await {
                Ok(Opening::Http(bytes)) => {
                    drop(endpoint);
                    return serve_http::serve(context, client, bytes).await;
                }
                Ok(Opening::Opaque(bytes)) => sent = bytes,
                Ok(Opening::Silent) => {}
                Err(_) => return count(&context, Ok(&taken)),
            }
        }
    }
    count(&context, Ok(&taken));
    carry(&context, client, sent, &taken, endpoint).await
}

/// There is no way for the connection. A client that was only slow to send its request is told why in its own protocol.
async fn refuse(context: Arc<Context>, mut client: TcpStream, error: &CallError) {
    let patience = Duration::from_millis(context.core.options.detect_partial_wait_ms_max);
    if let Ok(Ok(())) = timeout(patience, client.readable()).await
        && let Ok(Opening::Http(bytes)) = opening(&mut client, &context.core.options).await
    {
        return serve_http::serve(context, client, bytes).await;
    }
    count(&context, Err(error));
    socket::reset(client);
}

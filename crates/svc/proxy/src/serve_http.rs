//! A client connection that speaks HTTP/1.1: each request is decided and forwarded on its own.
//! Bounds the time for a head and between requests; ends in order when the proxy stops.

use crate::{
    body::{Body, ResponseBody},
    client_io::{ClientIo, Socket},
    context::Context,
    error::CallError,
    forward::Answer,
    headers, reply,
    watch::{Look, Watch},
};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header::CONNECTION};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};
use tokio::{net::TcpStream, time::sleep};
use tokio_util::sync::CancellationToken;

/// Serves until the client or the bounds end it, or `stop` and the request in progress is answered.
pub(crate) async fn serve(context: Arc<Context>, stream: TcpStream, read_ahead: Bytes, stop: &CancellationToken) {
    let watch = Arc::new(Watch::new(!read_ahead.is_empty(), context.place.idle()));
    let socket = Socket::new(stream);
    let io = TokioIo::new(ClientIo { read_ahead, socket: socket.clone(), watch: Arc::clone(&watch) });
    let service = service_fn({
        let (context, watch) = (Arc::clone(&context), Arc::clone(&watch));
        move |request| respond(Arc::clone(&context), Arc::clone(&watch), request)
    });
    let options = &context.core.options;
    let connection = http1::Builder::new()
        // A client that sends nothing more gets its answer. One that has broken off is noticed below.
        .half_close(true)
        .max_headers(options.header_lines_max)
        .max_header_size(options.header_bytes_max)
        .serve_connection(io, service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let mut stopping = false;
    let mut rules = context.core.rules.subscribe();
    let mut wait = Duration::from_millis(options.header_wait_ms_max);
    loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "client connection");
                }
                return;
            }
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            // A response may have no end; a client that waits for its next request is told then.
            Ok(()) = rules.changed() => if watch.is_busy() && context.revoked().is_some() {
                return;
            },
            () = context.place.evicted().cancelled() => return,
            () = sleep(wait) => match watch.look(options) {
                _ if socket.is_broken() => return,
                Look::HeadTooSlow => return,
                Look::IdleTooLong => connection.as_mut().graceful_shutdown(),
                Look::After(later) => wait = later,
            },
        }
    }
}

async fn respond(
    context: Arc<Context>,
    watch: Arc<Watch>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    let mut request = request.map(Body::incoming);
    let busy = watch.busy(request.body_mut().tracked());
    let mut response = match forward(&context, request).await {
        Ok(response) => response,
        Err(error) => reply::problem(&error),
    };
    // The client is told before its connection ends, so that it sends its next request on another.
    if context.is_draining() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response.map(|body| body.while_busy(busy)))
}

async fn forward(context: &Context, request: Request<Body>) -> Result<Response<ResponseBody>, CallError> {
    if request.method() == Method::CONNECT {
        return Err(CallError::Unsupported { method: request.method().clone() });
    }
    headers::clear(&request).map_err(|why| CallError::Malformed { why })?;
    let exposed = match context.fixed_target() {
        Some(_) => None,
        None => Some(context.exposed(request.uri(), request.headers())?),
    };
    let by_host = exposed.as_ref().map(|(service, port)| (service, *port));
    let addressed = context.fixed_target().or(by_host);
    let (target, port) = addressed.expect("a connection addresses a service, or each of its requests does");
    let rules = *context.core.rules.borrow();
    context.set_calls([None, None]);
    let origin = context.origin(target, port);
    let Answer { response, taken } = context.core.forward(&origin, request).await?;
    context.set_calls([exposed, Some((taken.service, taken.endpoint.port))]);
    let has_changed = *context.core.rules.borrow() != rules;
    match has_changed.then(|| context.revoked()).flatten() {
        Some(denied) => Err(CallError::Denied(Box::new(denied))),
        None => Ok(response),
    }
}

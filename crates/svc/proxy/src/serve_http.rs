//! A client connection that speaks HTTP/1.1: each request is decided and forwarded on its own.
//! Bounds the time for a head and between requests; ends in order when the proxy stops.

use crate::{
    body::Body,
    call::Answer,
    client_io::{ClientIo, Socket},
    context::Context,
    error::CallError,
    forward, headers, reply,
    response_body::ResponseBody,
    watch::{Look, Watch},
};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header::CONNECTION};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};
use tokio::{net::TcpStream, time::sleep};

/// Serves until the client or the bounds end it, or until the proxy stops and the request in progress is answered.
pub(crate) async fn serve(context: Arc<Context>, stream: TcpStream, read_ahead: Bytes) {
    let watch = Arc::new(Watch::new(!read_ahead.is_empty(), context.place.idle()));
    let socket = Socket::new(stream);
    let io = TokioIo::new(ClientIo { read_ahead, socket: socket.clone(), watch: Arc::clone(&watch) });
    let service = service_fn({
        let (context, watch) = (Arc::clone(&context), Arc::clone(&watch));
        move |request| respond(Arc::clone(&context), Arc::clone(&watch), request)
    });
    let options = &context.core.options;
    let connection = http1::Builder::new()
        // A client that stops sending still gets its answer. One that has broken off is noticed below.
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
            () = context.stopping().cancelled(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            // A response may have no end; in that case a client that waits for its next request is told.
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
    let mut response = match serve_one(&context, request).await {
        Ok(response) => response,
        Err(error) => reply::problem(&error),
    };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        busy.for_good();
        return Ok(response);
    }
    // The client is told before its connection ends, so that it sends its next request on another.
    if context.is_draining() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response.map(|body| body.while_busy(busy)))
}

async fn serve_one(context: &Context, request: Request<Body>) -> Result<Response<ResponseBody>, CallError> {
    if request.method() == Method::CONNECT {
        return Err(CallError::Unsupported { method: request.method().clone() });
    }
    headers::clear(&request).map_err(|why| CallError::Malformed { why })?;
    let mut exposed = None;
    let (target, port) = match context.fixed_target() {
        Some(fixed) => fixed,
        None => {
            let (service, port) = exposed.insert(context.exposed(request.uri(), request.headers())?);
            (&*service, *port)
        }
    };
    let rules = *context.core.rules.borrow();
    context.set_calls([None, None]);
    let origin = context.origin(target, port);
    let Answer { response, taken } = forward::forward(&context.core, &origin, request).await?;
    context.set_calls([exposed, Some((taken.service, taken.endpoint.port))]);
    let has_changed = *context.core.rules.borrow() != rules;
    match has_changed.then(|| context.revoked()).flatten() {
        Some(denied) => Err(CallError::Denied(Box::new(denied))),
        None => Ok(response),
    }
}

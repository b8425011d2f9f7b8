//! Connections from the proxies of other nodes: this node's own table checks what they assert, then the request or flow
//! goes to exactly the named container. Does not choose endpoints.

use crate::{
    assertion::{self, Assertion, Cause, Reason, Refusal, Reply, read_frame, write_frame},
    attempt::{Clock, Pick, Sending, may_repeat},
    body::Body,
    call::{Origin, Taken},
    core::Core,
    counters::LastCell,
    exchange_here, headers,
    lingering::Lingering,
    peer::{Io, PeerNode, PeerProtocol},
    peers::Arrivals,
    phases::Part,
    pool::Active,
    response_body::{Held, ResponseBody},
    shares::Party,
    socket,
    standing::Standing,
    stream::Stream,
    tunnel,
};
use bytes::Bytes;
use heptad_model::ServiceKey;
use heptad_route::{
    Admission, Arrival, Attempts, Caller, Direction, Draw, Limits, Reason as GivenUp, Step, Table, admit,
};
use http::{Request, Response, StatusCode, Version};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    convert::Infallible,
    io,
    pin::pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};
use tokio::time::timeout;

/// Bytes of a frame of HTTP/2.
const FRAME_BYTES: u32 = 64 << 10;

/// Runs the streams of a connection where the proxy's end waits for them.
#[derive(Clone)]
struct Tracked(Arc<Core>);

impl<F: Future<Output: Send> + Send + 'static> hyper::rt::Executor<F> for Tracked {
    fn execute(&self, future: F) {
        self.0.phases.spawn(Part::All, future);
    }
}

/// Serves one connection to its end.
pub(crate) async fn serve(core: Arc<Core>, io: Box<dyn Io>, protocol: PeerProtocol, from: PeerNode) {
    let arrivals = core.peers.arrivals(&from);
    match protocol {
        PeerProtocol::Http => {
            let Some(place) = core.arrivals.enter(Party::Node(from.node.clone())) else { return };
            let evicted = place.evicted().clone();
            let _ = evicted.run_until_cancelled(serve_http(core, io, from, arrivals)).await;
        }
        PeerProtocol::Stream => {
            arrivals.received.fetch_add(1, Relaxed);
            if let Err(error) = serve_stream(&core, io, &from, &arrivals).await {
                tracing::debug!(%from, %error, "flow from another node");
            }
        }
    }
}

async fn serve_http(core: Arc<Core>, io: Box<dyn Io>, from: PeerNode, arrivals: Arc<Arrivals>) {
    let options = Arc::clone(&core.options);
    let tracked = Tracked(Arc::clone(&core));
    let drain = core.phases.draining(Part::Outer).clone();
    let from = Arc::new(from);
    let service = service_fn(move |request| {
        let (core, from, arrivals) = (Arc::clone(&core), Arc::clone(&from), Arc::clone(&arrivals));
        async move { Ok::<_, Infallible>(respond(&core, &from, &arrivals, request).await) }
    });
    let connection = http2::Builder::new(tracked)
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .initial_stream_window_size(options.peer_stream_window_bytes)
        .initial_connection_window_size(options.peer_window_bytes())
        .max_frame_size(FRAME_BYTES)
        .max_header_list_size(options.peer_header_bytes_max())
        .max_concurrent_streams(options.peer_streams_max)
        // Clients that leave reset their streams; that is no attack by their node.
        .max_pending_accept_reset_streams(options.peer_streams_max as usize)
        .max_local_error_reset_streams(None)
        .keep_alive_interval(options.peer_keep_alive_interval())
        .keep_alive_timeout(options.peer_keep_alive_interval())
        .serve_connection(TokioIo::new(Lingering::new(io)), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = drain.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection from another node");
    }
}

async fn respond(
    core: &Core,
    from: &PeerNode,
    arrivals: &Arrivals,
    request: Request<Incoming>,
) -> Response<ResponseBody> {
    if assertion::is_ping(&request) {
        let mut response = Response::new(ResponseBody::own(Bytes::new()));
        *response.status_mut() = StatusCode::NO_CONTENT;
        return response;
    }
    arrivals.received.fetch_add(1, Relaxed);
    match forward(core, from, request.map(Body::incoming)).await {
        Ok((mut response, held)) => {
            headers::prepare_response(&mut response);
            response.map(|body| ResponseBody::upstream(body, held))
        }
        Err(refusal) => {
            arrivals.refused.fetch_add(1, Relaxed);
            tracing::debug!(%from, ?refusal, "request from another node");
            let mut response = Response::new(ResponseBody::own(Bytes::new()));
            *response.status_mut() = refusal.status();
            refusal.insert(response.headers_mut());
            response
        }
    }
}

async fn forward(
    core: &Core,
    from: &PeerNode,
    mut request: Request<Body>,
) -> Result<(Response<Incoming>, Held), Refusal> {
    let malformed = || Refusal::new(Reason::Malformed, "the request does not say who calls which container");
    let assertion = Assertion::take(request.headers_mut()).ok_or_else(malformed)?;
    let (caller, taken, active) = core.admitted(from, &assertion).await?;
    *request.version_mut() = Version::HTTP_11;
    let last = LastCell::default();
    let target = taken.service.clone();
    let origin = arrival_of(&caller, &target, assertion.port, &last);
    let clock = Clock::start();
    let limits = Limits { endpoints_max: 1, ..core.limits };
    // There is nothing to choose.
    let mut attempts = Attempts::new(limits, may_repeat(&request), Draw(0), clock.now_ms());
    let pick = Pick { taken, has_alternative: false, revision: 0, active };
    loop {
        let sending = Sending::new(&origin, &pick, &attempts, clock);
        let failed = match exchange_here::send(core, &sending, request).await {
            Ok(answered) => return Ok(answered),
            Err(failed) => failed,
        };
        match failed.next(&mut attempts, &pick, clock) {
            (Step::Try(again), _) => request = *again,
            (Step::GiveUp(reason), cause) => return Err(given_up(&pick.taken, reason, cause)),
        }
    }
}

fn arrival_of<'a>(caller: &'a Caller, target: &'a ServiceKey, port: u16, last: &'a LastCell) -> Origin<'a> {
    Origin { caller, target, port, peer: None, last, place: None }
}

fn unreachable(taken: &Taken, error: &io::Error) -> Refusal {
    Refusal::new(Reason::Unreachable, format!("{} accepts no connection: {error}", taken.endpoint.container))
}

fn given_up(taken: &Taken, reason: GivenUp, cause: Cause) -> Refusal {
    let container = &taken.endpoint.container;
    match (reason, cause) {
        (GivenUp::Judged, Cause::Refused(refusal)) => refusal,
        (GivenUp::Late, _) => Refusal::new(Reason::TimedOut, format!("{container} sent no response in time")),
        (GivenUp::Unreachable { .. }, cause) => unreachable(taken, &cause.into()),
        (GivenUp::Broken | GivenUp::Judged, cause) => {
            Refusal::new(Reason::Interrupted, format!("{container} broke off: {}", io::Error::from(cause)))
        }
    }
}

impl Core {
    /// Who calls and where the call goes, if this node's own table allows it. A sender whose table is newer than this
    /// node's may know more: then this waits for the table.
    async fn admitted(&self, from: &PeerNode, assertion: &Assertion) -> Result<(Caller, Taken, Active), Refusal> {
        let Some(caller) = assertion.caller(&self.options.trust_domain) else {
            return Err(Refusal::new(Reason::Malformed, "the caller does not belong to this trust domain"));
        };
        let mut result = self.admitted_now(from, assertion, &caller);
        if result.is_err() && self.table().revision() < assertion.revision {
            let mut revision = self.revision.subscribe();
            let caught_up = revision.wait_for(|revision| *revision >= assertion.revision);
            let _ = timeout(Duration::from_millis(self.options.peer_table_wait_ms_max), caught_up).await;
            result = self.admitted_now(from, assertion, &caller);
        }
        result.map(|(taken, active)| (caller, taken, active))
    }

    /// Counts the call as in progress before looking at the table, so that whoever stops the container waits for it.
    fn admitted_now(
        &self,
        from: &PeerNode,
        assertion: &Assertion,
        caller: &Caller,
    ) -> Result<(Taken, Active), Refusal> {
        loop {
            let table = self.table();
            let taken = self.taken(&table, from, assertion, caller)?;
            let active = self.pool.enter(&taken.endpoint, &self.options);
            if Arc::ptr_eq(&table, &self.table()) {
                return Ok((taken, active));
            }
        }
    }

    fn taken(&self, table: &Table, from: &PeerNode, assertion: &Assertion, caller: &Caller) -> Result<Taken, Refusal> {
        let Some(node) = &self.options.node else {
            return Err(Refusal::new(Reason::Gone, "this proxy serves no other nodes"));
        };
        let Assertion { container, port, .. } = assertion;
        let (from_node, from_server) = (from.node.as_ref(), from.is_server);
        let arrival = Arrival { from: from_node, from_server, caller, node, container, port: *port };
        match admit(table, &arrival) {
            Admission::Forward { service, endpoint } => {
                Ok(Taken { service: service.clone(), rule: None, endpoint: endpoint.clone() })
            }
            Admission::Deny(denial) => Err(Refusal {
                egress: denial.direction == Direction::Egress,
                policies: denial.policies.iter().map(|&name| name.to_owned()).collect(),
                ..Refusal::new(Reason::Denied, denial.to_string())
            }),
            Admission::Impostor => {
                let text = format!("{from} may not speak for {caller}: {node} knows of no container of it there");
                Err(Refusal::new(Reason::Impostor, text))
            }
            Admission::Gone => {
                Err(Refusal::new(Reason::Gone, format!("{container} does not serve port {port} on {node}")))
            }
        }
    }
}

/// One flow: the caller and container in one frame, the answer in another, then bytes both ways.
async fn serve_stream(core: &Core, mut io: Box<dyn Io>, from: &PeerNode, arrivals: &Arrivals) -> io::Result<()> {
    let wait = Duration::from_millis(core.options.peer_preamble_wait_ms_max);
    let asserted: Assertion = timeout(wait, read_frame(&mut io)).await??;
    let last = LastCell::default();
    let stopping = || Refusal::new(Reason::Stopping, "this proxy stops");
    let connected = match core.admitted(from, &asserted).await {
        Ok(_) if core.phases.draining(Part::Outer).is_cancelled() => Err(stopping()),
        Err(refusal) => Err(refusal),
        Ok((caller, taken, active)) => {
            active.becomes_flow();
            let origin = arrival_of(&caller, &taken.service, asserted.port, &last);
            let standing = Standing::new(core, &origin, &taken);
            match core.arrivals.enter(Party::Remote(from.node.clone(), caller.clone())) {
                Some(place) => match socket::connect(taken.endpoint.address, &core.options).await {
                    Ok(stream) => Ok((active, place, stream, standing)),
                    Err(error) => Err(unreachable(&taken, &error)),
                },
                None => Err(unreachable(&taken, &io::Error::other("this node has too many connections"))),
            }
        }
    };
    match connected {
        Ok((active, place, stream, standing)) => {
            timeout(wait, write_frame(&mut io, &Reply { refused: None })).await??;
            let endpoint = tunnel::Endpoint::new(Stream::Here(stream), active);
            let ended = tunnel::ended(standing, &place);
            tunnel::run(io, endpoint, Bytes::new(), core.options.tunnel_buffer_bytes, ended).await;
            Ok(())
        }
        Err(refusal) => {
            arrivals.refused.fetch_add(1, Relaxed);
            timeout(wait, write_frame(&mut io, &Reply { refused: Some(refusal) })).await?
        }
    }
}

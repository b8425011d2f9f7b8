//! What servers ask of a node over its node port: the output of containers, and programs inside them. The paths are
//! those of the API, so the two sides are the API's own client and a small router.

use crate::{Members, Spoken};
use axum::{
    Json, Router,
    body::Body,
    extract::{DefaultBodyLimit, Path, Query, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures_util::{Stream, StreamExt};
use heptad_api::{
    ErrorCode, ProblemDetails,
    operations::{EXEC_BODY_BYTES_MAX, ExecLine, ExecRequest, LogLine},
};
use heptad_client::{BoxFuture, Client, Connector, Io, Lines, Options};
use heptad_model::{Container, ContainerId, NodeName};
use http::{StatusCode, header};
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{io, pin::Pin, sync::Arc, time::Duration};
use tokio::io::{AsyncRead, AsyncWrite};
use tower::ServiceExt;

/// The longest time for the head of a request.
const HEADER_MS_MAX: u64 = 10_000;

/// A stream of lines.
pub type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, ProblemDetails>> + Send>>;

/// The containers of this node.
pub trait Containers: Send + Sync {
    /// What the container wrote: the last `tail` lines (all that are kept if `None`), then, with `follow`, what it
    /// writes.
    fn logs(
        &self,
        container: ContainerId,
        tail: Option<usize>,
        follow: bool,
    ) -> BoxFuture<'_, Result<Streamed<LogLine>, ProblemDetails>>;

    /// Runs a program inside the container. It has started when the future is done; dropping the stream kills it.
    fn exec(
        &self,
        container: ContainerId,
        request: ExecRequest,
    ) -> BoxFuture<'_, Result<Streamed<ExecLine>, ProblemDetails>>;
}

type Local = Arc<dyn Containers>;

/// Answers a server on one connection until it ends.
pub async fn answer_servers(
    local: Arc<dyn Containers>,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> io::Result<()> {
    let router = Router::new()
        .route("/v1/containers/{id}/logs", get(logs))
        .route("/v1/containers/{id}/exec", post(exec).layer(DefaultBodyLimit::max(EXEC_BODY_BYTES_MAX)))
        .with_state(local);
    let service = service_fn(move |request: Request<Incoming>| router.clone().oneshot(request.map(Body::new)));
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(HEADER_MS_MAX))
        .serve_connection(TokioIo::new(stream), service)
        .await
        .map_err(io::Error::other)
}

fn problem(problem: &ProblemDetails) -> Response {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, Json(problem)).into_response()
}

#[derive(Debug, Deserialize)]
struct LogsQuery {
    tail: Option<usize>,
    #[serde(default)]
    follow: bool,
}

async fn logs(State(local): State<Local>, Path(id): Path<String>, Query(query): Query<LogsQuery>) -> Response {
    let LogsQuery { tail, follow } = query;
    match local.logs(ContainerId(id), tail, follow).await {
        Ok(lines) => streamed(lines),
        Err(error) => problem(&error),
    }
}

fn streamed<T: Serialize>(lines: impl Stream<Item = Result<T, ProblemDetails>> + Send + 'static) -> Response {
    let written = lines.map(|line| {
        let mut text = serde_json::to_vec(&line.map_err(io::Error::other)?)?;
        text.push(b'\n');
        Ok::<_, io::Error>(text)
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(written)).into_response()
}

async fn exec(State(local): State<Local>, Path(id): Path<String>, Json(request): Json<ExecRequest>) -> Response {
    match local.exec(ContainerId(id), request).await {
        Ok(lines) => streamed(lines),
        Err(error) => problem(&error),
    }
}

/// The server's way to containers: through the node port of the node that runs them.
#[derive(Debug)]
pub struct ToContainers(pub Members);

/// One node, which the client treats as a server.
struct ToNode {
    members: Members,
    node: NodeName,
}

impl Connector for ToNode {
    fn endpoints(&self) -> Vec<String> {
        vec![format!("node/{}", self.node)]
    }

    fn connect(&self, _endpoint: &str) -> BoxFuture<'_, io::Result<Box<dyn Io>>> {
        Box::pin(async {
            let stream = self.members.dial(&self.node, Spoken::Node).await?;
            Ok(Box::new(stream) as Box<dyn Io>)
        })
    }

    fn host(&self, _endpoint: &str) -> String {
        self.node.to_string()
    }

    fn remedy(&self, _error: &io::Error) -> &'static str {
        "is the machine up, its agent running, and its node port reachable from the servers?"
    }
}

impl ToContainers {
    fn client(&self, container: &Container) -> Result<Client, ProblemDetails> {
        let node = container.node.clone().ok_or_else(|| {
            let detail = format!("container {} runs nowhere yet; `heptad why` says what it waits for", container.id);
            ProblemDetails::new(ErrorCode::NotFound, detail)
        })?;
        let connector = ToNode { members: self.0.clone(), node };
        Ok(Client::with_connector(Arc::new(connector), Options::default()))
    }

    /// What the container wrote, as [`Containers::logs`] on its node.
    pub async fn logs(
        &self,
        container: &Container,
        tail: Option<usize>,
        follow: bool,
    ) -> Result<Streamed<LogLine>, ProblemDetails> {
        let lines = self.client(container)?.logs(&container.id, tail, follow).await.map_err(told)?;
        Ok(Box::pin(stream_of(lines)))
    }

    /// Runs a program inside the container, as [`Containers::exec`] on its node.
    pub async fn exec(
        &self,
        container: &Container,
        request: &ExecRequest,
    ) -> Result<Streamed<ExecLine>, ProblemDetails> {
        let lines = self.client(container)?.exec(&container.id, request).await.map_err(told)?;
        Ok(Box::pin(stream_of(lines)))
    }
}

fn told(error: heptad_client::Error) -> ProblemDetails {
    match error {
        heptad_client::Error::Problem(problem) => *problem,
        error => {
            let cause = std::error::Error::source(&error).map_or(String::new(), |cause| format!(": {cause}"));
            ProblemDetails::new(ErrorCode::Unavailable, format!("{error}{cause}"))
        }
    }
}

fn stream_of<T: DeserializeOwned + Send + 'static>(
    lines: Lines<T>,
) -> impl Stream<Item = Result<T, ProblemDetails>> + Send {
    futures_util::stream::unfold(Some(lines), |lines| async move {
        let mut lines = lines?;
        match lines.next().await {
            Ok(Some(line)) => Some((Ok(line), Some(lines))),
            Ok(None) => None,
            Err(error) => Some((Err(told(error)), None)),
        }
    })
}

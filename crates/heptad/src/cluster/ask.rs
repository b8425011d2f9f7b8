//! What servers ask of a node over its node port: the output of containers, and programs inside them. The paths are those
//! of the API, so that both sides are the API's own client and a small router.

use super::{connect::Spoken, members::Members};
use crate::platform::LocalNodeAccess;
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
    operations::{EXEC_BODY_BYTES_MAX, ExecRequest},
};
use heptad_client::{BoxFuture, Client, Connector, Io, Lines, Options};
use heptad_control::{ExecStream, LogStream, NodeAccess};
use heptad_model::{Container, ContainerId, NodeName};
use http::{StatusCode, header};
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{io, sync::Arc, time::Duration};
use tokio::io::{AsyncRead, AsyncWrite};
use tower::ServiceExt;

/// Longest time for the head of a request.
const HEADER_MS_MAX: u64 = 10_000;

type Local = Arc<LocalNodeAccess>;

/// Answers a server on one connection until it ends.
pub(crate) async fn answer_servers(
    local: Local,
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
    match local.logs_of(&ContainerId(id), tail, follow).await {
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
    match local.exec_in(&ContainerId(id), request).await {
        Ok(lines) => streamed(lines),
        Err(error) => problem(&error),
    }
}

/// The server's way to containers: through the node port of the node that runs them.
#[derive(Debug)]
pub(crate) struct NodePortAccess(pub(crate) Members);

/// One node, as a server for the client.
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

impl NodePortAccess {
    fn client(&self, container: &Container) -> Result<Client, ProblemDetails> {
        let node = container.node.clone().ok_or_else(|| {
            let detail = format!("container {} runs nowhere yet; `heptad why` says what it waits for", container.id);
            ProblemDetails::new(ErrorCode::NotFound, detail)
        })?;
        let connector = ToNode { members: self.0.clone(), node };
        Ok(Client::with_connector(Arc::new(connector), Options::default()))
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

impl NodeAccess for NodePortAccess {
    fn logs(
        &self,
        container: Container,
        tail: Option<usize>,
        follow: bool,
    ) -> heptad_control::BoxFuture<'_, Result<LogStream, ProblemDetails>> {
        Box::pin(async move {
            let lines = self.client(&container)?.logs(&container.id, tail, follow).await.map_err(told)?;
            Ok(Box::pin(stream_of(lines)) as LogStream)
        })
    }

    fn exec(
        &self,
        container: Container,
        request: ExecRequest,
    ) -> heptad_control::BoxFuture<'_, Result<ExecStream, ProblemDetails>> {
        Box::pin(async move {
            let lines = self.client(&container)?.exec(&container.id, &request).await.map_err(told)?;
            Ok(Box::pin(stream_of(lines)) as ExecStream)
        })
    }
}

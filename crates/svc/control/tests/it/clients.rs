//! The other parts over the API: logs, exec, mesh, storage, as the binary supplies them; and how requests end.

use crate::common::{Agent, World, all_ready, node, service};
use axum::{Router, extract::Path, routing::get};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use heptad_api::{
    Base64, ErrorCode, ProblemDetails,
    mesh::{CallRequest, CallResponse, CheckResponse},
    operations::{EXEC_STDIN_BYTES_MAX, ExecExit, ExecLine, ExecRequest, LogLine},
};
use heptad_client::Body;
use heptad_control::{BoxFuture, ExecStream, LogStream, MeshAccess, NodeAccess, ServerParts};
use heptad_model::{Container, ServiceKey};
use heptad_state::MemoryStore;
use std::sync::Arc;

struct Parts;

impl NodeAccess for Parts {
    fn logs(
        &self,
        container: Container,
        tail: Option<usize>,
        follow: bool,
    ) -> BoxFuture<'_, Result<LogStream, ProblemDetails>> {
        let line = move |i: usize| LogLine {
            container: container.id.clone(),
            time: "2025-01-01T00:00:00Z".into(),
            stream: "stdout".into(),
            log: format!("line {i}"),
            partial: false,
        };
        let count = if follow { usize::MAX } else { tail.unwrap_or(3) };
        let lines: LogStream = Box::pin(stream::iter(0..count).map(move |i| Ok(line(i))));
        Box::pin(async { Ok(lines) })
    }

    fn exec(&self, container: Container, request: ExecRequest) -> BoxFuture<'_, Result<ExecStream, ProblemDetails>> {
        Box::pin(async move {
            if request.command.is_empty() {
                return Err(ProblemDetails::new(ErrorCode::BadRequest, "name a program"));
            }
            let said = format!("{}: {}", container.service, request.command.join(" "));
            let mut lines = vec![ExecLine::Stdout(Base64(said.into_bytes())), ExecLine::Stdout(request.stdin)];
            lines.push(ExecLine::Exited(ExecExit { exit_code: 3, broken: String::new() }));
            Ok(Box::pin(stream::iter(lines.into_iter().map(Ok))) as ExecStream)
        })
    }
}

impl MeshAccess for Parts {
    fn call(&self, request: CallRequest) -> BoxFuture<'_, Result<CallResponse, ProblemDetails>> {
        Box::pin(async move {
            Ok(CallResponse {
                status: 200,
                headers: Default::default(),
                body: request.path,
                served_by: Some(request.to),
                container: None,
                rule: None,
            })
        })
    }

    fn check(&self, request: CallRequest) -> BoxFuture<'_, CheckResponse> {
        let explanation = format!("{} may", request.to);
        Box::pin(async {
            let (policies, backends) = (Vec::new(), Default::default());
            CheckResponse { allowed: true, explanation, policies, rule: None, backends }
        })
    }
}

fn storage() -> Router {
    let object = get(async |Path((bucket, key)): Path<(String, String)>| format!("{bucket} {key}"))
        .put(async |body: Bytes| body.len().to_string());
    Router::new()
        .route("/", get(async || "\"fine\""))
        .route("/{bucket}/{*key}", object)
        .layer(axum::extract::DefaultBodyLimit::disable())
}

async fn world() -> World {
    let parts = ServerParts {
        nodes: Some(Arc::new(Parts)),
        mesh: Some(Arc::new(Parts)),
        storage: Some(storage()),
        version: "1.2.3".into(),
        ..ServerParts::default()
    };
    World::with(Arc::new(MemoryStore::new()), |_| {}, parts).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_exec_mesh_and_storage_go_through() {
    let world = world().await;
    let client = &world.client;
    let _agent = Agent::start(client, &node("n1", 1000, 1024)).await;
    client.create(&service("web", 1)).await.expect("created");
    let id = world.containers_until(all_ready(1)).await[0].id.clone();
    let mut lines = client.logs(&id, Some(2), false).await.expect("logs");
    let mut texts = Vec::new();
    while let Some(line) = lines.next().await.expect("no error") {
        texts.push(line.log);
    }
    assert_eq!(texts, ["line 0", "line 1"]);
    let mut endless = client.logs(&id, None, true).await.expect("logs");
    for i in 0..1000 {
        let line = endless.next().await.expect("no error").expect("no end");
        assert_eq!(line.log, format!("line {i}"));
    }
    let request = |command: &[&str], stdin: Vec<u8>| ExecRequest {
        command: command.iter().map(ToString::to_string).collect(),
        stdin: Base64(stdin),
        timeout_ms: 30_000,
    };
    let binary: Vec<u8> = (0..EXEC_STDIN_BYTES_MAX).map(|i| u8::try_from(i % 251).expect("small")).collect();
    let mut done = client.exec(&id, &request(&["echo", "x"], binary.clone())).await.expect("done");
    let mut next = async || done.next().await.expect("no error");
    assert_eq!(next().await, Some(ExecLine::Stdout(Base64(b"default/web: echo x".to_vec()))));
    assert!(next().await == Some(ExecLine::Stdout(Base64(binary.clone()))), "not the bytes that were sent");
    assert!(matches!(next().await, Some(ExecLine::Exited(ExecExit { exit_code: 3, .. }))));
    assert_eq!(next().await, None);
    let refused = client.exec(&id, &request(&["x"], [binary, vec![0]].concat())).await.expect_err("too much input");
    assert_eq!(refused.code(), Some(ErrorCode::TooLarge));
    let request = |command: &[&str]| request(command, Vec::new());
    let refused = client.exec(&id, &request(&[])).await.expect_err("refused");
    assert_eq!(refused.code(), Some(ErrorCode::BadRequest));
    assert!(client.exec(&"absent".into(), &request(&["x"])).await.expect_err("absent").is_not_found());
    let call: CallRequest =
        serde_json::from_value(serde_json::json!({"to": "default/web", "path": "/x?y"})).expect("a call");
    let answer = client.mesh_call(&call).await.expect("called");
    assert_eq!((answer.body.as_str(), answer.served_by), ("/x?y", Some(ServiceKey::new("default", "web"))));
    assert!(client.mesh_check(&call).await.expect("checked").allowed);
    assert_eq!(client.version().await.expect("a version").version, "1.2.3");
    assert_eq!(client.storage_status::<String>().await.expect("a status"), "fine");
    let object = client.storage_get("b", "a b/ü%").await.expect("an object");
    assert_eq!(object.bytes(100).await.expect("its bytes"), "b a b/ü%".as_bytes());
    // Larger than the bound of other bodies, from a stream.
    let chunks = stream::iter((0..80).map(|_| Ok(Bytes::from(vec![7; 100_000]))));
    let stored: u64 = client.storage_put("b", "k", Body::stream(chunks), None).await.expect("stored");
    assert_eq!(stored, 8_000_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_ends_streams_and_does_not_wait_for_idle_connections() {
    let world = world().await;
    let mut watch = world.client.watch::<heptad_model::Service>(None).await.expect("a watch");
    watch.next().await.expect("no error");
    let World { control, dir: _dir, .. } = world;
    let started = std::time::Instant::now();
    let ended = tokio::spawn(async move {
        // Bookmarks may come before the end.
        while let Ok(Some(_)) = watch.next().await {}
    });
    control.shutdown().await;
    ended.await.expect("the watch ended");
    assert!(started.elapsed().as_secs() < 4, "{:?}", started.elapsed());
}

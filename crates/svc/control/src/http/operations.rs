//! Handlers of operations that are more than one object.

use super::{
    Shared,
    authenticate::Asking,
    objects::{object_response, query},
    stream,
};
use crate::{
    budget::Caller,
    error::{Error, Result, StoreContext},
    fanout::Channel,
    objects::body_value,
    optimize::{self, Suggestion},
    reports,
};
use axum::{
    Json, Router,
    body::Body,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::{delete, get, post, put},
};
use heptad_api::{
    ErrorCode, ProblemDetails,
    operations::{ApplyRequest, EXEC_BODY_BYTES_MAX, EXEC_STDIN_BYTES_MAX, ExecRequest, ImagePin, Version},
    optimization::{Optimization, OptimizeRequest},
    report::{VerifyResponse, WhyResponse},
};
use heptad_model::{Container, ContainerId, Event, Namespace, NodeName, ServiceKey, Snapshot};
use heptad_state::Revision;
use http::{StatusCode, Uri};
use serde::Deserialize;

/// The longest search for a better placement when the guarantees are evaluated.
const VERIFY_SEARCH_MS_MAX: u64 = 500;

/// The routes of this module.
pub(crate) fn routes() -> Router<Shared> {
    Router::new()
        .route("/v1/nodes/{name}/heartbeat", post(heartbeat))
        .route("/v1/events", post(create_event))
        .route("/v1/containers/{id}/status", put(report_container))
        .route("/v1/containers/{id}", delete(delete_container))
        .route("/v1/containers/{id}/logs", get(logs))
        .route("/v1/containers/{id}/exec", post(exec))
        .route("/v1/containers/{id}/settings", get(container_settings))
        .route("/v1/containers/{id}/image", post(container_image))
        .route("/v1/containers/{id}/why", get(container_why))
        .route("/v1/version", get(version))
        .route("/v1/apply", post(apply))
        .route("/v1/plan", post(plan))
        .route("/v1/namespaces/{namespace}/services/{name}/why", get(why))
        .route("/v1/snapshot", get(snapshot))
        .route("/v1/verify", get(verify))
        .route("/v1/optimization", get(optimization).post(optimize_now))
        .route("/v1/mesh", get(mesh_state))
        .route("/v1/mesh/call", post(mesh_call))
        .route("/v1/mesh/check", post(mesh_check))
}

fn absent(what: &str) -> Error {
    Error::refused(ErrorCode::Unavailable, format!("this server has no {what}; ask the server that runs it"))
}

fn refused(problem: ProblemDetails) -> Error {
    problem.into()
}

async fn heartbeat(State(app): State<Shared>, Path(name): Path<String>) -> Result<StatusCode> {
    let leading = app.leader.objects();
    app.liveness.heartbeat(&app.objects, leading.as_ref(), &app.options, &NodeName(name)).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn create_event(State(app): State<Shared>, principal: Asking, body: Body) -> Result<Response> {
    let event: Event = body_value(&app.body(body).await?, "event")?;
    app.may_tell(&principal, &event.subject).await?;
    app.objects.create_event(event, Some(&principal.0.to_string())).await.map(object_response)
}

async fn report_container(State(app): State<Shared>, Path(id): Path<String>, body: Body) -> Result<Response> {
    let report = body_value(&app.body(body).await?, "report of a container")?;
    app.objects.report(&ContainerId(id), &report).await.map(object_response)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeleteQuery {
    node: NodeName,
}

async fn delete_container(State(app): State<Shared>, Path(id): Path<String>, uri: Uri) -> Result<StatusCode> {
    let DeleteQuery { node } = query(&uri)?;
    app.objects.remove_container(&ContainerId(id), &node).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LogsQuery {
    tail: Option<usize>,
    #[serde(default)]
    follow: bool,
}

async fn container_of(app: &Shared, id: &str) -> Result<Container> {
    Ok(app.objects.get::<Container>(&Namespace::default(), id).await?.object)
}

async fn logs(State(app): State<Shared>, caller: Caller, Path(id): Path<String>, uri: Uri) -> Result<Response> {
    let LogsQuery { tail, follow } = query(&uri)?;
    let container = container_of(&app, &id).await?;
    let nodes = app.parts.nodes.as_ref().ok_or_else(|| absent("way to containers"))?;
    let permit = app.stream_permit(&caller)?;
    let lines = nodes.logs(container, tail, follow).await.map_err(refused)?;
    Ok(stream::node_lines(lines, app.stop.clone(), permit))
}

async fn container_settings(State(app): State<Shared>, Path(id): Path<String>) -> Result<Response> {
    Ok(Json(app.objects.container_settings(&ContainerId(id)).await?).into_response())
}

async fn container_image(State(app): State<Shared>, Path(id): Path<String>, body: Body) -> Result<Json<ImagePin>> {
    let proposed = body_value(&app.body(body).await?, "digest of an image")?;
    Ok(Json(app.objects.container_image(&ContainerId(id), proposed).await?))
}

async fn exec(State(app): State<Shared>, caller: Caller, Path(id): Path<String>, body: Body) -> Result<Response> {
    let body = app.body_up_to(body, EXEC_BODY_BYTES_MAX).await?;
    let request: ExecRequest = body_value(&body, "request to run a program")?;
    if request.stdin.0.len() > EXEC_STDIN_BYTES_MAX {
        let detail = format!("the standard input of the program is larger than {EXEC_STDIN_BYTES_MAX} bytes");
        return Err(Error::refused(ErrorCode::TooLarge, detail));
    }
    let container = container_of(&app, &id).await?;
    let nodes = app.parts.nodes.as_ref().ok_or_else(|| absent("way to containers"))?;
    let permit = app.stream_permit(&caller)?;
    let lines = nodes.exec(container, request).await.map_err(refused)?;
    Ok(stream::node_lines(lines, app.stop.clone(), permit))
}

async fn version(State(app): State<Shared>) -> Result<Json<Version>> {
    let revision = app.objects.store().current_revision().await.during("read", "the revision")?;
    Ok(Json(Version { version: app.parts.version.clone(), api: "v1".to_owned(), revision }))
}

async fn apply(State(app): State<Shared>, principal: Asking, body: Body) -> Result<Response> {
    let request: ApplyRequest = body_value(&app.body(body).await?, "request to apply")?;
    app.may_apply(&principal, &request).await?;
    Ok(Json(app.objects.by(principal.0.writer()).apply(&request).await?).into_response())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanQuery {
    #[serde(default)]
    optimal: bool,
}

async fn plan(State(app): State<Shared>, principal: Asking, caller: Caller, uri: Uri, body: Body) -> Result<Response> {
    let PlanQuery { optimal } = query(&uri)?;
    let request: ApplyRequest = body_value(&app.body(body).await?, "request to apply")?;
    app.may_plan(&principal, &request)?;
    let _permit = if optimal { Some(app.search_permit(&caller)?) } else { None };
    let search_ms = optimal.then_some(app.options.optimize_search_ms);
    Ok(Json(reports::plan(&app.objects.by(principal.0.writer()), &request, search_ms).await?).into_response())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OptimizationQuery {
    moves_max: Option<u64>,
}

async fn suggested(app: &Shared, caller: &Caller, moves_max: Option<u64>) -> Result<Suggestion> {
    let _permit = app.search_permit(caller)?;
    let moves_max = moves_max.unwrap_or(app.options.optimize_moves_max);
    optimize::suggest(&app.objects, moves_max, app.options.optimize_search_ms).await
}

async fn optimization(State(app): State<Shared>, caller: Caller, uri: Uri) -> Result<Json<Optimization>> {
    let OptimizationQuery { moves_max } = query(&uri)?;
    Ok(Json(suggested(&app, &caller, moves_max).await?.answer))
}

async fn optimize_now(State(app): State<Shared>, caller: Caller, body: Body) -> Result<Json<Optimization>> {
    let request: OptimizeRequest = body_value(&app.body(body).await?, "request to optimise")?;
    let suggestion = suggested(&app, &caller, request.moves_max).await?;
    let begun = optimize::begin(&app.objects, &suggestion).await?;
    Ok(Json(Optimization { begun, ..suggestion.answer }))
}

async fn why(State(app): State<Shared>, Path((namespace, name)): Path<(String, String)>) -> Result<Json<WhyResponse>> {
    let key = ServiceKey::new(namespace, name);
    Ok(Json(reports::why(&app.objects, &app.reports, &key).await?))
}

async fn container_why(State(app): State<Shared>, Path(id): Path<String>) -> Result<Json<WhyResponse>> {
    Ok(Json(reports::container_why(&app.objects, &app.reports, &ContainerId(id)).await?))
}

async fn snapshot(State(app): State<Shared>) -> Result<Json<Snapshot>> {
    Ok(Json(app.objects.snapshot().await?))
}

async fn verify(State(app): State<Shared>, caller: Caller) -> Result<Json<VerifyResponse>> {
    let _permit = app.search_permit(&caller)?;
    let report = reports::verify(&app.objects, VERIFY_SEARCH_MS_MAX).await?;
    Ok(Json(VerifyResponse { conditions: app.conditions.now(), ..report }))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MeshQuery {
    #[serde(default)]
    watch: bool,
    revision: Option<Revision>,
}

async fn mesh_state(State(app): State<Shared>, caller: Caller, uri: Uri) -> Result<Response> {
    let MeshQuery { watch, revision } = query(&uri)?;
    if !watch {
        return Ok(Json(app.objects.mesh().await?).into_response());
    }
    stream::shared(&app, &caller, Channel::Mesh, revision).await
}

async fn mesh_call(State(app): State<Shared>, body: Body) -> Result<Response> {
    let request = body_value(&app.body(body).await?, "call")?;
    let mesh = app.parts.mesh.as_ref().ok_or_else(|| absent("way into the mesh"))?;
    Ok(Json(mesh.call(request).await.map_err(refused)?).into_response())
}

async fn mesh_check(State(app): State<Shared>, body: Body) -> Result<Response> {
    let request = body_value(&app.body(body).await?, "call")?;
    let mesh = app.parts.mesh.as_ref().ok_or_else(|| absent("way into the mesh"))?;
    Ok(Json(mesh.check(request).await).into_response())
}

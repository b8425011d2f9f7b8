//! Handlers about the life of workloads: rollouts, revisions, nodes that are being emptied or gone.

use super::{Shared, objects::object_response};
use crate::{error::Result, objects::body_value};
use axum::{
    Json, Router,
    body::Body,
    extract::{Path, State},
    response::Response,
    routing::{get, post},
};
use heptad_api::work::{DrainStatus, NodeSilence, RemoveNodeRequest, RevisionList, RolloutStatus, UndoRequest};
use heptad_model::{NodeName, ServiceKey};

/// The routes of this module.
pub(crate) fn routes() -> Router<Shared> {
    let service = "/v1/namespaces/{namespace}/services/{name}";
    Router::new()
        .route(&format!("{service}/rollout"), get(status))
        .route(&format!("{service}/revisions"), get(revisions))
        .route(&format!("{service}/rollout/undo"), post(undo))
        .route(&format!("{service}/rollout/pause"), post(pause))
        .route(&format!("{service}/rollout/resume"), post(resume))
        .route(&format!("{service}/rollout/restart"), post(restart))
        .route("/v1/nodes/{name}/cordon", post(cordon))
        .route("/v1/nodes/{name}/uncordon", post(uncordon))
        .route("/v1/nodes/{name}/drain", post(drain).get(drain_status))
        .route("/v1/nodes/{name}/fence", post(fence))
        .route("/v1/nodes/{name}/admit", post(admit))
        .route("/v1/nodes/{name}/remove", post(remove))
        .route("/v1/liveness", get(liveness))
}

type ServicePath = Path<(String, String)>;

fn key(Path((namespace, name)): ServicePath) -> ServiceKey {
    ServiceKey::new(namespace, name)
}

async fn status(State(app): State<Shared>, path: ServicePath) -> Result<Json<RolloutStatus>> {
    Ok(Json(app.objects.rollout_status(&key(path)).await?))
}

async fn revisions(State(app): State<Shared>, path: ServicePath) -> Result<Json<RevisionList>> {
    Ok(Json(app.objects.revisions(&key(path)).await?))
}

/// The body of an order, which may be empty.
async fn order<T: Default + serde::de::DeserializeOwned>(app: &Shared, body: Body, what: &str) -> Result<T> {
    let body = app.body(body).await?;
    if body.is_empty() { Ok(T::default()) } else { body_value(&body, what) }
}

async fn undo(State(app): State<Shared>, path: ServicePath, body: Body) -> Result<Json<RolloutStatus>> {
    let (key, request) = (key(path), order::<UndoRequest>(&app, body, "request to undo").await?);
    app.objects.undo_rollout(&key, request.to).await?;
    Ok(Json(app.objects.rollout_status(&key).await?))
}

async fn pause(State(app): State<Shared>, path: ServicePath) -> Result<Json<RolloutStatus>> {
    let key = key(path);
    app.objects.pause_rollout(&key).await?;
    Ok(Json(app.objects.rollout_status(&key).await?))
}

async fn resume(State(app): State<Shared>, path: ServicePath) -> Result<Json<RolloutStatus>> {
    let key = key(path);
    app.objects.resume_rollout(&key).await?;
    Ok(Json(app.objects.rollout_status(&key).await?))
}

async fn restart(State(app): State<Shared>, path: ServicePath) -> Result<Json<RolloutStatus>> {
    let key = key(path);
    app.objects.restart_rollout(&key).await?;
    Ok(Json(app.objects.rollout_status(&key).await?))
}

async fn cordon(State(app): State<Shared>, Path(name): Path<String>) -> Result<Response> {
    app.objects.cordon(&NodeName(name)).await.map(object_response)
}

async fn uncordon(State(app): State<Shared>, Path(name): Path<String>) -> Result<Response> {
    app.objects.uncordon(&NodeName(name)).await.map(object_response)
}

async fn drain(State(app): State<Shared>, Path(name): Path<String>) -> Result<Response> {
    app.objects.drain(&NodeName(name)).await.map(object_response)
}

async fn drain_status(State(app): State<Shared>, Path(name): Path<String>) -> Result<Json<DrainStatus>> {
    let name = NodeName(name);
    let silence_ms = app.liveness.silence_ms(&name);
    Ok(Json(app.objects.drain_status(&name, silence_ms).await?))
}

async fn fence(State(app): State<Shared>, Path(name): Path<String>) -> Result<Response> {
    app.objects.fence(&NodeName(name)).await.map(object_response)
}

async fn admit(State(app): State<Shared>, Path(name): Path<String>) -> Result<Response> {
    app.objects.admit_node(&NodeName(name)).await.map(object_response)
}

async fn remove(State(app): State<Shared>, Path(name): Path<String>, body: Body) -> Result<Response> {
    let request = order::<RemoveNodeRequest>(&app, body, "request to remove a node").await?;
    app.objects.remove_node(&NodeName(name), &request).await.map(object_response)
}

async fn liveness(State(app): State<Shared>) -> Json<Vec<NodeSilence>> {
    Json(app.liveness.silences(&app.options))
}

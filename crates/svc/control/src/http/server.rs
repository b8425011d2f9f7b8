//! Handlers about the servers themselves: whether they work, why not, and a backup of the whole state.

use super::Shared;
use crate::{
    budget::Caller,
    error::{Result, StoreContext},
    servers::Servers,
};
use axum::{
    Json, Router,
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use futures_util::stream;
use heptad_api::servers::ServerStatus;
use heptad_state::backup::Export;
use http::{StatusCode, header};

/// The routes of this module.
pub(crate) fn routes() -> Router<Shared> {
    Router::new()
        .route("/v1/health", get(ready))
        .route("/v1/health/live", get(async || StatusCode::NO_CONTENT))
        .route("/v1/servers", get(servers))
        .route("/v1/backup", get(backup))
}

async fn ready(State(app): State<Shared>) -> Result<StatusCode> {
    app.conditions.ready().map(|()| StatusCode::NO_CONTENT)
}

async fn servers(State(app): State<Shared>) -> Result<Json<Vec<ServerStatus>>> {
    let (own, servers) = (&app.options.server_name, Servers::new(app.objects.store().clone()));
    let leader = servers.leader().await?;
    let rows = servers.list().await?.into_iter().map(|(name, row)| ServerStatus {
        leads: leader.as_ref() == Some(&name),
        name,
        url: Some(row.url),
        version: row.version,
        conditions: row.conditions,
    });
    let mut all: Vec<_> = rows.filter(|server| server.name != *own).collect();
    all.push(ServerStatus {
        name: own.clone(),
        url: app.options.server_url.clone(),
        version: app.parts.version.clone(),
        leads: app.leader.objects().is_some(),
        conditions: app.conditions.now(),
    });
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Json(all))
}

/// The whole state at one revision. A backup that breaks off lacks its end, which its reader notices.
async fn backup(State(app): State<Shared>, caller: Caller) -> Result<Response> {
    let permit = app.stream_permit(&caller)?;
    let export = Export::begin(app.objects.store().clone()).await.during("back up", "the state")?;
    let chunks = stream::try_unfold((export, permit), |(mut export, permit)| async move {
        let chunk = export.next().await?;
        Ok::<_, heptad_state::Error>(chunk.map(|chunk| (chunk, (export, permit))))
    });
    let body = Body::from_stream(chunks);
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], body).into_response())
}

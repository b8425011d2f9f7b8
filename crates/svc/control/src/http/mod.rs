//! The HTTP interface: routes over the objects and reports, guarded, with problem details for every error. Decides
//! nothing about objects.

mod authenticate;
mod body;
mod guard;
pub(crate) mod listen;
mod local;
mod objects;
mod operations;
pub(crate) mod place;
mod problem;
mod reach;
pub(crate) mod serve;
mod server;
mod stream;
mod trust;
mod work;

pub use authenticate::Peer;

use crate::{
    access::ServerParts,
    audit::{Audit, Refused},
    budget::Budget,
    condition::Conditions,
    error::Error,
    fanout::Hub,
    heartbeat::Liveness,
    leader::Leader,
    objects::{Kept, Objects},
    options::Options,
    reconcile::Reports,
    token::Token,
};
use axum::{Router, middleware};
use heptad_api::ErrorCode;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// State shared by all handlers.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) objects: Objects,
    pub(crate) hub: Arc<Hub>,
    pub(crate) reports: Arc<Reports>,
    pub(crate) liveness: Arc<Liveness>,
    pub(crate) leader: Arc<Leader>,
    pub(crate) options: Arc<Options>,
    pub(crate) parts: ServerParts,
    /// For requests over loopback TCP.
    pub(crate) token: Option<Token>,
    pub(crate) audit: Option<Audit>,
    pub(crate) refused: Refused,
    pub(crate) conditions: Arc<Conditions>,
    /// Connections of identified callers.
    pub(crate) connections: Budget,
    /// Requests in progress.
    pub(crate) requests: Budget,
    /// Watches and log streams.
    pub(crate) streams: Budget,
    /// Searches for better placements, each of which keeps a processor busy.
    pub(crate) searches: Budget,
    pub(crate) stop: CancellationToken,
}

pub(crate) type Shared = Arc<App>;

impl App {
    /// Shows an object as it is by now: what the silence of a node means may not be recorded yet.
    pub(crate) fn see<T: Kept>(&self, object: &mut T) {
        object.see(&|node, recorded| self.liveness.shown(node, recorded, &self.options));
    }
}

/// All routes.
pub(crate) fn router(app: Shared) -> Router {
    let storage = app.parts.storage.clone().unwrap_or_else(no_storage);
    Router::new()
        .merge(objects::routes())
        .merge(operations::routes())
        .merge(server::routes())
        .merge(trust::routes())
        .merge(work::routes())
        .with_state(app.clone())
        .nest("/v1/storage", storage)
        .fallback(problem::not_found)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .layer(middleware::from_fn_with_state(app, guard::guard))
        .layer(middleware::map_response(problem::everywhere))
}

fn no_storage() -> Router {
    Router::new().fallback(async || {
        Error::refused(ErrorCode::Unavailable, "this server has no storage; start it with storage nodes")
    })
}

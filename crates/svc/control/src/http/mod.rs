//! The HTTP face: routes over the objects and reports, guarded, with problem details for every error.
//! Decides nothing about objects.

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
pub(crate) mod strangers;
mod stream;
mod trust;
mod work;

pub use authenticate::Peer;
pub use strangers::{Seat, Strangers};

use crate::{
    access::ServerParts, audit::Audit, authorize::Policies, budget::Budget, condition::Conditions, error::Error,
    fanout::Hub, heartbeat::Liveness, leader::Leader, objects::Objects, options::Options, reconcile::Reports,
    token::Token,
};
use axum::{Router, middleware};
use heptad_api::ErrorCode;
use heptad_model::{Config, Container, Event, NetworkPolicy, Node, Quota, Secret, Service, TrafficRule};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// What all handlers share.
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
    pub(crate) policies: Policies,
    pub(crate) audit: Option<Audit>,
    pub(crate) conditions: Arc<Conditions>,
    /// Connections of callers who are known.
    pub(crate) connections: Budget,
    /// Requests that are worked on.
    pub(crate) requests: Budget,
    /// Watches and log streams.
    pub(crate) streams: Budget,
    /// Searches for better placements, each of which keeps a processor busy.
    pub(crate) searches: Budget,
    pub(crate) stop: CancellationToken,
}

pub(crate) type Shared = Arc<App>;

/// All routes.
pub(crate) fn router(app: Shared) -> Router {
    let storage = app.parts.storage.clone().unwrap_or_else(no_storage);
    Router::new()
        .merge(objects::writable::<Node>())
        .merge(objects::writable::<Service>())
        .merge(objects::writable::<NetworkPolicy>())
        .merge(objects::writable::<TrafficRule>())
        .merge(objects::writable::<Config>())
        .merge(objects::writable::<Secret>())
        .merge(objects::writable::<Quota>())
        .merge(objects::readable::<Container>())
        .merge(objects::readable::<Event>())
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

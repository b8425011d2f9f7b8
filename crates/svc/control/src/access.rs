//! What the binary gives the server beside the store: the way to containers, to the mesh, and the storage's routes.

use crate::trust::Trust;
use futures_util::Stream;
use heptad_api::{
    ProblemDetails,
    mesh::{CallRequest, CallResponse, CheckResponse},
    operations::{ExecLine, ExecRequest, LogLine},
};
use heptad_model::Container;
use heptad_pki::Keyring;
use std::{fmt, future::Future, pin::Pin, sync::Arc};

/// A future that can be sent between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Lines that a container wrote.
pub type LogStream = Pin<Box<dyn Stream<Item = Result<LogLine, ProblemDetails>> + Send>>;

/// What a program in a container writes, and how it ended.
pub type ExecStream = Pin<Box<dyn Stream<Item = Result<ExecLine, ProblemDetails>> + Send>>;

/// The way to the containers on their nodes.
pub trait NodeAccess: Send + Sync {
    /// What the container wrote: the last `tail` lines (all that is kept if none), then what it writes if `follow`.
    fn logs(
        &self,
        container: Container,
        tail: Option<usize>,
        follow: bool,
    ) -> BoxFuture<'_, Result<LogStream, ProblemDetails>>;

    /// Runs a program inside the container. It has begun when the future is done; dropping the stream kills it.
    fn exec(&self, container: Container, request: ExecRequest) -> BoxFuture<'_, Result<ExecStream, ProblemDetails>>;
}

/// The way into the mesh.
pub trait MeshAccess: Send + Sync {
    /// Sends a request through the mesh.
    fn call(&self, request: CallRequest) -> BoxFuture<'_, Result<CallResponse, ProblemDetails>>;

    /// Whether a request would be allowed, and why.
    fn check(&self, request: CallRequest) -> BoxFuture<'_, CheckResponse>;
}

/// Parts of the server that other crates make. What is absent is answered with 503.
#[derive(Clone, Default)]
pub struct ServerParts {
    /// The way to containers.
    pub nodes: Option<Arc<dyn NodeAccess>>,
    /// The way into the mesh.
    pub mesh: Option<Arc<dyn MeshAccess>>,
    /// The storage's routes, relative to `/v1/storage`: `/`, `/{bucket}`, `/{bucket}/{*key}`.
    pub storage: Option<axum::Router>,
    /// Seals the values of secrets; none: that of the cluster's identity.
    pub keyring: Option<Arc<Keyring>>,
    /// The identity of the cluster.
    pub trust: Option<Arc<Trust>>,
    /// What a joining server needs besides the keyring, such as where the state store is.
    pub join_settings: Option<serde_json::Value>,
    /// The version of the program.
    pub version: String,
}

impl fmt::Debug for ServerParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerParts")
            .field("nodes", &self.nodes.is_some())
            .field("mesh", &self.mesh.is_some())
            .field("storage", &self.storage.is_some())
            .field("keyring", &self.keyring.is_some())
            .field("trust", &self.trust.is_some())
            .field("version", &self.version)
            .finish()
    }
}

//! What the binary supplies to the server besides the store: the way to containers, to the mesh, and the storage's
//! routes.

use crate::trust::Trust;
use futures_util::Stream;
pub use futures_util::future::BoxFuture;
use heptad_api::{
    ProblemDetails,
    mesh::{CallRequest, CallResponse, CheckResponse},
    operations::{ExecLine, ExecRequest, LogLine},
};
use heptad_model::Container;
use heptad_pki::Keyring;
use std::{collections::BTreeMap, fmt, os::fd::OwnedFd, pin::Pin, sync::Arc};

/// Lines that a container wrote.
pub type LogStream = Pin<Box<dyn Stream<Item = Result<LogLine, ProblemDetails>> + Send>>;

/// A program's output in a container, and how it ended.
pub type ExecStream = Pin<Box<dyn Stream<Item = Result<ExecLine, ProblemDetails>> + Send>>;

/// The way to the containers on their nodes.
pub trait NodeAccess: Send + Sync {
    /// What the container wrote: the last `tail` lines (all that are kept if `None`), then, with `follow`, what it
    /// writes.
    fn logs(
        &self,
        container: Container,
        tail: Option<usize>,
        follow: bool,
    ) -> BoxFuture<'_, Result<LogStream, ProblemDetails>>;

    /// Runs a program inside the container. It has started when the future is done; dropping the stream kills it.
    fn exec(&self, container: Container, request: ExecRequest) -> BoxFuture<'_, Result<ExecStream, ProblemDetails>>;
}

/// The way into the mesh.
pub trait MeshAccess: Send + Sync {
    /// Sends a request through the mesh.
    fn call(&self, request: CallRequest) -> BoxFuture<'_, Result<CallResponse, ProblemDetails>>;

    /// Whether a request would be allowed, and why.
    fn check(&self, request: CallRequest) -> BoxFuture<'_, CheckResponse>;
}

/// Parts of the server that other crates supply. An absent part is answered with 503.
#[derive(Default)]
pub struct ServerParts {
    /// The way to containers.
    pub nodes: Option<Arc<dyn NodeAccess>>,
    /// The way into the mesh.
    pub mesh: Option<Arc<dyn MeshAccess>>,
    /// The storage's routes, relative to `/v1/storage`: `/`, `/{bucket}`, `/{bucket}/{*key}`.
    pub storage: Option<axum::Router>,
    /// Seals the values of secrets; `None`: the cluster identity's keyring does.
    pub keyring: Option<Arc<Keyring>>,
    /// The identity of the cluster.
    pub trust: Option<Arc<Trust>>,
    /// What a joining server needs besides the keyring, such as where the state store is.
    pub join_settings: Option<serde_json::Value>,
    /// The version of the program.
    pub version: String,
    /// Listening sockets by the names of `ControlHandle::sockets`, used instead of binding the addresses anew.
    pub inherited: BTreeMap<String, OwnedFd>,
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

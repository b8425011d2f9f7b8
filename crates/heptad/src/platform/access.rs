//! How API servers reach containers: those of this node in this process or over its port, and those of other nodes.

use super::mesh::AgentSlot;
use futures_util::StreamExt;
use heptad_agent::{AccessError, Agent};
use heptad_api::{
    ErrorCode, ProblemDetails,
    operations::{ExecLine, ExecRequest, LogLine},
};
use heptad_control::{BoxFuture, ExecStream, LogStream, NodeAccess};
use heptad_member::{Containers, Streamed, ToContainers};
use heptad_model::{Container, ContainerId};
use std::sync::Arc;

/// The node of this process.
pub(super) struct LocalNodeAccess(pub(super) AgentSlot);

impl LocalNodeAccess {
    async fn logs_of(
        &self,
        container: &ContainerId,
        tail: Option<usize>,
        follow: bool,
    ) -> Result<LogStream, ProblemDetails> {
        let lines = self.agent()?.logs(container, tail, follow).await.map_err(|error| problem(&error))?;
        Ok(Box::pin(tokio_stream(lines).map(Ok)))
    }

    async fn exec_in(&self, container: &ContainerId, request: ExecRequest) -> Result<ExecStream, ProblemDetails> {
        let lines = self.agent()?.exec(container, request).await.map_err(|error| problem(&error))?;
        Ok(Box::pin(tokio_stream(lines).map(Ok)))
    }

    fn agent(&self) -> Result<&Arc<Agent>, ProblemDetails> {
        self.0.get().ok_or_else(|| {
            ProblemDetails::new(ErrorCode::Unavailable, "the agent of this node is still starting; try again")
        })
    }
}

fn problem(error: &AccessError) -> ProblemDetails {
    let code = match error {
        AccessError::NotHere { .. } => ErrorCode::NotFound,
        AccessError::Busy => ErrorCode::Busy,
        AccessError::Driver { .. } => ErrorCode::Unavailable,
    };
    let cause = std::error::Error::source(error).map_or(String::new(), |cause| format!(": {cause}"));
    ProblemDetails::new(code, format!("{error}{cause}"))
}

impl NodeAccess for LocalNodeAccess {
    fn logs(
        &self,
        container: Container,
        tail: Option<usize>,
        follow: bool,
    ) -> BoxFuture<'_, Result<LogStream, ProblemDetails>> {
        Box::pin(async move { self.logs_of(&container.id, tail, follow).await })
    }

    fn exec(&self, container: Container, request: ExecRequest) -> BoxFuture<'_, Result<ExecStream, ProblemDetails>> {
        Box::pin(async move { self.exec_in(&container.id, request).await })
    }
}

impl Containers for LocalNodeAccess {
    fn logs(
        &self,
        container: ContainerId,
        tail: Option<usize>,
        follow: bool,
    ) -> BoxFuture<'_, Result<Streamed<LogLine>, ProblemDetails>> {
        Box::pin(async move { self.logs_of(&container, tail, follow).await })
    }

    fn exec(
        &self,
        container: ContainerId,
        request: ExecRequest,
    ) -> BoxFuture<'_, Result<Streamed<ExecLine>, ProblemDetails>> {
        Box::pin(async move { self.exec_in(&container, request).await })
    }
}

/// Containers of any node, through its port.
pub(super) struct NodePortAccess(pub(super) ToContainers);

impl NodeAccess for NodePortAccess {
    fn logs(
        &self,
        container: Container,
        tail: Option<usize>,
        follow: bool,
    ) -> BoxFuture<'_, Result<LogStream, ProblemDetails>> {
        Box::pin(async move { self.0.logs(&container, tail, follow).await })
    }

    fn exec(&self, container: Container, request: ExecRequest) -> BoxFuture<'_, Result<ExecStream, ProblemDetails>> {
        Box::pin(async move { self.0.exec(&container, &request).await })
    }
}

fn tokio_stream<T: Send + 'static>(
    receiver: tokio::sync::mpsc::Receiver<T>,
) -> impl futures_util::Stream<Item = T> + Send {
    futures_util::stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) })
}

//! The API server's way to the containers of this node.

use super::mesh::AgentSlot;
use futures_util::StreamExt;
use heptad_agent::{AccessError, Agent};
use heptad_api::{ErrorCode, ProblemDetails, operations::ExecRequest};
use heptad_control::{BoxFuture, ExecStream, LogStream, NodeAccess};
use heptad_model::{Container, ContainerId};
use std::sync::Arc;

/// The node of this process.
pub(crate) struct LocalNodeAccess(pub(crate) AgentSlot);

impl LocalNodeAccess {
    /// What the container wrote.
    pub(crate) async fn logs_of(
        &self,
        container: &ContainerId,
        tail: Option<usize>,
        follow: bool,
    ) -> Result<LogStream, ProblemDetails> {
        let lines = self.agent()?.logs(container, tail, follow).await.map_err(|error| problem(&error))?;
        Ok(Box::pin(tokio_stream(lines).map(Ok)))
    }

    /// Runs a program inside the container.
    pub(crate) async fn exec_in(
        &self,
        container: &ContainerId,
        request: ExecRequest,
    ) -> Result<ExecStream, ProblemDetails> {
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

fn tokio_stream<T: Send + 'static>(
    receiver: tokio::sync::mpsc::Receiver<T>,
) -> impl futures_util::Stream<Item = T> + Send {
    futures_util::stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) })
}

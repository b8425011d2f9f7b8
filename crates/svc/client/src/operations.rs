//! Operations that are more than one object: apply, plan, why, verify, logs, exec, mesh calls, and an agent's reports.

use crate::{
    client::{Call, Client, encoded, with_query},
    error::Result,
    lines::Lines,
};
use heptad_api::{
    Object,
    mesh::{CallRequest, CallResponse, CheckResponse},
    operations::{
        ApplyRequest, ApplyResponse, ContainerReport, ContainerSettings, ExecLine, ExecRequest, ImagePin, LogLine,
        PlanResponse, Version,
    },
    optimization::{Optimization, OptimizeRequest},
    report::{VerifyResponse, WhyResponse},
    servers::ServerStatus,
};
use heptad_model::{Container, ContainerId, Event, NodeName, ServiceKey, Snapshot};
use http::Method;
use std::time::Duration;

/// Extra wait beyond the time that a program in a container may take.
const EXEC_MARGIN_MS: u64 = 15_000;
/// The longest time for one heartbeat.
const HEARTBEAT_TIMEOUT_MS: u64 = 3_000;

fn container_path(id: &ContainerId, rest: &str) -> String {
    format!("/v1/containers/{}{rest}", encoded(id.as_str(), false))
}

impl Client {
    /// What kind of server answers at the address.
    pub async fn version(&self) -> Result<Version> {
        self.json(Call::new(Method::GET, "/v1/version")).await
    }

    /// Creates or changes objects as written, all in one transaction.
    pub async fn apply(&self, request: &ApplyRequest) -> Result<ApplyResponse> {
        self.json(Call::new(Method::POST, "/v1/apply").json(request)).await
    }

    /// What an apply would do; changes nothing.
    pub async fn plan(&self, request: &ApplyRequest) -> Result<PlanResponse> {
        self.json(Call::new(Method::POST, "/v1/plan").json(request)).await
    }

    /// The same, and how far the new containers' places are from the best.
    pub async fn plan_optimal(&self, request: &ApplyRequest) -> Result<PlanResponse> {
        self.json(Call::new(Method::POST, "/v1/plan?optimal=true").json(request)).await
    }

    /// Moves that would free nodes, at most `moves_max`.
    pub async fn optimization(&self, moves_max: Option<u64>) -> Result<Optimization> {
        let query = moves_max.map_or(String::new(), |most| format!("?moves_max={most}"));
        self.json(Call::new(Method::GET, format!("/v1/optimization{query}"))).await
    }

    /// Begins the moves that are possible now.
    pub async fn optimize(&self, request: &OptimizeRequest) -> Result<Optimization> {
        self.json(Call::new(Method::POST, "/v1/optimization").json(request)).await
    }

    /// Why a service is not in its wanted state.
    pub async fn why(&self, service: &ServiceKey) -> Result<WhyResponse> {
        let (namespace, name) = (encoded(service.namespace.as_str(), false), encoded(&service.name, false));
        self.json(Call::new(Method::GET, format!("/v1/namespaces/{namespace}/services/{name}/why"))).await
    }

    /// Why a container is on its node and on no other, or on none.
    pub async fn container_why(&self, container: &ContainerId) -> Result<WhyResponse> {
        self.json(Call::new(Method::GET, container_path(container, "/why"))).await
    }

    /// The guarantees evaluated on the live state.
    pub async fn verify(&self) -> Result<VerifyResponse> {
        self.json(Call::new(Method::GET, "/v1/verify")).await
    }

    /// The servers, and why any is not ready.
    pub async fn servers(&self) -> Result<Vec<ServerStatus>> {
        self.json(Call::new(Method::GET, "/v1/servers")).await
    }

    /// The whole system at one revision.
    pub async fn snapshot(&self) -> Result<Snapshot> {
        self.json(Call::new(Method::GET, "/v1/snapshot")).await
    }

    /// What a container wrote: the last `tail` lines (all that are kept if `None`), then, with `follow`, everything
    /// that it writes from now on.
    pub async fn logs(&self, container: &ContainerId, tail: Option<usize>, follow: bool) -> Result<Lines<LogLine>> {
        let query = [("tail", tail.map(|n| n.to_string())), ("follow", follow.then(|| "true".to_owned()))];
        self.lines(Call::new(Method::GET, with_query(container_path(container, "/logs"), &query)), None).await
    }

    /// Runs a program inside a container: its output as it arrives, then how it ended. Dropping the lines kills the
    /// program.
    pub async fn exec(&self, container: &ContainerId, request: &ExecRequest) -> Result<Lines<ExecLine>> {
        let silence = Duration::from_millis(request.timeout_ms.saturating_add(EXEC_MARGIN_MS));
        self.lines(Call::new(Method::POST, container_path(container, "/exec")).json(request), Some(silence)).await
    }

    /// Sends a request through the mesh.
    pub async fn mesh_call(&self, request: &CallRequest) -> Result<CallResponse> {
        self.json(Call::new(Method::POST, "/v1/mesh/call").json(request)).await
    }

    /// Whether a request through the mesh would be allowed, and why.
    pub async fn mesh_check(&self, request: &CallRequest) -> Result<CheckResponse> {
        self.json(Call::new(Method::POST, "/v1/mesh/check").json(request)).await
    }

    /// Reports that the node's agent lives and can work. Repeat it every few seconds.
    pub async fn heartbeat(&self, node: &NodeName) -> Result<()> {
        let path = format!("/v1/nodes/{}/heartbeat", encoded(node.as_str(), false));
        let mut call = Call::new(Method::POST, path);
        // A heartbeat that was not heard is repeated soon, not waited for.
        call.timeout = Some(Duration::from_millis(HEARTBEAT_TIMEOUT_MS));
        self.whole(call).await.map(|_| ())
    }

    /// Reports a bound container's state; refused unless it is bound to the report's node.
    pub async fn report_container(&self, id: &ContainerId, report: &ContainerReport) -> Result<Object<Container>> {
        self.json(Call::new(Method::PUT, container_path(id, "/status")).json(report)).await
    }

    /// What a container takes from its configs and secrets.
    pub async fn container_settings(&self, id: &ContainerId) -> Result<ContainerSettings> {
        self.json(Call::new(Method::GET, container_path(id, "/settings"))).await
    }

    /// The digest that the container is to run; if none is known yet, the proposed one.
    pub async fn container_image(&self, id: &ContainerId, proposed: &ImagePin) -> Result<ImagePin> {
        self.json(Call::new(Method::POST, container_path(id, "/image")).json(proposed)).await
    }

    /// Reports that a stopped container is gone from its node: deletes its record and frees its resources.
    pub async fn delete_container(&self, id: &ContainerId, node: &NodeName) -> Result<()> {
        let path = with_query(container_path(id, ""), &[("node", Some(node.to_string()))]);
        self.whole(Call::new(Method::DELETE, path)).await.map(|_| ())
    }

    /// Records an event; the server assigns its id and time.
    pub async fn create_event(&self, event: &Event) -> Result<Object<Event>> {
        self.json(Call::new(Method::POST, "/v1/events").json(event)).await
    }
}

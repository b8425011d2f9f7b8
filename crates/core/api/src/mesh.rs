//! Calls through the mesh, questions about them, and the objects by which proxies route.

use heptad_model::{Container, ContainerId, NetworkPolicy, Service, ServiceKey, TrafficRule};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// An HTTP request to send through the mesh as if from `from`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CallRequest {
    /// The calling service; absent: the operator, whom no policy restricts.
    #[serde(default)]
    pub from: Option<ServiceKey>,
    /// The called service.
    pub to: ServiceKey,
    /// The container port; the service's first if absent.
    #[serde(default)]
    pub port: Option<u16>,
    /// The method.
    #[serde(default = "get")]
    #[schemars(regex(pattern = "^[A-Za-z]+$"))]
    pub method: String,
    /// The path, with the query.
    #[schemars(regex(pattern = r"^/[A-Za-z0-9/._~%?&=-]*$"))]
    pub path: String,
    /// Headers.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, HeaderText>")]
    #[schemars(extend("propertyNames" = { "pattern": "^[-!#$%&'*+.^_`|~0-9A-Za-z]+$" }))]
    pub headers: BTreeMap<String, String>,
    /// The body.
    #[serde(default)]
    pub body: String,
}

/// A header's value.
#[derive(JsonSchema)]
#[schemars(inline)]
struct HeaderText(
    #[schemars(regex(pattern = r"^[^\x00-\x08\x0a-\x1f\x7f]*$"))]
    #[expect(dead_code, reason = "only its schema counts")]
    String,
);

fn get() -> String {
    "GET".to_owned()
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CallResponse {
    /// The status.
    pub status: u16,
    /// Headers.
    pub headers: BTreeMap<String, String>,
    /// The first MiB of the body, as UTF-8 with replacements.
    pub body: String,
    /// The service that answered, after traffic rules; absent if the mesh itself answered.
    pub served_by: Option<ServiceKey>,
    /// The container that answered.
    pub container: Option<ContainerId>,
    /// The traffic rule that decided, if one did.
    pub rule: Option<String>,
}

/// Whether a call would be allowed, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CheckResponse {
    /// Whether it would reach a container.
    pub allowed: bool,
    /// The verdict in a sentence, naming policies and rules.
    pub explanation: String,
    /// The policies that were evaluated.
    pub policies: Vec<String>,
    /// The traffic rule that would decide, if one would.
    pub rule: Option<String>,
    /// The backends and their weights.
    pub backends: BTreeMap<String, u32>,
}

/// Everything that proxies route by, at one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MeshState {
    /// The revision; watch from the next one.
    pub revision: u64,
    /// All services.
    pub services: Vec<Service>,
    /// All containers, without their templates.
    pub containers: Vec<Container>,
    /// All network policies.
    pub policies: Vec<NetworkPolicy>,
    /// All traffic rules.
    pub rules: Vec<TrafficRule>,
}

/// One object that proxies route by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", content = "object", rename_all = "lowercase")]
pub enum MeshObject {
    /// A service.
    Service(Service),
    /// A container, without its template.
    Container(Container),
    /// A network policy.
    Policy(NetworkPolicy),
    /// A traffic rule.
    Rule(TrafficRule),
}

//! Calls through the mesh and questions about them.

use heptad_model::{ContainerId, ServiceKey};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// An HTTP request that is to go through the mesh as if `from` had sent it.
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
    pub method: String,
    /// The path, with the query.
    pub path: String,
    /// Headers.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The body.
    #[serde(default)]
    pub body: String,
}

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
    /// The policies that were looked at.
    pub policies: Vec<String>,
    /// The traffic rule that would decide, if one would.
    pub rule: Option<String>,
    /// The backends and their weights.
    pub backends: BTreeMap<String, u32>,
}

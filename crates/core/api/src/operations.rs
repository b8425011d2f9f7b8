//! Requests and answers of operations that are more than one object: apply, plan, status reports, logs, exec.

use crate::base64_bytes::Base64;
use crate::kind::{Kind, Manifest};
use crate::optimization::OptimalPlan;
use crate::report::Unplaced;
use heptad_model::{ContainerId, ContainerStatus, Namespace, NodeName, ServiceKey, SocketAddress, StartFailure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, net::SocketAddr};

/// Objects to create or change as written here, all in one transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApplyRequest {
    /// The objects, at most 1,000.
    #[schemars(length(max = APPLY_OBJECTS_MAX))]
    pub objects: Vec<Manifest>,
}

/// The most objects of one [`ApplyRequest`].
pub const APPLY_OBJECTS_MAX: usize = 1_000;

/// What happened, or would happen, to one applied object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It is new.
    Created,
    /// It was changed.
    Updated,
    /// It already is as written.
    Unchanged,
}

/// One field that was, or would be, changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FieldChange {
    /// The field.
    pub path: String,
    /// Its value before, as JSON; absent if it was not set.
    pub before: Option<String>,
    /// Its value after, as JSON; absent if it is no longer set.
    pub after: Option<String>,
}

/// The outcome for one applied object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ApplyResult {
    /// The kind.
    pub kind: Kind,
    /// The namespace.
    pub namespace: Namespace,
    /// The name.
    pub name: String,
    /// What happened to it.
    pub outcome: Outcome,
    /// The fields that differ.
    pub changes: Vec<FieldChange>,
}

/// The answer to an [`ApplyRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ApplyResponse {
    /// The revision of the transaction, or of the state if nothing changed.
    pub revision: u64,
    /// One per object, in their order.
    pub results: Vec<ApplyResult>,
}

/// Where a replica would go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlannedPlacement {
    /// The service.
    pub service: ServiceKey,
    /// The node.
    pub node: NodeName,
    /// How many replicas.
    pub replicas: u32,
}

/// Containers that would have to make room for one of a higher priority.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlannedPreemption {
    /// The service for which room would be made.
    pub service: ServiceKey,
    /// Its priority.
    pub priority: i32,
    /// The node that they would leave.
    pub node: NodeName,
    /// The containers of lower priority.
    pub victims: Vec<ContainerId>,
    /// Whether no cheaper set of containers was possible.
    #[serde(default)]
    pub proven: bool,
}

/// What an apply would do; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlanResponse {
    /// The revision at which this was evaluated.
    pub revision: u64,
    /// One per object, in their order.
    pub results: Vec<ApplyResult>,
    /// Where new containers would go.
    pub placements: Vec<PlannedPlacement>,
    /// Containers of services that would be replaced one by one.
    pub replaced: BTreeMap<String, u32>,
    /// The containers that would have to make room.
    #[serde(default)]
    pub preempted: Vec<PlannedPreemption>,
    /// What cannot be placed now, and why.
    pub unplaced: Vec<Unplaced>,
    /// What the user should know, such as a replacement without a health check.
    pub warnings: Vec<String>,
    /// How far the new containers' places are from the best, if requested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optimal: Option<OptimalPlan>,
}

/// A node's report on a container that is bound to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ContainerReport {
    /// The node that reports; refused unless the container is bound to it.
    pub node: NodeName,
    /// Its state.
    pub status: ContainerStatus,
    /// Whether it may get requests.
    pub ready: bool,
    /// One word that gives the reason.
    #[serde(default)]
    pub reason: String,
    /// A sentence that gives the reason.
    #[serde(default)]
    pub message: String,
    /// Set while the node cannot start it for a reason of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_failure: Option<StartFailure>,
    /// Where each container port is really reached.
    #[serde(default)]
    #[schemars(with = "BTreeMap<u16, SocketAddress>")]
    pub addresses: BTreeMap<u16, SocketAddr>,
    /// How often it was started again.
    #[serde(default)]
    pub restarts: u32,
    /// The exit code of the last run that ended.
    #[serde(default)]
    pub exit_code: Option<i32>,
    /// When its process was started last, in milliseconds since the Unix epoch.
    #[serde(default)]
    pub started_at_ms: Option<u64>,
}

/// One line that a container wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogLine {
    /// The container.
    pub container: ContainerId,
    /// RFC 3339.
    pub time: String,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// The line, without its end.
    pub log: String,
    /// The line continues in the next one of this container and stream: it is longer than 256 KiB, or has not ended
    /// yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
}

/// The digest of the tag of a container's image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImagePin {
    /// The digest, such as `sha256:0123...`; in a request: what the node found, absent if it only asks; in an answer:
    /// what is to be run, absent if it is not known yet.
    #[serde(default)]
    #[schemars(regex(pattern = "^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$"))]
    pub digest: Option<String>,
}

/// A program to run inside a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecRequest {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// What it reads from standard input, at most 8 MiB.
    #[serde(default)]
    pub stdin: Base64,
    /// Milliseconds after which it is killed.
    #[serde(default = "exec_timeout_default")]
    pub timeout_ms: u64,
}

fn exec_timeout_default() -> u64 {
    60_000
}

/// The most bytes of standard input of one [`ExecRequest`].
pub const EXEC_STDIN_BYTES_MAX: usize = 8 << 20;
/// The most bytes of the body of an [`ExecRequest`]: base64 is a third longer, and the command has some room.
pub const EXEC_BODY_BYTES_MAX: usize = EXEC_STDIN_BYTES_MAX / 3 * 4 + (1 << 20);

/// One line of the answer to an [`ExecRequest`]: the program's output as it arrives, without a bound, and finally how
/// it ended. An answer without that last line is incomplete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExecLine {
    /// Bytes that it wrote to standard output.
    Stdout(Base64),
    /// Bytes that it wrote to standard error.
    Stderr(Base64),
    /// It has ended.
    Exited(ExecExit),
}

/// How a program inside a container ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExecExit {
    /// The exit code; 128 + signal if it was killed, 124 if its time was over, 255 if nobody knows.
    pub exit_code: i32,
    /// Why it did not end by itself; empty if it did.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub broken: String,
}

/// What kind of server answers at the address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Version {
    /// The version of the server.
    pub version: String,
    /// The API's version.
    pub api: String,
    /// The store's present revision.
    pub revision: u64,
}

/// A file that a container takes from a config or secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SettingsFile {
    /// Where in the container.
    pub path: String,
    /// The mode.
    pub mode: u32,
    /// The content.
    pub content: String,
}

/// What a container takes from its configs and secrets.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ContainerSettings {
    /// Environment variables.
    pub environment: BTreeMap<String, String>,
    /// Files.
    pub files: Vec<SettingsFile>,
}

/// Values never reach a log through this.
impl fmt::Debug for SettingsFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SettingsFile").field("path", &self.path).finish_non_exhaustive()
    }
}

impl fmt::Debug for ContainerSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&String> = self.environment.keys().collect();
        f.debug_struct("ContainerSettings").field("environment", &names).field("files", &self.files).finish()
    }
}

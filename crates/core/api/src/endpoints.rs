//! The endpoint table: every operation of the API with its types. The OpenAPI document and the server's tests read it.

use crate::work::{DrainStatus, NodeSilence, RemoveNodeRequest, RevisionList, RolloutStatus, UndoRequest};
use crate::{
    kind::{Kind, Resource, Writers},
    mesh::{CallRequest, CallResponse, CheckResponse, MeshState},
    object::{List, Object},
    operations::{
        ApplyRequest, ApplyResponse, ContainerReport, ContainerSettings, ExecLine, ExecRequest, ImagePin, LogLine,
        PlanResponse, Version,
    },
    optimization::{Optimization, OptimizeRequest},
    report::{VerifyResponse, WhyResponse},
    servers::ServerStatus,
    trust::{
        Authorities, CertificateRequest, CertificateResponse, ClusterInfo, JoinRequest, JoinResponse, JoinTokenCreated,
        JoinTokenInfo, JoinTokenRequest, TokenCreated, TokenInfo, TokenRequest, TrustBundleResponse, WhoAmI,
    },
};
use heptad_model::{Container, Event, Node, Snapshot};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Value, json};

/// Makes the schema of one type.
pub type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// An operation that reads or changes what another one made: its name, and for each of its parameters where in the answer
/// it stands, as a JSON pointer.
pub type Follower = (String, Vec<(&'static str, &'static str)>);

/// One operation.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The method, in capitals.
    pub method: &'static str,
    /// The path, with `{parameters}`.
    pub path: String,
    /// A name for generated clients.
    pub operation: String,
    /// What it does.
    pub summary: String,
    /// Its query parameters: name and meaning.
    pub query: Vec<(&'static str, &'static str)>,
    /// The type of its body, if it has one.
    pub request: Option<SchemaOf>,
    /// Whether the body may be absent.
    pub request_optional: bool,
    /// The type of its answer, if it is JSON.
    pub response: Option<SchemaOf>,
    /// Whether its answer is 204 without a body.
    pub empty: bool,
    /// Whether its body is bytes of any kind.
    pub takes_bytes: bool,
    /// What reads and changes what it made.
    pub followers: Vec<Follower>,
}

fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// The schema of merge patches (RFC 7396) of a type: any of its fields, null for those that may be absent. What the fields
/// say of each other counts after the merge.
fn merge_patch<T: Resource>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>();
    let mut schema = generator.definitions().get(&*T::schema_name()).cloned().unwrap_or_default();
    let Some(fields) = schema.as_object_mut() else { return Schema::default() };
    let required = fields.remove("required").unwrap_or_default();
    for of_fields_together in ["allOf", "anyOf", "oneOf", "not", "description"] {
        fields.remove(of_fields_together);
    }
    if let Some(properties) = fields.get_mut("properties").and_then(Value::as_object_mut) {
        // An object is not renamed or moved.
        for identity in ["name", "namespace"] {
            properties.remove(identity);
        }
        for (name, property) in properties {
            if !required.as_array().is_some_and(|required| required.contains(&name.as_str().into())) {
                *property = json!({ "anyOf": [property.take(), { "type": "null" }] });
            }
        }
    }
    Schema::try_from(schema).unwrap_or_default()
}

/// Where an object's answer has what its path needs.
const OF_NAMED: [(&str, &str); 1] = [("name", "/object/name")];
const OF_NAMESPACED: [(&str, &str); 2] = [("namespace", "/object/namespace"), ("name", "/object/name")];
const OF_EVENT: [(&str, &str); 1] = [("id", "/object/id")];
const OF_TOKEN: [(&str, &str); 1] = [("id", "/info/id")];

impl Endpoint {
    fn new(method: &'static str, path: impl Into<String>, operation: impl Into<String>, summary: &str) -> Self {
        let (path, operation) = (path.into(), operation.into());
        Self {
            method,
            path,
            operation,
            summary: summary.to_owned(),
            query: Vec::new(),
            request: None,
            request_optional: false,
            response: None,
            empty: false,
            takes_bytes: false,
            followers: Vec::new(),
        }
    }

    fn takes<T: JsonSchema>(self) -> Self {
        Self { request: Some(schema::<T>), ..self }
    }

    fn may_take<T: JsonSchema>(self) -> Self {
        Self { request: Some(schema::<T>), request_optional: true, ..self }
    }

    fn takes_patch<T: Resource>(self) -> Self {
        Self { request: Some(merge_patch::<T>), ..self }
    }

    fn takes_bytes(self) -> Self {
        Self { takes_bytes: true, ..self }
    }

    fn followed_by(mut self, operation: impl Into<String>, parameters: &[(&'static str, &'static str)]) -> Self {
        self.followers.push((operation.into(), parameters.to_vec()));
        self
    }

    fn gives_nothing(self) -> Self {
        Self { empty: true, ..self }
    }

    fn gives<T: JsonSchema>(self) -> Self {
        Self { response: Some(schema::<T>), ..self }
    }

    fn query(mut self, name: &'static str, meaning: &'static str) -> Self {
        self.query.push((name, meaning));
        self
    }
}

fn readable<T: Resource>(out: &mut Vec<Endpoint>) {
    let (kind, one) = (T::KIND, T::KIND.singular());
    let list = |path: String, operation: String| {
        let list =
            Endpoint::new("GET", path, operation, &format!("List {kind}, or watch them as newline-delimited JSON"));
        let list = match kind {
            Kind::Containers => list.query("node", "only those that are bound to this node"),
            _ => list,
        };
        list.query("limit", "items of the page")
            .query("continue", "where the last page ended")
            .query("watch", "`true`: stream changes instead of listing")
            .query("revision", "with `watch`: the first revision to see; absent: from now on")
            .gives::<List<T>>()
    };
    out.push(list(kind.collection_path(), format!("list_{kind}")));
    if kind.is_namespaced() {
        out.push(list(kind.collection_template(), format!("list_{kind}_of_namespace")));
    }
    out.push(
        Endpoint::new("GET", kind.object_template(), format!("get_{one}"), &format!("Get a {one}"))
            .gives::<Object<T>>(),
    );
}

/// `operations` are those that kinds have besides: what is below the path of an object is there once it is made.
fn writable<T: Resource>(operations: &[Endpoint], out: &mut Vec<Endpoint>) {
    let (kind, one) = (T::KIND, T::KIND.singular());
    let make = |method, path, verb: &str, text: &str| {
        Endpoint::new(method, path, format!("{verb}_{one}"), &format!("{text} a {one}")).gives::<Object<T>>()
    };
    let made = |endpoint: Endpoint| {
        let parameters = if kind.is_namespaced() { &OF_NAMESPACED[..] } else { &OF_NAMED[..] };
        let own = ["get", "patch", "delete"].map(|verb| format!("{verb}_{one}"));
        let below = format!("{}/", kind.object_template());
        let more =
            operations.iter().filter(|other| other.path.starts_with(&below)).map(|other| other.operation.clone());
        own.into_iter().chain(more).fold(endpoint, |endpoint, name| endpoint.followed_by(name, parameters))
    };
    out.push(made(make("POST", kind.collection_template(), "create", "Create").takes::<T>()));
    let replace = make("PUT", kind.object_template(), "replace", "Create or replace (`If-Match`: just this revision)");
    out.push(made(replace.takes::<T>()));
    out.push(make("PATCH", kind.object_template(), "patch", "Merge (RFC 7396) into").takes_patch::<T>());
    out.push(make("DELETE", kind.object_template(), "delete", "Delete"));
}

/// Every operation.
pub fn all() -> Vec<Endpoint> {
    let operations = [
        node_operations(),
        rollout_operations(),
        node_orders(),
        cluster_operations(),
        storage_operations(),
        trust_operations(),
    ]
    .concat();
    let mut out = Vec::new();
    for kind in Kind::ALL {
        with_kind!(kind, T => {
            readable::<T>(&mut out);
            if kind.writers() != Writers::Servers {
                writable::<T>(&operations, &mut out);
            }
        });
    }
    out.extend(operations);
    out
}

fn node_operations() -> Vec<Endpoint> {
    let id = "/v1/containers/{id}";
    vec![
        Endpoint::new("POST", "/v1/nodes/{name}/heartbeat", "heartbeat", "Report that the node's agent is alive")
            .gives_nothing(),
        Endpoint::new("POST", "/v1/events", "create_event", "Record an event")
            .takes::<Event>()
            .gives::<Object<Event>>()
            .followed_by("get_event", &OF_EVENT),
        Endpoint::new("PUT", format!("{id}/status"), "report_container", "Report the status of a bound container")
            .takes::<ContainerReport>()
            .gives::<Object<Container>>(),
        Endpoint::new("DELETE", id, "delete_container", "Report that a stopped container is gone from its node")
            .query("node", "the node that reports it")
            .gives_nothing(),
        Endpoint::new(
            "GET",
            format!("{id}/logs"),
            "container_logs",
            "Get the log lines of a container as newline-delimited JSON",
        )
        .query("tail", "how many of the last lines; absent: all that are kept")
        .query("follow", "`true`: continue with new lines as they are written")
        .gives::<LogLine>(),
        Endpoint::new(
            "GET",
            format!("{id}/settings"),
            "container_settings",
            "Get the values of configs and secrets that a container uses; only for the node that runs it",
        )
        .gives::<ContainerSettings>(),
        Endpoint::new(
            "POST",
            format!("{id}/image"),
            "container_image",
            "Record the digest of a container's image tag; only for the node that runs it",
        )
        .takes::<ImagePin>()
        .gives::<ImagePin>(),
        Endpoint::new(
            "POST",
            format!("{id}/exec"),
            "container_exec",
            "Run a program inside a container; the answer is newline-delimited JSON",
        )
        .takes::<ExecRequest>()
        .gives::<ExecLine>(),
    ]
}

fn rollout_operations() -> Vec<Endpoint> {
    let service = "/v1/namespaces/{namespace}/services/{name}";
    let order = |word: &str, summary: &str| {
        Endpoint::new("POST", format!("{service}/rollout/{word}"), format!("{word}_rollout"), summary)
            .gives::<RolloutStatus>()
    };
    vec![
        Endpoint::new("GET", format!("{service}/rollout"), "rollout", "Get the status of a rollout")
            .gives::<RolloutStatus>(),
        Endpoint::new("GET", format!("{service}/revisions"), "revisions", "List the revisions of a service")
            .gives::<RevisionList>(),
        order("undo", "Roll a service back to an earlier revision").may_take::<UndoRequest>(),
        order("pause", "Pause a rollout"),
        order("resume", "Resume a rollout that is paused, waiting or failed"),
        order(
            "restart",
            "Replace all containers of a service with new ones of the same specification, or run a job again",
        ),
    ]
}

fn node_orders() -> Vec<Endpoint> {
    let order = |word: &str, summary: &str| {
        Endpoint::new("POST", format!("/v1/nodes/{{name}}/{word}"), format!("{word}_node"), summary)
            .gives::<Object<Node>>()
    };
    vec![
        order("cordon", "Cordon a node: place no new containers on it"),
        order("uncordon", "Uncordon a node: place containers on it again, and cancel its drain or removal"),
        order("drain", "Drain a node: move all of its containers elsewhere"),
        order("fence", "Fence a node: declare that a node which does not report is switched off"),
        order("admit", "Accept the capacity that a node reports beyond what it was admitted with"),
        order("remove", "Remove a node: stop its containers, then take it out of the cluster")
            .may_take::<RemoveNodeRequest>(),
        Endpoint::new("GET", "/v1/nodes/{name}/drain", "drain_status", "Get the progress of a node's drain")
            .gives::<DrainStatus>(),
        Endpoint::new("GET", "/v1/liveness", "liveness", "Get the time of each node's last heartbeat")
            .gives::<Vec<NodeSilence>>(),
    ]
}

fn cluster_operations() -> Vec<Endpoint> {
    vec![
        Endpoint::new("GET", "/v1/version", "version", "Get the version of the server").gives::<Version>(),
        Endpoint::new("POST", "/v1/apply", "apply", "Apply objects, all in one transaction")
            .takes::<ApplyRequest>()
            .gives::<ApplyResponse>(),
        Endpoint::new("POST", "/v1/plan", "plan", "Get what an apply would do; changes nothing")
            .query("optimal", "`true`: also how far the placements are from the optimum")
            .takes::<ApplyRequest>()
            .gives::<PlanResponse>(),
        Endpoint::new(
            "GET",
            "/v1/namespaces/{namespace}/services/{name}/why",
            "why",
            "Explain why a service is not as wanted",
        )
        .gives::<WhyResponse>(),
        Endpoint::new(
            "GET",
            "/v1/containers/{id}/why",
            "container_why",
            "Explain why a container is on its node, or on none",
        )
        .gives::<WhyResponse>(),
        Endpoint::new("GET", "/v1/snapshot", "snapshot", "Get the whole system at one revision").gives::<Snapshot>(),
        Endpoint::new("GET", "/v1/verify", "verify", "Check the guarantees against the live state")
            .gives::<VerifyResponse>(),
        Endpoint::new(
            "GET",
            "/v1/optimization",
            "optimization",
            "Get the moves that would free nodes, and a bound on the optimum",
        )
        .query("moves_max", "the largest number of moves")
        .gives::<Optimization>(),
        Endpoint::new("POST", "/v1/optimization", "optimize", "Begin the moves that are possible now")
            .takes::<OptimizeRequest>()
            .gives::<Optimization>(),
        Endpoint::new(
            "GET",
            "/v1/mesh",
            "mesh_state",
            "Get the routing state of proxies at one revision, or watch it as newline-delimited JSON",
        )
        .query("watch", "`true`: stream changes instead of listing; changes of one revision come together")
        .query("revision", "with `watch`: the first revision to see; absent: from now on")
        .gives::<MeshState>(),
        Endpoint::new("POST", "/v1/mesh/call", "mesh_call", "Send a request through the mesh")
            .takes::<CallRequest>()
            .gives::<CallResponse>(),
        Endpoint::new("POST", "/v1/mesh/check", "mesh_check", "Check whether a request would be allowed, and why")
            .takes::<CallRequest>()
            .gives::<CheckResponse>(),
    ]
}

fn storage_operations() -> Vec<Endpoint> {
    let object = "/v1/storage/{bucket}/{key}";
    vec![
        Endpoint::new(
            "GET",
            "/v1/storage",
            "storage_status",
            "Get the storage nodes, their free space, and the health of shards",
        ),
        Endpoint::new("GET", "/v1/storage/{bucket}", "list_objects", "List objects by key")
            .query("prefix", "only keys that begin with this")
            .query("after", "only keys after this one")
            .query("limit", "items of the page"),
        Endpoint::new(
            "PUT",
            object,
            "put_object",
            "Store an object; the answer comes once a majority of copies is durable",
        )
        .takes_bytes(),
        Endpoint::new("GET", object, "get_object", "Get an object from any good copy"),
        Endpoint::new("HEAD", object, "head_object", "Get the metadata of an object"),
        Endpoint::new("DELETE", object, "delete_object", "Delete an object").gives_nothing(),
    ]
}

fn trust_operations() -> Vec<Endpoint> {
    let (joins, tokens) = ("/v1/join-tokens", "/v1/tokens");
    vec![
        Endpoint::new(
            "GET",
            "/v1/health",
            "health",
            "Check whether the server is ready; 503 says why not; needs no token",
        )
        .gives_nothing(),
        Endpoint::new("GET", "/v1/health/live", "live", "Check whether the server is alive; needs no token")
            .gives_nothing(),
        Endpoint::new("GET", "/v1/servers", "list_servers", "List the servers, and what is wrong with them")
            .gives::<Vec<ServerStatus>>(),
        Endpoint::new(
            "GET",
            "/v1/backup",
            "backup",
            "Get the whole state at one revision, as `heptad restore` reads it",
        ),
        Endpoint::new("GET", "/v1/whoami", "whoami", "Get who the caller is, as the server sees it").gives::<WhoAmI>(),
        Endpoint::new("GET", "/v1/cluster", "cluster", "Get the cluster and its servers").gives::<ClusterInfo>(),
        Endpoint::new("POST", "/v1/join", "join", "Join the cluster; needs a join token and no certificate")
            .takes::<JoinRequest>()
            .gives::<JoinResponse>(),
        Endpoint::new(
            "POST",
            "/v1/certificates",
            "renew_certificate",
            "Renew the certificate that the caller presents",
        )
        .takes::<CertificateRequest>()
        .gives::<CertificateResponse>(),
        Endpoint::new("GET", "/v1/trust-bundle", "trust_bundle", "Get the CA certificates that are trusted now")
            .gives::<TrustBundleResponse>(),
        Endpoint::new("GET", "/v1/authorities", "list_authorities", "List the CAs of the cluster")
            .gives::<Authorities>(),
        Endpoint::new(
            "POST",
            "/v1/authorities/rotate",
            "rotate_authority",
            "Create a new CA; both are trusted meanwhile",
        )
        .gives::<Authorities>(),
        Endpoint::new("POST", joins, "create_join_token", "Create a token with which machines join")
            .takes::<JoinTokenRequest>()
            .gives::<JoinTokenCreated>()
            .followed_by("delete_join_token", &OF_TOKEN),
        Endpoint::new("GET", joins, "list_join_tokens", "List join tokens").gives::<Vec<JoinTokenInfo>>(),
        Endpoint::new("DELETE", format!("{joins}/{{id}}"), "delete_join_token", "Delete a join token").gives_nothing(),
        Endpoint::new("POST", tokens, "create_token", "Create a token for a person")
            .takes::<TokenRequest>()
            .gives::<TokenCreated>()
            .followed_by("delete_token", &OF_TOKEN),
        Endpoint::new("GET", tokens, "list_tokens", "List tokens of people").gives::<Vec<TokenInfo>>(),
        Endpoint::new("DELETE", format!("{tokens}/{{id}}"), "delete_token", "Revoke a token; it is refused at once")
            .gives_nothing(),
    ]
}

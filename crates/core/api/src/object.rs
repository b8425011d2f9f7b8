//! Objects as they travel: each with the revision of its last change, in lists, and as watched changes.
//! Knows nothing of how the server keeps them.

use heptad_model::{Config, Container, Event, Namespace, NetworkPolicy, Node, Quota, Secret, Service, TrafficRule};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::fmt;

/// The kinds of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Machines.
    Nodes,
    /// What to run.
    Services,
    /// Replicas of services.
    Containers,
    /// Network policies.
    Policies,
    /// Traffic rules.
    Rules,
    /// Named values for services.
    Configs,
    /// Named values that are sealed.
    Secrets,
    /// Bounds of namespaces.
    Quotas,
    /// What happened.
    Events,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 9] = [
        Self::Nodes,
        Self::Services,
        Self::Containers,
        Self::Policies,
        Self::Rules,
        Self::Configs,
        Self::Secrets,
        Self::Quotas,
        Self::Events,
    ];

    /// The word in paths and keys.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Nodes => "nodes",
            Self::Services => "services",
            Self::Containers => "containers",
            Self::Policies => "policies",
            Self::Rules => "rules",
            Self::Configs => "configs",
            Self::Secrets => "secrets",
            Self::Quotas => "quotas",
            Self::Events => "events",
        }
    }

    /// The word for one of them.
    pub fn singular(self) -> &'static str {
        match self {
            Self::Nodes => "node",
            Self::Services => "service",
            Self::Containers => "container",
            Self::Policies => "policy",
            Self::Rules => "rule",
            Self::Configs => "config",
            Self::Secrets => "secret",
            Self::Quotas => "quota",
            Self::Events => "event",
        }
    }

    /// Whether its objects live in namespaces.
    pub fn is_namespaced(self) -> bool {
        matches!(self, Self::Services | Self::Policies | Self::Rules | Self::Configs | Self::Secrets | Self::Quotas)
    }

    /// The path of the collection over all namespaces.
    pub fn collection_path(self) -> String {
        format!("/v1/{}", self.plural())
    }

    /// The path of one object. `namespace` counts only for namespaced kinds.
    pub fn object_path(self, namespace: &Namespace, name: &str) -> String {
        if self.is_namespaced() {
            format!("/v1/namespaces/{namespace}/{}/{name}", self.plural())
        } else {
            format!("/v1/{}/{name}", self.plural())
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.plural())
    }
}

/// What is kept and served by the API.
pub trait Resource: Serialize + DeserializeOwned + JsonSchema + Clone + fmt::Debug + Send + Sync + 'static {
    /// Its kind.
    const KIND: Kind;
    /// Its name, unique within kind and namespace.
    fn name(&self) -> &str;
    /// Its namespace, if its kind has one.
    fn namespace(&self) -> Option<&Namespace> {
        None
    }
}

/// The names of all fields of a kind's objects, also of those that are left out when they are empty.
pub fn fields_of<T: Resource>() -> Vec<String> {
    let schema = schemars::schema_for!(T);
    let properties = schema.get("properties").and_then(serde_json::Value::as_object);
    properties.map(|fields| fields.keys().cloned().collect()).unwrap_or_default()
}

impl Resource for Node {
    const KIND: Kind = Kind::Nodes;
    fn name(&self) -> &str {
        self.name.as_str()
    }
}

impl Resource for Container {
    const KIND: Kind = Kind::Containers;
    fn name(&self) -> &str {
        self.id.as_str()
    }
}

impl Resource for Event {
    const KIND: Kind = Kind::Events;
    fn name(&self) -> &str {
        &self.id
    }
}

macro_rules! namespaced {
    ($type:ty, $kind:ident) => {
        impl Resource for $type {
            const KIND: Kind = Kind::$kind;
            fn name(&self) -> &str {
                &self.name
            }
            fn namespace(&self) -> Option<&Namespace> {
                Some(&self.namespace)
            }
        }
    };
}

namespaced!(Service, Services);
namespaced!(NetworkPolicy, Policies);
namespaced!(TrafficRule, Rules);
namespaced!(Config, Configs);
namespaced!(Secret, Secrets);
namespaced!(Quota, Quotas);

/// An object with the revision of its last change; send that back as `If-Match` to change just this version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Object<T> {
    /// The store's revision at which the object was changed last.
    pub revision: u64,
    /// The object.
    pub object: T,
}

/// One page of a collection, read at one revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct List<T> {
    /// The revision at which the page was read; watch from the next one to see all that follows.
    pub revision: u64,
    /// The objects, ordered by namespace and name.
    pub items: Vec<Object<T>>,
    /// What to pass as `continue` for the next page, which is read at the same revision; absent on the last.
    #[serde(rename = "continue", default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// What became of a watched object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WatchChange {
    /// It was made or changed.
    Put,
    /// It was deleted; `object` is its last state.
    Delete,
}

/// One change of a watched object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WatchEvent<T> {
    /// What became of it.
    pub change: WatchChange,
    /// Its new state, or its last before the deletion.
    pub object: T,
}

/// One line of a watch: all changes of one revision together; none at all says how far the watch is.
/// A line with `error` is the last one; after `compacted` the client lists again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WatchBatch<T> {
    /// The revision; resume a broken watch from the next one.
    pub revision: u64,
    /// The changes.
    pub events: Vec<WatchEvent<T>>,
    /// Why the watch ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<crate::ProblemDetails>,
}

/// A desired object, as `apply` and `plan` send it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", content = "object", rename_all = "lowercase")]
#[expect(
    clippy::large_enum_variant,
    reason = "manifests are few and short-lived; a box would be in every caller's way"
)]
pub enum Manifest {
    /// A service.
    Service(Service),
    /// A network policy.
    Policy(NetworkPolicy),
    /// A traffic rule.
    Rule(TrafficRule),
    /// A config.
    Config(Config),
    /// A secret.
    Secret(Secret),
    /// A quota.
    Quota(Quota),
}

impl Manifest {
    /// The kind of the object.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Service(_) => Kind::Services,
            Self::Policy(_) => Kind::Policies,
            Self::Rule(_) => Kind::Rules,
            Self::Config(_) => Kind::Configs,
            Self::Secret(_) => Kind::Secrets,
            Self::Quota(_) => Kind::Quotas,
        }
    }

    /// The namespace of the object.
    pub fn namespace(&self) -> &Namespace {
        match self {
            Self::Service(x) => &x.namespace,
            Self::Policy(x) => &x.namespace,
            Self::Rule(x) => &x.namespace,
            Self::Config(x) => &x.namespace,
            Self::Secret(x) => &x.namespace,
            Self::Quota(x) => &x.namespace,
        }
    }

    /// The name of the object.
    pub fn name(&self) -> &str {
        match self {
            Self::Service(x) => &x.name,
            Self::Policy(x) => &x.name,
            Self::Rule(x) => &x.name,
            Self::Config(x) => &x.name,
            Self::Secret(x) => &x.name,
            Self::Quota(x) => &x.name,
        }
    }
}

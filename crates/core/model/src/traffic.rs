//! Traffic rules: which requests to a service go to which backends, by conditions and weights.

use crate::{condition::Condition, ids::Namespace, schema::Name, validate::ITEMS_MAX};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A backend service and its share of the requests.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WeightedBackend {
    /// The name of a service in the rule's namespace.
    #[schemars(with = "Name")]
    pub service: String,
    /// Its share, relative to the sum of all weights of the rule.
    #[serde(default = "one")]
    pub weight: u32,
}

fn one() -> u32 {
    1
}

/// Sends the requests to `service` for which all conditions hold to the backends, by weight.
///
/// Precedence is a total order: higher `priority` first, then more conditions, then the name. The first rule whose
/// conditions hold decides; without one the request goes to the service itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrafficRule {
    /// The identifier, given by the server.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// The name, unique in the namespace.
    #[serde(alias = "traffic")]
    #[schemars(with = "Name")]
    pub name: String,
    /// The namespace.
    #[serde(default)]
    pub namespace: Namespace,
    /// The service to which the requests are addressed.
    #[schemars(with = "Name")]
    pub service: String,
    /// Higher goes first.
    #[serde(default)]
    pub priority: i32,
    /// All must hold; none means every request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = ITEMS_MAX))]
    pub conditions: Vec<Condition>,
    /// Where the requests go.
    #[schemars(length(min = 1, max = ITEMS_MAX))]
    #[schemars(extend("contains" = { "properties": { "weight": { "minimum": 1 } } }))]
    pub backends: Vec<WeightedBackend>,
}

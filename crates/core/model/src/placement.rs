//! What a service may say about the place of its containers: near whom, apart from whom, and how evenly over zones.
//! Knows no nodes' state and chooses nothing.

use crate::{
    ids::{NAMESPACE_DEFAULT, Namespace},
    schema::{Name, Word, WordValue, field, of},
    selector::Selector,
    service::{REPLICAS_MAX, Service},
    validate::ITEMS_MAX,
};
use schemars::{JsonSchema, json_schema};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};

/// The topology key under which each node is a domain of its own; it needs no label of that name.
pub const TOPOLOGY_NODE: &str = "heptad.dev/node";

fn topology_key_default() -> String {
    TOPOLOGY_NODE.to_owned()
}

fn required_default() -> bool {
    true
}

fn max_skew_default() -> u32 {
    1
}

/// Containers of the selected services in the same domain: wanted there by an affinity, unwanted by an anti-affinity. A
/// domain is the set of nodes whose label `topology_key` has the same value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("anyOf" = [
    field("services", json_schema!({ "minItems": 1 })),
    field("labels", json_schema!({ "minProperties": 1 }))
]))]
pub struct AffinityRule {
    /// Names of services.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<Name>", length(max = ITEMS_MAX))]
    pub services: Vec<String>,
    /// Labels that the services must carry.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, WordValue>")]
    #[schemars(extend("maxProperties" = ITEMS_MAX, "propertyNames" = of::<Word>()))]
    pub labels: BTreeMap<String, String>,
    /// Their namespace; that of the service that has the rule if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Namespace>,
    /// The node label whose values are the domains; by default each node is one.
    #[serde(default = "topology_key_default")]
    #[schemars(with = "Word")]
    pub topology_key: String,
    /// Whether a node that breaks the rule is ruled out, or only taken if no other is left.
    #[serde(default = "required_default")]
    pub required: bool,
}

impl AffinityRule {
    /// A required rule on the services of these names, each node being a domain.
    pub fn on_services(services: &[&str]) -> Self {
        Self {
            services: services.iter().map(|&name| name.to_owned()).collect(),
            labels: BTreeMap::new(),
            namespace: None,
            topology_key: topology_key_default(),
            required: true,
        }
    }

    /// The services that it concerns.
    pub fn selector(&self) -> Selector {
        Selector { namespace: self.namespace.clone(), services: self.services.clone(), labels: self.labels.clone() }
    }

    /// Whether the rule, held by a service of namespace `home`, concerns `service`.
    pub fn selects(&self, home: &Namespace, service: &Service) -> bool {
        self.namespace.as_ref().unwrap_or(home) == &service.namespace
            && (self.services.is_empty() || self.services.contains(&service.name))
            && self.labels.iter().all(|(key, value)| service.labels.get(key) == Some(value))
    }
}

impl fmt::Display for AffinityRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let labels = self.labels.iter().map(|(key, value)| format!("{key}={value}"));
        let words: Vec<String> = self.services.iter().cloned().chain(labels).collect();
        f.write_str(&words.join(","))?;
        match &self.namespace {
            Some(namespace) if namespace.as_str() != NAMESPACE_DEFAULT => write!(f, " of namespace {namespace}"),
            _ => Ok(()),
        }
    }
}

/// The replicas of the service are spread evenly over the domains of a node label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TopologySpread {
    /// The node label whose values are the domains, such as `zone`.
    #[schemars(with = "Word")]
    pub topology_key: String,
    /// How many more replicas a domain may have than the one with the fewest.
    #[serde(default = "max_skew_default")]
    #[schemars(range(min = 1, max = REPLICAS_MAX))]
    pub max_skew: u32,
    /// Whether a node that breaks the rule is ruled out, or only taken if no other is left.
    #[serde(default = "required_default")]
    pub required: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_required_and_per_node_unless_they_say_otherwise() {
        let rule: AffinityRule = serde_json::from_str(r#"{"services":["db"]}"#).expect("a rule");
        assert_eq!(rule, AffinityRule::on_services(&["db"]));
        assert_eq!(rule.topology_key, TOPOLOGY_NODE);
        let spread: TopologySpread = serde_json::from_str(r#"{"topology_key":"zone"}"#).expect("a spread");
        assert_eq!((spread.max_skew, spread.required), (1, true));
        assert!(serde_json::from_str::<AffinityRule>(r#"{"service":"db"}"#).is_err());
    }

    #[test]
    fn a_rule_selects_as_its_selector_does() {
        let home = Namespace::from("shop");
        let mut db = Service { namespace: home.clone(), ..Service::new("db", "host") };
        db.labels.insert("tier".into(), "data".into());
        let by_label: AffinityRule = serde_json::from_str(r#"{"labels":{"tier":"data"}}"#).expect("a rule");
        for rule in [AffinityRule::on_services(&["db"]), by_label, AffinityRule::on_services(&["web"])] {
            for home in [home.clone(), Namespace::default()] {
                assert_eq!(rule.selects(&home, &db), rule.selector().selects(&home, &db));
            }
        }
    }
}

//! Problems in the settings that say where containers go: selectors, taints, tolerations, affinity, spread, priority,
//! quotas.

use super::{Found, ITEMS_MAX, Problem, Validate};
use crate::{
    placement::{AffinityRule, TopologySpread},
    quota::Quota,
    resources::Dimension,
    service::{REPLICAS_MAX, Service},
    taint::{Taint, Toleration, TolerationOperator},
};
use std::collections::{BTreeMap, BTreeSet};

/// The highest and, negated, the lowest priority of a service.
pub const PRIORITY_MAX: i32 = 1_000_000_000;
/// The most rules of one kind of a service, and the most taints of a node: every placement evaluates each of them.
pub const RULES_MAX: usize = 16;
/// The longest key or value of a label, a taint or a selector.
pub(crate) const WORD_BYTES_MAX: usize = 253;

impl Found {
    fn word(&mut self, path: impl Into<String>, word: &str) {
        let good = !word.is_empty() && word.len() <= WORD_BYTES_MAX && !word.contains(char::is_whitespace);
        self.unless(good, path, format!("`{word}` is not a key; use 1 to {WORD_BYTES_MAX} bytes without white space"));
    }

    fn value(&mut self, path: impl Into<String>, value: &str) {
        let good = value.len() <= WORD_BYTES_MAX && !value.contains('\0');
        self.unless(good, path, format!("it is longer than {WORD_BYTES_MAX} bytes"));
    }

    fn pairs(&mut self, path: &str, pairs: &BTreeMap<String, String>) {
        self.count(path, pairs.len());
        for (key, value) in pairs {
            self.word(format!("{path}.{key}"), key);
            self.value(format!("{path}.{key}"), value);
        }
    }

    fn rules(&mut self, path: &str, count: usize) {
        self.unless(count <= RULES_MAX, path, format!("{count} entries; at most {RULES_MAX} are possible"));
    }
}

/// The problems of a service's placement.
pub(super) fn service(found: &mut Found, service: &Service) {
    found.pairs("node_selector", &service.node_selector);
    found.rules("tolerations", service.tolerations.len());
    for (i, toleration) in service.tolerations.iter().enumerate() {
        self::toleration(found, &format!("tolerations[{i}]"), toleration);
    }
    for (name, rules) in [("affinity", &service.affinity), ("anti_affinity", &service.anti_affinity)] {
        found.rules(name, rules.len());
        for (i, rule) in rules.iter().enumerate() {
            affinity(found, &format!("{name}[{i}]"), rule);
        }
    }
    spreads(found, &service.topology_spread);
    let good = (-PRIORITY_MAX..=PRIORITY_MAX).contains(&service.priority);
    let message = format!("{} is not from -{PRIORITY_MAX} to {PRIORITY_MAX}", service.priority);
    found.unless(good, "priority", message);
}

fn toleration(found: &mut Found, path: &str, toleration: &Toleration) {
    let every = toleration.key.is_empty() && toleration.operator == TolerationOperator::Exists;
    if !every {
        let message = "name the taint's key; only the operator `Exists` may leave it out, for every taint";
        found.unless(!toleration.key.is_empty(), format!("{path}.key"), message);
    }
    found.value(format!("{path}.key"), &toleration.key);
    found.value(format!("{path}.value"), &toleration.value);
    let compares = toleration.operator == TolerationOperator::Equal || toleration.value.is_empty();
    found.unless(compares, format!("{path}.value"), "`Exists` takes no value");
}

fn affinity(found: &mut Found, path: &str, rule: &AffinityRule) {
    let says_whom = !rule.services.is_empty() || !rule.labels.is_empty();
    let message = "name `services` or `labels`; to speak of its own replicas a service names itself";
    found.unless(says_whom, path, message);
    found.count(path, rule.services.len());
    for (i, name) in rule.services.iter().enumerate() {
        found.label(format!("{path}.services[{i}]"), name);
    }
    found.pairs(&format!("{path}.labels"), &rule.labels);
    if let Some(namespace) = &rule.namespace {
        found.label(format!("{path}.namespace"), namespace.as_str());
    }
    found.word(format!("{path}.topology_key"), &rule.topology_key);
}

fn spreads(found: &mut Found, spreads: &[TopologySpread]) {
    found.rules("topology_spread", spreads.len());
    let mut keys = BTreeSet::new();
    for (i, spread) in spreads.iter().enumerate() {
        let path = format!("topology_spread[{i}]");
        found.word(format!("{path}.topology_key"), &spread.topology_key);
        found.unless(keys.insert(&spread.topology_key), format!("{path}.topology_key"), "the key is listed twice");
        found.between(&format!("{path}.max_skew"), spread.max_skew.into(), 1, REPLICAS_MAX.into());
    }
}

/// The problems of a node's taints.
pub fn taints(taints: &[Taint]) -> Vec<Problem> {
    let mut found = Found::default();
    found.rules("taints", taints.len());
    let mut seen = BTreeSet::new();
    for (i, taint) in taints.iter().enumerate() {
        found.word(format!("taints[{i}].key"), &taint.key);
        found.value(format!("taints[{i}].value"), &taint.value);
        let new = seen.insert((&taint.key, taint.effect));
        found.unless(new, format!("taints[{i}]"), "a taint of this key and effect is listed already");
    }
    found.0
}

impl Validate for Quota {
    fn validate(&self) -> Vec<Problem> {
        let mut found = Found::default();
        found.label("name", &self.name);
        found.label("namespace", self.namespace.as_str());
        let bounds = Dimension::ALL.into_iter().any(|dimension| self.limit(dimension).is_some());
        let bounds = bounds || self.containers.is_some() || self.services.is_some() || self.priority_max.is_some();
        let message = "it bounds nothing; give cpu, memory, storage, network, containers, services or priority_max";
        found.unless(bounds, "name", message);
        let good = self.priority_max.is_none_or(|max| (-PRIORITY_MAX..=PRIORITY_MAX).contains(&max));
        let message = format!("it is not from -{PRIORITY_MAX} to {PRIORITY_MAX}");
        found.unless(good, "priority_max", message);
        found.0
    }
}

const _: () = assert!(RULES_MAX <= ITEMS_MAX, "rules are items");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::taint::TaintEffect;

    fn paths(problems: Vec<Problem>) -> Vec<String> {
        problems.into_iter().map(|problem| problem.path).collect()
    }

    #[test]
    fn every_problem_of_a_placement_is_said_with_its_path() {
        let service: Service = serde_json::from_str(
            r#"{"name":"web","image":"nginx","node_selector":{"di sk":"ssd"},
                "tolerations":[{"value":"x"},{"key":"a","operator":"Exists","value":"x"},{"operator":"Exists"}],
                "affinity":[{"topology_key":"zone"}],"anti_affinity":[{"services":["Web"],"topology_key":""}],
                "topology_spread":[{"topology_key":"zone","max_skew":0},{"topology_key":"zone"}],
                "priority":1000000001}"#,
        )
        .expect("well-formed");
        assert_eq!(
            paths(service.validate()),
            [
                "node_selector.di sk",
                "tolerations[0].key",
                "tolerations[1].value",
                "affinity[0]",
                "anti_affinity[0].services[0]",
                "anti_affinity[0].topology_key",
                "topology_spread[0].max_skew",
                "topology_spread[1].topology_key",
                "priority"
            ]
        );
    }

    #[test]
    fn taints_are_distinct_and_quotas_bound_something() {
        let taint = |effect| Taint { key: "gpu".into(), value: String::new(), effect };
        let distinct = [taint(TaintEffect::NoSchedule), taint(TaintEffect::NoExecute)];
        assert_eq!(taints(&distinct), []);
        let twice = [taint(TaintEffect::NoSchedule), taint(TaintEffect::NoSchedule)];
        assert_eq!(paths(taints(&twice)), ["taints[1]"]);
        let quota = Quota { name: "team".into(), ..Quota::default() };
        assert_eq!(paths(quota.validate()), ["name"]);
        assert_eq!(Quota { services: Some(0), ..quota }.validate(), []);
    }
}

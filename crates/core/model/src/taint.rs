//! Taints of nodes and the tolerations of services, with the meaning that they have in Kubernetes. Knows no placement:
//! only says whether a list of tolerations covers a taint.

use crate::schema::{Word, WordValue, field, implies};
use schemars::{JsonSchema, Schema, json_schema};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a taint does to containers of services that do not tolerate it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum TaintEffect {
    /// They are not placed on the node; those that are there stay.
    NoSchedule,
    /// They are placed there only if no other node takes them.
    PreferNoSchedule,
    /// They are not placed there, and those that are there are stopped.
    NoExecute,
}

impl fmt::Display for TaintEffect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Keeps containers off a node unless their service tolerates it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Taint {
    /// The key.
    #[schemars(with = "Word")]
    pub key: String,
    /// The value; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(with = "WordValue")]
    pub value: String,
    /// What it does.
    pub effect: TaintEffect,
}

impl Taint {
    /// Whether containers that do not tolerate it may not be placed at all.
    pub fn forbids(&self) -> bool {
        self.effect != TaintEffect::PreferNoSchedule
    }
}

impl fmt::Display for Taint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.value.as_str() {
            "" => write!(f, "{}:{}", self.key, self.effect),
            value => write!(f, "{}={value}:{}", self.key, self.effect),
        }
    }
}

/// How a toleration's value is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum TolerationOperator {
    /// The taint has this value.
    #[default]
    Equal,
    /// Any value.
    Exists,
}

/// Lets a service's containers onto nodes with certain taints.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("anyOf" = [field("key", json_schema!({ "minLength": 1 })), exists()]))]
#[schemars(extend("allOf" = [implies(exists(), json_schema!({ "properties": { "value": { "maxLength": 0 } } }))]))]
pub struct Toleration {
    /// The taint's key; empty, with the operator `Exists`: every key.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(with = "WordValue")]
    pub key: String,
    /// How the value is compared.
    pub operator: TolerationOperator,
    /// The taint's value, with the operator `Equal`.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(with = "WordValue")]
    pub value: String,
    /// The effect that is tolerated; absent: every effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effect: Option<TaintEffect>,
}

fn exists() -> Schema {
    field("operator", json_schema!({ "const": "Exists" }))
}

impl Toleration {
    /// Whether it covers `taint`.
    pub fn tolerates(&self, taint: &Taint) -> bool {
        self.effect.is_none_or(|effect| effect == taint.effect)
            && match self.operator {
                TolerationOperator::Exists => self.key.is_empty() || self.key == taint.key,
                TolerationOperator::Equal => self.key == taint.key && self.value == taint.value,
            }
    }
}

/// Whether one of `tolerations` covers `taint`.
pub fn tolerated(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|toleration| toleration.tolerates(taint))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toleration(text: &str) -> Toleration {
        serde_json::from_str(text).expect("a toleration")
    }

    #[test]
    fn tolerations_cover_taints_as_in_kubernetes() {
        let taint = Taint { key: "gpu".into(), value: "a100".into(), effect: TaintEffect::NoSchedule };
        assert_eq!(taint.to_string(), "gpu=a100:NoSchedule");
        for covers in [
            r#"{"operator":"Exists"}"#,
            r#"{"key":"gpu","operator":"Exists"}"#,
            r#"{"key":"gpu","value":"a100"}"#,
            r#"{"key":"gpu","value":"a100","effect":"NoSchedule"}"#,
        ] {
            assert!(tolerated(&[toleration(covers)], &taint), "{covers}");
        }
        for misses in [
            r#"{"key":"gpu"}"#,
            r#"{"key":"disk","operator":"Exists"}"#,
            r#"{"key":"gpu","value":"a100","effect":"NoExecute"}"#,
        ] {
            assert!(!tolerated(&[toleration(misses)], &taint), "{misses}");
        }
    }
}

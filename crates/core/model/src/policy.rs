//! Network policies: who may call whom, as in Kubernetes: a service that no policy selects may be called by all; once
//! a policy selects it for a direction, only what some policy lists is allowed. The order of policies is irrelevant.

use crate::{ids::Namespace, selector::Selector};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One allowed peer of a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyPeer {
    /// The namespace of the services at the other end; that of the policy if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Namespace>,
    /// Names of the services at the other end; any if empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<String>,
    /// Labels that the services at the other end must carry.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Whether callers from outside the mesh (ingress) or targets outside it (egress) are meant instead.
    #[serde(skip_serializing_if = "is_false")]
    pub external: bool,
    /// Container ports of the called service; any if empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
}

impl PolicyPeer {
    /// The selector of the services at the other end.
    pub fn selector(&self) -> Selector {
        Selector { namespace: self.namespace.clone(), services: self.services.clone(), labels: self.labels.clone() }
    }
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// What may call, and what may be called by, the selected services.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkPolicy {
    /// The identifier, given by the server.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// The name, unique in the namespace.
    #[serde(alias = "policy")]
    pub name: String,
    /// The namespace.
    #[serde(default)]
    pub namespace: Namespace,
    /// The services to which the policy applies.
    #[serde(default)]
    pub selector: Selector,
    /// Who may call them; absent: this policy does not restrict callers; empty: nobody may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Vec<PolicyPeer>>,
    /// Whom they may call; absent: this policy does not restrict it; empty: nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<Vec<PolicyPeer>>,
}

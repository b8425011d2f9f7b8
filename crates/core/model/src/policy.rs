//! Network policies: who may call whom, as in Kubernetes. Everybody may call a service that no policy selects; once a
//! policy selects it for a direction, only what some policy lists is allowed. The order of policies is irrelevant.

use crate::{
    ids::Namespace,
    schema::{Name, PortNumber, each_given, field, implies},
    selector::Selector,
    service::Service,
    validate::ITEMS_MAX,
};
use schemars::{JsonSchema, Schema, json_schema};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One allowed peer of a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("allOf" = [implies(field("external", json_schema!({ "const": true })), outside())]))]
pub struct PolicyPeer {
    /// The namespace of the services at the other end; that of the policy if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Namespace>,
    /// Names of the services at the other end; any if empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<Name>", length(max = ITEMS_MAX))]
    pub services: Vec<String>,
    /// Labels that the services at the other end must carry.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Whether callers from outside the mesh (ingress) or targets outside it (egress) are meant instead.
    #[serde(skip_serializing_if = "is_false")]
    pub external: bool,
    /// Container ports of the called service; any if empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<PortNumber>")]
    pub ports: Vec<u16>,
}

/// A peer that is the outside world says nothing else.
fn outside() -> Schema {
    json_schema!({ "properties": {
        "namespace": { "type": "null" },
        "services": { "maxItems": 0 },
        "labels": { "maxProperties": 0 },
        "ports": { "maxItems": 0 },
    } })
}

impl PolicyPeer {
    /// The selector of the services at the other end.
    pub fn selector(&self) -> Selector {
        Selector { namespace: self.namespace.clone(), services: self.services.clone(), labels: self.labels.clone() }
    }
}

/// A direction of calls, seen from a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toward {
    /// The service calls.
    Outside,
    /// The service is called.
    Inside,
}

/// Whether `policies` leave the way between `service` and the world outside the mesh open: no policy restricts that
/// direction of the service, or one that does lists `external`.
pub fn external_allowed(policies: &[NetworkPolicy], service: &Service, toward: Toward) -> bool {
    let peers = |policy: &'_ NetworkPolicy| match toward {
        Toward::Outside => policy.egress.clone(),
        Toward::Inside => policy.ingress.clone(),
    };
    let selecting = policies.iter().filter(|policy| policy.selector.selects(&policy.namespace, service));
    let restricting: Vec<Vec<PolicyPeer>> = selecting.filter_map(peers).collect();
    restricting.is_empty() || restricting.iter().flatten().any(|peer| peer.external)
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// What may call, and what may be called by, the selected services.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("anyOf" = each_given(&["ingress", "egress"])))]
pub struct NetworkPolicy {
    /// The identifier, given by the server.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// The name, unique in the namespace.
    #[serde(alias = "policy")]
    #[schemars(with = "Name")]
    pub name: String,
    /// The namespace.
    #[serde(default)]
    pub namespace: Namespace,
    /// The services to which the policy applies.
    #[serde(default)]
    pub selector: Selector,
    /// Who may call them; absent: this policy does not restrict callers; empty: nobody may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = ITEMS_MAX))]
    pub ingress: Option<Vec<PolicyPeer>>,
    /// Whom they may call; absent: this policy does not restrict it; empty: nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = ITEMS_MAX))]
    pub egress: Option<Vec<PolicyPeer>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(text: &str) -> NetworkPolicy {
        serde_json::from_str(text).expect("a policy")
    }

    #[test]
    fn the_outside_is_closed_by_a_policy_that_does_not_list_it() {
        let web = Service::new("web", "host");
        let open = |policies: &[NetworkPolicy]| {
            (external_allowed(policies, &web, Toward::Outside), external_allowed(policies, &web, Toward::Inside))
        };
        let egress = policy(r#"{"policy":"e","egress":[{"services":["db"]}]}"#);
        let ingress = policy(r#"{"policy":"i","selector":{"services":["web"]},"ingress":[]}"#);
        let listed = policy(r#"{"policy":"x","egress":[{"external":true}]}"#);
        let other = policy(r#"{"policy":"o","selector":{"services":["db"]},"egress":[],"ingress":[]}"#);
        assert_eq!(open(std::slice::from_ref(&other)), (true, true));
        assert_eq!(open(std::slice::from_ref(&egress)), (false, true));
        assert_eq!(open(&[ingress, other]), (true, false));
        assert_eq!(open(&[egress, listed]), (true, true));
    }
}

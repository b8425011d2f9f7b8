//! Quotas: what the containers of a namespace may take together, and how many there may be. Knows neither what is taken
//! nor who enforces the bounds.

use crate::{
    ids::Namespace,
    quantity::{Bytes, CpuMillis, Mbps},
    resources::Dimension,
    schema::{Name, each_given},
    validate::PRIORITY_MAX,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Bounds of one namespace; absent ones do not apply. If a namespace has several quotas, all hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("anyOf" = each_given(&[
    "cpu", "memory", "storage", "network", "containers", "services", "priority_max",
])))]
pub struct Quota {
    /// The identifier, given by the server.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// The name, unique in the namespace.
    #[serde(alias = "quota")]
    #[schemars(with = "Name")]
    pub name: String,
    /// The namespace that it bounds.
    #[serde(default)]
    pub namespace: Namespace,
    /// CPU that its containers on nodes may be given together.
    #[serde(default, alias = "cpu_millis", skip_serializing_if = "Option::is_none")]
    pub cpu: Option<CpuMillis>,
    /// Memory that they may be given together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Bytes>,
    /// Disk space that they may be given together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<Bytes>,
    /// Network bandwidth that they may be given together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Mbps>,
    /// How many containers may be on nodes at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub containers: Option<u32>,
    /// How many services there may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services: Option<u32>,
    /// The highest priority that its services may have. Without such a bound, only somebody who may write everywhere
    /// may give a priority above 0, because it takes the places of others' containers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -PRIORITY_MAX, max = PRIORITY_MAX))]
    pub priority_max: Option<i32>,
}

impl Quota {
    /// The bound of a dimension in its own unit, if there is one.
    pub fn limit(&self, dimension: Dimension) -> Option<u64> {
        match dimension {
            Dimension::Cpu => self.cpu.map(|amount| amount.0),
            Dimension::Memory => self.memory.map(|amount| amount.0),
            Dimension::Storage => self.storage.map(|amount| amount.0),
            Dimension::Network => self.network.map(|amount| amount.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_are_written_in_quantities_and_bound_only_what_they_name() {
        let quota: Quota = serde_json::from_str(r#"{"quota":"team","cpu":"1500m","memory":"1Gi"}"#).expect("valid");
        assert_eq!(quota.limit(Dimension::Cpu), Some(1_500));
        assert_eq!(quota.limit(Dimension::Memory), Some(1 << 30));
        assert_eq!((quota.limit(Dimension::Storage), quota.containers, quota.services), (None, None, None));
        let text = serde_json::to_string(&quota).expect("plain data");
        assert_eq!(serde_json::from_str::<Quota>(&text).ok(), Some(quota));
    }
}

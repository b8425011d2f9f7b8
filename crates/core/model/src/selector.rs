//! Selectors: which services a policy concerns.

use crate::{ids::Namespace, schema::Name, service::Service, validate::ITEMS_MAX};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Selects services. Every part that is given must hold; an empty selector selects all services of its namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Selector {
    /// The namespace; that of the policy if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Namespace>,
    /// Names of services; any if empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<Name>", length(max = ITEMS_MAX))]
    pub services: Vec<String>,
    /// Labels that the service must carry.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl Selector {
    /// Whether this selector, written in an object of namespace `home`, selects `service`.
    pub fn selects(&self, home: &Namespace, service: &Service) -> bool {
        self.namespace.as_ref().unwrap_or(home) == &service.namespace
            && (self.services.is_empty() || self.services.contains(&service.name))
            && self.labels.iter().all(|(key, value)| service.labels.get(key) == Some(value))
    }
}

//! Namespaces as objects of their own: what people say of them. Objects may be in a namespace that nobody declared.
//! Knows none of them.

use crate::{
    schema::{LabelText, Name, Text, of},
    validate::{Found, ITEMS_MAX, Problem, Validate},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A namespace that somebody declared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeclaredNamespace {
    /// The identifier, given by the server.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// The namespace.
    #[serde(alias = "namespace")]
    #[schemars(with = "Name")]
    pub name: String,
    /// What it is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(with = "Text")]
    pub description: String,
    /// Labels for people and their tools.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, LabelText>", extend("maxProperties" = ITEMS_MAX))]
    #[schemars(extend("propertyNames" = { "minLength": 1, "allOf": [of::<LabelText>()] }))]
    pub labels: BTreeMap<String, String>,
}

impl Validate for DeclaredNamespace {
    fn validate(&self) -> Vec<Problem> {
        let mut found = Found::default();
        found.label("name", &self.name);
        found.text("description", &self.description);
        found.labels(&self.labels);
        found.0
    }
}

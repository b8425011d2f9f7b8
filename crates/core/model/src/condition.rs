//! Conditions of traffic rules: a field of a request, an operator, a value. Knows no HTTP library; `route` compiles
//! conditions and evaluates them.

use crate::schema::{Text, field, implies};
use schemars::{JsonSchema, json_schema};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What of a request is looked at. Written `method`, `path`, `header:NAME` or `query:NAME`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", extend("pattern" = r"^(method|path|(header|query):[\s\S]+)$"))]
pub enum Field {
    /// The HTTP method.
    Method,
    /// The path, without the query.
    Path,
    /// A header, by its lower-case name.
    Header(String),
    /// A parameter of the query.
    Query(String),
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Method => f.write_str("method"),
            Self::Path => f.write_str("path"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Query(name) => write!(f, "query:{name}"),
        }
    }
}

impl From<Field> for String {
    fn from(field: Field) -> Self {
        field.to_string()
    }
}

impl TryFrom<String> for Field {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "method" => Ok(Self::Method),
            None if text == "path" => Ok(Self::Path),
            Some(("header", name)) if !name.is_empty() => Ok(Self::Header(name.to_ascii_lowercase())),
            Some(("query", name)) if !name.is_empty() => Ok(Self::Query(name.to_owned())),
            _ => Err(format!("`{text}` is not a field of a request; write method, path, header:NAME or query:NAME")),
        }
    }
}

/// How a field is compared with the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Operator {
    /// The field is there and is the value.
    Equals,
    /// The field is absent or is not the value.
    NotEquals,
    /// The field is there and contains the value.
    Contains,
    /// The field is absent or does not contain the value.
    NotContains,
    /// The field is there; the value must be empty.
    Exists,
    /// The field is there and begins with the value.
    Prefix,
    /// The field is there and the regular expression matches somewhere in it.
    Regex,
}

/// One condition of a traffic rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("allOf" = [implies(
    field("operator", json_schema!({ "const": "Exists" })),
    json_schema!({ "properties": { "value": { "maxLength": 0 } } })
)]))]
pub struct Condition {
    /// What of the request is looked at.
    pub field: Field,
    /// How it is compared.
    pub operator: Operator,
    /// What it is compared with.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(with = "Text")]
    pub value: String,
}

/// The largest size of a compiled regular expression; bounds the work that a rule can cause.
pub const REGEX_SIZE_BYTES_MAX: usize = 1 << 16;

/// Compiles the regular expression of a condition under the size bound.
pub fn compile_regex(pattern: &str) -> Result<regex::Regex, regex::Error> {
    regex::RegexBuilder::new(pattern).size_limit(REGEX_SIZE_BYTES_MAX).build()
}

//! Names and identifiers. A name is an RFC 1123 label; a service is identified by namespace and name. Does not draw
//! identifiers: randomness is the caller's.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The longest permitted name, as in DNS labels.
pub const NAME_LENGTH_MAX: usize = 63;

/// [`is_label`] as a pattern, for documents.
pub const LABEL_PATTERN: &str = "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$";

/// Whether `name` is an RFC 1123 label: lower-case letters, digits and `-`, at most 63 of them, no `-` at either end.
pub fn is_label(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !name.is_empty()
        && name.len() <= NAME_LENGTH_MAX
        && name.bytes().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

macro_rules! string_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl $name {
            /// The identifier as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }
        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text)
            }
        }
    };
}

string_id!(
    /// A node's name, unique in the cluster.
    NodeName
);
string_id!(
    /// A container's identifier, unique in the cluster and never used again: `SERVICE-XXXXXX`.
    ContainerId
);

impl ContainerId {
    /// The container's own host name: the identifier, or as much of a long one as fits a host name, such that
    /// containers of one service have different names.
    pub fn hostname(&self) -> String {
        if self.0.len() <= NAME_LENGTH_MAX {
            return self.0.clone();
        }
        let (head, tail) = self.0.rsplit_once('-').unwrap_or((&self.0, ""));
        let tail = format!("-{tail}");
        let room = NAME_LENGTH_MAX.saturating_sub(tail.len());
        let head: String = head.chars().take(room).collect();
        format!("{}{tail}", head.trim_end_matches('-'))
    }
}

/// The namespace of objects that name none.
pub const NAMESPACE_DEFAULT: &str = "default";

/// A namespace's name; `default` if nothing is said.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Namespace(#[schemars(regex(pattern = LABEL_PATTERN))] pub String);

impl Default for Namespace {
    fn default() -> Self {
        Self(NAMESPACE_DEFAULT.to_owned())
    }
}

impl Namespace {
    /// The namespace as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl From<&str> for Namespace {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// What identifies a service: its namespace and name, written `NAMESPACE/NAME`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", extend("pattern" = "^([^/]+(/[^/]*)?|/[^/]*)$"))]
pub struct ServiceKey {
    /// The namespace.
    pub namespace: Namespace,
    /// The service's name within the namespace.
    pub name: String,
}

impl ServiceKey {
    /// The key of `name` in `namespace`.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: Namespace(namespace.into()), name: name.into() }
    }

    /// Reads `NAME` (in `namespace`) or `NAMESPACE/NAME`.
    pub fn parse_in(text: &str, namespace: &Namespace) -> Self {
        match text.split_once('/') {
            Some((namespace, name)) => Self::new(namespace, name),
            None => Self::new(namespace.as_str(), text),
        }
    }

    /// The DNS name of the service: `NAME.NAMESPACE.internal`.
    pub fn dns_name(&self) -> String {
        format!("{}.{}.internal", self.name, self.namespace)
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.namespace, self.name))
    }
}

impl From<ServiceKey> for String {
    fn from(key: ServiceKey) -> Self {
        key.to_string()
    }
}

impl TryFrom<String> for ServiceKey {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        if text.is_empty() || text.matches('/').count() > 1 {
            return Err(format!("`{text}` is not a service key; write NAMESPACE/NAME"));
        }
        Ok(Self::parse_in(&text, &Namespace::default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_rfc_1123() {
        let pattern = regex::Regex::new(LABEL_PATTERN).expect("a pattern");
        for good in ["a", "web", "a-1", "0x", "a--b", &"x".repeat(63)] {
            assert!(is_label(good) && pattern.is_match(good), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a.b", &"x".repeat(64)] {
            assert!(!is_label(bad) && !pattern.is_match(bad), "{bad}");
        }
    }

    #[test]
    fn host_names_are_labels_and_differ_within_a_service() {
        for length in 1..=NAME_LENGTH_MAX {
            let name = format!("{}{}", "a-".repeat(31), "b")[..length].trim_end_matches('-').to_owned();
            let of = |suffix: &str| ContainerId(format!("{name}-{suffix}")).hostname();
            assert!(is_label(&of("x1y2z3")), "{}", of("x1y2z3"));
            assert!(of("x1y2z3").ends_with("-x1y2z3") && of("x1y2z3") != of("x1y2z4"));
        }
        assert_eq!(ContainerId::from("web-1").hostname(), "web-1");
    }

    #[test]
    fn service_keys_round_trip() {
        let key = ServiceKey::new("shop", "web");
        assert_eq!(ServiceKey::try_from(String::from(key.clone())), Ok(key.clone()));
        assert_eq!(key.dns_name(), "web.shop.internal");
        assert!(ServiceKey::try_from("a/b/c".to_owned()).is_err());
    }
}

//! SPIFFE ids: the names in certificates, `spiffe://TRUST_DOMAIN/...`. Knows no certificate.

use crate::error::{Error, Result};
use heptad_model::{NodeName, ServiceKey, ids::is_label};
use std::fmt;

/// The longest trust domain, which keeps ids far below the 2,048 bytes that SPIFFE permits.
const TRUST_DOMAIN_BYTES_MAX: usize = 253;

/// Whether `name` is a trust domain: labels joined by dots.
pub fn is_trust_domain(name: &str) -> bool {
    name.len() <= TRUST_DOMAIN_BYTES_MAX && name.split('.').all(is_label)
}

pub(crate) fn checked_trust_domain(name: &str) -> Result<&str> {
    if is_trust_domain(name) { Ok(name) } else { Err(Error::TrustDomain { name: name.to_owned() }) }
}

/// An identity within a trust domain.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SpiffeId {
    /// A control server: `/server/NAME`.
    Server(String),
    /// A node: `/node/NAME`.
    Node(NodeName),
    /// A service, for whose containers a node speaks: `/ns/NAMESPACE/svc/NAME`.
    Service(ServiceKey),
}

impl SpiffeId {
    /// The id as a URI in `trust_domain`.
    pub fn uri(&self, trust_domain: &str) -> String {
        format!("spiffe://{trust_domain}{self}")
    }

    /// Parses a URI: the trust domain and the identity in it.
    pub fn parse(uri: &str) -> Result<(String, Self)> {
        let wrong = |reason| Error::SpiffeId { uri: uri.chars().take(300).collect(), reason };
        let rest = uri.strip_prefix("spiffe://").ok_or_else(|| wrong("it does not begin with spiffe://"))?;
        let (trust_domain, path) = rest.split_once('/').ok_or_else(|| wrong("it has no path"))?;
        if !is_trust_domain(trust_domain) {
            return Err(wrong("its trust domain is no name"));
        }
        let id = Self::of_path(path).ok_or_else(|| {
            wrong("its path is none of /server/NAME, /node/NAME and /ns/NAMESPACE/svc/NAME with lower-case names")
        })?;
        Ok((trust_domain.to_owned(), id))
    }

    fn of_path(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.split('/').collect();
        let id = match parts[..] {
            ["server", name] => Self::Server(name.to_owned()),
            ["node", name] => Self::Node(name.into()),
            ["ns", namespace, "svc", name] => Self::Service(ServiceKey::new(namespace, name)),
            _ => return None,
        };
        id.is_valid().then_some(id)
    }

    /// Whether all its names are labels.
    pub fn is_valid(&self) -> bool {
        match self {
            Self::Server(name) => is_label(name),
            Self::Node(name) => is_label(name.as_str()),
            Self::Service(key) => is_label(key.namespace.as_str()) && is_label(&key.name),
        }
    }

    /// The node, if it is one.
    pub fn node(&self) -> Option<&NodeName> {
        match self {
            Self::Node(name) => Some(name),
            _ => None,
        }
    }
}

/// The path of the id.
impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(name) => write!(f, "/server/{name}"),
            Self::Node(name) => write!(f, "/node/{name}"),
            Self::Service(key) => write!(f, "/ns/{}/svc/{}", key.namespace, key.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn label() -> impl Strategy<Value = String> {
        "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?"
    }

    fn ids() -> impl Strategy<Value = SpiffeId> {
        prop_oneof![
            label().prop_map(SpiffeId::Server),
            label().prop_map(|name| SpiffeId::Node(name.into())),
            (label(), label()).prop_map(|(ns, name)| SpiffeId::Service(ServiceKey::new(ns, name))),
        ]
    }

    #[test]
    fn other_forms_are_refused() {
        for bad in [
            "",
            "spiffe://",
            "spiffe://td",
            "spiffe://td/",
            "spiffe://td/node",
            "spiffe://td/node/",
            "spiffe://td/node/a/",
            "spiffe://td/node/a/b",
            "spiffe://td/node/A",
            "spiffe://td/node/..",
            "spiffe://td//node/a",
            "spiffe://TD/node/a",
            "spiffe://td:1/node/a",
            "spiffe://user@td/node/a",
            "spiffe://td/node/a?x",
            "spiffe://td/node/a#x",
            "spiffe://td/node/%61",
            "spiffe://td/ns/a/svc",
            "spiffe://td/ns/a/b/c",
            "SPIFFE://td/node/a",
            "https://td/node/a",
        ] {
            assert!(SpiffeId::parse(bad).is_err(), "{bad}");
        }
        assert!(!is_trust_domain("") && !is_trust_domain("a..b") && !is_trust_domain(&"a.".repeat(200)));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(id in ids(), domain in "[a-z]{1,9}(\\.[a-z0-9]{1,9}){0,3}") {
            let (read_domain, read) = SpiffeId::parse(&id.uri(&domain)).expect("read");
            prop_assert_eq!((read_domain, read), (domain, id));
        }

        #[test]
        fn what_is_read_is_written_the_same(text in "(spiffe://)?[a-zA-Z0-9./%?#@:-]{0,60}") {
            if let Ok((domain, id)) = SpiffeId::parse(&text) {
                prop_assert_eq!(id.uri(&domain), text);
            }
        }
    }
}

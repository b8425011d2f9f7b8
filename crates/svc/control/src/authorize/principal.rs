//! Who asks.

use crate::{objects::Writer, trust::Person};
use heptad_api::{permission::Who, trust::Role};
use heptad_model::NodeName;
use std::fmt;

/// The caller's identity, as far as it was proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Principal {
    /// The user of the platform's own machine.
    Operator,
    /// A control server, by its certificate.
    Server(String),
    /// A node, by its certificate and the key of its row.
    Node(NodeName),
    /// A node by a certificate that has ended, and the key of its row. It may get a new certificate, and nothing else.
    Ended(NodeName),
    /// A person, by a token.
    Person(Person),
    /// An unidentified caller.
    Anonymous,
}

impl Principal {
    /// Who it is to the rules of what is permitted.
    pub(super) fn who(&self) -> Who<'_> {
        match self {
            Self::Operator => Who::Operator,
            Self::Server(_) => Who::Server,
            Self::Node(name) | Self::Ended(name) => Who::Node(name.as_str()),
            Self::Person(person) => Who::Person(&person.role),
            Self::Anonymous => Who::Anonymous,
        }
    }

    /// On whose behalf it writes.
    pub(crate) fn writer(&self) -> Writer {
        match self {
            Self::Operator | Self::Server(_) => Writer::Admin,
            Self::Person(person) if person.role == Role::Admin => Writer::Admin,
            Self::Person(_) | Self::Ended(_) | Self::Anonymous => Writer::Limited,
            Self::Node(_) => Writer::Node,
        }
    }

    /// With what people know about it.
    pub(crate) fn described(&self) -> String {
        match self {
            Self::Person(person) => format!("{self} ({}, {})", person.name, person.role),
            _ => self.to_string(),
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operator => f.pad("operator"),
            Self::Server(name) => write!(f, "server/{name}"),
            Self::Node(name) | Self::Ended(name) => write!(f, "node/{name}"),
            Self::Person(person) => write!(f, "person/{}", person.id),
            Self::Anonymous => f.pad("anonymous"),
        }
    }
}

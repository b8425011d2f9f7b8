//! Parts of a kind, for readers that need no more: the server omits the rest. Knows no reader.

use heptad_model::{Namespace, NodeName};

/// Which objects of a kind, and how much of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// All objects, whole.
    #[default]
    All,
    /// The objects of one namespace, whole.
    Namespace(Namespace),
    /// The containers that are bound to a node, whole.
    Node(NodeName),
}

impl Part {
    pub(crate) fn namespace(&self) -> Option<&Namespace> {
        match self {
            Self::Namespace(namespace) => Some(namespace),
            _ => None,
        }
    }

    /// The query parameter that asks for it.
    pub(crate) fn query(&self) -> (&'static str, Option<String>) {
        match self {
            Self::All | Self::Namespace(_) => ("node", None),
            Self::Node(name) => ("node", Some(name.to_string())),
        }
    }
}

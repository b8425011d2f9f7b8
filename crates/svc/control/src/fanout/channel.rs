//! What can be followed: a whole kind, what proxies route by, or the containers of one node.

use crate::{keys, objects::Kept};
use heptad_api::{Kind, with_kind};
use heptad_model::NodeName;
use heptad_state::KeyRange;

/// What a client follows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Channel {
    /// All objects of a kind.
    Whole(Kind),
    /// Everything that proxies route by.
    Mesh,
    /// The containers that are bound to a node.
    Node(NodeName),
}

impl Channel {
    /// The channel of a kind; `None` if the kind is not kept ready for many followers.
    pub(crate) fn whole(kind: Kind) -> Option<Self> {
        with_kind!(kind, T => T::FOLLOWED).then_some(Self::Whole(kind))
    }

    /// What it is, for messages.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Whole(kind) => kind.plural(),
            Self::Mesh => "the mesh",
            Self::Node(_) => Kind::Containers.plural(),
        }
    }

    /// The rows from which it is made.
    pub(crate) fn range(&self) -> KeyRange {
        match self {
            Self::Whole(kind) => KeyRange::prefix(keys::prefix(*kind, None)),
            Self::Mesh => keys::mesh(),
            Self::Node(_) => KeyRange::prefix(keys::prefix(Kind::Containers, None)),
        }
    }
}

//! What can be followed: a kind whole, what proxies route by, or the containers of one node.

use crate::keys;
use heptad_api::Kind;
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
    /// The channel of a kind; none if that kind is not kept ready for many.
    pub(crate) fn whole(kind: Kind) -> Option<Self> {
        let kept = matches!(kind, Kind::Nodes | Kind::Services | Kind::Containers | Kind::Policies | Kind::Rules);
        kept.then_some(Self::Whole(kind))
    }

    /// What it is, for messages.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Whole(kind) => kind.plural(),
            Self::Mesh => "the mesh",
            Self::Node(_) => Kind::Containers.plural(),
        }
    }

    /// The rows that it is made of.
    pub(crate) fn range(&self) -> KeyRange {
        match self {
            Self::Whole(kind) => KeyRange::prefix(keys::prefix(*kind, None)),
            Self::Mesh => keys::mesh(),
            Self::Node(_) => KeyRange::prefix(keys::prefix(Kind::Containers, None)),
        }
    }
}

//! What can be followed: a kind whole, or what the mesh or one node needs of the containers.

use crate::keys;
use heptad_api::Kind;
use heptad_model::NodeName;
use heptad_state::KeyRange;

/// What a client follows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Channel {
    /// All objects of a kind.
    Whole(Kind),
    /// Of the containers that are bound, what the mesh looks at.
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

    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Whole(kind) => *kind,
            Self::Mesh | Self::Node(_) => Kind::Containers,
        }
    }

    /// The rows that it is made of.
    pub(crate) fn range(&self) -> KeyRange {
        KeyRange::prefix(keys::prefix(self.kind(), None))
    }
}

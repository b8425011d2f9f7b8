//! Whether a node that is being taken out of the cluster may go: when nothing of it is left, or what may still run
//! there harms nobody.

use heptad_model::{Node, NodeStatus};

/// Whether `node` may go now. `left` are the containers that it still has, each with whether its service must never run
/// twice.
pub fn may_go(node: &Node, left: impl IntoIterator<Item = bool>) -> bool {
    let mut left = left.into_iter().peekable();
    match node.status {
        _ if left.peek().is_none() => true,
        // It reports, or did a moment ago: it stops them and says so.
        NodeStatus::Ready => false,
        _ if node.fenced => true,
        NodeStatus::Unknown => false,
        // The others have been replaced already, and an agent that comes back hears that its node is gone.
        NodeStatus::NotReady => !left.any(|never_twice| never_twice),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use heptad_model::ResourceVector;

    #[test]
    fn a_node_goes_when_it_is_empty_or_off_and_not_while_something_may_run_twice() {
        use NodeStatus::{NotReady, Ready, Unknown};
        for (status, fenced, left, goes) in [
            (Ready, false, vec![], true),
            (Unknown, false, vec![], true),
            (Ready, false, vec![false], false),
            (Ready, true, vec![true], false),
            (Unknown, false, vec![false], false),
            (Unknown, true, vec![true], true),
            (NotReady, false, vec![false, false], true),
            (NotReady, false, vec![false, true], false),
            (NotReady, true, vec![true], true),
        ] {
            let node = Node { status, fenced, ..Node::new("n", ResourceVector::ZERO) };
            assert_eq!(may_go(&node, left.clone()), goes, "{status} {fenced} {left:?}");
        }
    }
}

//! Requests arrive one by one; each is decided at once and stays: how many nodes are used in the end.

use crate::{
    cpu::CpuStart,
    instance::{Item, NodeShape},
    placer::{Opening, Placer},
};
use heptad_capacity::{NodeIndex, engine::Policy};

/// The outcome.
#[derive(Clone, Debug)]
pub struct Packing {
    /// The node of each item; none if no node could take it.
    pub nodes: Vec<Option<NodeIndex>>,
    /// Nodes that have something.
    pub nodes_used: usize,
    /// Searches for a node.
    pub decisions: u64,
    /// CPU time of the searches.
    pub cpu_seconds: f64,
}

impl Packing {
    /// Items that have no node.
    pub fn unplaced(&self) -> usize {
        self.nodes.iter().filter(|node| node.is_none()).count()
    }
}

/// Places `items` in their order.
pub fn pack(nodes: &[NodeShape], items: &[Item], policy: Policy) -> Packing {
    let mut placer = Placer::new(nodes, policy, Opening::Late);
    let classes: Vec<_> = items.iter().map(|item| placer.class(item)).collect();
    let start = CpuStart::now();
    let chosen: Vec<_> = classes.into_iter().map(|class| placer.place(class).map(|choice| choice.node)).collect();
    let cpu_seconds = start.seconds();
    Packing { nodes: chosen, nodes_used: placer.nodes_used(), decisions: placer.decisions(), cpu_seconds }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(amount: u64) -> Item {
        Item { amounts: [amount, 0, 0, 0], devices: None }
    }

    fn node(amount: u64) -> NodeShape {
        NodeShape { amounts: [amount, 0, 0, 0], devices: 0, model: String::new() }
    }

    #[test]
    fn used_nodes_come_first_and_the_largest_is_opened() {
        let nodes = [node(3), node(10), node(4)];
        let packed = pack(&nodes, &[3, 3, 4, 4].map(item), Policy::Pack);
        assert_eq!(packed.nodes, [Some(1), Some(1), Some(1), Some(2)]);
        assert_eq!((packed.nodes_used, packed.decisions, packed.unplaced()), (2, 4, 0));
        let packed = pack(&nodes, &[3, 11].map(item), Policy::Spread);
        assert_eq!(packed.nodes, [Some(1), None]);
        assert_eq!(packed.unplaced(), 1);
    }
}

//! Repair plans: from what was seen of an item's copies to the copies that must be made or may be dropped.
//! Knows neither the bytes nor how a copy is made; an unreachable node is never taken for one that lost its copy.

use crate::StorageNodeName;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What is known of one copy on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CopyState {
    /// It is there and, as far as is known, whole.
    Good,
    /// The node answers and does not have it.
    Missing,
    /// It is there, but its checksum does not hold.
    Corrupt,
    /// The node does not answer.
    Unknown,
}

/// One item (a blob) and what is known of its copies on the nodes that were asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemCopies<I> {
    /// The item.
    pub item: I,
    /// The nodes that should hold it, by the placement map.
    pub wanted: Vec<StorageNodeName>,
    /// What each asked node has.
    pub seen: BTreeMap<StorageNodeName, CopyState>,
}

/// Make a good copy of `item` on `target` from one of `sources`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyTask<I> {
    /// The item.
    pub item: I,
    /// Nodes with a copy, in the order to try them; those of the placement first.
    pub sources: Vec<StorageNodeName>,
    /// The node that lacks it.
    pub target: StorageNodeName,
}

/// What to do so that every item is whole again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepairPlan<I> {
    /// Copies to make.
    pub copies: Vec<CopyTask<I>>,
    /// Copies on nodes outside the placement that may go: all wanted copies are good.
    pub surplus: Vec<(I, StorageNodeName)>,
    /// Items with no good copy on any asked node, while a node that may have one does not answer.
    pub waiting: Vec<I>,
    /// Items with no good copy, all nodes having answered.
    pub lost: Vec<I>,
}

impl<I> Default for RepairPlan<I> {
    fn default() -> Self {
        Self { copies: Vec::new(), surplus: Vec::new(), waiting: Vec::new(), lost: Vec::new() }
    }
}

/// The plan for `items`, in their order.
pub fn plan_repair<I: Clone>(items: impl IntoIterator<Item = ItemCopies<I>>) -> RepairPlan<I> {
    let mut plan = RepairPlan::default();
    for copies in items {
        plan_item(copies, &mut plan);
    }
    plan
}

fn plan_item<I: Clone>(copies: ItemCopies<I>, plan: &mut RepairPlan<I>) {
    let ItemCopies { item, wanted, seen } = copies;
    let state = |node: &StorageNodeName| seen.get(node).copied().unwrap_or(CopyState::Unknown);
    let (inside, outside): (Vec<_>, Vec<_>) =
        seen.iter().filter(|(_, state)| **state == CopyState::Good).map(|(n, _)| n).partition(|n| wanted.contains(n));
    if inside.is_empty() && outside.is_empty() {
        let silent = wanted.iter().any(|node| state(node) == CopyState::Unknown);
        let silent = silent || seen.values().any(|state| *state == CopyState::Unknown);
        if silent {
            plan.waiting.push(item)
        } else {
            plan.lost.push(item)
        }
        return;
    }
    let sources: Vec<StorageNodeName> = inside.iter().chain(&outside).map(|node| (*node).clone()).collect();
    for target in &wanted {
        if matches!(state(target), CopyState::Missing | CopyState::Corrupt) {
            plan.copies.push(CopyTask { item: item.clone(), sources: sources.clone(), target: target.clone() });
        }
    }
    if inside.len() == wanted.len() {
        plan.surplus.extend(outside.into_iter().map(|node| (item.clone(), node.clone())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use CopyState::{Corrupt, Good, Missing, Unknown};

    fn item(states: [CopyState; 3], outside: Option<CopyState>) -> ItemCopies<u8> {
        let wanted: Vec<StorageNodeName> = ["a", "b", "c"].map(StorageNodeName::from).to_vec();
        let mut seen: BTreeMap<_, _> = wanted.iter().cloned().zip(states).collect();
        if let Some(state) = outside {
            seen.insert("z".into(), state);
        }
        ItemCopies { item: 7, wanted, seen }
    }

    fn targets(plan: &RepairPlan<u8>) -> Vec<&str> {
        plan.copies.iter().map(|task| task.target.as_str()).collect()
    }

    #[test]
    fn missing_and_corrupt_copies_are_made_again() {
        let plan = plan_repair([item([Good, Missing, Corrupt], None)]);
        assert_eq!(targets(&plan), ["b", "c"]);
        assert_eq!(plan.copies[0].sources, [StorageNodeName::from("a")]);
    }

    #[test]
    fn silent_nodes_are_left_alone() {
        assert_eq!(plan_repair([item([Good, Good, Unknown], None)]), RepairPlan::default());
        assert_eq!(plan_repair([item([Missing, Missing, Unknown], None)]).waiting, [7]);
    }

    #[test]
    fn lost_only_if_everybody_says_so() {
        assert_eq!(plan_repair([item([Missing, Corrupt, Missing], None)]).lost, [7]);
        assert_eq!(plan_repair([item([Missing, Corrupt, Missing], Some(Unknown))]).waiting, [7]);
    }

    #[test]
    fn copies_elsewhere_are_sources_first_and_surplus_later() {
        let plan = plan_repair([item([Missing, Good, Good], Some(Good))]);
        assert_eq!((targets(&plan), plan.surplus.len()), (vec!["a"], 0));
        assert_eq!(plan.copies[0].sources.last(), Some(&StorageNodeName::from("z")));
        let plan = plan_repair([item([Good, Good, Good], Some(Good))]);
        assert_eq!(plan.surplus, [(7, "z".into())]);
    }
}

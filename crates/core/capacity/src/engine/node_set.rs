//! A set of nodes as bits: one look per node, a word at a time where all are gone through.

/// Where a node stands among the nodes of a cluster; grows with the name.
pub type NodeIndex = usize;

/// Some of the nodes of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeSet {
    words: Vec<u64>,
    count: usize,
}

impl NodeSet {
    /// No node.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a node. Returns whether it was missing.
    #[inline]
    pub fn insert(&mut self, node: NodeIndex) -> bool {
        let word = node / 64;
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let is_new = self.words[word] & (1 << (node % 64)) == 0;
        self.words[word] |= 1 << (node % 64);
        self.count += usize::from(is_new);
        is_new
    }

    /// Takes a node out. Returns whether it was there.
    #[inline]
    pub fn remove(&mut self, node: NodeIndex) -> bool {
        let was_there = self.contains(node);
        if was_there {
            self.words[node / 64] &= !(1 << (node % 64));
            self.count -= 1;
        }
        was_there
    }

    /// Whether a node is in it.
    #[inline]
    pub fn contains(&self, node: NodeIndex) -> bool {
        self.words.get(node / 64).is_some_and(|word| word >> (node % 64) & 1 == 1)
    }

    /// How many there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The nodes, in order.
    pub fn iter(&self) -> impl Iterator<Item = NodeIndex> + '_ {
        self.words.iter().enumerate().flat_map(|(i, word)| Bits(*word).map(move |bit| i * 64 + bit))
    }
}

impl FromIterator<NodeIndex> for NodeSet {
    fn from_iter<I: IntoIterator<Item = NodeIndex>>(nodes: I) -> Self {
        let mut set = Self::new();
        nodes.into_iter().for_each(|node| _ = set.insert(node));
        set
    }
}

/// The places of the bits of a word that are set, the lowest first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bits(pub(super) u64);

impl Iterator for Bits {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        let bit = self.0.trailing_zeros() as usize;
        (self.0 != 0).then(|| {
            self.0 &= self.0 - 1;
            bit
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_is_a_set(changes in prop::collection::vec((0usize..300, any::<bool>()), 0..80)) {
            let (mut set, mut model) = (NodeSet::new(), BTreeSet::new());
            for (node, insert) in changes {
                if insert {
                    prop_assert_eq!(set.insert(node), model.insert(node));
                } else {
                    prop_assert_eq!(set.remove(node), model.remove(&node));
                }
                prop_assert_eq!(set.len(), model.len());
                prop_assert_eq!(set.contains(node), insert);
            }
            prop_assert!(set.iter().eq(model));
        }
    }
}

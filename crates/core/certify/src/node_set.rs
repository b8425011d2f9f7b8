//! A set of nodes by index, as bits. Knows nothing of what a node is.

/// Which nodes may take an item.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeSet {
    words: Vec<u64>,
}

impl NodeSet {
    /// The set without a node.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// Adds a node.
    pub fn insert(&mut self, node: usize) {
        let word = node / 64;
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        self.words[word] |= 1 << (node % 64);
    }

    /// Whether the node is in the set.
    #[must_use]
    pub fn contains(&self, node: usize) -> bool {
        self.words.get(node / 64).is_some_and(|word| word >> (node % 64) & 1 == 1)
    }

    /// The members in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.words.iter().enumerate().flat_map(|(at, &word)| {
            std::iter::successors((word != 0).then_some(word), |rest| Some(rest & (rest - 1)).filter(|rest| *rest != 0))
                .map(move |rest| at * 64 + rest.trailing_zeros() as usize)
        })
    }

    /// One more than the highest member; 0 if there is none.
    #[must_use]
    pub fn end(&self) -> usize {
        self.iter().last().map_or(0, |last| last + 1)
    }
}

impl FromIterator<usize> for NodeSet {
    fn from_iter<I: IntoIterator<Item = usize>>(nodes: I) -> Self {
        let mut set = Self::empty();
        nodes.into_iter().for_each(|node| set.insert(node));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_come_back_in_order() {
        let set: NodeSet = [130, 3, 64, 63].into_iter().collect();
        assert_eq!(set.iter().collect::<Vec<_>>(), [3, 63, 64, 130]);
        assert_eq!(set.end(), 131);
        assert!(set.contains(64) && !set.contains(65) && !set.contains(100_000));
        assert_eq!(NodeSet::empty().iter().count(), 0);
    }
}

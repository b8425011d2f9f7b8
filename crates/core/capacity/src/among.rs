//! Which of very many containers are among some few, without a comparison of texts for each of them.

use heptad_model::ContainerId;
use std::collections::BTreeSet;

/// Bits per container, so that few others share one.
const BITS_PER_CONTAINER: usize = 64;

/// Some containers.
#[derive(Debug)]
pub struct Among<'a> {
    all: BTreeSet<&'a ContainerId>,
    /// A bit is set where one of them falls by the end of its text.
    marks: Vec<u64>,
}

impl<'a> Among<'a> {
    /// Those.
    pub fn new(containers: impl IntoIterator<Item = &'a ContainerId>) -> Self {
        let all: BTreeSet<&ContainerId> = containers.into_iter().collect();
        let words = (all.len() * BITS_PER_CONTAINER / 64).next_power_of_two();
        let mut among = Self { marks: vec![0; words], all: BTreeSet::new() };
        for container in &all {
            let bit = among.bit(container);
            among.marks[bit / 64] |= 1 << (bit % 64);
        }
        Self { all, ..among }
    }

    /// Whether it is one of them.
    #[inline]
    pub fn contains(&self, container: &ContainerId) -> bool {
        let bit = self.bit(container);
        self.marks[bit / 64] >> (bit % 64) & 1 == 1 && self.all.contains(container)
    }

    /// Identifiers differ at their end, which is drawn.
    #[inline]
    fn bit(&self, container: &ContainerId) -> usize {
        let text = container.as_str().as_bytes();
        let mut end = [0; 8];
        let tail = &text[text.len().saturating_sub(8)..];
        end[..tail.len()].copy_from_slice(tail);
        // The golden ratio's fraction spreads what differs over the upper bits.
        let spread = u64::from_le_bytes(end).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        spread as usize % (self.marks.len() * 64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn exactly_those_are_among_them(few in prop::collection::vec("[a-c]{0,10}", 0..20), others in prop::collection::vec("[a-c]{0,10}", 0..50)) {
            let few: Vec<ContainerId> = few.into_iter().map(ContainerId).collect();
            let among = Among::new(&few);
            for other in others.into_iter().map(ContainerId).chain(few.clone()) {
                prop_assert_eq!(among.contains(&other), few.contains(&other));
            }
        }
    }
}

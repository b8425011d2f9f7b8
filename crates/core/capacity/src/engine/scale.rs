//! How amounts become numbers that are quick to compare: a share of the largest node's for the order of nodes, and the
//! upper bits, which refuse what cannot fit and leave the rest to the exact comparison. Integers only, so the same everywhere.

/// The largest node's amount is about 2 to the power of this as a share, so that sixteen dimensions can be added up.
const SHARE_BITS: u32 = 60;

/// One dimension.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Scale {
    largest: u64,
    factor: u64,
    /// Lower bits that do not count, where a share could not be so long.
    coarse_shift: u32,
    narrow_shift: u32,
}

impl Scale {
    /// `largest`: the most that a node can give.
    pub(super) fn new(largest: u64) -> Self {
        let bits = u64::BITS - largest.leading_zeros();
        let coarse_shift = bits.saturating_sub(SHARE_BITS);
        let factor = (1u64 << SHARE_BITS).checked_div(largest >> coarse_shift).unwrap_or(0);
        Self { largest, factor, coarse_shift, narrow_shift: bits.saturating_sub(i32::BITS - 1) }
    }

    /// What part of the largest node's an amount is: at most 2^60. An amount that is larger counts as the largest. As
    /// amounts are added, so are their shares.
    pub(super) fn share(&self, amount: u64) -> u64 {
        (amount.min(self.largest) >> self.coarse_shift) * self.factor
    }

    /// The same for amounts of any size.
    pub(super) fn measure(&self, amount: u64) -> u128 {
        u128::from(amount >> self.coarse_shift) * u128::from(self.factor)
    }

    /// The upper bits: of two amounts the larger never has the smaller ones.
    pub(super) fn narrow(&self, amount: u64) -> i32 {
        i32::try_from(amount >> self.narrow_shift).unwrap_or(i32::MAX)
    }

    /// Whether the upper bits are all there are.
    pub(super) fn is_exact(&self) -> bool {
        self.narrow_shift == 0
    }

    /// Whether amounts can be compared by it that are as large as this.
    pub(super) fn covers(&self, amount: u64) -> bool {
        amount <= self.largest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn more_is_never_less(largest: u64, a: u64, b: u64, shift in 0u32..64) {
            let (largest, a, b) = (largest >> shift, a >> shift, b >> shift);
            let scale = Scale::new(largest);
            let (less, more) = (a.min(b), a.max(b));
            prop_assert!(scale.narrow(less) <= scale.narrow(more));
            prop_assert!(scale.share(less) <= scale.share(more));
            prop_assert!(scale.measure(less) <= scale.measure(more));
            prop_assert!(scale.share(more) <= 1 << SHARE_BITS);
            if more <= largest {
                prop_assert_eq!(u128::from(scale.share(more)), scale.measure(more));
                // Nodes that differ are told apart, and what is added adds its share, unless they are too large for that.
                if largest >> SHARE_BITS == 0 {
                    prop_assert_eq!(less < more, scale.share(less) < scale.share(more));
                    prop_assert_eq!(scale.share(more - less), scale.share(more) - scale.share(less));
                }
                prop_assert!(!scale.is_exact() || (less < more) == (scale.narrow(less) < scale.narrow(more)));
            }
        }
    }
}

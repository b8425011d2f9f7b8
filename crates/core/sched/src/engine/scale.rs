//! How amounts become numbers that are quick to compare: a share of the largest node's for the order of nodes, and the
//! upper bits, which refuse what cannot fit and leave the rest to the exact comparison. Integers only, so the same everywhere.

/// A whole of one dimension is this many bits long as a share.
const SHARE_BITS: u32 = 60;

/// One dimension.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scale {
    largest: u64,
    factor: u64,
    narrow_shift: u32,
}

impl Scale {
    /// `largest`: the most that a node can give.
    pub(crate) fn new(largest: u64) -> Self {
        if largest == 0 {
            return Self::default();
        }
        let normal = u128::from(largest << largest.leading_zeros());
        let factor = (u128::MAX >> 1) / normal;
        let narrow_shift = (u64::BITS - largest.leading_zeros()).saturating_sub(i32::BITS - 1);
        Self { largest, factor: u64::try_from(factor).unwrap_or(u64::MAX), narrow_shift }
    }

    /// What part of the largest node's an amount is, in 2^-60: rounded down, never more for less, at most 2^60. An
    /// amount that is larger counts as the largest.
    pub(crate) fn share(&self, amount: u64) -> u64 {
        let normal = amount.min(self.largest) << self.largest.leading_zeros().min(63);
        ((u128::from(normal) * u128::from(self.factor)) >> (127 - SHARE_BITS)) as u64
    }

    /// The same for amounts of any size.
    pub(crate) fn measure(&self, amount: u64) -> u128 {
        if amount <= self.largest || self.largest == 0 {
            return self.share(amount).into();
        }
        (u128::from(amount / self.largest) << SHARE_BITS) + u128::from(self.share(amount % self.largest))
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
                // Nodes that differ are told apart, unless they are larger than the share is fine.
                prop_assert!(largest >> SHARE_BITS > 0 || (less < more) == (scale.share(less) < scale.share(more)));
                prop_assert!(!scale.is_exact() || (less < more) == (scale.narrow(less) < scale.narrow(more)));
            }
        }
    }
}

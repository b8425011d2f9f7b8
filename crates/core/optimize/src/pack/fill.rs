//! The selection of things from a pool that fills one node best: a depth-first search within a limit on steps. Knows no
//! nodes.

use crate::state::within;

/// How many things a pool may hold.
pub(super) const POOL_MAX: usize = 64;

/// One thing of a pool.
#[derive(Clone, Copy, Debug)]
pub(super) struct Thing<const D: usize> {
    pub(super) item: u32,
    pub(super) class: u32,
    pub(super) size: f64,
    pub(super) demand: [u64; D],
}

/// The search for one node.
pub(super) struct Fill<'a, const D: usize> {
    pool: &'a [Thing<D>],
    /// The sum of the sizes from each thing on.
    rest: Vec<f64>,
    enough: f64,
    best: f64,
    chosen: u64,
    pub(super) steps: usize,
    steps_max: usize,
}

impl<'a, const D: usize> Fill<'a, D> {
    /// The largest total size that fits into `free`, as bits over the pool; `enough` cannot be exceeded. Things are
    /// tried in the order of the pool.
    pub(super) fn best(pool: &'a [Thing<D>], free: &[u64; D], enough: f64, steps_max: usize) -> (u64, usize) {
        debug_assert!(pool.len() <= POOL_MAX);
        let mut rest = vec![0.0; pool.len() + 1];
        for at in (0..pool.len()).rev() {
            rest[at] = rest[at + 1] + pool[at].size;
        }
        let mut fill = Self { pool, rest, enough: enough * (1.0 - 1e-9), best: 0.0, chosen: 0, steps: 0, steps_max };
        fill.descend(0, free, 0.0, 0);
        (fill.chosen, fill.steps)
    }

    fn descend(&mut self, from: usize, free: &[u64; D], size: f64, chosen: u64) {
        if size > self.best {
            (self.best, self.chosen) = (size, chosen);
        }
        let mut skipped = u32::MAX;
        for at in from..self.pool.len() {
            if size + self.rest[at] <= self.best || self.best >= self.enough || self.steps >= self.steps_max {
                return;
            }
            self.steps += 1;
            let thing = &self.pool[at];
            if thing.class != skipped && within(&thing.demand, free) {
                let left = std::array::from_fn(|dimension| free[dimension] - thing.demand[dimension]);
                self.descend(at + 1, &left, size + thing.size, chosen | 1 << at);
            }
            // A second one of the same kind at the same position would only repeat the search.
            skipped = thing.class;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pool(demands: &[(u64, u64)]) -> Vec<Thing<2>> {
        let thing = |(item, (a, b)): (u32, &(u64, u64))| Thing {
            item,
            class: (a * 100 + b) as u32,
            size: (a + b) as f64,
            demand: [*a, *b],
        };
        (0..).zip(demands).map(thing).collect()
    }

    fn by_hand(pool: &[Thing<2>], free: [u64; 2]) -> f64 {
        let sums = (0_u32..1 << pool.len()).map(|bits| {
            let members = || pool.iter().filter(|thing| bits >> thing.item & 1 == 1);
            let used = |at: usize| members().map(|thing| thing.demand[at]).sum::<u64>();
            if used(0) <= free[0] && used(1) <= free[1] { members().map(|thing| thing.size).sum() } else { 0.0 }
        });
        sums.fold(0.0, f64::max)
    }

    proptest! {
        #[test]
        fn the_best_choice_is_found(
            demands in prop::collection::vec((0_u64..9, 0_u64..9), 0..9),
            free in (0_u64..20, 0_u64..20),
        ) {
            let pool = pool(&demands);
            let free = [free.0, free.1];
            let (chosen, _) = Fill::best(&pool, &free, f64::MAX, usize::MAX);
            let size: f64 = pool.iter().filter(|thing| chosen >> thing.item & 1 == 1).map(|thing| thing.size).sum();
            prop_assert_eq!(size, by_hand(&pool, free));
        }
    }
}

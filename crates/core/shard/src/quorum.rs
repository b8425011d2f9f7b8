//! Quorum arithmetic: when a write is acknowledged and when it can no longer be. Knows no replica by name.

/// How many of `replicas` make a majority: `RF/2 + 1`.
pub const fn majority(replicas: usize) -> usize {
    replicas / 2 + 1
}

/// Counts the answers to one replicated write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quorum {
    replicas: usize,
    good: usize,
    failed: usize,
}

impl Quorum {
    /// No answer yet from `replicas` copies.
    pub const fn new(replicas: usize) -> Self {
        Self { replicas, good: 0, failed: 0 }
    }

    /// One copy is durable.
    pub fn succeed(&mut self) {
        self.good += 1;
    }

    /// One copy failed.
    pub fn fail(&mut self) {
        self.failed += 1;
    }

    /// How many copies must be durable.
    pub const fn needed(&self) -> usize {
        majority(self.replicas)
    }

    /// How many copies are durable.
    pub const fn good(&self) -> usize {
        self.good
    }

    /// Whether a majority is durable.
    pub const fn reached(&self) -> bool {
        self.good >= self.needed()
    }

    /// Whether so many copies failed that a majority cannot come any more.
    pub const fn impossible(&self) -> bool {
        self.replicas.saturating_sub(self.failed) < self.needed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn majorities() {
        assert_eq!([1, 2, 3, 4, 5, 6, 7].map(majority), [1, 2, 2, 3, 3, 4, 4]);
    }

    #[test]
    fn any_two_majorities_share_a_replica() {
        for replicas in 1..100 {
            assert!(2 * majority(replicas) > replicas);
        }
    }

    #[test]
    fn a_write_is_decided_exactly_once() {
        for replicas in 1..9 {
            for good in 0..=replicas {
                let mut quorum = Quorum::new(replicas);
                (0..good).for_each(|_| quorum.succeed());
                (good..replicas).for_each(|_| quorum.fail());
                assert_ne!(quorum.reached(), quorum.impossible(), "{quorum:?}");
            }
        }
    }
}

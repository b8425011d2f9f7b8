//! How many containers each domain of a topology has: few numbers while few domains have any, since every node may be a
//! domain of its own. Knows no rules.

use std::collections::BTreeMap;

/// The number of a domain of one topology key.
pub type Domain = usize;

/// Domains that have some at most, before all of them get a place.
const SOME_DOMAINS_MAX: usize = 64;

/// Numbers by domain; zero where nothing was counted.
#[derive(Clone, Debug, Default)]
pub struct DomainCounts {
    some: BTreeMap<Domain, u32>,
    /// By domain, once too many have some.
    all: Vec<u32>,
    sum: u64,
}

impl DomainCounts {
    /// The number of a domain.
    #[inline]
    pub fn get(&self, domain: Domain) -> u32 {
        let count = if self.all.is_empty() { self.some.get(&domain) } else { self.all.get(domain) };
        count.copied().unwrap_or(0)
    }

    /// Whether no domain has any.
    #[inline]
    pub fn is_zero(&self) -> bool {
        self.sum == 0
    }

    /// Counts so many more.
    pub fn add(&mut self, domain: Domain, more: u32) {
        self.set(domain, self.get(domain).saturating_add(more));
    }

    /// Counts one less.
    pub fn take_one(&mut self, domain: Domain) {
        self.set(domain, self.get(domain).saturating_sub(1));
    }

    fn set(&mut self, domain: Domain, count: u32) {
        self.sum = self.sum - u64::from(self.get(domain)) + u64::from(count);
        if self.all.is_empty() && self.some.len() >= SOME_DOMAINS_MAX && !self.some.contains_key(&domain) {
            for (domain, count) in std::mem::take(&mut self.some) {
                self.place(domain, count);
            }
        }
        if self.all.is_empty() {
            self.some.insert(domain, count);
        } else {
            self.place(domain, count);
        }
    }

    fn place(&mut self, domain: Domain, count: u32) {
        if domain >= self.all.len() {
            self.all.resize(domain + 1, 0);
        }
        self.all[domain] = count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_counts(changes in prop::collection::vec((0usize..200, 0u32..3), 0..300)) {
            let (mut counts, mut model) = (DomainCounts::default(), [0u32; 200]);
            for (domain, more) in changes {
                if more == 0 {
                    counts.take_one(domain);
                    model[domain] = model[domain].saturating_sub(1);
                } else {
                    counts.add(domain, more);
                    model[domain] += more;
                }
                prop_assert_eq!(counts.is_zero(), model.iter().all(|count| *count == 0));
            }
            prop_assert!((0..200).all(|domain| counts.get(domain) == model[domain]));
        }
    }
}

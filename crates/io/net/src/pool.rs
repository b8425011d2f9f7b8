//! Assigns container addresses of one subnet. Pure; what is in use is rebuilt from the records on disk. Goes round
//! instead of taking the lowest free address, so that an address rests as long as possible before it is reused.

use std::{collections::BTreeSet, net::Ipv4Addr};

use ipnet::Ipv4Net;

use crate::{Error, Result};

/// Bound of one node: every address has one element in the source check of the bridge.
pub(crate) const ADDRESSES_MAX: u32 = 4094;

#[derive(Debug)]
pub(crate) struct AddressPool {
    subnet: Ipv4Net,
    in_use: BTreeSet<u32>,
    next: u32,
}

impl AddressPool {
    /// `in_use` are addresses that are already assigned; those outside the subnet are ignored.
    pub(crate) fn new(subnet: Ipv4Net, in_use: impl IntoIterator<Item = Ipv4Addr>) -> Self {
        let subnet = subnet.trunc();
        let mut pool = Self { subnet, in_use: BTreeSet::new(), next: 2 };
        pool.in_use = in_use.into_iter().filter_map(|ip| pool.number(ip)).collect();
        pool.next = pool.in_use.last().map_or(2, |last| pool.after(*last));
        pool
    }

    /// First address of the subnet: the bridge.
    pub(crate) fn gateway(&self) -> Ipv4Addr {
        self.address(1)
    }

    pub(crate) fn take(&mut self) -> Result<Ipv4Addr> {
        for _ in 2..=self.last() {
            let number = self.next;
            self.next = self.after(number);
            if self.in_use.insert(number) {
                return Ok(self.address(number));
            }
        }
        Err(Error::AddressesExhausted { subnet: self.subnet, in_use: self.in_use.len() })
    }

    pub(crate) fn release(&mut self, ip: Ipv4Addr) {
        if let Some(number) = self.number(ip) {
            self.in_use.remove(&number);
        }
    }

    /// All container addresses with their number in the subnet, the bridge's excluded.
    pub(crate) fn all(&self) -> impl Iterator<Item = (u32, Ipv4Addr)> + '_ {
        (2..=self.last()).map(|number| (number, self.address(number)))
    }

    /// Number of the address in the subnet, if it is one for containers.
    pub(crate) fn number(&self, ip: Ipv4Addr) -> Option<u32> {
        let number = u32::from(ip).checked_sub(u32::from(self.subnet.network()))?;
        (2..=self.last()).contains(&number).then_some(number)
    }

    fn last(&self) -> u32 {
        let broadcast = u32::from(self.subnet.broadcast()) - u32::from(self.subnet.network());
        (broadcast - 1).min(ADDRESSES_MAX)
    }

    fn after(&self, number: u32) -> u32 {
        if number >= self.last() { 2 } else { number + 1 }
    }

    fn address(&self, number: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.subnet.network()) + number)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pool(text: &str) -> AddressPool {
        AddressPool::new(text.parse().expect("a literal range"), [])
    }

    #[test]
    fn a_small_subnet_is_used_up_and_refilled() {
        let mut pool = pool("10.0.0.0/29");
        let given: Vec<_> = (0..5).map(|_| pool.take().expect("free").octets()[3]).collect();
        assert_eq!(given, [2, 3, 4, 5, 6]);
        assert!(matches!(pool.take(), Err(Error::AddressesExhausted { in_use: 5, .. })));
        pool.release(Ipv4Addr::new(10, 0, 0, 4));
        pool.release(Ipv4Addr::new(10, 0, 0, 4));
        assert_eq!(pool.take().expect("released"), Ipv4Addr::new(10, 0, 0, 4));
    }

    #[test]
    fn a_released_address_rests() {
        let mut pool = pool("10.0.0.0/24");
        let first = pool.take().expect("free");
        pool.release(first);
        assert_ne!(pool.take().expect("free"), first);
    }

    #[test]
    fn gateway_and_foreign_addresses_are_never_given() {
        let mut pool = pool("10.0.0.0/29");
        assert_eq!(pool.gateway(), Ipv4Addr::new(10, 0, 0, 1));
        pool.release(pool.gateway());
        pool.release(Ipv4Addr::new(10, 0, 0, 7));
        pool.release(Ipv4Addr::new(9, 9, 9, 9));
        let given: Vec<_> = std::iter::from_fn(|| pool.take().ok()).map(|ip| ip.octets()[3]).collect();
        assert_eq!(given, [2, 3, 4, 5, 6]);
    }

    #[test]
    fn a_large_subnet_is_bounded() {
        assert_eq!(pool("10.0.0.0/16").all().count(), ADDRESSES_MAX as usize - 1);
    }

    proptest! {
        #[test]
        fn no_address_is_given_twice(steps in prop::collection::vec(any::<Option<u8>>(), 1..200)) {
            let mut pool = pool("10.0.0.0/28");
            let mut held: Vec<Ipv4Addr> = Vec::new();
            for step in steps {
                match step {
                    Some(at) if !held.is_empty() => pool.release(held.swap_remove(usize::from(at) % held.len())),
                    _ => if let Ok(ip) = pool.take() {
                        prop_assert!(!held.contains(&ip));
                        held.push(ip);
                    } else {
                        prop_assert_eq!(held.len(), 13);
                    },
                }
            }
        }
    }
}

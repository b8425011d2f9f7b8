//! Bounds what is in flight, in all and for each client: one container must not silence the names of the others.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

#[derive(Debug)]
pub(crate) struct Limit {
    in_all_max: usize,
    per_client_max: usize,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    in_all: usize,
    by_client: BTreeMap<IpAddr, usize>,
}

/// One place in flight, given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    limit: Arc<Limit>,
    client: IpAddr,
}

impl Limit {
    /// A quarter of the places may be one client's, at least one.
    pub(crate) fn new(in_all_max: usize) -> Arc<Self> {
        let per_client_max = in_all_max.div_ceil(4);
        Arc::new(Self { in_all_max, per_client_max, counts: Mutex::default() })
    }

    pub(crate) fn take(self: &Arc<Self>, client: IpAddr) -> Option<Permit> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let held = counts.by_client.get(&client).copied().unwrap_or_default();
        if counts.in_all >= self.in_all_max || held >= self.per_client_max {
            return None;
        }
        counts.in_all += 1;
        counts.by_client.insert(client, held + 1);
        Some(Permit { limit: Arc::clone(self), client })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.limit.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.in_all = counts.in_all.saturating_sub(1);
        match counts.by_client.get_mut(&self.client) {
            Some(held) if *held > 1 => *held -= 1,
            _ => drop(counts.by_client.remove(&self.client)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    #[test]
    fn one_client_leaves_room_for_others_and_places_come_back() {
        let limit = Limit::new(8);
        let held: Vec<_> = std::iter::from_fn(|| limit.take(A)).collect();
        assert_eq!(held.len(), 2);
        let other = limit.take(B);
        assert!(other.is_some());
        drop(held);
        assert!(limit.take(A).is_some());
        drop(other);
        let counts = limit.counts.lock().expect("not poisoned");
        assert!(counts.in_all == 0 && counts.by_client.is_empty(), "{counts:?}");
    }

    #[test]
    fn the_sum_is_bounded_too() {
        let limit = Limit::new(4);
        let clients = (0..9).map(|n| IpAddr::from([10, 0, 0, n]));
        assert_eq!(clients.filter_map(|client| limit.take(client)).collect::<Vec<_>>().len(), 4);
        assert!(Limit::new(0).take(A).is_none());
    }
}

//! Bounds the queries in flight, in all and for each client: neither one container nor a few together may silence the
//! names of the others. When all slots are taken, the oldest of the client with the most gives way to a client that has
//! fewer.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::CancellationToken;

#[derive(Debug)]
pub(crate) struct Limit {
    in_all_max: usize,
    per_client_max: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    in_all: usize,
    next: u64,
    /// By age.
    by_client: BTreeMap<IpAddr, BTreeMap<u64, CancellationToken>>,
}

impl Held {
    fn count(&self, client: IpAddr) -> usize {
        self.by_client.get(&client).map_or(0, BTreeMap::len)
    }

    /// `None` if it was released before.
    fn remove(&mut self, client: IpAddr, id: u64) -> Option<CancellationToken> {
        let own = self.by_client.get_mut(&client)?;
        let lost = own.remove(&id)?;
        self.in_all -= 1;
        if own.is_empty() {
            self.by_client.remove(&client);
        }
        Some(lost)
    }

    /// Takes a slot from the client with the most, if it then still has more than `count`.
    fn evict(&mut self, count: usize) -> Option<()> {
        let (client, own) = self.by_client.iter().max_by_key(|(_, own)| own.len())?;
        let (client, id) = (*client, *own.keys().next().filter(|_| own.len() > count + 1)?);
        self.remove(client, id)?.cancel();
        Some(())
    }
}

/// One slot in flight, released when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    limit: Arc<Limit>,
    client: IpAddr,
    id: u64,
    lost: CancellationToken,
}

impl Permit {
    /// Cancelled when another client has taken the slot.
    pub(crate) fn lost(&self) -> &CancellationToken {
        &self.lost
    }
}

impl Limit {
    /// One client may have a quarter of the slots, but at least one.
    pub(crate) fn new(in_all_max: usize) -> Arc<Self> {
        let per_client_max = in_all_max.div_ceil(4);
        Arc::new(Self { in_all_max, per_client_max, held: Mutex::default() })
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn take(self: &Arc<Self>, client: IpAddr) -> Option<Permit> {
        let mut held = self.held();
        let own = held.count(client);
        if own >= self.per_client_max {
            return None;
        }
        if held.in_all >= self.in_all_max {
            held.evict(own)?;
        }
        let (id, lost) = (held.next, CancellationToken::new());
        held.next += 1;
        held.in_all += 1;
        held.by_client.entry(client).or_default().insert(id, lost.clone());
        Some(Permit { limit: Arc::clone(self), client, id, lost })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.limit.held().remove(self.client, self.id);
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
        let held = limit.held();
        assert!(held.in_all == 0 && held.by_client.is_empty(), "{held:?}");
    }

    #[test]
    fn a_few_who_have_everything_give_way_to_whoever_has_less() {
        let limit = Limit::new(8);
        let greedy: Vec<_> = (0..4).flat_map(|n| (0..2).map(move |_| IpAddr::from([10, 0, 1, n]))).collect();
        let greedy: Vec<_> = greedy.into_iter().map(|client| limit.take(client).expect("there is room")).collect();
        let late = limit.take(A).expect("somebody has two");
        assert_eq!(greedy.iter().filter(|permit| permit.lost().is_cancelled()).count(), 1);
        assert!(limit.take(A).is_none(), "nobody has more than it would have");
        assert!(limit.take(B).is_some() && !late.lost().is_cancelled());
        drop((greedy, late));
        assert_eq!(limit.held().in_all, 0, "what was taken away is counted once");
    }

    #[test]
    fn the_sum_is_bounded_too() {
        let limit = Limit::new(4);
        let clients = (0..9).map(|n| IpAddr::from([10, 0, 0, n]));
        assert_eq!(clients.filter_map(|client| limit.take(client)).collect::<Vec<_>>().len(), 4);
        assert!(Limit::new(0).take(A).is_none());
    }
}

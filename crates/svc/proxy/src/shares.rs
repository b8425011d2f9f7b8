//! How many connections each party may have open. Everybody in a role shares one bound. While there is room, anybody
//! takes it; when there is none, whoever has most gives way to whoever has less, an idle connection before a busy one.
//! So nobody can keep another out. Knows no socket.

use heptad_model::NodeName;
use heptad_route::Caller;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};
use tokio_util::sync::CancellationToken;

/// A party whose connections are counted together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Party {
    /// A container, or anybody outside, by the address from which the connection comes.
    Client(Caller, IpAddr),
    /// The proxy of another node, for itself.
    Node(Option<NodeName>),
    /// A caller on another node.
    Remote(Option<NodeName>, Caller),
}

impl Party {
    /// An IPv6 network is one party: whoever has one of its addresses usually has all.
    pub(crate) fn client(caller: Caller, address: IpAddr) -> Self {
        let address = match address.to_canonical() {
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
            v4 @ IpAddr::V4(_) => v4,
        };
        Self::Client(caller, address)
    }
}

/// The connections of one role.
#[derive(Debug)]
pub(crate) struct Shares {
    connections_max: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    open: usize,
    next_id: u64,
    /// By age.
    parties: BTreeMap<Party, BTreeMap<u64, Entry>>,
    /// The same parties by the number of their connections.
    by_size: BTreeSet<(usize, Party)>,
}

#[derive(Clone, Debug, Default)]
struct Entry {
    idle: Arc<AtomicBool>,
    evicted: CancellationToken,
}

/// The permit to have one connection open, until it is dropped or `evicted`.
#[derive(Debug)]
pub(crate) struct Place {
    shares: Arc<Shares>,
    party: Party,
    id: u64,
    entry: Entry,
}

impl Place {
    /// Cancelled when the connection must make room.
    pub(crate) fn evicted(&self) -> &CancellationToken {
        &self.entry.evicted
    }

    /// Set while the connection waits for its next request.
    pub(crate) fn idle(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.entry.idle)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shares.lock().remove(&self.party, self.id);
    }
}

impl Shares {
    pub(crate) fn new(connections_max: usize) -> Arc<Self> {
        Arc::new(Self { connections_max, state: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A slot for one more connection of `party`; `None` if nobody would have more than `party` with it, and none of the
    /// connections that could give way is idle.
    pub(crate) fn enter(self: &Arc<Self>, party: Party) -> Option<Place> {
        let mut state = self.lock();
        if state.open >= self.connections_max {
            let (victim, id) = state.victim(&party)?;
            let entry = state.remove(&victim, id)?;
            tracing::debug!(?party, ?victim, "a connection makes room for another");
            entry.evicted.cancel();
        }
        let entry = Entry::default();
        let id = state.add(party.clone(), entry.clone());
        Some(Place { shares: Arc::clone(self), party, id, entry })
    }

    /// How many connections are open.
    pub(crate) fn open(&self) -> usize {
        self.lock().open
    }

    pub(crate) fn connections_max(&self) -> usize {
        self.connections_max
    }
}

impl State {
    fn size(&self, party: &Party) -> usize {
        self.parties.get(party).map_or(0, BTreeMap::len)
    }

    /// Which connection gives way to one more of `party`.
    fn victim(&self, party: &Party) -> Option<(Party, u64)> {
        let (most, largest) = self.by_size.last()?;
        let has_more = *most > self.size(party) + 1;
        let of = |party: &Party, id: Option<u64>| Some((party.clone(), id?));
        let found = if has_more { None } else { of(party, self.idle_oldest(party)) };
        let found = found.or_else(|| of(largest, self.idle_oldest(largest)));
        found.or_else(|| if has_more { of(largest, self.newest(largest)) } else { None })
    }

    fn idle_oldest(&self, party: &Party) -> Option<u64> {
        self.parties.get(party)?.iter().find(|(_, entry)| entry.idle.load(Relaxed)).map(|(id, _)| *id)
    }

    fn newest(&self, party: &Party) -> Option<u64> {
        self.parties.get(party)?.keys().next_back().copied()
    }

    fn add(&mut self, party: Party, entry: Entry) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.open += 1;
        let size = self.size(&party);
        self.by_size.remove(&(size, party.clone()));
        self.by_size.insert((size + 1, party.clone()));
        self.parties.entry(party).or_default().insert(id, entry);
        id
    }

    /// `None` if it was removed before.
    fn remove(&mut self, party: &Party, id: u64) -> Option<Entry> {
        let size = self.size(party);
        let entries = self.parties.get_mut(party)?;
        let entry = entries.remove(&id)?;
        self.open -= 1;
        self.by_size.remove(&(size, party.clone()));
        if size == 1 {
            self.parties.remove(party);
        } else {
            self.by_size.insert((size - 1, party.clone()));
        }
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn party(last: u8) -> Party {
        Party::client(Caller::External, IpAddr::from([10, 0, 0, last]))
    }

    fn idle(place: &Place) {
        place.idle().store(true, Relaxed);
    }

    fn evicted(places: &[Place]) -> Vec<usize> {
        (0..places.len()).filter(|at| places[*at].evicted().is_cancelled()).collect()
    }

    #[test]
    fn who_has_most_gives_way_first_an_idle_connection_then_the_newest() {
        let shares = Shares::new(4);
        let many: Vec<Place> = (0..4).map(|_| shares.enter(party(1)).expect("there is room")).collect();
        idle(&many[2]);
        let first = shares.enter(party(2)).expect("it has less");
        assert_eq!(evicted(&many), [2]);
        let second = shares.enter(party(3)).expect("it has less");
        assert_eq!(evicted(&many), [2, 3], "none was idle");
        assert_eq!(shares.open(), 4);
        drop((first, second, many));
        assert_eq!(shares.open(), 0, "what was evicted is counted once");
        assert!(shares.lock().parties.is_empty() && shares.lock().by_size.is_empty());
    }

    #[test]
    fn who_has_most_replaces_only_its_own_idle_connections() {
        let shares = Shares::new(3);
        let other = shares.enter(party(2)).expect("there is room");
        idle(&other);
        let many: Vec<Place> = (0..2).map(|_| shares.enter(party(1)).expect("there is room")).collect();
        assert!(shares.enter(party(1)).is_none(), "nothing of its own is idle");
        idle(&many[0]);
        let _next = shares.enter(party(1)).expect("its own gives way");
        assert!(many[0].evicted().is_cancelled() && !other.evicted().is_cancelled());
    }

    #[test]
    fn many_idle_parties_keep_nobody_out() {
        let shares = Shares::new(8);
        let all: Vec<Place> = (0..8).map(|last| shares.enter(party(last)).expect("there is room")).collect();
        assert!(shares.enter(party(100)).is_none(), "all are in use, and nobody has more than one");
        all.iter().for_each(idle);
        let _place = shares.enter(party(100)).expect("somebody is idle");
        assert_eq!(evicted(&all).len(), 1);
    }

    #[test]
    fn a_network_of_ipv6_is_one_party_and_a_mapped_address_is_itself() {
        let of = |text: &str| Party::client(Caller::External, text.parse().expect("an address"));
        assert_eq!(of("2001:db8:0:1::1"), of("2001:db8:0:1:ffff::2"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8:0:2::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("::ffff:10.0.0.1"), of("::ffff:10.0.0.2"));
    }

    proptest::proptest! {
        /// Whatever the others do, a party that has less than its equal part of the slots gets one.
        #[test]
        fn who_has_less_than_its_part_gets_in(steps in proptest::collection::vec((0..6_u8, 0..3_u8), 0..400)) {
            let max = 24;
            let shares = Shares::new(max);
            let mut held: BTreeMap<u8, Vec<Place>> = BTreeMap::new();
            for (who, what) in steps {
                let mine = held.entry(who).or_default();
                mine.retain(|place| !place.evicted().is_cancelled());
                match what {
                    0 => drop(mine.pop()),
                    idle => {
                        let has = mine.len();
                        let entered = shares.enter(party(who));
                        proptest::prop_assert!(entered.is_some() || has + 1 >= max / 6, "{who} has {has}");
                        if let Some(place) = entered {
                            place.idle().store(idle == 1, Relaxed);
                            mine.push(place);
                        }
                    }
                }
                proptest::prop_assert!(shares.open() <= max);
            }
        }
    }
}

//! Connections whose peers are not identified yet. Their number is bounded, per address and altogether, and a new one
//! never waits: if there is no seat, the oldest of the address with the most loses its own. So silent connections delay
//! nobody, wherever they come from.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio_util::sync::CancellationToken;

type Seats = HashMap<IpAddr, BTreeMap<u64, CancellationToken>>;

#[derive(Debug, Default)]
struct Room {
    seats: Seats,
    taken: usize,
    next: u64,
}

/// The seats of unidentified connections.
#[derive(Clone, Debug)]
pub struct Strangers {
    room: Arc<Mutex<Room>>,
    all_max: usize,
    each_max: usize,
}

/// The seat of one connection, as long as its peer is unidentified.
#[derive(Debug)]
pub struct Seat {
    room: Arc<Mutex<Room>>,
    address: IpAddr,
    id: u64,
    lost: CancellationToken,
}

/// The party behind an address: whoever has one IPv6 address has its whole 64-bit network.
pub fn party(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) if !v6.is_loopback() => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        // All addresses of this machine are one party.
        v4_or_loopback if v4_or_loopback.is_loopback() => Ipv6Addr::LOCALHOST.into(),
        other => other,
    }
}

fn lock(room: &Mutex<Room>) -> MutexGuard<'_, Room> {
    room.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Room {
    /// Frees the oldest seat of `address`.
    fn evict(&mut self, address: IpAddr) {
        let Some(seats) = self.seats.get_mut(&address) else { return };
        if let Some((_, lost)) = seats.pop_first() {
            lost.cancel();
            self.taken -= 1;
        }
        if seats.is_empty() {
            self.seats.remove(&address);
        }
    }

    /// The address with the most seats; of several, the one with the oldest.
    fn greediest(&self) -> Option<IpAddr> {
        let oldest = |seats: &BTreeMap<u64, _>| seats.keys().next().copied().unwrap_or(u64::MAX);
        self.seats
            .iter()
            .max_by_key(|(_, seats)| (seats.len(), std::cmp::Reverse(oldest(seats))))
            .map(|(address, _)| *address)
    }
}

impl Strangers {
    /// Seats for `all_max` connections, of which one address has at most `each_max`. The addresses of this machine
    /// cannot be told apart and have no bound of their own.
    pub fn new(all_max: usize, each_max: usize) -> Self {
        Self { room: Arc::default(), all_max: all_max.max(1), each_max: each_max.max(1) }
    }

    /// A seat for a new connection.
    pub fn seat(&self, address: IpAddr) -> Seat {
        let address = party(address);
        let each_max = if address.is_loopback() { self.all_max } else { self.each_max };
        let mut room = lock(&self.room);
        if room.seats.get(&address).is_some_and(|seats| seats.len() >= each_max) {
            room.evict(address);
        } else if room.taken >= self.all_max
            && let Some(greediest) = room.greediest()
        {
            room.evict(greediest);
        }
        let (id, lost) = (room.next, CancellationToken::new());
        room.next += 1;
        room.taken += 1;
        room.seats.entry(address).or_default().insert(id, lost.clone());
        Seat { room: self.room.clone(), address, id, lost }
    }
}

impl Seat {
    /// Cancelled when another connection has taken this seat: this one must close.
    pub fn lost(&self) -> &CancellationToken {
        &self.lost
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut room = lock(&self.room);
        let Some(seats) = room.seats.get_mut(&self.address) else { return };
        let mine = seats.remove(&self.id).is_some();
        let last = seats.is_empty();
        room.taken -= usize::from(mine);
        if last {
            room.seats.remove(&self.address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    #[test]
    fn a_new_connection_takes_the_oldest_seat_of_its_own_address() {
        let strangers = Strangers::new(8, 2);
        let (first, other) = (strangers.seat(at(1)), strangers.seat(at(2)));
        let second = strangers.seat(at(1));
        let third = strangers.seat(at(1));
        let lost = [&first, &second, &third, &other].map(|seat| seat.lost().is_cancelled());
        assert_eq!(lost, [true, false, false, false]);
    }

    #[test]
    fn a_full_room_is_at_the_cost_of_who_has_most() {
        let strangers = Strangers::new(4, 3);
        let many: Vec<Seat> = (0..3).map(|_| strangers.seat(at(1))).collect();
        let (quiet, new) = (strangers.seat(at(2)), strangers.seat(at(3)));
        assert!(many[0].lost().is_cancelled() && !many[1].lost().is_cancelled());
        assert!(!quiet.lost().is_cancelled() && !new.lost().is_cancelled());
    }

    #[test]
    fn addresses_of_one_party_are_one() {
        let party = |text: &str| party(text.parse().expect("an address")).to_string();
        assert_eq!(party("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(party("::ffff:10.0.0.1"), "10.0.0.1");
        assert_eq!([party("127.0.0.1"), party("127.9.9.9"), party("::1")], ["::1", "::1", "::1"]);
    }

    proptest! {
        #[test]
        fn the_newest_always_has_a_seat_and_bounds_hold(steps in prop::collection::vec((0_u8..6, any::<bool>()), 1..200)) {
            let strangers = Strangers::new(6, 3);
            let mut held: Vec<(u8, Seat)> = Vec::new();
            for (who, comes) in steps {
                if comes {
                    held.push((who, strangers.seat(at(who))));
                    prop_assert!(!held[held.len() - 1].1.lost().is_cancelled());
                } else if let Some(place) = held.iter().position(|(holder, _)| *holder == who) {
                    held.remove(place);
                }
                let seated = |of: Option<u8>| {
                    held.iter().filter(|(who, seat)| of.is_none_or(|of| of == *who) && !seat.lost().is_cancelled()).count()
                };
                prop_assert!(seated(None) <= 6 && (0..6).all(|who| seated(Some(who)) <= 3));
                prop_assert_eq!(seated(None), lock(&strangers.room).taken);
            }
            drop(held);
            prop_assert!(lock(&strangers.room).seats.is_empty());
        }
    }
}

//! The ledger against a small world of nodes that lose disks, miss writes and come back, with a check that goes on meanwhile.

use super::*;
use crate::StorageNode;
use proptest::prelude::*;

const SHARDS: u32 = 6;

fn name(node: usize) -> StorageNodeName {
    StorageNodeName(format!("n{node}"))
}

fn placement(nodes: usize) -> PlacementMap {
    let nodes: Vec<StorageNode> = (0..nodes).map(|node| StorageNode::new(&name(node).0, 10)).collect();
    PlacementMap::build(&nodes, 3, SHARDS).unwrap()
}

fn opening(number: u128) -> Opening {
    Opening { disk: 1, number }
}

fn openings(of: [u128; 3]) -> Openings {
    of.iter().enumerate().map(|(node, number)| (name(node), opening(*number))).collect()
}

fn checked(ledger: &mut Ledger, now: &Openings) {
    ledger.begin(7, now.clone(), placement(3));
    ledger.finish(now);
}

fn whole(ledger: &Ledger, now: &Openings) -> usize {
    SHARDS as usize - ledger.known().degraded(&placement(3), now).len()
}

#[test]
fn nothing_is_whole_before_it_was_looked_at() {
    let (mut ledger, now) = (Ledger::default(), openings([1, 1, 1]));
    assert_eq!(whole(&ledger, &now), 0);
    checked(&mut ledger, &now);
    assert_eq!((whole(&ledger, &now), ledger.known().checked_unix_ms), (6, Some(7)));
}

#[test]
fn a_disk_that_was_opened_again_is_unknown() {
    let mut ledger = Ledger::default();
    checked(&mut ledger, &openings([1, 1, 1]));
    let again = openings([1, 2, 1]);
    let degraded = ledger.known().degraded(&placement(3), &again);
    assert_eq!((degraded.len(), degraded[0].copies_unchecked, degraded[0].copies_good), (6, 1, 2));
    // It was opened again while the check went on.
    ledger.begin(8, openings([1, 1, 1]), placement(3));
    ledger.finish(&again);
    assert_eq!(whole(&ledger, &again), 0);
    checked(&mut ledger, &again);
    assert_eq!(whole(&ledger, &again), 6);
}

#[test]
fn a_node_that_was_away_is_unknown_although_its_disk_is_the_same() {
    let (mut ledger, now) = (Ledger::default(), openings([1, 1, 1]));
    checked(&mut ledger, &now);
    assert!(ledger.lose_sight(&name(0)) && !ledger.lose_sight(&name(0)));
    assert_eq!(whole(&ledger, &now), 0);
    ledger.begin(8, now.clone(), placement(3));
    ledger.lose_sight(&name(0));
    ledger.finish(&now);
    assert_eq!(whole(&ledger, &now), 0);
}

#[test]
fn a_missed_copy_counts_at_once_and_until_a_check_that_began_later() {
    let (mut ledger, now) = (Ledger::default(), openings([1, 1, 1]));
    checked(&mut ledger, &now);
    ledger.begin(8, now.clone(), placement(3));
    ledger.miss(&name(2), ShardId(4));
    assert_eq!(whole(&ledger, &now), 5);
    ledger.finish(&now);
    assert_eq!(whole(&ledger, &now), 5);
    checked(&mut ledger, &now);
    assert_eq!(whole(&ledger, &now), 6);
}

#[test]
fn copies_that_a_new_placement_wants_are_unknown() {
    let mut ledger = Ledger::default();
    checked(&mut ledger, &openings([1, 1, 1]));
    let grown = placement(4);
    let mut now = openings([1, 1, 1]);
    now.insert(name(3), opening(1));
    let with_new = grown.shards.iter().filter(|nodes| nodes.contains(&name(3))).count();
    assert_eq!(ledger.known().degraded(&grown, &now).len(), with_new);
    // The placement changes under a check.
    ledger.begin(8, now.clone(), PlacementMap { epoch: 7, ..placement(3) });
    ledger.moved(&PlacementMap { epoch: 8, ..grown.clone() });
    ledger.finish(&now);
    assert_eq!(ledger.known().degraded(&grown, &now).len(), with_new);
}

#[test]
fn knowledge_travels_as_json() {
    let mut ledger = Ledger::default();
    checked(&mut ledger, &openings([1, u128::MAX, 1]));
    ledger.miss(&name(1), ShardId(3));
    let text = serde_json::to_string(ledger.known()).unwrap();
    assert_eq!(&serde_json::from_str::<Knowledge>(&text).unwrap(), ledger.known());
}

#[derive(Clone, Debug)]
enum Event {
    /// A blob of a shard is written; a node may miss it.
    Write(u32, Option<usize>),
    /// A node gets a new, empty disk.
    NewDisk(usize),
    /// A node does not answer for a moment; a blob of a shard is written meanwhile, by a coordinator that notices.
    Away(usize, u32),
    /// A check begins.
    Begin,
    /// The check goes through the next shard, and restores what it finds missing.
    Look,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (0..SHARDS, prop::option::of(0..3usize)).prop_map(|(shard, missed)| Event::Write(shard, missed)),
        1 => (0..3usize).prop_map(Event::NewDisk),
        1 => (0..3usize, 0..SHARDS).prop_map(|(node, shard)| Event::Away(node, shard)),
        2 => Just(Event::Begin),
        12 => Just(Event::Look),
    ]
}

/// Three nodes, each with the blobs that it holds: (shard, number).
#[derive(Default)]
struct World {
    held: [BTreeSet<(u32, u64)>; 3],
    numbers: [u128; 3],
    written: BTreeSet<(u32, u64)>,
    at: Option<u32>,
    ledger: Ledger,
}

impl World {
    fn write(&mut self, shard: u32, missed: Option<usize>) {
        let blob = (shard, self.written.len() as u64);
        self.written.insert(blob);
        for node in (0..3).filter(|node| Some(*node) != missed) {
            self.held[node].insert(blob);
        }
    }

    fn step(&mut self, event: &Event) {
        match *event {
            Event::Write(shard, missed) => {
                self.write(shard, missed);
                if let Some(node) = missed {
                    self.ledger.miss(&name(node), ShardId(shard));
                }
            }
            Event::NewDisk(node) => {
                self.held[node].clear();
                self.numbers[node] += 1;
            }
            Event::Away(node, shard) => {
                self.write(shard, Some(node));
                self.ledger.lose_sight(&name(node));
            }
            Event::Begin => {
                self.ledger.begin(1, openings(self.numbers), placement(3));
                self.at = Some(0);
            }
            Event::Look => match self.at {
                Some(SHARDS) => {
                    self.ledger.finish(&openings(self.numbers));
                    self.at = None;
                }
                Some(shard) => {
                    let of_shard: BTreeSet<_> = self.written.iter().filter(|(s, _)| *s == shard).copied().collect();
                    for blob in of_shard {
                        if self.held.iter().any(|held| held.contains(&blob)) {
                            self.held.iter_mut().for_each(|held| held.extend([blob]));
                        } else {
                            self.ledger.found_lost(ShardId(shard));
                        }
                    }
                    self.at = Some(shard + 1);
                }
                None => {}
            },
        }
    }
}

proptest! {
    /// What is said to be whole is on all three nodes.
    #[test]
    fn whole_means_that_every_copy_is_there(events in prop::collection::vec(event(), 1..120)) {
        let mut world = World::default();
        for event in &events {
            world.step(event);
            let degraded = world.ledger.known().degraded(&placement(3), &openings(world.numbers));
            let degraded: BTreeSet<u32> = degraded.iter().map(|shard| shard.shard.0).collect();
            for blob in world.written.iter().filter(|(shard, _)| !degraded.contains(shard)) {
                prop_assert!(world.held.iter().all(|held| held.contains(blob)), "{blob:?} after {event:?}");
            }
        }
    }
}

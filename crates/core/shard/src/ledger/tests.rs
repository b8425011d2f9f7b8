//! What is known against a small world of nodes that lose disks, miss writes and come back, with two coordinators that both write
//! and check, and hand over what they notice.

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

fn begun(now: &Openings) -> Check {
    Check::begin(7, now.clone(), placement(3))
}

fn checked(now: &Openings) -> Knowledge {
    begun(now).finish(now)
}

fn whole(known: &Knowledge, now: &Openings) -> usize {
    SHARDS as usize - known.degraded(&placement(3), now).len()
}

#[test]
fn nothing_is_whole_before_it_was_looked_at() {
    let now = openings([1, 1, 1]);
    assert_eq!(whole(&Knowledge::default(), &now), 0);
    let known = checked(&now);
    assert_eq!((whole(&known, &now), known.checked_unix_ms), (6, Some(7)));
}

#[test]
fn a_disk_that_was_opened_again_is_unknown() {
    let (first, again) = (openings([1, 1, 1]), openings([1, 2, 1]));
    let degraded = checked(&first).degraded(&placement(3), &again);
    assert_eq!((degraded.len(), degraded[0].copies_unchecked, degraded[0].copies_good), (6, 1, 2));
    // It was opened again while the check went on.
    assert_eq!(whole(&begun(&first).finish(&again), &again), 0);
    assert_eq!(whole(&checked(&again), &again), 6);
}

#[test]
fn a_node_that_was_away_is_unknown_although_its_disk_is_the_same() {
    let (mut notes, now) = (Notes::default(), openings([1, 1, 1]));
    notes.lose_sight(&name(0));
    let known = checked(&now).with(&notes);
    assert_eq!(whole(&known, &now), 0);
    assert!(!known.has_seen(&name(0), opening(1)) && known.has_seen(&name(1), opening(1)));
}

#[test]
fn a_missed_copy_counts_whoever_has_noticed_it() {
    let (mut notes, mut others, now) = (Notes::default(), Notes::default(), openings([1, 1, 1]));
    notes.miss(&name(2), ShardId(4));
    others.miss(&name(1), ShardId(3));
    assert_eq!(whole(&checked(&now).with(&notes), &now), 5);
    notes.add(&others);
    assert_eq!(whole(&checked(&now).with(&notes), &now), 4);
    let mut check = begun(&now);
    check.miss(&name(0), ShardId(4));
    let known = check.finish(&now);
    assert!(known.misses(&name(0), ShardId(4)) && !known.misses(&name(2), ShardId(4)));
    assert_eq!(whole(&known.with(&notes), &now), 4);
}

#[test]
fn no_shard_is_whole_while_a_record_is_not_readable() {
    let now = openings([1, 1, 1]);
    let mut check = begun(&now);
    check.found_unreadable();
    let known = check.finish(&now);
    assert_eq!((whole(&known, &now), known.records_unreadable()), (0, 1));
    assert!(known.has_seen(&name(0), opening(1)), "another check would not see more");
}

#[test]
fn notes_are_bounded() {
    let mut notes = Notes::default();
    for shard in 0..2 * COPIES_NOTED_MAX as u32 {
        notes.miss(&name((shard % 3) as usize), ShardId(shard));
        assert!(notes.missed.values().map(BTreeSet::len).sum::<usize>() <= COPIES_NOTED_MAX);
    }
    // The first ones are not forgotten.
    assert!((0..3).all(|node| notes.lost.contains(&name(node))));
}

#[test]
fn copies_that_a_new_placement_wants_are_unknown() {
    let first = openings([1, 1, 1]);
    let grown = placement(4);
    let mut now = first.clone();
    now.insert(name(3), opening(1));
    let with_new = grown.shards.iter().filter(|nodes| nodes.contains(&name(3))).count();
    assert_eq!(checked(&first).degraded(&grown, &now).len(), with_new);
    // The placement changes under a check.
    let mut check = Check::begin(8, now.clone(), PlacementMap { epoch: 7, ..placement(3) });
    check.moved(&PlacementMap { epoch: 8, ..grown.clone() });
    assert_eq!(check.finish(&now).degraded(&grown, &now).len(), with_new);
}

#[test]
fn what_is_known_travels_as_json() {
    let now = openings([1, u128::MAX, 1]);
    let mut check = begun(&now);
    check.miss(&name(1), ShardId(3));
    let known = check.finish(&now);
    let text = serde_json::to_string(&known).unwrap();
    assert_eq!(serde_json::from_str::<Knowledge>(&text).unwrap(), known);
    let mut notes = Notes::default();
    notes.miss(&name(1), ShardId(3));
    notes.lose_sight(&name(2));
    let text = serde_json::to_string(&notes).unwrap();
    assert_eq!(serde_json::from_str::<Notes>(&text).unwrap(), notes);
}

#[derive(Clone, Debug)]
enum Event {
    /// A coordinator writes a blob of a shard; a node may miss it.
    Write(usize, u32, Option<usize>),
    /// A node gets a new, empty disk.
    NewDisk(usize),
    /// A node does not answer a coordinator for a moment, which writes a blob of a shard meanwhile.
    Away(usize, usize, u32),
    /// What a coordinator has noticed reaches its row.
    HandOver(usize),
    /// A coordinator begins a check.
    Begin(usize),
    /// Its check goes through the next shard, and restores what it finds missing; but not on a node that is full.
    Look(usize, Option<usize>),
}

fn event() -> impl Strategy<Value = Event> {
    let node = || prop::option::of(0..3usize);
    prop_oneof![
        3 => (0..2usize, 0..SHARDS, node()).prop_map(|(by, shard, missed)| Event::Write(by, shard, missed)),
        1 => (0..3usize).prop_map(Event::NewDisk),
        1 => (0..2usize, 0..3usize, 0..SHARDS).prop_map(|(by, node, shard)| Event::Away(by, node, shard)),
        3 => (0..2usize).prop_map(Event::HandOver),
        2 => (0..2usize).prop_map(Event::Begin),
        14 => (0..2usize).prop_map(|by| Event::Look(by, None)),
        2 => (0..2usize, node()).prop_map(|(by, full)| Event::Look(by, full)),
    ]
}

/// Something with a number that grows with each change.
type Row<T> = (u64, T);

/// A check and where it is.
struct Pass {
    check: Check,
    at: u32,
    /// What the rows said before it began.
    notes: [Row<Notes>; 2],
    before: Row<Knowledge>,
    is_told: bool,
}

/// Three nodes, each with the blobs that it holds: (shard, number). Two coordinators and the rows that they share.
#[derive(Default)]
struct World {
    held: [BTreeSet<(u32, u64)>; 3],
    numbers: [u128; 3],
    written: BTreeSet<(u32, u64)>,
    passes: [Option<Pass>; 2],
    noticed: [Notes; 2],
    rows: [Row<Notes>; 2],
    known: Row<Knowledge>,
}

impl World {
    fn write(&mut self, shard: u32, missed: Option<usize>) {
        let blob = (shard, self.written.len() as u64);
        self.written.insert(blob);
        for node in (0..3).filter(|node| Some(*node) != missed) {
            self.held[node].insert(blob);
        }
    }

    fn hand_over(&mut self, by: usize) {
        let notes = std::mem::take(&mut self.noticed[by]);
        if !notes.is_empty() {
            self.rows[by].0 += 1;
            self.rows[by].1.add(&notes);
        }
    }

    fn step(&mut self, event: &Event) {
        match *event {
            Event::Write(by, shard, missed) => {
                self.write(shard, missed);
                if let Some(node) = missed {
                    self.noticed[by].miss(&name(node), ShardId(shard));
                }
            }
            Event::NewDisk(node) => {
                self.held[node].clear();
                self.numbers[node] += 1;
            }
            Event::Away(by, node, shard) => {
                self.write(shard, Some(node));
                self.noticed[by].lose_sight(&name(node));
            }
            Event::HandOver(by) => self.hand_over(by),
            Event::Begin(by) => {
                self.hand_over(by);
                let check = Check::begin(1, openings(self.numbers), placement(3));
                let (notes, before) = (self.rows.clone(), self.known.clone());
                self.passes[by] = Some(Pass { check, at: 0, notes, before, is_told: false });
            }
            Event::Look(by, full) => {
                if let Some(pass) = self.passes[by].take() {
                    self.passes[by] = self.look(by, pass, full);
                }
            }
        }
    }

    fn look(&mut self, by: usize, mut pass: Pass, full: Option<usize>) -> Option<Pass> {
        if pass.at < SHARDS {
            let shard = pass.at;
            let of_shard: BTreeSet<_> = self.written.iter().filter(|(s, _)| *s == shard).copied().collect();
            for blob in of_shard {
                if !self.held.iter().any(|held| held.contains(&blob)) {
                    pass.check.found_lost(ShardId(shard));
                    continue;
                }
                for node in (0..3).filter(|node| !self.held[*node].contains(&blob)).collect::<Vec<_>>() {
                    if Some(node) != full {
                        self.held[node].insert(blob);
                        continue;
                    }
                    pass.check.miss(&name(node), ShardId(shard));
                    if !pass.before.1.misses(&name(node), ShardId(shard)) {
                        self.noticed[by].miss(&name(node), ShardId(shard));
                    }
                }
            }
            pass.at += 1;
            return Some(pass);
        }
        if !pass.is_told {
            if self.known.0 != pass.before.0 {
                return None;
            }
            self.known = (pass.before.0 + 1, pass.check.clone().finish(&openings(self.numbers)));
            pass.is_told = true;
            return Some(pass);
        }
        for (row, before) in self.rows.iter_mut().zip(&pass.notes) {
            if row.0 == before.0 && !row.1.is_empty() {
                *row = (row.0 + 1, Notes::default());
            }
        }
        None
    }

    /// What both coordinators say once each has handed over what it has noticed by now.
    fn degraded(&self) -> BTreeSet<u32> {
        let mut notes = Notes::default();
        self.rows.iter().for_each(|row| notes.add(&row.1));
        self.noticed.iter().for_each(|noticed| notes.add(noticed));
        let degraded = self.known.1.clone().with(&notes).degraded(&placement(3), &openings(self.numbers));
        degraded.iter().map(|shard| shard.shard.0).collect()
    }
}

proptest! {
    /// What is said to be whole is on all three nodes, but for what another coordinator has noticed and not yet handed over.
    #[test]
    fn whole_means_that_every_copy_is_there(events in prop::collection::vec(event(), 1..160)) {
        let mut world = World::default();
        for event in &events {
            world.step(event);
            let degraded = world.degraded();
            for blob in world.written.iter().filter(|(shard, _)| !degraded.contains(shard)) {
                prop_assert!(world.held.iter().all(|held| held.contains(blob)), "{blob:?} after {event:?}");
            }
        }
    }
}
